// Plain arguments of the inner part of a Mamba mixer; see params.h for the conventions.
#pragma once

#include "params.h"

namespace ssm {

// The parameters of one direction, contiguous and in the type of x.
struct MambaDirection {
  const void* conv_weight = nullptr;  // (d, k)
  const void* conv_bias = nullptr;    // (d,) or nullptr
  const void* x_proj = nullptr;       // (R + 2 n, d): rows of the step size, of B, of C
  const void* dt_proj = nullptr;      // (d, R)
  const void* dt_bias = nullptr;      // (d,) or nullptr
  const void* A_log = nullptr;        // (d, n)
  const void* D = nullptr;            // (d,) or nullptr
  bool reverse = false;
};

struct MambaDirections {
  int64_t batch = 0, steps = 0, channels = 0, states = 0;
  int64_t width = 0, rank = 0;  // k and R
  DType dtype = DType::f32;     // f32 or f64, of everything
  View3 x, z, y;                // y is the sum of all directions times factor silu(z)
  double factor = 1;
  int64_t count = 0;
  MambaDirection directions[kMostDirections];
  int32_t num_threads = 1;
};

}  // namespace ssm
