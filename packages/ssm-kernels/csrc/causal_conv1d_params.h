// Plain arguments of the causal convolution; see params.h for the conventions.
#pragma once

#include "params.h"

namespace ssm {

constexpr int64_t kMostTaps = 8;

// Pointers without a view are contiguous and in the compute type: weight (d, k), bias (d,), states (b, d, k - 1) in time
// order.
struct ConvInputs {
  int64_t batch = 0, steps = 0, channels = 0, width = 0;
  const int64_t* offsets = nullptr;  // of packed sequences; nullptr: each batch index is one sequence
  int64_t packed_sequences = 0;
  DType dtype = DType::f32;  // of x and y
  View3 x;
  const void* weight = nullptr;
  const void* bias = nullptr;
  const void* initial_state = nullptr;
  bool silu = false;
  bool reverse = false;  // taps look ahead instead of back
  int32_t num_threads = 1;
  CudaCall cuda;

  SSM_HOST_DEVICE Sequences sequences() const { return {offsets != nullptr ? packed_sequences : batch, steps, offsets}; }
};

struct ConvForward {
  ConvInputs in;
  View3 y;
  void* final_state = nullptr;  // (b, d, k - 1); on the CPU nullptr: not wanted
};

struct ConvBackward {
  ConvInputs in;
  View3 grad_y;
  const void* grad_final_state = nullptr;  // or nullptr
  View3 grad_x;
  void* grad_weight = nullptr;         // (d, k)
  void* grad_bias = nullptr;           // (d,) or nullptr
  void* grad_initial_state = nullptr;  // (b, d, k - 1) or nullptr
};

}  // namespace ssm
