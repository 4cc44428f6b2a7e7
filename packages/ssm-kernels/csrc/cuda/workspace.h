// Scratch memory of kernels: always torch's, so that it is counted, reused and safe in CUDA graphs.
#pragma once

#include <cstdint>

#include "params.h"

namespace ssm::cuda {

// `bytes` of memory on the device of a call, 256-byte aligned; freed when the call is over, in the order of its stream.
// nullptr for 0 bytes.  Asks Python, so at most once per call (bind_cuda.cpp).
char* allocate(const CudaCall& call, int64_t bytes);

}  // namespace ssm::cuda
