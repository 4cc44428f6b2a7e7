// Backward pass of the selective scan but for its innermost loops, which are the template parameter Pass: real or complex
// states.  A task is one part of the sequences and one slab of channels; it walks each sequence from the last chunk of
// time to the first, recomputing the states of a chunk from its checkpoint.
//
// Pass has: Coefficient<F, Variable> (B or C), kNumbers (per state: 1 or 2), kMost (numbers handled together, a power
// of two), and run.
#pragma once

#include "cpu/prefetch.h"
#include "cpu/selective_scan_adjoint.h"
#include "cpu/selective_scan_partials.h"

namespace ssm::SSM_ISA {

template <class F, class Pass, bool VariableB, bool VariableC, bool Gated>
struct BackwardTask {
  static constexpr int64_t W = kWidth<F>;
  static constexpr int64_t kTile = kTileSteps * W;

  const ScanBackward& params;
  const ScanInputs& in;
  const Partition& partition;
  const PartialSums<F>& partials;
  const int64_t part, slab, blocks;
  const int64_t matrix;  // elements of a block's (n, lanes) matrix

  PrefetchList next_panel;
  Prefetch prefetch;  // in next_panel
  Scratch scratch;
  F *rates, *carry, *initial, *grad_A;  // (blocks, n, lanes); initial: the states before the chunk
  F *grad_D, *grad_bias;                // (blocks, lanes)
  F *panel_u, *panel_delta, *panel_dy, *panel_gate;  // (blocks of a panel, steps, lanes)
  F* tile_slope;                        // (steps, lanes)
  AdjointTiles<F> tiles;
  Trajectory<F> trajectory;
  F *B, *C;            // one chunk (steps, n), or (blocks, n, lanes) if constant
  F *grad_B, *grad_C;  // one chunk (n, steps, lanes) in passes of Count states, or (blocks, n, lanes) if constant

  static int64_t coefficient_size(const ScanInputs& in, int64_t blocks, bool variable) {
    return in.states * (variable ? kTileSteps : blocks * W);
  }
  static int64_t coefficient_grad_size(const ScanInputs& in, int64_t blocks, bool variable) {
    return in.states * W * (variable ? kTileSteps : blocks);
  }

  static int64_t scratch_bytes(const ScanInputs& in, int64_t blocks) {
    const int64_t trajectory_row = Pass::kMost * W;
    int64_t bytes = 4 * Scratch::size<F>(blocks * in.states * W) + 2 * Scratch::size<F>(blocks * W) +
                    4 * Scratch::size<F>(kPanelBlocks * kTile) + 5 * Scratch::size<F>(kTile) +
                    Scratch::size<F>(kTileSteps * trajectory_row) +
                    Scratch::size<F>((kTileSteps + 1) * trajectory_row);
    for (bool variable : {VariableB, VariableC})
      bytes += Scratch::size<F>(coefficient_size(in, blocks, variable)) +
               Scratch::size<F>(coefficient_grad_size(in, blocks, variable));
    return bytes;
  }

  BackwardTask(const ScanBackward& params, const Partition& partition, const PartialSums<F>& partials, int64_t part,
               int64_t slab)
      : params(params), in(params.in), partition(partition), partials(partials), part(part), slab(slab),
        blocks(partition.blocks(slab)), matrix(in.states * W), scratch(scratch_bytes(in, blocks)) {
    for (F** matrices : {&rates, &carry, &initial}) *matrices = scratch.take<F>(blocks * matrix);
    grad_A = scratch.take_zeroed<F>(blocks * matrix);
    grad_D = scratch.take_zeroed<F>(blocks * W);
    grad_bias = scratch.take_zeroed<F>(blocks * W);
    for (F** panel : {&panel_u, &panel_delta, &panel_dy, &panel_gate})
      *panel = scratch.take<F>(kPanelBlocks * kTile);
    tiles.shared_decay = in.shared_decay;
    for (F** tile : {&tile_slope, &tiles.delta_u, &tiles.y, &tiles.q1, &tiles.q2}) *tile = scratch.take<F>(kTile);
    trajectory.decay = scratch.take<F>(kTileSteps * Pass::kMost * W);
    trajectory.state = scratch.take<F>((kTileSteps + 1) * Pass::kMost * W);
    B = scratch.take<F>(coefficient_size(in, blocks, VariableB));
    C = scratch.take<F>(coefficient_size(in, blocks, VariableC));
    grad_B = scratch.take_zeroed<F>(coefficient_grad_size(in, blocks, VariableB));
    grad_C = scratch.take_zeroed<F>(coefficient_grad_size(in, blocks, VariableC));
  }

