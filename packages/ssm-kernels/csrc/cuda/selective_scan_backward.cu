// Backward pass of the selective scan: one kernel over time, and one that adds up what its blocks found.
#include <stdexcept>

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

// Alike in all directions.
ScanBackwardShape shape_of(const ScanBackward& call, int64_t directions) {
  const ScanInputs& in = call.in;
  ScanBackwardShape shape;
  shape.directions = directions;
  shape.sequences = in.sequences().count;
  shape.batch = in.batch, shape.steps = in.steps, shape.channels = in.channels, shape.states = in.states;
  shape.groups_B = in.B.groups, shape.groups_C = in.C.groups;
  shape.complex_A = in.complex_A, shape.wide = in.dtype == DType::f64;
  shape.gated = in.z.data != nullptr;
  shape.short_strides = short_strides(call);
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

}  // namespace

void selective_scan_backward(const ScanBackward& params) {
  const ScanInputs& in = params.in;
  const ScanBackwardShape shape = shape_of(params, 1);
  ScanBackwardLaunch p;
  p.calls[0] = params;
  p.plan = plan_scan_backward(shape);
  p.workspace = allocate(in.cuda, p.plan.workspace_bytes);
  if (p.plan.blocks > 0x7fffffff) throw std::runtime_error("selective_scan: too many sequences and channels for one launch");
  LaunchShape launch_shape;
  launch_shape.grid = dim3(unsigned(p.plan.blocks));
  launch_shape.block = dim3(unsigned(p.plan.threads()));
  launch_shape.shared_bytes = p.plan.shared_bytes;

  if (p.plan.kernel == ScanBackwardKernel::lanes) launch_scan_backward_lanes(p, launch_shape);
  else launch_general(p, launch_shape);
  Totals totals(shape, p.plan, p.workspace);
  totals.add_all(params, 0);
  launch_sums(totals.sums, in.cuda);
}

}  // namespace ssm::cuda
