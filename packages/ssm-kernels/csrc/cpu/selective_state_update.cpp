// One decode step of the selective scan with real A.
#include "cpu/selective_state_update.h"

#include "cpu/operators.h"

namespace ssm::SSM_ISA {
namespace {

// Lanes are states, which lie next to each other; the sums over lanes are taken for a whole vector of channels at once.
template <class F, class S, bool OneDecay>
SSM_INLINE Vec<F> states_in_lanes(const UpdateTask<F>& task, int64_t block, int64_t lanes) {
  constexpr int64_t W = kWidth<F>;
  const UpdateView &state = task.in.state, &A = task.in.A;
  using PlainA = Storage<kComputeType<F>>;
  alignas(64) F rates[W];  // dt log2(e), or the decays themselves
  Vec<F> rate = load<F>(task.dt + block) * MathConstants<F>::log2e;
  if constexpr (OneDecay) rate = exp2<F>(rate * load_lanes<PlainA>(task.template at<PlainA>(A, block), A.stride_p, lanes));
  store(rates, rate);
  Vec<F> sums[W];
  for (int64_t i = 0; i < W; ++i) {
    sums[i] = Vec<F>{};
    if (i >= lanes) continue;
    char* h_row = task.template at<S>(state, block + i);
    const char* A_row = task.template at<PlainA>(A, block + i);
    const F rate = rates[i], drive = task.drive[block + i];
    for (int64_t n = 0; n < task.states; n += W) {
      const int64_t left = task.states - n;
      char* at = h_row + n * state.stride_n * S::bytes;
      Vec<F> decay = broadcast<F>(rate);
      if constexpr (!OneDecay) {
        const char* A_at = A_row + n * A.stride_n * PlainA::bytes;
        decay = exp2<F>(decay * load_lanes<PlainA>(A_at, A.stride_n, left));
      }
      const Vec<F> h = decay * load_lanes<S>(at, state.stride_n, left) + drive * load<F>(task.B[0] + n);
      store_lanes<S>(at, state.stride_n, left, h);
      const Vec<F> term = h * load<F>(task.C[0] + n);
      sums[i] += left >= W ? term : only_lanes<F>(term, left);
    }
  }
  return sum_rows<F>(sums);
}

// Lanes are channels: for states that lie so, and for fewer states than would fill a vector.
template <class F, class S>
SSM_INLINE Vec<F> channels_in_lanes(const UpdateTask<F>& task, int64_t block, int64_t lanes) {
  const UpdateView &state = task.in.state, &A = task.in.A;
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
    const bool few_states = 2 * task.states <= kWidth<F>, channels_first = state.stride_p == 1 && state.stride_n != 1;
    with_storage<F>(state.dtype, [&](auto storage) {
      using S = decltype(storage);
      Vec<F> sum;
      if (few_states || channels_first) {
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
