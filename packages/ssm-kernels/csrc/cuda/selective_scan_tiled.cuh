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

#include "cuda/functions.cuh"
#include "cuda/selective_scan_tiled.h"

namespace ssm::cuda {

constexpr int kBatch = 8;

template <int kLanes_, int kStates_>
struct TiledShape {
  static constexpr int kLanes = kLanes_, kStates = kStates_;
  static constexpr int kChannels = kTiledThreads / kLanes;   // of a block
  static constexpr int kAllStates = kLanes * kStates;        // at least n; those beyond it stay 0
  static constexpr int kSteps = kChannels == 128 ? 16 : 32;  // of a tile
  static constexpr int kRow = kSteps + 4;  // floats of a channel or state: the 4 spread the rows over the banks
  static constexpr int kQuads = kSteps / 4 * kChannels / kTiledThreads;  // of steps: per thread, in prepare and finish

  static constexpr int kSourceBytes = 256;
  static constexpr int kPositionBytes = 3 * kSteps * 8;
  static constexpr int kFloats = (2 * kChannels + 2 * kAllStates) * kRow;
  static constexpr int kFloatOffset = kSourceBytes + kPositionBytes;
  static constexpr int kStageOffset = kFloatOffset + kFloats * 4;  // a multiple of 16
};

// The shared memory of a block.
template <class Shape>
struct TiledMemory {
  __device__ static TileSource* sources() { return shared_memory<TileSource>(); }  // of this block
  __device__ static int64_t* positions(int64_t tile) {  // of the current tile, the next and the one after it
    return reinterpret_cast<int64_t*>(shared_memory() + Shape::kSourceBytes) + int(tile % 3) * Shape::kSteps;
  }
  // (channels, kRow): step sizes; their product with u, in whose place y comes
  __device__ static float* delta() { return reinterpret_cast<float*>(shared_memory() + Shape::kFloatOffset); }
  __device__ static float* delta_u() { return delta() + Shape::kChannels * Shape::kRow; }
  // (states, kRow)
  __device__ static float* B() { return delta_u() + Shape::kChannels * Shape::kRow; }
  __device__ static float* C() { return B() + Shape::kAllStates * Shape::kRow; }
  __device__ static char* stage(int64_t tile, int stage_bytes) {
    return shared_memory() + Shape::kStageOffset + (tile & 1) * stage_bytes;
  }
};

// What a block works on; the same in all of its threads.
struct TiledBlock {
  const TiledScan& direction;
  Sequence sequence;
  TimeOrder order;
  int64_t first_channel, part, unit;  // unit: of (direction, sequence, part)
  int channels;
  int64_t begin, end;  // its steps, in the order of time

  __device__ static TiledBlock of(const TiledForward& p) {
    const int64_t block = int64_t(blockIdx.x) % p.blocks.blocks, unit = int64_t(blockIdx.x) / p.blocks.blocks;
    const int64_t part = unit % p.parts, index = unit / p.parts % p.sequences;
    const TiledScan& direction = p.directions[unit / p.parts / p.sequences];
    const Sequence sequence = sequence_at(direction.scan.in.sequences(), index);
    const int64_t begin = part * p.part_steps, end = begin + p.part_steps;
    return {direction,
            sequence,
            TimeOrder(direction.scan.in, sequence),
            p.blocks.first(block),
            part,
            unit,
            int(p.blocks.count(block)),
            begin < sequence.steps ? begin : sequence.steps,
            end < sequence.steps ? end : sequence.steps};
  }

  __device__ int rows(int64_t tile, int tile_steps) const {
    const int64_t rest = end - begin - tile * tile_steps;
    return int(rest < 0 ? 0 : rest < tile_steps ? rest : tile_steps);
  }

