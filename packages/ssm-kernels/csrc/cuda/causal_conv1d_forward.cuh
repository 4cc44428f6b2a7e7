// Forward pass of the causal convolution; see causal_conv1d_plan.h for which thread does what.
#pragma once

#include "cuda/causal_conv1d_tile.cuh"

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
    if (q >= s.begin) sample = load<F>(x.at(q), 0, in.dtype);
    else conv_initial<F, 1>(in, s, place.channel, s.begin - q, &sample);
    static_cast<F*>(p.op.final_state)[conv_state_at(in, s.index, place.channel, number)] = sample;
  }
}

// One thread's steps of one sequence.
template <class Vector, int Width>
struct ConvForwardPiece {
  using F = typename Vector::Compute;
  static constexpr int kCount = Vector::kCount, kSteps = ConvWidth<Width>::steps(Vector::kAhead);
  const ConvInputs& in;
  const ConvTaps<F, kCount, Width>& taps;
  const ConvLine &x, &y;
  ConvWindow<F, kCount, Width> window;

  // Steps [t, t + kSteps), all of which are there if `Whole`, and otherwise `left`.
  template <bool Whole>
  __device__ __forceinline__ void advance(const char* x_at, char* y_at, int left) {
    Vector ahead[kSteps];
#pragma unroll
    for (int u = 0; u < kSteps; ++u, x_at += x.step)
      if (Whole || u < left) ahead[u].load_from(x_at, in.dtype);
#pragma unroll
    for (int u = 0; u < kSteps; ++u, y_at += y.step) {
      if (!Whole && u >= left) break;
      ahead[u].decode(in.dtype, window.slots[window.slot(u, 0)]);
      F sums[kCount];
      window.sum(taps, int(in.width), u, sums);
      if (in.silu) {
#pragma unroll
        for (int i = 0; i < kCount; ++i) sums[i] = conv_silu(sums[i]);
      }
      Vector::store_to(y_at, in.dtype, sums);
    }
  }

  __device__ __forceinline__ void run(const ConvPlace& place, const ConvSequence& s, int steps) {
    window.template fill<Vector>(in, s, x, place.channel, place.begin);
    const char* x_at = x.at(place.begin);
    char* y_at = y.at(place.begin);
    for (; steps >= kSteps; steps -= kSteps, x_at += kSteps * x.step, y_at += kSteps * y.step)
      advance<true>(x_at, y_at, kSteps);
    if (steps > 0) advance<false>(x_at, y_at, steps);
  }
};

// The blocks asked for per multiprocessor keep the compiler from spilling for the sake of one more.
template <class Vector, int Width, bool Staged>
__global__ void __launch_bounds__(kConvThreads, Width == 0 ? 3 : 5) conv_forward_kernel(ConvForwardParams p) {
  using F = typename Vector::Compute;
  if (blockIdx.x >= p.plan.run_blocks) return write_final_state<F>(p);
  const ConvInputs& in = p.op.in;
  ConvPlace place(in, p.plan, Vector::kCount);
  ConvLine x(in, in.x, place.batch, place.channel);
  if constexpr (Staged) {
    const ConvTile tile(in, p.plan, Vector::kCount, ConvWidth<Width>::kTaps - 1, 0);
    auto* shared = shared_memory<typename Vector::Bits>();
    tile.load_from(in, in.x, shared);
    __syncthreads();
    x = tile.line(shared, place.channel);
  }
  if (!place.present) return;
  const ConvTaps<F, Vector::kCount, Width> taps(in, place.channel);
  const ConvLine y(in, p.op.y, place.batch, place.channel);
  while (place.begin < place.end) {
    const ConvSequence s = conv_sequence_of_step(in, place.batch, place.begin);
    const int steps = int((s.end < place.end ? s.end : place.end) - place.begin);
    ConvForwardPiece<Vector, Width>{in, taps, x, y}.run(place, s, steps);
    place.begin += steps;
  }
}

}  // namespace ssm::cuda
