// The selective scan and its gradients as plain loops in double precision.
#pragma once

#include "tests/tensor.h"

namespace ssm::tests {

// Axes as in params.h, but states with complex A are counted as complex numbers: the last axis, of size 1 or 2, holds
// the parts.  u, delta, z (b, l, d); A (d, n, parts); B, C (b, l, g, n, parts) or (d, n, parts); D, delta_bias (d);
// states (b, d, n, parts).
struct ScanTensors {
  bool complex_A = false, softplus = false, reverse = false;
  Tensor u, delta, z, A, B, C, D, delta_bias, initial_state;
};

struct ScanCotangents {
  Tensor y, final_state;  // final_state may be absent
};

struct ScanResults {
  Tensor y, final_state;
  Tensor grad_u, grad_delta, grad_z, grad_A, grad_B, grad_C, grad_D, grad_delta_bias, grad_initial_state;
};

ScanResults scan_reference(const ScanTensors& in, const ScanCotangents& cotangents);

}  // namespace ssm::tests