  void run() {
    read_decay_rates<F>(in, partition.channels(slab, 0, blocks), rates);
    if constexpr (!VariableB) read_states(in.B.data, 0, B);
    if constexpr (!VariableC) read_states(in.C.data, 0, C);
    for (int64_t index = partials.first_sequence(part); index < partials.first_sequence(part + 1); ++index)
      run_sequence(in.sequences().at(index));
    write_states(grad_A, partials.A(part), 0);
    if constexpr (!VariableB) write_states(grad_B, partials.constant_B(part), 0);
    if constexpr (!VariableC) write_states(grad_C, partials.constant_C(part), 0);
    const Channels all = partition.channels(slab, 0, blocks);
    for (int64_t i = 0; i < all.count; ++i) {
      partials.D(part)[all.first + i] = grad_D[i];
      partials.delta_bias(part)[all.first + i] = grad_bias[i];
    }
  }

  void read_states(const void* from, int64_t sequence, F* to) {
    const Channels all = partition.channels(slab, 0, blocks);
    read_lanes<F>(kComputeType<F>, state_matrix<F>(in, from, sequence, all), to, matrix);
  }
  void write_states(const F* from, void* to, int64_t sequence) {
    const Channels all = partition.channels(slab, 0, blocks);
    write_matrix<F>(kComputeType<F>, state_matrix<F>(in, to, sequence, all), from, W, matrix);
  }

  void run_sequence(const Sequence& sequence) {
    if (params.grad_final_state != nullptr) {
      read_states(params.grad_final_state, sequence.index, carry);
    } else {
      std::memset(carry, 0, static_cast<size_t>(blocks * matrix) * sizeof(F));
    }
    for (int64_t index = Chunk::count(sequence) - 1; index >= 0; --index) run_chunk(Chunk(in, sequence, index));
    if (params.grad_initial_state != nullptr) write_states(carry, params.grad_initial_state, sequence.index);
  }

  void run_chunk(const Chunk& chunk) {
    const Channels all = partition.channels(slab, 0, blocks);
    if constexpr (VariableB) read_coefficient<F>(in, in.B, chunk, all.first, B);
    if constexpr (VariableC) read_coefficient<F>(in, in.C, chunk, all.first, C);
    const Matrix checkpoint = checkpoint_matrix<F>(in, params.checkpoints, chunk, all);
    read_lanes<F>(kComputeType<F>, checkpoint, initial, matrix);
    for (int64_t first = 0; first < blocks; first += kPanelBlocks) run_panel(chunk, first);
    if constexpr (VariableB) write_rows(chunk, grad_B, partials.rows_B(slab, chunk.sequence.batch));
    if constexpr (VariableC) write_rows(chunk, grad_C, partials.rows_C(slab, chunk.sequence.batch));
  }

  void run_panel(const Chunk& chunk, int64_t first) {
    const int64_t count = smaller(kPanelBlocks, blocks - first);
    const Channels panel = partition.channels(slab, first, count);
    const auto read = [&](const View3& view, F* to) { read_chunk<F>(in, view, chunk, panel, to); };
    const auto write = [&](F* from, const View3& view, bool add) {
      if (add) {
        read(view, panel_dy);  // no longer needed
        for (int64_t i = 0; i < count * kTile; ++i) from[i] += panel_dy[i];
      }
      write_chunk<F>(in, view, chunk, panel, from);
    };
    read(in.u, panel_u);
    read(in.delta, panel_delta);
    read(params.grad_y, panel_dy);
    if constexpr (Gated) read(in.z, panel_gate);
    prefetch_after(chunk, first, count);
    for (int64_t k = 0; k < count; ++k) {
      const Channels block = partition.channels(slab, first + k, 1);
      tiles.delta = panel_delta + k * kTile;
      tiles.dy = panel_dy + k * kTile;
      prepare(chunk.rows, block, panel_u + k * kTile, panel_gate + k * kTile);
      for_passes(0, [&](auto states, int64_t n) { run_pass<states.value>(chunk.rows, first + k, n); });
      finish(chunk.rows, block, first + k, panel_u + k * kTile, panel_gate + k * kTile);
    }
    write(panel_u, params.grad_u, params.add_to_grad_u);  // by now the gradients are where the inputs were
    write(panel_delta, params.grad_delta, false);
    if constexpr (Gated) write(panel_gate, params.grad_z, params.add_to_grad_z);
  }

