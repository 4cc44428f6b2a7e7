// The kernels between which the forward pass of the selective scan chooses.
#pragma once

#include "params.h"

namespace ssm::cuda {

// Serves every case.  final_state must be there: states live in it while the kernel runs.
void selective_scan_forward_general(const ScanForward& scan);

}  // namespace ssm::cuda
