// Tiles of the scan's tensors in shared memory: some steps, in the order of time, of the channels of a block (or, of B and
// C, of the states of a group), as they are stored.
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

// What a tile is read from; the same for all steps.  Made on the host but for `data`.
struct TileSource {
  const char* data = nullptr;  // of the batch index and the first column of the block; nullptr: absent
  int64_t stride_step = 0, stride_column = 0;  // in elements
  int32_t element_bytes = 4;   // 2 or 4
  int32_t copy_bytes = 0;      // of one asynchronous copy: 4, 8 or 16 (16 with steps_together); 0: none
  bool steps_together = false;  // the steps are contiguous, not the columns; so they are in the tile
};

// Elements of one column of a tile whose steps are together: padded to spread columns over the banks.
__host__ __device__ constexpr int padded_steps(int tile_steps, int element_bytes) {
  return tile_steps + (16 >> element_bytes / 2);  // 16 bytes more, without a division at run time
}

__host__ __device__ constexpr int tile_bytes(int columns, int tile_steps, const TileSource& source) {
  return (source.steps_together ? padded_steps(tile_steps, source.element_bytes) : tile_steps) * columns *
         source.element_bytes;
}

// Where an element of a tile is.
struct TileLayout {
  int step, column;  // strides in elements
  __host__ __device__ static TileLayout of(const TileSource& source, int columns, int tile_steps) {
    if (source.steps_together) return {1, padded_steps(tile_steps, source.element_bytes)};
    return {columns, 1};
  }
};

// Some steps of one sequence and the columns of one block.
struct TileShape {
  const int64_t* positions;  // of the steps, in shared memory
  int rows;                  // steps that there are
  int columns;               // that there are, at most kColumns
  bool forward;              // positions are consecutive
};

// How many threads load a tile of how many columns and steps, and how many bytes an element has.
template <int kColumns_, int kSteps_, int kThreads_, int kElementBytes_>
struct TileSize {
  static constexpr int kColumns = kColumns_, kSteps = kSteps_, kThreads = kThreads_, kElementBytes = kElementBytes_;
};

// Columns are contiguous: kBytes at a time of one step.
template <int kBytes, class Size>
__device__ __forceinline__ void copy_steps(char* tile, const TileSource& source, const TileShape& shape) {
  constexpr int kRowBytes = Size::kColumns * Size::kElementBytes, kPerRow = kRowBytes / kBytes;
  if constexpr (kPerRow > 0) {
    const int64_t stride = source.stride_step * Size::kElementBytes;
    const int bytes = shape.columns * Size::kElementBytes;
#pragma unroll 1
    for (int first = 0; first < Size::kSteps * kPerRow; first += Size::kThreads) {
      const int row = (first + int(threadIdx.x)) / kPerRow, at = (first + int(threadIdx.x)) % kPerRow * kBytes;
      if (row < shape.rows && at < bytes)
        copy_async<kBytes>(tile + row * kRowBytes + at, source.data + shape.positions[row] * stride + at);
    }
  }
}

// Steps are contiguous: kBytes at a time of one column.
template <int kBytes, class Size>
__device__ __forceinline__ void copy_columns(char* tile, const TileSource& source, const TileShape& shape) {
  constexpr int kPerColumn = Size::kSteps * Size::kElementBytes / kBytes;
  constexpr int kColumnBytes = padded_steps(Size::kSteps, Size::kElementBytes) * Size::kElementBytes;
  const int64_t stride = source.stride_column * Size::kElementBytes;
  const int bytes = shape.rows * Size::kElementBytes;
  const char* data = source.data + shape.positions[0] * Size::kElementBytes;
#pragma unroll 1
  for (int first = 0; first < Size::kColumns * kPerColumn; first += Size::kThreads) {
    const int column = (first + int(threadIdx.x)) / kPerColumn, at = (first + int(threadIdx.x)) % kPerColumn * kBytes;
    if (column < shape.columns && at < bytes)
      copy_async<kBytes>(tile + column * kColumnBytes + at, data + column * stride + at,
                         bytes - at < kBytes ? bytes - at : kBytes);
  }
}

template <class Size>
__device__ __forceinline__ void copy_elements(char* tile, const TileSource& source, const TileShape& shape) {
  using Bits = std::conditional_t<Size::kElementBytes == 2, uint16_t, float>;
  const Bits* data = reinterpret_cast<const Bits*>(source.data);
  Bits* to = reinterpret_cast<Bits*>(tile);
#pragma unroll 4
  for (int first = 0; first < Size::kColumns * Size::kSteps; first += Size::kThreads) {
    const int i = first + int(threadIdx.x);
    const int row = source.steps_together ? i % Size::kSteps : i / Size::kColumns;
    const int column = source.steps_together ? i / Size::kSteps : i % Size::kColumns;
    if (row < shape.rows && column < shape.columns)
      to[source.steps_together ? column * padded_steps(Size::kSteps, Size::kElementBytes) + row : i] =
          data[shape.positions[row] * source.stride_step + column * source.stride_column];
  }
}

template <class Size>
__device__ __forceinline__ void load_tile_of(char* tile, const TileSource& source, const TileShape& shape) {
  if (!source.steps_together) {
    if (source.copy_bytes == 16) copy_steps<16, Size>(tile, source, shape);
    else if (source.copy_bytes == 8) copy_steps<8, Size>(tile, source, shape);
    else if (source.copy_bytes == 4) copy_steps<4, Size>(tile, source, shape);
    else copy_elements<Size>(tile, source, shape);
  } else if (source.copy_bytes == 16 && shape.forward && shape.positions[0] * Size::kElementBytes % 16 == 0) {
    copy_columns<16, Size>(tile, source, shape);
  } else {
    copy_elements<Size>(tile, source, shape);
  }
}

// Starts to fill a tile; wait_for_copies and a barrier make it complete.  Elements that do not exist stay as they are.
template <int kColumns, int kTileSteps, int kThreads>
__device__ __forceinline__ void load_tile(char* tile, const TileSource& source, const TileShape& shape) {
  if (source.data == nullptr || shape.rows == 0) return;
  if (source.element_bytes == 2) load_tile_of<TileSize<kColumns, kTileSteps, kThreads, 2>>(tile, source, shape);
  else load_tile_of<TileSize<kColumns, kTileSteps, kThreads, 4>>(tile, source, shape);
}

template <DType kType>
__device__ __forceinline__ float tile_value(const char* tile, int index) {
  return Number<kType>::decode(reinterpret_cast<const typename Number<kType>::Bits*>(tile)[index]);
}

}  // namespace ssm::cuda
