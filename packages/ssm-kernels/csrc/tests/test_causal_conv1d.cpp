// The causal convolution of every instruction set against plain loops in double precision: values and gradients, over
// widths, shapes, strides, storage types and options, and the same bits from one thread and from three.
#include <cstdlib>

#include "cpu/isa.h"
#include "tests/tensor.h"

namespace ssm::tests {
namespace {

// x (b, l, d); weight (d, k); bias (d); states (b, d, k - 1) in time order.
struct Case {
  bool silu = false, reverse = false;
  Tensor x, weight, bias, initial_state;
  Tensor grad_y, grad_final_state;
};

struct Results {
  Tensor y, final_state, grad_x, grad_weight, grad_bias, grad_initial_state;
};

Tensor zeros_like(const Tensor& t) { return t.present() ? Tensor(DType::f64, t.shape()) : Tensor(); }

// One sequence of one channel.  In order of processing the samples are those of the state, then those of x.
void convolve_channel(const Case& c, const Results& out, int64_t b, int64_t d) {
  const int64_t steps = c.x.size(1), width = c.weight.size(1), early = width - 1;
  const auto time = [&](int64_t step) { return c.reverse ? steps - 1 - step : step; };
  const auto column = [&](int64_t sample) { return c.reverse ? early - 1 - sample : sample; };
  const auto sample = [&](int64_t i) {
    if (i >= early) return c.x(b, time(i - early), d);
    return c.initial_state.present() ? c.initial_state(b, d, column(i)) : 0.0;
  };
  const auto add_gradient = [&](double value, int64_t i) {
    if (i >= early) out.grad_x.add(value, b, time(i - early), d);
    else if (c.initial_state.present()) out.grad_initial_state.add(value, b, d, column(i));
  };
  for (int64_t step = 0; step < steps; ++step) {
    double sum = c.bias.present() ? c.bias(d) : 0;
    for (int64_t j = 0; j < width; ++j) sum += c.weight(d, j) * sample(step + j);
    const double sigmoid = 1 / (1 + std::exp(-sum));
    out.y.add(c.silu ? sum * sigmoid : sum, b, time(step), d);

    const double slope = c.silu ? sigmoid * (1 + sum * (1 - sigmoid)) : 1;
    const double grad_sum = c.grad_y(b, time(step), d) * slope;
    if (c.bias.present()) out.grad_bias.add(grad_sum, d);
    for (int64_t j = 0; j < width; ++j) {
      out.grad_weight.add(grad_sum * sample(step + j), d, j);
      add_gradient(grad_sum * c.weight(d, j), step + j);
    }
  }
  for (int64_t i = 0; i < early; ++i) {
    out.final_state.add(sample(steps + i), b, d, column(i));
    if (c.grad_final_state.present()) add_gradient(c.grad_final_state(b, d, column(i)), steps + i);
  }
}

Results reference(const Case& c) {
  Results out;
  out.y = zeros_like(c.x);
  out.final_state = Tensor(DType::f64, {c.x.size(0), c.x.size(2), c.weight.size(1) - 1});
  out.grad_x = zeros_like(c.x), out.grad_weight = zeros_like(c.weight), out.grad_bias = zeros_like(c.bias);
  out.grad_initial_state = zeros_like(c.initial_state);
  for (int64_t b = 0; b < c.x.size(0); ++b)
    for (int64_t d = 0; d < c.x.size(2); ++d) convolve_channel(c, out, b, d);
  return out;
}

Case make_case(Random& random, int64_t width) {
  Case c;
  c.silu = random.chance(50), c.reverse = random.chance(50);
  const int64_t batch = random.pick<int64_t>({0, 1, 1, 2, 3, 9});
  const int64_t steps = random.pick<int64_t>({0, 1, 2, 31, 64, 65, 130, 257});
  const int64_t channels = random.pick<int64_t>({0, 1, 3, 16, 17, 33, 70, 130});
  const DType dtype = random.pick({DType::f32, DType::f64, DType::bf16, DType::f16}), compute = compute_type(dtype);
  const bool shifted = random.chance(50);
  const std::vector<int64_t> sequence = {batch, steps, channels}, state = {batch, channels, width - 1};
  c.x = Tensor(dtype, sequence, random_layout(random, 3), shifted);
  c.grad_y = Tensor(dtype, sequence, random_layout(random, 3), shifted);
  c.weight = Tensor(compute, {channels, width}, {}, shifted);
  if (random.chance(60)) c.bias = Tensor(compute, {channels}, {}, shifted);
  if (random.chance(60)) c.initial_state = Tensor(compute, state, {}, shifted);
  if (random.chance(60)) c.grad_final_state = Tensor(compute, state, {}, shifted);
  for (const Tensor* t : {&c.x, &c.grad_y, &c.weight, &c.bias, &c.initial_state, &c.grad_final_state})
    t->fill(random, -1, 1);
  return c;
}

std::string describe(const Case& c) {
  static const char* const dtypes[] = {"f32", "f64", "bf16", "f16"};
  std::string text = dtypes[static_cast<int>(c.x.dtype())];
  const int64_t sizes[] = {c.x.size(0), c.x.size(1), c.x.size(2), c.weight.size(1)};
  for (int i = 0; i < 4; ++i) text += std::string(" ") + "bldk"[i] + "=" + std::to_string(sizes[i]);
  for (auto [name, on] : {std::pair<const char*, bool>{"silu", c.silu}, {"reverse", c.reverse},
                          {"bias", c.bias.present()}, {"initial state", c.initial_state.present()},
                          {"final state's gradient", c.grad_final_state.present()}})
    if (on) text += std::string(", ") + name;
  return text;
}

Tensor result_like(const Tensor& like) {
  if (!like.present()) return Tensor();
  Tensor t(like.dtype(), like.shape());
  t.fill(std::numeric_limits<double>::quiet_NaN());
  return t;
}

Results run_kernels(const Case& c, int num_threads) {
  ConvInputs in;
  in.batch = c.x.size(0), in.steps = c.x.size(1), in.channels = c.x.size(2), in.width = c.weight.size(1);
  in.dtype = c.x.dtype(), in.x = c.x.view();
  in.weight = c.weight.data(), in.bias = c.bias.data(), in.initial_state = c.initial_state.data();
  in.silu = c.silu, in.reverse = c.reverse, in.num_threads = num_threads;
  Results out;
  out.y = result_like(c.x);
  out.final_state = result_like(Tensor(c.weight.dtype(), {in.batch, in.channels, in.width - 1}));
  ConvForward forward;
  forward.in = in, forward.y = out.y.view(), forward.final_state = out.final_state.data();
  active_kernels().causal_conv1d_forward(forward);

  out.grad_x = result_like(c.x), out.grad_weight = result_like(c.weight), out.grad_bias = result_like(c.bias);
  out.grad_initial_state = result_like(c.initial_state);
  ConvBackward backward;
  backward.in = in, backward.grad_y = c.grad_y.view(), backward.grad_final_state = c.grad_final_state.data();
  backward.grad_x = out.grad_x.view(), backward.grad_weight = out.grad_weight.data();
  backward.grad_bias = out.grad_bias.data(), backward.grad_initial_state = out.grad_initial_state.data();
  active_kernels().causal_conv1d_backward(backward);
  return out;
}

struct Result {
  const char* name;
  Tensor Results::*tensor;
};

constexpr Result kResults[] = {
    {"y", &Results::y},
    {"final state", &Results::final_state},
    {"gradient of x", &Results::grad_x},
    {"gradient of weight", &Results::grad_weight},
    {"gradient of bias", &Results::grad_bias},
    {"gradient of initial_state", &Results::grad_initial_state},
};

void test_case(const Case& c) {
  const Results want = reference(c);
  const double tolerance = c.x.dtype() == DType::f64 ? 1e-13 : 1e-5;
  for (const std::string& isa : available_isas()) {
    set_isa(isa);
    context = isa + ": " + describe(c);
    const Results got = run_kernels(c, 1), threaded = run_kernels(c, 3);
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

// The argument is how many cases to try of each width.
int main(int argc, char** argv) {
  const int cases = argc > 1 ? std::atoi(argv[1]) : 60;
  ssm::tests::Random random(2);
  for (int i = 0; i < cases; ++i)
    for (int64_t width = 1; width <= ssm::kMostTaps; ++width)
      ssm::tests::test_case(ssm::tests::make_case(random, width));
  return ssm::tests::report();
}
