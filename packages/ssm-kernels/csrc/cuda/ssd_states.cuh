// States between the chunks: what each chunk adds, and their way from chunk to chunk.
#pragma once

#include "cuda/ssd_chunk.cuh"

namespace ssm::cuda {

// states[chunk, h] (p, n) = the sum over the chunk's steps of to_end step x B^T, a tile per block: blockIdx.x is the chunk and
// head, blockIdx.y the tile.
template <DType T>
__global__ void __launch_bounds__(kTileThreads) ssd_chunk_states(SsdForwardCall p) {
  using Compute = typename Number<T>::Compute;
  using Multiply = typename Multiplies<T>::Computed;
  const SsdInputs& in = p.call.in;
  const int64_t place = blockIdx.x / in.heads, head = blockIdx.x % in.heads;
  const int64_t state_tiles = (in.states + kTile - 1) / kTile;
  const int64_t first_p = blockIdx.y / state_tiles * kTile, first_n = blockIdx.y % state_tiles * kTile;
  const SsdChunk chunk = chunk_at(in, place);
  if (chunk.steps == 0) return;

  auto& times = *shared_memory<SsdTimes<Compute>>();
  char* staged = shared_memory() + sizeof(times);
  fill_times<T>(times, in, chunk, head);
  const SsdRows<T> x(in.x, chunk, head, in.channels);
  const SsdRows<T> B(in.B, chunk, head / (in.heads / in.groups), in.states);
  Sums<Compute> sums;
  sums.clear();
  add_product<Multiply, false, false>(
      sums, chunk.steps, staged, [&](int i, int k) { return x(k, first_p + i); },
      [&](int j, int k) {
        return k < chunk.steps ? B(k, first_n + j) * (times.step[k] * times.to_end(k)) : Compute(0);
      });
  const SsdState<Compute> state(p.states, in, place, head);
  each_element(sums, [&](int i, int j, Compute& sum) {
    if (state.has(first_p + i, first_n + j)) state.data[(first_p + i) * in.states + first_n + j] = sum;
  });
  if (blockIdx.y == 0 && threadIdx.x == 0) reinterpret_cast<Compute*>(p.decays)[blockIdx.x] = times.whole();
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
