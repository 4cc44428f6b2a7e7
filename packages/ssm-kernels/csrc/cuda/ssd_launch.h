// Launches of the SSD scan.
#pragma once

#include <type_traits>

#include "cuda/grid.h"
#include "cuda/ssd_chunk.cuh"

namespace ssm::cuda {

inline LaunchShape ssd_grid(int64_t blocks, int64_t tiles, int64_t shared_bytes) {
  return {grid_of(blocks, tiles), dim3(kTileThreads), shared_bytes};
}

template <DType T>
using DTypeConstant = std::integral_constant<DType, T>;

// Calls work(DTypeConstant<dtype>()).
template <class Work>
void with_dtype(DType dtype, const Work& work) {
  switch (dtype) {
    case DType::f32: return work(DTypeConstant<DType::f32>());
    case DType::f64: return work(DTypeConstant<DType::f64>());
    case DType::bf16: return work(DTypeConstant<DType::bf16>());
    case DType::f16: return work(DTypeConstant<DType::f16>());
  }
}

}  // namespace ssm::cuda
