// Vec<float> and Vec<double>: as many lanes as a register of this translation unit's instruction set holds.
//
// They are GCC/Clang vector extensions, so + - * / < work lane by lane and the compiler picks the instructions; only what
// it does badly is spelled out.  Other compilers, and whoever defines SSM_GENERIC_VECTORS, get arrays (vec_generic.h); the
// kernels are standard C++ apart from this file, so vectors are chosen between with select(), not with ?:.
// Vectors are never passed to functions that stay out of line: always SSM_INLINE.
#pragma once

#include <cstdint>
#include <cstring>
#include <utility>

#if !defined(__GNUC__) && !defined(SSM_GENERIC_VECTORS)  // Clang defines __GNUC__ too
#define SSM_GENERIC_VECTORS
#endif

#if defined(__x86_64__) && !defined(SSM_GENERIC_VECTORS)
#include <immintrin.h>
#endif

#if defined(__GNUC__)
#define SSM_INLINE inline __attribute__((always_inline))
#define SSM_NOINLINE __attribute__((noinline))
#define SSM_UNLIKELY(condition) __builtin_expect(condition, false)
#define SSM_UNREACHABLE() __builtin_unreachable()
#define SSM_PREFETCH(address) __builtin_prefetch(address, 0, 2)  // into the second level: the first one is in use
#else
#define SSM_INLINE __forceinline
#define SSM_NOINLINE __declspec(noinline)
#define SSM_UNLIKELY(condition) (condition)
#define SSM_UNREACHABLE() __assume(false)
#define SSM_PREFETCH(address) (void)(address)
#endif

// SSM_NO_UNROLL: sanitizers compile unrolled loops for minutes.
#if defined(SSM_NO_UNROLL) || !defined(__GNUC__)
#define SSM_UNROLL
#elif defined(__clang__)
#define SSM_UNROLL _Pragma("clang loop unroll(full)")
#else
#define SSM_UNROLL _Pragma("GCC unroll 32")
#endif

#if defined(SSM_ISA_IS_avx512)
#define SSM_VECTOR_BYTES 64
#elif defined(SSM_ISA_IS_avx2)
#define SSM_VECTOR_BYTES 32
#else
#define SSM_VECTOR_BYTES 16
#endif

#if defined(SSM_GENERIC_VECTORS)
#include "cpu/vec_generic.h"
#endif

