// What the forward and the backward pass of the selective scan share: how channels are cut into vectors ("blocks") and
// tasks ("slabs"), and the tiles of one chunk of time.
//
// Lanes of a vector are neighbouring channels, so no sum over lanes is needed for y and the state of one index n is one
// register.  Time is cut into chunks of kScanChunk steps; inside a chunk u, delta, ... are tiles of (steps, lanes), in
// processing order, in the compute type.  Lanes beyond the last channel hold zeros.  Tensors are read and written a few
// blocks at a time ("panels"): single vectors out of every row of a (b, l, d) tensor would use one cache line per page.
#pragma once

#include "cpu/integers.h"
#include "cpu/prefetch.h"
#include "cpu/scratch.h"
#include "cpu/tile.h"
#include "cpu/vec_math.h"
#include "params.h"

namespace ssm::SSM_ISA {

constexpr int64_t kTileSteps = kScanChunk;

// Blocks that are read and written together.
constexpr int64_t kPanelBlocks = 4;

// Blocks of a slab at most; the states of all of them stay in the second-level cache.
constexpr int64_t kMostBlocks = 16;

// Neighbouring channels that share their rows of B and C: a block (up to one vector of them), a panel or a slab.
struct Channels {
  int64_t first, count;
};

// Channels are cut into spans (the channels between two group borders of B or C), spans into blocks of one vector, and
// consecutive blocks of a span are put into slabs.
struct Partition {
  int64_t span;             // channels per span
  int64_t width;            // channels per block
  int64_t blocks_per_span;
  int64_t blocks_per_slab;
  int64_t slabs_per_span;
  int64_t slabs;

  // `independent`: how many tasks each slab will be part of; `wanted_tasks`: how many there should be at least.
  Partition(const ScanInputs& in, int64_t vector_width, int64_t independent, int64_t wanted_tasks)
      : span(in.channels), width(vector_width) {
    if (in.B.variable()) span = common_divisor(span, in.channels / in.B.groups);
    if (in.C.variable()) span = common_divisor(span, in.channels / in.C.groups);
    blocks_per_span = ceil_div(span, width);
    // Large slabs read B and C less often and use whole panels; small ones keep more cores busy.
    const int64_t spans = in.channels / span;
    const int64_t wanted_slabs = larger(1, ceil_div(wanted_tasks, independent * spans));
    const int64_t fewest = larger(1, smaller(kPanelBlocks, blocks_per_span / 8));
    blocks_per_slab = smaller(kMostBlocks, larger(fewest, blocks_per_span / wanted_slabs));
    slabs_per_span = ceil_div(blocks_per_span, blocks_per_slab);
    slabs = spans * slabs_per_span;
  }

  // All channels as one slab; B and C have one group.
  static Partition of_one_slab(const ScanInputs& in, int64_t vector_width) {
    Partition partition(in, vector_width, 1, 1);
    partition.blocks_per_slab = partition.blocks_per_span, partition.slabs_per_span = partition.slabs = 1;
    return partition;
  }

  int64_t first_block(int64_t slab) const { return slab % slabs_per_span * blocks_per_slab; }
  int64_t blocks(int64_t slab) const { return smaller(blocks_per_slab, blocks_per_span - first_block(slab)); }

  // The channels of blocks [index, index + blocks) of a slab.
  Channels channels(int64_t slab, int64_t index, int64_t blocks) const {
    const int64_t offset = (first_block(slab) + index) * width;
    return {slab / slabs_per_span * span + offset, smaller(blocks * width, span - offset)};
  }

 private:
  static int64_t common_divisor(int64_t a, int64_t b) {
    while (b != 0) {
      const int64_t rest = a % b;
      a = b;
      b = rest;
    }
    return a;
  }
};

// Some consecutive steps of one sequence in processing order, at most kTileSteps.
struct Chunk {
  Sequence sequence;
  int64_t begin, rows;
  int64_t checkpoint;  // which of the checkpoints

