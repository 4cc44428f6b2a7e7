// Tensors of any strides brought into shared memory as rows of channels: for those whose unit stride is not the channel's,
// or whose vectors are not aligned.
#pragma once

#include "cuda/causal_conv1d.cuh"
#include "cuda/launch.h"

namespace ssm::cuda {

// What a block needs of a tensor: the steps [from, from + rows) of a line, and `columns` channels.
struct ConvTile {
  int64_t batch, channel, from;
  int rows, columns;
  int pitch;  // numbers from a row to the next: a vector more than there are columns, against bank conflicts

  // `before` and `after`: steps beyond the block's own runs.
  __device__ __forceinline__ ConvTile(const ConvInputs& in, const ConvPlan& plan, int count, int before, int after) {
    const unsigned tiles = unsigned(plan.tiles);
    const int64_t run = int64_t(blockIdx.x / tiles) * plan.rows;  // the runs of a block are of one line
    batch = int64_t(unsigned(run) / unsigned(plan.runs_per_line));
    const int64_t begin = (run - batch * plan.runs_per_line) * plan.run_steps;
    from = begin > before ? begin - before : 0;
    const int64_t end = begin + int64_t(plan.rows) * plan.run_steps + after;
    rows = int((end < in.steps ? end : in.steps) - from);
    const int most = plan.lanes * count;
    channel = int64_t(blockIdx.x % tiles) * most;
    columns = in.channels - channel < most ? int(in.channels - channel) : most;
    pitch = most + count;
  }

  // Lanes go along the axis of the smaller stride.
  template <class Bits>
  __device__ __forceinline__ void load_from(const ConvInputs& in, const View3& v, Bits* tile) const {
    constexpr int kWarps = kConvThreads / 32, kAhead = 8;
    const ConvLine line(in, v, batch, channel);
    const int64_t next_channel = v.stride_d * int64_t(sizeof(Bits));
    const int64_t row_size = line.step < 0 ? -line.step : line.step;
    const bool along_rows = row_size < (next_channel < 0 ? -next_channel : next_channel);
    const int near_size = along_rows ? rows : columns, far_size = along_rows ? columns : rows;
    const int64_t near_step = along_rows ? line.step : next_channel, far_step = along_rows ? next_channel : line.step;
    const int near_pitch = along_rows ? pitch : 1, far_pitch = along_rows ? 1 : pitch;
    const char* start = line.at(from);
    for (int near = int(threadIdx.x) % 32; near < near_size; near += 32) {
      for (int far = int(threadIdx.x) / 32; far < far_size; far += kWarps * kAhead) {
        Bits some[kAhead];
#pragma unroll
        for (int i = 0; i < kAhead; ++i)
          if (far + i * kWarps < far_size)
            some[i] = *reinterpret_cast<const Bits*>(start + near * near_step + (far + i * kWarps) * far_step);
#pragma unroll
        for (int i = 0; i < kAhead; ++i)
          if (far + i * kWarps < far_size) tile[near * near_pitch + (far + i * kWarps) * far_pitch] = some[i];
      }
    }
  }

  // The tile in the place of the tensor, for a thread whose channels begin at `first`.
  template <class Bits>
  __device__ __forceinline__ ConvLine line(Bits* tile, int64_t first) const {
    const int64_t step = pitch * int64_t(sizeof(Bits));
    return {reinterpret_cast<char*>(tile + (first - channel)) - from * step, step};
  }
};

}  // namespace ssm::cuda
