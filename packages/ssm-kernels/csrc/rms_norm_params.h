// Plain arguments of the RMS norm; see params.h for the conventions.
#pragma once

#include "params.h"

namespace ssm {

// y = x / sqrt(mean(x^2) + eps) * weight.  All are contiguous and of one type, f32 or f64: x and y (rows, d), weight (d,).
struct RmsNorm {
  int64_t rows = 0, channels = 0;
  DType dtype = DType::f32;
  const void* x = nullptr;
  const void* weight = nullptr;
  void* y = nullptr;
  double eps = 0;
  int32_t num_threads = 1;
};

}  // namespace ssm
