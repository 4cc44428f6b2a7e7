// Inner loops of the scan's backward pass: one chunk of time, one block of channels, a few states at a time.
//
// With a = exp(delta A), G_t = dy_t C_t + a_{t+1} G_{t+1} (the gradient of the state h_t) and h recomputed from the state
// before the chunk:
//   q1_t = sum_n G_t B_t          (gives du and ddelta)
//   q2_t = sum_n a_t G_t h_{t-1} A  (gives ddelta)
//   dA = sum_t a_t G_t h_{t-1} delta_t,  dB_t = sum over channels of G_t delta_t u_t,  dC_t = sum of dy_t h_t
#pragma once

#include "cpu/prefetch.h"
#include "cpu/selective_scan.h"

namespace ssm::SSM_ISA {

// (steps, lanes) each.
template <class F>
struct AdjointTiles {
  F *delta, *delta_u, *dy;  // read
  F* y;                     // sum of C h is added (gated scans)
  F *q1, *q2;               // added to
  bool shared_decay;        // one for all states of a channel
};

// Per state and lane, from the first state of the pass on: (Count, lanes).
template <class F>
struct AdjointStates {
  const F* rate;     // A log2(e)
  const F* initial;  // h before the chunk
  F* carry;          // a_{t+1} G_{t+1} on entry for the step after the chunk, on return for the chunk's first step
  F* grad_A;         // added to
  F *grad_B, *grad_C;  // added to: constant (Count, lanes), variable (steps, Count, lanes)
};

// Decays a_t (steps, Count, lanes) and states h_t (steps + 1, Count, lanes), of which the first is the initial one.
template <class F>
struct Trajectory {
  F *decay, *state;
};

template <class F, int Count, bool Gated, bool Shared, class CoefficientB, class CoefficientC>
SSM_INLINE void recompute(int64_t rows, const AdjointTiles<F>& tiles, const AdjointStates<F>& states,
                          const CoefficientB& b, const CoefficientC& c, const Trajectory<F>& trajectory,
                          Prefetch& prefetch) {
  constexpr int64_t W = kWidth<F>;
  Vec<F> h[Count], rate[Count];
  SSM_UNROLL
  for (int n = 0; n < Count; ++n) {
    rate[n] = load<F>(states.rate + n * W);
    h[n] = load<F>(states.initial + n * W);
    store(trajectory.state + n * W, h[n]);
  }
  Prefetch ahead = prefetch;
  for (int64_t t = 0; t < rows; ++t) {
    ahead.step();
    const Vec<F> delta = load<F>(tiles.delta + t * W), delta_u = load<F>(tiles.delta_u + t * W);
    Vec<F> y = {}, decay = exp2<F>(delta * rate[0]);
    SSM_UNROLL
    for (int n = 0; n < Count; ++n) {
      if (!Shared && n > 0) decay = exp2<F>(delta * rate[n]);
      h[n] = decay * h[n] + delta_u * b.at(t, n);
      store(trajectory.decay + (t * Count + n) * W, decay);
      store(trajectory.state + ((t + 1) * Count + n) * W, h[n]);
      if constexpr (Gated) y += h[n] * c.at(t, n);
    }
    if constexpr (Gated) store(tiles.y + t * W, load<F>(tiles.y + t * W) + y);
  }
  prefetch = ahead;
}

template <class V>
SSM_INLINE void add_to_memory(void* sum, V term) {
  store(sum, load_as<V>(sum) + term);
}

template <class F, int Count, bool VariableB, bool VariableC>
SSM_INLINE void run_adjoint(int64_t rows, const AdjointTiles<F>& tiles, const AdjointStates<F>& states,
                            const Coefficient<F, VariableB>& b, const Coefficient<F, VariableC>& c,
                            const Trajectory<F>& trajectory) {
  constexpr int64_t W = kWidth<F>;
  Vec<F> carry[Count], h[Count], grad_A[Count], grad_B[Count], grad_C[Count];
  SSM_UNROLL
  for (int n = 0; n < Count; ++n) {
    carry[n] = load<F>(states.carry + n * W);
    h[n] = load<F>(trajectory.state + (rows * Count + n) * W);
    grad_A[n] = grad_B[n] = grad_C[n] = Vec<F>{};
  }
  for (int64_t t = rows - 1; t >= 0; --t) {
    const Vec<F> delta = load<F>(tiles.delta + t * W), delta_u = load<F>(tiles.delta_u + t * W);
    const Vec<F> dy = load<F>(tiles.dy + t * W);
    Vec<F> q1 = load<F>(tiles.q1 + t * W), q2 = load<F>(tiles.q2 + t * W);
    SSM_UNROLL
    for (int n = 0; n < Count; ++n) {
      const int64_t at = (t * Count + n) * W;
      const Vec<F> G = dy * c.at(t, n) + carry[n];
      if constexpr (VariableC) add_to_memory(states.grad_C + at, dy * h[n]);
      else grad_C[n] += dy * h[n];
      if constexpr (VariableB) add_to_memory(states.grad_B + at, G * delta_u);
      else grad_B[n] += G * delta_u;
      q1 += G * b.at(t, n);
      carry[n] = load<F>(trajectory.decay + at) * G;
      h[n] = load<F>(trajectory.state + at);
      const Vec<F> through_decay = carry[n] * h[n];
      q2 += through_decay * load<F>(states.rate + n * W);
      grad_A[n] += through_decay * delta;
    }
    store(tiles.q1 + t * W, q1);
    store(tiles.q2 + t * W, q2);
  }
  SSM_UNROLL
  for (int n = 0; n < Count; ++n) {
    store(states.carry + n * W, carry[n]);
    // Sums of one chunk are added to the total: short sums of sums lose fewer digits than one long sum.
    add_to_memory(states.grad_A + n * W, grad_A[n]);
    if constexpr (!VariableB) add_to_memory(states.grad_B + n * W, grad_B[n]);
    if constexpr (!VariableC) add_to_memory(states.grad_C + n * W, grad_C[n]);
  }
}

// Sums (steps, Count, lanes) over the lanes into out[step * stride + n] and sets them to 0.
template <class F, int Count>
SSM_INLINE void sum_over_lanes(int64_t rows, F* sums, int64_t stride, F* out) {
  constexpr int W = kWidth<F>;
  const int64_t vectors = rows * Count;
  for (int64_t i = 0; i < vectors; i += W) {
    Vec<F> v[W];
    for (int j = 0; j < W; ++j) v[j] = i + j < vectors ? load<F>(sums + (i + j) * W) : Vec<F>{};
    F lanes[W];
    store(lanes, sum_rows<F>(v));
    for (int j = 0; j < W && i + j < vectors; ++j) out[(i + j) / Count * stride + (i + j) % Count] = lanes[j];
  }
  std::memset(sums, 0, static_cast<size_t>(vectors * W) * sizeof(F));
}

// The same for the W states from n on, stored in passes of Count, (passes, kTileSteps, Count, lanes): one vector of sums
// per step.
template <class F, int Count>
SSM_INLINE void sum_whole_vectors(int64_t rows, F* sums, int64_t n, int64_t stride, F* out) {
  constexpr int W = kWidth<F>;
  F* first = sums + (n / Count * kTileSteps * Count + n % Count) * W;
  for (int64_t t = 0; t < rows; ++t) {
    Vec<F> v[W];
    SSM_UNROLL
    for (int i = 0; i < W; ++i) {
      F* sum = first + ((i / Count * kTileSteps + t) * Count + i % Count) * W;
      v[i] = load<F>(sum);
      store(sum, Vec<F>{});
    }
    store(out + t * stride + n, sum_rows<F>(v));
  }
}

}  // namespace ssm::SSM_ISA