  // Of a tensor, with the address of its first element for this block.
  __device__ TileSource source(int kind) const {
    const ScanInputs& in = direction.scan.in;
    TileSource s = direction.sources[kind];
    int64_t stride_b = 0;
    if (kind == kB || kind == kC) {
      const CoefficientView& view = kind == kB ? in.B : in.C;
      stride_b = view.stride_b;
      s.data += first_channel / (in.channels / view.groups) * view.stride_g * s.element_bytes;
    } else {
      stride_b = (kind == kU ? in.u : kind == kDelta ? in.delta : in.z).stride_b;
      if (s.data != nullptr) s.data += first_channel * s.stride_column * s.element_bytes;
    }
    if (s.data != nullptr) s.data += sequence.batch * stride_b * s.element_bytes;
    return s;
  }
};

template <class Shape>
__device__ __forceinline__ void find_positions(const TiledBlock& block, int64_t tile) {
  const int t = int(threadIdx.x);
  if (t < block.rows(tile, Shape::kSteps))
    TiledMemory<Shape>::positions(tile)[t] = block.order.position(block.begin + tile * Shape::kSteps + t);
}

// The tile `tile` is on its way after this; the sources must be in shared memory.
template <class Shape>
__device__ __forceinline__ void load_tiles(const TiledForward& p, const TiledBlock& block, int64_t tile) {
  using Memory = TiledMemory<Shape>;
  const int rows = block.rows(tile, Shape::kSteps);
  const int64_t* positions = Memory::positions(tile);
  const TileSource* sources = Memory::sources();
  char* stage = Memory::stage(tile, p.stage_bytes);
  const bool forward = block.order.forward();
  const TileShape of_channels = {positions, rows, block.channels, forward};
  const TileShape of_states = {positions, rows, int(block.direction.scan.in.states), forward};
#pragma unroll 1
  for (int kind = kU; kind <= kZ; ++kind)
    load_tile<Shape::kChannels, Shape::kSteps, kTiledThreads>(stage + block.direction.offsets[kind], sources[kind],
                                                              of_channels);
#pragma unroll 1
  for (int kind = kB; kind <= kC; ++kind)
    load_tile<Shape::kAllStates, Shape::kSteps, kTiledThreads>(stage + block.direction.offsets[kind], sources[kind],
                                                               of_states);
  commit_copies();
}

template <class T, int kCount>
struct alignas(sizeof(T) * kCount) Pack {
  T values[kCount];
};

// B or C: from the tile as stored to (states, kRow) of floats.
template <class Shape, DType kType>
__device__ __forceinline__ void prepare_coefficient(const char* tile, bool steps_together, int states, float* to) {
  using Bits = typename Number<kType>::Bits;
  constexpr int kMost = 16 / int(sizeof(Bits)), kPack = Shape::kAllStates < kMost ? Shape::kAllStates : kMost;
  for (int i = int(threadIdx.x); i < Shape::kSteps * Shape::kAllStates / kPack; i += kTiledThreads) {
    const int step = i % Shape::kSteps, first = i / Shape::kSteps * kPack;
    Pack<Bits, kPack> pack;
    if (steps_together) {
#pragma unroll
      for (int k = 0; k < kPack; ++k)
        pack.values[k] =
            reinterpret_cast<const Bits*>(tile)[(first + k) * padded_steps(Shape::kSteps, sizeof(Bits)) + step];
    } else {
      pack = *reinterpret_cast<const Pack<Bits, kPack>*>(tile + (step * Shape::kAllStates + first) * sizeof(Bits));
    }
#pragma unroll
    for (int k = 0; k < kPack; ++k)
      to[(first + k) * Shape::kRow + step] = first + k < states ? Number<kType>::decode(pack.values[k]) : 0.f;
  }
}

// The channel of a thread in prepare and finish, and what belongs to it.
struct ThreadChannel {
  int index;  // in the block
  float delta_bias, D;

