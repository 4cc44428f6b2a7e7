// Copies small matrices between tensors of any strides and storage type and packed scratch in the compute type.
#pragma once

#include "cpu/storage.h"

namespace ssm::SSM_ISA {

// A matrix inside a tensor; strides in elements.
struct Matrix {
  char* data;
  int64_t stride_row, stride_col;
  int64_t rows, cols;
};

// Element (row, col) of the matrix; col is the fast one.
template <class S>
SSM_INLINE char* element(const Matrix& m, int64_t row, int64_t col) {
  return m.data + (row * m.stride_row + col * m.stride_col) * S::bytes;
}

// The packed copy: `width` neighbouring columns are one vector, rows of it follow each other at row_stride, groups of
// columns at block_stride.  With block_stride = width the columns of a row are simply contiguous.
template <class F>
struct Packed {
  F* data;
  int64_t row_stride, block_stride;

  SSM_INLINE F* at(int64_t row, int64_t col) const {
    return data + row * row_stride + col / kWidth<F> * block_stride + col % kWidth<F>;
  }
};

template <class S, bool Read>
SSM_INLINE void move_elements(const Matrix& m, const Packed<typename S::Compute>& tile, int64_t row_begin,
                              int64_t row_end, int64_t col_begin, int64_t col_end) {
  for (int64_t row = row_begin; row < row_end; ++row) {
    for (int64_t col = col_begin; col < col_end; ++col) {
      if constexpr (Read) {
        *tile.at(row, col) = S::load_one(element<S>(m, row, col));
      } else {
        S::store_one(element<S>(m, row, col), *tile.at(row, col));
      }
    }
  }
}

// Moves the matrix whose rows are contiguous in memory: whole vectors along the columns, then single elements.
template <class S, bool Read>
SSM_INLINE void move_rows(const Matrix& m, const Packed<typename S::Compute>& tile) {
  using F = typename S::Compute;
  constexpr int64_t W = kWidth<F>;
  for (int64_t row = 0; row < m.rows; ++row) {
    char* data = element<S>(m, row, 0);
    F* packed = tile.at(row, 0);
    for (int64_t col = 0; col + W <= m.cols; col += W) {
      if constexpr (Read) {
        store(packed, S::load(data));
      } else {
        S::store(data, load<F>(packed));
      }
      data += W * S::bytes;
      packed += tile.block_stride;
    }
  }
  move_elements<S, Read>(m, tile, 0, m.rows, m.cols / W * W, m.cols);
}

// Moves the matrix whose columns are contiguous in memory, forwards (stride_row = 1) or backwards (-1): square blocks
// are transposed in registers, the rest goes element by element.
template <class S, bool Read>
SSM_INLINE void move_columns(const Matrix& m, const Packed<typename S::Compute>& tile) {
  using F = typename S::Compute;
  constexpr int W = kWidth<F>;
  const int64_t full_rows = m.rows / W * W, full_cols = m.cols / W * W;
  const bool backwards = m.stride_row < 0;
  for (int64_t row = 0; row < full_rows; row += W) {
    for (int64_t col = 0; col < full_cols; col += W) {
      const int64_t lowest = backwards ? row + W - 1 : row;  // the row with the lowest address
      Vec<F> v[W];
      if constexpr (Read) {
        for (int i = 0; i < W; ++i) v[i] = S::load(element<S>(m, lowest, col + i));
        transpose<F>(v);
        for (int i = 0; i < W; ++i) store(tile.at(backwards ? lowest - i : row + i, col), v[i]);
      } else {
        for (int i = 0; i < W; ++i) v[i] = load<F>(tile.at(backwards ? lowest - i : row + i, col));
        transpose<F>(v);
        for (int i = 0; i < W; ++i) S::store(element<S>(m, lowest, col + i), v[i]);
      }
    }
  }
  move_elements<S, Read>(m, tile, 0, full_rows, full_cols, m.cols);
  move_elements<S, Read>(m, tile, full_rows, m.rows, 0, m.cols);
}

template <class S, bool Read>
SSM_INLINE void move_matrix(const Matrix& m, const Packed<typename S::Compute>& tile) {
  if (m.stride_col == 1) {
    move_rows<S, Read>(m, tile);
  } else if (m.stride_row == 1 || m.stride_row == -1) {
    move_columns<S, Read>(m, tile);
  } else {
    move_elements<S, Read>(m, tile, 0, m.rows, 0, m.cols);
  }
}

// Tensor to packed copy.
template <class F>
SSM_NOINLINE void read_matrix(DType dtype, const Matrix& m, F* tile, int64_t row_stride,
                              int64_t block_stride = kWidth<F>) {
  const Packed<F> packed = {tile, row_stride, block_stride};
  with_storage<F>(dtype, [&](auto storage) { move_matrix<decltype(storage), true>(m, packed); });
}

// Packed copy to tensor.
template <class F>
SSM_NOINLINE void write_matrix(DType dtype, const Matrix& m, const F* tile, int64_t row_stride,
                               int64_t block_stride = kWidth<F>) {
  const Packed<F> packed = {const_cast<F*>(tile), row_stride, block_stride};  // one mover serves both directions
  with_storage<F>(dtype, [&](auto storage) { move_matrix<decltype(storage), false>(m, packed); });
}

// The dtype of tensors in the compute type itself (states, A).
template <class F>
constexpr DType kComputeType = sizeof(F) == 8 ? DType::f64 : DType::f32;

}  // namespace ssm::SSM_ISA
