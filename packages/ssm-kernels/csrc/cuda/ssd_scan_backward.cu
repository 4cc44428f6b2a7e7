// The SSD scan, backward.  The states before each chunk are computed again and the gradients of those after each chunk
// carried back; then every chunk is by itself, and sums over chunks come last, in a fixed order.
#include "cuda/operators.h"
#include "cuda/reduce.cuh"
#include "cuda/ssd_gradient_groups.cuh"
#include "cuda/ssd_gradient_steps.cuh"
#include "cuda/ssd_launch.h"
#include "cuda/workspace.h"

namespace ssm::cuda {
namespace {

template <DType T>
void launch_gradients(const SsdBackwardCall& call, const SsdPlan& plan) {
  using Compute = typename Number<T>::Compute;
  const SsdInputs& in = call.call.in;
  launch(ssd_gradient_steps<T>,
         ssd_grid(plan.chunks * in.heads, 1, int64_t(sizeof(SsdGradientMemory<Compute>)) + staged_bytes<Compute>()),
         in.cuda, call);
  const LaunchShape shape = ssd_grid(plan.chunks * in.groups, plan.state_tiles,
                                     int64_t(sizeof(SsdOutputsMemory<Compute>)) + staged_bytes<Compute>());
  launch(ssd_gradient_groups<T, true>, shape, in.cuda, call);
  launch(ssd_gradient_groups<T, false>, shape, in.cuda, call);
}

// The sums of the chunks' shares.
void launch_parameters(const SsdBackwardCall& call, const SsdPlan& plan) {
  const SsdBackward& params = call.call;
  const SsdInputs& in = params.in;
  PartialSums sums;
  sums.wide = in.dtype == DType::f64;
  const auto add = [&](const char* partials, void* out, int64_t size) {
    PartialSum sum;
    sum.partials = partials, sum.out = static_cast<char*>(out);
    sum.terms = plan.chunks, sum.term_stride = size;
    sum.size[3] = size, sum.partial_stride[3] = 1, sum.out_stride[3] = 1;
    sum.dtype = sums.wide ? DType::f64 : DType::f32;
    sums.add(sum);
  };
  add(call.grad_A, params.grad_A, in.heads);
  add(call.grad_dt_bias, params.grad_dt_bias, in.heads);
  add(call.grad_D, params.grad_D, in.D_per_channel ? in.heads * in.channels : in.heads);
  launch_sums(sums, in.cuda);
}

template <DType T>
void run(const SsdBackward& params) {
  using Compute = typename Number<T>::Compute;
  const SsdInputs& in = params.in;
  const SsdPlan plan = plan_ssd(in, true);
  const SsdWorkspace& w = plan.workspace;
  char* workspace = allocate(in.cuda, w.bytes);
  const SsdBackwardCall call{params,
                             workspace + w.states,
                             workspace + w.grad_states,
                             workspace + w.decays,
                             workspace + w.grad_A,
                             workspace + w.grad_dt_bias,
                             workspace + w.grad_D};
  SsdForward forward;
  forward.in = in;
  launch_states<T>({forward, call.states, call.decays}, plan);
  launch_carry<Compute>({in, plan.carry_blocks, call.states, call.decays, static_cast<const char*>(in.initial_state),
                         nullptr, false});
  launch(ssd_chunk_grad_states<T>, states_shape<T>(in, plan), in.cuda, call);
  launch_carry<Compute>({in, plan.carry_blocks, call.grad_states, call.decays,
                         static_cast<const char*>(params.grad_final_state),
                         static_cast<char*>(params.grad_initial_state), true});
  launch_gradients<T>(call, plan);
  launch_parameters(call, plan);
}

}  // namespace

void ssd_scan_backward(const SsdBackward& params) {
  switch (params.in.dtype) {
    case DType::f32: return run<DType::f32>(params);
    case DType::f64: return run<DType::f64>(params);
    case DType::bf16: return run<DType::bf16>(params);
    case DType::f16: return run<DType::f16>(params);
  }
}

}  // namespace ssm::cuda
