// What a task of the forward and of the backward pass share: memory, arithmetic, and the rows of a.
//
// Rows of whole vectors are read from and written to the tensors directly.  Everything else goes through tiles, packed
// copies of a few rows: channels that are not neighbours, the odd channels at the end, an a that is broadcast.
#pragma once

#include <type_traits>

#include "cpu/diagonal_scan.h"
#include "cpu/scratch.h"

namespace ssm::SSM_ISA::diagonal {

constexpr int64_t kTileBytes = 4096;  // small, because tensors of equal size compete for the same lines of the cache

// Rows of vectors of storage S; stride in bytes.
template <class S>
struct Rows {
  char* data;
  int64_t stride;

  SSM_INLINE auto load(int64_t row, int64_t col) const { return S::load(data + row * stride + col * S::bytes); }
  template <class V>
  SSM_INLINE void store(int64_t row, int64_t col, V v) const {
    S::store(data + row * stride + col * S::bytes, v);
  }
};

template <class F>
using ComputeStorage = Storage<kComputeType<F>>;

template <class S, bool Complex>
Rows<S> rows_in_place(const Matrix& m) {
  return {m.data, m.stride_row * S::bytes * kParts<Complex>};
}

// Lane (i & And | Or) ^ Xor of v becomes lane i.
template <class F, int And, int Or, int Xor, int... I>
SSM_INLINE Vec<F> pick_lanes(Vec<F> v, std::integer_sequence<int, I...>) {
  return shuffle<(((I & And) | Or) ^ Xor)...>(v, v);
}

template <class F, int Even, int Odd, int... I>
SSM_INLINE Vec<F> alternating(std::integer_sequence<int, I...>) {
  const F lanes[] = {(I % 2 == 0 ? F(Even) : F(Odd))...};
  return load<F>(lanes);
}

// a x, or conj(a) x; the parts of complex numbers lie in neighbouring lanes.
template <class F, bool Complex, bool Conjugate>
SSM_INLINE Vec<F> times(Vec<F> a, Vec<F> x) {
  if constexpr (!Complex) {
    return a * x;
  } else {
    constexpr auto lanes = std::make_integer_sequence<int, kWidth<F>>{};
    const Vec<F> re = pick_lanes<F, ~1, 0, 0>(a, lanes), im = pick_lanes<F, ~1, 1, 0>(a, lanes);
    const Vec<F> sign = Conjugate ? alternating<F, 1, -1>(lanes) : alternating<F, -1, 1>(lanes);
    return re * x + im * sign * pick_lanes<F, ~0, 0, 1>(x, lanes);
  }
}

// Calls body(count, first) for the vectors of a row, `count` of them (a constant) beginning with real number `first`:
// as many chains of operations run side by side, their vectors in registers.
template <class F, class Body>
SSM_INLINE void in_groups(int64_t row, Body body) {
  constexpr int kGroup = 4;
  int64_t at = 0;
  for (; at + kGroup * kWidth<F> <= row; at += kGroup * kWidth<F>) body(std::integral_constant<int, kGroup>{}, at);
  for (; at < row; at += kWidth<F>) body(std::integral_constant<int, 1>{}, at);
}

template <class F, int N>
SSM_INLINE void load_group(const F* from, Vec<F>* v) {
  SSM_UNROLL
  for (int k = 0; k < N; ++k) v[k] = load<F>(from + k * kWidth<F>);
}

template <class F, int N>
SSM_INLINE void store_group(F* to, const Vec<F>* v) {
  SSM_UNROLL
  for (int k = 0; k < N; ++k) store(to + k * kWidth<F>, v[k]);
}

// Lanes beyond the last channel hold zeros.
template <class F, bool Complex>
struct Workspace {
  const DiagonalInputs& in;
  const Panel panel;
  const bool backwards;
  const int64_t row;        // reals, whole vectors
  const int64_t most_rows;  // of a tile
  const bool whole;         // no odd channels
  const bool a_in_place;
  Scratch scratch;
  F *state, *product, *tile_a;

