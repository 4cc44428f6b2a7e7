#include "cuda/causal_conv1d_update.cuh"

#include "cuda/grid.h"
#include "cuda/operators.h"

namespace ssm::cuda {

void causal_conv1d_update(const ConvUpdate& params) {
  const ConvUpdatePlan plan = plan_conv_update(params.batch, params.steps, params.channels);
  const LaunchShape shape = {grid_of(plan.blocks), dim3(kConvUpdateThreads)};
  const ConvUpdateParams p = {params, plan.blocks_per_row};
  launch(params.x.dtype == DType::f64 ? conv_update_kernel<double> : conv_update_kernel<float>, shape, params.cuda, p);
}

}  // namespace ssm::cuda
