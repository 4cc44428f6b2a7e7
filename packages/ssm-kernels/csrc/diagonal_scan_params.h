// Plain arguments of the diagonal scan, h[t] = a[t] h[t-1] + u[t]; see params.h for the conventions.
#pragma once

#include "params.h"

namespace ssm {

// Complex numbers are stored as their real and their imaginary part; strides and sizes count whole numbers.
struct DiagonalInputs {
  int64_t batch = 0, steps = 0, channels = 0;
  const int64_t* offsets = nullptr;  // of packed sequences; nullptr: each batch index is one sequence
  int64_t packed_sequences = 0;
  DType dtype = DType::f32;  // of u, h and their gradients; f32 or f64 for complex numbers
  bool is_complex = false;
  // a is full or broadcast: one value for all of an axis, whose stride is then 0 and over which its gradient is summed.
  // A full a has the dtype of u or the compute type, a broadcast one the compute type.
  View3 a;
  bool a_per_batch = true, a_per_step = true, a_per_channel = true;
  const void* initial_state = nullptr;  // (sequences, d) in the compute type, contiguous, or nullptr for zeros
  bool reverse = false;                 // time runs from the last step to the first
  int32_t num_threads = 1;
  CudaCall cuda;

  SSM_HOST_DEVICE Sequences sequences() const { return {offsets != nullptr ? packed_sequences : batch, steps, offsets}; }
  SSM_HOST_DEVICE bool a_broadcast() const { return !(a_per_batch && a_per_step && a_per_channel); }
};

struct DiagonalForward {
  DiagonalInputs in;
  View3 u, h;
  void* final_state = nullptr;  // (sequences, d)
};

// Pointers of gradients that are not wanted are nullptr.
struct DiagonalBackward {
  DiagonalInputs in;
  View3 grad_h, h;  // h is read for the gradient of a alone
  const void* grad_final_state = nullptr;
  View3 grad_u;
  void* grad_a = nullptr;              // contiguous, of the shape and type of a
  void* grad_initial_state = nullptr;  // (sequences, d)
};

}  // namespace ssm
