#include "bindings.h"
#include "cauchy_params.h"
#include "kernels.h"

namespace py = pybind11;

namespace ssm {
namespace {

// sizes: (channels, rows, states, nodes).
void set_sizes(CauchyInputs& in, const std::array<int64_t, 4>& sizes, int64_t dtype) {
  for (const int64_t size : sizes)
    if (size <= 0) throw std::invalid_argument("a size is not positive");
  in.channels = sizes[0], in.rows = sizes[1], in.states = sizes[2], in.nodes = sizes[3];
  in.dtype = dtype_from(dtype);
  if (size_of(in.dtype) < 4) throw std::invalid_argument("complex numbers must be f32 or f64");
}

void set_tensors(CauchyInputs& in, int64_t v, int64_t z, int64_t w, bool z_per_row) {
  in.v = pointer<void>(v), in.z = pointer<void>(z), in.w = pointer<void>(w), in.z_per_row = z_per_row;
}

void set_mode(CauchyInputs& in, int num_threads) { in.num_threads = num_threads; }

void forward(const CauchyInputs& in, int64_t R) {
  const KernelTable& kernels = active_kernels();
  const WithoutGil without_gil(kernels);
  kernels.cauchy_forward({in, pointer<void>(R)});
}

// grads: addresses of the gradients of v, z and w, 0 where not wanted.
void backward(const CauchyInputs& in, int64_t grad_R, const std::array<int64_t, 3>& grads) {
  const KernelTable& kernels = active_kernels();
  const WithoutGil without_gil(kernels);
  kernels.cauchy_backward(
      {in, pointer<void>(grad_R), pointer<void>(grads[0]), pointer<void>(grads[1]), pointer<void>(grads[2])});
}

}  // namespace

void bind_cauchy(py::module_& module) {
  py::class_<CauchyInputs>(module, "CauchyInputs", py::module_local())
      .def(py::init<>())
      .def("set_sizes", &set_sizes)
      .def("set_tensors", &set_tensors)
      .def("set_mode", &set_mode)
      .def("set_cuda", &set_cuda<CauchyInputs>, py::keep_alive<1, 2>());
  module.def("cauchy_forward", &forward);
  module.def("cauchy_backward", &backward);
}

}  // namespace ssm
