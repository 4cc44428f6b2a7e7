// Inner loops of the backward pass with complex A: one chunk of time, one block of channels, a few states at a time.
//
// Gradients follow PyTorch's convention, d/d re + i d/d im.  With a = exp(delta A), G_t = 2 dy_t C_t* + a*_{t+1} G_{t+1}
// (the gradient of the state h_t; * conjugates) and h recomputed from the state before the chunk:
//   q1_t = Re sum_n G_t B_t*                    (gives du and ddelta)
//   q2_t = Re sum_n (a*_t G_t h*_{t-1}) A*      (gives ddelta)
//   dA = sum_t a*_t G_t h*_{t-1} delta_t,  dB_t = sum over channels of G_t delta_t u_t,  dC_t = sum of 2 dy_t h*_t
#pragma once

#include "cpu/selective_scan_adjoint.h"
#include "cpu/selective_scan_complex.h"

namespace ssm::SSM_ISA {

// All (.., lanes) arrays hold the real and the imaginary part of one state next to each other: Count is 2 per state.
template <class F, int Count, bool Gated, class CoefficientB, class CoefficientC>
SSM_INLINE void recompute_complex(int64_t rows, const AdjointTiles<F>& tiles, const AdjointStates<F>& states,
                                  const CoefficientB& b, const CoefficientC& c, const Trajectory<F>& trajectory) {
  constexpr int64_t W = kWidth<F>;
  constexpr int States = Count / 2;
  compute_decays<F, States>(rows, tiles.delta, states.rate, trajectory.decay);
  Vec<F> h_re[States], h_im[States];
  SSM_UNROLL
  for (int n = 0; n < States; ++n) {
    h_re[n] = load<F>(states.initial + 2 * n * W);
    h_im[n] = load<F>(states.initial + (2 * n + 1) * W);
    store(trajectory.state + 2 * n * W, h_re[n]);
    store(trajectory.state + (2 * n + 1) * W, h_im[n]);
  }
  for (int64_t t = 0; t < rows; ++t) {
    const Vec<F> delta_u = load<F>(tiles.delta_u + t * W);
    Vec<F> half = {};
    SSM_UNROLL
    for (int n = 0; n < States; ++n) {
      const F* decay = trajectory.decay + (t * Count + 2 * n) * W;
      F* state = trajectory.state + ((t + 1) * Count + 2 * n) * W;
      const Vec<F> a_re = load<F>(decay), a_im = load<F>(decay + W), before = h_re[n];
      h_re[n] = a_re * before - a_im * h_im[n] + delta_u * b.re(t, n);
      h_im[n] = a_re * h_im[n] + a_im * before + delta_u * b.im(t, n);
      store(state, h_re[n]);
      store(state + W, h_im[n]);
      if constexpr (Gated) half += h_re[n] * c.re(t, n) - h_im[n] * c.im(t, n);
    }
    if constexpr (Gated) store(tiles.y + t * W, load<F>(tiles.y + t * W) + F(2) * half);
  }
}

// A complex number per lane.
template <class F>
struct Complex {
  Vec<F> re, im;

  static SSM_INLINE Complex from(const F* data) { return {load<F>(data), load<F>(data + kWidth<F>)}; }
  SSM_INLINE void add(const Complex& x) { re += x.re, im += x.im; }
  SSM_INLINE void add_to(F* data) const {
    add_to_memory(data, re);
    add_to_memory(data + kWidth<F>, im);
  }
};

// x times the conjugate of y.
template <class F>
SSM_INLINE Complex<F> times_conjugate(const Complex<F>& x, const Complex<F>& y) {
  return {x.re * y.re + x.im * y.im, x.im * y.re - x.re * y.im};
}

template <class F, int Count, bool VariableB, bool VariableC>
SSM_INLINE void run_complex_adjoint(int64_t rows, const AdjointTiles<F>& tiles, const AdjointStates<F>& states,
                                    const ComplexCoefficient<F, VariableB>& b,
                                    const ComplexCoefficient<F, VariableC>& c, const Trajectory<F>& trajectory) {
  constexpr int64_t W = kWidth<F>;
  constexpr int States = Count / 2;
  Complex<F> carry[States], h[States], grad_A[States] = {}, grad_B[States] = {}, grad_C[States] = {};
  SSM_UNROLL
  for (int n = 0; n < States; ++n) {
    carry[n] = Complex<F>::from(states.carry + 2 * n * W);
    h[n] = Complex<F>::from(trajectory.state + (rows * Count + 2 * n) * W);
  }
  for (int64_t t = rows - 1; t >= 0; --t) {
    const Vec<F> delta = load<F>(tiles.delta + t * W), delta_u = load<F>(tiles.delta_u + t * W);
    const Vec<F> dy2 = F(2) * load<F>(tiles.dy + t * W);
    Vec<F> q1 = load<F>(tiles.q1 + t * W), q2 = load<F>(tiles.q2 + t * W);
    SSM_UNROLL
    for (int n = 0; n < States; ++n) {
      const int64_t at = (t * Count + 2 * n) * W;
      const Complex<F> G = {dy2 * c.re(t, n) + carry[n].re, carry[n].im - dy2 * c.im(t, n)};
      const Complex<F> to_C = {dy2 * h[n].re, -dy2 * h[n].im}, to_B = {G.re * delta_u, G.im * delta_u};
      if constexpr (VariableC) to_C.add_to(states.grad_C + at);
      else grad_C[n].add(to_C);
      if constexpr (VariableB) to_B.add_to(states.grad_B + at);
      else grad_B[n].add(to_B);
      q1 += G.re * b.re(t, n) + G.im * b.im(t, n);
      carry[n] = times_conjugate<F>(G, Complex<F>::from(trajectory.decay + at));
      h[n] = Complex<F>::from(trajectory.state + at);
      const Complex<F> through_decay = times_conjugate<F>(carry[n], h[n]);
      const Vec<F> A_im = load<F>(states.rate + (2 * n + 1) * W) * MathConstants<F>::log2e;  // scaled like the real part
      q2 += through_decay.re * load<F>(states.rate + 2 * n * W) + through_decay.im * A_im;
      grad_A[n].add({through_decay.re * delta, through_decay.im * delta});
    }
    store(tiles.q1 + t * W, q1);
    store(tiles.q2 + t * W, q2);
  }
  SSM_UNROLL
  for (int n = 0; n < States; ++n) {
    store(states.carry + 2 * n * W, carry[n].re);
    store(states.carry + (2 * n + 1) * W, carry[n].im);
    grad_A[n].add_to(states.grad_A + 2 * n * W);
    if constexpr (!VariableB) grad_B[n].add_to(states.grad_B + 2 * n * W);
    if constexpr (!VariableC) grad_C[n].add_to(states.grad_C + 2 * n * W);
  }
}

}  // namespace ssm::SSM_ISA
