// The backward pass of the diagonal scan; see diagonal_scan_plan.h for how it runs.
#include "cuda/diagonal_scan_launch.cuh"
#include "cuda/operators.h"
#include "cuda/reduce.cuh"

namespace ssm::cuda {
namespace {

// A contiguous gradient of a with every step and channel, or one such for each batch index to be added up.
View3 gradient_of_a(const DiagonalInputs& in, char* data) {
  View3 view;
  view.data = data, view.dtype = in.a.dtype;
  view.stride_b = in.steps * in.channels, view.stride_l = in.channels, view.stride_d = 1;
  return view;
}

void add_partials_of(const diagonal::Task& p, const DiagonalBackward& params) {
  const int64_t numbers = p.plan.sums * (p.in.is_complex ? 2 : 1);
  PartialSum sum;
  sum.partials = p.partials;
  sum.terms = p.plan.summed, sum.term_stride = numbers;
  sum.size[2] = p.plan.groups, sum.partial_stride[2] = p.plan.summed * numbers, sum.out_stride[2] = numbers;
  sum.size[3] = numbers, sum.partial_stride[3] = sum.out_stride[3] = 1;
  sum.out = static_cast<char*>(params.grad_a);
  sum.dtype = p.in.a.dtype;
  PartialSums sums;
  sums.wide = p.in.dtype == DType::f64;
  sums.add(sum);
  launch_sums(sums, p.in.cuda);
}

}  // namespace

void diagonal_scan_backward(const DiagonalBackward& params) {
  diagonal::Task p;
  p.in = params.in;
  p.backwards = !p.in.reverse;
  p.a = diagonal::tensor(p.in.a, p.in);
  p.x = diagonal::tensor(params.grad_h, p.in);
  p.y = diagonal::tensor(params.grad_u, p.in);
  p.first_state = params.grad_final_state;
  p.initial_state = p.in.initial_state;
  p.last_state = params.grad_initial_state;
  p.sum = sum_of_a(p.in, params.grad_a != nullptr);
  if (p.sum != SumOfA::not_wanted) p.h = diagonal::tensor(params.h, p.in);
  const bool turned = p.a.turned || p.x.turned || p.y.turned || p.h.turned;
  p.plan = plan_diagonal_scan(p.in, true, turned, p.sum, multiprocessors(p.in.cuda));

  char* workspace = allocate(p.in.cuda, p.plan.workspace_bytes);
  diagonal::set_workspace(p, workspace);
  const bool add_up = p.sum != SumOfA::not_wanted && p.plan.summed != 1;
  p.partials = add_up ? workspace + p.plan.partials_offset : static_cast<char*>(params.grad_a);
  if (p.sum == SumOfA::nothing) p.grad_a = diagonal::tensor(gradient_of_a(p.in, p.partials), p.in);
  diagonal::start<true>(p);

  if (add_up) add_partials_of(p, params);
}

}  // namespace ssm::cuda
