// Sine and cosine on vectors.  Errors relative to 1: float 1e-7, double 2e-16, up to far_angle; NaN and infinity give NaN.
#pragma once

#include "cpu/vec_math.h"

namespace ssm::SSM_ISA {

template <class F>
struct TrigConstants;

// far_angle: k = round(2 x / pi) has few enough bits below it that k times the first two pieces of pi / 2 is exact, with
// or without fused multiply-add (Cody & Waite 1980, Software Manual for the Elementary Functions).
// The polynomials hold on |r| <= pi/4: sin r = r + r^3 s(r^2), cos r = 1 - r^2/2 + r^4 c(r^2).
template <>
struct TrigConstants<float> {
  static constexpr float far_angle = 12800.0f;  // k below 2^13
  static constexpr float two_over_pi = 0.63661977236758134f;
  static constexpr float half_pi[] = {0x1.92p0f, 0x1.fb4p-12f, 0x1.4442d2p-24f};  // 8, 11 and 24 bits
  // Minimax of the absolute error, below 2e-9.
  static constexpr float sin_poly[] = {-0x1.555540p-3f, 0x1.1105aep-7f, -0x1.98d88ep-13f};
  static constexpr float cos_poly[] = {0.041666646f, -0.0013887364f, 2.443809e-05f};
};

template <>
struct TrigConstants<double> {
  static constexpr double far_angle = 1.6e6;  // k below 2^20
  static constexpr double two_over_pi = 0.63661977236758134308;
  static constexpr double half_pi[] = {0x1.921fb544p0, 0x1.0b4611a6p-34, 0x1.3198a2e037073p-69};  // 33, 33, 53 bits
  // Taylor series: the first terms left out are below 5e-17.
  static constexpr double sin_poly[] = {-0.16666666666666666,   0.008333333333333333,   -0.0001984126984126984,
                                        2.7557319223985893e-06, -2.505210838544172e-08, 1.6059043836821613e-10,
                                        -7.647163731819816e-13};
  static constexpr double cos_poly[] = {0.041666666666666664,    -0.001388888888888889, 2.48015873015873e-05,
                                        -2.755731922398589e-07,  2.08767569878681e-09,  -1.1470745597729725e-11,
                                        4.779477332387385e-14};
};

template <class F>
struct SinCos {
  Vec<F> sin, cos;
};

// coefficients[0] + coefficients[1] z + ...
template <class F, int Terms>
SSM_INLINE Vec<F> polynomial(const F (&coefficients)[Terms], Vec<F> z) {
  Vec<F> p = broadcast<F>(coefficients[Terms - 1]);
  SSM_UNROLL
  for (int i = Terms - 2; i >= 0; --i) p = p * z + coefficients[i];
  return p;
}

// For |x| <= far_angle.  Beyond it the result is finite but wrong.
template <class F>
SSM_INLINE SinCos<F> near_sin_cos(Vec<F> x) {
  using T = TrigConstants<F>;
  using M = MathConstants<F>;
  constexpr int sign_bit = 8 * sizeof(F) - 2;  // where bit 1 of the quadrant goes
  const Vec<F> magic_k = x * T::two_over_pi + M::magic;
  const Vec<F> k = magic_k - M::magic;
  const Vec<F> r = ((x - k * T::half_pi[0]) - k * T::half_pi[1]) - k * T::half_pi[2];
  const Vec<F> z = r * r;
  const Vec<F> s = r + (r * z) * polynomial<F>(T::sin_poly, z);
  const Vec<F> c = (F(1) - F(0.5) * z) + (z * z) * polynomial<F>(T::cos_poly, z);
  const VecInt<F> quadrant = to_bits<F>(magic_k);  // modulo 4 in the lowest bits
  const VecInt<F> odd = (quadrant & 1) != VecInt<F>{};
  const Vec<F> sine = select(odd, c, s), cosine = select(odd, s, c);
  return {from_bits<F>(to_bits<F>(sine) ^ ((quadrant & 2) << sign_bit)),
          from_bits<F>(to_bits<F>(cosine) ^ (((quadrant + 1) & 2) << sign_bit))};
}

}  // namespace ssm::SSM_ISA
