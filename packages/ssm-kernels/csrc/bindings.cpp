// The extension module ssm_kernels._native.  Functions take addresses, sizes and strides; ssm_kernels/native.py has the
// checks and the tensors.
#include "bindings.h"

#include <pybind11/stl.h>

#include <string>

#include "cpu/isa.h"
#include "cpu/parallel.h"

namespace py = pybind11;

namespace {

py::dict build_info() {
  py::dict info;
#if defined(__clang__)
  info["compiler"] = "clang " __clang_version__;
#elif defined(_MSC_VER)
  info["compiler"] = "msvc " + std::to_string(_MSC_VER);
#else
  info["compiler"] = "gcc " __VERSION__;
#endif
  info["isas_compiled"] = ssm::compiled_isas();
  info["isas_available"] = ssm::available_isas();
  info["isa"] = ssm::active_isa();
  info["parallel"] = ssm::parallel_backend();
  return info;
}

}  // namespace

PYBIND11_MODULE(_native, module) {
  module.doc() = "Native kernels of ssm_kernels; use them through ssm_kernels.native";
  module.def("build_info", &build_info);
  module.def("isa", &ssm::active_isa);
  module.def("available_isas", &ssm::available_isas);
  module.def("set_isa", &ssm::set_isa, py::arg("name"));
  module.def("force_own_pool", &ssm::force_own_pool, py::arg("forced"));
  ssm::bind_operators(module);
  ssm::bind_machine_limits(module);
}
