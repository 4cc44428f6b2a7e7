// Backward pass of the scan with real A and variable B and C: states of two channels in the registers of kLanes lanes.
//
// A lane has two states of each of two channels.  Time runs in chunks from the last to the first.  From the checkpoint
// before a chunk the states before each batch of kBatch steps are found; then, from the last batch to the first, its
// states and decays are kept in registers on the way there and used on the way back.  Sums over the states of a channel
// (for u, delta and z) and over the channels of a warp (for B and C) go through shuffles, over the warps of the block
// through shared memory, over blocks through the workspace.  Formulas: cpu/selective_scan_adjoint.h.
#pragma once

#include "cuda/selective_scan_backward_tiles.cuh"
#include "cuda/transposed_sum.cuh"

namespace ssm::cuda {

template <int kLanes, bool kGated>
struct LanesBackward {
  using Tiles = BackwardTiles<kLanes, kGated>;
  static constexpr int kBatch = int(scan_backward::kBatchSteps), kPitch = int(scan_backward::kPitch);
  static constexpr int kColumns = 32 / kLanes;  // lanes of a warp whose channels differ
  using OverStates = TransposedSum<16, kLanes, kColumns>;
  using OverChannels = TransposedSum<16, kColumns, 1>;

  const Tiles& tiles;
  const int warp, column, row;      // of the lane: which channels, which states
  const int odd_column, odd_row;    // such lanes hold their two states or channels in exchanged order
  float rate[2][2];                 // of [channel][state]: A log2(e)
  float carry[2][2], grad_A[2][2];

  __device__ __forceinline__ explicit LanesBackward(const Tiles& tiles)
      : tiles(tiles), warp(int(threadIdx.x) / 32), column(int(threadIdx.x) % kColumns),
        row(int(threadIdx.x) % 32 / kColumns), odd_column(column & 1), odd_row(row & 1) {}

  __device__ __forceinline__ int channel(int j) const {
    return warp * 2 * kColumns + column + kColumns * (j ^ odd_row);
  }
  __device__ __forceinline__ int state(int i) const { return 2 * row + (i ^ odd_column); }

  __device__ __forceinline__ int64_t state_index(int64_t d, int64_t n) const {
    return (tiles.block.slab.sequence.index * tiles.in.channels + d) * tiles.in.states + n;
  }

  // Calls body(j, i, channel, state) for those that exist.
  template <class Body>
  __device__ __forceinline__ void for_own(Body body) const {
#pragma unroll
    for (int j = 0; j < 2; ++j)
#pragma unroll
      for (int i = 0; i < 2; ++i)
        if (channel(j) < tiles.block.slab.channels && state(i) < tiles.in.states)
          body(j, i, tiles.block.slab.first + channel(j), int64_t(state(i)));
  }

  __device__ __forceinline__ void begin() {
#pragma unroll
    for (int j = 0; j < 2; ++j)
#pragma unroll
      for (int i = 0; i < 2; ++i) rate[j][i] = carry[j][i] = grad_A[j][i] = 0.f;
    const float* A = static_cast<const float*>(tiles.in.A);
    const float* grad = static_cast<const float*>(tiles.call.grad_final_state);
    for_own([&](int j, int i, int64_t d, int64_t n) {
      rate[j][i] = A[d * tiles.in.states + n] * kLog2e;
      if (grad != nullptr) carry[j][i] = grad[state_index(d, n)];
    });
  }

  __device__ __forceinline__ void end(float* sums_A) const {
    float* grad = static_cast<float*>(tiles.call.grad_initial_state);
    for_own([&](int j, int i, int64_t d, int64_t n) {
      sums_A[n * tiles.in.channels + d] = grad_A[j][i];
      if (grad != nullptr) grad[state_index(d, n)] = carry[j][i];
    });
  }

  // Four steps of a row of a tile.
  struct Four {
    float at[4];
    __device__ __forceinline__ explicit Four(const float* tile, int row, int step) {
      const float4 v = *reinterpret_cast<const float4*>(tile + row * kPitch + step);
      at[0] = v.x, at[1] = v.y, at[2] = v.z, at[3] = v.w;
    }
  };

  __device__ __forceinline__ float4& before(int batch) const {
    return tiles.before[batch * Tiles::kThreads + int(threadIdx.x)];
  }

