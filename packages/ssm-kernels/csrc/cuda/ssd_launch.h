// What the passes of the SSD scan launch alike.
#pragma once

#include "cuda/grid.h"
#include "cuda/ssd_states.cuh"

namespace ssm::cuda {

inline LaunchShape ssd_grid(int64_t blocks, int64_t tiles, int64_t shared_bytes) {
  return {grid_of(blocks, tiles), dim3(kTileThreads), shared_bytes};
}

// Of the kernels that make a tile of a state.
template <DType T>
LaunchShape states_shape(const SsdInputs& in, const SsdPlan& plan) {
  using Compute = typename Number<T>::Compute;
  return ssd_grid(plan.chunks * in.heads, plan.channel_tiles * plan.state_tiles,
                  int64_t(sizeof(SsdTimes<Compute>)) + staged_bytes<Compute>());
}

// What each chunk adds to the state in `call.states`, decays in `call.decays`.
template <DType T>
void launch_states(const SsdForwardCall& call, const SsdPlan& plan) {
  launch(ssd_chunk_states<T>, states_shape<T>(call.call.in, plan), call.call.in.cuda, call);
}

template <class Compute>
void launch_carry(const SsdCarry& carry) {
  LaunchShape shape = ssd_grid(carry.in.sequences().count * carry.in.heads * carry.blocks, 1, 0);
  shape.block = dim3(kSsdCarryThreads);
  launch(ssd_carry_states<Compute>, shape, carry.in.cuda, carry);
}

}  // namespace ssm::cuda
