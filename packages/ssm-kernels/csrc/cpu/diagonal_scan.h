// What the forward and the backward pass of the diagonal scan share: how a call is cut up, and the arithmetic.
//
// A panel is a few neighbouring channels, one per lane (two lanes, re and im, if complex).  A tile is some steps of a
// panel as rows of vectors in the compute type.  Rows are counted in the order of running: row 0 of a sequence is its
// last step if time runs backwards, and the backward pass runs against the forward pass.
#pragma once

#include <type_traits>

#include "cpu/scratch.h"
#include "cpu/tile.h"
#include "diagonal_scan_params.h"

namespace ssm::SSM_ISA::diagonal {

constexpr int64_t kChunk = 256;        // steps, a power of 2: sums over time and long sequences are cut into these
constexpr int64_t kPanelBytes = 512;   // widest row of a panel
constexpr int64_t kTileBytes = 8192;   // the tiles of a task stay in the first-level cache
constexpr int64_t kEnoughTasks = 16;   // panels get narrower, down to a vector, until there are so many tasks

inline int64_t smaller(int64_t a, int64_t b) { return a < b ? a : b; }
inline int64_t divide_up(int64_t a, int64_t b) { return (a + b - 1) / b; }

template <bool Complex>
constexpr int64_t kParts = Complex ? 2 : 1;  // real numbers per number

struct Sequence {
  int64_t index, batch, begin, steps;
};

inline Sequence sequence(const DiagonalInputs& in, int64_t index) {
  if (in.offsets == nullptr) return {index, index, 0, in.steps};
  return {index, 0, in.offsets[index], in.offsets[index + 1] - in.offsets[index]};
}

struct Panel {
  int64_t index, first, count;  // channels [first, first + count)
};

// The panels of a call.  They depend on its sizes alone.
template <class F, bool Complex>
struct Panels {
  int64_t channels, width, count;
  int64_t row;  // reals in a row of a panel, whole vectors

  // recurrences: how many run at once besides the panels.
  Panels(const DiagonalInputs& in, int64_t recurrences) : channels(in.channels) {
    constexpr int64_t W = kWidth<F>;
    const int64_t vectors = divide_up(channels * kParts<Complex>, W);
    const int64_t widest = kPanelBytes / (W * static_cast<int64_t>(sizeof(F)));
    const int64_t wanted = divide_up(kEnoughTasks, recurrences > 0 ? recurrences : 1);
    int64_t per_panel = vectors / wanted;
    per_panel = per_panel < 1 ? 1 : smaller(per_panel, widest);
    row = per_panel * W;
    width = row / kParts<Complex>;
    count = divide_up(channels, width);
  }

  Panel operator[](int64_t index) const {
    return {index, index * width, smaller(width, channels - index * width)};
  }
};

// `rows` rows of a sequence, from row `first` on.
template <bool Complex>
Matrix rows_of(const View3& v, DType dtype, const Sequence& s, bool backwards, int64_t first, int64_t rows,
               const Panel& panel) {
  const int64_t step = s.begin + (backwards ? s.steps - 1 - first : first);
  const int64_t offset = s.batch * v.stride_b + step * v.stride_l + panel.first * v.stride_d;
  char* data = v.data + offset * size_of(dtype) * kParts<Complex>;
  return {data, backwards ? -v.stride_l : v.stride_l, v.stride_d, rows, panel.count};
}

// A row of a state (sequences, d).
template <class F, bool Complex>
Matrix state_row(const DiagonalInputs& in, const void* state, const Sequence& s, const Panel& panel) {
  const int64_t offset = (s.index * in.channels + panel.first) * kParts<Complex>;
  char* data = static_cast<char*>(const_cast<void*>(state)) + offset * static_cast<int64_t>(sizeof(F));
  return {data, 0, 1, 1, panel.count};
}

// Moves complex numbers whose parts are neighbours in memory, but which are not neighbours of each other.
template <class F, bool Read>
void move_pairs(const Matrix& m, F* tile, int64_t row_stride) {
  for (int64_t row = 0; row < m.rows; ++row) {
    for (int64_t col = 0; col < m.cols; ++col) {
      char* data = m.data + (row * m.stride_row + col * m.stride_col) * 2 * static_cast<int64_t>(sizeof(F));
      F* pair = tile + row * row_stride + 2 * col;
      __builtin_memcpy(Read ? static_cast<void*>(pair) : data, Read ? data : static_cast<void*>(pair), 2 * sizeof(F));
    }
  }
}

inline bool pairs_are_neighbours(const Matrix& m) { return m.stride_col == 1 || m.cols == 1; }
inline Matrix as_reals(const Matrix& m) { return {m.data, 2 * m.stride_row, 1, m.rows, 2 * m.cols}; }

template <class F, bool Complex>
void read_rows(DType dtype, const Matrix& m, F* tile, int64_t row_stride) {
  if constexpr (!Complex) {
    read_matrix<F>(dtype, m, tile, row_stride);
  } else if (pairs_are_neighbours(m)) {
    read_matrix<F>(dtype, as_reals(m), tile, row_stride);
  } else {
    move_pairs<F, true>(m, tile, row_stride);
  }
}

template <class F, bool Complex>
void write_rows(DType dtype, const Matrix& m, const F* tile, int64_t row_stride) {
  if constexpr (!Complex) {
    write_matrix<F>(dtype, m, tile, row_stride);
  } else if (pairs_are_neighbours(m)) {
    write_matrix<F>(dtype, as_reals(m), tile, row_stride);
  } else {
    move_pairs<F, false>(m, const_cast<F*>(tile), row_stride);
  }
}

// Lanes of v picked by index: lane i of the result is lane (i & And | Or) ^ Xor.
template <class F, int And, int Or, int Xor, int... I>
SSM_INLINE Vec<F> pick_lanes(Vec<F> v, std::integer_sequence<int, I...>) {
  return __builtin_shufflevector(v, v, (((I & And) | Or) ^ Xor)...);
}

template <class F, int Even, int Odd, int... I>
SSM_INLINE Vec<F> alternating(std::integer_sequence<int, I...>) {
  return Vec<F>{(I % 2 == 0 ? F(Even) : F(Odd))...};
}

// a x, or conj(a) x; complex numbers lie in neighbouring lanes.
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

// body(vectors, first real of them) for all vectors of a row: as many chains of operations run side by side.
template <class F, class Body>
SSM_INLINE void in_groups(int64_t row, Body body) {
  constexpr int kGroup = 4;
  int64_t at = 0;
  for (; at + kGroup * kWidth<F> <= row; at += kGroup * kWidth<F>) body(std::integral_constant<int, kGroup>{}, at);
  for (; at < row; at += kWidth<F>) body(std::integral_constant<int, 1>{}, at);
}

// Memory of a task, and the rows of a.  Lanes beyond the last channel hold zeros.
template <class F, bool Complex>
struct Workspace {
  const DiagonalInputs& in;
  const Panel panel;
  const bool backwards;
  const int64_t row, most_rows;
  const int64_t a_stride;  // 0 if a is constant
  Scratch scratch;
  F *state, *product, *a;

