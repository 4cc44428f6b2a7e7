// A linear layer.  For few rows of x, a step of generation, it takes as long as reading the weights, once and in order: a
// task is some rows of the weights, and lanes are neighbours in them.  For many rows lanes are neighbours in y.
#include "linear_params.h"

#include "cpu/integers.h"
#include "cpu/operators.h"
#include "cpu/parallel.h"
#include "cpu/product.h"
#include "cpu/scratch.h"
#include "cpu/sum_of_lanes.h"

namespace ssm::SSM_ISA {
namespace {

constexpr int64_t kTaskBytes = 1 << 16;  // of weights per task: they stay in the cache for the next rows of x
// Rows of the weights and of x in one block: its sums stay in registers, of which there are 32 or 16.
constexpr int kWeightRows = 4;
constexpr int kInputRows = SSM_VECTOR_BYTES == 64 ? 4 : 2;

// y[r][c] for Rows rows of x and Columns rows of the weights, without the bias.  Asks for the weights `ahead` numbers on.
template <class F, int Rows, int Columns>
SSM_NOINLINE void block(const F* x, const F* weight, int64_t inner, int64_t ahead, F* y, int64_t stride_y) {
  constexpr int64_t W = kWidth<F>;
  const int64_t whole = inner / W * W;
  Vec<F> sums[Rows][Columns] = {};
  for (int64_t k = 0; k < whole; k += W) {
    Vec<F> w[Columns];
    SSM_UNROLL
    for (int c = 0; c < Columns; ++c) {
      w[c] = load<F>(weight + c * inner + k);
      SSM_PREFETCH(reinterpret_cast<const char*>(weight + c * inner + k + ahead));
    }
    SSM_UNROLL
    for (int r = 0; r < Rows; ++r) {
      const Vec<F> own = load<F>(x + r * inner + k);
      SSM_UNROLL
      for (int c = 0; c < Columns; ++c) sums[r][c] += own * w[c];
    }
  }
  for (int r = 0; r < Rows; ++r) {
    for (int c = 0; c < Columns; ++c) {
      F sum = sum_of_lanes<F>(sums[r][c]);
      for (int64_t k = whole; k < inner; ++k) sum += x[r * inner + k] * weight[c * inner + k];
      y[r * stride_y + c] = sum;
    }
  }
}

template <class F, int Columns>
void all_inputs(const Linear& p, int64_t column, int64_t ahead) {
  const F* x = static_cast<const F*>(p.x);
  const F* weight = static_cast<const F*>(p.weight) + column * p.inner;
  F* y = static_cast<F*>(p.y) + column;
  int64_t row = 0;
  for (; row + kInputRows <= p.rows; row += kInputRows) {
    block<F, kInputRows, Columns>(x + row * p.inner, weight, p.inner, ahead, y + row * p.columns, p.columns);
  }
  for (; row < p.rows; ++row) {
    block<F, 1, Columns>(x + row * p.inner, weight, p.inner, ahead, y + row * p.columns, p.columns);
  }
  if (p.bias == nullptr) return;
  const F* bias = static_cast<const F*>(p.bias) + column;
  for (row = 0; row < p.rows; ++row) {
    for (int c = 0; c < Columns; ++c) y[row * p.columns + c] += bias[c];
  }
}

template <class F>
void all_columns(const Linear& p) {
  const int64_t bytes = p.inner * static_cast<int64_t>(sizeof(F));
  int64_t most = bytes > 0 ? kTaskBytes / bytes / kWeightRows * kWeightRows : p.columns;
  if (most < kWeightRows) most = kWeightRows;
  const int64_t tasks = (p.columns + most - 1) / most;
  parallel_for(tasks, p.num_threads, [&](int64_t task) {
    int64_t column = task * most;
    const int64_t end = column + most < p.columns ? column + most : p.columns;
    for (; column + kWeightRows <= end; column += kWeightRows) {
      // Not beyond the last row: the address may not even be formed.
      const int64_t ahead = column + 2 * kWeightRows <= p.columns ? kWeightRows * p.inner : 0;
      all_inputs<F, kWeightRows>(p, column, ahead);
    }
    for (; column < end; ++column) all_inputs<F, 1>(p, column, 0);
  });
}

// --- many rows ------------------------------------------------------------------------------------------------------

constexpr int64_t kFewRows = 16;
constexpr int64_t kLeastRows = 24;  // of a task: so that packing its weights is paid for

// A task is a panel of columns, whose weights are packed when it begins, and some rows.
template <class F>
class Panels {
 public:
  explicit Panels(const Linear& p)
      : p_(p), panels_(ceil_div(p.columns, kColumns)), parts_(parts(p, panels_)), rows_(ceil_div(p.rows, parts_)) {}

  void run() const {
    parallel_for(panels_ * parts_, p_.num_threads, [&](int64_t task) {
      const int64_t column = task / parts_ * kColumns, row = task % parts_ * rows_;
      if (row >= p_.rows) return;
      multiply_some(column, smaller(kColumns, p_.columns - column), row, smaller(rows_, p_.rows - row));
    });
  }

 private:
  static constexpr int64_t W = kWidth<F>, kColumns = kPanelVectors * W;

  // Into how many the rows are cut: packing is repeated for each, so one if the panels keep all threads busy.
  static int64_t parts(const Linear& p, int64_t panels) {
    if (panels % p.num_threads == 0 || panels > 8 * p.num_threads) return 1;
    return larger(1, smaller(p.num_threads, p.rows / kLeastRows));
  }

  void multiply_some(int64_t column, int64_t columns, int64_t row, int64_t rows) const {
    const int64_t lanes = ceil_div(columns, W) * W;
    const bool whole = columns == lanes;  // otherwise the last vector goes beyond the row
    Scratch scratch(Scratch::size<F>(p_.inner * lanes) + (whole ? 0 : Scratch::size<F>(rows * lanes)));
    F* packed = scratch.take<F>(p_.inner * lanes);
    pack_weight<F>(static_cast<const F*>(p_.weight) + column * p_.inner, columns, p_.inner, packed);
    F* y = static_cast<F*>(p_.y) + row * p_.columns + column;
    const Rows<F> product = whole ? Rows<F>{y, p_.columns} : Rows<F>{scratch.take<F>(rows * lanes), lanes};
    multiply<F>({static_cast<const F*>(p_.x) + row * p_.inner, p_.inner}, rows, p_.inner, packed, columns, product);
    if (!whole) {
      const Matrix part = {reinterpret_cast<char*>(y), p_.columns, 1, rows, columns};
      write_matrix<F>(kComputeType<F>, part, product.data, lanes, W);
    }
    if (p_.bias == nullptr) return;
    const F* bias = static_cast<const F*>(p_.bias) + column;
    for (int64_t r = 0; r < rows; ++r, y += p_.columns) {
      for (int64_t c = 0; c < columns; ++c) y[c] += bias[c];
    }
  }

  const Linear& p_;
  const int64_t panels_, parts_, rows_;
};

template <class F>
void all(const Linear& p) {
  if (p.rows > kFewRows) return Panels<F>(p).run();
  all_columns<F>(p);
}

}  // namespace

void linear(const Linear& params) {
  if (params.dtype == DType::f64) return all<double>(params);
  return all<float>(params);
}

}  // namespace ssm::SSM_ISA