namespace ssm::SSM_ISA {

#if !defined(SSM_GENERIC_VECTORS)
// The attribute works on plain typedefs only, hence one specialisation per type.
template <class F>
struct VecOf;
template <>
struct VecOf<float> {
  static constexpr int width = SSM_VECTOR_BYTES / 4;
  typedef float Type __attribute__((vector_size(SSM_VECTOR_BYTES)));
  typedef int32_t Int __attribute__((vector_size(SSM_VECTOR_BYTES)));        // same lanes, as integers
  typedef uint32_t Bits __attribute__((vector_size(SSM_VECTOR_BYTES)));      // unsigned
  typedef uint16_t Half __attribute__((vector_size(SSM_VECTOR_BYTES / 2)));  // 16-bit storage of the same lanes
};
template <>
struct VecOf<double> {
  static constexpr int width = SSM_VECTOR_BYTES / 8;
  typedef double Type __attribute__((vector_size(SSM_VECTOR_BYTES)));
  typedef int64_t Int __attribute__((vector_size(SSM_VECTOR_BYTES)));
};

template <class To, class From>
SSM_INLINE To same_bits(From v) {
  return (To)v;
}

// Lane by lane to another type.
template <class To, class From>
SSM_INLINE To convert(From v) {
  return __builtin_convertvector(v, To);
}

// yes in the lanes where the comparison that made the mask holds, no in the others.
template <class Mask, class V>
SSM_INLINE V select(Mask mask, V yes, V no) {
  return mask ? yes : no;
}

// Lanes of a, numbered from 0, and of b, numbered from width.
template <int... I, class V>
SSM_INLINE V shuffle(V a, V b) {
  return __builtin_shufflevector(a, b, I...);
}
#endif

template <class F>
using Vec = typename VecOf<F>::Type;
template <class F>
using VecInt = typename VecOf<F>::Int;
template <class F>
constexpr int kWidth = VecOf<F>::width;

template <class V>
SSM_INLINE V load_as(const void* from) {  // any alignment
  V v;
  std::memcpy(&v, from, sizeof v);
  return v;
}

template <class F>
SSM_INLINE Vec<F> load(const F* from) {
  return load_as<Vec<F>>(from);
}

template <class V>
SSM_INLINE void store(void* to, V v) {
  std::memcpy(to, &v, sizeof v);
}

template <class F>
SSM_INLINE Vec<F> broadcast(F x) {
  return x - Vec<F>{};  // x - 0 is x for every x, -0 included, so the subtraction disappears
}

template <class F>
SSM_INLINE Vec<F> from_bits(VecInt<F> bits) {
  return same_bits<Vec<F>>(bits);
}

template <class F>
SSM_INLINE VecInt<F> to_bits(Vec<F> v) {
  return same_bits<VecInt<F>>(v);
}

// x where it is NaN, otherwise within [low, high].  The order of the operands is what keeps the NaN.
template <class F>
SSM_INLINE Vec<F> clamp(Vec<F> x, F low, F high) {
  const Vec<F> lo = broadcast<F>(low), hi = broadcast<F>(high);
#if defined(SSM_ISA_IS_avx512)
  if constexpr (sizeof(F) == 4) return (Vec<F>)_mm512_min_ps((__m512)hi, _mm512_max_ps((__m512)lo, (__m512)x));
  if constexpr (sizeof(F) == 8) return (Vec<F>)_mm512_min_pd((__m512d)hi, _mm512_max_pd((__m512d)lo, (__m512d)x));
#elif defined(SSM_ISA_IS_avx2)
  if constexpr (sizeof(F) == 4) return (Vec<F>)_mm256_min_ps((__m256)hi, _mm256_max_ps((__m256)lo, (__m256)x));
  if constexpr (sizeof(F) == 8) return (Vec<F>)_mm256_min_pd((__m256d)hi, _mm256_max_pd((__m256d)lo, (__m256d)x));
#elif defined(__SSE2__) && !defined(SSM_GENERIC_VECTORS)
  if constexpr (sizeof(F) == 4) return (Vec<F>)_mm_min_ps((__m128)hi, _mm_max_ps((__m128)lo, (__m128)x));
  if constexpr (sizeof(F) == 8) return (Vec<F>)_mm_min_pd((__m128d)hi, _mm_max_pd((__m128d)lo, (__m128d)x));
#else
  x = select(lo > x, lo, x);
  return select(hi < x, hi, x);
#endif
}

#if defined(SSM_ISA_IS_avx512)
#define SSM_HAS_POWER_INSTRUCTIONS

// x minus the nearest integer; 0 for infinities.
template <class F>
SSM_INLINE Vec<F> minus_nearest(Vec<F> x) {
  if constexpr (sizeof(F) == 4) return (Vec<F>)_mm512_reduce_ps((__m512)x, _MM_FROUND_TO_NEAREST_INT);
  if constexpr (sizeof(F) == 8) return (Vec<F>)_mm512_reduce_pd((__m512d)x, _MM_FROUND_TO_NEAREST_INT);
}

// x 2^k for whole k of any size.
template <class F>
SSM_INLINE Vec<F> times_power(Vec<F> x, Vec<F> k) {
  if constexpr (sizeof(F) == 4) return (Vec<F>)_mm512_scalef_ps((__m512)x, (__m512)k);
  if constexpr (sizeof(F) == 8) return (Vec<F>)_mm512_scalef_pd((__m512d)x, (__m512d)k);
}
#endif

// Lanes of a and b in turn, a0 b0 a1 b1 ...: the first (Half = 0) or the second half of that sequence.
template <class F, int Half, int... I>
SSM_INLINE Vec<F> interleave_lanes(Vec<F> a, Vec<F> b, std::integer_sequence<int, I...>) {
  return shuffle<((I + Half * kWidth<F>) / 2 + I % 2 * kWidth<F>)...>(a, b);
}

template <class F, int Half>
SSM_INLINE Vec<F> interleave(Vec<F> a, Vec<F> b) {
  return interleave_lanes<F, Half>(a, b, std::make_integer_sequence<int, kWidth<F>>{});
}

// Transposes the square matrix whose rows are v[0..width).  Interleaving the upper with the lower half of the rows is a
// rotation of the index bits (row, lane); log2(width) of them swap rows and lanes.
template <class F>
SSM_INLINE void transpose(Vec<F>* v) {
  constexpr int W = kWidth<F>;
  SSM_UNROLL
  for (int step = 1; step < W; step *= 2) {
    Vec<F> next[W];
    SSM_UNROLL
    for (int i = 0; i < W / 2; ++i) {
      next[2 * i] = interleave<F, 0>(v[i], v[i + W / 2]);
      next[2 * i + 1] = interleave<F, 1>(v[i], v[i + W / 2]);
    }
    SSM_UNROLL
    for (int i = 0; i < W; ++i) v[i] = next[i];
  }
}

// Lane i of the result is the sum of all lanes of v[i], in an order that depends on the width alone.  Destroys v.
template <class F>
SSM_INLINE Vec<F> sum_rows(Vec<F>* v) {
  constexpr int W = kWidth<F>;
  SSM_UNROLL
  for (int half = W / 2; half >= 1; half /= 2) {
    SSM_UNROLL
    for (int i = 0; i < half; ++i)
      v[i] = interleave<F, 0>(v[i], v[i + half]) + interleave<F, 1>(v[i], v[i + half]);
  }
  return v[0];
}

}  // namespace ssm::SSM_ISA
