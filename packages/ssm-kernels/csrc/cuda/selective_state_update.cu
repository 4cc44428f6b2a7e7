#include "cuda/selective_state_update.cuh"

#include "cuda/grid.h"
#include "cuda/operators.h"

namespace ssm::cuda {
namespace {

using StateUpdateKernel = void (*)(StateUpdateParams);

StateUpdateKernel kernel_for(const StateUpdate& params, int vector) {
  const bool wide = params.x.dtype == DType::f64;
  if (params.complex_A)
    return wide ? state_update_kernel<double, ComplexState<double>> : state_update_kernel<float, ComplexState<float>>;
  if (wide) return state_update_kernel<double, RealStates<double, 1>>;
  return vector == 4 ? state_update_kernel<float, RealStates<float, 4>> : state_update_kernel<float, RealStates<float, 1>>;
}

}  // namespace

void selective_state_update(const StateUpdate& params) {
  const UpdateView& state = params.state;
  const bool channels_adjacent = state.stride_p == (params.complex_A ? 2 : 1) && state.stride_n != state.stride_p;
  const StateUpdatePlan plan = plan_state_update(params.batch, params.heads, params.channels, params.states,
                                                 fits_vectors(params), channels_adjacent);
  const LaunchShape shape = {grid_of(plan.blocks), dim3(kStateUpdateThreads)};
  launch(kernel_for(params, plan.vector), shape, params.cuda, {params, plan.blocks_per_head, plan.lanes});
}

}  // namespace ssm::cuda
