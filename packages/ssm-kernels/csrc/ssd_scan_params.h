// Plain arguments of the SSD scan, S[t] = exp(dt[t] A) S[t-1] + dt[t] x[t] B[t]^T, y[t] = S[t] C[t] + D x[t]; see params.h
// for the conventions.
#pragma once

#include "params.h"

namespace ssm {

// A (b, l, h, p), (b, l, g, n) or (b, l, h) tensor with any strides.  data == nullptr: the tensor is absent.
struct View4 {
  char* data = nullptr;
  int64_t stride_b = 0, stride_l = 0, stride_h = 0, stride_p = 0;
};

// Activations have the type `dtype`.  What has no view is contiguous and in the compute type: A and dt_bias (h,), D (h,)
// or (h, p), states (sequences, h, p, n).
struct SsdInputs {
  int64_t batch = 0, steps = 0, heads = 0, channels = 0, groups = 1, states = 0;  // b, l, h, p, g, n
  const int64_t* offsets = nullptr;  // of packed sequences; nullptr: each batch index is one sequence
  int64_t packed_sequences = 0;
  DType dtype = DType::f32;
  View4 x, dt, B, C, z;
  const void* A = nullptr;
  const void* D = nullptr;
  const void* dt_bias = nullptr;
  const void* initial_state = nullptr;
  bool D_per_channel = false;  // D is (h, p)
  bool dt_softplus = false;
  double dt_min = 0, dt_max = 0;
  bool reverse = false;  // time runs from the last step to the first
  int32_t num_threads = 1;
  CudaCall cuda;

  SSM_HOST_DEVICE Sequences sequences() const { return {offsets != nullptr ? packed_sequences : batch, steps, offsets}; }
};

struct SsdForward {
  SsdInputs in;
  View4 y;
  void* final_state = nullptr;
};

// Gradients of what is absent are nullptr; the others are contiguous.
struct SsdBackward {
  SsdInputs in;
  View4 grad_y;
  const void* grad_final_state = nullptr;
  View4 grad_x, grad_dt, grad_B, grad_C, grad_z;
  void* grad_A = nullptr;
  void* grad_D = nullptr;
  void* grad_dt_bias = nullptr;
  void* grad_initial_state = nullptr;
};

}  // namespace ssm
