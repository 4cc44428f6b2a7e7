// Plain arguments of one decode step of the selective scan; see params.h for the conventions.
#pragma once

#include "params.h"

namespace ssm {

// A tensor of any strides over (b, h, p, n); an axis it lacks has stride 0.  data == nullptr: the tensor is absent.
// With complex A the strides of state, A, B and C count real numbers, and the imaginary part of an entry follows its
// real part.
struct UpdateView {
  char* data = nullptr;
  DType dtype = DType::f32;
  int64_t stride_b = 0, stride_h = 0, stride_p = 0, stride_n = 0;
};

// Heads h of p channels, each with n states.  The heads of B and C are the groups: head i reads group i / (h / groups).
// A tensor without heads, (b, d, n), is one with a head per group.
struct StateUpdate {
  int64_t batch = 0, heads = 0, groups = 1, channels = 0, states = 0;
  bool complex_A = false;
  bool dt_softplus = false;
  int32_t num_threads = 1;
  CudaCall cuda;
  // A is in the compute type.  So are complex tensors, and all others where the compute type is double.
  UpdateView state, x, dt, A, B, C, D, z, dt_bias, y;
};

}  // namespace ssm
