// Which kernel runs a forward pass of the selective scan.
#include "cuda/selective_scan_forward.h"

#include "cuda/operators.h"

namespace ssm::cuda {

void selective_scan_forward(const ScanForward& scan) { selective_scan_forward_general(scan); }

}  // namespace ssm::cuda
