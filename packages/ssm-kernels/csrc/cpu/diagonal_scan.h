// How a call of the diagonal scan is cut up, and where the pieces lie in memory.
//
// A panel is a few neighbouring channels, one per lane (two lanes, re and im, if complex).  Rows are steps, counted in
// the order of running: row 0 of a sequence is its last step if time runs backwards, and the backward pass runs against
// the forward pass.
#pragma once

#include "cpu/integers.h"
#include "cpu/tile.h"
#include "diagonal_scan_params.h"

namespace ssm::SSM_ISA::diagonal {

constexpr int64_t kChunk = 256;        // steps, a power of 2: sums over time and long sequences are cut into these
constexpr int64_t kManySteps = 4096;   // of a sequence whose chunks run at once ...
constexpr int64_t kFewReals = 128;     // ... where there are not more numbers in the states of all sequences
constexpr int64_t kEnoughTasks = 8;    // otherwise panels get narrower until there are so many tasks
// Memory is read fastest in order, so that a panel should span the rows of the tensors; stretches of kNarrowPanelBytes
// are still good.  Channels that do not neighbour each other each lie in a page of their own: these must be few.
constexpr int64_t kPanelBytes = 4096, kNarrowPanelBytes = 256;

template <bool Complex>
constexpr int64_t kParts = Complex ? 2 : 1;  // real numbers per number

// Whether the chunks of a sequence with so many steps run at once.
inline bool runs_in_chunks(const DiagonalInputs& in, int64_t steps) {
  return in.sequences().count * in.channels * (in.is_complex ? 2 : 1) <= kFewReals && steps >= kManySteps;
}

// Channels are neighbours in memory; a number's two parts always are.
inline bool has_rows(const View3& v) { return v.data == nullptr || v.stride_d == 1; }

struct Panel {
  int64_t index, first, count;  // channels [first, first + count)
};

// The panels of a call.  All but the last consist of whole vectors.
template <class F, bool Complex>
class Panels {
 public:
  static constexpr int64_t W = kWidth<F>;

  // recurrences: how many run at once besides the panels; rows: whether all tensors have rows.
  Panels(const DiagonalInputs& in, int64_t recurrences, bool rows)
      : channels_(in.channels), whole_(in.channels * kParts<Complex> / W * W / kParts<Complex>) {
    const int64_t vectors = whole_ * kParts<Complex> / W;
    const int64_t vector = W * static_cast<int64_t>(sizeof(F));
    const int64_t widest = (rows ? kPanelBytes : kNarrowPanelBytes) / vector, narrowest = kNarrowPanelBytes / vector;
    const int64_t wanted = runs_in_chunks(in, in.steps) ? 1 : ceil_div(kEnoughTasks, larger(recurrences, 1));
    row = smaller(widest, larger(narrowest, vectors / wanted)) * W;
    width_ = row / kParts<Complex>;
    whole_panels_ = ceil_div(whole_, width_);
    count = whole_panels_ + (whole_ < channels_);
  }

  Panel operator[](int64_t index) const {
    if (index == whole_panels_) return {index, whole_, channels_ - whole_};
    return {index, index * width_, smaller(width_, whole_ - index * width_)};
  }

  int64_t count;
  int64_t row;  // reals in the widest row of a panel

 private:
  int64_t channels_, whole_, width_, whole_panels_;
};

// `rows` rows of a sequence, from row `first` on.
template <bool Complex>
Matrix rows_of(const View3& v, const Sequence& s, bool backwards, int64_t first, int64_t rows, const Panel& panel) {
  const int64_t step = s.first + (backwards ? s.steps - 1 - first : first);
  const int64_t offset = s.batch * v.stride_b + step * v.stride_l + panel.first * v.stride_d;
  char* data = v.data + offset * size_of(v.dtype) * kParts<Complex>;
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
      std::memcpy(Read ? static_cast<void*>(pair) : data, Read ? data : static_cast<void*>(pair), 2 * sizeof(F));
    }
  }
}

inline bool pairs_are_neighbours(const Matrix& m) { return m.stride_col == 1 || m.cols == 1; }
inline Matrix as_reals(const Matrix& m) { return {m.data, 2 * m.stride_row, 1, m.rows, 2 * m.cols}; }

// Tensor to packed rows of the compute type.
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

// Packed rows to tensor.
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

}  // namespace ssm::SSM_ISA::diagonal
