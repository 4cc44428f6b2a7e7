// Backward pass of the diagonal scan, with g the gradient of h[t] and c what later steps ask of it:
//   lambda = g + c;  grad u[t] = lambda;  grad a[t] = lambda conj(h[t-1]);  c <- conj(a[t]) lambda for step t-1.
// c begins as the gradient of the final state and ends as that of the initial state.
#include "cpu/diagonal_scan_run.h"
#include "cpu/diagonal_scan_sums.h"
#include "cpu/operators.h"

namespace ssm::SSM_ISA {
namespace {

using namespace diagonal;

template <class F, bool Complex>
class BackwardTask {
 public:
  static constexpr bool kConjugate = true;

  BackwardTask(const DiagonalBackward& params, const SumsOfA<F, Complex>& sums, const Panel& panel, int64_t row)
      : params_(params), sums_(sums), work_(params.in, panel, row, !params.in.reverse, 2), lambda_(work_.take_tile()),
        before_(work_.take_tile()) {}

  Workspace<F, Complex>& workspace() { return work_; }
  void begin(const Sequence& s) { work_.read_state(params_.grad_final_state, s); }
  void end(const Sequence& s) { work_.write_state(params_.grad_initial_state, s); }

  void run(const Sequence& s, int64_t first, int64_t last, bool keep) {
    const int64_t chunk = first / kChunk;
    const DType dtype = params_.in.dtype;
    if (work_.a_stride == 0) {
      work_.read_a(s, first, 1);
      if (!keep) work_.raise_to_chunk();
    }
    for (; first < last; first += work_.most_rows) {
      const int64_t rows = smaller(work_.most_rows, last - first);
      if (work_.a_stride != 0) work_.read_a(s, first, rows);
      read_rows<F, Complex>(dtype, rows_of_tensor(params_.grad_h, s, first, rows), lambda_, work_.row);
      advance(rows);
      if (!keep) {
        work_.multiply_up(rows);
        continue;
      }
      if (params_.grad_u.data != nullptr)
        write_rows<F, Complex>(dtype, rows_of_tensor(params_.grad_u, s, first, rows), lambda_, work_.row);
      if (params_.grad_a != nullptr) gradient_of_a(s, chunk, first, rows);
    }
  }

 private:
  Matrix rows_of_tensor(const View3& v, const Sequence& s, int64_t first, int64_t rows) const {
    return rows_of<Complex>(v, params_.in.dtype, s, work_.backwards, first, rows, work_.panel);
  }

  // lambda <- g + c and c <- conj(a) lambda, row by row; lambda holds g before.
  void advance(int64_t rows) {
    in_groups<F>(work_.row, [&](auto vectors, int64_t at) {
      constexpr int N = decltype(vectors)::value;
      Vec<F> c[N];
      SSM_UNROLL
      for (int k = 0; k < N; ++k) c[k] = load<F>(work_.state + at + k * kWidth<F>);
      const F* a = work_.a + at;
      F* lambda = lambda_ + at;
      for (int64_t r = 0; r < rows; ++r, a += work_.a_stride, lambda += work_.row) {
        SSM_UNROLL
        for (int k = 0; k < N; ++k) {
          c[k] += load<F>(lambda + k * kWidth<F>);
          store(lambda + k * kWidth<F>, c[k]);
          c[k] = times<F, Complex, true>(load<F>(a + k * kWidth<F>), c[k]);
        }
      }
      SSM_UNROLL
      for (int k = 0; k < N; ++k) store(work_.state + at + k * kWidth<F>, c[k]);
    });
  }

  void gradient_of_a(const Sequence& s, int64_t chunk, int64_t first, int64_t rows) {
    read_states_before(s, first, rows);
    if (F* sum = sums_.over_time(s, chunk, work_.panel)) return sum_over_time(rows, sum);
    for (int64_t at = 0; at < rows * work_.row; at += kWidth<F>)
      store(before_ + at, times<F, Complex, true>(load<F>(before_ + at), load<F>(lambda_ + at)));
    if (!params_.in.a_per_channel) return sum_over_channels(s, first, rows);
    const Matrix m = rows_of<Complex>(grad_a_view(), work_.a_dtype(), s, work_.backwards, first, rows, work_.panel);
    if (!params_.in.a_per_batch) add_gradient(m, rows);
    write_rows<F, Complex>(work_.a_dtype(), m, before_, work_.row);
  }

