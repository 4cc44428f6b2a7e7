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

}  // namespace ssm::cuda
