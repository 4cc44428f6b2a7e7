// The kernels between which the forward pass of the selective scan chooses.
#pragma once

#include "params.h"

namespace ssm::cuda {

// Serves every case.  states: (sequences, d, n) in the compute type, in which they live while the kernel runs;
// after that it holds the final ones.
void selective_scan_forward_general(const ScanForward& scan, void* states);

}  // namespace ssm::cuda
