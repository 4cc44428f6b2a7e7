#include "cuda/ssd_states.cuh"

#include "cuda/ssd_launch.h"

namespace ssm::cuda {
namespace {

// Of the kernels that make a tile of a state.
template <class Compute>
LaunchShape states_shape(const SsdInputs& in, const SsdPlan& plan) {
  return ssd_grid(plan.chunks * in.heads, plan.channel_tiles * plan.state_tiles,
                  int64_t(sizeof(SsdTimes<Compute>)) + staged_bytes<Compute>());
}

}  // namespace

void launch_ssd_states(const SsdForwardCall& call, const SsdPlan& plan) {
  const SsdInputs& in = call.call.in;
  with_dtype(in.dtype, [&](auto type) {
    using Compute = typename Number<type()>::Compute;
    launch(ssd_chunk_states<type()>, states_shape<Compute>(in, plan), in.cuda, call);
  });
}

void launch_ssd_grad_states(const SsdBackwardCall& call, const SsdPlan& plan) {
  const SsdInputs& in = call.call.in;
  with_dtype(in.dtype, [&](auto type) {
    using Compute = typename Number<type()>::Compute;
    launch(ssd_chunk_grad_states<type()>, states_shape<Compute>(in, plan), in.cuda, call);
  });
}

void launch_ssd_carry(const SsdCarry& carry) {
  const SsdInputs& in = carry.in;
  const LaunchShape shape{grid_of(in.sequences().count * in.heads * carry.blocks), dim3(kSsdCarryThreads), 0};
  if (in.dtype == DType::f64) launch(ssd_carry_states<double>, shape, in.cuda, carry);
  else launch(ssd_carry_states<float>, shape, in.cuda, carry);
}

}  // namespace ssm::cuda
