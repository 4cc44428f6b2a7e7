#include <pybind11/stl.h>

#include <array>
#include <stdexcept>

#include "bindings.h"
#include "cpu/isa.h"

namespace py = pybind11;

namespace ssm {
namespace {

// What Python passes for a tensor: (address, stride_b, stride_l, stride_d); address 0 for an absent one.
using Ref3 = std::array<int64_t, 4>;
// For B and C: (address, groups, stride_b, stride_l, stride_g, stride_n); groups 0 for a constant.
using RefBC = std::array<int64_t, 6>;

template <class T>
T* pointer(int64_t address) {
  return reinterpret_cast<T*>(static_cast<intptr_t>(address));
}

View3 view(const Ref3& ref) { return {pointer<char>(ref[0]), ref[1], ref[2], ref[3]}; }

CoefficientView coefficient(const RefBC& ref) {
  return {pointer<char>(ref[0]), ref[1], ref[2], ref[3], ref[4], ref[5]};
}

// Python fills one of these and hands it to the forward or the backward function.
void set_sizes(ScanInputs& in, int64_t batch, int64_t steps, int64_t channels, int64_t states, int dtype,
               bool complex_A) {
  if (batch < 0 || steps < 0 || channels < 0 || states < 0) throw std::invalid_argument("negative size");
  if (dtype < 0 || dtype > 3) throw std::invalid_argument("unknown dtype code");
  in.batch = batch, in.steps = steps, in.channels = channels, in.states = complex_A ? 2 * states : states;
  in.dtype = static_cast<DType>(dtype), in.complex_A = complex_A;
}

void set_sequences(ScanInputs& in, const Ref3& u, const Ref3& delta, const Ref3& z, const RefBC& B, const RefBC& C) {
  in.u = view(u), in.delta = view(delta), in.z = view(z);
  in.B = coefficient(B), in.C = coefficient(C);
  for (const CoefficientView* coefficients : {&in.B, &in.C})
    if (coefficients->groups < 0 || (coefficients->groups > 0 && in.channels % coefficients->groups != 0))
      throw std::invalid_argument("the number of channels must be a multiple of the number of groups");
}

void set_parameters(ScanInputs& in, int64_t A, int64_t D, int64_t delta_bias, int64_t initial_state) {
  in.A = pointer<void>(A), in.D = pointer<void>(D), in.delta_bias = pointer<void>(delta_bias);
  in.initial_state = pointer<void>(initial_state);
}

void set_mode(ScanInputs& in, bool delta_softplus, bool reverse, int num_threads) {
  in.delta_softplus = delta_softplus, in.reverse = reverse, in.num_threads = num_threads;
}

void forward(const ScanInputs& in, const Ref3& y, int64_t final_state, int64_t checkpoints) {
  ScanForward params;
  params.in = in;
  params.y = view(y);
  params.final_state = pointer<void>(final_state);
  params.checkpoints = pointer<void>(checkpoints);
  const KernelTable& kernels = active_kernels();
  py::gil_scoped_release release;
  (in.complex_A ? kernels.selective_scan_complex_forward : kernels.selective_scan_forward)(params);
}

// grads: addresses of the gradients of A, D, delta_bias and initial_state, 0 where not wanted.
void backward(const ScanInputs& in, const Ref3& grad_y, int64_t grad_final_state, int64_t checkpoints,
              const std::array<Ref3, 3>& grad_sequences, const std::array<RefBC, 2>& grad_coefficients,
              const std::array<int64_t, 4>& grads) {
  ScanBackward params;
  params.in = in;
  params.grad_y = view(grad_y);
  params.grad_final_state = pointer<void>(grad_final_state);
  params.checkpoints = pointer<void>(checkpoints);
  params.grad_u = view(grad_sequences[0]);
  params.grad_delta = view(grad_sequences[1]);
  params.grad_z = view(grad_sequences[2]);
  params.grad_B = coefficient(grad_coefficients[0]);
  params.grad_C = coefficient(grad_coefficients[1]);
  params.grad_A = pointer<void>(grads[0]);
  params.grad_D = pointer<void>(grads[1]);
  params.grad_delta_bias = pointer<void>(grads[2]);
  params.grad_initial_state = pointer<void>(grads[3]);
  const KernelTable& kernels = active_kernels();
  py::gil_scoped_release release;
  (in.complex_A ? kernels.selective_scan_complex_backward : kernels.selective_scan_backward)(params);
}

}  // namespace

void bind_selective_scan(py::module_& module) {
  py::class_<ScanInputs>(module, "ScanInputs")
      .def(py::init<>())
      .def("set_sizes", &set_sizes)
      .def("set_sequences", &set_sequences)
      .def("set_parameters", &set_parameters)
      .def("set_mode", &set_mode);
  module.def("scan_chunks", &scan_chunks);
  module.def("selective_scan_forward", &forward);
  module.def("selective_scan_backward", &backward);
}

}  // namespace ssm
