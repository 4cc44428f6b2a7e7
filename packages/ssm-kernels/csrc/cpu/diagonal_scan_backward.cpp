// Backward pass of the diagonal scan, with g the gradient of h[t] and c what later steps ask of it:
//   lambda = g + c;  grad u[t] = lambda;  grad a[t] = lambda conj(h[t-1]);  c <- conj(a[t]) lambda for step t-1.
// c begins as the gradient of the final state and ends as that of the initial state.
#include "cpu/diagonal_scan_run.h"
#include "cpu/diagonal_scan_sums.h"
#include "cpu/large_pages.h"
#include "cpu/operators.h"

namespace ssm::SSM_ISA {
namespace {

using namespace diagonal;

// What becomes of lambda conj(h[t-1]) while lambda is computed: it is left for later, written, or added up.
enum class GradA { later, write, sum };

template <class F, bool Complex>
class BackwardTask {
 public:
  static constexpr bool kConjugate = true;

  BackwardTask(const DiagonalBackward& params, const SumsOfA<F, Complex>& sums, const Panel& panel)
      : params_(params), in_(params.in), sums_(sums), work_(in_, panel, !in_.reverse, 2), tile_(work_.take_tile()),
        before_(work_.take_tile()), in_place_(work_.whole && has_rows(params.grad_h) && has_rows(params.h)) {
    fused_ = params.grad_a == nullptr ? GradA::later : in_.a_per_step ? GradA::write : GradA::sum;
    if (fused_ == GradA::write && (in_.a_broadcast() || !work_.a_in_place)) in_place_ = false;
  }

  Workspace<F, Complex>& workspace() { return work_; }
  void begin(const Sequence& s) { work_.read_state(params_.grad_final_state, s); }
  void end(const Sequence& s) { work_.write_state(params_.grad_initial_state, s); }

  void run(const Sequence& s, int64_t first, int64_t last, bool keep) {
    work_.read_constant_a(s);
    if (!keep) work_.begin_product();
    sum_ = sums_.over_time(s, first / kChunk, work_.panel);
    const int64_t last_in_place = !in_place_ ? first : smaller(last, s.steps - 1);
    for (int64_t rows; first < last; first += rows) {
      if (first < last_in_place) {
        rows = smaller(work_.most_rows, last_in_place - first);
        with_storage<F>(in_.dtype, [&](auto storage) { step_in_place<decltype(storage)>(s, first, rows, keep); });
      } else {  // also the row that begins with the initial state
        rows = smaller(work_.most_rows, last - first);
        step_in_tile(s, first, rows, keep);
      }
    }
  }

 private:
  Matrix matrix(const View3& v, const Sequence& s, int64_t first, int64_t rows) const {
    return rows_of<Complex>(v, s, work_.backwards, first, rows, work_.panel);
  }

  // A gradient of a with every step and channel.
  View3 grad_a_view() const {
    const int64_t l = in_.steps, d = in_.channels;
    return {static_cast<char*>(params_.grad_a), in_.a_per_batch ? l * d : 0, d, 1, in_.a.dtype};
  }

  template <class S>
  void step_in_place(const Sequence& s, int64_t first, int64_t rows, bool keep) {
    const auto in_place = [&](const View3& v, int64_t row) {
      return rows_in_place<S, Complex>(matrix(v, s, row, rows));
    };
    const Rows<S> nowhere = {reinterpret_cast<char*>(tile_), 0};
    const Rows<S> g = in_place(params_.grad_h, first);
    const Rows<S> lambda = keep && params_.grad_u.data != nullptr ? in_place(params_.grad_u, first) : nowhere;
    work_.template with_a<S>(s, first, rows, [&](auto a) {
      if (!keep || fused_ == GradA::later) {
        advance<GradA::later>(rows, a, g, lambda, g, a);
        if (!keep) work_.multiply_up(rows, a);
      } else if (fused_ == GradA::write) {
        const decltype(a) grad_a = rows_like(a, matrix(grad_a_view(), s, first, rows));
        advance<GradA::write>(rows, a, g, lambda, in_place(params_.h, first + 1), grad_a);
      } else {
        advance<GradA::sum>(rows, a, g, lambda, in_place(params_.h, first + 1), a);
      }
    });
  }

  template <class A>
  static Rows<A> rows_like(Rows<A>, const Matrix& m) {
    return rows_in_place<A, Complex>(m);
  }

  void step_in_tile(const Sequence& s, int64_t first, int64_t rows, bool keep) {
    read_rows<F, Complex>(in_.dtype, matrix(params_.grad_h, s, first, rows), tile_, work_.row);
    const Rows<ComputeStorage<F>> tile = work_.packed(tile_);
    with_storage<F>(in_.dtype, [&](auto storage) {
      work_.template with_a<decltype(storage)>(s, first, rows, [&](auto a) {
        advance<GradA::later>(rows, a, tile, tile, tile, a);
        if (!keep) work_.multiply_up(rows, a);
      });
    });
    if (!keep) return;
    if (params_.grad_u.data != nullptr)
      write_rows<F, Complex>(in_.dtype, matrix(params_.grad_u, s, first, rows), tile_, work_.row);
    if (params_.grad_a != nullptr) gradient_of_a(s, first, rows);
  }

