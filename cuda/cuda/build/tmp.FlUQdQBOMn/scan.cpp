#include "core.h"
#include "/tmp/w/cudashards/cuda/cuda/build/tmp.FlUQdQBOMn/scan.cu"
