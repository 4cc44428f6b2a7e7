// The causal convolution of new samples, which then go into the state.
//
// A thread owns one channel of one batch index: it holds the last samples in registers, so the state can be overwritten
// while it works.  Neighbouring threads own neighbouring channels: with a state (b, d, s) a warp reads whole lines.
#pragma once

#include "causal_conv1d_update_params.h"
#include "cuda/causal_conv1d_update_plan.h"
#include "cuda/functions.cuh"
#include "cuda/numbers.h"

namespace ssm::cuda {

struct ConvUpdateParams {
  ConvUpdate in;
  int64_t blocks_per_row;
};

// The state of one channel.
template <class F>
struct ConvSamples {
  char* data;
  DType dtype;
  int64_t first, stride;

  __device__ __forceinline__ F get(int64_t slot) const { return load<F>(data, first + slot * stride, dtype); }
  __device__ __forceinline__ void set(int64_t slot, F value) const { store<F>(data, first + slot * stride, dtype, value); }
};

// Of the sample after the newest one, in a ring.
__device__ __forceinline__ int64_t ring_slot(const ConvUpdate& in, int64_t batch) {
  if (in.samples == 0) return 0;
  const int64_t seen = in.wide_counts ? static_cast<const int64_t*>(in.counts)[batch]
                                      : int64_t(static_cast<const int32_t*>(in.counts)[batch]);
  const int64_t rest = seen % in.samples;
  return rest < 0 ? rest + in.samples : rest;
}

// F: the compute type.  Few threads and few bytes: what any width and any type cost here does not show.
template <class F>
__global__ void __launch_bounds__(kConvUpdateThreads) conv_update_kernel(ConvUpdateParams p) {
  const ConvUpdate& in = p.in;
  const unsigned row_blocks = unsigned(p.blocks_per_row);
  const int64_t batch = blockIdx.x / row_blocks;
  const int64_t channel = int64_t(blockIdx.x % row_blocks) * kConvUpdateThreads + threadIdx.x;
  if (channel >= in.channels) return;
  const int width = int(in.width);
  const bool ring = in.counts != nullptr;
  const ConvSamples<F> state = {in.state.data, in.state.dtype,
                                batch * in.state.stride_b + channel * in.state.stride_d, in.state.stride_l};
  int64_t slot = ring ? ring_slot(in, batch) : in.samples;

  // The last entries belong to the newest sample; the first ones are empty where the width is below the greatest.
  F taps[kMostTaps], window[kMostTaps];
  const F* weight = static_cast<const F*>(in.weight) + channel * width;
#pragma unroll
  for (int j = 0; j < kMostTaps; ++j) {
    const int back = int(kMostTaps) - 1 - j;
    taps[j] = back < width ? weight[width - 1 - back] : F(0);
    window[j] = F(0);
    if (back > 0 && back < width) window[j] = state.get(slot >= back ? slot - back : slot - back + in.samples);
  }
  const F bias = in.bias != nullptr ? static_cast<const F*>(in.bias)[channel] : F(0);

  if (!ring) {
    for (int64_t i = 0; i + in.steps < in.samples; ++i) state.set(i, state.get(i + in.steps));
    slot = in.samples - in.steps;
  }
  int64_t x_at = batch * in.x.stride_b + channel * in.x.stride_d;
  int64_t y_at = batch * in.y.stride_b + channel * in.y.stride_d;
  for (int64_t t = 0; t < in.steps; ++t, x_at += in.x.stride_l, y_at += in.y.stride_l) {
    const F sample = load<F>(in.x.data, x_at, in.x.dtype);
    window[kMostTaps - 1] = sample;
    F sum = bias;
#pragma unroll
    for (int j = 0; j < kMostTaps; ++j)
      if (int(kMostTaps) - j <= width) sum += taps[j] * window[j];  // an empty tap may face an infinite sample
    store<F>(in.y.data, y_at, in.y.dtype, in.silu ? silu(sum) : sum);
    if (in.steps - t <= in.samples) state.set(slot, sample);
    if (++slot == in.samples && ring) slot = 0;
#pragma unroll
    for (int j = 0; j + 1 < kMostTaps; ++j) window[j] = window[j + 1];
  }
}

}  // namespace ssm::cuda