  // before <- the states these rows began with: those of the rows that follow, after the last the initial state.
  void read_states_before(const Sequence& s, int64_t first, int64_t rows) {
    const int64_t inside = smaller(rows, s.steps - 1 - first);
    if (inside > 0)
      read_rows<F, Complex>(params_.in.dtype, rows_of_tensor(params_.h, s, first + 1, inside), before_, work_.row);
    if (inside == rows) return;
    F* last = before_ + inside * work_.row;
    __builtin_memset(last, 0, static_cast<size_t>(work_.row) * sizeof(F));
    if (const void* state = params_.in.initial_state)
      read_rows<F, Complex>(kComputeType<F>, state_row<F, Complex>(params_.in, state, s, work_.panel), last, work_.row);
  }

  void sum_over_time(int64_t rows, F* sum) const {
    in_groups<F>(work_.row, [&](auto vectors, int64_t at) {
      constexpr int N = decltype(vectors)::value;
      Vec<F> total[N];
      SSM_UNROLL
      for (int k = 0; k < N; ++k) total[k] = load<F>(sum + at + k * kWidth<F>);
      const F *before = before_ + at, *lambda = lambda_ + at;
      for (int64_t r = 0; r < rows; ++r, before += work_.row, lambda += work_.row)
        SSM_UNROLL
        for (int k = 0; k < N; ++k)
          total[k] += times<F, Complex, true>(load<F>(before + k * kWidth<F>), load<F>(lambda + k * kWidth<F>));
      SSM_UNROLL
      for (int k = 0; k < N; ++k) store(sum + at + k * kWidth<F>, total[k]);
    });
  }

  void sum_over_channels(const Sequence& s, int64_t first, int64_t rows) const {
    for (int64_t r = 0; r < rows; ++r) {
      Vec<F> total = {};
      for (int64_t at = 0; at < work_.row; at += kWidth<F>) total += load<F>(before_ + r * work_.row + at);
      F lanes[kWidth<F>];
      store(lanes, total);
      const int64_t step = s.begin + (work_.backwards ? s.steps - 1 - first - r : first + r);
      F* sum = sums_.over_channels(s, step, work_.panel);
      for (int64_t lane = 0; lane < kWidth<F>; ++lane) sum[lane % kParts<Complex>] += lanes[lane];
    }
  }

  // before <- before + what the sequences so far have left in the gradient.
  void add_gradient(const Matrix& m, int64_t rows) {
    F* so_far = work_.a;  // read anew for the next rows
    read_rows<F, Complex>(work_.a_dtype(), m, so_far, work_.row);
    for (int64_t at = 0; at < rows * work_.row; at += kWidth<F>)
      store(before_ + at, load<F>(so_far + at) + load<F>(before_ + at));
  }

  // A gradient with every step and channel.
  View3 grad_a_view() const {
    const int64_t l = params_.in.steps, d = params_.in.channels;
    return {static_cast<char*>(params_.grad_a), params_.in.a_per_batch ? l * d : 0, d, 1};
  }

  const DiagonalBackward& params_;
  const SumsOfA<F, Complex>& sums_;
  Workspace<F, Complex> work_;
  F *lambda_, *before_;
};

template <class F, bool Complex>
void backward(const DiagonalBackward& params) {
  const bool shared = SumsOfA<F, Complex>::shared_by_sequences(params);
  const Panels<F, Complex> panels(params.in, shared ? 1 : params.in.sequences);
  const SumsOfA<F, Complex> sums(params, panels);
  run_all(params.in, panels, shared,
          [&](const Panel& panel) { return BackwardTask<F, Complex>(params, sums, panel, panels.row); });
  sums.finish();
}

}  // namespace

void diagonal_scan_backward(const DiagonalBackward& params) {
  const bool is_double = params.in.dtype == DType::f64;
  if (params.in.is_complex) return is_double ? backward<double, true>(params) : backward<float, true>(params);
  return is_double ? backward<double, false>(params) : backward<float, false>(params);
}

}  // namespace ssm::SSM_ISA
