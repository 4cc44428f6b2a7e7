// Plain arguments of the causal convolution of new samples only; see params.h for the conventions.
#pragma once

#include "causal_conv1d_params.h"

namespace ssm {

// Pointers without a view are contiguous; weight (d, k) and bias (d,) are in the compute type.
struct ConvUpdate {
  int64_t batch = 0, steps = 0, channels = 0, width = 0;
  int64_t samples = 0;  // s, kept by the state: at least width - 1
  View3 x, y;
  View3 state;  // its samples are the steps of the view: (b, s, d)
  const void* weight = nullptr;
  const void* bias = nullptr;
  const void* counts = nullptr;  // (b,) samples seen before, int64 or int32: the state is a ring; nullptr: it shifts
  bool wide_counts = false;
  bool silu = false;
  int32_t num_threads = 1;
  CudaCall cuda;
};

}  // namespace ssm
