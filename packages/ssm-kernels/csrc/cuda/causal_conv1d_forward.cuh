// Forward pass of the causal convolution; see causal_conv1d_plan.h for which thread does what.
#pragma once

#include "cuda/causal_conv1d.cuh"

namespace ssm::cuda {

struct ConvForwardParams {
  ConvForward op;
  ConvPlan plan;
};

// The final state holds the last samples, those of the initial state included if there are fewer steps.
template <class F>
__device__ __forceinline__ void write_final_state(const ConvForwardParams& p) {
  const ConvInputs& in = p.op.in;
  const ConvStatePlace place(in, p.plan);
  if (!place.present) return;
  const ConvSequence s = conv_sequence(in, place.sequence);
  const ConvLine x(in, in.x, in.offsets != nullptr ? 0 : place.sequence, place.channel);
  for (int64_t number = 0; number < in.width - 1; ++number) {
    const int64_t q = s.end - (in.width - 1) + number;
    F sample;
    if (q >= s.begin) sample = load<F>(in.x.data, x.at(q), in.x.dtype);
    else conv_initial<F, 1>(in, s, place.channel, s.begin - q, &sample);
    static_cast<F*>(p.op.final_state)[conv_state_at(in, s.index, place.channel, number)] = sample;
  }
}

template <class Vector, int Width>
__global__ void __launch_bounds__(kConvThreads) conv_forward_kernel(ConvForwardParams p) {
  using F = typename Vector::Compute;
  constexpr int kCount = Vector::kCount, kSteps = ConvWidth<Width>::steps(Vector::kAhead);
  if (blockIdx.x >= p.plan.run_blocks) return write_final_state<F>(p);
  const ConvInputs& in = p.op.in;
  const ConvPlace place(in, p.plan, kCount);
  if (!place.present) return;
  const int width = int(in.width);
  const ConvTaps<F, kCount, Width> taps(in, place.channel);
  const ConvLine x(in, in.x, place.batch, place.channel), y(in, p.op.y, place.batch, place.channel);

  for (int64_t begin = place.begin; begin < place.end;) {
    const ConvSequence s = conv_sequence_of_step(in, place.batch, begin);
    const int steps = int((s.end < place.end ? s.end : place.end) - begin);
    ConvWindow<F, kCount, Width> window;
    window.template fill<Vector>(in, s, x, place.channel, begin);
    int64_t x_at = x.at(begin), y_at = y.at(begin);
    for (int t = 0; t < steps; t += kSteps) {
      Vector ahead[kSteps];
#pragma unroll
      for (int u = 0; u < kSteps; ++u, x_at += x.step)
        if (t + u < steps) ahead[u].load_from(in.x, x_at);
#pragma unroll
      for (int u = 0; u < kSteps; ++u, y_at += y.step) {
        if (t + u >= steps) break;
        ahead[u].decode(in.x, window.slots[window.slot(u, 0)]);
        F sums[kCount];
        window.sum(taps, width, u, sums);
        if (in.silu) {
#pragma unroll
          for (int i = 0; i < kCount; ++i) sums[i] = conv_silu(sums[i]);
        }
        Vector::store_to(p.op.y, y_at, sums);
      }
    }
    begin += steps;
  }
}

}  // namespace ssm::cuda