  // tiles: how many the task takes besides that of a.
  Workspace(const DiagonalInputs& in, const Panel& panel, bool backwards, int64_t tiles)
      : in(in), panel(panel), backwards(backwards),
        row(ceil_div(panel.count * kParts<Complex>, kWidth<F>) * kWidth<F>),
        most_rows(larger(1, kTileBytes / (row * static_cast<int64_t>(sizeof(F))))),
        whole(row == panel.count * kParts<Complex>), a_in_place(whole && in.a_per_step && has_rows(in.a)),
        scratch(2 * Scratch::size<F>(row) + (tiles + 1) * Scratch::size<F>(row * most_rows)) {
    state = scratch.take_zeroed<F>(row);
    product = scratch.take_zeroed<F>(row);
    tile_a = take_tile();
  }

  F* take_tile() { return scratch.take_zeroed<F>(row * most_rows); }

  Rows<ComputeStorage<F>> packed(F* tile) const {
    return {reinterpret_cast<char*>(tile), row * static_cast<int64_t>(sizeof(F))};
  }

  // A constant a is read once: its tile is a single row.
  void read_constant_a(const Sequence& s) {
    if (!in.a_per_step)
      read_rows<F, Complex>(in.a.dtype, rows_of<Complex>(in.a, s, backwards, 0, 1, panel), tile_a, row);
  }

  // Calls body(rows of a), S being the storage of u.
  template <class S, class Body>
  SSM_INLINE void with_a(const Sequence& s, int64_t first, int64_t rows, Body body) {
    const Matrix m = rows_of<Complex>(in.a, s, backwards, first, rows, panel);
    if (a_in_place && in.a.dtype == in.dtype) return body(rows_in_place<S, Complex>(m));
    if (a_in_place) return body(rows_in_place<ComputeStorage<F>, Complex>(m));
    if (in.a_per_step) read_rows<F, Complex>(in.a.dtype, m, tile_a, row);
    body(Rows<ComputeStorage<F>>{reinterpret_cast<char*>(tile_a), in.a_per_step ? packed(tile_a).stride : 0});
  }

  void begin_product() {
    for (int64_t i = 0; i < row; ++i) product[i] = Complex && i % 2 == 1 ? F(0) : F(1);
    if (!in.a_per_step) raise_to_chunk();
  }

  // product <- the product of these rows of a and product, where a is not constant
  template <class A>
  void multiply_up(int64_t rows, Rows<A> a) {
    if (!in.a_per_step) return;
    in_groups<F>(row, [&](auto count, int64_t at) {
      constexpr int N = decltype(count)::value;
      Vec<F> p[N];
      load_group<F, N>(product + at, p);
      for (int64_t r = 0; r < rows; ++r)
        SSM_UNROLL
        for (int k = 0; k < N; ++k) p[k] = times<F, Complex, false>(a.load(r, at + k * kWidth<F>), p[k]);
      store_group<F, N>(product + at, p);
    });
  }

  void read_state(const void* from, const Sequence& s) {
    if (from == nullptr) {
      std::memset(state, 0, static_cast<size_t>(row) * sizeof(F));
    } else {
      read_rows<F, Complex>(kComputeType<F>, state_row<F, Complex>(in, from, s, panel), state, row);
    }
  }

  void write_state(void* to, const Sequence& s) const {
    if (to != nullptr) write_rows<F, Complex>(kComputeType<F>, state_row<F, Complex>(in, to, s, panel), state, row);
  }

 private:
  // product <- a^kChunk for a constant a.  In double, because all chunks would share the rounding error of this number.
  void raise_to_chunk() {
    constexpr int64_t P = kParts<Complex>;
    for (int64_t i = 0; i < row; i += P) {
      double re = tile_a[i], im = Complex ? tile_a[i + P - 1] : 0;
      for (int64_t power = 1; power < kChunk; power *= 2) {
        const double real = re * re - im * im;
        im = 2 * re * im, re = real;
      }
      product[i] = static_cast<F>(re);
      if (Complex) product[i + P - 1] = static_cast<F>(im);
    }
  }
};

}  // namespace ssm::SSM_ISA::diagonal
