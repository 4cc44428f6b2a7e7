#include "bindings.h"
#include "kernels.h"
#include "log_vandermonde_params.h"

namespace py = pybind11;

namespace ssm {
namespace {

// sizes: (channels, rows, states, steps).
void set_sizes(VandermondeInputs& in, const std::array<int64_t, 4>& sizes, int64_t dtype) {
  for (const int64_t size : sizes)
    if (size <= 0) throw std::invalid_argument("a size is not positive");
  in.channels = sizes[0], in.rows = sizes[1], in.states = sizes[2], in.steps = sizes[3];
  in.dtype = dtype_from(dtype);
  if (size_of(in.dtype) < 4) throw std::invalid_argument("complex numbers must be f32 or f64");
}

void set_tensors(VandermondeInputs& in, int64_t v, int64_t x) {
  in.v = pointer<void>(v), in.x = pointer<void>(x);
}

void set_mode(VandermondeInputs& in, int num_threads) { in.num_threads = num_threads; }

void forward(const VandermondeInputs& in, int64_t K) {
  const KernelTable& kernels = active_kernels();
  const WithoutGil without_gil(kernels);
  kernels.log_vandermonde_forward({in, pointer<void>(K)});
}

// grads: addresses of the gradients of v and x, 0 where not wanted.
void backward(const VandermondeInputs& in, int64_t grad_K, const std::array<int64_t, 2>& grads) {
  const KernelTable& kernels = active_kernels();
  const WithoutGil without_gil(kernels);
  kernels.log_vandermonde_backward({in, pointer<void>(grad_K), pointer<void>(grads[0]), pointer<void>(grads[1])});
}

}  // namespace

void bind_log_vandermonde(py::module_& module) {
  py::class_<VandermondeInputs>(module, "VandermondeInputs", py::module_local())
      .def(py::init<>())
      .def("set_sizes", &set_sizes)
      .def("set_tensors", &set_tensors)
      .def("set_mode", &set_mode)
      .def("set_cuda", &set_cuda<VandermondeInputs>, py::keep_alive<1, 2>());
  module.def("log_vandermonde_forward", &forward);
  module.def("log_vandermonde_backward", &backward);
}

}  // namespace ssm
