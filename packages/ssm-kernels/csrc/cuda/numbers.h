// Stored numbers of the four types to and from the float or double that is computed with.
#pragma once

#include <cuda_runtime.h>
#ifdef __CUDACC__
#include <cuda_bf16.h>
#include <cuda_fp16.h>
#endif

#include <cstdint>

#include "params.h"

namespace ssm::cuda {

#ifdef __CUDACC__
__device__ __forceinline__ float decode_f16(uint16_t bits) { return __half2float(__ushort_as_half(bits)); }
__device__ __forceinline__ uint16_t encode_f16(float x) { return __half_as_ushort(__float2half_rn(x)); }
__device__ __forceinline__ uint16_t encode_bf16(float x) { return __bfloat16_as_ushort(__float2bfloat16_rn(x)); }
#else
float decode_f16(uint16_t bits);    // simulator/half.cpp
uint16_t encode_f16(float x);
uint16_t encode_bf16(float x);
#endif
__device__ __forceinline__ float decode_bf16(uint16_t bits) { return __uint_as_float(uint32_t(bits) << 16); }

// Number<T>: how T is stored (`Bits`), and the type it is computed in (`Compute`).
template <DType T>
struct Number;
template <>
struct Number<DType::f32> {
  using Bits = float;
  using Compute = float;
  static __device__ __forceinline__ float decode(float x) { return x; }
  static __device__ __forceinline__ float encode(float x) { return x; }
};
template <>
struct Number<DType::f64> {
  using Bits = double;
  using Compute = double;
  static __device__ __forceinline__ double decode(double x) { return x; }
  static __device__ __forceinline__ double encode(double x) { return x; }
};
template <>
struct Number<DType::bf16> {
  using Bits = uint16_t;
  using Compute = float;
  static __device__ __forceinline__ float decode(uint16_t x) { return decode_bf16(x); }
  static __device__ __forceinline__ uint16_t encode(float x) { return encode_bf16(x); }
};
template <>
struct Number<DType::f16> {
  using Bits = uint16_t;
  using Compute = float;
  static __device__ __forceinline__ float decode(uint16_t x) { return decode_f16(x); }
  static __device__ __forceinline__ uint16_t encode(float x) { return encode_f16(x); }
};

// Of a type known at run time: for kernels whose time is spent elsewhere.
template <class Compute>
__device__ __forceinline__ Compute load(const char* data, int64_t index, DType type) {
  switch (type) {
    case DType::f32: return Compute(reinterpret_cast<const float*>(data)[index]);
    case DType::f64: return Compute(reinterpret_cast<const double*>(data)[index]);
    case DType::bf16: return Compute(decode_bf16(reinterpret_cast<const uint16_t*>(data)[index]));
    default: return Compute(decode_f16(reinterpret_cast<const uint16_t*>(data)[index]));
  }
}
template <class Compute>
__device__ __forceinline__ void store(char* data, int64_t index, DType type, Compute value) {
  switch (type) {
    case DType::f32: reinterpret_cast<float*>(data)[index] = float(value); break;
    case DType::f64: reinterpret_cast<double*>(data)[index] = double(value); break;
    case DType::bf16: reinterpret_cast<uint16_t*>(data)[index] = encode_bf16(float(value)); break;
    default: reinterpret_cast<uint16_t*>(data)[index] = encode_f16(float(value)); break;
  }
}

}  // namespace ssm::cuda
