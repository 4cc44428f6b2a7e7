#include "cuda/selective_scan_tiled_launch.cuh"

namespace ssm::cuda {

template void launch_tiled<2>(const TiledLaunch& how, const TiledForward& params);

}  // namespace ssm::cuda
