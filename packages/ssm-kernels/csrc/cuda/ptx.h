// The few instructions that CUDA C++ has no function for; each with what the simulator does instead.
#pragma once

#include <cuda_runtime.h>

#include <cstdint>

#ifndef __CUDACC__
#include "cuda/simulator/simulator.h"
#endif

namespace ssm::cuda {

// 2^x to about 2 ulp; results below the smallest normal number are 0.
__device__ __forceinline__ float exp2_approx(float x) {
#ifdef __CUDACC__
  float y;
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
  return y;
#else
  const float y = std::exp2(x);
  return y < 1.17549435e-38f ? 0.f : y;  // NaN compares false
#endif
}

// 1 / x to 1 ulp; subnormal numbers count as 0.
__device__ __forceinline__ float reciprocal_approx(float x) {
#ifdef __CUDACC__
  float y;
  asm("rcp.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
  return y;
#else
  return 1.f / x;
#endif
}

// base + a b, an address in global memory, in one instruction.  The compiler would spend three, and not know what memory
// it is where `base` was itself read from memory.
__device__ __forceinline__ char* global_address(char* base, int32_t a, int32_t b) {
#ifdef __CUDACC__
  char* address;
  asm("mad.wide.s32 %0, %1, %2, %3;" : "=l"(address) : "r"(a), "r"(b), "l"(base));
  __builtin_assume(__isGlobal(address));
  return address;
#else
  return base + int64_t(a) * b;
#endif
}

// The same number, of which the compiler knows nothing: what is computed from it inside a loop stays there, instead of
// filling the registers from before the loop on.
__device__ __forceinline__ int64_t opaque(int64_t x) {
#ifdef __CUDACC__
  asm volatile("" : "+l"(x));
#endif
  return x;
}

// The number rounded to TF32's 10 bits of mantissa, to the nearest.
__device__ __forceinline__ uint32_t to_tf32(float x) {
#ifdef __CUDACC__
  uint32_t y;
  asm("cvt.rna.tf32.f32 %0, %1;" : "=r"(y) : "f"(x));
  return y;
#else
  uint32_t bits = __float_as_uint(x);
  if ((bits & 0x7f800000) != 0x7f800000) bits += 0x1000;
  return bits & 0xffffe000;
#endif
}

// Copies `Bytes` (4, 8 or 16, both addresses aligned to it) from global to shared memory without waiting; the bytes after
// the first `bytes_read` become 0, and nothing is read for them.  See commit_copies and wait_for_copies.
template <int Bytes>
__device__ __forceinline__ void copy_async(void* shared, const void* global, int bytes_read = Bytes) {
  static_assert(Bytes == 4 || Bytes == 8 || Bytes == 16);
#ifdef __CUDACC__
  const uint32_t address = static_cast<uint32_t>(__cvta_generic_to_shared(shared));
  if constexpr (Bytes == 16) {
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(address), "l"(global), "r"(bytes_read) : "memory");
  } else {
    asm volatile("cp.async.ca.shared.global [%0], [%1], %3, %2;" ::"r"(address), "l"(global), "r"(bytes_read), "n"(Bytes)
                 : "memory");
  }
#else
  if (reinterpret_cast<uintptr_t>(shared) % Bytes != 0 || reinterpret_cast<uintptr_t>(global) % Bytes != 0)
    simulator::mistake("a misaligned asynchronous copy");
  simulator::copy_async(shared, global, Bytes, bytes_read);
#endif
}

// Ends a group of this thread's copies.
__device__ __forceinline__ void commit_copies() {
#ifdef __CUDACC__
  asm volatile("cp.async.commit_group;" ::: "memory");
#else
  simulator::commit_copies();
#endif
}

// Waits until all but the last `GroupsLeft` groups of this thread have arrived; other threads see them after a barrier.
template <int GroupsLeft>
__device__ __forceinline__ void wait_for_copies() {
#ifdef __CUDACC__
  asm volatile("cp.async.wait_group %0;" ::"n"(GroupsLeft) : "memory");
#else
  simulator::wait_for_copies(GroupsLeft);
#endif
}

// sums += A B of a warp: A (16, k) and B (k, 8), sums (16, 8) in float.  With q = lane / 4 and r = lane % 4 a lane holds
// sums (q, 2r), (q, 2r + 1), (q + 8, 2r), (q + 8, 2r + 1); the rows of A are q, q + 8, q, q + 8 and the column of B is q.
//   16-bit numbers, k = 16: two at a time, those at 2r and 2r + 1 of k, in the other half of `a` and `b` at 8 more;
//   TF32, k = 8: those at r, in the other half at r + 4.
#ifndef __CUDACC__
// `decode(register, part)` is one of the numbers in a register.
template <int Depth, class Decode>
inline void multiply_exchanged(float (&sums)[4], const uint32_t (&a)[4], const uint32_t (&b)[2], Decode decode) {
  constexpr int kPerRegister = Depth / 8, kHalf = Depth / 2;
  uint32_t left[32][4], right[32][2];
  const char* places = simulator::exchange(~0u, a, 16);
  for (int lane = 0; lane < 32; ++lane) std::memcpy(left[lane], places + 16 * lane, 16);
  places = simulator::exchange(~0u, b, 8);
  for (int lane = 0; lane < 32; ++lane) std::memcpy(right[lane], places + 16 * lane, 8);
  const int q = simulator::lane() / 4, r = simulator::lane() % 4;
  for (int i = 0; i < 4; ++i) {
    const int row = q, column = 2 * r + (i & 1), lower = i >> 1;
    for (int k = 0; k < Depth; ++k) {
      const int half = k / kHalf, owner = k % kHalf / kPerRegister, part = k % kPerRegister;
      sums[i] += decode(left[4 * row + owner][2 * half + lower], part) * decode(right[4 * column + owner][half], part);
    }
  }
}
float decode_f16(uint16_t bits);  // numbers.h
#endif

__device__ __forceinline__ void mma_bf16(float (&sums)[4], const uint32_t (&a)[4], const uint32_t (&b)[2]) {
#ifdef __CUDACC__
  asm("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
      : "+f"(sums[0]), "+f"(sums[1]), "+f"(sums[2]), "+f"(sums[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
#else
  multiply_exchanged<16>(sums, a, b, [](uint32_t x, int part) { return __uint_as_float(part ? x & 0xffff0000u : x << 16); });
#endif
}

__device__ __forceinline__ void mma_f16(float (&sums)[4], const uint32_t (&a)[4], const uint32_t (&b)[2]) {
#ifdef __CUDACC__
  asm("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
      : "+f"(sums[0]), "+f"(sums[1]), "+f"(sums[2]), "+f"(sums[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
#else
  multiply_exchanged<16>(sums, a, b, [](uint32_t x, int part) { return decode_f16(uint16_t(part ? x >> 16 : x)); });
#endif
}

// Of numbers from to_tf32.
__device__ __forceinline__ void mma_tf32(float (&sums)[4], const uint32_t (&a)[4], const uint32_t (&b)[2]) {
#ifdef __CUDACC__
  asm("mma.sync.aligned.m16n8k8.row.col.f32.tf32.tf32.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
      : "+f"(sums[0]), "+f"(sums[1]), "+f"(sums[2]), "+f"(sums[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
#else
  multiply_exchanged<8>(sums, a, b, [](uint32_t x, int) { return __uint_as_float(x); });
#endif
}

}  // namespace ssm::cuda
