// Gradients of what a head has at every step: x, z and dt; and, per chunk, of what it has once: A, D, dt_bias.
#pragma once

#include "cuda/ssd_outputs.cuh"

namespace ssm::cuda {

template <class Compute>
struct SsdGradientMemory {
  SsdTimes<Compute> times;
  Compute weights[kSsdChunk * kWeightsRow];
  Compute driven[kSsdChunk], from_before[kSsdChunk], to_after[kSsdChunk];
  Compute of_log[kSsdChunk], of_raw[kSsdChunk];
  Compute per_warp[kTileThreads / 32];
};

// Sums over the columns of tiles, for the two rows of a lane.
template <class Compute>
struct RowSums {
  Compute of[2] = {};

  // += the products with factor(row, column).
  template <class Factor>
  __device__ __forceinline__ void add(const Sums<Compute>& sums, const Factor& factor) {
#pragma unroll
    for (int t = 0; t < kTileColumns; ++t)
#pragma unroll
      for (int i = 0; i < 4; ++i) of[i >> 1] += sums.at[t][i] * factor(lane_row(i), lane_column(t, i));
  }

  __device__ __forceinline__ void store(Compute* rows) const {
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      Compute sum = of[half];
      sum += __shfl_xor_sync(~0u, sum, 1);
      sum += __shfl_xor_sync(~0u, sum, 2);
      if (threadIdx.x % 4 == 0) rows[lane_row(2 * half)] = sum;
    }
  }
};

// The sum over the block, for every thread; has two barriers.
template <class Compute>
__device__ __forceinline__ Compute block_sum(Compute value, Compute* per_warp) {
#pragma unroll
  for (int distance = 16; distance > 0; distance /= 2) value += __shfl_xor_sync(~0u, value, distance);
  __syncthreads();
  if (threadIdx.x % 32 == 0) per_warp[threadIdx.x / 32] = value;
  __syncthreads();
  Compute sum = 0;
#pragma unroll
  for (int warp = 0; warp < kTileThreads / 32; ++warp) sum += per_warp[warp];
  return sum;
}

// The chunk of one head, seen by its block.
template <DType T>
struct SsdGradientBlock {
  using Compute = typename Number<T>::Compute;
  using Multiply = typename Multiplies<T>::Computed;
  const SsdBackwardCall& p;
  const SsdInputs& in;
  int64_t place, head;
  SsdChunk chunk;
  SsdGradientMemory<Compute>& memory;
  char* staged;
  SsdRows<T> x, B, C;
  SsdGatedRows<T> grad_y;
  SsdState<Compute> state, grad_state;

  __device__ __forceinline__ SsdGradientBlock(const SsdBackwardCall& p_, int64_t place_, int64_t head_,
                                              const SsdChunk& chunk_)
      : p(p_),
        in(p_.call.in),
        place(place_),
        head(head_),
        chunk(chunk_),
        memory(*shared_memory<SsdGradientMemory<Compute>>()),
        staged(shared_memory() + sizeof(SsdGradientMemory<Compute>)),
        x(in.x, chunk, head, in.channels),
        B(in.B, chunk, head / (in.heads / in.groups), in.states),
        C(in.C, chunk, head / (in.heads / in.groups), in.states),
        grad_y(p.call, chunk, head),
        state(p.states, in, place, head),
        grad_state(p.grad_states, in, place, head) {}

  // Gradients of x and z in a tile of channels; adds to the sums over channels.
  __device__ __forceinline__ void channels(int64_t first, Sums<Compute>& sums, RowSums<Compute>& driven,
                                           RowSums<Compute>& from_before, RowSums<Compute>& to_after) const {
    const SsdTimes<Compute>& times = memory.times;
    const Compute* weights = memory.weights;
    const auto x_at = [&](int i, int j) { return x(i, first + j); };
    const auto grad_y_at = [&](int i, int j) { return grad_y(i, first + j); };
    sums.clear();
    add_product<Multiply, true, true>(
        sums, in.states, staged, [&](int i, int k) { return B(i, k); },
        [&](int j, int k) { return grad_state(first + j, k); });
    each_element(sums, [&](int i, int, Compute& sum) { sum *= times.to_end(i); });
    to_after.add(sums, x_at);
    add_product<Multiply, false, false>(
        sums, chunk.steps, staged, [&](int i, int k) { return weights[k * kWeightsRow + i]; },
        [&](int j, int k) { return grad_y_at(k, j); });
    driven.add(sums, x_at);
    const SsdRows<T> grad_x(p.call.grad_x, chunk, head, in.channels);
    each_element(sums, [&](int i, int j, Compute& sum) {
      if (!grad_x.has(i, first + j)) return;
      grad_x.store(i, first + j, sum * times.step[i] + skip_of<Compute>(in, head, first + j) * grad_y_at(i, j));
    });

    sums.clear();
    add_product<Multiply, true, true>(
        sums, in.states, staged, [&](int i, int k) { return C(i, k); },
        [&](int j, int k) { return state(first + j, k); });
    each_element(sums, [&](int i, int, Compute& sum) { sum *= times.since_start(i); });
    from_before.add(sums, grad_y_at);
    if (in.z.data == nullptr) return;
    add_product<Multiply, true, false>(
        sums, chunk.steps, staged, [&](int i, int k) { return weights[i * kWeightsRow + k] * times.step[k]; },
        [&](int j, int k) { return x_at(k, j); });
    const SsdRows<T> grad_z(p.call.grad_z, chunk, head, in.channels);
    each_element(sums, [&](int i, int j, Compute& sum) {
      if (!grad_z.has(i, first + j)) return;
      const Compute y = sum + skip_of<Compute>(in, head, first + j) * x_at(i, j);
      grad_z.store(i, first + j, grad_y.grad_y(i, first + j) * y * silu_slope(grad_y.z(i, first + j)));
    });
  }

