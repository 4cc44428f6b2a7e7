// Forward pass of the selective scan with real A and variable B and C: serial in time, with the states in registers.
//
// kLanes neighbouring groups of lanes share a channel, each with kStates of its states.  Time advances by batches of
// kBatch steps: all that a batch needs of a channel or a state is then a few wide reads of shared memory, and the sums
// over the lanes of a channel cost log2(kLanes) shuffles for several steps at once.
//
// A tile of time goes through shared memory in three steps: asynchronous copies of the tensors as they are stored, one
// tile ahead; `prepare`, one thread per element, which makes floats of them and does what needs doing once per channel
// and step; `advance`, the recurrence; `finish`, again one thread per element, which gates and stores y.
#pragma once

#include "cuda/selective_scan_tiled_elements.cuh"

namespace ssm::cuda {

// Some states of one channel, in the registers of one lane.
//
// kEnds: the first of two passes over time that is cut into parts.  Wanted is only the state that each part ends with if
// it begins with 0, and the sum of its step sizes.
template <class Shape, bool kEnds>
struct LaneStates {
  static constexpr int kStates = Shape::kStates;
  static constexpr int kGroup = 32 / Shape::kLanes;  // neighbouring lanes, with the same states of different channels
  static constexpr unsigned kAll = ~0u;

  int channel;  // in the block
  int first;    // state
  float h[kStates], rate[kStates];  // rate: A log2(e)
  float deltas = 0;                 // their sum

  __device__ static int group() { return int((threadIdx.x & 31) / kGroup); }

  __device__ void begin(const TiledForward& p, const TiledBlock& block) {
    const ScanInputs& in = p.directions[block.direction].scan.in;
    const int lane = int(threadIdx.x) & 31;
    channel = int(threadIdx.x / 32) * kGroup + lane % kGroup;
    first = group() * kStates;
    const int64_t row = (block.first_channel + channel) * in.states;
    const float* A = static_cast<const float*>(in.A) + row;
    const float* initial = static_cast<const float*>(in.initial_state);
    if (initial != nullptr) initial += block.sequence.index * in.channels * in.states + row;
#pragma unroll
    for (int j = 0; j < kStates; ++j) {
      const bool there = channel < block.channels && first + j < in.states;
      rate[j] = there ? A[first + j] * kLog2e : 0.f;
      h[j] = 0;
      if constexpr (!kEnds) {
        if (there && p.parts > 1) h[j] = p.part_states[matrix_at(in, block, block.unit, j)];
        else if (there && initial != nullptr) h[j] = initial[first + j];
      }
    }
  }

  // Of number j in a (.., n, d) tensor.
  __device__ int64_t matrix_at(const ScanInputs& in, const TiledBlock& block, int64_t index, int j) const {
    return (index * in.states + first + j) * in.channels + block.first_channel + channel;
  }

  __device__ void keep(const ScanInputs& in, const TiledBlock& block, float* to, int64_t index) const {
    if (channel >= block.channels) return;
#pragma unroll
    for (int j = 0; j < kStates; ++j)
      if (first + j < in.states) to[matrix_at(in, block, index, j)] = h[j];
  }

  __device__ void keep_checkpoint(const ScanForward& scan, const TiledBlock& block, int64_t chunk) const {
    const int64_t first_chunk = first_checkpoint(scan.in.sequences(), block.sequence);
    keep(scan.in, block, static_cast<float*>(scan.checkpoints), first_chunk + chunk);
  }

  __device__ void end(const TiledForward& p, const TiledBlock& block) const {
    if constexpr (kEnds) {
      const int64_t channels = p.directions[block.direction].scan.in.channels;
      keep(p.directions[block.direction].scan.in, block, p.part_states, block.unit);
      if (group() == 0 && channel < block.channels)
        p.part_deltas[block.unit * channels + block.first_channel + channel] = deltas;
    } else {
      if (block.part == p.parts - 1) keep_final(p.directions[block.direction].scan, block);
    }
  }

  __device__ void keep_final(const ScanForward& scan, const TiledBlock& block) const {
    const ScanInputs& in = scan.in;
    float* to = static_cast<float*>(scan.final_state);
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
      if constexpr (!kEnds) read_batch(C_row + j * Shape::kRow, C);
#pragma unroll
      for (int t = 0; t < kBatch; ++t) {
        h[j] = fmaf(exp2_of(delta[t] * rate[j]), h[j], x[t] * B[t]);
        if constexpr (!kEnds) y[t] = j == 0 ? h[j] * C[t] : fmaf(h[j], C[t], y[t]);
      }
    }
    if constexpr (kEnds) {
#pragma unroll
      for (int t = 0; t < kBatch; ++t) deltas += delta[t];
    } else {
      add_over_lanes(y);
      write_sums(delta_u, y);
    }
  }

