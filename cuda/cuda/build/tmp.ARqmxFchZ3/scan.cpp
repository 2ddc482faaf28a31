#include "core.h"
#include "/tmp/w/cudashards/cuda/cuda/build/tmp.ARqmxFchZ3/scan.cu"
