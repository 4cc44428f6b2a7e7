#include "bindings.h"
#include "kernels.h"
#include "ssd_scan_params.h"

namespace py = pybind11;

namespace ssm {
namespace {

View4 view4(const Ref3& ref) { return {pointer<char>(ref[0]), ref[1], ref[2], ref[3], ref[4]}; }

// sizes: b, l, h, p, g, n.
void set_sizes(SsdInputs& in, const std::array<int64_t, 6>& sizes, int64_t dtype) {
  for (const int64_t size : sizes)
    if (size < 0) throw std::invalid_argument("negative size");
  in.batch = sizes[0], in.steps = sizes[1], in.heads = sizes[2];
  in.channels = sizes[3], in.groups = sizes[4], in.states = sizes[5];
  if (in.groups < 1 || in.heads % in.groups != 0) throw std::invalid_argument("groups must divide the heads");
  in.dtype = dtype_from(dtype);
}

// Of x, dt, B, C, z.
void set_activations(SsdInputs& in, const std::array<Ref3, 5>& refs) {
  in.x = view4(refs[0]), in.dt = view4(refs[1]), in.B = view4(refs[2]), in.C = view4(refs[3]), in.z = view4(refs[4]);
}

// Of A, D, dt_bias, initial_state.
void set_parameters(SsdInputs& in, const std::array<int64_t, 4>& addresses, bool D_per_channel) {
  in.A = pointer<void>(addresses[0]), in.D = pointer<void>(addresses[1]), in.dt_bias = pointer<void>(addresses[2]);
  in.initial_state = pointer<void>(addresses[3]), in.D_per_channel = D_per_channel;
}

void set_packing(SsdInputs& in, int64_t offsets, int64_t sequences) {
  if (sequences < 0 || in.batch != 1) throw std::invalid_argument("packed sequences need a batch of 1");
  in.offsets = pointer<int64_t>(offsets), in.packed_sequences = sequences;
}

void set_mode(SsdInputs& in, bool dt_softplus, double dt_min, double dt_max, bool reverse, int num_threads) {
  in.dt_softplus = dt_softplus, in.dt_min = dt_min, in.dt_max = dt_max, in.reverse = reverse;
  in.num_threads = num_threads;
}

void forward(const SsdInputs& in, const Ref3& y, int64_t final_state) {
  SsdForward params;
  params.in = in;
  params.y = view4(y);
  params.final_state = pointer<void>(final_state);
  const WithoutGil without_gil(active_kernels());
  active_kernels().ssd_scan_forward(params);
}

// grads: of x, dt, B, C, z; parameters: addresses of the gradients of A, D, dt_bias and the initial state.
void backward(const SsdInputs& in, const Ref3& grad_y, int64_t grad_final_state, const std::array<Ref3, 5>& grads,
              const std::array<int64_t, 4>& parameters) {
  SsdBackward params;
  params.in = in;
  params.grad_y = view4(grad_y);
  params.grad_final_state = pointer<void>(grad_final_state);
  params.grad_x = view4(grads[0]), params.grad_dt = view4(grads[1]), params.grad_B = view4(grads[2]);
  params.grad_C = view4(grads[3]), params.grad_z = view4(grads[4]);
  params.grad_A = pointer<void>(parameters[0]), params.grad_D = pointer<void>(parameters[1]);
  params.grad_dt_bias = pointer<void>(parameters[2]), params.grad_initial_state = pointer<void>(parameters[3]);
  const WithoutGil without_gil(active_kernels());
  active_kernels().ssd_scan_backward(params);
}

}  // namespace

void bind_ssd_scan(py::module_& module) {
  py::class_<SsdInputs>(module, "SsdInputs", py::module_local())
      .def(py::init<>())
      .def("set_sizes", &set_sizes)
      .def("set_activations", &set_activations)
      .def("set_parameters", &set_parameters)
      .def("set_packing", &set_packing)
      .def("set_mode", &set_mode)
      .def("set_cuda", &set_cuda<SsdInputs>, py::keep_alive<1, 2>());
  module.def("ssd_scan_forward", &forward);
  module.def("ssd_scan_backward", &backward);
}

}  // namespace ssm
