// The selective scan of every instruction set against plain loops: values and gradients, over shapes, strides, storage
// types and options, and the same bits from one thread and from three.
#include <cstdlib>

#include "cpu/isa.h"
#include "tests/scan_reference.h"

namespace ssm::tests {
namespace {

struct Case {
  ScanTensors in;
  ScanCotangents cotangents;
};

struct Sizes {
  int64_t batch, steps, channels, states, parts;
};

// B or C: variable with 1 or more groups, or constant.
Tensor make_coefficient(Random& random, const Sizes& s, DType dtype, bool shifted) {
  if (random.chance(25)) return Tensor(compute_type(dtype), {s.channels, s.states, s.parts}, {}, shifted);
  int64_t groups = random.pick<int64_t>({1, 1, 2, 3, 5, 11});
  if (groups > s.channels || s.channels % groups != 0) groups = 1;
  const DType stored = s.parts == 2 ? compute_type(dtype) : dtype;
  return Tensor(stored, {s.batch, s.steps, groups, s.states, s.parts}, random_layout(random, 4, 1), shifted);
}

Case make_case(Random& random) {
  Case c;
  ScanTensors& in = c.in;
  in.complex_A = random.chance(40), in.softplus = random.chance(50), in.reverse = random.chance(40);
  const Sizes s = {random.pick<int64_t>({0, 1, 1, 2, 2, 3}),
                   random.pick<int64_t>({0, 1, 31, 32, 33, 65}),
                   random.pick<int64_t>({1, 3, 16, 17, 33, 70}),
                   random.pick<int64_t>({1, 3, 5, 16}),
                   in.complex_A ? 2 : 1};
  const DType dtype = random.pick({DType::f32, DType::f64, DType::bf16, DType::f16}), compute = compute_type(dtype);
  const bool shifted = random.chance(50);
  const std::vector<int64_t> sequence = {s.batch, s.steps, s.channels}, state = {s.batch, s.channels, s.states, s.parts};
  const auto make_sequence = [&] { return Tensor(dtype, sequence, random_layout(random, 3), shifted); };

  in.u = make_sequence(), in.delta = make_sequence();
  in.A = Tensor(compute, {s.channels, s.states, s.parts}, {}, shifted);
  in.B = make_coefficient(random, s, dtype, shifted), in.C = make_coefficient(random, s, dtype, shifted);
  if (random.chance(50)) in.z = make_sequence();
  if (random.chance(60)) in.D = Tensor(compute, {s.channels}, {}, shifted);
  if (random.chance(60)) in.delta_bias = Tensor(compute, {s.channels}, {}, shifted);
  if (random.chance(60)) in.initial_state = Tensor(compute, state, {}, shifted);
  c.cotangents.y = make_sequence();
  if (random.chance(60)) c.cotangents.final_state = Tensor(compute, state, {}, shifted);

  in.A.fill(random, -1.5, -0.05);
  in.delta.fill(random, in.softplus ? -2 : 0.05, in.softplus ? 2 : 0.6);
  in.delta_bias.fill(random, in.softplus ? -1 : 0, 0.5);
  const Tensor* others[] = {&in.u, &in.B, &in.C, &in.z, &in.D, &in.initial_state, &c.cotangents.y,
                            &c.cotangents.final_state};
  for (const Tensor* tensor : others) tensor->fill(random, -1, 1);
  return c;
}

std::string describe(const Case& c) {
  const ScanTensors& in = c.in;
  static const char* const dtypes[] = {"f32", "f64", "bf16", "f16"};
  const auto coefficient = [](const Tensor& t) {
    return t.shape().size() == 5 ? std::to_string(t.size(2)) + " groups" : std::string("constant");
  };
  std::string text = dtypes[static_cast<int>(in.u.dtype())];
  const int64_t sizes[] = {in.u.size(0), in.u.size(1), in.u.size(2), in.A.size(1)};
  for (int i = 0; i < 4; ++i) text += std::string(" ") + "bldn"[i] + "=" + std::to_string(sizes[i]);
  text += ", B " + coefficient(in.B) + ", C " + coefficient(in.C);
  for (auto [name, on] : {std::pair<const char*, bool>{"complex", in.complex_A}, {"softplus", in.softplus},
                          {"reverse", in.reverse}, {"z", in.z.present()}, {"D", in.D.present()},
                          {"bias", in.delta_bias.present()}, {"initial state", in.initial_state.present()},
                          {"final state's gradient", c.cotangents.final_state.present()}})
    if (on) text += std::string(", ") + name;
  return text;
}

CoefficientView coefficient_view(const Tensor& t) {
  CoefficientView view;
  view.data = t.data();
  if (t.shape().size() == 5) {
    view.groups = t.size(2);
    view.stride_b = t.stride(0), view.stride_l = t.stride(1), view.stride_g = t.stride(2), view.stride_n = t.stride(3);
  }
  return view;
}

ScanInputs inputs(const ScanTensors& in, int num_threads) {
  ScanInputs params;
  params.batch = in.u.size(0), params.steps = in.u.size(1), params.channels = in.u.size(2);
  params.states = in.A.size(1) * in.A.size(2), params.complex_A = in.complex_A, params.dtype = in.u.dtype();
  params.u = in.u.view(), params.delta = in.delta.view(), params.z = in.z.view();
  params.B = coefficient_view(in.B), params.C = coefficient_view(in.C);
  params.A = in.A.data(), params.D = in.D.data(), params.delta_bias = in.delta_bias.data();
  params.initial_state = in.initial_state.data();
  params.delta_softplus = in.softplus, params.reverse = in.reverse, params.num_threads = num_threads;
  return params;
}

// A tensor for a result, of the type and shape of `like` but contiguous, in which nothing is right yet.
Tensor result_like(const Tensor& like) {
  if (!like.present()) return Tensor();
  Tensor t(like.dtype(), like.shape());
  t.fill(std::numeric_limits<double>::quiet_NaN());
  return t;
}

// With complex A the kernels see the numbers of a gradient as one axis of parts.
CoefficientView gradient_view(const Tensor& t) {
  CoefficientView view = coefficient_view(t);
  if (view.variable()) view.stride_n = 1;
  return view;
}

ScanResults run_kernels(const Case& c, int num_threads) {
  const ScanTensors& in = c.in;
  const KernelTable& kernels = active_kernels();
  const DType compute = compute_type(in.u.dtype());
  const int64_t batch = in.u.size(0), channels = in.u.size(2);
  const Tensor state(compute, {batch, channels, in.A.size(1), in.A.size(2)});
  ScanResults out;
  out.y = result_like(in.u), out.final_state = result_like(state);
  ScanForward forward;
  forward.in = inputs(in, num_threads);
  const int64_t chunks = scan_chunks(forward.in.sequences());
  const Tensor checkpoints(compute, {chunks, in.A.size(1) * in.A.size(2), channels});
  forward.y = out.y.view(), forward.final_state = out.final_state.data(), forward.checkpoints = checkpoints.data();
  (in.complex_A ? kernels.selective_scan_complex_forward : kernels.selective_scan_forward)(forward);

  out.grad_u = result_like(in.u), out.grad_delta = result_like(in.delta), out.grad_z = result_like(in.z);
  out.grad_A = result_like(in.A), out.grad_B = result_like(in.B), out.grad_C = result_like(in.C);
  out.grad_D = result_like(in.D), out.grad_delta_bias = result_like(in.delta_bias);
  out.grad_initial_state = result_like(in.initial_state);
  ScanBackward backward;
  backward.in = forward.in;
  backward.grad_y = c.cotangents.y.view(), backward.grad_final_state = c.cotangents.final_state.data();
  backward.checkpoints = checkpoints.data();
  backward.grad_u = out.grad_u.view(), backward.grad_delta = out.grad_delta.view();
  backward.grad_z = out.grad_z.view(), backward.grad_A = out.grad_A.data();
  backward.grad_B = gradient_view(out.grad_B), backward.grad_C = gradient_view(out.grad_C);
  backward.grad_D = out.grad_D.data(), backward.grad_delta_bias = out.grad_delta_bias.data();
  backward.grad_initial_state = out.grad_initial_state.data();
  (in.complex_A ? kernels.selective_scan_complex_backward : kernels.selective_scan_backward)(backward);
  return out;
}

struct Result {
  const char* name;
  Tensor ScanResults::*tensor;
};

constexpr Result kResults[] = {
    {"y", &ScanResults::y},
    {"final state", &ScanResults::final_state},
    {"gradient of u", &ScanResults::grad_u},
    {"gradient of delta", &ScanResults::grad_delta},
    {"gradient of z", &ScanResults::grad_z},
    {"gradient of A", &ScanResults::grad_A},
    {"gradient of B", &ScanResults::grad_B},
    {"gradient of C", &ScanResults::grad_C},
    {"gradient of D", &ScanResults::grad_D},
    {"gradient of delta_bias", &ScanResults::grad_delta_bias},
    {"gradient of initial_state", &ScanResults::grad_initial_state},
};

void test_case(const Case& c) {
  const ScanResults want = scan_reference(c.in, c.cotangents);
  const double tolerance = c.in.u.dtype() == DType::f64 ? 1e-13 : 1e-5;
  for (const std::string& isa : available_isas()) {
    set_isa(isa);
    context = isa + ": " + describe(c);
    const ScanResults got = run_kernels(c, 1), threaded = run_kernels(c, 3);
    for (const Result& result : kResults) {
      if (!(want.*result.tensor).present()) continue;
      check_close(got.*result.tensor, want.*result.tensor, tolerance, result.name);
      CHECK_MESSAGE((got.*result.tensor).same_bytes(threaded.*result.tensor),
                    std::string(result.name) + ": other bits from three threads");
    }
  }
}

}  // namespace
}  // namespace ssm::tests

// The argument is how many cases to try.
int main(int argc, char** argv) {
  const int cases = argc > 1 ? std::atoi(argv[1]) : 500;
  ssm::tests::Random random(1);
  for (int i = 0; i < cases; ++i) ssm::tests::test_case(ssm::tests::make_case(random));
  return ssm::tests::report();
}
