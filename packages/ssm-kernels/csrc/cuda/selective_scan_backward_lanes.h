// The kernel of the scan's backward pass that shares the states of a channel between lanes.
#pragma once

#include "cuda/selective_scan_backward.cuh"

namespace ssm::cuda {

void launch_scan_backward_lanes(const ScanBackwardLaunch& p, const LaunchShape& shape);

}  // namespace ssm::cuda
