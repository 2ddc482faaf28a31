#include "core.h"
#include "/tmp/w/cudashards/cuda/cuda/build/tmp.Xp0pWTfvii/scan.cu"
