// The extension module ssm_kernels._cuda, or ssm_kernels._simulated, which runs the same kernels on the host.
// Functions take device addresses, sizes and strides; ssm_kernels/native.py has the checks and the tensors.
#include "bindings.h"
#include "cuda/bind_plans.h"
#include "cuda/operators.h"
#include "cuda/workspace.h"
#ifdef SSM_SIMULATED
#include "cuda/simulator/simulator.h"
#endif

namespace py = pybind11;

namespace ssm::cuda {

char* allocate(const CudaCall& call, int64_t bytes) {
  if (bytes == 0) return nullptr;
  if (call.allocator == nullptr) throw std::invalid_argument("the call brought no allocator of scratch memory");
  return pointer<char>(py::handle(static_cast<PyObject*>(call.allocator))(bytes).cast<int64_t>());
}

}  // namespace ssm::cuda

PYBIND11_MODULE(SSM_MODULE, module) {
  module.doc() = "CUDA kernels of ssm_kernels; use them through ssm_kernels.native";
  module.def("runtime_version", &ssm::cuda::runtime_version);
  module.def("driver_version", &ssm::cuda::driver_version);
  module.def("device_problem", &ssm::cuda::device_problem);
  module.attr("architectures") = SSM_ARCHITECTURES;
  ssm::bind_operators(module);
#ifdef SSM_SIMULATED
  module.def("set_backwards", &ssm::simulator::set_backwards);
  ssm::cuda::bind_causal_conv1d_plan(module);
  ssm::cuda::bind_diagonal_scan_plan(module);
  ssm::cuda::bind_s4_kernels_plan(module);
  ssm::cuda::bind_selective_scan_forward_plan(module);
  ssm::cuda::bind_ssd_plan(module);
  ssm::cuda::bind_scan_backward_plan(module);
  ssm::cuda::bind_update_plans(module);
#endif
}
