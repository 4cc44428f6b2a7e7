// What the kernels of the diagonal scan are given, and what part of it a lane has.  See diagonal_scan_plan.h.
//
// Rows are steps in the order of running: row 0 is the last step where a pass runs backwards.
#pragma once

#include "cuda/affine.cuh"
#include "cuda/diagonal_scan_plan.h"
#include "cuda/launch.h"

namespace ssm::cuda::diagonal {

struct Tensor {
  View3 view;
  bool whole = false;   // the numbers of a lane at one step move at once
  bool turned = false;  // neighbours in memory are steps
  SSM_HOST_DEVICE bool wanted() const { return view.data != nullptr; }
};

// The forward pass computes y = h from x = u, the backward pass y = grad_u from x = grad_h.
struct Task {
  DiagonalInputs in;
  DiagonalPlan plan;
  bool backwards = false;  // against the order of the axis
  SumOfA sum = SumOfA::not_wanted;
  Tensor a, x, y;
  Tensor h, grad_a;            // backward pass; grad_a: also of partial sums over nothing
  char* partials = nullptr;    // of the gradient of a, or the gradient itself where there is nothing to add up
  const void* first_state = nullptr;  // before row 0
  const void* initial_state = nullptr;
  void* last_state = nullptr;
  char* products = nullptr;    // (sequences, chunks, channels): h -> product h + result is what a chunk does
  char* results = nullptr;     // later the state before each chunk
};

struct Place {
  int64_t sequence, batch, first, steps;  // as in Sequence
  int64_t channel;
  int count;  // of channels; 0: the lane is idle
};

// The steps of packed sequences are confined to the tensor, whatever stands in the device's memory.
__device__ __forceinline__ Place find_place(const Task& p, int64_t row_block) {
  constexpr int64_t kLast = 0;
  const DiagonalInputs& in = p.in;
  const int64_t index = row_block * kDiagonalLanes + threadIdx.x;
  const int64_t count = in.offsets != nullptr ? in.packed_sequences : in.batch;
  const int64_t group = diagonal_group(in.dtype);
  Place place = {index / p.plan.row, 0, 0, in.steps, index % p.plan.row * group, 0};
  if (place.sequence < count && place.channel < in.channels)
    place.count = int(min(group, in.channels - place.channel));
  place.sequence = min(place.sequence, count - 1);
  if (in.offsets == nullptr) {
    place.batch = place.sequence;
  } else {
    place.first = max(kLast, min(in.offsets[place.sequence], in.steps));
    place.steps = max(kLast, min(in.offsets[place.sequence + 1], in.steps) - place.first);
  }
  return place;
}

__device__ __forceinline__ int64_t step_of(const Task& p, const Place& place, int64_t row) {
  return place.first + (p.backwards ? place.steps - 1 - row : row);
}

// Where a lane's numbers begin, counted in numbers, and how far it is to the next row.
__device__ __forceinline__ int64_t offset_of(const Task& p, const View3& v, const Place& place, int64_t row) {
  return place.batch * v.stride_b + step_of(p, place, row) * v.stride_l + place.channel * v.stride_d;
}
__device__ __forceinline__ int64_t row_stride(const Task& p, const View3& v) {
  return p.backwards ? -v.stride_l : v.stride_l;
}

// A lane's part of a state (sequences, d); zeros if there is none.
template <class N, int G>
__device__ __forceinline__ void load_state(const Task& p, const void* data, int64_t row, const Place& place,
                                           N (&state)[G]) {
  const N* from = static_cast<const N*>(data) + row * p.in.channels + place.channel;
#pragma unroll
  for (int g = 0; g < G; ++g) state[g] = data != nullptr && g < place.count ? from[g] : Field<N>::real(0);
}
template <class N, int G>
__device__ __forceinline__ void store_state(const Task& p, void* data, int64_t row, const Place& place,
                                            const N (&state)[G]) {
  N* to = static_cast<N*>(data) + row * p.in.channels + place.channel;
#pragma unroll
  for (int g = 0; g < G; ++g)
    if (data != nullptr && g < place.count) to[g] = state[g];
}

// Rows of one chunk of a sequence.
struct Rows {
  int64_t begin, end;
  bool last;  // ends with the sequence
};
__device__ __forceinline__ Rows rows_of_chunk(const Task& p, const Place& place, int64_t chunk) {
  const int64_t steps = diagonal_chunk_steps(p.plan, place.steps);
  const int64_t begin = min(chunk * steps, place.steps), end = min(begin + steps, place.steps);
  return {begin, end, end == place.steps && (begin < end || chunk == 0)};
}

// One step of a pass: the new state, and what it writes.  Backward, with g the gradient of h[t] and c what later steps
// ask of it: lambda = g + c is the gradient of u[t], and conj(a[t]) lambda what step t - 1 is asked for.
template <bool Backward, class N>
__device__ __forceinline__ N advance(N a, N x, N& state) {
  if constexpr (Backward) {
    const N lambda = Field<N>::plus(x, state);
    state = Field<N>::times(Field<N>::conjugate(a), lambda);
    return lambda;
  } else {
    return state = Field<N>::times_plus(a, state, x);
  }
}

// What a pass multiplies its state by.
template <bool Backward, class N>
__device__ __forceinline__ N factor(N a) {
  return Backward ? Field<N>::conjugate(a) : a;
}

}  // namespace ssm::cuda::diagonal