  // Finds the states before each batch of the chunk.
  __device__ __forceinline__ void run_ahead(int64_t checkpoint, int batches) const {
    float h[2][2] = {};
    const float* kept = static_cast<const float*>(tiles.call.checkpoints);
    kept += checkpoint * tiles.in.states * tiles.in.channels;
    for_own([&](int j, int i, int64_t d, int64_t n) { h[j][i] = kept[n * tiles.in.channels + d]; });
    before(0) = make_float4(h[0][0], h[0][1], h[1][0], h[1][1]);
#pragma unroll 1
    for (int batch = 1; batch < batches; ++batch) {
#pragma unroll
      for (int part = 0; part < kBatch; part += 4) {
        const int step = (batch - 1) * kBatch + part;
        const Four delta[2] = {Four(tiles.delta, channel(0), step), Four(tiles.delta, channel(1), step)};
        const Four delta_u[2] = {Four(tiles.delta_u, channel(0), step), Four(tiles.delta_u, channel(1), step)};
        const Four B[2] = {Four(tiles.B, state(0), step), Four(tiles.B, state(1), step)};
#pragma unroll
        for (int t = 0; t < 4; ++t)
#pragma unroll
          for (int j = 0; j < 2; ++j)
#pragma unroll
            for (int i = 0; i < 2; ++i)
              h[j][i] = fmaf(exp2_approx(delta[j].at[t] * rate[j][i]), h[j][i], delta_u[j].at[t] * B[i].at[t]);
      }
      before(batch) = make_float4(h[0][0], h[0][1], h[1][0], h[1][1]);
    }
  }

  struct Trajectory {
    float decay[2][2][kBatch], state[2][2][kBatch + 1];  // state: before the step, and after the last
  };

  __device__ __forceinline__ void run_forward(int batch, Trajectory& path) const {
    const float4 first = before(batch);
    path.state[0][0][0] = first.x, path.state[0][1][0] = first.y;
    path.state[1][0][0] = first.z, path.state[1][1][0] = first.w;
#pragma unroll
    for (int part = 0; part < kBatch; part += 4) {
      const int step = batch * kBatch + part;
      const Four delta[2] = {Four(tiles.delta, channel(0), step), Four(tiles.delta, channel(1), step)};
      const Four delta_u[2] = {Four(tiles.delta_u, channel(0), step), Four(tiles.delta_u, channel(1), step)};
      const Four B[2] = {Four(tiles.B, state(0), step), Four(tiles.B, state(1), step)};
#pragma unroll
      for (int t = 0; t < 4; ++t)
#pragma unroll
        for (int j = 0; j < 2; ++j)
#pragma unroll
          for (int i = 0; i < 2; ++i) {
            const float decay = exp2_approx(delta[j].at[t] * rate[j][i]);
            path.decay[j][i][part + t] = decay;
            path.state[j][i][part + t + 1] = fmaf(decay, path.state[j][i][part + t], delta_u[j].at[t] * B[i].at[t]);
          }
      if constexpr (kGated) sum_y(path, part, step);
    }
  }

  // y without D u, which the gradient of z needs.
  __device__ __forceinline__ void sum_y(const Trajectory& path, int part, int step) const {
    using Sum = TransposedSum<8, kLanes, kColumns>;
    const Four C[2] = {Four(tiles.C, state(0), step), Four(tiles.C, state(1), step)};
    float y[8];  // [channel][step]
#pragma unroll
    for (int j = 0; j < 2; ++j)
#pragma unroll
      for (int t = 0; t < 4; ++t)
        y[4 * j + t] = fmaf(C[1].at[t], path.state[j][1][part + t + 1], C[0].at[t] * path.state[j][0][part + t + 1]);
    Sum::run(y, row);
    if (Sum::first_of_equals(row))
      store_together<Sum::kKept>(tiles.y + channel(0) * kPitch + step + Sum::first(row), y, 0);
  }

