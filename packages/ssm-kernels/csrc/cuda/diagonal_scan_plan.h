// How a call of the diagonal scan is cut up: pure functions of its sizes.
//
// A lane owns one group of channels (two neighbours if 16-bit, else one) of one sequence, a warp the same run of a few
// steps of 32 lanes, a block the next runs, one per warp.  A block so reads a tile of runs at once, links the runs
// through shared memory and writes the tile: every number is read and written once, and enough is on its way even
// where each multiprocessor has a single block.  Only with fewer blocks than that sequences are cut into chunks, whose
// inputs are read twice.
#pragma once

#include <algorithm>
#include <cstdint>

#include "diagonal_scan_params.h"

namespace ssm::cuda {

constexpr int64_t kDiagonalLanes = 32;
constexpr int64_t kDiagonalWarps = 8;
constexpr int64_t kDiagonalMostChunks = 512;

// Channels of a lane, and bytes of their numbers at one step.
SSM_HOST_DEVICE inline int64_t diagonal_group(DType dtype) { return size_of(dtype) == 2 ? 2 : 1; }
SSM_HOST_DEVICE inline int64_t diagonal_packet(DType dtype, bool is_complex) {
  return diagonal_group(dtype) * size_of(dtype) * (is_complex ? 2 : 1);
}

// Steps of a run: as many as fit the registers.  The backward pass also holds the states.
SSM_HOST_DEVICE inline int64_t diagonal_run_steps(DType dtype, bool is_complex, bool backward) {
  return std::max<int64_t>(4, (backward ? 32 : 64) / diagonal_packet(dtype, is_complex));
}

// What the gradient of a is summed over first, in registers.  The rest of the sum runs over partial sums.
enum class SumOfA : int32_t { not_wanted, nothing, time, channels };

inline SumOfA sum_of_a(const DiagonalInputs& in, bool wanted) {
  if (!wanted) return SumOfA::not_wanted;
  return !in.a_per_step ? SumOfA::time : !in.a_per_channel ? SumOfA::channels : SumOfA::nothing;
}

struct DiagonalPlan {
  int64_t row = 0;         // lanes from one sequence to the next
  int64_t row_blocks = 0;  // blocks for all lanes
  int64_t chunks = 1;      // of each sequence
  int64_t warps = 1;
  int64_t run_steps = 0;
  int64_t number_bytes = 0;               // of a number that is computed with
  int64_t tile_offset = 0;                // in shared memory, of a tile that is turned from steps to channels
  int64_t shared_bytes = 0;
  int64_t summed = 1, sums = 0, groups = 1;  // partial sums of the gradient of a: (groups, summed, sums) numbers
  int64_t maps_offset = 0, partials_offset = 0, workspace_bytes = 0;
  SSM_HOST_DEVICE int64_t tile_steps() const { return warps * run_steps; }
  SSM_HOST_DEVICE int64_t panels() const { return row / kDiagonalLanes; }  // warps of one sequence's channels
  int64_t blocks() const { return row_blocks * chunks; }
};

inline int64_t diagonal_divide_up(int64_t a, int64_t b) { return (a + b - 1) / b; }
inline int64_t diagonal_round_up(int64_t a, int64_t b) { return diagonal_divide_up(a, b) * b; }

// Steps of the chunks of a sequence, whole tiles; those at the end may be empty.
SSM_HOST_DEVICE inline int64_t diagonal_chunk_steps(const DiagonalPlan& plan, int64_t steps) {
  const int64_t tile = plan.tile_steps();
  return ((steps + plan.chunks - 1) / plan.chunks + tile - 1) / tile * tile;
}

// Chunks for so many blocks without: none where 3/5 of the multiprocessors have work, as reading twice would cost as
// much; else two blocks for each.
inline int64_t diagonal_chunks(int64_t blocks, int64_t tiles, int64_t multiprocessors) {
  if (blocks == 0 || 5 * blocks >= 3 * multiprocessors) return 1;
  const int64_t wanted = diagonal_divide_up(2 * multiprocessors, blocks);
  return std::max<int64_t>(1, std::min({wanted, tiles / 2, kDiagonalMostChunks}));
}

// Elements of a row of the tile that is turned: an odd number of words, so that lanes meet different banks.
SSM_HOST_DEVICE inline int64_t diagonal_tile_row(const DiagonalPlan& plan, int64_t element_bytes) {
  return plan.tile_steps() + (element_bytes == 2 ? 2 : 1);
}

inline void plan_sums(DiagonalPlan& plan, const DiagonalInputs& in, SumOfA sum) {
  const Sequences sequences = in.sequences();
  const int64_t batches = in.a_per_batch ? in.batch : 1;
  if (sum == SumOfA::nothing) {
    plan.summed = in.a_per_batch ? 1 : in.batch;
    plan.sums = batches * in.steps * in.channels;
  } else if (sum == SumOfA::time) {
    plan.groups = batches;
    plan.summed = (in.offsets != nullptr ? sequences.count : in.batch / std::max<int64_t>(1, batches)) * plan.chunks *
                  (in.a_per_channel ? 1 : plan.panels());
    plan.sums = in.a_per_channel ? in.channels : 1;
  } else if (sum == SumOfA::channels) {
    plan.summed = plan.panels() * (in.a_per_batch ? 1 : in.batch);
    plan.sums = batches * in.steps;
  }
}

// turned: some tensor's neighbours in memory are steps.
inline DiagonalPlan plan_diagonal_scan(const DiagonalInputs& in, bool backward, bool turned, SumOfA sum,
                                       int64_t multiprocessors) {
  DiagonalPlan plan;
  const int64_t group = diagonal_group(in.dtype), count = in.sequences().count;
  plan.number_bytes = (in.dtype == DType::f64 ? 8 : 4) * (in.is_complex ? 2 : 1);
  plan.run_steps = diagonal_run_steps(in.dtype, in.is_complex, backward);
  plan.warps = std::clamp<int64_t>(diagonal_divide_up(in.steps, plan.run_steps), 1, kDiagonalWarps);
  // Warps of a single sequence: they need not have the same length, and sums over channels stay inside a sequence.
  const bool padded = in.offsets != nullptr || (sum != SumOfA::not_wanted && !in.a_per_channel);
  plan.row = diagonal_round_up(diagonal_divide_up(in.channels, group), padded ? kDiagonalLanes : 1);
  plan.row_blocks = diagonal_divide_up(count * plan.row, kDiagonalLanes);
  plan.chunks = diagonal_chunks(plan.row_blocks, in.steps / plan.tile_steps(), multiprocessors);

  const int64_t lanes_bytes = kDiagonalLanes * group * plan.number_bytes;
  plan.tile_offset = diagonal_round_up(2 * (2 * plan.warps + 1) * lanes_bytes, 128);
  plan.shared_bytes = plan.tile_offset;
  if (turned)  // the widest element is that of a, which may have the compute type
    plan.shared_bytes += kDiagonalLanes * group * diagonal_tile_row(plan, plan.number_bytes) * plan.number_bytes;

  plan_sums(plan, in, sum);
  const int64_t maps = plan.chunks > 1 ? 2 * count * plan.chunks * in.channels : 0;
  const int64_t partials = plan.summed == 1 ? 0 : plan.groups * plan.summed * plan.sums;
  plan.partials_offset = diagonal_round_up(maps * plan.number_bytes, 256);
  plan.workspace_bytes = plan.partials_offset + partials * plan.number_bytes;
  return plan;
}

}  // namespace ssm::cuda
