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
  char* workspace = nullptr;  // MambaWorkspace::bytes, aligned to 64 bytes
  int32_t num_threads = 1;
};

// Where the intermediate results of all directions lie, in elements.  Rows are padded to whole vectors of any
// instruction set.
struct MambaWorkspace {
  static constexpr int64_t kPadding = 16;

  int64_t channels, coefficients;                   // elements of a row of u or delta, and of (step size, B, C)
  int64_t u, delta, projected, A, x_proj, dt_proj;  // where they begin in a direction
  int64_t direction;                                // elements per direction

  static int64_t padded(int64_t count) { return (count + kPadding - 1) / kPadding * kPadding; }

  explicit MambaWorkspace(const MambaDirections& in)
      : channels(padded(in.channels)), coefficients(padded(in.rank + 2 * in.states)) {
    const int64_t rows = in.batch * in.steps;
    u = 0;
    delta = u + rows * channels;
    projected = delta + rows * channels;
    A = projected + rows * coefficients;
    x_proj = A + padded(in.channels * in.states);
    dt_proj = x_proj + in.channels * coefficients;
    direction = dt_proj + in.rank * channels;
  }

  int64_t bytes(const MambaDirections& in) const { return in.count * direction * size_of(in.dtype); }
};

}  // namespace ssm
