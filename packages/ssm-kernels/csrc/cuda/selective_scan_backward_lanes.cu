#include "cuda/selective_scan_backward_lanes.h"

#include "cuda/selective_scan_backward_lanes.cuh"

namespace ssm::cuda {
namespace {

template <bool kGated>
void launch_lanes(const ScanBackwardLaunch& p, const LaunchShape& shape) {
  const CudaCall& call = p.calls[0].in.cuda;
  switch (p.plan.lanes) {
    case 2: return launch(scan_backward_lanes<2, kGated>, shape, call, p);
    case 4: return launch(scan_backward_lanes<4, kGated>, shape, call, p);
    case 8: return launch(scan_backward_lanes<8, kGated>, shape, call, p);
    case 16: return launch(scan_backward_lanes<16, kGated>, shape, call, p);
    default: return launch(scan_backward_lanes<32, kGated>, shape, call, p);
  }
}

}  // namespace

void launch_scan_backward_lanes(const ScanBackwardLaunch& p, const LaunchShape& shape) {
  if (p.calls[0].in.z.data != nullptr) launch_lanes<true>(p, shape);
  else launch_lanes<false>(p, shape);
}

}  // namespace ssm::cuda
