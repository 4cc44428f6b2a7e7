// Plain arguments of the RMS norm; see params.h for the conventions.
#pragma once

#include "params.h"

namespace ssm {

// y = v / sqrt(mean(v^2) + eps) * weight with v = x, or x silu(gate).  The mean is that of each group of channels.  All are
// of one type, f32 or f64: x and y (rows, groups * channels) and weight (groups * channels,), contiguous; the rows of the
// gate lie gate_stride numbers apart.
struct RmsNorm {
  int64_t rows = 0, groups = 1, channels = 0;
  DType dtype = DType::f32;
  const void* x = nullptr;
  const void* gate = nullptr;  // or none
  int64_t gate_stride = 0;
  const void* weight = nullptr;
  void* y = nullptr;
  double eps = 0;
  int32_t num_threads = 1;
};

}  // namespace ssm
