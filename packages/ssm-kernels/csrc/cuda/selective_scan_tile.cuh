// Tiles of the scan's tensors in shared memory: some steps, in the order of time, of the channels of a block (or, of B
// and C, of the states of a group), as they are stored.
//
// Where the tensor is contiguous and aligned along one of its axes, tiles are copied without waiting (cp.async);
// everything else goes element by element through registers.
#pragma once

#include <type_traits>

#include "cuda/launch.h"
#include "cuda/numbers.h"
#include "cuda/ptx.h"
#include "cuda/time_order.h"

namespace ssm::cuda {

// What a tile is read from; the same for all steps.  Strides are in bytes and 32-bit, as positions are: an address is
// then one multiply-add.
struct TileSource {
  const char* data = nullptr;  // of the batch index and the first column of the block; nullptr: absent
  int32_t stride_step = 0, stride_column = 0;
  int32_t copy_bytes = 0;       // of one asynchronous copy: 4, 8 or 16 (16 with steps_together); 0: none
  bool steps_together = false;  // the steps are contiguous, not the columns; so they are in the tile
};

// Elements of one column of a tile whose steps are together: padded by 16 bytes to spread columns over the banks.
__host__ __device__ constexpr int padded_steps(int tile_steps, int element_bytes) {
  return tile_steps + (16 >> element_bytes / 2);
}

__host__ __device__ constexpr int tile_bytes(int columns, int tile_steps, int element_bytes, bool steps_together) {
  return (steps_together ? padded_steps(tile_steps, element_bytes) : tile_steps) * columns * element_bytes;
}

// Some steps of one sequence and the columns of one block.
struct TileShape {
  const int32_t* positions;  // of the steps, in shared memory
  int rows;                  // steps that there are
  int columns;               // that there are, at most kColumns
  bool forward;              // positions are consecutive
};

// How many threads load a tile of how many columns and steps, and how many bytes (2 or 4) an element has.
template <int kColumns_, int kSteps_, int kThreads_, int kElementBytes_>
struct TileSize {
  static constexpr int kColumns = kColumns_, kSteps = kSteps_, kThreads = kThreads_, kElementBytes = kElementBytes_;
  static constexpr int kPaddedSteps = padded_steps(kSteps, kElementBytes);
};

__device__ __forceinline__ const char* tile_address(const char* data, int32_t index, int32_t stride) {
  return data + int64_t(index) * stride;
}

// Columns are contiguous: kBytes at a time of one step.
template <int kBytes, class Size>
__device__ __forceinline__ void copy_steps(char* tile, TileSource source, const TileShape& shape) {
  constexpr int kRowBytes = Size::kColumns * Size::kElementBytes, kPerRow = kRowBytes / kBytes;
  if constexpr (kPerRow > 0) {
    const int at = int(threadIdx.x % kPerRow) * kBytes;  // the same in every round: kThreads is a multiple
    static_assert(Size::kThreads % kPerRow == 0);
    if (at >= shape.columns * Size::kElementBytes) return;
#pragma unroll 1
    for (int row = int(threadIdx.x / kPerRow); row < shape.rows; row += Size::kThreads / kPerRow)
      copy_async<kBytes>(tile + row * kRowBytes + at,
                         tile_address(source.data, shape.positions[row], source.stride_step) + at);
  }
}

// Steps are contiguous: 16 bytes at a time of one column.
template <class Size>
__device__ __forceinline__ void copy_columns(char* tile, TileSource source, const TileShape& shape) {
  constexpr int kPerColumn = Size::kSteps * Size::kElementBytes / 16;
  static_assert(Size::kThreads % kPerColumn == 0);
  const int at = int(threadIdx.x % kPerColumn) * 16, bytes = shape.rows * Size::kElementBytes - at;
  if (bytes <= 0) return;
  const char* data = source.data + int64_t(shape.positions[0]) * Size::kElementBytes + at;
#pragma unroll 1
  for (int column = int(threadIdx.x / kPerColumn); column < shape.columns; column += Size::kThreads / kPerColumn)
    copy_async<16>(tile + column * Size::kPaddedSteps * Size::kElementBytes + at,
                   tile_address(data, column, source.stride_column), bytes < 16 ? bytes : 16);
}

template <class Size>
__device__ __forceinline__ void copy_elements(char* tile, TileSource source, const TileShape& shape) {
  using Bits = std::conditional_t<Size::kElementBytes == 2, uint16_t, float>;
  Bits* to = reinterpret_cast<Bits*>(tile);
#pragma unroll 4
  for (int first = 0; first < Size::kColumns * Size::kSteps; first += Size::kThreads) {
    const unsigned i = first + threadIdx.x;
    const int row = source.steps_together ? i % Size::kSteps : i / Size::kColumns;
    const int column = source.steps_together ? i / Size::kSteps : i % Size::kColumns;
    if (row >= shape.rows || column >= shape.columns) continue;
    const char* step = tile_address(source.data, shape.positions[row], source.stride_step);
    to[source.steps_together ? column * Size::kPaddedSteps + row : i] =
        *reinterpret_cast<const Bits*>(tile_address(step, column, source.stride_column));
  }
}

// Starts to fill a tile; wait_for_copies and a barrier make it complete.  Elements that do not exist stay as they are.
template <class Size>
__device__ __forceinline__ void load_tile(char* tile, const TileSource source, const TileShape& shape) {
  if (source.data == nullptr || shape.rows == 0) return;
  if (!source.steps_together) {
    if (source.copy_bytes == 16) copy_steps<16, Size>(tile, source, shape);
    else if (source.copy_bytes == 8) copy_steps<8, Size>(tile, source, shape);
    else if (source.copy_bytes == 4) copy_steps<4, Size>(tile, source, shape);
    else copy_elements<Size>(tile, source, shape);
  } else if (source.copy_bytes == 16 && shape.forward && shape.positions[0] * Size::kElementBytes % 16 == 0) {
    copy_columns<Size>(tile, source, shape);
  } else {
    copy_elements<Size>(tile, source, shape);
  }
}

template <class T, int kCount>
struct alignas(sizeof(T) * kCount < 16 ? sizeof(T) * kCount : 16) Pack {
  T values[kCount];
};

// Four steps, from `step` on, of two neighbouring columns of a tile; both are multiples of their number.
template <DType kType, class Size>
__device__ __forceinline__ void read_tile(const char* tile, bool steps_together, int column, int step,
                                          float (&values)[2][4]) {
  using Bits = typename Number<kType>::Bits;
  const Bits* from = reinterpret_cast<const Bits*>(tile);
  if (steps_together) {
#pragma unroll
    for (int c = 0; c < 2; ++c) {
      const auto pack = *reinterpret_cast<const Pack<Bits, 4>*>(from + (column + c) * Size::kPaddedSteps + step);
#pragma unroll
      for (int i = 0; i < 4; ++i) values[c][i] = Number<kType>::decode(pack.values[i]);
    }
  } else {
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      const auto pack = *reinterpret_cast<const Pack<Bits, 2>*>(from + (step + i) * Size::kColumns + column);
#pragma unroll
      for (int c = 0; c < 2; ++c) values[c][i] = Number<kType>::decode(pack.values[c]);
    }
  }
}

}  // namespace ssm::cuda
