#include "core.h"
#include "/tmp/w/cudashards/cuda/cuda/build/tmp.KQ3Me4Eayr/scan.cu"