  // tiles: how many the task takes besides a.
  Workspace(const DiagonalInputs& in, const Panel& panel, int64_t row, bool backwards, int64_t tiles)
      : in(in), panel(panel), backwards(backwards), row(row),
        most_rows(kTileBytes / (row * static_cast<int64_t>(sizeof(F)))), a_stride(in.a_per_step ? row : 0),
        scratch(2 * Scratch::size<F>(row) + (tiles + 1) * Scratch::size<F>(row * most_rows)) {
    state = scratch.take_zeroed<F>(row);
    product = scratch.take_zeroed<F>(row);
    a = take_tile();
  }

  F* take_tile() { return scratch.take_zeroed<F>(row * most_rows); }

  DType a_dtype() const { return in.a_broadcast() ? kComputeType<F> : in.dtype; }

  // Where a has the same value at every step, the first rows read serve for all.
  void read_a(const Sequence& s, int64_t first, int64_t rows) {
    if (a_stride == 0) rows = 1;
    read_rows<F, Complex>(a_dtype(), rows_of<Complex>(in.a, a_dtype(), s, backwards, first, rows, panel), a, row);
  }

  // product <- the product of these rows of a and product, where a is not constant
  void multiply_up(int64_t rows) {
    if (a_stride == 0) return;
    in_groups<F>(row, [&](auto vectors, int64_t at) {
      constexpr int N = decltype(vectors)::value;
      Vec<F> p[N];
      SSM_UNROLL
      for (int k = 0; k < N; ++k) p[k] = load<F>(product + at + k * kWidth<F>);
      for (int64_t r = 0; r < rows; ++r)
        SSM_UNROLL
        for (int k = 0; k < N; ++k)
          p[k] = times<F, Complex, false>(load<F>(a + r * a_stride + at + k * kWidth<F>), p[k]);
      SSM_UNROLL
      for (int k = 0; k < N; ++k) store(product + at + k * kWidth<F>, p[k]);
    });
  }

  // product <- a^kChunk for a constant a.  In double, because all chunks would share the rounding error of this number.
  void raise_to_chunk() {
    constexpr int64_t P = kParts<Complex>;
    for (int64_t i = 0; i < row; i += P) {
      double re = a[i], im = Complex ? a[i + P - 1] : 0;
      for (int64_t power = 1; power < kChunk; power *= 2) {
        const double real = re * re - im * im;
        im = 2 * re * im, re = real;
      }
      product[i] = static_cast<F>(re);
      if (Complex) product[i + P - 1] = static_cast<F>(im);
    }
  }

  void read_state(const void* from, const Sequence& s) {
    if (from == nullptr) {
      __builtin_memset(state, 0, static_cast<size_t>(row) * sizeof(F));
    } else {
      read_rows<F, Complex>(kComputeType<F>, state_row<F, Complex>(in, from, s, panel), state, row);
    }
  }

  void write_state(void* to, const Sequence& s) const {
    if (to != nullptr) write_rows<F, Complex>(kComputeType<F>, state_row<F, Complex>(in, to, s, panel), state, row);
  }
};

}  // namespace ssm::SSM_ISA::diagonal
