// The recurrence of the tiled forward kernel of the selective scan, and the kernel around it.
#pragma once

#include "cuda/selective_scan_tiled.cuh"

namespace ssm::cuda {

// Some states of one channel, in the registers of one lane.
template <class Shape>
struct LaneStates {
  static constexpr int kStates = Shape::kStates;
  static constexpr int kGroup = 32 / Shape::kLanes;  // neighbouring lanes, with the same states of different channels
  static constexpr unsigned kAll = ~0u;

  int channel;  // in the block
  int first;    // state
  float h[kStates], rate[kStates];  // rate: A log2(e)

  __device__ static int group() { return (int(threadIdx.x) & 31) / kGroup; }

  __device__ void begin(const TiledForward& p, const TiledBlock& block) {
    const ScanInputs& in = block.direction.scan.in;
    const int lane = int(threadIdx.x) & 31;
    channel = int(threadIdx.x) / 32 * kGroup + lane % kGroup;
    first = group() * kStates;
    const int64_t row = (block.first_channel + channel) * in.states;
    const float* A = static_cast<const float*>(in.A) + row;
    const float* initial = static_cast<const float*>(in.initial_state);
    if (initial != nullptr) initial += block.sequence.index * in.channels * in.states + row;
#pragma unroll
    for (int j = 0; j < kStates; ++j) {
      const bool there = channel < block.channels && first + j < in.states;
      rate[j] = there ? A[first + j] * kLog2e : 0.f;
      h[j] = there && p.parts == 1 && initial != nullptr ? initial[first + j] : 0.f;
      if (there && p.parts > 1) h[j] = p.part_states[matrix_at(in, block, block.unit, j)];
    }
  }

  // Of number j in a (.., n, d) tensor.
  __device__ int64_t matrix_at(const ScanInputs& in, const TiledBlock& block, int64_t index, int j) const {
    return (index * in.states + first + j) * in.channels + block.first_channel + channel;
  }

  __device__ void keep(const TiledBlock& block, float* to, int64_t index) const {
    const ScanInputs& in = block.direction.scan.in;
    if (channel >= block.channels) return;
#pragma unroll
    for (int j = 0; j < kStates; ++j)
      if (first + j < in.states) to[matrix_at(in, block, index, j)] = h[j];
  }

  __device__ void end(const TiledBlock& block) const {
    const ScanInputs& in = block.direction.scan.in;
    float* to = static_cast<float*>(block.direction.scan.final_state);
    if (to == nullptr || channel >= block.channels) return;
    to += (block.sequence.index * in.channels + block.first_channel + channel) * in.states + first;
#pragma unroll
    for (int j = 0; j < kStates; ++j)
      if (first + j < in.states) to[j] = h[j];
  }

  // The kBatch steps from `step` of the tile on.
  __device__ __forceinline__ void advance_batch(int step) {
    using Memory = TiledMemory<Shape>;
    float* delta_u = Memory::delta_u() + channel * Shape::kRow + step;
    float delta[kBatch], x[kBatch], y[kBatch];
    read_batch(Memory::delta() + channel * Shape::kRow + step, delta);
    read_batch(delta_u, x);
    const float* B_row = Memory::B() + first * Shape::kRow + step;
    const float* C_row = Memory::C() + first * Shape::kRow + step;
#pragma unroll
    for (int j = 0; j < kStates; ++j) {
      float B[kBatch], C[kBatch];
      read_batch(B_row + j * Shape::kRow, B);
      read_batch(C_row + j * Shape::kRow, C);
#pragma unroll
      for (int t = 0; t < kBatch; ++t) {
        h[j] = fmaf(exp2_of(delta[t] * rate[j]), h[j], x[t] * B[t]);
        y[t] = j == 0 ? h[j] * C[t] : fmaf(h[j], C[t], y[t]);
      }
    }
    add_over_lanes(y);
    write_sums(delta_u, y);
  }

  __device__ static __forceinline__ void read_batch(const float* from, float* values) {
#pragma unroll
    for (int i = 0; i < kBatch; i += 4) {
      const float4 quad = *reinterpret_cast<const float4*>(from + i);
      values[i] = quad.x, values[i + 1] = quad.y, values[i + 2] = quad.z, values[i + 3] = quad.w;
    }
  }

  // Every lane of a channel gets the sums of its share of the steps: each round halves the steps that a lane looks after.
  __device__ static __forceinline__ void add_over_lanes(float* y) {
    const int lane = int(threadIdx.x) & 31;
#pragma unroll
    for (int lanes = 1, count = kBatch / 2; lanes < Shape::kLanes; lanes *= 2, count /= 2) {
      const bool upper = (lane & (lanes * kGroup)) != 0;
#pragma unroll
      for (int t = 0; t < kBatch / 2; ++t) {
        if (t >= count) continue;
        const float sent = upper ? y[t] : y[t + count], kept = upper ? y[t + count] : y[t];
        y[t] = kept + __shfl_xor_sync(kAll, sent, lanes * kGroup);
      }
    }
  }

