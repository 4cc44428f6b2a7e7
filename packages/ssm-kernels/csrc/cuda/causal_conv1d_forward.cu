#include "cuda/causal_conv1d_forward.cuh"

#include "cuda/grid.h"
#include "cuda/operators.h"

namespace ssm::cuda {
namespace {

constexpr int kForwardVector = 4;  // channels

using ConvForwardKernel = void (*)(ConvForwardParams);

template <DType T>
ConvForwardKernel vector_kernel(int64_t width, bool staged) {
  using Vector = ConvVector<T, kForwardVector>;
  if (staged) return width == 4 ? conv_forward_kernel<Vector, 4, true> : conv_forward_kernel<Vector, 0, true>;
  switch (width) {
    case 2: return conv_forward_kernel<Vector, 2, false>;
    case 3: return conv_forward_kernel<Vector, 3, false>;
    case 4: return conv_forward_kernel<Vector, 4, false>;
    default: return conv_forward_kernel<Vector, 0, false>;
  }
}

ConvForwardKernel kernel_for(const ConvInputs& in, bool vectors, bool staged) {
  if (in.dtype == DType::f64) return conv_forward_kernel<ConvNumber<double>, 0, false>;
  if (!vectors) return conv_forward_kernel<ConvNumber<float>, 0, false>;
  if (in.dtype == DType::f32) return vector_kernel<DType::f32>(in.width, staged);
  if (in.dtype == DType::bf16) return vector_kernel<DType::bf16>(in.width, staged);
  return vector_kernel<DType::f16>(in.width, staged);
}

}  // namespace

void causal_conv1d_forward(const ConvForward& params) {
  const ConvInputs& in = params.in;
  const bool vectors = has_conv_vectors(in, {params.y}, kForwardVector);
  const bool staged = vectors && !has_conv_vectors(in, {in.x}, kForwardVector);
  const int vector = vectors ? kForwardVector : 1;
  const ConvSizes sizes = {in.batch, in.steps, in.channels, in.sequences().count, in.width > 1, staged};
  const ConvPlan plan = plan_conv(sizes, vector);
  const int64_t extra = in.width == 4 ? 3 : kMostTaps - 1;  // steps before those of a block
  const LaunchShape shape = {grid_of(plan.blocks()), dim3(kConvThreads),
                             staged ? conv_tile_bytes(plan, vector, extra, size_of(in.dtype)) : 0};
  launch(kernel_for(in, vectors, staged), shape, in.cuda, {params, plan});
}

}  // namespace ssm::cuda
