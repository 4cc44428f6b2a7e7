// Plain arguments of the Cauchy sum R[c, h, k] = sum_n v / (z - w) + conj(v) / (z - conj(w)); see params.h for the
// conventions.
#pragma once

#include "params.h"

namespace ssm {

// All arrays are contiguous; a complex number is its real and then its imaginary part.
struct CauchyInputs {
  int64_t channels = 0, rows = 0, states = 0;  // c, h, n
  int64_t nodes = 0;                           // k
  DType dtype = DType::f32;                    // of the parts: f32 or f64
  const void* v = nullptr;                     // (c, h, n)
  const void* z = nullptr;                     // (k,) or (h, k)
  const void* w = nullptr;                     // (h, n)
  bool z_per_row = false;                      // z is (h, k)
  int32_t num_threads = 1;
  CudaCall cuda;
};

struct CauchyForward {
  CauchyInputs in;
  void* R = nullptr;  // (c, h, k)
};

// Pointers of gradients that are not wanted are nullptr.
struct CauchyBackward {
  CauchyInputs in;
  const void* grad_R = nullptr;
  void* grad_v = nullptr;
  void* grad_z = nullptr;
  void* grad_w = nullptr;
};

}  // namespace ssm
