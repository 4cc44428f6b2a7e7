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
  template <int kBytes>
  using ChannelTile = TileSize<kChannels, kSteps, kTiledThreads, kBytes>;
  template <int kBytes>
  using StateTile = TileSize<kAllStates, kSteps, kTiledThreads, kBytes>;

  static constexpr int kBlockBytes = 80, kSourceBytes = 128;
  static constexpr int kPositionBytes = 3 * kSteps * 4;
  static constexpr int kFloats = 2 * kChannels + (2 * kChannels + 2 * kAllStates) * kRow;
  static constexpr int kFloatOffset = kBlockBytes + kSourceBytes + kPositionBytes;
  static constexpr int kStageOffset = kFloatOffset + kFloats * 4;  // a multiple of 16
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
    load_tile<typename Shape::template ChannelTile<kBytes>>(stage + direction.offsets[kind], sources[kind], of_channels);
#pragma unroll 1
  for (int kind = kB; kind <= kC; ++kind)
    load_tile<typename Shape::template StateTile<kBytes>>(stage + direction.offsets[kind], sources[kind], of_states);
}

// B and C: from tiles as stored to (states, kRow) of floats.
template <class Shape, DType kType>
__device__ __forceinline__ void prepare_coefficients(const TiledScan& direction, const char* stage) {
  using Memory = TiledMemory<Shape>;
  using Bits = typename Number<kType>::Bits;
  constexpr int kMost = 16 / int(sizeof(Bits)), kPack = Shape::kAllStates < kMost ? Shape::kAllStates : kMost;
  constexpr int kPacks = Shape::kSteps * Shape::kAllStates / kPack;
  const int states = int(direction.scan.in.states);
#pragma unroll 1
  for (int i = int(threadIdx.x); i < 2 * kPacks; i += kTiledThreads) {
    const bool is_C = i >= kPacks;
    const int step = i % Shape::kSteps, first = (is_C ? i - kPacks : i) / Shape::kSteps * kPack;
    const Bits* tile = reinterpret_cast<const Bits*>(stage + direction.offsets[is_C ? kC : kB]);
    float* to = (is_C ? Memory::C() : Memory::B()) + first * Shape::kRow + step;
    Pack<Bits, kPack> pack;
    if (direction.sources[is_C ? kC : kB].steps_together) {
      constexpr int kColumn = Shape::template StateTile<sizeof(Bits)>::kPaddedSteps;
#pragma unroll
      for (int k = 0; k < kPack; ++k) pack.values[k] = tile[(first + k) * kColumn + step];
    } else {
      pack = *reinterpret_cast<const Pack<Bits, kPack>*>(tile + step * Shape::kAllStates + first);
    }
    const int there = states - first;  // numbers
#pragma unroll
    for (int k = 0; k < kPack; ++k) {
      const float value = Number<kType>::decode(pack.values[k]);
      to[k * Shape::kRow] = k < there ? value : 0.f;
    }
  }
}

// Bias and D of the channels.
template <class Shape>
__device__ __forceinline__ void read_parameters(const ScanInputs& in) {
  using Memory = TiledMemory<Shape>;
  const int i = int(threadIdx.x);
  if (i >= Shape::kChannels) return;
  const int64_t channel = Memory::block().first_channel + i;
  const bool there = i < Memory::block().channels;
  const float* bias = static_cast<const float*>(in.delta_bias);
  const float* D = static_cast<const float*>(in.D);
  Memory::delta_bias()[i] = bias != nullptr && there ? bias[channel] : 0.f;
  Memory::D()[i] = D != nullptr && there ? D[channel] : 0.f;
}

// In prepare and finish a thread has two neighbouring channels; this is the first.
template <class Shape>
__device__ __forceinline__ int first_channel_of_thread() {
  return int(threadIdx.x) % (Shape::kChannels / 2) * 2;
}

// Body(step) for every four steps that this thread has of a tile.
template <class Shape, class Body>
__device__ __forceinline__ void for_quads(Body body) {
  constexpr int kStride = kTiledThreads / (Shape::kChannels / 2);
#pragma unroll 1
  for (int quad = int(threadIdx.x) / (Shape::kChannels / 2); quad < Shape::kSteps / 4; quad += kStride) body(4 * quad);
}

