#include "bindings.h"
#include "kernels.h"
#include "diagonal_scan_params.h"

namespace py = pybind11;

namespace ssm {
namespace {

// sizes: (batch, steps, channels, dtype code).
void set_sizes(DiagonalInputs& in, const std::array<int64_t, 4>& sizes, bool is_complex) {
  for (int i = 0; i < 3; ++i)
    if (sizes[i] < 0) throw std::invalid_argument("negative size");
  in.batch = sizes[0], in.steps = sizes[1], in.channels = sizes[2];
  in.dtype = dtype_from(sizes[3]), in.is_complex = is_complex;
  if (is_complex && size_of(in.dtype) < 4) throw std::invalid_argument("complex numbers must be f32 or f64");
}

// per_axis: whether a has a value of its own for every batch index, step and channel.
void set_a(DiagonalInputs& in, const Ref3& a, const std::array<bool, 3>& per_axis) {
  in.a = view(a);
  in.a_per_batch = per_axis[0], in.a_per_step = per_axis[1], in.a_per_channel = per_axis[2];
  const DType compute = in.dtype == DType::f64 ? DType::f64 : DType::f32;
  if (in.a.dtype != compute && (in.a_broadcast() || in.a.dtype != in.dtype))
    throw std::invalid_argument("a must have the compute type");
}

// offsets: address of sequences + 1 numbers, which must outlive the call.
void set_packing(DiagonalInputs& in, int64_t offsets, int64_t sequences) {
  if (sequences < 0 || in.batch != 1) throw std::invalid_argument("packed sequences need a batch of 1");
  in.offsets = pointer<int64_t>(offsets), in.packed_sequences = sequences;
}

void set_mode(DiagonalInputs& in, int64_t initial_state, bool reverse, int num_threads) {
  in.initial_state = pointer<void>(initial_state), in.reverse = reverse, in.num_threads = num_threads;
}

void forward(const DiagonalInputs& in, const Ref3& u, const Ref3& h, int64_t final_state) {
  DiagonalForward params;
  params.in = in;
  params.u = view(u);
  params.h = view(h);
  params.final_state = pointer<void>(final_state);
  const KernelTable& kernels = active_kernels();
  const WithoutGil without_gil(kernels);
  kernels.diagonal_scan_forward(params);
}

// grads: addresses of the gradients of a and the initial state, 0 where not wanted.
void backward(const DiagonalInputs& in, const Ref3& grad_h, int64_t grad_final_state, const Ref3& h,
              const Ref3& grad_u, const std::array<int64_t, 2>& grads) {
  DiagonalBackward params;
  params.in = in;
  params.grad_h = view(grad_h);
  params.grad_final_state = pointer<void>(grad_final_state);
  params.h = view(h);
  params.grad_u = view(grad_u);
  params.grad_a = pointer<void>(grads[0]);
  params.grad_initial_state = pointer<void>(grads[1]);
  const KernelTable& kernels = active_kernels();
  const WithoutGil without_gil(kernels);
  kernels.diagonal_scan_backward(params);
}

}  // namespace

void bind_diagonal_scan(py::module_& module) {
  py::class_<DiagonalInputs>(module, "DiagonalInputs", py::module_local())
      .def(py::init<>())
      .def("set_sizes", &set_sizes)
      .def("set_a", &set_a)
      .def("set_packing", &set_packing)
      .def("set_mode", &set_mode)
      .def("set_cuda", &set_cuda<DiagonalInputs>, py::keep_alive<1, 2>());
  module.def("diagonal_scan_forward", &forward);
  module.def("diagonal_scan_backward", &backward);
}

}  // namespace ssm
