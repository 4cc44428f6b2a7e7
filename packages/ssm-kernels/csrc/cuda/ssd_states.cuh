// States between the chunks: what each chunk adds, and their way from chunk to chunk.
#pragma once

#include "cuda/ssd_chunk.cuh"

namespace ssm::cuda {

// Where a block of the two kernels below is: blockIdx.x is the chunk and head, blockIdx.y the tile of a state.
struct SsdStateTile {
  int64_t place, head, group, first_p, first_n;
  __device__ __forceinline__ explicit SsdStateTile(const SsdInputs& in)
      : place(blockIdx.x / in.heads), head(blockIdx.x % in.heads), group(head / (in.heads / in.groups)) {
    const int64_t tiles = (in.states + kTile - 1) / kTile;
    first_p = blockIdx.y / tiles * kTile, first_n = blockIdx.y % tiles * kTile;
  }
};

// states(p, n) = the sum over the chunk's steps k of rows(k, p) columns(k, n) weight(k).
template <class Multiply, class Rows, class Columns, class Weight>
__device__ __forceinline__ void fill_state(const SsdState<typename Multiply::Compute>& state, const SsdStateTile& tile,
                                           int steps, char* staged, const Rows& rows, const Columns& columns,
                                           const Weight& weight) {
  using Compute = typename Multiply::Compute;
  Sums<Compute> sums;
  sums.clear();
  add_product<Multiply, false, false>(
      sums, steps, staged, [&](int i, int k) { return rows(k, tile.first_p + i); },
      [&](int j, int k) { return k < steps ? columns(k, tile.first_n + j) * weight(k) : Compute(0); });
  each_element(sums, [&](int i, int j, Compute& sum) {
    const int64_t row = tile.first_p + i, column = tile.first_n + j;
    if (state.has(row, column)) state.data[row * state.states + column] = sum;
  });
}

// What a chunk adds to the state: the sum of to_end step x B^T.  Also the chunk's decay.
template <DType T>
__global__ void __launch_bounds__(kTileThreads) ssd_chunk_states(SsdForwardCall p) {
  using Compute = typename Number<T>::Compute;
  const SsdInputs& in = p.call.in;
  const SsdStateTile tile(in);
  const SsdChunk chunk = chunk_at(in, tile.place);
  if (chunk.steps == 0) return;

  auto& times = *shared_memory<SsdTimes<Compute>>();
  fill_times<T>(times, in, chunk, tile.head);
  const SsdRows<T> x(in.x, chunk, tile.head, in.channels), B(in.B, chunk, tile.group, in.states);
  fill_state<typename Multiplies<T>::Computed>(SsdState<Compute>(p.states, in, tile.place, tile.head), tile, chunk.steps,
                                               shared_memory() + sizeof(times), x, B,
                                               [&](int k) { return times.step[k] * times.to_end(k); });
  if (blockIdx.y == 0 && threadIdx.x == 0) reinterpret_cast<Compute*>(p.decays)[blockIdx.x] = times.whole();
}

// What a chunk adds to the gradient of the state before it: the sum of since_start grad_y C^T.
template <DType T>
__global__ void __launch_bounds__(kTileThreads) ssd_chunk_grad_states(SsdBackwardCall p) {
  using Compute = typename Number<T>::Compute;
  const SsdInputs& in = p.call.in;
  const SsdStateTile tile(in);
  const SsdChunk chunk = chunk_at(in, tile.place);
  if (chunk.steps == 0) return;

  auto& times = *shared_memory<SsdTimes<Compute>>();
  fill_times<T>(times, in, chunk, tile.head);
  const SsdGatedRows<T> grad_y(p.call, chunk, tile.head);
  const SsdRows<T> C(in.C, chunk, tile.group, in.states);
  fill_state<typename Multiplies<T>::Computed>(SsdState<Compute>(p.grad_states, in, tile.place, tile.head), tile,
                                               chunk.steps, shared_memory() + sizeof(times), grad_y, C,
                                               [&](int k) { return times.since_start(k); });
}

// One launch carries all states of a call through their chunks, forwards or backwards in time.
struct SsdCarry {
  SsdInputs in;
  int64_t blocks;      // of a sequence and head
  char* states;        // (chunks, h, p, n): what is added, replaced by what was there before
  const char* decays;  // (chunks, h)
  const char* begin;   // (sequences, h, p, n) or nullptr for zeros
  char* end;           // (sequences, h, p, n) or nullptr
  bool backwards;
};

template <class Compute>
__global__ void __launch_bounds__(kSsdCarryThreads) ssd_carry_states(SsdCarry p) {
  const SsdInputs& in = p.in;
  const int64_t size = in.channels * in.states;
  const int64_t sequence_and_head = blockIdx.x / p.blocks;
  const int64_t index = blockIdx.x % p.blocks * kSsdCarryThreads + threadIdx.x;
  if (index >= size) return;
  const int64_t head = sequence_and_head % in.heads;
  const Sequences sequences = in.sequences();
  const SsdChunks chunks = chunks_of(sequences, sequence_at(sequences, sequence_and_head / in.heads));

  Compute state = p.begin == nullptr ? 0 : reinterpret_cast<const Compute*>(p.begin)[sequence_and_head * size + index];
  const int64_t direction = p.backwards ? -1 : 1;
  int64_t place = chunks.first + (p.backwards ? chunks.count - 1 : 0);
  Compute* states = reinterpret_cast<Compute*>(p.states) + head * size + index;
  const Compute* decays = reinterpret_cast<const Compute*>(p.decays) + head;
  Compute next = chunks.count > 0 ? states[place * in.heads * size] : Compute(0);
  for (int64_t k = 0; k < chunks.count; ++k, place += direction) {
    const Compute added = next;
    if (k + 1 < chunks.count) next = states[(place + direction) * in.heads * size];
    states[place * in.heads * size] = state;
    state = decays[place * in.heads] * state + added;
  }
  if (p.end != nullptr) reinterpret_cast<Compute*>(p.end)[sequence_and_head * size + index] = state;
}

}  // namespace ssm::cuda
