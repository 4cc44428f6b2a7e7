// The part of CUDA that our kernels use, for a C++ compiler without a GPU.  The build of the simulator finds this file
// under the name of CUDA's own header; kernels are written in plain CUDA and do not know the difference.
//
// Not here on purpose: `__shared__` arrays (kernels take shared memory from launch.h, where its exact size is known and
// watched), atomics (results must not depend on the order of threads) and anything that waits for another block.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>

#define __global__
#define __device__
#define __host__
#define __forceinline__ inline
#define __noinline__
#define __launch_bounds__(...)
#define __grid_constant__
#define __constant__ static const

struct uint3 {
  unsigned x = 0, y = 0, z = 0;
};
struct dim3 {
  unsigned x, y, z;
  constexpr dim3(unsigned x_ = 1, unsigned y_ = 1, unsigned z_ = 1) : x(x_), y(y_), z(z_) {}
};
struct alignas(8) float2 {
  float x, y;
};
struct alignas(16) float4 {
  float x, y, z, w;
};
struct uint1 {
  unsigned x;
};
struct alignas(8) uint2 {
  unsigned x, y;
};
struct alignas(16) uint4 {
  unsigned x, y, z, w;
};
inline float2 make_float2(float x, float y) { return {x, y}; }
inline float4 make_float4(float x, float y, float z, float w) { return {x, y, z, w}; }
inline uint2 make_uint2(unsigned x, unsigned y) { return {x, y}; }
inline uint4 make_uint4(unsigned x, unsigned y, unsigned z, unsigned w) { return {x, y, z, w}; }

namespace ssm::simulator {

// Coordinates of the thread that runs.
extern uint3 thread_index, block_index;
extern dim3 block_size, grid_size;

void barrier();  // of the block; threads that have ended count as arrived

// Every lane of `mask` gives `size` bytes (at most 16) and waits for the others; returns the 32 places of the warp, 16
// bytes each, valid until the lane's next exchange but one.
const char* exchange(unsigned mask, const void* value, int size);

template <class T>
T shuffle(unsigned mask, T value, int source) {
  static_assert(sizeof(T) <= 16);
  const char* places = exchange(mask, &value, sizeof(T));
  T result;
  std::memcpy(&result, places + 16 * (source & 31), sizeof(T));
  return result;
}

inline int lane() {
  return int((thread_index.x + block_size.x * (thread_index.y + block_size.y * thread_index.z)) & 31);
}

}  // namespace ssm::simulator

#define threadIdx ::ssm::simulator::thread_index
#define blockIdx ::ssm::simulator::block_index
#define blockDim ::ssm::simulator::block_size
#define gridDim ::ssm::simulator::grid_size
#define warpSize 32

inline void __syncthreads() { ssm::simulator::barrier(); }
inline void __syncwarp(unsigned mask = ~0u) { ssm::simulator::exchange(mask, nullptr, 0); }

template <class T>
T __shfl_sync(unsigned mask, T value, int source, int width = 32) {
  const int lane = ssm::simulator::lane();
  return ssm::simulator::shuffle(mask, value, (lane & ~(width - 1)) + (source & (width - 1)));
}
template <class T>
T __shfl_xor_sync(unsigned mask, T value, int bits, int width = 32) {
  const int lane = ssm::simulator::lane(), other = lane ^ bits;
  return ssm::simulator::shuffle(mask, value, (other & ~(width - 1)) <= (lane & ~(width - 1)) ? other : lane);
}
template <class T>
T __shfl_up_sync(unsigned mask, T value, unsigned distance, int width = 32) {
  const int lane = ssm::simulator::lane(), other = lane - int(distance);
  return ssm::simulator::shuffle(mask, value, other < (lane & ~(width - 1)) ? lane : other);
}
template <class T>
T __shfl_down_sync(unsigned mask, T value, unsigned distance, int width = 32) {
  const int lane = ssm::simulator::lane(), other = lane + int(distance);
  return ssm::simulator::shuffle(mask, value, other > (lane | (width - 1)) ? lane : other);
}

template <class To, class From>
To ssm_bit_cast(From from) {
  static_assert(sizeof(To) == sizeof(From));
  To to;
  std::memcpy(&to, &from, sizeof(To));
  return to;
}
inline unsigned __float_as_uint(float x) { return ssm_bit_cast<unsigned>(x); }
inline float __uint_as_float(unsigned x) { return ssm_bit_cast<float>(x); }
using std::max;
using std::min;
