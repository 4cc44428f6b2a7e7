// How the SSD scan is laid out on a GPU: chunks of steps, blocks, and what the kernels hand to each other.  Functions of
// sizes alone, tested as such.
#pragma once

#include <cstdint>

#include "ssd_scan_params.h"

namespace ssm::cuda {

constexpr int kSsdChunk = 64;  // steps
constexpr int kSsdCarryThreads = 256;

// Bytes from the start of the workspace; every part is aligned to 256 bytes.
struct SsdWorkspace {
  int64_t states = 0;       // (chunks, h, p, n): what a chunk adds to the state, then the state before it
  int64_t grad_states = 0;  // (chunks, h, p, n): what a chunk adds to the gradient, then that of the state after it
  int64_t decays = 0;       // (chunks, h): of the state over the chunk
  int64_t grad_A = 0, grad_dt_bias = 0;  // (chunks, h): of each chunk
  int64_t grad_D = 0;                    // (chunks, h), or (chunks, h, p) if D has p
  int64_t bytes = 0;
};

struct SsdPlan {
  // Places of chunks.  Those of packed sequence i begin at offsets[i] / 64 + i, which leaves some empty.
  int64_t chunks = 0;
  int64_t channel_tiles = 0, state_tiles = 0;  // of p and n, 64 each
  int64_t carry_blocks = 0;                    // of a sequence and head
  SsdWorkspace workspace;
};

inline int64_t ssd_chunks(int64_t sequences, int64_t steps, bool packed) {
  if (packed) return steps / kSsdChunk + sequences;
  return sequences * ((steps + kSsdChunk - 1) / kSsdChunk);
}

inline SsdPlan plan_ssd(const SsdInputs& in, bool backward) {
  const auto tiles = [](int64_t size, int64_t tile) { return (size + tile - 1) / tile; };
  SsdPlan plan;
  const Sequences sequences = in.sequences();
  plan.chunks = ssd_chunks(sequences.count, in.steps, sequences.packed());
  plan.channel_tiles = tiles(in.channels, 64), plan.state_tiles = tiles(in.states, 64);
  plan.carry_blocks = tiles(in.channels * in.states, kSsdCarryThreads);

  const int64_t size = in.dtype == DType::f64 ? 8 : 4, heads = plan.chunks * in.heads;
  SsdWorkspace& w = plan.workspace;
  const auto take = [&w, size](int64_t& offset, int64_t numbers) {
    offset = w.bytes;
    w.bytes += (numbers * size + 255) / 256 * 256;
  };
  take(w.states, heads * in.channels * in.states);
  take(w.decays, heads);
  if (backward) {
    take(w.grad_states, heads * in.channels * in.states);
    take(w.grad_A, heads);
    take(w.grad_dt_bias, heads);
    take(w.grad_D, in.D == nullptr ? 0 : in.D_per_channel ? heads * in.channels : heads);
  }
  return plan;
}

}  // namespace ssm::cuda