  // Has the passes of this panel ask for what the next one reads and writes, and for a share of the next checkpoint.
  void prefetch_after(const Chunk& chunk, int64_t first, int64_t count) {
    const int64_t begin = first + count < blocks ? first + count : 0;
    next_panel.clear();
    if (chunk.begin > 0) {
      const Chunk before(in, chunk.sequence, chunk.begin / kTileSteps - 1);
      const Channels panel = partition.channels(slab, first, count);
      next_panel.add(kComputeType<F>, checkpoint_matrix<F>(in, params.checkpoints, before, panel));
    }
    const Chunk next = begin > 0 ? chunk : chunk_after(chunk);
    if (next.rows > 0) {
      const Channels panel = partition.channels(slab, begin, smaller(kPanelBlocks, blocks - begin));
      for (const View3* view :
           {&in.u, &in.delta, &in.z, &params.grad_y, &params.grad_u, &params.grad_delta, &params.grad_z})
        prefetch_chunk(in, *view, next, panel, next_panel);
    }
    prefetch = next_panel.over(count * ceil_div(in.states, Pass::kMost) * chunk.rows);
  }

  // The chunk before this one in time, or the last one of the next sequence, or a chunk of no rows.
  Chunk chunk_after(const Chunk& chunk) const {
    if (chunk.begin > 0) return Chunk(in, chunk.sequence, chunk.begin / kTileSteps - 1);
    const int64_t next = chunk.sequence.index + 1;
    if (next < partials.first_sequence(part + 1)) {
      const Sequence sequence = in.sequences().at(next);
      if (sequence.steps > 0) return Chunk(in, sequence, Chunk::count(sequence) - 1);
    }
    Chunk none = chunk;
    none.rows = 0;
    return none;
  }

  // delta <- softplus(delta + bias), slope <- its derivative; dy <- grad_y silu(z), gate <- d out / d z per y
  void prepare(int64_t rows, const Channels& block, const F* tile_u, F* gate) {
    const Vec<F> bias = read_channels<F>(in.delta_bias, block), D = read_channels<F>(in.D, block);
    for (int64_t t = 0; t < rows * W; t += W) {
      Vec<F> delta = load<F>(tiles.delta + t) + bias;
      store(tile_slope + t, in.delta_softplus ? softplus_and_slope<F>(delta) : broadcast<F>(F(1)));
      const Vec<F> u = load<F>(tile_u + t);
      store(tiles.delta + t, delta);
      store(tiles.delta_u + t, delta * u);
      store(tiles.q1 + t, Vec<F>{});
      store(tiles.q2 + t, Vec<F>{});
      if constexpr (Gated) {
        const Vec<F> grad_y = load<F>(tiles.dy + t), z = load<F>(gate + t);
        const Sigmoid<F> s = sigmoid_and_complement<F>(z);
        store(tiles.y + t, D * u);
        store(tiles.dy + t, grad_y * (z * s.value));
        store(gate + t, grad_y * s.value * (z * s.complement + F(1)));
      }
    }
  }

  // body(how many, first) for the numbers of a block's state from n on: Pass::kMost at a time, then powers of two.
  template <class Body>
  SSM_INLINE void for_passes(int64_t n, Body body) const {
    for (; n + Pass::kMost <= in.states; n += Pass::kMost) body(std::integral_constant<int, Pass::kMost>{}, n);
    static_assert(Pass::kMost <= 4, "two halvings below");
    if constexpr (Pass::kMost > 2)
      if (n + 2 <= in.states) body(std::integral_constant<int, 2>{}, n), n += 2;
    if constexpr (Pass::kMost > 1 && Pass::kNumbers == 1)
      if (n + 1 <= in.states) body(std::integral_constant<int, 1>{}, n);
  }