  Chunk(const ScanInputs& in, const Sequence& sequence, int64_t index)
      : sequence(sequence), begin(index * kTileSteps), rows(smaller(kTileSteps, sequence.steps - begin)),
        checkpoint(first_scan_chunk(in.sequences(), sequence.index) + index) {}

  static int64_t count(const Sequence& sequence) { return ceil_div(sequence.steps, kTileSteps); }
};

// Consecutive rows of a chunk whose steps are evenly spaced on the axis l: from `first` on, `stride` apart.
struct Run {
  int64_t row, rows;
  int64_t first, stride;
};

// Calls body(run) for the runs of a chunk: one, unless time runs down the columns of an image.
template <class Body>
SSM_INLINE void for_runs(const ScanInputs& in, const Chunk& chunk, Body body) {
  const int64_t sign = in.reverse ? -1 : 1;
  const int64_t begin = in.reverse ? chunk.sequence.steps - 1 - chunk.begin : chunk.begin;
  if (in.columns == 0) return body(Run{0, chunk.rows, chunk.sequence.first + begin, sign});
  const int64_t height = in.steps / in.columns;  // steps of one column
  for (int64_t row = 0; row < chunk.rows;) {
    const int64_t time = begin + sign * row, column = time / height, y = time % height;
    const int64_t rows = smaller(chunk.rows - row, in.reverse ? y + 1 : height - y);
    body(Run{row, rows, y * in.columns + column, sign * in.columns});
    row += rows;
  }
}

// The part of a (b, l, d) tensor in one run: rows are steps, columns channels.
SSM_INLINE Matrix run_matrix(const View3& view, int64_t batch, const Run& run, const Channels& channels) {
  const int64_t offset = batch * view.stride_b + run.first * view.stride_l + channels.first * view.stride_d;
  return {view.data + offset * size_of(view.dtype), run.stride * view.stride_l, view.stride_d, run.rows, channels.count};
}

// The part of a (b, d, n) state: rows are states, columns channels.
template <class F>
SSM_INLINE Matrix state_matrix(const ScanInputs& in, const void* data, int64_t batch, const Channels& channels) {
  char* begin = const_cast<char*>(static_cast<const char*>(data));
  const int64_t offset = (batch * in.channels + channels.first) * in.states;
  return {begin + offset * static_cast<int64_t>(sizeof(F)), 1, in.states, in.states, channels.count};
}

// The part of the checkpoints (chunks, n, d): rows are states, columns channels.
template <class F>
SSM_INLINE Matrix checkpoint_matrix(const ScanInputs& in, const void* data, const Chunk& chunk,
                                    const Channels& channels) {
  char* begin = const_cast<char*>(static_cast<const char*>(data));
  const int64_t offset = chunk.checkpoint * in.states * in.channels + channels.first;
  return {begin + offset * static_cast<int64_t>(sizeof(F)), in.channels, 1, in.states, channels.count};
}

// Reads into vectors, (rows, lanes) per block; lanes without a channel become 0.
template <class F>
SSM_INLINE void read_lanes(DType dtype, const Matrix& m, F* tile, int64_t block_stride) {
  constexpr int64_t W = kWidth<F>;
  if (m.cols % W != 0)
    std::memset(tile + m.cols / W * block_stride, 0, static_cast<size_t>(m.rows * W) * sizeof(F));
  read_matrix<F>(dtype, m, tile, W, block_stride);
}

// One chunk of a (b, l, d) tensor as (blocks, steps, lanes).
template <class F>
SSM_INLINE void read_chunk(const ScanInputs& in, const View3& view, const Chunk& chunk, const Channels& channels,
                           F* tiles) {
  constexpr int64_t W = kWidth<F>;
  for_runs(in, chunk, [&](const Run& run) {
    read_lanes<F>(view.dtype, run_matrix(view, chunk.sequence.batch, run, channels), tiles + run.row * W,
                  kTileSteps * W);
  });
}

template <class F>
SSM_INLINE void write_chunk(const ScanInputs& in, const View3& view, const Chunk& chunk, const Channels& channels,
                            const F* tiles) {
  constexpr int64_t W = kWidth<F>;
  for_runs(in, chunk, [&](const Run& run) {
    write_matrix<F>(view.dtype, run_matrix(view, chunk.sequence.batch, run, channels), tiles + run.row * W, W,
                    kTileSteps * W);
  });
}

SSM_INLINE void prefetch_chunk(const ScanInputs& in, const View3& view, const Chunk& chunk, const Channels& channels,
                               PrefetchList& list) {
  if (view.data == nullptr) return;
  for_runs(in, chunk,
           [&](const Run& run) { list.add(view.dtype, run_matrix(view, chunk.sequence.batch, run, channels)); });
}

// One vector of per-channel values, contiguous in memory; zeros without a channel or without data.
template <class F>
SSM_INLINE Vec<F> read_channels(const void* data, const Channels& channels) {
  F lanes[kWidth<F>] = {};
  if (data != nullptr)
    for (int64_t i = 0; i < channels.count; ++i) lanes[i] = static_cast<const F*>(data)[channels.first + i];
  return load<F>(lanes);
}

// B or C as the inner loops see it: one number per step and state for all lanes, or one vector per state for all steps.
template <class F, bool Variable>
struct Coefficient {
  const F* data;   // variable: (steps, n); constant: (n, lanes)
  int64_t states;  // n

