// Gradients of B and C, which the heads of a group share: one block sums over them, one after the other.
#pragma once

#include "cuda/ssd_outputs.cuh"

namespace ssm::cuda {

// blockIdx.x is the chunk and group, blockIdx.y the tile of states.  OfB: the gradient of B, else that of C.
template <DType T, bool OfB>
__global__ void __launch_bounds__(kTileThreads) ssd_gradient_groups(SsdBackwardCall p) {
  using Compute = typename Number<T>::Compute;
  using Multiply = typename Multiplies<T>::Computed;
  const SsdInputs& in = p.call.in;
  const int64_t place = blockIdx.x / in.groups, group = blockIdx.x % in.groups, first_n = int64_t(blockIdx.y) * kTile;
  const int64_t heads = in.heads / in.groups;
  const SsdChunk chunk = chunk_at(in, place);
  if (chunk.steps == 0) return;

  auto& memory = *shared_memory<SsdOutputsMemory<Compute>>();
  const SsdTimes<Compute>& times = memory.times;
  Compute* weights = memory.weights;
  char* staged = shared_memory() + sizeof(memory);
  const SsdRows<T> other(OfB ? in.C : in.B, chunk, group, in.states);
  Sums<Compute> total, sums;
  total.clear();
#pragma unroll 1
  for (int64_t head = group * heads; head < (group + 1) * heads; ++head) {
    const SsdRows<T> x(in.x, chunk, head, in.channels);
    const SsdGatedRows<T> grad_y(p.call, chunk, head);
    __syncthreads();
    fill_times<T>(memory.times, in, chunk, head);
    sums.clear();
    add_product<Multiply, true, true>(
        sums, in.channels, staged, [&](int i, int k) { return grad_y(i, k); }, [&](int j, int k) { return x(j, k); });
    each_element(sums, [&](int i, int j, Compute& sum) {
      weights[i * kWeightsRow + j] = j <= i ? sum * times.decay(i, j) * times.step[j] : Compute(0);
    });
    // from the state, or to it
    const SsdState<Compute> state(OfB ? p.grad_states : p.states, in, place, head);
    add_product<Multiply, true, false>(
        total, in.channels, staged,
        [&](int i, int k) {
          return OfB ? x(i, k) * (times.step[i] * times.to_end(i)) : grad_y(i, k) * times.since_start(i);
        },
        [&](int j, int k) { return state(k, first_n + j); });
    // from and to the steps of the chunk
    add_product<Multiply, !OfB, false>(
        total, chunk.steps, staged,
        [&](int i, int k) { return OfB ? weights[k * kWeightsRow + i] : weights[i * kWeightsRow + k]; },
        [&](int j, int k) { return other(k, first_n + j); });
  }
  const SsdRows<T> out(OfB ? p.call.grad_B : p.call.grad_C, chunk, group, in.states);
  each_element(total, [&](int i, int j, Compute& sum) {
    if (out.has(i, first_n + j)) out.store(i, first_n + j, sum);
  });
}

}  // namespace ssm::cuda
