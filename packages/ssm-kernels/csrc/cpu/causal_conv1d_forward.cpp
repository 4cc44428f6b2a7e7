// Forward pass of the causal convolution.  A task is one batch index, one tile of steps and a band of channels.
#include "cpu/causal_conv1d.h"
#include "cpu/operators.h"
#include "cpu/parallel.h"

namespace ssm::SSM_ISA {
namespace {

constexpr int64_t kBandBlocks = 16;  // blocks per task: enough work to pay for handing it out

template <class F, int K>
void convolve_block(const ConvForward& params, int64_t batch, int64_t tile, ConvBlock block) {
  constexpr int64_t W = kWidth<F>;
  const ConvInputs& in = params.in;
  const int64_t begin = tile * kConvTile, left = in.steps - begin, rows = left < kConvTile ? left : kConvTile;
  alignas(64) F padded[(kConvTile + K - 1) * W];
  alignas(64) F y[kConvTile * W];
  conv_read_padded<F>(in, batch, block, begin - (K - 1), begin + rows, padded);

  Vec<F> taps[K];
  conv_read_taps<F, K>(in, block, taps);
  const Vec<F> bias = conv_read_bias<F>(in, block);
  for (int64_t t = 0; t < rows; ++t) {
    Vec<F> sum = conv_sum<F, K>(padded + t * W, taps, bias);
    if (in.silu) sum = sum / (exp<F>(-sum) + F(1));
    store(y + t * W, sum);
  }
  if (rows > 0) write_matrix<F>(in.dtype, conv_steps(in, params.y, batch, block, begin, rows), y, W);
  if (K > 1 && begin + rows == in.steps) {
    const Matrix m = conv_state<F>(in, params.final_state, batch, block, 0, K - 1);
    write_matrix<F>(kComputeType<F>, m, padded + rows * W, W);
  }
}

template <class F, int K>
void forward(const ConvForward& params) {
  const ConvInputs& in = params.in;
  const int64_t blocks = conv_blocks<F>(in), bands = (blocks + kBandBlocks - 1) / kBandBlocks;
  // Without a step there is still a final state to write.
  const int64_t tiles = in.steps == 0 ? 1 : (in.steps + kConvTile - 1) / kConvTile;
  parallel_for(in.batch * tiles * bands, in.num_threads, [&](int64_t task) {
    const int64_t band = task % bands, tile = task / bands % tiles, batch = task / bands / tiles;
    const int64_t begin = band * kBandBlocks, end = begin + kBandBlocks < blocks ? begin + kBandBlocks : blocks;
    for (int64_t k = begin; k < end; ++k) convolve_block<F, K>(params, batch, tile, conv_block<F>(in, k));
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
