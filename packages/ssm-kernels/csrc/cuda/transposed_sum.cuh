// Sums over lanes of a warp of several numbers at once, after which the sums are spread over the lanes.
#pragma once

#include <cuda_runtime.h>

namespace ssm::cuda {

// Every lane has kCount numbers; number i of lane `index` is added to number i of the kLanes - 1 others, which are
// kStride lanes apart each.  In each of log2(kLanes) rounds a lane gives half of its numbers away: afterwards it has the
// first() and following kKept sums.  That is kCount shuffles where kLanes sums by themselves would take log2(kLanes)
// times as many.
//
// In the first round lanes with an odd index give the first half away.  Where they hold the halves in exchanged order to
// begin with, as callers of this are asked to, nothing has to be selected.
template <int kCount, int kLanes, int kStride>
struct TransposedSum {
  static constexpr int kKept = kCount / kLanes > 0 ? kCount / kLanes : 1;

  static __device__ __forceinline__ void run(float (&v)[kCount], int index) {
    if constexpr (kLanes > 1) {
#pragma unroll
      for (int i = 0; i < kCount / 2; ++i) v[i] += __shfl_xor_sync(~0u, v[i + kCount / 2], kStride);
      round<2, kCount / 2>(v, index);
    }
  }

  // Of the numbers after the first round, which are half of them if there is more than one lane.
  static __device__ __forceinline__ int first(int index) {
    int first = 0, kept = kCount / 2;
#pragma unroll
    for (int bit = 2; bit < kLanes; bit *= 2) {
      kept /= 2;
      if ((index & bit) != 0) first += kept;
    }
    return first;
  }

  // Whether the lane is the first of those that have the same sum.
  static __device__ __forceinline__ bool first_of_equals(int index) { return index < kCount; }

 private:
  template <int kBit, int kNow>
  static __device__ __forceinline__ void round(float (&v)[kCount], int index) {
    if constexpr (kBit < kLanes) {
      if constexpr (kNow == 1) {
        v[0] += __shfl_xor_sync(~0u, v[0], kBit * kStride);
        round<2 * kBit, 1>(v, index);
      } else {
        const bool high = (index & kBit) != 0;
#pragma unroll
        for (int i = 0; i < kNow / 2; ++i) {
          const float given = high ? v[i] : v[i + kNow / 2], kept = high ? v[i + kNow / 2] : v[i];
          v[i] = kept + __shfl_xor_sync(~0u, given, kBit * kStride);
        }
        round<2 * kBit, kNow / 2>(v, index);
      }
    }
  }
};

// Stores kKept neighbouring numbers, the most at a time that an aligned address allows.
template <int kKept, int kCount>
__device__ __forceinline__ void store_together(float* to, const float (&v)[kCount], int from) {
  if constexpr (kKept >= 4) *reinterpret_cast<float4*>(to) = make_float4(v[from], v[from + 1], v[from + 2], v[from + 3]);
  else if constexpr (kKept == 2) *reinterpret_cast<float2*>(to) = make_float2(v[from], v[from + 1]);
  else *to = v[from];
}

}  // namespace ssm::cuda
