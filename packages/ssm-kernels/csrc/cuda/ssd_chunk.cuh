// What the kernels of the SSD scan share: where a chunk lies, its step sizes and decays, and its tensors.
#pragma once

#include "cuda/functions.cuh"
#include "cuda/ssd_matrix.cuh"
#include "cuda/ssd_plan.h"
#include "cuda/time_order.h"

namespace ssm::cuda {

// The kernels' copy of a call: that of the forward pass, or of the backward pass, and addresses in the workspace.
struct SsdForwardCall {
  SsdForward call;
  char *states, *decays;
};
struct SsdBackwardCall {
  SsdBackward call;
  char *states, *grad_states, *decays, *grad_A, *grad_dt_bias, *grad_D;
};

// Chunks of one sequence have places that follow each other.
struct SsdChunks {
  int64_t first, count;
};
__device__ __forceinline__ SsdChunks chunks_of(const Sequences& sequences, const Sequence& sequence) {
  const int64_t count = (sequence.steps + kSsdChunk - 1) / kSsdChunk;
  if (!sequences.packed()) return {sequence.index * count, count};
  return {sequence.first / kSsdChunk + sequence.index, count};
}

// Step k of a chunk, in the order of time, is the step position(k) of the tensors.
struct SsdChunk {
  int64_t batch = 0, first = 0;
  int steps = 0;  // 0: the place is empty
  bool reverse = false;
  __device__ __forceinline__ int64_t position(int k) const { return reverse ? first - k : first + k; }
};

__device__ inline SsdChunk chunk_at(const SsdInputs& in, int64_t place) {
  const Sequences sequences = in.sequences();
  int64_t index;
  if (sequences.packed()) {  // the last sequence that begins here or before
    int64_t low = 0, high = sequences.count - 1;
    while (low < high) {
      const int64_t middle = low + (high - low + 1) / 2;
      if (chunks_of(sequences, sequence_at(sequences, middle)).first <= place) low = middle;
      else high = middle - 1;
    }
    index = low;
  } else {
    index = place / ((in.steps + kSsdChunk - 1) / kSsdChunk);
  }
  const Sequence sequence = sequence_at(sequences, index);
  const SsdChunks chunks = chunks_of(sequences, sequence);
  SsdChunk chunk;
  const int64_t skipped = (place - chunks.first) * kSsdChunk;
  if (skipped < 0 || skipped >= sequence.steps) return chunk;
  chunk.batch = sequence.batch, chunk.reverse = in.reverse;
  chunk.steps = int(min(sequence.steps - skipped, int64_t(kSsdChunk)));
  chunk.first = in.reverse ? sequence.first + sequence.steps - 1 - skipped : sequence.first + skipped;
  return chunk;
}

// Step sizes of a chunk, 0 beyond its end, and sums of the logarithms (to base 2) of its decays up to and with each step.
// The sums have twice the digits of a number, so that their differences have all of them.
template <class Compute>
struct SsdTimes {
  Compute step[kSsdChunk], high[kSsdChunk], low[kSsdChunk];

