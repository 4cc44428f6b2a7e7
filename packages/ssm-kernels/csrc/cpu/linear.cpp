// A linear layer for few rows of x: a step of generation.  It takes as long as reading the weights, once and in order.
// A task is some rows of the weights; lanes are neighbours in them.
#include "linear_params.h"

#include "cpu/operators.h"
#include "cpu/parallel.h"
#include "cpu/vec.h"

namespace ssm::SSM_ISA {
namespace {

constexpr int64_t kTaskBytes = 1 << 16;  // of weights per task: they stay in the cache for the next rows of x
// Rows of the weights and of x in one block: its sums stay in registers, of which there are 32 or 16.
constexpr int kWeightRows = 4;
constexpr int kInputRows = SSM_VECTOR_BYTES == 64 ? 4 : 2;

template <class F>
SSM_INLINE F sum_of_lanes(Vec<F> v) {
  F lanes[kWidth<F>];
  store(lanes, v);
  F sum = 0;
  for (F lane : lanes) sum += lane;
  return sum;
}

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

}  // namespace

void linear(const Linear& params) {
  if (params.dtype == DType::f64) return all_columns<double>(params);
  return all_columns<float>(params);
}

}  // namespace ssm::SSM_ISA
