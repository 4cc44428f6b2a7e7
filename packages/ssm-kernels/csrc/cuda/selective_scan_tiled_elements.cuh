// The parts of the tiled forward kernel of the selective scan that have one thread per element: before the recurrence
// (prepare), and after it (finish).
#pragma once

#include "cuda/selective_scan_tiled_memory.cuh"

namespace ssm::cuda {

// B and C: from tiles as stored to (states, kRow) of floats.
template <class Shape, DType kType>
__device__ __forceinline__ void prepare_coefficients(const TiledScan& direction, const char* stage) {
  using Memory = TiledMemory<Shape>;
  using Bits = typename Number<kType>::Bits;
  constexpr int kMost = 16 / int(sizeof(Bits)), kPack = Shape::kAllStates < kMost ? Shape::kAllStates : kMost;
  constexpr int kPacks = Shape::kSteps * Shape::kAllStates / kPack;
  const int states = int(direction.scan.in.states);
#pragma unroll 1
  for (unsigned i = threadIdx.x; i < 2 * kPacks; i += kTiledThreads) {
    const bool is_C = i >= kPacks;
    const int step = int(i % Shape::kSteps), first = int((is_C ? i - kPacks : i) / Shape::kSteps) * kPack;
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
  return int(threadIdx.x % (Shape::kChannels / 2)) * 2;
}

// Body(step) for every four steps that this thread has of a tile.
template <class Shape, class Body>
__device__ __forceinline__ void for_quads(Body body) {
  constexpr int kStride = kTiledThreads / (Shape::kChannels / 2);
#pragma unroll 1
  for (int quad = int(threadIdx.x / (Shape::kChannels / 2)); quad < Shape::kSteps / 4; quad += kStride) body(4 * quad);
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

// Adds what y holds.  Rare, and not worth the instructions of an unrolled loop.
__device__ __forceinline__ void add_y(const View3& y, int64_t offset, const int32_t* positions, int rows, int channels,
                                      float (&values)[2][4]) {
  float before[2] = {};
#pragma unroll 1
  for (int i = 0; i < rows; ++i) {
    const int64_t at = offset + positions[i] * y.stride_l;
    before[0] = load<float>(y.data, at, y.dtype);
    if (channels > 1) before[1] = load<float>(y.data, at + y.stride_d, y.dtype);
#pragma unroll
    for (int k = 0; k < 8; ++k) values[k / 4][k % 4] += k % 4 == i ? before[k / 4] : 0.f;
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
      for (int i = 0; i < 8; ++i)
        values[i / 4][i % 4] = fmaf(Memory::D()[first + i / 4], stored[i / 4][i % 4], values[i / 4][i % 4]);
    }
    if (direction.scan.add_to_y) add_y(y, offset, positions, min(rows - step, 4), channels, values);
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
