// What the steps of a chunk give: y = (L * C B^T) (step x) within the chunk, S C from before it, skip and gate.
#pragma once

#include "cuda/ssd_chunk.cuh"

namespace ssm::cuda {

constexpr int kWeightsRow = kSsdChunk + 1;  // numbers; the lanes of a warp then read columns from different banks

template <class Compute>
struct SsdOutputsMemory {
  SsdTimes<Compute> times;
  Compute weights[kSsdChunk * kWeightsRow];
};

// Leaves decay(i, j) (C[i] . B[j]), 0 for j > i, in `weights`; the block has to wait before it reads them.
template <DType T, class Compute>
__device__ __forceinline__ void fill_weights(Compute* weights, const SsdTimes<Compute>& times, Sums<Compute>& sums,
                                             char* staged, const SsdRows<T>& C, const SsdRows<T>& B) {
  sums.clear();
  add_product<typename Multiplies<T>::Inputs, true, true>(
      sums, C.columns, staged, [&](int i, int k) { return C(i, k); }, [&](int j, int k) { return B(j, k); });
  each_element(sums, [&](int i, int j, Compute& sum) {
    weights[i * kWeightsRow + j] = j <= i ? sum * times.decay(i, j) : Compute(0);
  });
}

// blockIdx.x is the chunk and head, blockIdx.y the tile of channels.
template <DType T>
__global__ void __launch_bounds__(kTileThreads) ssd_outputs(SsdForwardCall p) {
  using Compute = typename Number<T>::Compute;
  using Multiply = typename Multiplies<T>::Computed;
  const SsdInputs& in = p.call.in;
  const int64_t place = blockIdx.x / in.heads, head = blockIdx.x % in.heads, first_p = int64_t(blockIdx.y) * kTile;
  const int64_t group = head / (in.heads / in.groups);
  const SsdChunk chunk = chunk_at(in, place);
  if (chunk.steps == 0) return;

  auto& memory = *shared_memory<SsdOutputsMemory<Compute>>();
  const SsdTimes<Compute>& times = memory.times;
  char* staged = shared_memory() + sizeof(memory);
  fill_times<T>(memory.times, in, chunk, head);
  __syncthreads();
  const SsdRows<T> x(in.x, chunk, head, in.channels), z(in.z, chunk, head, in.channels);
  const SsdRows<T> B(in.B, chunk, group, in.states), C(in.C, chunk, group, in.states);
  Sums<Compute> sums;
  fill_weights<T>(memory.weights, times, sums, staged, C, B);

  sums.clear();
  const SsdState<Compute> state(p.states, in, place, head);
  add_product<Multiply, true, true>(
      sums, in.states, staged, [&](int i, int k) { return C(i, k); },
      [&](int j, int k) { return state(first_p + j, k); });
  each_element(sums, [&](int i, int, Compute& sum) { sum *= times.since_start(i); });
  add_product<Multiply, true, false>(
      sums, chunk.steps, staged, [&](int i, int k) { return memory.weights[i * kWeightsRow + k] * times.step[k]; },
      [&](int j, int k) { return x(k, first_p + j); });

  const SsdRows<T> y(p.call.y, chunk, head, in.channels);
  each_element(sums, [&](int i, int j, Compute& sum) {
    const int64_t channel = first_p + j;
    if (!y.has(i, channel)) return;
    Compute value = sum + skip_of<Compute>(in, head, channel) * x(i, channel);
    if (in.z.data != nullptr) value *= silu(z(i, channel));
    y.store(i, channel, value);
  });
}

}  // namespace ssm::cuda