  __device__ __forceinline__ void run_backward(int batch, const Trajectory& path) {
    float sums_A[2][2] = {};  // short sums, added to the total: that loses fewer digits than one long sum
#pragma unroll
    for (int part = kBatch - 4; part >= 0; part -= 4) {
      const int step = batch * kBatch + part;
      float over_states[16], over_channels[16];  // [channel][q1, q2][step], [state][B, C][step]
      const Four delta[2] = {Four(tiles.delta, channel(0), step), Four(tiles.delta, channel(1), step)};
      const Four delta_u[2] = {Four(tiles.delta_u, channel(0), step), Four(tiles.delta_u, channel(1), step)};
      const Four dy[2] = {Four(tiles.dy, channel(0), step), Four(tiles.dy, channel(1), step)};
      const Four B[2] = {Four(tiles.B, state(0), step), Four(tiles.B, state(1), step)};
      const Four C[2] = {Four(tiles.C, state(0), step), Four(tiles.C, state(1), step)};
#pragma unroll
      for (int k = 0; k < 16; ++k) over_states[k] = over_channels[k] = 0.f;
#pragma unroll
      for (int t = 3; t >= 0; --t)
#pragma unroll
        for (int j = 0; j < 2; ++j)
#pragma unroll
          for (int i = 0; i < 2; ++i) {
            const float G = fmaf(dy[j].at[t], C[i].at[t], carry[j][i]);
            float& q1 = over_states[8 * j + t];
            float& q2 = over_states[8 * j + 4 + t];
            q1 = fmaf(G, B[i].at[t], q1);
            over_channels[8 * i + t] = fmaf(G, delta_u[j].at[t], over_channels[8 * i + t]);
            over_channels[8 * i + 4 + t] =
                fmaf(dy[j].at[t], path.state[j][i][part + t + 1], over_channels[8 * i + 4 + t]);
            carry[j][i] = path.decay[j][i][part + t] * G;
            const float through_decay = carry[j][i] * path.state[j][i][part + t];
            q2 = fmaf(through_decay, rate[j][i], q2);
            sums_A[j][i] = fmaf(through_decay, delta[j].at[t], sums_A[j][i]);
          }
      OverStates::run(over_states, row);
      OverChannels::run(over_channels, column);
      __syncwarp();  // all lanes have read delta u, whose place is taken
      store_over_states(over_states, step);
      store_over_channels(over_channels, step);
    }
#pragma unroll
    for (int j = 0; j < 2; ++j)
#pragma unroll
      for (int i = 0; i < 2; ++i) grad_A[j][i] += sums_A[j][i];
  }

  __device__ __forceinline__ void store_over_states(const float (&sums)[16], int step) const {
    constexpr int kKept = OverStates::kKept;
    if (!OverStates::first_of_equals(row)) return;
#pragma unroll
    for (int k = 0; k < kKept; k += 4) {
      const int at = OverStates::first(row) + k;  // [q1, q2][step]
      float* tile = at < 4 ? tiles.q1 : tiles.q2;
      store_together<kKept>(tile + channel(0) * kPitch + step + at % 4, sums, k);
    }
  }

  __device__ __forceinline__ void store_over_channels(const float (&sums)[16], int step) const {
    constexpr int kKept = OverChannels::kKept;
    if (!OverChannels::first_of_equals(column)) return;
#pragma unroll
    for (int k = 0; k < kKept; k += 4) {
      const int at = (kColumns > 1 ? OverChannels::first(column) : 0) + k;  // [state][B, C][step]
      const int n = state(at / 8) + (at / 4 % 2) * Tiles::kStates;
      store_together<kKept>(tiles.parts + (warp * 2 * Tiles::kStates + n) * kPitch + step + at % 4, sums, k);
    }
  }

  __device__ __forceinline__ void run_chunk(int64_t checkpoint, int rows) {
    const int batches = (rows + kBatch - 1) / kBatch;
    run_ahead(checkpoint, batches);
#pragma unroll 1
    for (int batch = batches - 1; batch >= 0; --batch) {
      Trajectory path;
      run_forward(batch, path);
      run_backward(batch, path);
    }
  }
};

template <int kLanes, bool kGated>
__global__ void __launch_bounds__(32 * scan_backward::warps_for(kLanes), scan_backward::blocks_wanted(kLanes))
    scan_backward_lanes(ScanBackwardLaunch p) {
  BackwardBlock& block = *shared_memory<BackwardBlock>();
  if (threadIdx.x == 0) block.fill(p, kGated);
  __syncthreads();
  const BackwardTiles<kLanes, kGated> tiles(p);
  LanesBackward<kLanes, kGated> lanes(tiles);
  lanes.begin();
  tiles.begin();
#pragma unroll 1
  for (int chunk = int(divide_up(block.order.steps, kScanChunk)) - 1; chunk >= 0; --chunk) {
    const int64_t begin = chunk * kScanChunk, left = block.order.steps - begin;
    const int rows = int(left < kScanChunk ? left : kScanChunk);
    tiles.find_positions(begin, rows);
    __syncthreads();
    tiles.prepare(rows);
    __syncthreads();
    lanes.run_chunk(block.first_checkpoint + chunk, rows);
    __syncthreads();
    tiles.finish(rows);
    __syncthreads();
  }
  lanes.end(block.slab.template sums<float>(p, p.plan.grad_A, tiles.in.states));
  tiles.end(p);
}

}  // namespace ssm::cuda