  // From after step j to after step i, not before it.
  __device__ __forceinline__ Compute decay(int i, int j) const {
    return exp2_of((high[i] - high[j]) + (low[i] - low[j]));
  }
  __device__ __forceinline__ Compute since_start(int i) const { return exp2_of(high[i] + low[i]); }
  __device__ __forceinline__ Compute to_end(int j) const { return decay(kSsdChunk - 1, j); }
  __device__ __forceinline__ Compute whole() const { return since_start(kSsdChunk - 1); }
};

// The step size before the limits, and after.
template <class Compute>
struct SsdStepSize {
  Compute raw, unlimited, size;
  bool within;
};

template <DType T>
__device__ __forceinline__ SsdStepSize<typename Number<T>::Compute> step_size(const SsdInputs& in, const SsdChunk& chunk,
                                                                              int64_t head, int k) {
  using Compute = typename Number<T>::Compute;
  const int64_t index = chunk.batch * in.dt.stride_b + chunk.position(k) * in.dt.stride_l + head * in.dt.stride_h;
  SsdStepSize<Compute> s;
  s.raw = Number<T>::decode(reinterpret_cast<const typename Number<T>::Bits*>(in.dt.data)[index]);
  if (in.dt_bias != nullptr) s.raw += static_cast<const Compute*>(in.dt_bias)[head];
  s.unlimited = in.dt_softplus ? softplus(s.raw) : s.raw;
  const Compute least = Compute(in.dt_min), largest = Compute(in.dt_max);
  s.size = s.unlimited < least ? least : s.unlimited > largest ? largest : s.unlimited;  // NaN stays
  s.within = s.unlimited >= least && s.unlimited <= largest;
  return s;
}

// Fills `times`; the block has to wait before it reads them.
template <DType T>
__device__ inline void fill_times(SsdTimes<typename Number<T>::Compute>& times, const SsdInputs& in, const SsdChunk& chunk,
                                  int64_t head) {
  using Compute = typename Number<T>::Compute;
  if (threadIdx.x >= 32) return;
  const int lane = int(threadIdx.x);
  const double log2_A = double(static_cast<const Compute*>(in.A)[head]) * 1.4426950408889634;
  double part[2], sum = 0;
#pragma unroll
  for (int i = 0; i < 2; ++i) {
    const int k = 2 * lane + i;
    const Compute size = k < chunk.steps ? step_size<T>(in, chunk, head, k).size : Compute(0);
    times.step[k] = size;
    part[i] = double(size) * log2_A;
    sum += part[i];
  }
  double before = sum;
#pragma unroll
  for (int distance = 1; distance < 32; distance *= 2) {
    const double other = __shfl_up_sync(~0u, before, unsigned(distance));
    if (lane >= distance) before += other;
  }
  before = __shfl_up_sync(~0u, before, 1u);
  if (lane == 0) before = 0;
#pragma unroll
  for (int i = 0; i < 2; ++i) {
    before += part[i];
    times.high[2 * lane + i] = Compute(before);
    times.low[2 * lane + i] = Compute(before - double(Compute(before)));
  }
}

// Steps of a chunk of one head or group: element (step, column), 0 outside.
template <DType T>
struct SsdRows {
  using Bits = typename Number<T>::Bits;
  using Compute = typename Number<T>::Compute;
  Bits* data;
  int64_t stride_step, stride_column, columns;
  int steps;

  __device__ __forceinline__ SsdRows(const View4& view, const SsdChunk& chunk, int64_t head, int64_t columns_)
      : data(reinterpret_cast<Bits*>(view.data) + chunk.batch * view.stride_b + chunk.first * view.stride_l +
             head * view.stride_h),
        stride_step(chunk.reverse ? -view.stride_l : view.stride_l),
        stride_column(view.stride_p),
        columns(columns_),
        steps(chunk.steps) {}

  __device__ __forceinline__ bool has(int step, int64_t column) const { return step < steps && column < columns; }
  __device__ __forceinline__ Compute operator()(int step, int64_t column) const {
    return has(step, column) ? Number<T>::decode(data[step * stride_step + column * stride_column]) : Compute(0);
  }
  __device__ __forceinline__ void store(int step, int64_t column, Compute value) const {
    data[step * stride_step + column * stride_column] = Number<T>::encode(value);
  }
};

// The gradient of y before its gate.
template <DType T>
struct SsdGatedRows {
  using Compute = typename Number<T>::Compute;
  SsdRows<T> grad_y, z;
  bool gated;

  __device__ __forceinline__ SsdGatedRows(const SsdBackward& call, const SsdChunk& chunk, int64_t head)
      : grad_y(call.grad_y, chunk, head, call.in.channels),
        z(call.in.z, chunk, head, call.in.channels),
        gated(call.in.z.data != nullptr) {}

  __device__ __forceinline__ Compute operator()(int step, int64_t column) const {
    const Compute grad = grad_y(step, column);
    return gated && grad_y.has(step, column) ? grad * silu(z(step, column)) : grad;
  }
};

// One state (p, n) in the workspace; 0 outside.
template <class Compute>
struct SsdState {
  Compute* data;
  int64_t channels, states;
  __device__ __forceinline__ SsdState(char* all, const SsdInputs& in, int64_t place, int64_t head)
      : data(reinterpret_cast<Compute*>(all) + (place * in.heads + head) * in.channels * in.states),
        channels(in.channels),
        states(in.states) {}
  __device__ __forceinline__ bool has(int64_t p, int64_t n) const { return p < channels && n < states; }
  __device__ __forceinline__ Compute operator()(int64_t p, int64_t n) const {
    return has(p, n) ? data[p * states + n] : Compute(0);
  }
};

// D of one channel of a head; 0 without.
template <class Compute>
__device__ __forceinline__ Compute skip_of(const SsdInputs& in, int64_t head, int64_t channel) {
  if (in.D == nullptr) return 0;
  return static_cast<const Compute*>(in.D)[in.D_per_channel ? head * in.channels + channel : head];
}

}  // namespace ssm::cuda