  template <class Shape>
  __device__ static ThreadChannel of(const TiledBlock& block) {
    const ScanInputs& in = block.direction.scan.in;
    const int index = int(threadIdx.x) % Shape::kChannels;
    const bool there = index < block.channels;
    const float* bias = static_cast<const float*>(in.delta_bias);
    const float* D = static_cast<const float*>(in.D);
    const int64_t channel = block.first_channel + index;
    return {index, bias != nullptr && there ? bias[channel] : 0.f, D != nullptr && there ? D[channel] : 0.f};
  }
};

// Four steps of a channel, from a tile as stored.
template <class Shape, DType kType>
__device__ __forceinline__ void read_quad(const char* tile, const TileSource& source, int channel, int step,
                                          float* values) {
  const TileLayout at = TileLayout::of(source, Shape::kChannels, Shape::kSteps);
#pragma unroll
  for (int i = 0; i < 4; ++i) values[i] = tile_value<kType>(tile, (step + i) * at.step + channel * at.column);
}

template <class Shape, DType kType>
__device__ __forceinline__ void prepare(const TiledScan& direction, const char* stage, const ThreadChannel& channel) {
  using Memory = TiledMemory<Shape>;
  const bool with_softplus = direction.scan.in.delta_softplus;
#pragma unroll 1
  for (int quad = 0; quad < Shape::kQuads; ++quad) {
    const int step = 4 * (int(threadIdx.x) / Shape::kChannels + quad * (kTiledThreads / Shape::kChannels));
    float delta[4], u[4];
    read_quad<Shape, kType>(stage + direction.offsets[kDelta], direction.sources[kDelta], channel.index, step, delta);
    read_quad<Shape, kType>(stage + direction.offsets[kU], direction.sources[kU], channel.index, step, u);
#pragma unroll
    for (int i = 0; i < 4; ++i) delta[i] += channel.delta_bias;
    if (with_softplus) {
#pragma unroll
      for (int i = 0; i < 4; ++i) delta[i] = softplus(delta[i]);
    }
    const int at = channel.index * Shape::kRow + step;
    *reinterpret_cast<float4*>(Memory::delta() + at) = make_float4(delta[0], delta[1], delta[2], delta[3]);
    *reinterpret_cast<float4*>(Memory::delta_u() + at) =
        make_float4(delta[0] * u[0], delta[1] * u[1], delta[2] * u[2], delta[3] * u[3]);
  }
  const int states = int(direction.scan.in.states);
  prepare_coefficient<Shape, kType>(stage + direction.offsets[kB], direction.sources[kB].steps_together, states,
                                    Memory::B());
  prepare_coefficient<Shape, kType>(stage + direction.offsets[kC], direction.sources[kC].steps_together, states,
                                    Memory::C());
}

template <DType kType>
__device__ __forceinline__ void store_quad(const View3& y, int64_t base, const int64_t* positions, int rows,
                                           const float* values) {
  auto* to = reinterpret_cast<typename Number<kType>::Bits*>(y.data) + base;
#pragma unroll
  for (int i = 0; i < 4; ++i)
    if (i < rows) to[positions[i] * y.stride_l] = Number<kType>::encode(values[i]);
}

template <class Shape, DType kType>
__device__ __forceinline__ void finish(const TiledBlock& block, const char* stage, const ThreadChannel& channel,
                                       int64_t tile) {
  using Memory = TiledMemory<Shape>;
  const TiledScan& direction = block.direction;
  const View3& y = direction.scan.y;
  if (channel.index >= block.channels) return;
  const int rows = block.rows(tile, Shape::kSteps);
  const bool gated = direction.sources[kZ].data != nullptr, has_D = direction.scan.in.D != nullptr;
  const int64_t* positions = Memory::positions(tile);
  const int64_t base = block.sequence.batch * y.stride_b + (block.first_channel + channel.index) * y.stride_d;
#pragma unroll 1
  for (int quad = 0; quad < Shape::kQuads; ++quad) {
    const int step = 4 * (int(threadIdx.x) / Shape::kChannels + quad * (kTiledThreads / Shape::kChannels));
    const float4 sums = *reinterpret_cast<const float4*>(Memory::delta_u() + channel.index * Shape::kRow + step);
    float value[4] = {sums.x, sums.y, sums.z, sums.w}, stored[4];
    if (has_D) {  // not 0 times a u that may be infinite
      read_quad<Shape, kType>(stage + direction.offsets[kU], direction.sources[kU], channel.index, step, stored);
#pragma unroll
      for (int i = 0; i < 4; ++i) value[i] = fmaf(channel.D, stored[i], value[i]);
    }
    if (direction.scan.add_to_y) {
#pragma unroll
      for (int i = 0; i < 4; ++i)
        if (step + i < rows) value[i] += load<float>(y.data, base + positions[step + i] * y.stride_l, y.dtype);
    }
    if (gated) {
      read_quad<Shape, kType>(stage + direction.offsets[kZ], direction.sources[kZ], channel.index, step, stored);
#pragma unroll
      for (int i = 0; i < 4; ++i) value[i] *= silu(stored[i]);
    }
    if (y.dtype == kType) store_quad<kType>(y, base, positions + step, rows - step, value);
    else store_quad<DType::f32>(y, base, positions + step, rows - step, value);
  }
}

}  // namespace ssm::cuda
