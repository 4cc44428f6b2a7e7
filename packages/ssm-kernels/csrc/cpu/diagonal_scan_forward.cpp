// Forward pass of the diagonal scan: h[t] = a[t] h[t-1] + u[t].
#include "cpu/diagonal_scan_run.h"
#include "cpu/operators.h"

namespace ssm::SSM_ISA {
namespace {

using namespace diagonal;

template <class F, bool Complex>
class ForwardTask {
 public:
  static constexpr bool kConjugate = false;

  ForwardTask(const DiagonalForward& params, const Panel& panel, int64_t row)
      : params_(params), work_(params.in, panel, row, params.in.reverse, 1), u_(work_.take_tile()) {}

  Workspace<F, Complex>& workspace() { return work_; }
  void begin(const Sequence& s) { work_.read_state(params_.in.initial_state, s); }
  void end(const Sequence& s) { work_.write_state(params_.final_state, s); }

  void run(const Sequence& s, int64_t first, int64_t last, bool keep) {
    if (work_.a_stride == 0) {
      work_.read_a(s, first, 1);
      if (!keep) work_.raise_to_chunk();
    }
    for (; first < last; first += work_.most_rows) {
      const int64_t rows = smaller(work_.most_rows, last - first);
      if (work_.a_stride != 0) work_.read_a(s, first, rows);
      read_rows<F, Complex>(params_.in.dtype, rows_of_tensor(params_.u, s, first, rows), u_, work_.row);
      advance(rows);
      if (keep) {
        write_rows<F, Complex>(params_.in.dtype, rows_of_tensor(params_.h, s, first, rows), u_, work_.row);
      } else {
        work_.multiply_up(rows);
      }
    }
  }

 private:
  Matrix rows_of_tensor(const View3& v, const Sequence& s, int64_t first, int64_t rows) const {
    return rows_of<Complex>(v, params_.in.dtype, s, work_.backwards, first, rows, work_.panel);
  }

  // state <- a state + u, row by row; u <- the states.
  void advance(int64_t rows) {
    in_groups<F>(work_.row, [&](auto vectors, int64_t at) {
      constexpr int N = decltype(vectors)::value;
      Vec<F> h[N];
      SSM_UNROLL
      for (int k = 0; k < N; ++k) h[k] = load<F>(work_.state + at + k * kWidth<F>);
      const F* a = work_.a + at;
      F* u = u_ + at;
      for (int64_t r = 0; r < rows; ++r, a += work_.a_stride, u += work_.row) {
        SSM_UNROLL
        for (int k = 0; k < N; ++k) {
          h[k] = times<F, Complex, false>(load<F>(a + k * kWidth<F>), h[k]) + load<F>(u + k * kWidth<F>);
          store(u + k * kWidth<F>, h[k]);
        }
      }
      SSM_UNROLL
      for (int k = 0; k < N; ++k) store(work_.state + at + k * kWidth<F>, h[k]);
    });
  }

  const DiagonalForward& params_;
  Workspace<F, Complex> work_;
  F* u_;
};

template <class F, bool Complex>
void forward(const DiagonalForward& params) {
  const Panels<F, Complex> panels(params.in, params.in.sequences);
  run_all(params.in, panels, false,
          [&](const Panel& panel) { return ForwardTask<F, Complex>(params, panel, panels.row); });
}

}  // namespace

void diagonal_scan_forward(const DiagonalForward& params) {
  const bool is_double = params.in.dtype == DType::f64;
  if (params.in.is_complex) return is_double ? forward<double, true>(params) : forward<float, true>(params);
  return is_double ? forward<double, false>(params) : forward<float, false>(params);
}

}  // namespace ssm::SSM_ISA
