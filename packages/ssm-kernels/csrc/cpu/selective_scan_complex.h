// What the forward and the backward pass of the selective scan with complex A share.  The axis n counts numbers, two per
// state: (re 0, im 0, re 1, im 1, ...).  Real and imaginary parts are separate vectors with channels in their lanes, so
// everything that only moves or adds numbers is the code of the real scan.
#pragma once

#include <math.h>  // the functions of double: overloads of <cmath> may stay out of line (operators.h)

#include "cpu/selective_scan.h"
#include "cpu/vec_trig.h"

namespace ssm::SSM_ISA {

// B or C of Coefficient<F, Variable>, for state number `state`: variable (steps, n) with the real parts of a row first,
// constant (n, lanes).
template <class F, bool Variable>
struct ComplexCoefficient {
  const F* data;
  int64_t numbers;  // n

  // For the numbers from n on; at_n is where those of the block begin in a constant's (blocks, n, lanes).
  static SSM_INLINE ComplexCoefficient from(const ScanInputs& in, const F* data, int64_t n, int64_t at_n) {
    return {data + (Variable ? n / 2 : at_n), in.states};
  }

  SSM_INLINE auto re(int64_t step, int64_t state) const {
    if constexpr (Variable) {
      return data[step * numbers + state];
    } else {
      return load<F>(data + 2 * state * kWidth<F>);
    }
  }

  SSM_INLINE auto im(int64_t step, int64_t state) const {
    if constexpr (Variable) {
      return data[step * numbers + numbers / 2 + state];
    } else {
      return load<F>(data + (2 * state + 1) * kWidth<F>);
    }
  }
};

template <class F>
SSM_INLINE Vec<F> magnitude(Vec<F> x) {
  const Vec<F> zero = {};
  return select(x < zero, -x, x);
}

template <class F>
SSM_INLINE Vec<F> larger(Vec<F> a, Vec<F> b) {
  return select(a > b, a, b);
}

// Computes again, lane by lane, the decays whose angle is beyond the reach of near_sin_cos.  Arguments as below; a lane's
// result depends on nothing but that lane.
template <class F>
SSM_NOINLINE void replace_far_decays(int64_t rows, int states, const F* deltas, const F* rate, F* decays) {
  constexpr int64_t W = kWidth<F>;
  for (int64_t t = 0; t < rows; ++t) {
    for (int n = 0; n < states; ++n) {
      const Vec<F> delta = load<F>(deltas + t * W);
      F angles[W], sizes[W];
      store(angles, delta * load<F>(rate + (2 * n + 1) * W));
      store(sizes, exp2<F>(delta * load<F>(rate + 2 * n * W)));
      F* decay = decays + 2 * (t * states + n) * W;
      for (int64_t lane = 0; lane < W; ++lane) {
        if (::fabs(static_cast<double>(angles[lane])) <= TrigConstants<F>::far_angle) continue;
        decay[lane] = sizes[lane] * static_cast<F>(::cos(static_cast<double>(angles[lane])));
        decay[W + lane] = sizes[lane] * static_cast<F>(::sin(static_cast<double>(angles[lane])));
      }
    }
  }
}

// decays (rows, States, re and im, lanes) <- exp(delta A).  deltas: (rows, lanes); rate: (States, re and im, lanes), the
// real part of A times log2(e) and the imaginary part.
template <class F, int States>
SSM_INLINE void compute_decays(int64_t rows, const F* deltas, const F* rate, F* decays) {
  constexpr int64_t W = kWidth<F>;
  Vec<F> largest = {};
  for (int64_t t = 0; t < rows; ++t) {
    const Vec<F> delta = load<F>(deltas + t * W);
    largest = larger<F>(magnitude<F>(delta), largest);  // skips NaN, of which every sine is NaN
    SSM_UNROLL
    for (int n = 0; n < States; ++n) {
      const Vec<F> size = exp2<F>(delta * load<F>(rate + 2 * n * W));
      const SinCos<F> angle = near_sin_cos<F>(delta * load<F>(rate + (2 * n + 1) * W));
      store(decays + 2 * (t * States + n) * W, size * angle.cos);
      store(decays + (2 * (t * States + n) + 1) * W, size * angle.sin);
    }
  }
  Vec<F> farthest = {};
  SSM_UNROLL
  for (int n = 0; n < States; ++n)
    farthest = larger<F>(magnitude<F>(load<F>(rate + (2 * n + 1) * W)) * largest, farthest);
  F lanes[W];
  store(lanes, farthest);
  bool far = false;
  for (int64_t lane = 0; lane < W; ++lane) far |= lanes[lane] > TrigConstants<F>::far_angle;
  if (SSM_UNLIKELY(far)) replace_far_decays<F>(rows, States, deltas, rate, decays);
}

}  // namespace ssm::SSM_ISA
