#include <tuple>

#include "bindings.h"
#include "kernels.h"

namespace py = pybind11;

namespace ssm {
namespace {

// For B and C: (address, groups, stride_b, stride_l, stride_g, stride_n); groups 0 for a constant.
using RefBC = std::array<int64_t, 6>;

CoefficientView coefficient(const RefBC& ref) {
  return {pointer<char>(ref[0]), ref[1], ref[2], ref[3], ref[4], ref[5]};
}

// Python fills one of these and hands it to the forward or the backward function.
void set_sizes(ScanInputs& in, int64_t batch, int64_t steps, int64_t channels, int64_t states, int dtype,
               bool complex_A) {
  if (batch < 0 || steps < 0 || channels < 0 || states < 0) throw std::invalid_argument("negative size");
  in.batch = batch, in.steps = steps, in.channels = channels, in.states = complex_A ? 2 * states : states;
  in.dtype = dtype_from(dtype), in.complex_A = complex_A;
}

void set_sequences(ScanInputs& in, const Ref3& u, const Ref3& delta, const Ref3& z, const RefBC& B, const RefBC& C) {
  in.u = view(u), in.delta = view(delta), in.z = view(z);
  in.B = coefficient(B), in.C = coefficient(C);
  for (const CoefficientView* coefficients : {&in.B, &in.C})
    if (coefficients->groups < 0 || (coefficients->groups > 0 && in.channels % coefficients->groups != 0))
      throw std::invalid_argument("the number of channels must be a multiple of the number of groups");
}

void set_parameters(ScanInputs& in, int64_t A, bool shared_decay, int64_t D, int64_t delta_bias,
                    int64_t initial_state) {
  in.A = pointer<void>(A), in.shared_decay = shared_decay, in.D = pointer<void>(D);
  in.delta_bias = pointer<void>(delta_bias), in.initial_state = pointer<void>(initial_state);
}

// offsets: address of sequences + 1 numbers, which must outlive the call.
void set_packing(ScanInputs& in, int64_t offsets, int64_t sequences) {
  if (sequences < 0 || in.batch != 1) throw std::invalid_argument("packed sequences need a batch of 1");
  in.offsets = pointer<int64_t>(offsets), in.packed_sequences = sequences;
}

// columns: 0, or the width of the image whose columns time runs down.
void set_mode(ScanInputs& in, bool delta_softplus, bool reverse, int64_t columns, int num_threads) {
  if (columns < 0 || (columns > 0 && (in.steps % columns != 0 || in.offsets != nullptr)))
    throw std::invalid_argument("columns must divide the steps of one unpacked sequence");
  in.delta_softplus = delta_softplus, in.reverse = reverse, in.columns = columns, in.num_threads = num_threads;
}

void forward(const ScanInputs& in, const Ref3& y, bool add_to_y, int64_t final_state,
             int64_t checkpoints) {
  ScanForward params;
  params.in = in;
  params.y = view(y), params.add_to_y = add_to_y;
  params.final_state = pointer<void>(final_state);
  params.checkpoints = pointer<void>(checkpoints);
  const KernelTable& kernels = active_kernels();
  const WithoutGil without_gil(kernels);
  (in.complex_A ? kernels.selective_scan_complex_forward : kernels.selective_scan_forward)(params);
}

// checkpoints: one address per direction, 0 where not wanted.
void directions_forward(const std::vector<ScanInputs>& inputs, const Ref3& y, const std::vector<int64_t>& checkpoints) {
  if (inputs.empty() || checkpoints.size() != inputs.size()) throw std::invalid_argument("one address per direction");
  std::vector<ScanForward> directions(inputs.size());
  for (size_t k = 0; k < inputs.size(); ++k) {
    directions[k].in = inputs[k], directions[k].y = view(y);
    directions[k].checkpoints = pointer<void>(checkpoints[k]);
  }
  const KernelTable& kernels = active_kernels();
  const WithoutGil without_gil(kernels);
  kernels.selective_scan_directions_forward(directions.data(), static_cast<int64_t>(directions.size()));
}

// add: to the gradients of u and z instead of overwriting them.
// grads: addresses of the gradients of A, D, delta_bias and initial_state, 0 where not wanted.
void backward(const ScanInputs& in, const Ref3& grad_y, int64_t grad_final_state, int64_t checkpoints,
              const std::array<Ref3, 3>& grad_sequences, const std::array<bool, 2>& add,
              const std::array<RefBC, 2>& grad_coefficients, const std::array<int64_t, 4>& grads) {
  ScanBackward params;
  params.in = in;
  params.grad_y = view(grad_y);
  params.grad_final_state = pointer<void>(grad_final_state);
  params.checkpoints = pointer<void>(checkpoints);
  params.grad_u = view(grad_sequences[0]);
  params.grad_delta = view(grad_sequences[1]);
  params.grad_z = view(grad_sequences[2]);
  params.add_to_grad_u = add[0], params.add_to_grad_z = add[1];
  params.grad_B = coefficient(grad_coefficients[0]);
  params.grad_C = coefficient(grad_coefficients[1]);
  params.grad_A = pointer<void>(grads[0]);
  params.grad_D = pointer<void>(grads[1]);
  params.grad_delta_bias = pointer<void>(grads[2]);
  params.grad_initial_state = pointer<void>(grads[3]);
  const KernelTable& kernels = active_kernels();
  const WithoutGil without_gil(kernels);
  (in.complex_A ? kernels.selective_scan_complex_backward : kernels.selective_scan_backward)(params);
}

// What differs from direction to direction: addresses of checkpoints; gradients of u, delta and z; of B and C; addresses
// of those of A, D and delta_bias.
using DirectionRefs = std::tuple<int64_t, std::array<Ref3, 3>, std::array<RefBC, 2>, std::array<int64_t, 3>>;

// shared_u: the directions have the same u, and its gradient is one.
void directions_backward(const std::vector<ScanInputs>& inputs, const Ref3& grad_y, bool shared_u,
                         const std::vector<DirectionRefs>& refs) {
  if (inputs.empty() || refs.size() != inputs.size()) throw std::invalid_argument("one list of tensors per direction");
  std::vector<ScanBackward> directions(inputs.size());
  for (size_t k = 0; k < inputs.size(); ++k) {
    const auto& [checkpoints, sequences, coefficients, grads] = refs[k];
    ScanBackward& one = directions[k];
    one.in = inputs[k], one.grad_y = view(grad_y), one.checkpoints = pointer<void>(checkpoints);
    one.grad_u = view(sequences[0]), one.grad_delta = view(sequences[1]), one.grad_z = view(sequences[2]);
    one.add_to_grad_u = shared_u && k > 0, one.add_to_grad_z = k > 0;
    one.grad_B = coefficient(coefficients[0]), one.grad_C = coefficient(coefficients[1]);
    one.grad_A = pointer<void>(grads[0]), one.grad_D = pointer<void>(grads[1]);
    one.grad_delta_bias = pointer<void>(grads[2]);
  }
  const KernelTable& kernels = active_kernels();
  if (kernels.selective_scan_directions_backward == nullptr) throw std::invalid_argument("call the scans one by one");
  const WithoutGil without_gil(kernels);
  kernels.selective_scan_directions_backward(directions.data(), static_cast<int64_t>(directions.size()));
}

}  // namespace

void bind_selective_scan(py::module_& module) {
  py::class_<ScanInputs>(module, "ScanInputs", py::module_local())
      .def(py::init<>())
      .def("set_sizes", &set_sizes)
      .def("set_sequences", &set_sequences)
      .def("set_parameters", &set_parameters)
      .def("set_packing", &set_packing)
      .def("set_mode", &set_mode)
      .def("set_cuda", &set_cuda<ScanInputs>, py::keep_alive<1, 2>());
  module.def("scan_chunks", [](const ScanInputs& in) { return scan_chunks(in.sequences()); });
  module.def("selective_scan_forward", &forward);
  module.def("selective_scan_backward", &backward);
  module.def("scans_directions_together",
             [] { return active_kernels().selective_scan_directions_backward != nullptr; });
  module.def("selective_scan_directions_forward", &directions_forward);
  module.def("selective_scan_directions_backward", &directions_backward);
}

}  // namespace ssm