  template <int Count>
  SSM_NOINLINE void run_pass(int64_t rows, int64_t k, int64_t n) {
    const int64_t at_n = k * matrix + n * W;
    const AdjointStates<F> states = {rates + at_n,
                                     initial + at_n,
                                     carry + at_n,
                                     grad_A + at_n,
                                     grad_B + (VariableB ? n * kTile : at_n),
                                     grad_C + (VariableC ? n * kTile : at_n)};
    const auto b = Pass::template Coefficient<F, VariableB>::from(in, B, n, at_n);
    const auto c = Pass::template Coefficient<F, VariableC>::from(in, C, n, at_n);
    // Copies, because a store to a tile could change what `this` points to: the addresses then stay in registers.
    const AdjointTiles<F> local_tiles = tiles;
    const Trajectory<F> local_trajectory = trajectory;
    Pass::template run<F, Count, Gated>(rows, local_tiles, states, b, c, local_trajectory, prefetch);
  }

  // u <- grad_u, delta <- grad_delta, gate <- grad_z
  void finish(int64_t rows, const Channels& block, int64_t k, F* tile_u, F* gate) {
    const Vec<F> D = read_channels<F>(in.D, block);
    Vec<F> sum_D = {}, sum_bias = {};
    for (int64_t t = 0; t < rows * W; t += W) {
      const Vec<F> u = load<F>(tile_u + t), dy = load<F>(tiles.dy + t), q1 = load<F>(tiles.q1 + t);
      const Vec<F> grad_delta = (q1 * u + load<F>(tiles.q2 + t) * MathConstants<F>::ln2) * load<F>(tile_slope + t);
      sum_D += dy * u;
      sum_bias += grad_delta;
      store(tile_u + t, q1 * load<F>(tiles.delta + t) + D * dy);
      store(tiles.delta + t, grad_delta);
      if constexpr (Gated) store(gate + t, load<F>(gate + t) * load<F>(tiles.y + t));
    }
    add_to_memory(grad_D + k * W, sum_D);
    add_to_memory(grad_bias + k * W, sum_bias);
  }

  // Sums the lanes of one chunk's dB or dC into the rows (l, n) of this slab, in order of time; the sums become 0.
  void write_rows(const Chunk& chunk, F* sums, F* rows) {
    constexpr int64_t group = W > Pass::kMost ? W : Pass::kMost;  // whole vectors and whole passes
    const int64_t whole = in.states / group * group;
    for_runs(in, chunk, [&](const Run& run) {
      const int64_t stride = run.stride * in.states;
      F* out = rows + run.first * in.states;
      for (int64_t n = 0; n < whole; n += W)
        sum_whole_vectors<F, Pass::kMost>(run.rows, sums + run.row * Pass::kMost * W, n, stride, out);
      for_passes(whole, [&](auto count, int64_t n) {
        sum_over_lanes<F, count.value>(run.rows, sums + n * kTile + run.row * count.value * W, stride, out + n);
      });
    });
  }
};

template <class F, class Pass, bool VariableB, bool VariableC, bool Gated>
void backward(const ScanBackward& params) {
  const ScanInputs& in = params.in;
  // The number of tasks must not follow the number of threads: it decides in which order sums are formed.
  const Partition partition(in, kWidth<F>, smaller(in.sequences().count, kMostParts), kMostParts);
  PartialSums<F> partials(params, partition);
  parallel_for(partials.parts() * partition.slabs, in.num_threads, [&](int64_t task) {
    const int64_t part = task / partition.slabs, slab = task % partition.slabs;
    BackwardTask<F, Pass, VariableB, VariableC, Gated>(params, partition, partials, part, slab).run();
  });
  partials.combine();
}

template <class F, class Pass, bool VariableB, bool VariableC>
void backward(const ScanBackward& params) {
  if (params.in.z.data != nullptr) return backward<F, Pass, VariableB, VariableC, true>(params);
  return backward<F, Pass, VariableB, VariableC, false>(params);
}

template <class F, class Pass>
void backward(const ScanBackward& params) {
  if (params.in.sequences().count == 0 || params.in.channels == 0) return zero_sums<F>(params);
  const bool B = params.in.B.variable(), C = params.in.C.variable();
  if (B && C) return backward<F, Pass, true, true>(params);
  if (B) return backward<F, Pass, true, false>(params);
  if (C) return backward<F, Pass, false, true>(params);
  return backward<F, Pass, false, false>(params);
}

// With the compute type that the tensors ask for.
template <class Pass>
void backward(const ScanBackward& params) {
  if (params.in.dtype == DType::f64) return backward<double, Pass>(params);
  return backward<float, Pass>(params);
}

}  // namespace ssm::SSM_ISA
