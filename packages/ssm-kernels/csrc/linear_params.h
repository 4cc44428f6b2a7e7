// Plain arguments of a linear layer; see params.h for the conventions.
#pragma once

#include "params.h"

namespace ssm {

// y = x weight^T + bias.  All are contiguous and of one type, f32 or f64: x (rows, inner), weight (columns, inner),
// bias (columns,) or null, y (rows, columns).
struct Linear {
  int64_t rows = 0, inner = 0, columns = 0;
  DType dtype = DType::f32;
  const void* x = nullptr;
  const void* weight = nullptr;
  const void* bias = nullptr;
  void* y = nullptr;
  int32_t num_threads = 1;
};

}  // namespace ssm
