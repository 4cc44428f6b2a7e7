#include "cuda/cauchy_poles.cuh"
#include "cuda/operators.h"
#include "cuda/reduce.cuh"

namespace ssm::cuda {
namespace {

template <class F>
using Kernel = void (*)(CauchyKernelParams<F>);

template <class F>
CauchyKernelParams<F> params_of(const CauchyInputs& in) {
  CauchyKernelParams<F> p = {};
  p.v = static_cast<const Complex<F>*>(in.v), p.z = static_cast<const Complex<F>*>(in.z);
  p.w = static_cast<const Complex<F>*>(in.w);
  p.channels = in.channels, p.rows = in.rows, p.states = in.states, p.nodes = in.nodes;
  p.z_row = in.z_per_row ? in.nodes : 0;
  return p;
}

template <class F>
LaunchShape shape_of(int64_t blocks, int64_t shared_numbers) {
  return {grid_of(blocks), dim3(kS4Threads), shared_numbers * int64_t(sizeof(F))};
}

template <class F>
Kernel<F> forward_kernel(const CauchyPlan& plan) {
  const bool two = plan.nodes_per_thread == 2;
  if (plan.channels == 4) return two ? cauchy_forward_kernel<F, 4, 2> : cauchy_forward_kernel<F, 4, 1>;
  if (plan.nodes_per_thread == 4) return cauchy_forward_kernel<F, 1, 4>;
  return two ? cauchy_forward_kernel<F, 1, 2> : cauchy_forward_kernel<F, 1, 1>;
}

template <class F>
void forward(const CauchyForward& params) {
  const CauchyInputs& in = params.in;
  const CauchyPlan plan = plan_cauchy(in.channels, in.rows, in.nodes, multiprocessors(in.cuda));
  CauchyKernelParams<F> p = params_of<F>(in);
  p.R = static_cast<Complex<F>*>(params.R), p.tiles = plan.tiles;
  launch(forward_kernel<F>(plan), shape_of<F>(plan.blocks, cauchy_forward_numbers(plan)), in.cuda, p);
}

template <class F>
void gradients_of_poles(const CauchyBackward& params, CauchyKernelParams<F> p, const PoleSumsPlan& plan) {
  const CauchyInputs& in = params.in;
  p.tiles = plan.pieces, p.piece_nodes = plan.piece_nodes, p.block_states = plan.states;
  launch(plan.channels == 4 ? cauchy_pole_kernel<F, 4> : cauchy_pole_kernel<F, 1>,
         shape_of<F>(plan.blocks, pole_sums_numbers(plan)), in.cuda, p);
  auto *const grad_v = static_cast<Complex<F>*>(params.grad_v), *const grad_w = static_cast<Complex<F>*>(params.grad_w);
  launch_pole_gradients<F>({p.sums, p.v, grad_v, grad_w, plan.pieces, in.channels, in.rows * in.states}, in.cuda);
}

// One row after the other for z (k,): the gradients of all rows go through the workspace.
template <class F>
void gradient_of_nodes(const CauchyBackward& params, CauchyKernelParams<F> p, char* workspace) {
  const CauchyInputs& in = params.in;
  p.tiles = divide_up(in.nodes, kS4Threads);
  p.grad_z = reinterpret_cast<Complex<F>*>(in.z_per_row ? params.grad_z : workspace);
  const int channels = in.channels > 1 ? 4 : 1;
  launch(channels == 4 ? cauchy_node_kernel<F, 4> : cauchy_node_kernel<F, 1>,
         shape_of<F>(in.rows * p.tiles, kStatesAtOnce * (2 + 2 * channels)), in.cuda, p);
  if (in.z_per_row) return;
  PartialSum sum;
  sum.partials = workspace, sum.terms = in.rows, sum.term_stride = 2 * in.nodes;
  sum.size[3] = 2 * in.nodes, sum.partial_stride[3] = sum.out_stride[3] = 1;
  sum.out = static_cast<char*>(params.grad_z), sum.dtype = in.dtype;
  PartialSums sums;
  sums.wide = sizeof(F) == 8;
  sums.add(sum);
  launch_sums(sums, in.cuda);
}

template <class F>
void backward(const CauchyBackward& params) {
  const CauchyInputs& in = params.in;
  const PoleSumsPlan plan = plan_pole_sums(in.channels, in.rows, in.states, in.nodes);
  const bool poles = params.grad_v != nullptr || params.grad_w != nullptr;
  const bool rows = params.grad_z != nullptr && !in.z_per_row;
  const int64_t pole_bytes = poles ? pole_sums_bytes(plan.pieces, in.channels, in.rows, in.states, sizeof(F)) : 0;
  char* const workspace = allocate(in.cuda, pole_bytes + (rows ? in.rows * in.nodes * int64_t(sizeof(Complex<F>)) : 0));
  CauchyKernelParams<F> p = params_of<F>(in);
  p.grad_R = static_cast<const Complex<F>*>(params.grad_R);
  p.sums = reinterpret_cast<PoleSums<F>*>(workspace);
  if (poles) gradients_of_poles<F>(params, p, plan);
  if (params.grad_z != nullptr) gradient_of_nodes<F>(params, p, workspace + pole_bytes);
}

}  // namespace

void cauchy_forward(const CauchyForward& params) {
  return params.in.dtype == DType::f64 ? forward<double>(params) : forward<float>(params);
}

void cauchy_backward(const CauchyBackward& params) {
  return params.in.dtype == DType::f64 ? backward<double>(params) : backward<float>(params);
}

}  // namespace ssm::cuda
