// Forward pass of the causal convolution: the steps [begin, end) of one block of channels, at most kConvTile.
#pragma once

#include "cpu/causal_conv1d.h"

namespace ssm::SSM_ISA {

template <class F, int K>
void convolve_block(const ConvForward& params, const Sequence& sequence, int64_t begin, int64_t end, ConvBlock block) {
  constexpr int64_t W = kWidth<F>;
  const ConvInputs& in = params.in;
  const int64_t rows = end - begin;
  alignas(64) F padded[(kConvTile + K - 1) * W];
  alignas(64) F y[kConvTile * W];
  conv_read_padded<F>(in, sequence, block, begin - (K - 1), begin + rows, padded);

  Vec<F> taps[K];
  conv_read_taps<F, K>(in, block, taps);
  const Vec<F> bias = conv_read_bias<F>(in, block);
  const ConvPrefetch<F> next_x(in, in.x, sequence, block, begin, rows);
  const ConvPrefetch<F> next_y(in, params.y, sequence, block, begin, rows);
  for (int64_t t = 0; t < rows; ++t) {
    next_x.row(t), next_y.row(t);
    Vec<F> sum = conv_sum<F, K>(padded + t * W, taps, bias);
    if (in.silu) sum = sum / (exp<F>(-sum) + F(1));
    store(y + t * W, sum);
  }
  if (rows > 0) write_matrix<F>(params.y.dtype, conv_steps(in, params.y, sequence, block, begin, rows), y, W);
  if (K > 1 && end == sequence.steps && params.final_state != nullptr) {
    const Matrix m = conv_state<F>(in, params.final_state, sequence, block, 0, K - 1);
    write_matrix<F>(kComputeType<F>, m, padded + rows * W, W);
  }
}

}  // namespace ssm::SSM_ISA
