// Forward pass of the selective scan but for its innermost loop, which is the template parameter Pass: real or complex
// states.  A task is one sequence and one slab of channels, all steps.
//
// Pass has: Coefficient<F, Variable> (B or C), kNumbers (per state: 1 or 2), kMost (numbers advanced together, a power of
// two), kStoredDecays (numbers per step and lane it wants to keep in ForwardTiles::decays), and run.
#pragma once

#include "cpu/parallel.h"
#include "cpu/prefetch.h"
#include "cpu/selective_scan.h"

namespace ssm::SSM_ISA {

// One block in one chunk, (steps, lanes) each.
template <class F>
struct ForwardTiles {
  const F *delta, *delta_u;
  F* y;       // sum of C h is added
  F* decays;  // scratch: (steps, kStoredDecays, lanes)
  bool shared_decay;
};

template <class F, class Pass, bool VariableB, bool VariableC>
struct ForwardTask {
  static constexpr int64_t W = kWidth<F>;
  static constexpr int64_t kTile = kTileSteps * W;

  const ScanForward& params;
  const ScanInputs& in;
  const Partition& partition;
  const Sequence sequence;
  const int64_t slab, blocks;
  const int64_t matrix;  // elements of a block's (n, lanes) matrix

  PrefetchList next_panel;
  Prefetch prefetch;  // in next_panel
  Scratch scratch;
  F *rates, *states;              // (blocks, n, lanes)
  F *tile_u, *tile_delta, *tile_y, *tile_z;  // (blocks of a panel, steps, lanes)
  F* tile_delta_u;                // (steps, lanes)
  F* decays;                      // one chunk, if the pass stores them
  F *B, *C;                       // one chunk (steps, n), or (blocks, n, lanes) if constant

  static int64_t coefficient_size(const ScanInputs& in, int64_t blocks, bool variable) {
    return in.states * (variable ? kTileSteps : blocks * W);
  }

  static int64_t scratch_bytes(const ScanInputs& in, int64_t blocks) {
    return 2 * Scratch::size<F>(blocks * in.states * W) + 4 * Scratch::size<F>(kPanelBlocks * kTile) +
           Scratch::size<F>(kTile) + Scratch::size<F>(Pass::kStoredDecays * kTile) +
           Scratch::size<F>(coefficient_size(in, blocks, VariableB)) +
           Scratch::size<F>(coefficient_size(in, blocks, VariableC));
  }

  ForwardTask(const ScanForward& params, const Partition& partition, const Sequence& sequence, int64_t slab)
      : params(params), in(params.in), partition(partition), sequence(sequence), slab(slab),
        blocks(partition.blocks(slab)), matrix(in.states * W), scratch(scratch_bytes(in, blocks)) {
    rates = scratch.take<F>(blocks * matrix);
    states = scratch.take_zeroed<F>(blocks * matrix);
    for (F** tile : {&tile_u, &tile_delta, &tile_y, &tile_z}) *tile = scratch.take<F>(kPanelBlocks * kTile);
    tile_delta_u = scratch.take<F>(kTile);
    decays = scratch.take<F>(Pass::kStoredDecays * kTile);
    B = scratch.take<F>(coefficient_size(in, blocks, VariableB));
    C = scratch.take<F>(coefficient_size(in, blocks, VariableC));
  }

  void run() {
    run([](const Chunk&) {});
  }

  // Calls before(chunk) ahead of reading it: what the scan reads may be made then, and is in the cache.
  template <class Before>
  void run(Before before) {
    const Channels all = partition.channels(slab, 0, blocks);
    const DType type = kComputeType<F>;
    read_decay_rates<F>(in, all, rates);
    if (in.initial_state != nullptr)
      read_lanes<F>(type, state_matrix<F>(in, in.initial_state, sequence.index, all), states, matrix);
    if constexpr (!VariableB) read_lanes<F>(type, state_matrix<F>(in, in.B.data, 0, all), B, matrix);
    if constexpr (!VariableC) read_lanes<F>(type, state_matrix<F>(in, in.C.data, 0, all), C, matrix);
    for (int64_t index = 0; index < Chunk::count(sequence); ++index) {
      const Chunk chunk(in, sequence, index);
      before(chunk);
      if (params.checkpoints != nullptr)
        write_matrix<F>(type, checkpoint_matrix<F>(in, params.checkpoints, chunk, all), states, W, matrix);
      if constexpr (VariableB) read_coefficient<F>(in, in.B, chunk, all.first, B);
      if constexpr (VariableC) read_coefficient<F>(in, in.C, chunk, all.first, C);
      for (int64_t first = 0; first < blocks; first += kPanelBlocks) run_panel(chunk, first);
    }
    if (params.final_state != nullptr)
      write_matrix<F>(type, state_matrix<F>(in, params.final_state, sequence.index, all), states, W, matrix);
  }

  void run_panel(const Chunk& chunk, int64_t first) {
    const int64_t count = smaller(kPanelBlocks, blocks - first);
    const Channels panel = partition.channels(slab, first, count);
    read_chunk<F>(in, in.u, chunk, panel, tile_u);
    read_chunk<F>(in, in.delta, chunk, panel, tile_delta);
    if (in.z.data != nullptr) read_chunk<F>(in, in.z, chunk, panel, tile_z);
    if (params.add_to_y) read_chunk<F>(in, params.y, chunk, panel, tile_y);
    prefetch_after(chunk, first, count);
    for (int64_t k = 0; k < count; ++k) {
      const int64_t tile = k * kTile;
      prepare(chunk.rows, partition.channels(slab, first + k, 1), tile);
      advance_all(chunk.rows, first + k, tile);
      if (in.z.data != nullptr) gate(chunk.rows, tile);
    }
    write_chunk<F>(in, params.y, chunk, panel, tile_y);
  }

