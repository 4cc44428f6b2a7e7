// Complex numbers, and rows of four numbers, as kernels move them.
#pragma once

#include <cuda_runtime.h>

#include "cuda/functions.cuh"

namespace ssm::cuda {

// Aligned so that both parts move at once.
template <class F>
struct alignas(2 * sizeof(F)) Complex {
  F re, im;
};

template <class F>
__device__ __forceinline__ Complex<F> operator*(Complex<F> a, Complex<F> b) {
  return {a.re * b.re - a.im * b.im, a.re * b.im + a.im * b.re};
}

// exp(t x).  The angle is reduced in double: it keeps its digits for any t.
template <class F>
__device__ __forceinline__ Complex<F> exp_of_product(F t, Complex<F> x) {
  const SinCos<F> turn = sin_cos_of_product(t, x.im);
  const F size = exp_of_negative(t * x.re);
  return {size * turn.cos, size * turn.sin};
}

template <class F>
struct alignas(16) Four {
  F at[4];
};

// At an address that is a multiple of four numbers (or 16 bytes).
template <class F>
__device__ __forceinline__ Four<F> load_four(const F* from) {
  return *reinterpret_cast<const Four<F>*>(from);
}
template <class F>
__device__ __forceinline__ void store_four(F* to, const Four<F>& values) {
  *reinterpret_cast<Four<F>*>(to) = values;
}

}  // namespace ssm::cuda
