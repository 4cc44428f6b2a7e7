// The outputs of several directions of a scan, added up and gated.
#pragma once

#include "cuda/functions.cuh"
#include "cuda/grid.h"
#include "cuda/numbers.h"

namespace ssm::cuda {

constexpr int kSumThreads = 256;

struct DirectionSum {
  View3 y, z;          // y holds the first direction, and then the result; z may be absent
  const float* terms;  // (count, b, l, d) of the others
  int64_t count, batch, steps, channels;
};

__global__ void __launch_bounds__(kSumThreads) sum_directions(DirectionSum p) {
  const int64_t elements = p.batch * p.steps * p.channels, index = int64_t(blockIdx.x) * kSumThreads + threadIdx.x;
  if (index >= elements) return;
  const int64_t d = index % p.channels, row = index / p.channels, l = row % p.steps, b = row / p.steps;
  const int64_t at = b * p.y.stride_b + l * p.y.stride_l + d * p.y.stride_d;
  float y = load<float>(p.y.data, at, p.y.dtype);
  for (int64_t k = 0; k < p.count; ++k) y += p.terms[k * elements + index];
  if (p.z.data != nullptr)
    y *= silu(load<float>(p.z.data, b * p.z.stride_b + l * p.z.stride_l + d * p.z.stride_d, p.z.dtype));
  store(p.y.data, at, p.y.dtype, y);
}

inline void add_directions(const DirectionSum& sum, const CudaCall& call) {
  const int64_t elements = sum.batch * sum.steps * sum.channels;
  launch(sum_directions, {grid_of(divide_up(elements, kSumThreads)), dim3(kSumThreads)}, call, sum);
}

}  // namespace ssm::cuda
