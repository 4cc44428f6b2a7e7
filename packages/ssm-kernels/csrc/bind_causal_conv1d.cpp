#include "bindings.h"
#include "causal_conv1d_params.h"
#include "kernels.h"

namespace py = pybind11;

namespace ssm {
namespace {

// sizes: (batch, steps, channels, width, dtype code).
void set_sizes(ConvInputs& in, const std::array<int64_t, 5>& sizes) {
  for (int i = 0; i < 4; ++i)
    if (sizes[i] < 0) throw std::invalid_argument("negative size");
  if (sizes[3] < 1 || sizes[3] > kMostTaps) throw std::invalid_argument("width must be 1 to 8");
  in.batch = sizes[0], in.steps = sizes[1], in.channels = sizes[2], in.width = sizes[3];
  in.dtype = dtype_from(sizes[4]);
}

void set_tensors(ConvInputs& in, const Ref3& x, int64_t weight, int64_t bias, int64_t initial_state) {
  in.x = view(x);
  in.weight = pointer<void>(weight), in.bias = pointer<void>(bias), in.initial_state = pointer<void>(initial_state);
}

// offsets: address of sequences + 1 numbers, which must outlive the call.
void set_packing(ConvInputs& in, int64_t offsets, int64_t sequences) {
  if (sequences < 0 || in.batch != 1) throw std::invalid_argument("packed sequences need a batch of 1");
  in.offsets = pointer<int64_t>(offsets), in.packed_sequences = sequences;
}

void set_mode(ConvInputs& in, bool silu, bool reverse, int num_threads) {
  in.silu = silu, in.reverse = reverse, in.num_threads = num_threads;
}

void forward(const ConvInputs& in, const Ref3& y, int64_t final_state) {
  ConvForward params;
  params.in = in;
  params.y = view(y);
  params.final_state = pointer<void>(final_state);
  const KernelTable& kernels = active_kernels();
  const WithoutGil without_gil(kernels);
  kernels.causal_conv1d_forward(params);
}

// grads: addresses of the gradients of weight, bias and initial_state; 0 for the last two where not wanted.
void backward(const ConvInputs& in, const Ref3& grad_y, int64_t grad_final_state, const Ref3& grad_x,
              const std::array<int64_t, 3>& grads) {
  ConvBackward params;
  params.in = in;
  params.grad_y = view(grad_y);
  params.grad_final_state = pointer<void>(grad_final_state);
  params.grad_x = view(grad_x);
  params.grad_weight = pointer<void>(grads[0]);
  params.grad_bias = pointer<void>(grads[1]);
  params.grad_initial_state = pointer<void>(grads[2]);
  const KernelTable& kernels = active_kernels();
  const WithoutGil without_gil(kernels);
  kernels.causal_conv1d_backward(params);
}

}  // namespace

void bind_causal_conv1d(py::module_& module) {
  py::class_<ConvInputs>(module, "ConvInputs", py::module_local())
      .def(py::init<>())
      .def("set_sizes", &set_sizes)
      .def("set_tensors", &set_tensors)
      .def("set_packing", &set_packing)
      .def("set_mode", &set_mode)
      .def("set_cuda", &set_cuda<ConvInputs>, py::keep_alive<1, 2>());
  module.def("causal_conv1d_forward", &forward);
  module.def("causal_conv1d_backward", &backward);
}

}  // namespace ssm
