#include "core.h"
#include "/tmp/w/cudashards/cuda/cuda/build/tmp.JqXtbZE50b/scan.cu"