  // Has the passes of this panel ask for what the next one reads and writes.
  void prefetch_after(const Chunk& chunk, int64_t first, int64_t count) {
    const int64_t begin = first + count < blocks ? first + count : 0;
    const Chunk next = begin > 0 ? chunk : Chunk(in, sequence, chunk.begin / kTileSteps + 1);
    next_panel.clear();
    if (next.begin < sequence.steps) {
      const Channels panel = partition.channels(slab, begin, smaller(kPanelBlocks, blocks - begin));
      for (const View3* view : {&in.u, &in.delta, &in.z, &params.y}) prefetch_chunk(in, *view, next, panel, next_panel);
    }
    prefetch = next_panel.over(count * ceil_div(in.states, Pass::kMost) * chunk.rows);
  }

  // delta <- softplus(delta + bias); delta_u <- delta * u; y <- D * u, or y + D * u
  void prepare(int64_t rows, const Channels& block, int64_t tile) {
    const Vec<F> bias = read_channels<F>(in.delta_bias, block), D = read_channels<F>(in.D, block);
    for (int64_t t = 0; t < rows * W; t += W) {
      Vec<F> delta = load<F>(tile_delta + tile + t) + bias;
      if (in.delta_softplus) delta = softplus<F>(delta);
      const Vec<F> u = load<F>(tile_u + tile + t);
      store(tile_delta + tile + t, delta);
      store(tile_delta_u + t, delta * u);
      store(tile_y + tile + t, params.add_to_y ? load<F>(tile_y + tile + t) + D * u : D * u);
    }
  }

  void gate(int64_t rows, int64_t tile) {
    const F factor = static_cast<F>(params.gate_factor);
    for (int64_t t = tile; t < tile + rows * W; t += W) {
      const Vec<F> z = load<F>(tile_z + t);
      store(tile_y + t, load<F>(tile_y + t) * (factor * z * sigmoid<F>(z)));
    }
  }

  // All n numbers of a block's state, Pass::kMost at a time, the rest in powers of two.
  void advance_all(int64_t rows, int64_t k, int64_t tile) {
    int64_t n = 0;
    for (; n + Pass::kMost <= in.states; n += Pass::kMost) advance<Pass::kMost>(rows, k, n, tile);
    if constexpr (Pass::kMost > Pass::kNumbers) advance_rest<Pass::kMost / 2>(rows, k, n, tile);
  }

  template <int Count>
  void advance_rest(int64_t rows, int64_t k, int64_t n, int64_t tile) {
    if (n + Count <= in.states) advance<Count>(rows, k, n, tile), n += Count;
    if constexpr (Count > Pass::kNumbers) advance_rest<Count / 2>(rows, k, n, tile);
  }

  // h <- exp(delta A) h + delta u B and y <- y + C h for Count numbers of the state of block k, from n on.
  template <int Count>
  SSM_NOINLINE void advance(int64_t rows, int64_t k, int64_t n, int64_t tile) {
    const int64_t at_n = k * matrix + n * W;
    const auto b = Pass::template Coefficient<F, VariableB>::from(in, B, n, at_n);
    const auto c = Pass::template Coefficient<F, VariableC>::from(in, C, n, at_n);
    const ForwardTiles<F> tiles = {tile_delta + tile, tile_delta_u, tile_y + tile, decays, in.shared_decay};
    Pass::template run<F, Count>(rows, tiles, rates + at_n, states + at_n, b, c, prefetch);
  }
};

// Scans of the same steps in several directions, added up in the y of all; one after the other for a slab of channels,
// whose part of y and z stays in the cache.
template <class F, class Pass, bool VariableB, bool VariableC>
void forward(const ScanForward* scans, int64_t count) {
  const ScanInputs& in = scans[0].in;
  const Sequences sequences = in.sequences();
  if (sequences.count == 0 || in.channels == 0) return;
  // Channels are independent of each other, so the result does not depend on how they are dealt to tasks.
  const Partition partition(in, kWidth<F>, sequences.count, 4 * int64_t(in.num_threads));
  parallel_for(sequences.count * partition.slabs, in.num_threads, [&](int64_t task) {
    const Sequence sequence = sequences.at(task / partition.slabs);
    for (int64_t k = 0; k < count; ++k) {
      ForwardTask<F, Pass, VariableB, VariableC>(scans[k], partition, sequence, task % partition.slabs).run();
    }
  });
}

template <class F, class Pass>
void forward(const ScanForward* scans, int64_t count) {
  const bool B = scans[0].in.B.variable(), C = scans[0].in.C.variable();
  if (B && C) return forward<F, Pass, true, true>(scans, count);
  if (B) return forward<F, Pass, true, false>(scans, count);
  if (C) return forward<F, Pass, false, true>(scans, count);
  return forward<F, Pass, false, false>(scans, count);
}

// With the compute type that the tensors ask for.
template <class Pass>
void forward(const ScanForward* scans, int64_t count) {
  if (scans[0].in.dtype == DType::f64) return forward<double, Pass>(scans, count);
  return forward<float, Pass>(scans, count);
}

}  // namespace ssm::SSM_ISA
