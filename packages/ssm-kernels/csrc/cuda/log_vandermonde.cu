#include "cuda/log_vandermonde_backward.cuh"
#include "cuda/operators.h"

namespace ssm::cuda {
namespace {

template <class F>
VandermondePlan plan_of(const VandermondeInputs& in) {
  return plan_vandermonde(in.channels, in.rows, in.steps, sizeof(F) == 8, multiprocessors(in.cuda));
}

template <class F>
VandermondeParams<F> params_of(const VandermondeInputs& in, const VandermondePlan& plan) {
  VandermondeParams<F> p = {};
  p.v = static_cast<const Complex<F>*>(in.v), p.x = static_cast<const Complex<F>*>(in.x);
  p.channels = in.channels, p.rows = in.rows, p.states = in.states, p.steps = in.steps, p.tiles = plan.tiles;
  return p;
}

// Whether rows of so many steps can be moved four at a time.
bool aligned(const void* data, int64_t steps) { return steps % 4 == 0 && reinterpret_cast<uintptr_t>(data) % 16 == 0; }

template <class F>
using Kernel = void (*)(VandermondeParams<F>);

template <class F>
Kernel<F> forward_kernel(const VandermondePlan& plan) {
  if constexpr (sizeof(F) == 8) return vandermonde_forward_kernel<F, 2>;
  else if (plan.lines_per_thread == 4) return vandermonde_forward_kernel<F, 4>;
  else return plan.lines_per_thread == 2 ? vandermonde_forward_kernel<F, 2> : vandermonde_forward_kernel<F, 1>;
}

template <class F>
Kernel<F> backward_kernel(const VandermondePlan& plan) {
  if constexpr (sizeof(F) == 8) return vandermonde_backward_kernel<F, 2>;
  else if (plan.lines_per_thread == 4) return vandermonde_backward_kernel<F, 4>;
  else return plan.lines_per_thread == 2 ? vandermonde_backward_kernel<F, 2> : vandermonde_backward_kernel<F, 1>;
}

template <class F>
LaunchShape shape_of(const VandermondePlan& plan, int64_t shared_numbers) {
  return {grid_of(plan.blocks), dim3(kS4Threads), shared_numbers * int64_t(sizeof(F))};
}

template <class F>
void forward(const VandermondeForward& params) {
  const VandermondeInputs& in = params.in;
  const VandermondePlan plan = plan_of<F>(in);
  VandermondeParams<F> p = params_of<F>(in, plan);
  p.K = static_cast<F*>(params.K), p.aligned = aligned(params.K, in.steps);
  const Kernel<F> kernel = forward_kernel<F>(plan);
  launch(kernel, shape_of<F>(plan, vandermonde_forward_numbers(plan)), in.cuda, p);
}

template <class F>
void backward(const VandermondeBackward& params) {
  const VandermondeInputs& in = params.in;
  const VandermondePlan plan = plan_of<F>(in);
  VandermondeParams<F> p = params_of<F>(in, plan);
  p.grad_K = static_cast<const F*>(params.grad_K), p.aligned = aligned(params.grad_K, in.steps);
  p.sums = reinterpret_cast<PoleSums<F>*>(
      allocate(in.cuda, pole_sums_bytes(plan.tiles, in.channels, in.rows, in.states, sizeof(F))));
  const Kernel<F> kernel = backward_kernel<F>(plan);
  launch(kernel, shape_of<F>(plan, vandermonde_backward_numbers(plan)), in.cuda, p);
  auto *const grad_v = static_cast<Complex<F>*>(params.grad_v), *const grad_x = static_cast<Complex<F>*>(params.grad_x);
  launch_pole_gradients<F>({p.sums, p.v, grad_v, grad_x, plan.tiles, in.channels, in.rows * in.states}, in.cuda);
}

}  // namespace

void log_vandermonde_forward(const VandermondeForward& params) {
  return params.in.dtype == DType::f64 ? forward<double>(params) : forward<float>(params);
}

void log_vandermonde_backward(const VandermondeBackward& params) {
  return params.in.dtype == DType::f64 ? backward<double>(params) : backward<float>(params);
}

}  // namespace ssm::cuda
