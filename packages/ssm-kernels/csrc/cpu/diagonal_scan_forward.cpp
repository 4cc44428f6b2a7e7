// Forward pass of the diagonal scan: h[t] = a[t] h[t-1] + u[t].
#include "cpu/diagonal_scan_run.h"
#include "cpu/large_pages.h"
#include "cpu/operators.h"

namespace ssm::SSM_ISA {
namespace {

using namespace diagonal;

template <class F, bool Complex>
class ForwardTask {
 public:
  static constexpr bool kConjugate = false;

  ForwardTask(const DiagonalForward& params, const Panel& panel)
      : params_(params), in_(params.in), work_(in_, panel, in_.reverse, 1), tile_(work_.take_tile()),
        in_place_(work_.whole && has_rows(params.u)) {}

  Workspace<F, Complex>& workspace() { return work_; }
  void begin(const Sequence& s) { work_.read_state(in_.initial_state, s); }
  void end(const Sequence& s) { work_.write_state(params_.final_state, s); }

  void run(const Sequence& s, int64_t first, int64_t last, bool keep) {
    work_.read_constant_a(s);
    if (!keep) work_.begin_product();
    for (int64_t rows; first < last; first += rows) {
      rows = smaller(work_.most_rows, last - first);
      if (in_place_) {
        with_storage<F>(in_.dtype, [&](auto storage) { step_in_place<decltype(storage)>(s, first, rows, keep); });
      } else {
        step_in_tile(s, first, rows, keep);
      }
    }
  }

 private:
  Matrix matrix(const View3& v, const Sequence& s, int64_t first, int64_t rows) const {
    return rows_of<Complex>(v, s, work_.backwards, first, rows, work_.panel);
  }

  template <class S>
  void step_in_place(const Sequence& s, int64_t first, int64_t rows, bool keep) {
    const Rows<S> u = rows_in_place<S, Complex>(matrix(params_.u, s, first, rows));
    const Rows<S> nowhere = {reinterpret_cast<char*>(tile_), 0};
    const Rows<S> h = keep ? rows_in_place<S, Complex>(matrix(params_.h, s, first, rows)) : nowhere;
    work_.template with_a<S>(s, first, rows, [&](auto a) { advance(rows, a, u, h, keep); });
  }

  void step_in_tile(const Sequence& s, int64_t first, int64_t rows, bool keep) {
    read_rows<F, Complex>(in_.dtype, matrix(params_.u, s, first, rows), tile_, work_.row);
    const Rows<ComputeStorage<F>> tile = work_.packed(tile_);
    with_storage<F>(in_.dtype, [&](auto storage) {
      work_.template with_a<decltype(storage)>(s, first, rows, [&](auto a) { advance(rows, a, tile, tile, keep); });
    });
    if (keep) write_rows<F, Complex>(in_.dtype, matrix(params_.h, s, first, rows), tile_, work_.row);
  }

  // state <- a state + u, row by row; h <- the states.
  template <class A, class S>
  SSM_NOINLINE void advance(int64_t rows, Rows<A> a, Rows<S> u, Rows<S> h, bool keep) {
    F* const state = work_.state;
    in_groups<F>(work_.row, [&](auto count, int64_t at) {
      constexpr int N = decltype(count)::value;
      Vec<F> v[N];
      load_group<F, N>(state + at, v);
      for (int64_t r = 0; r < rows; ++r) {
        SSM_UNROLL
        for (int k = 0; k < N; ++k) {
          const int64_t col = at + k * kWidth<F>;
          v[k] = times<F, Complex, false>(a.load(r, col), v[k]) + u.load(r, col);
          h.store(r, col, v[k]);
        }
      }
      store_group<F, N>(state + at, v);
    });
    if (!keep) work_.multiply_up(rows, a);
  }

  const DiagonalForward& params_;
  const DiagonalInputs& in_;
  Workspace<F, Complex> work_;
  F* tile_;
  const bool in_place_;
};

template <class F, bool Complex>
void forward(const DiagonalForward& params) {
  prefer_large_pages(params.h, params.in.batch, params.in.steps, params.in.channels,
                     size_of(params.in.dtype) * (Complex ? 2 : 1));
  const DiagonalInputs& in = params.in;
  const Panels<F, Complex> panels(in, in.sequences().count, has_rows(params.u) && (has_rows(in.a) || in.a_broadcast()));
  run_all(in, panels, false, [&](const Panel& panel) { return ForwardTask<F, Complex>(params, panel); });
}

}  // namespace

void diagonal_scan_forward(const DiagonalForward& params) {
  const bool is_double = params.in.dtype == DType::f64;
  if (params.in.is_complex) return is_double ? forward<double, true>(params) : forward<float, true>(params);
  return is_double ? forward<double, false>(params) : forward<float, false>(params);
}

}  // namespace ssm::SSM_ISA
