// Forward pass of the causal convolution.  A task is one tile of steps (or several short sequences) and a band of channels.
#include "cpu/causal_conv1d_forward.h"
#include "cpu/operators.h"
#include "cpu/parallel.h"

namespace ssm::SSM_ISA {
namespace {

constexpr int64_t kBandBlocks = 16;  // blocks per task: enough work to pay for handing it out

template <class F, int K>
void forward(const ConvForward& params) {
  const ConvInputs& in = params.in;
  const int64_t blocks = conv_blocks<F>(in), bands = (blocks + kBandBlocks - 1) / kBandBlocks;
  const int64_t part_steps = conv_part_steps(in.sequences(), kConvTile), parts = conv_parts(in.sequences(), part_steps);
  parallel_for(parts * bands, in.num_threads, [&](int64_t task) {
    const int64_t band = task % bands, part = task / bands;
    const int64_t first = band * kBandBlocks, last = first + kBandBlocks < blocks ? first + kBandBlocks : blocks;
    conv_for_pieces(in, part, part_steps, [&](const Sequence& sequence, int64_t begin, int64_t end) {
      for (int64_t k = first; k < last; ++k)
        convolve_block<F, K>(params, sequence, begin, end, conv_block<F>(in, k));
    });
  });
}

}  // namespace

void causal_conv1d_forward(const ConvForward& params) {
  with_width(params.in.width, [&](auto width) {
    if (params.in.dtype == DType::f64) return forward<double, decltype(width)::value>(params);
    return forward<float, decltype(width)::value>(params);
  });
}

}  // namespace ssm::SSM_ISA
