// Backward pass of the selective scan: one kernel over time, and one that adds up what its blocks found.
#include "cuda/grid.h"
#include "cuda/operators.h"
#include "cuda/reduce.cuh"
#include "cuda/selective_scan_backward_general.cuh"
#include "cuda/selective_scan_backward_lanes.h"


namespace ssm::cuda {
namespace {

bool fits(int64_t stride, DType dtype) {
  const int64_t bytes = stride * size_of(dtype);
  return -0x7fffffff <= bytes && bytes <= 0x7fffffff;
}

bool short_strides(const ScanBackward& call) {
  const ScanInputs& in = call.in;
  bool all = in.steps <= 0x7fffffff;
  for (const View3* view :
       {&in.u, &in.delta, &in.z, &call.grad_y, &call.grad_u, &call.grad_delta, &call.grad_z})
    all = all && fits(view->stride_l, view->dtype) && fits(view->stride_d, view->dtype);
  for (const CoefficientView* view : {&in.B, &in.C})
    all = all && fits(view->stride_l, in.dtype) && fits(view->stride_n, in.dtype);
  return all;
}

// shared: gradients that directions add to are summed up here, not in the kernel.
ScanBackwardShape shape_of(const ScanBackward* directions, int64_t count, bool shared) {
  const ScanInputs& in = directions[0].in;
  ScanBackwardShape shape;
  shape.directions = count;
  shape.sequences = in.sequences().count;
  shape.batch = in.batch, shape.steps = in.steps, shape.channels = in.channels, shape.states = in.states;
  shape.groups_B = in.B.groups, shape.groups_C = in.C.groups;
  shape.complex_A = in.complex_A, shape.wide = in.dtype == DType::f64;
  shape.gated = in.z.data != nullptr;
  shape.sum_u = shared && directions[count - 1].add_to_grad_u;
  shape.sum_z = shared && shape.gated && directions[count - 1].add_to_grad_z;
  shape.most_shared_bytes = most_shared_bytes(in.cuda);
  for (int64_t k = 0; k < count; ++k) shape.short_strides = shape.short_strides && short_strides(directions[k]);
  return shape;
}

// The sums of one launch, described with the places of the plan.
struct Totals {
  const ScanBackwardShape& shape;
  const ScanBackwardPlan& plan;
  char* workspace;
  PartialSums sums;

  Totals(const ScanBackwardShape& shape, const ScanBackwardPlan& plan, char* workspace)
      : shape(shape), plan(plan), workspace(workspace) {
    sums.wide = shape.wide;
  }

  DType compute_type() const { return shape.wide ? DType::f64 : DType::f32; }
  const char* at(int64_t place, int64_t numbers) const { return workspace + place + numbers * (shape.wide ? 8 : 4); }

  // (d, width) from (sequence, width, d)
  void over_sequences(void* out, int64_t place, int64_t direction, int64_t width) {
    const int64_t size = shape.channels * width;
    PartialSum sum;
    sum.partials = at(place, direction * shape.sequences * size);
    sum.terms = shape.sequences, sum.term_stride = size;
    sum.size[2] = width, sum.size[3] = shape.channels;
    sum.partial_stride[2] = shape.channels, sum.partial_stride[3] = 1;
    sum.out = static_cast<char*>(out), sum.dtype = compute_type();
    sum.out_stride[2] = 1, sum.out_stride[3] = width;
    sums.add(sum);
  }

  // (b, l, g, n) of variable B (`second` false) or C from (slab, b, l, 2 n)
  void over_channels(const CoefficientView& out, DType dtype, int64_t direction, bool second) {
    const int64_t row = 2 * shape.states;
    const int64_t slab = shape.batch * shape.steps * row, slabs = plan.slabs.blocks / out.groups;
    PartialSum sum;
    sum.partials = at(plan.rows, direction * plan.slabs.blocks * slab + (second ? shape.states : 0));
    sum.terms = slabs, sum.term_stride = slab;
    const int64_t sizes[] = {shape.batch, shape.steps, out.groups, shape.states};
    const int64_t from[] = {shape.steps * row, row, slabs * slab, 1};
    const int64_t to[] = {out.stride_b, out.stride_l, out.stride_g, out.stride_n};
    for (int axis = 0; axis < 4; ++axis)
      sum.size[axis] = sizes[axis], sum.partial_stride[axis] = from[axis], sum.out_stride[axis] = to[axis];
    sum.out = out.data, sum.dtype = dtype;
    sums.add(sum);
  }

