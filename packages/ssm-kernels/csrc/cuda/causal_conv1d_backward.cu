#include "cuda/causal_conv1d_backward.cuh"

#include "cuda/grid.h"
#include "cuda/operators.h"
#include "cuda/reduce.cuh"

namespace ssm::cuda {
namespace {

// Channels of a thread.  The windows of x and g take registers: four leave enough threads where the window is short, and
// save instructions, of which 16-bit types allow half as many per element.
int vector_of(const ConvInputs& in, bool staged) {
  return in.dtype != DType::f32 && in.width >= (staged ? 4 : 2) && in.width <= 4 ? 4 : 2;
}

using ConvBackwardKernel = void (*)(ConvBackwardParams);

template <DType T>
ConvBackwardKernel vector_kernel(int64_t width, bool staged) {
  using Vector = ConvVector<T, T == DType::f32 ? 2 : 4>;
  if (staged && width == 4) return conv_backward_kernel<Vector, 4, true>;
  if (staged) return conv_backward_kernel<ConvVector<T, 2>, 0, true>;
  switch (width) {
    case 2: return conv_backward_kernel<Vector, 2, false>;
    case 3: return conv_backward_kernel<Vector, 3, false>;
    case 4: return conv_backward_kernel<Vector, 4, false>;
    default: return conv_backward_kernel<ConvVector<T, 2>, 0, false>;
  }
}

ConvBackwardKernel kernel_for(const ConvInputs& in, bool vectors, bool staged) {
  if (in.dtype == DType::f64) return conv_backward_kernel<ConvNumber<double>, 0, false>;
  if (!vectors) return conv_backward_kernel<ConvNumber<float>, 0, false>;
  if (in.dtype == DType::f32) return vector_kernel<DType::f32>(in.width, staged);
  if (in.dtype == DType::bf16) return vector_kernel<DType::bf16>(in.width, staged);
  return vector_kernel<DType::f16>(in.width, staged);
}

void add_up_partials(const ConvBackward& params, const ConvPlan& plan, char* partials) {
  const ConvInputs& in = params.in;
  const DType dtype = in.dtype == DType::f64 ? DType::f64 : DType::f32;
  PartialSum weight;
  weight.partials = partials;
  weight.terms = plan.row_blocks(), weight.term_stride = (in.width + 1) * in.channels;
  weight.size[2] = in.width, weight.partial_stride[2] = in.channels, weight.out_stride[2] = 1;
  weight.size[3] = in.channels, weight.partial_stride[3] = 1, weight.out_stride[3] = in.width;
  weight.out = static_cast<char*>(params.grad_weight), weight.dtype = dtype;
  PartialSum bias = weight;
  bias.partials = partials + in.width * in.channels * size_of(dtype);
  bias.size[2] = 1, bias.out_stride[3] = 1;
  bias.out = static_cast<char*>(params.grad_bias);
  PartialSums sums;
  sums.wide = dtype == DType::f64;
  sums.add(weight);
  sums.add(bias);
  launch_sums(sums, in.cuda);
}

}  // namespace

void causal_conv1d_backward(const ConvBackward& params) {
  const ConvInputs& in = params.in;
  const bool direct = has_conv_vectors(in, {in.x, params.grad_y, params.grad_x}, vector_of(in, false));
  const bool vectors = direct || has_conv_vectors(in, {params.grad_x}, vector_of(in, true));
  const bool staged = vectors && !direct;
  const int vector = vectors ? vector_of(in, staged) : 1;
  const bool states = in.width > 1 && params.grad_initial_state != nullptr;
  const ConvPlan plan = plan_conv({in.batch, in.steps, in.channels, in.sequences().count, states, staged}, vector);
  const int64_t extra = 2 * (in.width == 4 ? 3 : kMostTaps - 1);  // steps before and after those of a block
  const int64_t tile_bytes = staged ? 2 * conv_tile_bytes(plan, vector, extra, size_of(in.dtype)) : 0;
  const int64_t number_bytes = in.dtype == DType::f64 ? 8 : 4;
  char* partials = allocate(in.cuda, conv_partial_bytes(plan, in.width, in.channels, number_bytes));
  const LaunchShape shape = {grid_of(plan.blocks()), dim3(kConvThreads),
                             tile_bytes + conv_shared_bytes(plan, vector, in.width, number_bytes)};
  launch(kernel_for(in, vectors, staged), shape, in.cuda, {params, plan, partials, tile_bytes});
  add_up_partials(params, plan, partials);
}

}  // namespace ssm::cuda
