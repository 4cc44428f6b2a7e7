// Elementary functions of the operators, for float (to a few units in the last place) and double.  All pass NaN on.
#pragma once

#include <cuda_runtime.h>

#include <cmath>

#include "cuda/ptx.h"

namespace ssm::cuda {

// Factors of A where exp(delta A) is computed as 2^(delta (A log2(e))).
constexpr float kLog2e = 1.44269504088896341f;
constexpr float kLog2eRest = 1.9259629911e-8f;  // log2(e) less the float above
constexpr float kLn2 = 0.69314718055994531f;

// 2^x.  The long products of decays that slow states make need 2^0 = 1 exactly, which both are.
__device__ __forceinline__ float exp2_of(float x) { return exp2_approx(x); }
__device__ __forceinline__ double exp2_of(double x) { return exp2(x); }

// e^x for x <= 0; 3 units.  What rounding x log2(e) loses, up to 20 units at x = -80, is put back.
__device__ __forceinline__ float exp_of_negative(float x) {
  const float power = x * kLog2e;
  const float lost = fmaf(x, kLog2eRest, fmaf(x, kLog2e, -power));
  const float e = exp2_approx(power);
  return fmaf(e, fminf(lost, 1.f) * kLn2, e);  // the minimum is 1 where x = -infinity made `lost` NaN
}
__device__ __forceinline__ double exp_of_negative(double x) { return exp(x); }

// log(1 + e) for 0 <= e <= 1; 3 units, for small e as well.
__device__ __forceinline__ float log1p_of_small(float e) {
  float p = 0.005364738870412111f;
  p = fmaf(p, e, -0.030065450817346573f);
  p = fmaf(p, e, 0.07920398563146591f);
  p = fmaf(p, e, -0.13753755390644073f);
  p = fmaf(p, e, 0.1915363371372223f);
  p = fmaf(p, e, -0.24857157468795776f);
  p = fmaf(p, e, 0.333213210105896f);
  p = fmaf(p, e, -0.49999648332595825f);
  return fmaf(p, e, 1.f) * e;
}
__device__ __forceinline__ double log1p_of_small(double e) { return log1p(e); }

// log(1 + e^x).  torch passes x through above 20, where this rounds to x in float; in double it needs the comparison.
__device__ __forceinline__ float softplus(float x) {
  const float log1p_part = log1p_of_small(exp_of_negative(-fabsf(x)));
  return (x < 0.f ? 0.f : x) + log1p_part;
}
__device__ __forceinline__ double softplus(double x) {
  return x > 20. ? x : (x < 0. ? 0. : x) + log1p(exp(-fabs(x)));
}

__device__ __forceinline__ float reciprocal(float x) { return reciprocal_approx(x); }
__device__ __forceinline__ double reciprocal(double x) { return 1. / x; }

// 1 / (1 + e^-x), and one minus that, each with small relative error.
template <class F>
struct Sigmoid {
  F value, complement;
};

template <class F>
__device__ __forceinline__ Sigmoid<F> sigmoid_and_complement(F x) {
  const F e = exp_of_negative(x > F(0) ? -x : x);  // at most 1: nothing overflows
  const F larger = reciprocal(F(1) + e), smaller = e * larger;
  const bool positive = x > F(0);
  return {positive ? larger : smaller, positive ? smaller : larger};
}

template <class F>
__device__ __forceinline__ F sigmoid(F x) {
  return sigmoid_and_complement(x).value;
}

// d softplus(x) / dx: 1 where torch passes x through.
template <class F>
__device__ __forceinline__ F softplus_slope(F x) {
  return x > F(20) ? F(1) : sigmoid(x);
}

template <class F>
__device__ __forceinline__ F silu(F x) {
  return x * sigmoid(x);
}

// d silu(x) / dx
template <class F>
__device__ __forceinline__ F silu_slope(F x) {
  const Sigmoid<F> s = sigmoid_and_complement(x);
  return s.value * (F(1) + x * s.complement);
}

// Of numbers that 16 bits were enough for, or to be rounded to 16 bits: a relative error of |x| units in the last
// place.
__device__ __forceinline__ float rough_softplus(float x) {
  return (x < 0.f ? 0.f : x) + log1p_of_small(exp2_approx(-fabsf(x) * kLog2e));
}
__device__ __forceinline__ float rough_silu(float x) {
  return x * reciprocal_approx(1.f + exp2_approx(-kLog2e * x));
}

template <class F>
struct SinCos {
  F sin, cos;
};

// Of delta times omega, an angle of any size.  Half turns are counted in double: the angle is not rounded to float, and
// sinf and cosf, whose way with large angles needs a stack, are not called.
template <class F>
__device__ __forceinline__ SinCos<F> sin_cos_of_product(F delta, F omega) {
#ifdef __CUDACC__
  const double half_turns = double(delta) * double(omega) * 0.31830988618379067154;
  const F rest = F(half_turns - 2. * rint(half_turns * 0.5));
  if constexpr (sizeof(F) == 8) return {sinpi(rest), cospi(rest)};
  else return {sinpif(rest), cospif(rest)};
#else
  const double angle = double(delta) * double(omega);
  return {F(std::sin(angle)), F(std::cos(angle))};
#endif
}

}  // namespace ssm::cuda
