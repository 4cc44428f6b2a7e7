// The SSD scan and its gradients as plain loops in double precision.
#pragma once

#include "tests/tensor.h"

namespace ssm::tests {

// x, z (b, l, h, p); dt (b, l, h); A, dt_bias (h); B, C (b, l, g, n); D (h) or (h, p); states (sequences, h, p, n).
struct SsdTensors {
  bool softplus = false, reverse = false;
  double dt_min = 0, dt_max = std::numeric_limits<double>::infinity();
  std::vector<int64_t> offsets;  // of packed sequences; empty: not packed
  Tensor x, dt, A, B, C, D, z, dt_bias, initial_state;

  Sequences sequences() const {
    if (offsets.empty()) return {x.size(0), x.size(1), nullptr};
    return {static_cast<int64_t>(offsets.size()) - 1, x.size(1), offsets.data()};
  }
  std::vector<int64_t> state_shape() const { return {sequences().count, x.size(2), x.size(3), B.size(3)}; }
};

struct SsdCotangents {
  Tensor y, final_state;  // final_state may be absent
};

struct SsdResults {
  Tensor y, final_state;
  Tensor grad_x, grad_dt, grad_A, grad_B, grad_C, grad_D, grad_z, grad_dt_bias;
  Tensor grad_initial_state;  // of the reference: also without an initial state, which then is zero
};

SsdResults ssd_reference(const SsdTensors& in, const SsdCotangents& cotangents);

}  // namespace ssm::tests