  __device__ static __forceinline__ void read_batch(const float* from, float* values) {
#pragma unroll
    for (int i = 0; i < kBatch; i += 4) {
      const float4 quad = *reinterpret_cast<const float4*>(from + i);
      values[i] = quad.x, values[i + 1] = quad.y, values[i + 2] = quad.z, values[i + 3] = quad.w;
    }
  }

  // Every lane of a channel gets the sums of its share of the steps: each round halves the steps a lane looks after.
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
      if constexpr (!kEnds) y = fmaf(h[j], Memory::C()[at], y);
    }
    deltas += delta;
    if constexpr (!kEnds) {
#pragma unroll
      for (int distance = kGroup; distance < 32; distance *= 2) y += __shfl_xor_sync(kAll, y, distance);
      if (group() == 0) *delta_u = y;
    }
  }

  __device__ __forceinline__ void advance(int rows) {
    int step = 0;
#pragma unroll 1
    for (; step + kBatch <= rows; step += kBatch) advance_batch(step);
#pragma unroll 1
    for (; step < rows; ++step) advance_step(step);
  }
};

// Body(type) for the type of the tensors, as a constant.
template <class Body>
__device__ __forceinline__ void with_type(DType type, Body body) {
  if (type == DType::bf16) body(std::integral_constant<DType, DType::bf16>());
  else if (type == DType::f16) body(std::integral_constant<DType, DType::f16>());
  else body(std::integral_constant<DType, DType::f32>());
}

template <class Shape>
__device__ __forceinline__ void start_loading(const TiledForward& p, int tile) {
  if (p.directions[0].scan.in.dtype == DType::f32) load_tiles<Shape, 4>(p, tile);
  else load_tiles<Shape, 2>(p, tile);
  commit_copies();
}

// Shared memory that all tiles use, and the first tile on its way.
template <class Shape>
__device__ __forceinline__ void begin_block(const TiledForward& p) {
  using Memory = TiledMemory<Shape>;
  if (threadIdx.x == 0) Memory::block() = TiledBlock::of(p);
  __syncthreads();
  const TiledScan& direction = p.directions[Memory::block().direction];
  if (threadIdx.x < kTileKinds)
    Memory::sources()[threadIdx.x] = Memory::block().source(direction, int(threadIdx.x));
  read_parameters<Shape>(direction.scan.in);
  find_positions<Shape>(p, 0);
  find_positions<Shape>(p, 1);
  __syncthreads();
  start_loading<Shape>(p, 0);
}

template <class Shape, bool kEnds>
__global__ void __launch_bounds__(kTiledThreads, Shape::kStates >= 8 ? 3 : 4) scan_tiled(TiledForward p) {
  using Memory = TiledMemory<Shape>;
  begin_block<Shape>(p);
  const TiledBlock& block = Memory::block();
  const TiledScan& direction = p.directions[block.direction];
  if (kEnds && block.part == p.parts - 1) {  // what the last part ends with is found by the second pass
    wait_for_copies<0>();
    return;
  }
  LaneStates<Shape, kEnds> states;
  states.begin(p, block);
  const int tiles = (block.end - block.begin + Shape::kSteps - 1) / Shape::kSteps;
#pragma unroll 1
  for (int tile = 0; tile < tiles; ++tile) {
    const char* stage = Memory::stage(tile, p.stage_bytes);
    wait_for_copies<0>();
    __syncthreads();  // the tile is there, and the one before is done with
    find_positions<Shape>(p, tile + 2);
    start_loading<Shape>(p, tile + 1);
    with_type(direction.scan.in.dtype, [&](auto type) {
      prepare<Shape, type()>(direction, stage);
      prepare_coefficients<Shape, type()>(direction, stage);
    });
    __syncthreads();
    if (!kEnds && direction.scan.checkpoints != nullptr && tile * Shape::kSteps % kScanChunk == 0)
      states.keep_checkpoint(direction.scan, block, (block.begin + tile * Shape::kSteps) / kScanChunk);
    states.advance(block.rows(tile, Shape::kSteps));
    if constexpr (!kEnds) {
      __syncthreads();
      with_type(direction.scan.in.dtype, [&](auto type) { finish<Shape, type()>(direction, stage, tile); });
    }
  }
  states.end(p, block);
}

}  // namespace ssm::cuda
