// What a block of the tiled forward kernel of the selective scan works on, and where it is in shared memory.
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
  static constexpr int kSteps = tile_steps(kChannels);
  static constexpr int kRow = kSteps + 4;  // floats of a channel or state: the 4 spread the rows over the banks
  template <int kBytes>
  using ChannelTile = TileSize<kChannels, kSteps, kTiledThreads, kBytes>;
  template <int kBytes>
  using StateTile = TileSize<kAllStates, kSteps, kTiledThreads, kBytes>;

  static constexpr int kBlockBytes = 80, kSourceBytes = 128;
  static constexpr int kPositionBytes = 3 * kSteps * 4;
  static constexpr int kFloats = 2 * kChannels + (2 * kChannels + 2 * kAllStates) * kRow;
  static constexpr int kFloatOffset = kBlockBytes + kSourceBytes + kPositionBytes;
  static constexpr int kStageOffset = kFloatOffset + kFloats * 4;  // a multiple of 16
  static_assert(kStageOffset == tiled_float_bytes(kChannels, kAllStates));
};
// What a block works on.  In shared memory: in registers it would crowd out the states.
struct TiledBlock {
  Sequence sequence;
  int64_t first_channel, unit;  // unit: of (direction, sequence, part)
  int32_t direction, part, channels;
  int32_t begin, end;  // its steps, in the order of time

  __device__ static TiledBlock of(const TiledForward& p) {
    const int64_t block = int64_t(blockIdx.x) % p.blocks.blocks, unit = int64_t(blockIdx.x) / p.blocks.blocks;
    const int64_t part = unit % p.parts, index = unit / p.parts % p.sequences, direction = unit / p.parts / p.sequences;
    const Sequence sequence = sequence_at(p.directions[direction].scan.in.sequences(), index);
    const int64_t begin = part * p.part_steps, end = begin + p.part_steps, steps = sequence.steps;
    return {sequence,
            p.blocks.first(block),
            unit,
            int32_t(direction),
            int32_t(part),
            int32_t(p.blocks.count(block)),
            int32_t(begin < steps ? begin : steps),
            int32_t(end < steps ? end : steps)};
  }

  __device__ __forceinline__ int rows(int tile, int tile_steps) const {
    return min(max(end - begin - tile * tile_steps, 0), tile_steps);
  }

  // Of a tensor, with the address of its first element for this block.
  __device__ TileSource source(const TiledScan& scan, int kind) const {
    const ScanInputs& in = scan.scan.in;
    TileSource s = scan.sources[kind];
    if (s.data == nullptr) return s;
    int64_t offset = 0;
    if (kind == kB || kind == kC) {
      const CoefficientView& view = kind == kB ? in.B : in.C;
      offset = sequence.batch * view.stride_b + first_channel / (in.channels / view.groups) * view.stride_g;
    } else {
      const View3& view = kind == kU ? in.u : kind == kDelta ? in.delta : in.z;
      offset = sequence.batch * view.stride_b + first_channel * view.stride_d;
    }
    s.data += offset * size_of(in.dtype);
    return s;
  }
};

static_assert(sizeof(TiledBlock) <= 80 && kTileKinds * sizeof(TileSource) <= 128);

// The shared memory of a block.
template <class Shape>
struct TiledMemory {
  __device__ static TiledBlock& block() { return *shared_memory<TiledBlock>(); }
  __device__ static TileSource* sources() {
    return reinterpret_cast<TileSource*>(shared_memory() + Shape::kBlockBytes);
  }
  __device__ static int32_t* positions(int tile) {  // of the current tile, the next and the one after it
    return reinterpret_cast<int32_t*>(shared_memory() + Shape::kBlockBytes + Shape::kSourceBytes) +
           tile % 3 * Shape::kSteps;
  }
  // (channels,)
  __device__ static float* delta_bias() { return reinterpret_cast<float*>(shared_memory() + Shape::kFloatOffset); }
  __device__ static float* D() { return delta_bias() + Shape::kChannels; }
  // (channels, kRow): step sizes; their product with u, in whose place y comes
  __device__ static float* delta() { return D() + Shape::kChannels; }
  __device__ static float* delta_u() { return delta() + Shape::kChannels * Shape::kRow; }
  // (states, kRow)
  __device__ static float* B() { return delta_u() + Shape::kChannels * Shape::kRow; }
  __device__ static float* C() { return B() + Shape::kAllStates * Shape::kRow; }
  __device__ static char* stage(int tile, int stage_bytes) {
    return shared_memory() + Shape::kStageOffset + (tile & 1) * stage_bytes;
  }
};

template <class Shape>
__device__ __forceinline__ void find_positions(const TiledForward& p, int tile) {
  const TiledBlock& block = TiledMemory<Shape>::block();
  const int t = int(threadIdx.x);
  if (t >= block.rows(tile, Shape::kSteps)) return;
  const TimeOrder order(p.directions[block.direction].scan.in, block.sequence);
  TiledMemory<Shape>::positions(tile)[t] = int32_t(order.position(block.begin + tile * Shape::kSteps + t));
}

// The tile `tile` is on its way after this.
template <class Shape, int kBytes>
__device__ __forceinline__ void load_tiles(const TiledForward& p, int tile) {
  using Memory = TiledMemory<Shape>;
  const TiledBlock& block = Memory::block();
  const TiledScan& direction = p.directions[block.direction];
  const ScanInputs& in = direction.scan.in;
  const int rows = block.rows(tile, Shape::kSteps);
  const bool forward = !in.reverse && in.columns == 0;
  const TileShape of_channels = {Memory::positions(tile), rows, block.channels, forward};
  const TileShape of_states = {Memory::positions(tile), rows, int(in.states), forward};
  const TileSource* sources = Memory::sources();
  char* stage = Memory::stage(tile, p.stage_bytes);
#pragma unroll 1
  for (int kind = kU; kind <= kZ; ++kind)
    load_tile<typename Shape::template ChannelTile<kBytes>>(stage + direction.offsets[kind], sources[kind],
                                                              of_channels);
#pragma unroll 1
  for (int kind = kB; kind <= kC; ++kind)
    load_tile<typename Shape::template StateTile<kBytes>>(stage + direction.offsets[kind], sources[kind], of_states);
}

}  // namespace ssm::cuda