template <class Shape, DType kType>
__device__ __forceinline__ void prepare(const TiledScan& direction, const char* stage) {
  using Memory = TiledMemory<Shape>;
  using Tile = typename Shape::template ChannelTile<sizeof(typename Number<kType>::Bits)>;
  const int first = first_channel_of_thread<Shape>();
  for_quads<Shape>([&](int step) {
    float delta[2][4], u[2][4];
    read_tile<kType, Tile>(stage + direction.offsets[kDelta], direction.sources[kDelta].steps_together, first, step,
                           delta);
    read_tile<kType, Tile>(stage + direction.offsets[kU], direction.sources[kU].steps_together, first, step, u);
#pragma unroll
    for (int c = 0; c < 2; ++c) {
#pragma unroll
      for (int i = 0; i < 4; ++i) delta[c][i] += Memory::delta_bias()[first + c];
    }
    if (direction.scan.in.delta_softplus) {
#pragma unroll
      for (int i = 0; i < 8; ++i) {
        float& x = delta[i / 4][i % 4];
        x = kType == DType::f32 ? softplus(x) : rough_softplus(x);
      }
    }
#pragma unroll
    for (int c = 0; c < 2; ++c) {
      const float* s = delta[c];
      const int at = (first + c) * Shape::kRow + step;
      *reinterpret_cast<float4*>(Memory::delta() + at) = make_float4(s[0], s[1], s[2], s[3]);
      *reinterpret_cast<float4*>(Memory::delta_u() + at) =
          make_float4(s[0] * u[c][0], s[1] * u[c][1], s[2] * u[c][2], s[3] * u[c][3]);
    }
  });
}

// Four steps of two channels, of which `channels` exist; base is the address of the first.
template <DType kType>
__device__ __forceinline__ void store_y(const View3& y, char* base, const int32_t* positions, int rows, int channels,
                                        bool in_pairs, const float (&values)[2][4]) {
  using Bits = typename Number<kType>::Bits;
  const int32_t stride = int32_t(y.stride_l * int64_t(sizeof(Bits)));
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    if (i >= rows) continue;
    Bits* to = reinterpret_cast<Bits*>(base + int64_t(positions[i]) * stride);
    const Pack<Bits, 2> pair = {{Number<kType>::encode(values[0][i]), Number<kType>::encode(values[1][i])}};
    if (in_pairs) {
      *reinterpret_cast<Pack<Bits, 2>*>(to) = pair;
    } else {
      to[0] = pair.values[0];
      if (channels > 1) to[y.stride_d] = pair.values[1];
    }
  }
}

// y of the tile, from the sums of C h.
template <class Shape, DType kType>
__device__ __forceinline__ void finish(const TiledScan& direction, const char* stage, int tile) {
  using Memory = TiledMemory<Shape>;
  using Tile = typename Shape::template ChannelTile<sizeof(typename Number<kType>::Bits)>;
  const TiledBlock& block = Memory::block();
  const View3& y = direction.scan.y;
  const int first = first_channel_of_thread<Shape>();
  const int channels = block.channels - first, rows = block.rows(tile, Shape::kSteps);
  if (channels <= 0) return;
  const int64_t offset = block.sequence.batch * y.stride_b + (block.first_channel + first) * y.stride_d;
  for_quads<Shape>([&](int step) {
    const int32_t* positions = Memory::positions(tile) + step;
    float values[2][4], stored[2][4];
#pragma unroll
    for (int c = 0; c < 2; ++c) {
      const float4 sums = *reinterpret_cast<const float4*>(Memory::delta_u() + (first + c) * Shape::kRow + step);
      values[c][0] = sums.x, values[c][1] = sums.y, values[c][2] = sums.z, values[c][3] = sums.w;
    }
    if (direction.scan.in.D != nullptr) {  // without it, not 0 times a u that may be infinite
      read_tile<kType, Tile>(stage + direction.offsets[kU], direction.sources[kU].steps_together, first, step,
                             stored);
#pragma unroll
      for (int i = 0; i < 8; ++i) values[i / 4][i % 4] = fmaf(Memory::D()[first + i / 4], stored[i / 4][i % 4], values[i / 4][i % 4]);
    }
    if (direction.scan.add_to_y) {
      for (int i = 0; i < 4; ++i)
        for (int c = 0; c < 2; ++c)
          if (step + i < rows && c < channels)
            values[c][i] += load<float>(y.data, offset + positions[i] * y.stride_l + c * y.stride_d, y.dtype);
    }
    if (direction.sources[kZ].data != nullptr) {
      read_tile<kType, Tile>(stage + direction.offsets[kZ], direction.sources[kZ].steps_together, first, step,
                             stored);
#pragma unroll
      for (int i = 0; i < 8; ++i) {
        const float z = stored[i / 4][i % 4];
        values[i / 4][i % 4] *= kType == DType::f32 ? silu(z) : rough_silu(z);
      }
    }
    char* base = y.data + offset * size_of(y.dtype);
    if (y.dtype == kType) store_y<kType>(y, base, positions, rows - step, channels, direction.y_in_pairs, values);
    else store_y<DType::f32>(y, base, positions, rows - step, channels, direction.y_in_pairs, values);
  });
}

}  // namespace ssm::cuda
