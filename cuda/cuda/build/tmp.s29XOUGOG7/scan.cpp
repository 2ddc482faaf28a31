#include "core.h"
#include "/tmp/w/cudashards/cuda/cuda/build/tmp.s29XOUGOG7/scan.cu"
