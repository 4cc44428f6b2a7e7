// Tensors in memory (f32, f64, bf16, f16) <-> vectors and scalars of the compute type.
//
// Storage<S> has: Compute (the compute type), bytes, load and store of one vector of consecutive elements, load_one and
// store_one.  Narrowing rounds to nearest even; NaN stays NaN.
#pragma once

#include "cpu/vec.h"
#include "params.h"

namespace ssm::SSM_ISA {

template <DType S>
struct Storage;

template <class F>
struct PlainStorage {
  using Compute = F;
  static constexpr int64_t bytes = sizeof(F);
  static SSM_INLINE Vec<F> load(const char* from) { return load_as<Vec<F>>(from); }
  static SSM_INLINE void store(char* to, Vec<F> v) { SSM_ISA::store(to, v); }
  static SSM_INLINE F load_one(const char* from) { return load_as<F>(from); }
  static SSM_INLINE void store_one(char* to, F x) { SSM_ISA::store(to, x); }
};
template <>
struct Storage<DType::f32> : PlainStorage<float> {};
template <>
struct Storage<DType::f64> : PlainStorage<double> {};

// Conversions between 32-bit float bits and 16-bit storage bits.  U is uint32_t or a vector of it: the code below is
// free of branches so that both work.
template <class U>
SSM_INLINE U pick(U condition_mask, U yes, U no) {
  return (condition_mask & yes) | (~condition_mask & no);
}

template <class U>
SSM_INLINE U bf16_bits_from_float_bits(U x) {
  const U rounded = (x + 0x7fffu + ((x >> 16) & 1u)) >> 16;
  const U quiet_nan = (x >> 16) | 0x40u;
  const U is_nan = U{} - (((U{} + 0x7f800000u) - (x & 0x7fffffffu)) >> 31);  // all ones if the magnitude is above inf
  return pick<U>(is_nan, quiet_nan, rounded);
}

SSM_INLINE float float_from_bits(uint32_t bits) { return load_as<float>(&bits); }
SSM_INLINE uint32_t bits_of_float(float x) { return load_as<uint32_t>(&x); }

SSM_INLINE float float_from_f16(uint16_t half) {
  const uint32_t sign = static_cast<uint32_t>(half & 0x8000u) << 16, magnitude = half & 0x7fffu;
  if (magnitude >= 0x7c00u) return float_from_bits(sign | 0x7f800000u | (magnitude & 0x3ffu) << 13);  // inf, NaN
  // Reading the bits as a float with a too small exponent and scaling by 2^112 covers subnormals as well.
  return float_from_bits(sign | bits_of_float(float_from_bits(magnitude << 13) * 0x1p112f));
}

SSM_INLINE uint16_t f16_from_float(float x) {
  const uint32_t bits = bits_of_float(x), sign = bits >> 16 & 0x8000u, magnitude = bits & 0x7fffffffu;
  if (magnitude > 0x7f800000u) return static_cast<uint16_t>(sign | 0x7e00u | (magnitude >> 13 & 0x3ffu));  // NaN
  if (magnitude >= 0x477ff000u) return static_cast<uint16_t>(sign | 0x7c00u);  // rounds to 65536 or more: infinity
  if (magnitude < 0x38800000u) {  // subnormal half: let the float addition round at 2^-24
    const uint32_t rounded = bits_of_float(float_from_bits(magnitude) + 0.5f) - bits_of_float(0.5f);
    return static_cast<uint16_t>(sign | rounded);
  }
  const uint32_t rebiased = magnitude - (112u << 23);
  return static_cast<uint16_t>(sign | (rebiased + 0xfffu + (rebiased >> 13 & 1u)) >> 13);
}

template <>
struct Storage<DType::bf16> {
  using Compute = float;
  static constexpr int64_t bytes = 2;
  using Bits = VecOf<float>::Bits;
  using Half = VecOf<float>::Half;
  static SSM_INLINE Vec<float> load(const char* from) {
    return same_bits<Vec<float>>(convert<Bits>(load_as<Half>(from)) << 16);
  }
  static SSM_INLINE void store(char* to, Vec<float> v) {
    SSM_ISA::store(to, convert<Half>(bf16_bits_from_float_bits<Bits>(same_bits<Bits>(v))));
  }
  static SSM_INLINE float load_one(const char* from) {
    return float_from_bits(static_cast<uint32_t>(load_as<uint16_t>(from)) << 16);
  }
  static SSM_INLINE void store_one(char* to, float x) {
    SSM_ISA::store(to, static_cast<uint16_t>(bf16_bits_from_float_bits<uint32_t>(bits_of_float(x))));
  }
};

template <>
struct Storage<DType::f16> {
  using Compute = float;
  static constexpr int64_t bytes = 2;
  static SSM_INLINE float load_one(const char* from) { return float_from_f16(load_as<uint16_t>(from)); }
  static SSM_INLINE void store_one(char* to, float x) { SSM_ISA::store(to, f16_from_float(x)); }
  static SSM_INLINE Vec<float> load(const char* from) {
#if defined(SSM_ISA_IS_avx512)
    return (Vec<float>)_mm512_cvtph_ps(load_as<__m256i>(from));
#elif defined(SSM_ISA_IS_avx2)
    return (Vec<float>)_mm256_cvtph_ps(load_as<__m128i>(from));
#else
    Vec<float> v;
    for (int i = 0; i < kWidth<float>; ++i) v[i] = load_one(from + 2 * i);
    return v;
#endif
  }
  static SSM_INLINE void store(char* to, Vec<float> v) {
#if defined(SSM_ISA_IS_avx512)
    SSM_ISA::store(to, _mm512_cvtps_ph((__m512)v, _MM_FROUND_TO_NEAREST_INT));
#elif defined(SSM_ISA_IS_avx2)
    SSM_ISA::store(to, _mm256_cvtps_ph((__m256)v, _MM_FROUND_TO_NEAREST_INT));
#else
    for (int i = 0; i < kWidth<float>; ++i) store_one(to + 2 * i, v[i]);
#endif
  }
};

// Calls body(Storage<...>{}) for a dtype whose compute type is F.
template <class F, class Body>
SSM_INLINE void with_storage(DType dtype, Body body) {
  if constexpr (sizeof(F) == 8) {
    body(Storage<DType::f64>{});
  } else if (dtype == DType::bf16) {
    body(Storage<DType::bf16>{});
  } else if (dtype == DType::f16) {
    body(Storage<DType::f16>{});
  } else {
    body(Storage<DType::f32>{});
  }
}

}  // namespace ssm::SSM_ISA
