// One decode step of the selective scan with real A.
#include "cpu/selective_state_update.h"

#include "cpu/operators.h"

namespace ssm::SSM_ISA {
namespace {

// Lanes are states; the sums over lanes are taken for a whole vector of channels at once.  Sizes and strides are copied
// to local variables first: a store through char* would make the compiler read them again.
template <class F, class S, bool OneDecay>
SSM_INLINE Vec<F> states_in_lanes(const UpdateTask<F>& task, int64_t block, int64_t lanes) {
  constexpr int64_t W = kWidth<F>;
  using PlainA = Storage<kComputeType<F>>;
  const UpdateView state = task.in.state, A = task.in.A;
  const bool neighbours = state.stride_n == 1 && (OneDecay || A.stride_n == 1);
  const int64_t states = task.states, full = neighbours ? states / W * W : 0;
  const VecInt<F> rest = first_lanes<F>(states % W);
  const F *B = task.B[0], *C = task.C[0];
  char* h_row = task.template at<S>(state, block);
  const char* A_row = task.template at<PlainA>(A, block);
  alignas(64) F rates[W], drives[W];
  Vec<F> rate = load<F>(task.dt + block) * MathConstants<F>::log2e;
  if constexpr (OneDecay) rate = exp2<F>(rate * load_lanes<PlainA>(A_row, A.stride_p, lanes));
  store(rates, rate);
  store(drives, load<F>(task.drive + block));
  Vec<F> sums[W];
  for (int64_t i = 0; i < W; ++i) sums[i] = Vec<F>{};
  for (int64_t i = 0; i < W && i < lanes; ++i) {
    const Vec<F> rate = broadcast<F>(rates[i]), drive = broadcast<F>(drives[i]);
    Vec<F> sum = {};
    const auto advance = [&](Vec<F> h, Vec<F> A_n, int64_t n) {
      const Vec<F> decay = OneDecay ? rate : exp2<F>(rate * A_n);
      return decay * h + drive * load<F>(B + n);
    };
    int64_t n = 0;
    for (; n < full; n += W) {
      char* at = h_row + n * S::bytes;
      const Vec<F> h = advance(S::load(at), OneDecay ? Vec<F>{} : PlainA::load(A_row + n * PlainA::bytes), n);
      S::store(at, h);
      sum += h * load<F>(C + n);
    }
    if (kIsPlain<S> && neighbours && n < states) {
      char* at = h_row + n * S::bytes;
      const Vec<F> A_n = OneDecay ? Vec<F>{} : load_chosen<F>(A_row + n * PlainA::bytes, rest);
      const Vec<F> h = advance(load_chosen<F>(at, rest), A_n, n);
      store_chosen<F>(at, rest, h);
      sum += choose<F>(h * load<F>(C + n), rest);
      n = states;
    }
    for (; n < states; n += W) {  // any strides and types
      const int64_t left = states - n;
      char* at = h_row + n * state.stride_n * S::bytes;
      const char* A_at = A_row + n * A.stride_n * PlainA::bytes;
      const Vec<F> h = advance(load_lanes<S>(at, state.stride_n, left), load_lanes<PlainA>(A_at, A.stride_n, left), n);
      store_lanes<S>(at, state.stride_n, left, h);
      const Vec<F> term = h * load<F>(C + n);
      sum += left < W ? choose<F>(term, rest) : term;
    }
    sums[i] = sum;
    h_row += state.stride_p * S::bytes;
    A_row += A.stride_p * PlainA::bytes;
  }
  return sum_rows<F>(sums);
}

// Lanes are channels: for states whose channels lie next to each other.
template <class F, class S>
SSM_INLINE Vec<F> channels_in_lanes(const UpdateTask<F>& task, int64_t block, int64_t lanes) {
  const UpdateView state = task.in.state, A = task.in.A;
  using PlainA = Storage<kComputeType<F>>;
  const Vec<F> rate = load<F>(task.dt + block) * MathConstants<F>::log2e, drive = load<F>(task.drive + block);
  char* h_at = task.template at<S>(state, block);
  const char* A_at = task.template at<PlainA>(A, block);
  Vec<F> sum = {};
  for (int64_t n = 0; n < task.states; ++n) {
    const Vec<F> decay = exp2<F>(rate * load_lanes<PlainA>(A_at, A.stride_p, lanes));
    const Vec<F> h = decay * load_lanes<S>(h_at, state.stride_p, lanes) + drive * task.B[0][n];
    store_lanes<S>(h_at, state.stride_p, lanes, h);
    sum += h * task.C[0][n];
    h_at += state.stride_n * S::bytes;
    A_at += A.stride_n * PlainA::bytes;
  }
  return sum;
}

struct RealUpdate {
  template <class F>
  static SSM_INLINE void advance(UpdateTask<F>& task, int64_t block) {
    const UpdateView& state = task.in.state;
    const int64_t lanes = task.count - block;
    const bool channels_first = state.stride_p == 1 && (state.stride_n != 1 || task.in.states == 1);
    with_storage<F>(state.dtype, [&](auto storage) {
      using S = decltype(storage);
      Vec<F> sum;
      if (channels_first) {
        sum = channels_in_lanes<F, S>(task, block, lanes);
      } else if (task.in.A.stride_n == 0) {  // one decay per channel, as in Mamba-2
        sum = states_in_lanes<F, S, true>(task, block, lanes);
      } else {
        sum = states_in_lanes<F, S, false>(task, block, lanes);
      }
      store(task.y + block, load<F>(task.y + block) + sum);
    });
  }
};

}  // namespace

void selective_state_update(const StateUpdate& params) {
  if (params.x.dtype == DType::f64) return update<double, RealUpdate>(params);
  return update<float, RealUpdate>(params);
}

}  // namespace ssm::SSM_ISA