  __device__ static __forceinline__ void write_sums(float* to, const float* y) {
    constexpr int kShare = kBatch / Shape::kLanes;
    int step = 0;
#pragma unroll
    for (int lanes = 1, count = kBatch / 2; lanes < Shape::kLanes; lanes *= 2, count /= 2)
      if (group() & lanes) step += count;
    Pack<float, kShare> share;
#pragma unroll
    for (int t = 0; t < kShare; ++t) share.values[t] = y[t];
    *reinterpret_cast<Pack<float, kShare>*>(to + step) = share;
  }

  // One step: for the few that do not fill a batch.
  __device__ __forceinline__ void advance_step(int step) {
    using Memory = TiledMemory<Shape>;
    float* delta_u = Memory::delta_u() + channel * Shape::kRow + step;
    const float delta = Memory::delta()[channel * Shape::kRow + step], x = *delta_u;
    float y = 0;
#pragma unroll
    for (int j = 0; j < kStates; ++j) {
      const int at = (first + j) * Shape::kRow + step;
      h[j] = fmaf(exp2_of(delta * rate[j]), h[j], x * Memory::B()[at]);
      y = fmaf(h[j], Memory::C()[at], y);
    }
#pragma unroll
    for (int distance = kGroup; distance < 32; distance *= 2) y += __shfl_xor_sync(kAll, y, distance);
    if (group() == 0) *delta_u = y;
  }

  __device__ __forceinline__ void advance(int rows) {
    int step = 0;
#pragma unroll 1
    for (; step + kBatch <= rows; step += kBatch) advance_batch(step);
#pragma unroll 1
    for (; step < rows; ++step) advance_step(step);
  }
};

template <class Shape>
__device__ __forceinline__ void prepare(const TiledScan& direction, const char* stage, const ThreadChannel& channel) {
  if (direction.scan.in.dtype == DType::bf16) prepare<Shape, DType::bf16>(direction, stage, channel);
  else if (direction.scan.in.dtype == DType::f16) prepare<Shape, DType::f16>(direction, stage, channel);
  else prepare<Shape, DType::f32>(direction, stage, channel);
}

template <class Shape>
__device__ __forceinline__ void finish(const TiledBlock& block, const char* stage, const ThreadChannel& channel,
                                       int64_t tile) {
  const DType dtype = block.direction.scan.in.dtype;
  if (dtype == DType::bf16) finish<Shape, DType::bf16>(block, stage, channel, tile);
  else if (dtype == DType::f16) finish<Shape, DType::f16>(block, stage, channel, tile);
  else finish<Shape, DType::f32>(block, stage, channel, tile);
}

template <class Shape>
__global__ void __launch_bounds__(kTiledThreads, 4) scan_tiled(TiledForward p) {
  using Memory = TiledMemory<Shape>;
  const TiledBlock block = TiledBlock::of(p);
  const ScanForward& scan = block.direction.scan;
  const ThreadChannel channel = ThreadChannel::of<Shape>(block);
  LaneStates<Shape> states;
  states.begin(p, block);
  const int64_t tiles = (block.end - block.begin + Shape::kSteps - 1) / Shape::kSteps;
  const int64_t checkpoint = first_checkpoint(scan.in.sequences(), block.sequence) + block.begin / kScanChunk;

  if (threadIdx.x < kTileKinds) Memory::sources()[threadIdx.x] = block.source(int(threadIdx.x));
  find_positions<Shape>(block, 0);
  find_positions<Shape>(block, 1);
  __syncthreads();
  load_tiles<Shape>(p, block, 0);
#pragma unroll 1
  for (int64_t tile = 0; tile < tiles; ++tile) {
    const char* stage = Memory::stage(tile, p.stage_bytes);
    const int rows = block.rows(tile, Shape::kSteps);
    wait_for_copies<0>();
    __syncthreads();  // the tile is there, and the one before is done with
    find_positions<Shape>(block, tile + 2);
    load_tiles<Shape>(p, block, tile + 1);
    prepare<Shape>(block.direction, stage, channel);
    __syncthreads();
    if (scan.checkpoints != nullptr && tile * Shape::kSteps % kScanChunk == 0)
      states.keep(block, static_cast<float*>(scan.checkpoints), checkpoint + tile * Shape::kSteps / kScanChunk);
    states.advance(rows);
    __syncthreads();
    finish<Shape>(block, stage, channel, tile);
  }
  if (block.part == p.parts - 1) states.end(block);
}

}  // namespace ssm::cuda
