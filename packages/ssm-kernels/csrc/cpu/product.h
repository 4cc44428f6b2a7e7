// Products of rows with a matrix of weights that is packed before and then stays in the second-level cache.
//
// Lanes are neighbouring columns of the product.  Packed weights are panels of up to kPanelVectors vectors of columns,
// (inner, lanes) each, with zeros in the lanes beyond the last column.
#pragma once

#include "cpu/tile.h"

namespace ssm::SSM_ISA {

constexpr int kPanelVectors = 4;
// Rows of one block: its sums stay in registers, of which there are 32 or 16.
constexpr int kProductRows = SSM_VECTOR_BYTES == 64 ? 6 : 3;

// Packs weight (columns, inner), contiguous.
template <class F>
void pack_weight(const void* weight, int64_t columns, int64_t inner, F* packed) {
  constexpr int64_t W = kWidth<F>, panel = kPanelVectors * W;
  for (int64_t first = 0; first < columns; first += panel) {
    const int64_t count = columns - first < panel ? columns - first : panel, lanes = (count + W - 1) / W * W;
    if (count < lanes) std::memset(packed, 0, static_cast<size_t>(inner * lanes) * sizeof(F));
    char* data = static_cast<char*>(const_cast<void*>(weight)) + first * inner * static_cast<int64_t>(sizeof(F));
    read_matrix<F>(kComputeType<F>, Matrix{data, 1, inner, inner, count}, packed, lanes);
    packed += inner * lanes;
  }
}

// One matrix in memory: rows at a distance.
template <class F>
struct Rows {
  F* data;
  int64_t stride;
};

template <class F, int Count, int Vectors>
SSM_NOINLINE void multiply_block(Rows<const F> a, int64_t inner, const F* panel, Rows<F> c) {
  constexpr int64_t W = kWidth<F>;
  Vec<F> sums[Count][Vectors] = {};
  for (int64_t k = 0; k < inner; ++k) {
    Vec<F> b[Vectors];
    SSM_UNROLL
    for (int v = 0; v < Vectors; ++v) b[v] = load<F>(panel + (k * Vectors + v) * W);
    SSM_UNROLL
    for (int r = 0; r < Count; ++r) {
      SSM_UNROLL
      for (int v = 0; v < Vectors; ++v) sums[r][v] += a.data[r * a.stride + k] * b[v];
    }
  }
  SSM_UNROLL
  for (int r = 0; r < Count; ++r) {
    SSM_UNROLL
    for (int v = 0; v < Vectors; ++v) store(c.data + r * c.stride + v * W, sums[r][v]);
  }
}

template <class F, int Vectors>
void multiply_panel(Rows<const F> a, int64_t rows, int64_t inner, const F* panel, Rows<F> c) {
  int64_t row = 0;
  const auto block = [&](auto count, int64_t first) {
    multiply_block<F, decltype(count)::value, Vectors>({a.data + first * a.stride, a.stride}, inner, panel,
                                                       {c.data + first * c.stride, c.stride});
  };
  for (; row + kProductRows <= rows; row += kProductRows) block(std::integral_constant<int, kProductRows>{}, row);
  if (row < rows && row > 0) return block(std::integral_constant<int, kProductRows>{}, rows - kProductRows);
  for (; row < rows; ++row) block(std::integral_constant<int, 1>{}, row);
}

// c (rows, columns, padded to vectors) = a (rows, inner) times the packed weights.
template <class F>
void multiply(Rows<const F> a, int64_t rows, int64_t inner, const F* packed, int64_t columns, Rows<F> c) {
  constexpr int64_t W = kWidth<F>;
  for (int64_t vectors = (columns + W - 1) / W; vectors > 0; vectors -= kPanelVectors) {
    switch (vectors) {
      case 1: multiply_panel<F, 1>(a, rows, inner, packed, c); break;
      case 2: multiply_panel<F, 2>(a, rows, inner, packed, c); break;
      case 3: multiply_panel<F, 3>(a, rows, inner, packed, c); break;
      default: multiply_panel<F, kPanelVectors>(a, rows, inner, packed, c);
    }
    packed += inner * kPanelVectors * W, c.data += kPanelVectors * W;
  }
}

}  // namespace ssm::SSM_ISA
