#include "core.h"
#include "/tmp/w/cudashards/cuda/cuda/build/tmp.dYfrmgXKuZ/scan.cu"
