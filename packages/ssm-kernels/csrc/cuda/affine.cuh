// Real and complex numbers under one set of names, and the maps h -> a h + x of linear recurrences.
#pragma once

#include <cuda_runtime.h>

#include "cuda/complex.cuh"
#include "cuda/numbers.h"

namespace ssm::cuda {

template <class N>
struct Field {
  static __device__ __forceinline__ N real(N x) { return x; }
  static __device__ __forceinline__ N conjugate(N x) { return x; }
  static __device__ __forceinline__ N plus(N x, N y) { return x + y; }
  static __device__ __forceinline__ N times(N a, N x) { return a * x; }
  static __device__ __forceinline__ N times_plus(N a, N x, N y) { return a * x + y; }
  static __device__ __forceinline__ bool is_finite(N x) { return x - x == N(0); }
  static __device__ __forceinline__ N from_lane(N x, int bits) { return __shfl_xor_sync(~0u, x, bits); }
};

template <class F>
struct Field<Complex<F>> {
  using N = Complex<F>;
  static __device__ __forceinline__ N real(F x) { return {x, F(0)}; }
  static __device__ __forceinline__ N conjugate(N x) { return {x.re, -x.im}; }
  static __device__ __forceinline__ N plus(N x, N y) { return {x.re + y.re, x.im + y.im}; }
  static __device__ __forceinline__ N times(N a, N x) { return {a.re * x.re - a.im * x.im, a.re * x.im + a.im * x.re}; }
  static __device__ __forceinline__ N times_plus(N a, N x, N y) {
    return {a.re * x.re + (y.re - a.im * x.im), a.re * x.im + (a.im * x.re + y.im)};
  }
  static __device__ __forceinline__ bool is_finite(N x) {
    return Field<F>::is_finite(x.re) && Field<F>::is_finite(x.im);
  }
  static __device__ __forceinline__ N from_lane(N x, int bits) {
    return {__shfl_xor_sync(~0u, x.re, bits), __shfl_xor_sync(~0u, x.im, bits)};
  }
};

// The map h -> a h + x.
template <class N>
struct Affine {
  N a, x;

  static __device__ __forceinline__ Affine identity() { return {Field<N>::real(1), Field<N>::real(0)}; }
  __device__ __forceinline__ N of(N h) const { return Field<N>::times_plus(a, h, x); }
  // With a more exact a: this one and a small number.
  __device__ __forceinline__ N of(N h, N rest_of_a) const {
    return Field<N>::times_plus(a, h, Field<N>::times_plus(rest_of_a, h, x));
  }
  __device__ __forceinline__ bool is_finite() const { return Field<N>::is_finite(a) && Field<N>::is_finite(x); }
};

__device__ __forceinline__ double widened(float x) { return x; }
__device__ __forceinline__ double widened(double x) { return x; }
template <class F>
__device__ __forceinline__ Complex<double> widened(Complex<F> x) {
  return {x.re, x.im};
}
__device__ __forceinline__ void narrow(double x, float& to) { to = float(x); }
__device__ __forceinline__ void narrow(double x, double& to) { to = x; }
template <class F>
__device__ __forceinline__ void narrow(Complex<double> x, Complex<F>& to) {
  to = {F(x.re), F(x.im)};
}

// a^n, and what its rounding loses.
template <class N>
__device__ __forceinline__ void power(N a, int64_t n, N& high, N& low) {
  auto base = widened(a);
  using Wide = decltype(base);
  Wide result = Field<Wide>::real(1);
  for (; n > 0; n >>= 1) {
    if (n & 1) result = Field<Wide>::times(result, base);
    base = Field<Wide>::times(base, base);
  }
  narrow(result, high);
  narrow(Field<Wide>::times_plus(Field<Wide>::real(-1), widened(high), result), low);
}

// How numbers are stored: `Bits`, and the type they are computed in: `Value`.  Real ones are those of numbers.h.
template <DType Type, bool IsComplex>
struct Element : Number<Type> {
  using Value = typename Number<Type>::Compute;
};
template <DType Type>
struct Element<Type, true> {
  using Value = Complex<typename Number<Type>::Compute>;
  using Bits = Value;
  static __device__ __forceinline__ Value decode(Bits x) { return x; }
  static __device__ __forceinline__ Bits encode(Value x) { return x; }
};

}  // namespace ssm::cuda
