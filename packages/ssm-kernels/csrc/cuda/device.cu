// What is known of the GPU and its driver.
#include <cuda_runtime.h>

#include <string>

#include "cuda/launch.h"
#include "cuda/operators.h"

namespace ssm::cuda {
namespace {

__global__ void do_nothing(int) {}

}  // namespace

#ifdef __CUDACC__
int runtime_version() { return CUDART_VERSION; }

int driver_version() {
  int version = 0;
  if (cudaDriverGetVersion(&version) != cudaSuccess) cudaGetLastError();
  return version;
}

std::string device_problem(int device) {
  const auto text = [](int version) { return std::to_string(version / 1000) + "." + std::to_string(version % 1000 / 10); };
  if (driver_version() == 0) return "no NVIDIA driver was found; install one for CUDA " + text(runtime_version());
  if (driver_version() / 1000 < runtime_version() / 1000)
    return "the NVIDIA driver supports CUDA " + text(driver_version()) + " and the kernels were built with CUDA " +
           text(runtime_version()) + "; install a newer driver, or build the kernels with an older nvcc";
  try {
    const OnDevice on_device(device);
    cudaFuncAttributes attributes;
    const cudaError_t error = cudaFuncGetAttributes(&attributes, reinterpret_cast<const void*>(&do_nothing));
    if (error == cudaSuccess) return "";
    cudaGetLastError();
    int major = 0, minor = 0;
    cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, device);
    cudaDeviceGetAttribute(&minor, cudaDevAttrComputeCapabilityMinor, device);
    return "the kernels were not built for this GPU (sm_" + std::to_string(10 * major + minor) + "): " +
           cudaGetErrorString(error) + "; build them on this machine, or with CUDAARCHS=" +
           std::to_string(10 * major + minor);
  } catch (const std::runtime_error& error) {
    cudaGetLastError();
    return error.what();
  }
}
#else
int runtime_version() { return 0; }
int driver_version() { return 0; }
std::string device_problem(int) {
  launch(do_nothing, {1, 32}, {}, 0);
  return "";
}
#endif

}  // namespace ssm::cuda
