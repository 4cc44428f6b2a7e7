#include "cuda/selective_scan_general.cuh"

#include "cuda/grid.h"
#include "cuda/selective_scan_forward.h"

namespace ssm::cuda {

void selective_scan_forward_general(const ScanForward& scan, void* states) {
  const ScanInputs& in = scan.in;
  const int32_t lanes = general_lanes(in.states, in.complex_A);
  const GeneralForward params = {scan, states, lanes};
  const int64_t threads = in.sequences().count * in.channels * lanes;
  const LaunchShape shape = {grid_of(divide_up(threads, kGeneralThreads)), dim3(kGeneralThreads)};
  if (in.dtype == DType::f64)
    launch(in.complex_A ? scan_general<double, true> : scan_general<double, false>, shape, in.cuda, params);
  else
    launch(in.complex_A ? scan_general<float, true> : scan_general<float, false>, shape, in.cuda, params);
}

}  // namespace ssm::cuda
