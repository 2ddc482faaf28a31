#include "core.h"
#include "/tmp/w/cudashards/cuda/cuda/build/tmp.pMqxAs70D4/scan.cu"