  // (b, l, d) from (direction, b, l, d)
  void over_directions(const View3& out, int64_t place, bool add) {
    PartialSum sum;
    sum.partials = at(place, 0);
    sum.terms = shape.directions, sum.term_stride = shape.batch * shape.steps * shape.channels;
    const int64_t sizes[] = {1, shape.batch, shape.steps, shape.channels};
    const int64_t from[] = {0, shape.steps * shape.channels, shape.channels, 1};
    const int64_t to[] = {0, out.stride_b, out.stride_l, out.stride_d};
    for (int axis = 0; axis < 4; ++axis)
      sum.size[axis] = sizes[axis], sum.partial_stride[axis] = from[axis], sum.out_stride[axis] = to[axis];
    sum.out = out.data, sum.dtype = out.dtype, sum.add = add;
    sums.add(sum);
  }

  // The place of one direction's terms of that.
  View3 terms_of(int64_t place, int64_t direction) const {
    const int64_t row = shape.steps * shape.channels;
    char* data = const_cast<char*>(at(place, direction * shape.batch * row));
    return {data, row, shape.channels, 1, compute_type()};
  }

  void add_all(const ScanBackward& call, int64_t direction) {
    over_sequences(call.grad_A, plan.grad_A, direction, shape.states);
    over_sequences(call.grad_D, plan.grad_D, direction, 1);
    over_sequences(call.grad_delta_bias, plan.grad_bias, direction, 1);
    const DType dtype = call.in.coefficient_dtype();
    if (shape.groups_B > 0) over_channels(call.grad_B, dtype, direction, false);
    else over_sequences(call.grad_B.data, plan.constant_B, direction, shape.states);
    if (shape.groups_C > 0) over_channels(call.grad_C, dtype, direction, true);
    else over_sequences(call.grad_C.data, plan.constant_C, direction, shape.states);
  }
};

void launch_general(const ScanBackwardLaunch& p, const LaunchShape& shape) {
  const ScanInputs& in = p.calls[0].in;
  const bool wide = in.dtype == DType::f64;
  const auto kernel = in.complex_A ? (wide ? scan_backward_general<double, true> : scan_backward_general<float, true>)
                                   : (wide ? scan_backward_general<double, false> : scan_backward_general<float, false>);
  launch(kernel, shape, in.cuda, p);
}

// Directions that are alike in sizes and types, at most kMostDirections.  add: to the gradients that they share.
void run_together(const ScanBackward* directions, int64_t count, const ScanBackwardShape& shape, char* workspace,
                  bool add) {
  ScanBackwardLaunch p;
  p.plan = plan_scan_backward(shape);
  p.workspace = workspace;
  Totals totals(shape, p.plan, workspace);
  for (int64_t k = 0; k < count; ++k) {
    ScanBackward& call = p.calls[k];
    call = directions[k];
    if (shape.sum_u) call.grad_u = totals.terms_of(p.plan.sum_u, k), call.add_to_grad_u = false;
    if (shape.sum_z) call.grad_z = totals.terms_of(p.plan.sum_z, k), call.add_to_grad_z = false;
    totals.add_all(call, k);
  }
  if (shape.sum_u) totals.over_directions(directions[0].grad_u, p.plan.sum_u, add);
  if (shape.sum_z) totals.over_directions(directions[0].grad_z, p.plan.sum_z, add);
  const LaunchShape launch_shape = {grid_of(p.plan.blocks), dim3(unsigned(p.plan.threads())), p.plan.shared_bytes};
  if (p.plan.kernel == ScanBackwardKernel::lanes) launch_scan_backward_lanes(p, launch_shape);
  else launch_general(p, launch_shape);
  launch_sums(totals.sums, directions[0].in.cuda);
}

char* allocate_for(const ScanBackward& call, const ScanBackwardShape& shape) {
  return allocate(call.in.cuda, plan_scan_backward(shape).workspace_bytes);
}

}  // namespace

void selective_scan_backward(const ScanBackward& params) {
  const ScanBackwardShape shape = shape_of(&params, 1, false);
  run_together(&params, 1, shape, allocate_for(params, shape), false);
}

void selective_scan_directions_backward(const ScanBackward* directions, int64_t count) {
  const int64_t most = count < kMostDirections ? count : kMostDirections;
  char* workspace = allocate_for(directions[0], shape_of(directions, most, true));
  for (int64_t first = 0; first < count; first += most) {
    const int64_t now = count - first < most ? count - first : most;
    run_together(directions + first, now, shape_of(directions + first, now, true), workspace, first > 0);
  }
}

}  // namespace ssm::cuda
