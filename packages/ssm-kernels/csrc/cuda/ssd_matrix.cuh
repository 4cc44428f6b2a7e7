// Products of matrices by a block, a tile of 64 x 64 at a time, for matrices of which only single elements are known: they
// are loaded, scaled and masked by a function of their place, and staged in shared memory 32 terms of the sums at a time.
//
// A block has 4 warps of 16 rows each.  A lane holds the elements (row(i), column(t, i)) of a tile, i < 4, t < 8.
#pragma once

#include "cuda/launch.h"
#include "cuda/numbers.h"
#include "cuda/ptx.h"

namespace ssm::cuda {

constexpr int kTile = 64;
constexpr int kTileThreads = 128;
constexpr int kTileColumns = 8;   // groups of 8 columns
constexpr int kStagedDepth = 32;  // terms that are staged at one time
constexpr int kStagedRow = 72;    // cells: the lanes of a warp then read from different banks

// How numbers are multiplied.  A cell holds kPerCell terms that follow each other.
struct MultiplyBf16 {
  using Compute = float;
  using Cell = uint32_t;
  static constexpr int kPerCell = 2;
  static __device__ __forceinline__ Cell cell(float a, float b) { return encode_bf16(a) | uint32_t(encode_bf16(b)) << 16; }
  static __device__ __forceinline__ void add(float (&sums)[4], const uint32_t (&a)[4], const uint32_t (&b)[2]) {
    mma_bf16(sums, a, b);
  }
};
struct MultiplyF16 {
  using Compute = float;
  using Cell = uint32_t;
  static constexpr int kPerCell = 2;
  static __device__ __forceinline__ Cell cell(float a, float b) { return encode_f16(a) | uint32_t(encode_f16(b)) << 16; }
  static __device__ __forceinline__ void add(float (&sums)[4], const uint32_t (&a)[4], const uint32_t (&b)[2]) {
    mma_f16(sums, a, b);
  }
};
// TF32 has the digits of float16 and the range of float.  With Exact, what rounding leaves over is multiplied as well,
// which gives the digits of float.
template <bool Exact>
struct MultiplyTf32 {
  using Compute = float;
  using Cell = float;
  static constexpr int kPerCell = 1;
  static __device__ __forceinline__ Cell cell(float a) { return a; }
  template <int N>
  static __device__ __forceinline__ void split(const float (&x)[N], uint32_t (&high)[N], uint32_t (&low)[N]) {
#pragma unroll
    for (int i = 0; i < N; ++i) {
      high[i] = to_tf32(x[i]);
      low[i] = to_tf32(x[i] - __uint_as_float(high[i]));
    }
  }
  static __device__ __forceinline__ void add(float (&sums)[4], const float (&a)[4], const float (&b)[2]) {
    uint32_t a_high[4], a_low[4], b_high[2], b_low[2];
    split(a, a_high, a_low), split(b, b_high, b_low);
    if (Exact) {
      mma_tf32(sums, a_low, b_high);
      mma_tf32(sums, a_high, b_low);
    }
    mma_tf32(sums, a_high, b_high);
  }
};
// Simple and slow.
struct MultiplyDouble {
  using Compute = double;
  using Cell = double;
  static constexpr int kPerCell = 1;
  static __device__ __forceinline__ Cell cell(double a) { return a; }
};

// For matrices of inputs alone, and for those of computed numbers, which may be out of float16's range.
template <DType T>
struct Multiplies;
template <>
struct Multiplies<DType::f32> {
  using Inputs = MultiplyTf32<true>;
  using Computed = MultiplyTf32<true>;
};
template <>
struct Multiplies<DType::f64> {
  using Inputs = MultiplyDouble;
  using Computed = MultiplyDouble;
};
template <>
struct Multiplies<DType::bf16> {
  using Inputs = MultiplyBf16;
  using Computed = MultiplyBf16;
};
template <>
struct Multiplies<DType::f16> {
  using Inputs = MultiplyF16;
  using Computed = MultiplyTf32<false>;
};

// Of the larger cells.
template <class Compute>
SSM_HOST_DEVICE constexpr int64_t staged_bytes() {
  return int64_t(2) * kStagedDepth * kStagedRow * sizeof(Compute);
}

template <class Compute>
struct Sums {
  Compute at[kTileColumns][4];
  __device__ __forceinline__ void clear() {
#pragma unroll
    for (int t = 0; t < kTileColumns; ++t)
#pragma unroll
      for (int i = 0; i < 4; ++i) at[t][i] = 0;
  }
};

__device__ __forceinline__ int lane_row(int i) {
  return int(threadIdx.x) / 32 * 16 + int(threadIdx.x) % 32 / 4 + (i >> 1) * 8;
}
__device__ __forceinline__ int lane_column(int t, int i) { return 8 * t + int(threadIdx.x) % 4 * 2 + (i & 1); }

// Calls work(row, column, element) for the lane's elements.
template <class Compute, class Work>
__device__ __forceinline__ void each_element(Sums<Compute>& sums, Work work) {
#pragma unroll
  for (int t = 0; t < kTileColumns; ++t)
#pragma unroll
    for (int i = 0; i < 4; ++i) work(lane_row(i), lane_column(t, i), sums.at[t][i]);
}

// Elements (index, k) of a matrix as cells (k / kPerCell, index).  AlongDepth: neighbours in memory are those along k.
template <class Multiply, bool AlongDepth, class Element>
__device__ __forceinline__ void stage(typename Multiply::Cell* staged, int first, const Element& element) {
  constexpr int kCells = kStagedDepth / Multiply::kPerCell;
#pragma unroll 4
  for (int e = int(threadIdx.x); e < kCells * kTile; e += kTileThreads) {
    const int cell = AlongDepth ? e % kCells : e / kTile, index = AlongDepth ? e / kCells : e % kTile;
    const int k = first + cell * Multiply::kPerCell;
    if constexpr (Multiply::kPerCell == 2)
      staged[cell * kStagedRow + index] = Multiply::cell(element(index, k), element(index, k + 1));
    else
      staged[cell * kStagedRow + index] = Multiply::cell(element(index, k));
  }
}

// sums += the products of what is staged.
template <class Multiply>
__device__ __forceinline__ void multiply_staged(Sums<float>& sums, const typename Multiply::Cell* left,
                                                const typename Multiply::Cell* right) {
  constexpr int kCells = kStagedDepth / Multiply::kPerCell;
  const int r = int(threadIdx.x) % 4, row = lane_row(0), column = int(threadIdx.x) % 32 / 4;
#pragma unroll
  for (int first = 0; first < kCells; first += 8) {
    const int cell = first + r;
    typename Multiply::Cell a[4], b[2];
#pragma unroll
    for (int i = 0; i < 4; ++i) a[i] = left[(cell + i / 2 * 4) * kStagedRow + row + i % 2 * 8];
#pragma unroll
    for (int t = 0; t < kTileColumns; ++t) {
#pragma unroll
      for (int i = 0; i < 2; ++i) b[i] = right[(cell + i * 4) * kStagedRow + 8 * t + column];
      Multiply::add(sums.at[t], a, b);
    }
  }
}
template <class Multiply>
__device__ __forceinline__ void multiply_staged(Sums<double>& sums, const double* left, const double* right) {
#pragma unroll 1
  for (int k = 0; k < kStagedDepth; ++k) {
    const double* a = left + k * kStagedRow;
    const double* b = right + k * kStagedRow;
    each_element(sums, [&](int row, int column, double& sum) { sum += a[row] * b[column]; });
  }
}

// sums(i, j) += the sum over k < depth of left(i, k) right(j, k), for i, j < 64.  All threads of the block call it; it ends
// and begins with a barrier.  Elements beyond the matrices must be 0.
template <class Multiply, bool LeftAlongDepth, bool RightAlongDepth, class Left, class Right>
__device__ __forceinline__ void add_product(Sums<typename Multiply::Compute>& sums, int64_t depth, char* memory,
                                            const Left& left, const Right& right) {
  using Cell = typename Multiply::Cell;
  Cell* staged_left = reinterpret_cast<Cell*>(memory);
  Cell* staged_right = staged_left + kStagedDepth / Multiply::kPerCell * kStagedRow;
  __syncthreads();
#pragma unroll 1
  for (int first = 0; first < depth; first += kStagedDepth) {
    stage<Multiply, LeftAlongDepth>(staged_left, first, left);
    stage<Multiply, RightAlongDepth>(staged_right, first, right);
    __syncthreads();
    multiply_staged<Multiply>(sums, staged_left, staged_right);
    __syncthreads();
  }
}

}  // namespace ssm::cuda