  // For the states from n on; at_n is where those of the block begin in a constant's (blocks, n, lanes).
  static SSM_INLINE Coefficient from(const ScanInputs& in, const F* data, int64_t n, int64_t at_n) {
    return {data + (Variable ? n : at_n), in.states};
  }

  SSM_INLINE auto at(int64_t step, int64_t n) const {
    if constexpr (Variable) {
      return data[step * states + n];
    } else {
      return load<F>(data + n * kWidth<F>);
    }
  }
};

// Reads variable B or C of one chunk into (steps, n), for the group that `channel` belongs to.  Complex rows hold all real
// parts, then all imaginary parts.
template <class F>
SSM_INLINE void read_coefficient(const ScanInputs& in, const CoefficientView& view, const Chunk& chunk, int64_t channel,
                                 F* tile) {
  const int64_t group = channel / (in.channels / view.groups);
  const DType dtype = in.coefficient_dtype();
  const int64_t parts = in.complex_A ? 2 : 1, states = in.states / parts;
  for_runs(in, chunk, [&](const Run& run) {
    const int64_t offset =
        chunk.sequence.batch * view.stride_b + run.first * view.stride_l + group * view.stride_g;
    for (int64_t part = 0; part < parts; ++part) {
      char* data = view.data + (offset + part) * size_of(dtype);
      const Matrix m = {data, run.stride * view.stride_l, view.stride_n, run.rows, states};
      read_matrix<F>(dtype, m, tile + run.row * in.states + part * states, in.states);
    }
  });
}

// A * log2(e), as (blocks, n, lanes): the decay of one step is then 2^(delta * that).  Imaginary parts stay as they are.
template <class F>
SSM_INLINE void read_decay_rates(const ScanInputs& in, const Channels& channels, F* rates) {
  const int64_t block_size = in.states * kWidth<F>;
  read_lanes<F>(kComputeType<F>, state_matrix<F>(in, in.A, 0, channels), rates, block_size);
  const int64_t size = ceil_div(channels.count, kWidth<F>) * block_size;
  const int64_t step = in.complex_A ? 2 * kWidth<F> : kWidth<F>;
  for (int64_t i = 0; i < size; i += step) store(rates + i, load<F>(rates + i) * MathConstants<F>::log2e);
}

}  // namespace ssm::SSM_ISA
