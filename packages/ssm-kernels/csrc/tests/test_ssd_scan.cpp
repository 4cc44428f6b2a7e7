// The SSD scan of every instruction set against plain loops: values and gradients, over shapes, strides, storage types,
// packed sequences and options, and the same bits from one thread and from three.
#include <cstdlib>

#include "cpu/isa.h"
#include "cpu/scratch.h"
#include "tests/ssd_reference.h"

namespace ssm::tests {
namespace {

struct Case {
  SsdTensors in;
  SsdCotangents cotangents;
  bool grad_initial_state = false;  // wanted
};

struct Sizes {
  int64_t batch, steps, heads, channels, groups, states;
};

// Lengths of sequences in one batch index, the last step of one next to the first of the other.
std::vector<int64_t> make_offsets(Random& random) {
  const int64_t count = random.pick<int64_t>({0, 1, 3, 4}), empty = random.below(4);
  std::vector<int64_t> offsets = {0};
  for (int64_t i = 0; i < count; ++i)
    offsets.push_back(offsets.back() + (i == empty ? 0 : random.pick<int64_t>({1, 5, 63, 64, 65})));
  return offsets;
}

Sizes make_sizes(Random& random, const std::vector<int64_t>& offsets) {
  Sizes s;
  s.batch = offsets.empty() ? random.pick<int64_t>({0, 1, 1, 2, 2, 2}) : 1;
  s.steps = offsets.empty() ? random.pick<int64_t>({0, 1, 63, 64, 65, 130}) : offsets.back();
  s.heads = random.pick<int64_t>({0, 1, 1, 2, 2, 6, 6});
  s.groups = random.pick<int64_t>({1, 1, 2, 3});
  if (s.heads % s.groups != 0) s.groups = 1;
  s.channels = random.pick<int64_t>({0, 1, 3, 3, 16, 16, 17, 17, 33, 33});
  s.states = random.pick<int64_t>({0, 1, 3, 3, 16, 16, 19, 19});
  return s;
}

// Fills everything with numbers for which no exponential overflows.
void fill(Random& random, const Case& c) {
  const SsdTensors& in = c.in;
  // Strong decays reach 0 within a chunk.
  if (random.chance(20)) in.A.fill(random, -40, -5);
  else in.A.fill(random, -1.5, 0.02);
  if (!in.softplus) in.dt.fill(random, -0.1, 0.9);
  else in.dt.fill(random, -2, random.chance(15) ? 24 : 2);  // softplus is passed through above 20
  in.dt_bias.fill(random, in.softplus ? -1 : 0, 0.5);
  const Tensor* others[] = {&in.x, &in.B, &in.C, &in.D, &in.z, &in.initial_state, &c.cotangents.y,
                            &c.cotangents.final_state};
  for (const Tensor* tensor : others) tensor->fill(random, -1, 1);
}

Case make_case(Random& random) {
  Case c;
  SsdTensors& in = c.in;
  in.softplus = random.chance(50), in.reverse = random.chance(40);
  if (random.chance(50)) in.dt_min = 0.125, in.dt_max = 0.5;
  if (random.chance(25)) in.offsets = make_offsets(random);
  const Sizes s = make_sizes(random, in.offsets);
  const DType dtype = random.pick({DType::f32, DType::f64, DType::bf16, DType::f16}), compute = compute_type(dtype);
  const bool shifted = random.chance(50);
  const auto make = [&](const std::vector<int64_t>& shape) {
    return Tensor(dtype, shape, random_layout(random, static_cast<int>(shape.size())), shifted);
  };
  const std::vector<int64_t> rows = {s.batch, s.steps, s.heads, s.channels};
  const std::vector<int64_t> coefficients = {s.batch, s.steps, s.groups, s.states};

  in.x = make(rows), in.dt = make({s.batch, s.steps, s.heads}), in.B = make(coefficients), in.C = make(coefficients);
  in.A = Tensor(compute, {s.heads}, {}, shifted);
  if (random.chance(60)) in.D = Tensor(compute, {s.heads}, {}, shifted);
  if (random.chance(40)) in.D = Tensor(compute, {s.heads, s.channels}, {}, shifted);
  if (random.chance(50)) in.z = make(rows);
  if (random.chance(60)) in.dt_bias = Tensor(compute, {s.heads}, {}, shifted);
  if (random.chance(60)) in.initial_state = Tensor(compute, in.state_shape(), {}, shifted);
  c.cotangents.y = make(rows);
  if (random.chance(60)) c.cotangents.final_state = Tensor(compute, in.state_shape(), {}, shifted);
  c.grad_initial_state = in.initial_state.present() || random.chance(50);
  fill(random, c);
  return c;
}

std::string describe(const Case& c) {
  const SsdTensors& in = c.in;
  static const char* const dtypes[] = {"f32", "f64", "bf16", "f16"};
  std::string text = dtypes[static_cast<int>(in.x.dtype())];
  const int64_t sizes[] = {in.x.size(0), in.x.size(1), in.x.size(2), in.x.size(3), in.B.size(2), in.B.size(3)};
  for (int i = 0; i < 6; ++i) text += std::string(" ") + "blhpgn"[i] + "=" + std::to_string(sizes[i]);
  if (!in.offsets.empty()) text += ", packed at";
  for (int64_t offset : in.offsets) text += " " + std::to_string(offset);
  if (in.D.present()) text += in.D.shape().size() == 2 ? ", D (h, p)" : ", D (h)";
  for (auto [name, on] : {std::pair<const char*, bool>{"softplus", in.softplus}, {"limits", in.dt_min > 0},
                          {"reverse", in.reverse}, {"z", in.z.present()}, {"bias", in.dt_bias.present()},
                          {"initial state", in.initial_state.present()},
                          {"final state's gradient", c.cotangents.final_state.present()}})
    if (on) text += std::string(", ") + name;
  return text;
}

View4 view4(const Tensor& t) {
  if (!t.present()) return {};
  return {t.data(), t.stride(0), t.stride(1), t.stride(2), t.shape().size() == 4 ? t.stride(3) : 0};
}

SsdInputs inputs(const SsdTensors& in, int num_threads) {
  SsdInputs params;
  params.batch = in.x.size(0), params.steps = in.x.size(1), params.heads = in.x.size(2), params.channels = in.x.size(3);
  params.groups = in.B.size(2), params.states = in.B.size(3), params.dtype = in.x.dtype();
  if (!in.offsets.empty()) params.offsets = in.offsets.data(), params.packed_sequences = in.sequences().count;
  params.x = view4(in.x), params.dt = view4(in.dt), params.B = view4(in.B), params.C = view4(in.C);
  params.z = view4(in.z), params.A = in.A.data(), params.D = in.D.data(), params.dt_bias = in.dt_bias.data();
  params.initial_state = in.initial_state.data();
  params.D_per_channel = in.D.present() && in.D.shape().size() == 2;
  params.dt_softplus = in.softplus, params.dt_min = in.dt_min, params.dt_max = in.dt_max;
  params.reverse = in.reverse, params.num_threads = num_threads;
  return params;
}

// A tensor for a result, of the type and shape of `like` but contiguous, in which nothing is right yet.
Tensor result_like(const Tensor& like) {
  if (!like.present()) return Tensor();
  Tensor t(like.dtype(), like.shape());
  t.fill(std::numeric_limits<double>::quiet_NaN());
  return t;
}

// NaN in the scratch memory that this thread keeps, for a kernel that reads before it writes.
void spoil_scratch() {
#if !defined(__SANITIZE_ADDRESS__)  // nothing is kept
  constexpr int64_t bytes = 1 << 21;
  void* const blocks[] = {allocate_scratch(bytes), allocate_scratch(bytes)};
  for (void* block : blocks) std::memset(block, 0xff, bytes);
  for (void* block : blocks) free_scratch(block);
#endif
}

SsdResults run_kernels(const Case& c, int num_threads) {
  const SsdTensors& in = c.in;
  const Tensor state(compute_type(in.x.dtype()), in.state_shape());
  SsdResults out;
  out.y = result_like(in.x), out.final_state = result_like(state);
  SsdForward forward;
  forward.in = inputs(in, num_threads);
  forward.y = view4(out.y), forward.final_state = out.final_state.data();
  spoil_scratch();
  active_kernels().ssd_scan_forward(forward);

  out.grad_x = result_like(in.x), out.grad_dt = result_like(in.dt), out.grad_A = result_like(in.A);
  out.grad_B = result_like(in.B), out.grad_C = result_like(in.C), out.grad_D = result_like(in.D);
  out.grad_z = result_like(in.z), out.grad_dt_bias = result_like(in.dt_bias);
  if (c.grad_initial_state) out.grad_initial_state = result_like(state);
  SsdBackward backward;
  backward.in = forward.in;
  backward.grad_y = view4(c.cotangents.y), backward.grad_final_state = c.cotangents.final_state.data();
  backward.grad_x = view4(out.grad_x), backward.grad_dt = view4(out.grad_dt), backward.grad_B = view4(out.grad_B);
  backward.grad_C = view4(out.grad_C), backward.grad_z = view4(out.grad_z), backward.grad_A = out.grad_A.data();
  backward.grad_D = out.grad_D.data(), backward.grad_dt_bias = out.grad_dt_bias.data();
  backward.grad_initial_state = out.grad_initial_state.data();
  spoil_scratch();
  active_kernels().ssd_scan_backward(backward);
  return out;
}

struct Result {
  const char* name;
  Tensor SsdResults::*tensor;
};

constexpr Result kResults[] = {
    {"y", &SsdResults::y},
    {"final state", &SsdResults::final_state},
    {"gradient of x", &SsdResults::grad_x},
    {"gradient of dt", &SsdResults::grad_dt},
    {"gradient of A", &SsdResults::grad_A},
    {"gradient of B", &SsdResults::grad_B},
    {"gradient of C", &SsdResults::grad_C},
    {"gradient of D", &SsdResults::grad_D},
    {"gradient of z", &SsdResults::grad_z},
    {"gradient of dt_bias", &SsdResults::grad_dt_bias},
    {"gradient of initial_state", &SsdResults::grad_initial_state},
};

void test_case(const Case& c) {
  SsdResults want = ssd_reference(c.in, c.cotangents);
  if (!c.grad_initial_state) want.grad_initial_state = Tensor();
  const double tolerance = c.in.x.dtype() == DType::f64 ? 1e-13 : 1e-5;
  for (const std::string& isa : available_isas()) {
    set_isa(isa);
    context = isa + ": " + describe(c);
    const SsdResults got = run_kernels(c, 1), threaded = run_kernels(c, 3);
    for (const Result& result : kResults) {
      if (!(want.*result.tensor).present()) continue;
      // One number is the sum of products over all steps, channels and states, which mostly cancel.
      const double terms = result.tensor == &SsdResults::grad_A ? 4 : 1;
      check_close(got.*result.tensor, want.*result.tensor, terms * tolerance, result.name);
      CHECK_MESSAGE((got.*result.tensor).same_bytes(threaded.*result.tensor),
                    std::string(result.name) + ": other bits from three threads");
    }
  }
}

// Whether y or a gradient (b, l, ...) of batch index 0 has the same numbers in the steps [begin, end).
bool same_steps(const Tensor& a, const Tensor& b, int64_t begin, int64_t end) {
  const int64_t bytes = a.stride(1) * size_of(a.dtype());
  return std::memcmp(a.data() + begin * bytes, b.data() + begin * bytes, size_t((end - begin) * bytes)) == 0;
}

// Inside a chunk, too, a NaN reaches no y before its step, and one in the gradient of y no gradient after its step.
void test_causality(DType dtype) {
  constexpr int64_t steps = 130, broken = 85;  // in the second of three chunks
  const auto make = [&] {
    Case c;
    for (Tensor* rows : {&c.in.x, &c.in.z, &c.cotangents.y}) *rows = Tensor(dtype, {1, steps, 2, 17});
    for (Tensor* rows : {&c.in.B, &c.in.C}) *rows = Tensor(dtype, {1, steps, 1, 19});
    c.in.dt = Tensor(dtype, {1, steps, 2}), c.in.A = Tensor(compute_type(dtype), {2});
    Random random(2);
    fill(random, c);
    return c;
  };
  const double nan = std::numeric_limits<double>::quiet_NaN();
  for (const std::string& isa : available_isas()) {
    set_isa(isa);
    const SsdResults good = run_kernels(make(), 1);
    for (auto [name, rows] : {std::pair{"x", &SsdTensors::x}, {"B", &SsdTensors::B}, {"C", &SsdTensors::C}}) {
      const Case c = make();
      (c.in.*rows).add(nan, 0, broken, 0, 0);
      context = isa + ": NaN in " + name;
      const SsdResults got = run_kernels(c, 1);
      CHECK(same_steps(got.y, good.y, 0, broken) && std::isnan(got.y(0, broken, 0, 0)));
    }
    const Case late_dt = make(), late_grad = make();
    late_dt.in.dt.add(nan, 0, broken, 0);
    context = isa + ": NaN in dt";
    const SsdResults from_dt = run_kernels(late_dt, 1);
    CHECK(same_steps(from_dt.y, good.y, 0, broken) && std::isnan(from_dt.y(0, broken, 0, 0)));
    late_grad.cotangents.y.add(nan, 0, broken, 0, 0);
    context = isa + ": NaN in the gradient of y";
    const SsdResults got = run_kernels(late_grad, 1);
    for (auto gradient : {&SsdResults::grad_x, &SsdResults::grad_dt, &SsdResults::grad_B, &SsdResults::grad_C})
      CHECK(same_steps(got.*gradient, good.*gradient, broken + 1, steps));
    CHECK(std::isnan(got.grad_x(0, broken, 0, 0)));
  }
}

}  // namespace
}  // namespace ssm::tests

// The argument is how many cases to try.
int main(int argc, char** argv) {
  const int cases = argc > 1 ? std::atoi(argv[1]) : 200;
  ssm::tests::Random random(1);
  for (int i = 0; i < cases; ++i) ssm::tests::test_case(ssm::tests::make_case(random));
  for (ssm::DType dtype : {ssm::DType::f32, ssm::DType::f64}) ssm::tests::test_causality(dtype);
  return ssm::tests::report();
}
