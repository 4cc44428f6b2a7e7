// Numbers of a type known at run time, loaded first and decoded later: between the two other loads can be on their way,
// where load() of numbers.h waits for each.
#pragma once

#include "cuda/numbers.h"

namespace ssm::cuda {

// `Count` neighbouring numbers, 1 or 4; four are aligned to their size.  Indices count numbers.
template <class Compute, int Count>
struct RawNumbers;

template <>
struct RawNumbers<double, 1> {
  double value = 0;
  __device__ __forceinline__ void load_from(const char* data, int64_t index, DType type) {
    value = load<double>(data, index, type);
  }
  __device__ __forceinline__ void decode(DType, double* out) const { out[0] = value; }
};

template <>
struct RawNumbers<float, 1> {
  uint32_t bits = 0;
  __device__ __forceinline__ void load_from(const char* data, int64_t index, DType type) {
    if (type == DType::f32) bits = reinterpret_cast<const uint32_t*>(data)[index];
    else bits = reinterpret_cast<const uint16_t*>(data)[index];
  }
  __device__ __forceinline__ void decode(DType type, float* out) const {
    out[0] = __uint_as_float(type == DType::f32 ? bits : bits << 16);
    if (type == DType::f16) out[0] = decode_f16(uint16_t(bits));
  }
};

template <>
struct RawNumbers<float, 4> {
  uint4 bits = {};
  __device__ __forceinline__ void load_from(const char* data, int64_t index, DType type) {
    if (type == DType::f32) {
      bits = *reinterpret_cast<const uint4*>(data + 4 * index);
    } else {
      const uint2 half = *reinterpret_cast<const uint2*>(data + 2 * index);
      bits.x = half.x, bits.y = half.y;
    }
  }
  __device__ __forceinline__ void decode(DType type, float* out) const {
    const uint32_t words[4] = {bits.x, bits.y, bits.z, bits.w};
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      const uint32_t two = words[i / 2], one = i % 2 == 0 ? two & 0xffff : two >> 16;
      out[i] = __uint_as_float(type == DType::f32 ? words[i] : one << 16);
      if (type == DType::f16) out[i] = decode_f16(uint16_t(one));
    }
  }
};

__device__ __forceinline__ void store_numbers(char* data, int64_t index, DType type, const float (&in)[4]) {
  if (type == DType::f32) {
    *reinterpret_cast<float4*>(data + 4 * index) = make_float4(in[0], in[1], in[2], in[3]);
    return;
  }
  uint32_t bits[4];
#pragma unroll
  for (int i = 0; i < 4; ++i) bits[i] = type == DType::bf16 ? encode_bf16(in[i]) : encode_f16(in[i]);
  *reinterpret_cast<uint2*>(data + 2 * index) = make_uint2(bits[0] | bits[1] << 16, bits[2] | bits[3] << 16);
}
template <class Compute>
__device__ __forceinline__ void store_numbers(char* data, int64_t index, DType type, const Compute (&in)[1]) {
  store<Compute>(data, index, type, in[0]);
}

}  // namespace ssm::cuda