  // lambda <- g + c and c <- conj(a) lambda, row by row.  before: the states that the rows began with.
  template <GradA Fused, class A, class S>
  SSM_NOINLINE void advance(int64_t rows, Rows<A> a, Rows<S> g, Rows<S> lambda, Rows<S> before,
                                         Rows<A> grad_a) {
    F *const state = work_.state, *const sum = sum_;
    in_groups<F>(work_.row, [&](auto count, int64_t at) {
      constexpr int N = decltype(count)::value;
      Vec<F> c[N], total[N];
      load_group<F, N>(state + at, c);
      if constexpr (Fused == GradA::sum) load_group<F, N>(sum + at, total);
      for (int64_t r = 0; r < rows; ++r) {
        SSM_UNROLL
        for (int k = 0; k < N; ++k) {
          const int64_t col = at + k * kWidth<F>;
          c[k] += g.load(r, col);
          lambda.store(r, col, c[k]);
          if constexpr (Fused == GradA::write)
            grad_a.store(r, col, times<F, Complex, true>(before.load(r, col), c[k]));
          if constexpr (Fused == GradA::sum) total[k] += times<F, Complex, true>(before.load(r, col), c[k]);
          c[k] = times<F, Complex, true>(a.load(r, col), c[k]);
        }
      }
      store_group<F, N>(state + at, c);
      if constexpr (Fused == GradA::sum) store_group<F, N>(sum + at, total);
    });
  }

  // From the lambda in tile_.
  void gradient_of_a(const Sequence& s, int64_t first, int64_t rows) {
    read_states_before(s, first, rows);
    for (int64_t at = 0; at < rows * work_.row; at += kWidth<F>)
      store(before_ + at, times<F, Complex, true>(load<F>(before_ + at), load<F>(tile_ + at)));
    if (!in_.a_per_step) return sum_over_time(rows);
    if (!in_.a_per_channel) return sum_over_channels(s, first, rows);
    const DType dtype = in_.a.dtype;
    const Matrix m = matrix(grad_a_view(), s, first, rows);
    if (!in_.a_per_batch) {  // add to what the sequences so far have left
      read_rows<F, Complex>(dtype, m, tile_, work_.row);
      for (int64_t at = 0; at < rows * work_.row; at += kWidth<F>)
        store(before_ + at, load<F>(tile_ + at) + load<F>(before_ + at));
    }
    write_rows<F, Complex>(dtype, m, before_, work_.row);
  }

  // before_ <- the states these rows began with: those of the rows that follow, after the last the initial state.
  void read_states_before(const Sequence& s, int64_t first, int64_t rows) {
    const int64_t inside = smaller(rows, s.steps - 1 - first);
    if (inside > 0) read_rows<F, Complex>(in_.dtype, matrix(params_.h, s, first + 1, inside), before_, work_.row);
    if (inside == rows) return;
    F* last = before_ + inside * work_.row;
    std::memset(last, 0, static_cast<size_t>(work_.row) * sizeof(F));
    if (const void* state = in_.initial_state)
      read_rows<F, Complex>(kComputeType<F>, state_row<F, Complex>(in_, state, s, work_.panel), last, work_.row);
  }

  void sum_over_time(int64_t rows) {
    for (int64_t r = 0; r < rows; ++r)
      for (int64_t at = 0; at < work_.row; at += kWidth<F>)
        store(sum_ + at, load<F>(sum_ + at) + load<F>(before_ + r * work_.row + at));
  }

  void sum_over_channels(const Sequence& s, int64_t first, int64_t rows) const {
    for (int64_t r = 0; r < rows; ++r) {
      Vec<F> total = {};
      for (int64_t at = 0; at < work_.row; at += kWidth<F>) total += load<F>(before_ + r * work_.row + at);
      F lanes[kWidth<F>];
      store(lanes, total);
      const int64_t step = s.first + (work_.backwards ? s.steps - 1 - first - r : first + r);
      F* sum = sums_.over_channels(s, step, work_.panel);
      for (int64_t lane = 0; lane < kWidth<F>; ++lane) sum[lane % kParts<Complex>] += lanes[lane];
    }
  }

  const DiagonalBackward& params_;
  const DiagonalInputs& in_;
  const SumsOfA<F, Complex>& sums_;
  Workspace<F, Complex> work_;
  F *tile_, *before_;
  bool in_place_;
  GradA fused_;
  F* sum_ = nullptr;  // of the chunk that runs, for an a that is constant in time
};

template <class F, bool Complex>
void backward(const DiagonalBackward& params) {
  prefer_large_pages(params.grad_u, params.in.batch, params.in.steps, params.in.channels,
                     size_of(params.in.dtype) * (Complex ? 2 : 1));
  const DiagonalInputs& in = params.in;
  const bool shared = SumsOfA<F, Complex>::shared_by_sequences(params);
  const bool rows = has_rows(params.grad_h) && has_rows(params.h) && (has_rows(in.a) || in.a_broadcast());
  const Panels<F, Complex> panels(in, shared ? 1 : in.sequences().count, rows);
  const SumsOfA<F, Complex> sums(params, panels);
  run_all(in, panels, shared, [&](const Panel& panel) { return BackwardTask<F, Complex>(params, sums, panel); });
  sums.finish();
}

}  // namespace

void diagonal_scan_backward(const DiagonalBackward& params) {
  const bool is_double = params.in.dtype == DType::f64;
  if (params.in.is_complex) return is_double ? backward<double, true>(params) : backward<float, true>(params);
  return is_double ? backward<double, false>(params) : backward<float, false>(params);
}

}  // namespace ssm::SSM_ISA
