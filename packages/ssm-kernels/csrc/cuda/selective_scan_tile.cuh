// Tiles of the scan's tensors in shared memory: some steps, in the order of time, of the channels of a block (or, of B and
// C, of the states of a group), as they are stored.
//
// Where the tensor is contiguous and aligned along one of its axes, tiles are copied without waiting (cp.async);
// everything else goes element by element through registers.
#pragma once

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
  int32_t copy_bytes = 0;      // of one asynchronous copy: 4, 8 or 16; 0: none
  bool steps_together = false;  // the steps are contiguous, not the columns; so they are in the tile
};

// Elements of one column of a tile whose steps are together: padded to spread columns over the banks.
__host__ __device__ constexpr int padded_steps(int tile_steps, int element_bytes) {
  return tile_steps + 16 / element_bytes;
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

__host__ __device__ constexpr int log2_of(int power) { return power <= 1 ? 0 : 1 + log2_of(power / 2); }

// Columns are contiguous: kBytes at a time of one step.
template <int kBytes, int kColumns>
__device__ __forceinline__ void copy_steps(char* tile, const TileSource& source, const TileShape& shape) {
  const int shift = log2_of(kColumns) + (source.element_bytes >> 1) - log2_of(kBytes);  // copies per step, as a power
  const int bytes = shape.columns * source.element_bytes;
  for (int i = int(threadIdx.x); i < shape.rows << shift; i += int(blockDim.x)) {
    const int row = i >> shift, at = (i & ((1 << shift) - 1)) * kBytes;
    if (at >= bytes) continue;
    const char* from = source.data + shape.positions[row] * source.stride_step * source.element_bytes + at;
    copy_async<kBytes>(tile + row * kColumns * source.element_bytes + at, from);
  }
}

// Steps are contiguous: kBytes at a time of one column.
template <int kBytes, int kTileSteps>
__device__ __forceinline__ void copy_columns(char* tile, const TileSource& source, const TileShape& shape) {
  const int shift = log2_of(kTileSteps) + (source.element_bytes >> 1) - log2_of(kBytes);
  const int bytes = shape.rows * source.element_bytes;
  const char* data = source.data + shape.positions[0] * source.element_bytes;
  for (int i = int(threadIdx.x); i < shape.columns << shift; i += int(blockDim.x)) {
    const int column = i >> shift, at = (i & ((1 << shift) - 1)) * kBytes;
    if (at >= bytes) continue;
    const char* from = data + column * source.stride_column * source.element_bytes + at;
    char* to = tile + column * padded_steps(kTileSteps, source.element_bytes) * source.element_bytes + at;
    copy_async<kBytes>(to, from, bytes - at < kBytes ? bytes - at : kBytes);
  }
}

template <class Bits, int kColumns, int kTileSteps>
__device__ __forceinline__ void copy_elements(char* tile, const TileSource& source, const TileShape& shape) {
  const Bits* data = reinterpret_cast<const Bits*>(source.data);
  Bits* to = reinterpret_cast<Bits*>(tile);
  constexpr int kStepsTogether = padded_steps(kTileSteps, sizeof(Bits));
  for (int i = int(threadIdx.x); i < kColumns * kTileSteps; i += int(blockDim.x)) {
    const int row = source.steps_together ? i % kTileSteps : i / kColumns;
    const int column = source.steps_together ? i / kTileSteps : i % kColumns;
    if (row >= shape.rows || column >= shape.columns) continue;
    to[source.steps_together ? column * kStepsTogether + row : i] =
        data[shape.positions[row] * source.stride_step + column * source.stride_column];
  }
}

// Starts to fill a tile; wait_for_copies and a barrier make it complete.  Elements that do not exist stay as they are.
template <int kColumns, int kTileSteps>
__device__ __forceinline__ void load_tile(char* tile, const TileSource& source, const TileShape& shape) {
  if (source.data == nullptr || shape.rows == 0) return;
  int copy_bytes = source.copy_bytes;
  if (source.steps_together &&
      (!shape.forward || shape.positions[0] * source.element_bytes % (copy_bytes > 0 ? copy_bytes : 1) != 0))
    copy_bytes = 0;
  if (copy_bytes == 16) {
    source.steps_together ? copy_columns<16, kTileSteps>(tile, source, shape)
                          : copy_steps<16, kColumns>(tile, source, shape);
  } else if (copy_bytes == 8) {
    source.steps_together ? copy_columns<8, kTileSteps>(tile, source, shape)
                          : copy_steps<8, kColumns>(tile, source, shape);
  } else if (copy_bytes == 4) {
    source.steps_together ? copy_columns<4, kTileSteps>(tile, source, shape)
                          : copy_steps<4, kColumns>(tile, source, shape);
  } else if (source.element_bytes == 2) {
    copy_elements<uint16_t, kColumns, kTileSteps>(tile, source, shape);
  } else {
    copy_elements<float, kColumns, kTileSteps>(tile, source, shape);
  }
}

template <DType kType>
__device__ __forceinline__ float tile_value(const char* tile, int index) {
  return Number<kType>::decode(reinterpret_cast<const typename Number<kType>::Bits*>(tile)[index]);
}

}  // namespace ssm::cuda
