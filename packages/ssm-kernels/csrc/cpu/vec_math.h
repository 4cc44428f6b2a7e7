// Elementary functions on vectors.  Relative errors: float 3e-7, double 1e-15, unless said otherwise at the function.
// All pass NaN on, and reach 0 and infinity where the exact result leaves the range (values below 2e-38, or 3e-308,
// are flushed to 0 or become subnormal).
#pragma once

#include "cpu/vec.h"

namespace ssm::SSM_ISA {

template <class F>
struct MathConstants;

template <>
struct MathConstants<float> {
  // 2^f on [-1/2, 1/2], relative minimax with the constant term held at exactly 1: any error at f = 0 would be
  // multiplied up by the long products of decays that slow states make (measured: 4.7e-4 instead of 2.1e-6 after
  // 16384 steps).
  static constexpr float exp2_poly[] = {1.0f,           0.6931470036506653f,   0.24022242426872253f,
                                        0.05550733581185341f, 0.009671512991189957f, 0.001326472731307149f};
  static constexpr int log_terms = 5;  // of the atanh series, argument at most 0.172
  static constexpr int mantissa_bits = 23;
  static constexpr int exponent_bias = 127;
  static constexpr float magic = 12582912.0f;  // 1.5 * 2^23: adding it rounds to an integer
  static constexpr float log2e = 1.44269504088896341f;
  static constexpr float ln2 = 0.69314718055994531f;
  static constexpr float ln2_high = 0.693359375f, ln2_low = -2.12194440e-4f;  // 9 bits + the rest
};

template <>
struct MathConstants<double> {
  // Taylor series: ln(2)^k / k!.  The first term left out is below 4e-18.
  static constexpr double exp2_poly[] = {1.0,
                                         0.6931471805599453,
                                         0.24022650695910072,
                                         0.05550410866482158,
                                         0.009618129107628477,
                                         0.0013333558146428443,
                                         0.0001540353039338161,
                                         1.525273380405984e-05,
                                         1.321548679014431e-06,
                                         1.01780860092397e-07,
                                         7.054911620801123e-09,
                                         4.445538271870812e-10,
                                         2.567843599348821e-11,
                                         1.3691488853904128e-12};
  static constexpr int log_terms = 12;
  static constexpr int mantissa_bits = 52;
  static constexpr int exponent_bias = 1023;
  static constexpr double magic = 6755399441055744.0;  // 1.5 * 2^52
  static constexpr double log2e = 1.4426950408889634074;
  static constexpr double ln2 = 0.69314718055994530942;
  static constexpr double ln2_high = 6.93145751953125e-1, ln2_low = 1.42860682030941723212e-6;
};

// 2^k * 2^f for an integer k in [1 - bias, bias + 1] and f in [-1/2, 1/2].  magic_k is k + magic + (bias - 1).
template <class F>
SSM_INLINE Vec<F> exp2_from_parts(Vec<F> magic_k, Vec<F> f) {
  using M = MathConstants<F>;
  constexpr int terms = sizeof(M::exp2_poly) / sizeof(F);
  // Twice the polynomial times 2^(k-1): the second factor is then finite for the largest k, and exactly 0 for the
  // smallest.  Multiplying (rather than adding to the exponent field) keeps NaN and gives infinity on overflow.
  Vec<F> p = broadcast<F>(2 * M::exp2_poly[terms - 1]);
  SSM_UNROLL
  for (int i = terms - 2; i >= 0; --i) p = p * f + 2 * M::exp2_poly[i];
  return p * from_bits<F>(to_bits<F>(magic_k) << M::mantissa_bits);
}

// 2^t.  Relative error 1.8e-7 (float) plus that of t.
template <class F>
SSM_INLINE Vec<F> exp2(Vec<F> t) {
  using M = MathConstants<F>;
#if defined(SSM_HAS_POWER_INSTRUCTIONS)  // half the instructions, and the scan is made of them
  constexpr int terms = sizeof(M::exp2_poly) / sizeof(F);
  const Vec<F> f = minus_nearest<F>(t);
  Vec<F> p = broadcast<F>(M::exp2_poly[terms - 1]);
  SSM_UNROLL
  for (int i = terms - 2; i >= 0; --i) p = p * f + M::exp2_poly[i];
  return times_power<F>(p, t - f);
#else
  constexpr F magic = M::magic + (M::exponent_bias - 1);
  t = clamp<F>(t, F(1 - M::exponent_bias), F(M::exponent_bias + 1));
  const Vec<F> magic_k = t + magic;
  return exp2_from_parts<F>(magic_k, t - (magic_k - magic));
#endif
}

// e^x, accurate for large |x| too: x - k ln 2 is formed from two pieces of ln 2 before scaling.
template <class F>
SSM_INLINE Vec<F> exp(Vec<F> x) {
  using M = MathConstants<F>;
  constexpr F magic = M::magic + (M::exponent_bias - 1);
  // The bounds round to k = 1 - bias (a result of 0) and to k = bias + 1 with f > 0 (infinity).
  x = clamp<F>(x, F(1 - M::exponent_bias) * M::ln2, (M::exponent_bias + F(1.25)) * M::ln2);
  const Vec<F> magic_k = x * M::log2e + magic;
  const Vec<F> k = magic_k - magic;
  return exp2_from_parts<F>(magic_k, ((x - k * M::ln2_high) - k * M::ln2_low) * M::log2e);
}

// log(1 + e) for e >= 0, with small relative error for small e as well.
template <class F>
SSM_INLINE Vec<F> log1p(Vec<F> e) {
  using M = MathConstants<F>;
  // 1 + e = 2^k (1 + f) with 1 + f in [sqrt(1/2), sqrt(2)), up to rounding.  f is formed from e itself, not from the
  // rounded 1 + e: it is e exactly where k = 0.
  const VecInt<F> root_half = to_bits<F>(broadcast<F>(F(0.70710678118654752)));
  const VecInt<F> k = (to_bits<F>(e + F(1)) - root_half) >> M::mantissa_bits;
  const Vec<F> scale = from_bits<F>(to_bits<F>(broadcast<F>(F(1))) - (k << M::mantissa_bits));  // 2^-k
  const Vec<F> f = e * scale + (scale - F(1));
  const Vec<F> s = f / (f + F(2)), s2 = s * s;  // log(1 + f) = 2 atanh(s)
  Vec<F> series = broadcast<F>(F(2) / (2 * M::log_terms - 1));
  SSM_UNROLL
  for (int i = M::log_terms - 2; i >= 0; --i) series = series * s2 + F(2) / (2 * i + 1);
  const Vec<F> kf = convert<Vec<F>>(k);
  return kf * M::ln2_high + (kf * M::ln2_low + s * series);
}

// 1 / (1 + e^-x) and the complement 1 - that, each with small relative error.
template <class F>
struct Sigmoid {
  Vec<F> value, complement;
};

template <class F>
SSM_INLINE Sigmoid<F> sigmoid_and_complement(Vec<F> x) {
  const Vec<F> zero = {};
  const Vec<F> e = exp<F>(select(x > zero, -x, x));  // at most 1, so nothing overflows
  const Vec<F> larger = F(1) / (e + F(1)), smaller = e * larger;
  return {select(x > zero, larger, smaller), select(x > zero, smaller, larger)};
}

template <class F>
SSM_INLINE Vec<F> sigmoid(Vec<F> x) {
  return F(1) / (exp<F>(-x) + F(1));
}

// log(1 + e^x) up to x = 20 and x itself above, like torch.nn.functional.softplus.
template <class F>
SSM_INLINE Vec<F> softplus(Vec<F> x) {
  const Vec<F> threshold = broadcast<F>(F(20));
  return select(x > threshold, x, log1p<F>(exp<F>(x)));
}

// Replaces x by softplus(x) and returns the derivative, which is 1 where the value is passed through.
template <class F>
SSM_INLINE Vec<F> softplus_and_slope(Vec<F>& x) {
  const Vec<F> threshold = broadcast<F>(F(20)), one = broadcast<F>(F(1));
  const Vec<F> e = exp<F>(x);
  const Vec<F> slope = select(x > threshold, one, e / (e + F(1)));
  x = select(x > threshold, x, log1p<F>(e));
  return slope;
}

}  // namespace ssm::SSM_ISA
