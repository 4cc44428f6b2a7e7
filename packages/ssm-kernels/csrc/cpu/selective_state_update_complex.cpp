// One decode step of the selective scan with complex A.  Lanes are states; real and imaginary parts are separate vectors.
#include <math.h>  // the functions of double: overloads of <cmath> may stay out of line (operators.h)

#include "cpu/operators.h"
#include "cpu/selective_state_update.h"
#include "cpu/vec_trig.h"

namespace ssm::SSM_ISA {
namespace {

template <class F>
struct Complex {
  Vec<F> re, im;
};

// exp(dt A), the angles beyond the reach of near_sin_cos lane by lane.
template <class F>
SSM_INLINE Complex<F> complex_decay(F dt, Vec<F> A_re, Vec<F> A_im) {
  constexpr int64_t W = kWidth<F>;
  const Vec<F> size = exp2<F>(A_re * (dt * MathConstants<F>::log2e)), angle = A_im * dt;
  const SinCos<F> near = near_sin_cos<F>(angle);
  Complex<F> decay = {size * near.cos, size * near.sin};
  F angles[W];
  store(angles, angle);
  for (int64_t i = 0; i < W; ++i) {
    const double exact = static_cast<double>(angles[i]);
    if (SSM_UNLIKELY(::fabs(exact) > TrigConstants<F>::far_angle)) {
      decay.re[i] = size[i] * static_cast<F>(::cos(exact));
      decay.im[i] = size[i] * static_cast<F>(::sin(exact));
    }
  }
  return decay;
}

struct ComplexUpdate {
  // y takes up 2 Re(C h): the other state of each conjugate pair is not stored.
  template <class F>
  static SSM_INLINE void advance(UpdateTask<F>& task, int64_t block) {
    constexpr int64_t W = kWidth<F>;
    using S = Storage<kComputeType<F>>;
    const UpdateView state = task.in.state, A = task.in.A;
    const VecInt<F> rest = first_lanes<F>(task.states % W);
    Vec<F> halves[W];
    for (int64_t i = 0; i < W; ++i) {
      halves[i] = Vec<F>{};
      if (i >= task.count - block) continue;
      char* h_row = task.template at<S>(state, block + i);
      const char* A_row = task.template at<S>(A, block + i);
      const F dt = task.dt[block + i], drive = task.drive[block + i];
      for (int64_t n = 0; n < task.states; n += W) {
        const int64_t left = task.states - n;
        char* at = h_row + n * state.stride_n * S::bytes;
        const char* A_at = A_row + n * A.stride_n * S::bytes;
        const Complex<F> a = complex_decay<F>(dt, load_lanes<S>(A_at, A.stride_n, left),
                                              load_lanes<S>(A_at + S::bytes, A.stride_n, left));
        const Vec<F> re = load_lanes<S>(at, state.stride_n, left);
        const Vec<F> im = load_lanes<S>(at + S::bytes, state.stride_n, left);
        const Vec<F> next_re = a.re * re - a.im * im + drive * load<F>(task.B[0] + n);
        const Vec<F> next_im = a.re * im + a.im * re + drive * load<F>(task.B[1] + n);
        store_lanes<S>(at, state.stride_n, left, next_re);
        store_lanes<S>(at + S::bytes, state.stride_n, left, next_im);
        const Vec<F> term = next_re * load<F>(task.C[0] + n) - next_im * load<F>(task.C[1] + n);
        halves[i] += left < W ? choose<F>(term, rest) : term;
      }
    }
    store(task.y + block, load<F>(task.y + block) + F(2) * sum_rows<F>(halves));
  }
};

}  // namespace

void selective_state_update_complex(const StateUpdate& params) {
  if (params.x.dtype == DType::f64) return update<double, ComplexUpdate>(params);
  return update<float, ComplexUpdate>(params);
}

}  // namespace ssm::SSM_ISA
