#include "cuda/causal_conv1d_forward.cuh"

#include "cuda/grid.h"
#include "cuda/operators.h"

namespace ssm::cuda {
namespace {

using ConvForwardKernel = void (*)(ConvForwardParams);

template <DType T>
ConvForwardKernel vector_kernel(int64_t width) {
  switch (width) {
    case 2: return conv_forward_kernel<ConvVector<T>, 2>;
    case 3: return conv_forward_kernel<ConvVector<T>, 3>;
    case 4: return conv_forward_kernel<ConvVector<T>, 4>;
    default: return conv_forward_kernel<ConvVector<T>, 0>;
  }
}

ConvForwardKernel kernel_for(const ConvInputs& in, bool vectors) {
  if (in.dtype == DType::f64) return conv_forward_kernel<ConvNumber<double>, 0>;
  if (!vectors) return conv_forward_kernel<ConvNumber<float>, 0>;
  if (in.dtype == DType::f32) return vector_kernel<DType::f32>(in.width);
  return in.dtype == DType::bf16 ? vector_kernel<DType::bf16>(in.width) : vector_kernel<DType::f16>(in.width);
}

}  // namespace

void causal_conv1d_forward(const ConvForward& params) {
  const ConvInputs& in = params.in;
  const bool vectors = has_conv_vectors(in, {in.x, params.y});
  const ConvPlan plan = plan_conv({in.batch, in.steps, in.channels, in.sequences().count, in.width > 1},
                                  vectors ? kConvVector : 1);
  const LaunchShape shape = {grid_of(plan.blocks()), dim3(kConvThreads)};
  launch(kernel_for(in, vectors), shape, in.cuda, {params, plan});
}

}  // namespace ssm::cuda