  // The gradient of the logarithm of the decay at step k: every way from an earlier step, or the state before the chunk,
  // to a later one, or the state after it, leads through it.  `through`: from state to state.
  __device__ __forceinline__ Compute of_decay(int k, Compute through) const {
    Compute sum = through;
    for (int i = k; i < kSsdChunk; ++i) sum += memory.weights[i * kWeightsRow + k] + memory.from_before[i];
    for (int j = 0; j < k; ++j) sum += memory.to_after[j] * memory.times.step[j];
    return sum;
  }

  // weights(i, j) becomes what comes to step i from the steps before j.
  __device__ __forceinline__ void sum_earlier(Sums<Compute>& sums) const {
    sums.clear();
    add_product<Multiply, true, true>(
        sums, in.channels, staged, [&](int i, int k) { return grad_y(i, k); }, [&](int j, int k) { return x(j, k); });
    each_element(sums, [&](int i, int j, Compute& sum) {
      memory.weights[i * kWeightsRow + j] *= sum * memory.times.step[j];
    });
    __syncthreads();
    if (threadIdx.x < kSsdChunk) {
      Compute* row = memory.weights + threadIdx.x * kWeightsRow;
      Compute before = 0;
      for (int j = 0; j < kSsdChunk; ++j) {
        const Compute here = row[j];
        row[j] = before;
        before += here;
      }
    }
    __syncthreads();
  }

  // The gradient of dt, and the chunk's shares of those of A and dt_bias.
  __device__ __forceinline__ void steps() const {
    Compute product = 0;
    for (int64_t i = threadIdx.x; i < in.channels * in.states; i += kTileThreads)
      product += state.data[i] * grad_state.data[i];
    const Compute through = block_sum(product, memory.per_warp) * memory.times.whole();
    const int k = int(threadIdx.x);
    if (k < kSsdChunk) {
      Compute of_log = 0, of_raw = 0;
      if (k < chunk.steps) {
        of_log = of_decay(k, through);
        const SsdStepSize<Compute> size = step_size<T>(in, chunk, head, k);
        const Compute of_size = memory.driven[k] + static_cast<const Compute*>(in.A)[head] * of_log;
        of_raw = !size.within ? Compute(0) : in.dt_softplus ? of_size * softplus_slope(size.raw) : of_size;
        SsdRows<T>(p.call.grad_dt, chunk, head, 1).store(k, 0, of_raw);
      }
      memory.of_log[k] = of_log * memory.times.step[k];
      memory.of_raw[k] = of_raw;
    }
    __syncthreads();
    if (k >= 2) return;
    const Compute* terms = k == 0 ? memory.of_log : memory.of_raw;
    Compute sum = 0;
    for (int i = 0; i < kSsdChunk; ++i) sum += terms[i];
    reinterpret_cast<Compute*>(k == 0 ? p.grad_A : p.grad_dt_bias)[place * in.heads + head] = sum;
  }

  // The chunk's share of the gradient of D.
  __device__ __forceinline__ void skip() const {
    if (in.D == nullptr) return;
    Compute* out = reinterpret_cast<Compute*>(p.grad_D);
    Compute total = 0;
    for (int64_t c = threadIdx.x; c < in.channels; c += kTileThreads) {
      Compute sum = 0;
      for (int k = 0; k < chunk.steps; ++k) sum += grad_y(k, c) * x(k, c);
      if (in.D_per_channel) out[(place * in.heads + head) * in.channels + c] = sum;
      total += sum;
    }
    if (in.D_per_channel) return;
    total = block_sum(total, memory.per_warp);
    if (threadIdx.x == 0) out[place * in.heads + head] = total;
  }
};

// blockIdx.x is the chunk and head.
template <DType T>
__global__ void __launch_bounds__(kTileThreads) ssd_gradient_steps(SsdBackwardCall p) {
  using Compute = typename Number<T>::Compute;
  const SsdInputs& in = p.call.in;
  const SsdGradientBlock<T> block(p, blockIdx.x / in.heads, blockIdx.x % in.heads, chunk_at(in, blockIdx.x / in.heads));
  auto& memory = block.memory;
  fill_times<T>(memory.times, in, block.chunk, block.head);  // of an empty place: zeros, and so its shares are zeros
  __syncthreads();
  Sums<Compute> sums;
  fill_weights<T>(memory.weights, memory.times, sums, block.staged, block.C, block.B);
  RowSums<Compute> driven, from_before, to_after;
  if (block.chunk.steps > 0)
    for (int64_t first = 0; first < in.channels; first += kTile) block.channels(first, sums, driven, from_before, to_after);
  driven.store(memory.driven), from_before.store(memory.from_before), to_after.store(memory.to_after);
  block.sum_earlier(sums);
  block.steps();
  block.skip();
}

}  // namespace ssm::cuda
