// Plain arguments of the sum of powers K[c, h, t] = 2 Re sum_n v[c, h, n] exp(t x[h, n]); see params.h.
#pragma once

#include "params.h"

namespace ssm {

// All arrays are contiguous; a complex number is its real and then its imaginary part.
struct VandermondeInputs {
  int64_t channels = 0, rows = 0, states = 0;  // c, h, n
  int64_t steps = 0;                           // l
  DType dtype = DType::f32;                    // of the parts of complex numbers, and of K: f32 or f64
  const void* v = nullptr;                     // (c, h, n)
  const void* x = nullptr;                     // (h, n)
  int32_t num_threads = 1;
  CudaCall cuda;
};

struct VandermondeForward {
  VandermondeInputs in;
  void* K = nullptr;  // (c, h, l)
};

// Pointers of gradients that are not wanted are nullptr.
struct VandermondeBackward {
  VandermondeInputs in;
  const void* grad_K = nullptr;
  void* grad_v = nullptr;
  void* grad_x = nullptr;
};

}  // namespace ssm
