// Products of small matrices that stay in the caches; lanes are neighbouring columns of the second factor.
//
// Matrices are tiles: rows of whole vectors at a distance.  Triangles are met exactly: what lies on the wrong side of
// the diagonal is never read, so that NaN in one step does not reach the steps before it.
#pragma once

#include "cpu/integers.h"

namespace ssm::SSM_ISA {

template <class F>
struct Tile {
  F* data;
  int64_t stride;  // of a row

  SSM_INLINE F* row(int64_t index) const { return data + index * stride; }
};

enum class Product {
  plain,           // c = a b
  add_transposed,  // c += a^T b
  add_lower,       // c += lower(a) b, the triangle with the diagonal of a square matrix
  add_upper,       // c += lower(a)^T b
};

// Rows of one block, so that its sums and a row of the second factor fit in 32 or 16 registers.
template <int Vectors>
constexpr int kBlockRows = SSM_VECTOR_BYTES == 64 ? (Vectors <= 2 ? 12 : Vectors == 3 ? 8 : 6)
                                                  : (Vectors == 1 ? 8 : Vectors == 2 ? 6 : Vectors == 3 ? 4 : 3);
constexpr int64_t kMostVectors = 4;

// Element (row, k) of the first factor as it is used.
template <class F, Product kind>
SSM_INLINE F factor(Tile<const F> a, int64_t row, int64_t k) {
  constexpr bool transposed = kind == Product::add_transposed || kind == Product::add_upper;
  return transposed ? a.data[k * a.stride + row] : a.data[row * a.stride + k];
}

// Adds the terms k of the sums of rows [first, last) of a block that begins at `row`.
template <class F, Product kind, int Count, int Vectors>
SSM_INLINE void add_terms(Tile<const F> a, Tile<const F> b, int64_t row, int64_t k, int first, int last,
                          Vec<F> (&sums)[Count][Vectors]) {
  Vec<F> terms[Vectors];
  SSM_UNROLL
  for (int v = 0; v < Vectors; ++v) terms[v] = load<F>(b.row(k) + v * kWidth<F>);
  SSM_UNROLL
  for (int r = 0; r < Count; ++r) {
    if (r < first || r >= last) continue;  // known when this is compiled
    const F weight = factor<F, kind>(a, row + r, k);
    SSM_UNROLL
    for (int v = 0; v < Vectors; ++v) sums[r][v] += weight * terms[v];
  }
}

// Rows [row, row + Count) of the product; `inner` is how many terms its sums have.
template <class F, Product kind, int Count, int Vectors>
SSM_NOINLINE void product_block(Tile<const F> a, Tile<const F> b, Tile<F> c, int64_t row, int64_t inner) {
  constexpr int64_t W = kWidth<F>;
  constexpr bool lower = kind == Product::add_lower, upper = kind == Product::add_upper;
  Vec<F> sums[Count][Vectors];
  SSM_UNROLL
  for (int r = 0; r < Count; ++r) {
    SSM_UNROLL
    for (int v = 0; v < Vectors; ++v)
      sums[r][v] = kind == Product::plain ? Vec<F>{} : load<F>(c.row(row + r) + v * W);
  }
  if constexpr (upper) {
    SSM_UNROLL
    for (int r = 0; r < Count - 1; ++r) add_terms<F, kind>(a, b, row, row + r, 0, r + 1, sums);
  }
  const int64_t end = lower ? row + 1 : inner;
  for (int64_t k = upper ? row + Count - 1 : 0; k < end; ++k) add_terms<F, kind>(a, b, row, k, 0, Count, sums);
  if constexpr (lower) {
    SSM_UNROLL
    for (int r = 1; r < Count; ++r) add_terms<F, kind>(a, b, row, row + r, r, Count, sums);
  }
  SSM_UNROLL
  for (int r = 0; r < Count; ++r) {
    SSM_UNROLL
    for (int v = 0; v < Vectors; ++v) store(c.row(row + r) + v * W, sums[r][v]);
  }
}

// Rows from `row` on, Count at a time, the rest by halves.
template <class F, Product kind, int Count, int Vectors>
void product_rows(Tile<const F> a, Tile<const F> b, Tile<F> c, int64_t row, int64_t rows, int64_t inner) {
  for (; row + Count <= rows; row += Count) product_block<F, kind, Count, Vectors>(a, b, c, row, inner);
  if constexpr (Count > 1) {
    if (row < rows) product_rows<F, kind, Count / 2, Vectors>(a, b, c, row, rows, inner);
  }
}

// c (rows, columns, padded to vectors); b has whole vectors too.
template <class F, Product kind>
void product(Tile<const F> a, Tile<const F> b, Tile<F> c, int64_t rows, int64_t inner, int64_t columns) {
  constexpr int64_t W = kWidth<F>;
  for (int64_t vectors = ceil_div(columns, W); vectors > 0; vectors -= kMostVectors) {
    switch (vectors) {
      case 1: product_rows<F, kind, kBlockRows<1>, 1>(a, b, c, 0, rows, inner); break;
      case 2: product_rows<F, kind, kBlockRows<2>, 2>(a, b, c, 0, rows, inner); break;
      case 3: product_rows<F, kind, kBlockRows<3>, 3>(a, b, c, 0, rows, inner); break;
      default: product_rows<F, kind, kBlockRows<4>, 4>(a, b, c, 0, rows, inner);
    }
    b.data += kMostVectors * W, c.data += kMostVectors * W;
  }
}

// The lower triangle of c = a b, which is square; whole vectors, so that something is written beyond the diagonal.
template <class F>
void product_of_lower(Tile<const F> a, Tile<const F> b, Tile<F> c, int64_t rows, int64_t inner) {
  constexpr int64_t W = kWidth<F>;
  for (int64_t row = 0; row < rows; row += W) {
    product<F, Product::plain>({a.row(row), a.stride}, b, {c.row(row), c.stride}, smaller(W, rows - row), inner,
                               row + W);
  }
}

}  // namespace ssm::SSM_ISA
