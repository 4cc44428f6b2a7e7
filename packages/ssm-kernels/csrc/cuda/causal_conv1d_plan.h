// How the causal convolution is dealt to a GPU.
//
// The steps of each batch index are cut into runs, and the channels into vectors.  A thread slides along one run with one
// vector of channels; it reads the width - 1 samples before its run once more, so runs should be long, and short enough
// that there are threads for the whole GPU.  A block has `lanes` neighbouring vectors times `rows` runs, runs being
// counted on from one batch index to the next.
//
// Tensors that do not have their channels in aligned vectors go through shared memory, tile by tile ("staged"): then the
// runs are short, for the tile's sake, and those of a block are of one batch index.
#pragma once

#include <cstdint>
#include <initializer_list>

#include "causal_conv1d_params.h"

namespace ssm::cuda {

constexpr int kConvThreads = 128;
constexpr int kShortestConvRun = 16, kLongestConvRun = 128;
constexpr int64_t kConvThreadsWanted = 132 * 1024;  // what a large GPU runs at a time

struct ConvPlan {
  int32_t lanes = 32, rows = 4;
  int32_t run_steps = 0;
  int64_t runs_per_line = 0, runs = 0;  // in a batch index; in all
  int64_t vectors = 0, tiles = 0;       // of channels: vectors; blocks side by side
  int64_t run_blocks = 0;               // tiles times blocks of runs
  int64_t state_blocks = 0;             // after those, blocks of one thread per channel of a sequence
  int64_t row_blocks() const { return tiles == 0 ? 0 : run_blocks / tiles; }
  int64_t blocks() const { return run_blocks + state_blocks; }
};

inline int64_t conv_divide_up(int64_t a, int64_t b) { return (a + b - 1) / b; }

struct ConvSizes {
  int64_t batch = 0, steps = 0, channels = 0, sequences = 0;
  bool states = false;  // to be written
  bool staged = false;
};

inline ConvPlan plan_conv(const ConvSizes& sizes, int vector) {
  ConvPlan plan;
  plan.vectors = conv_divide_up(sizes.channels, vector);
  // The fewest idle lanes; wide blocks where that is equal.
  int64_t fewest = -1;
  for (int32_t lanes = 32; lanes >= 8; lanes /= 2) {
    const int64_t covered = conv_divide_up(plan.vectors, lanes) * lanes;
    if (fewest < 0 || covered < fewest) fewest = covered, plan.lanes = lanes;
  }
  plan.rows = kConvThreads / plan.lanes;
  plan.tiles = conv_divide_up(plan.vectors, plan.lanes);
  if (sizes.steps > 0 && sizes.batch > 0 && sizes.sequences > 0) {
    int64_t longest = sizes.staged ? kShortestConvRun : kLongestConvRun;
    while (longest > kShortestConvRun &&
           sizes.batch * conv_divide_up(sizes.steps, longest) * plan.vectors < kConvThreadsWanted)
      longest /= 2;
    plan.runs_per_line = conv_divide_up(sizes.steps, longest);
    plan.run_steps = static_cast<int32_t>(conv_divide_up(sizes.steps, plan.runs_per_line));
    plan.runs_per_line = conv_divide_up(sizes.steps, plan.run_steps);
    if (sizes.staged) plan.runs_per_line = conv_divide_up(plan.runs_per_line, plan.rows) * plan.rows;
    plan.runs = sizes.batch * plan.runs_per_line;
    plan.run_blocks = plan.tiles * conv_divide_up(plan.runs, plan.rows);
  }
  if (sizes.states) plan.state_blocks = conv_divide_up(sizes.sequences * sizes.channels, kConvThreads);
  return plan;
}

// Whether vectors of so many channels lie in aligned memory, in all the tensors.
inline bool has_conv_vectors(const ConvInputs& in, std::initializer_list<View3> views, int vector) {
  if (in.dtype == DType::f64 || in.channels % vector != 0) return false;
  for (const View3& v : views) {
    const int64_t address = static_cast<int64_t>(reinterpret_cast<intptr_t>(v.data));
    if (v.stride_d != 1 || (v.stride_b | v.stride_l) % vector != 0) return false;
    if (address % (vector * size_of(v.dtype)) != 0) return false;
  }
  return true;
}

// Bytes of one tensor's tile with `extra` steps beyond the runs of a block, a multiple of 16.
inline int64_t conv_tile_bytes(const ConvPlan& plan, int vector, int64_t extra, int64_t number_bytes) {
  const int64_t rows = int64_t(plan.rows) * plan.run_steps + extra, pitch = int64_t(plan.lanes + 1) * vector;
  return conv_divide_up(rows * pitch * number_bytes, 16) * 16;
}

// Bytes of the partial sums of the gradients of weight and bias: (blocks of runs, width + 1, channels).
inline int64_t conv_partial_bytes(const ConvPlan& plan, int64_t width, int64_t channels, int64_t number_bytes) {
  return plan.row_blocks() * (width + 1) * channels * number_bytes;
}

// Shared memory in which the rows of a block add up theirs.
inline int64_t conv_shared_bytes(const ConvPlan& plan, int vector, int64_t width, int64_t number_bytes) {
  return plan.rows * (width + 1) * plan.lanes * vector * number_bytes;
}

}  // namespace ssm::cuda
