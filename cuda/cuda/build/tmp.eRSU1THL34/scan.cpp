#include "core.h"
#include "/tmp/w/cudashards/cuda/cuda/build/tmp.eRSU1THL34/scan.cu"
