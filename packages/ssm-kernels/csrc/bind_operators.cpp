// What the extension modules _native and _cuda have in common.
#include "bindings.h"

namespace py = pybind11;

namespace ssm {

void bind_operators(py::module_& module) {
  py::class_<CudaCall>(module, "CudaCall", py::module_local(), "Where a call runs on a GPU")
      .def(py::init<>())
      .def(py::init([](int32_t device, int64_t stream, py::handle allocator) {
             return CudaCall{device, pointer<void>(stream), allocator.ptr()};
           }),
           py::keep_alive<1, 4>(), "allocator: called with a number of bytes, returns an address");
  bind_selective_scan(module);
  bind_causal_conv1d(module);
  bind_causal_conv1d_update(module);
  bind_selective_state_update(module);
  bind_diagonal_scan(module);
  bind_ssd_scan(module);
  bind_linear(module);
  bind_log_vandermonde(module);
  bind_cauchy(module);
  bind_mamba_directions(module);
  bind_rms_norm(module);
}

}  // namespace ssm
