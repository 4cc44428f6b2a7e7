// How host code starts a kernel, and shared memory inside one.
#pragma once

#include <cuda_runtime.h>

#include <stdexcept>
#include <string>

#include "cuda/workspace.h"
#include "params.h"

#ifndef __CUDACC__
#include "cuda/simulator/simulator.h"
#endif

namespace ssm::cuda {

// Shared memory of the block, as much as the launch asked for; aligned to 128 bytes.
template <class T = char>
__device__ __forceinline__ T* shared_memory() {
#ifdef __CUDACC__
  extern __shared__ __align__(128) char ssm_shared_memory[];
  return reinterpret_cast<T*>(ssm_shared_memory);
#else
  return reinterpret_cast<T*>(simulator::shared_memory());
#endif
}

struct LaunchShape {
  dim3 grid, block;
  int64_t shared_bytes = 0;
  bool empty() const { return grid.x == 0 || grid.y == 0 || grid.z == 0; }
};

__host__ __device__ inline int64_t divide_up(int64_t a, int64_t b) { return (a + b - 1) / b; }

#ifdef __CUDACC__
inline void check(cudaError_t error, const char* what) {
  if (error == cudaSuccess) return;
  throw std::runtime_error(std::string(what) + ": " + cudaGetErrorString(error));
}

// Makes the device of a call the current one while it lives.
class OnDevice {
 public:
  explicit OnDevice(int device) : device_(device) {
    check(cudaGetDevice(&before_), "cudaGetDevice");
    if (before_ != device_) check(cudaSetDevice(device_), "cudaSetDevice");
  }
  ~OnDevice() {
    if (before_ != device_) cudaSetDevice(before_);
  }
  OnDevice(const OnDevice&) = delete;
  OnDevice& operator=(const OnDevice&) = delete;

 private:
  int device_, before_ = 0;
};

inline int multiprocessors(const CudaCall& call) {
  int count = 0;
  check(cudaDeviceGetAttribute(&count, cudaDevAttrMultiProcessorCount, call.device), "cudaDeviceGetAttribute");
  return count;
}
// Shared memory that a block can have: 227 KB on sm_90, 99 KB on consumer GPUs.
inline int64_t most_shared_bytes(const CudaCall& call) {
  int bytes = 0;
  check(cudaDeviceGetAttribute(&bytes, cudaDevAttrMaxSharedMemoryPerBlockOptin, call.device), "cudaDeviceGetAttribute");
  return bytes;
}
#else
class OnDevice {
 public:
  explicit OnDevice(int) {}
};

inline int multiprocessors(const CudaCall&) { return 132; }
inline int64_t most_shared_bytes(const CudaCall&) { return simulator::kMostSharedBytes; }
#endif

// Starts `kernel(params)` on the stream of the call; params go by value, at most 4 KB.  Does not wait.  An empty grid is
// nothing to do.  Throws std::runtime_error if CUDA refuses.
template <class Params>
void launch(void (*kernel)(Params), const LaunchShape& shape, const CudaCall& call, const Params& params) {
  static_assert(sizeof(Params) <= 4096);
  if (shape.empty()) return;
#ifdef __CUDACC__
  const OnDevice on_device(call.device);
  if (shape.shared_bytes > 48 * 1024)  // more needs to be allowed; costs a microsecond, so not remembered per device
    check(cudaFuncSetAttribute(reinterpret_cast<const void*>(kernel), cudaFuncAttributeMaxDynamicSharedMemorySize,
                               static_cast<int>(shape.shared_bytes)),
          "cudaFuncSetAttribute");
  kernel<<<shape.grid, shape.block, shape.shared_bytes, static_cast<cudaStream_t>(call.stream)>>>(params);
  check(cudaGetLastError(), "kernel launch");
#else
  (void)call;
  simulator::run(shape.grid, shape.block, size_t(shape.shared_bytes), [&] { kernel(params); });
#endif
}

}  // namespace ssm::cuda
