// The innermost loop of the selective scan's forward pass with real A.
#pragma once

#include "cpu/selective_scan_forward_task.h"

namespace ssm::SSM_ISA {

struct RealForward {
  template <class F, bool Variable>
  using Coefficient = SSM_ISA::Coefficient<F, Variable>;

  static constexpr int kNumbers = 1;
  static constexpr int kStoredDecays = 0;
  static constexpr int kMost = 16;  // in registers where there are 32; elsewhere in the first-level cache, no slower

  template <class F, int Count, class CoefficientB, class CoefficientC>
  static SSM_INLINE void run(int64_t rows, const ForwardTiles<F>& tiles, const F* rate, F* states,
                             const CoefficientB& b, const CoefficientC& c, Prefetch& prefetch) {
    if (tiles.shared_decay) return steps<F, Count, true>(rows, tiles, rate, states, b, c, prefetch);
    steps<F, Count, false>(rows, tiles, rate, states, b, c, prefetch);
  }

  // Shared: one decay for all states of a channel.
  template <class F, int Count, bool Shared, class CoefficientB, class CoefficientC>
  static SSM_INLINE void steps(int64_t rows, const ForwardTiles<F>& tiles, const F* rate, F* states,
                               const CoefficientB& b, const CoefficientC& c, Prefetch& prefetch) {
    constexpr int64_t W = kWidth<F>;
    Vec<F> h[Count];
    SSM_UNROLL
    for (int n = 0; n < Count; ++n) h[n] = load<F>(states + n * W);
    Prefetch ahead = prefetch;
    for (int64_t t = 0; t < rows; ++t) {
      ahead.step();
      const Vec<F> delta = load<F>(tiles.delta + t * W), delta_u = load<F>(tiles.delta_u + t * W);
      Vec<F> y[2] = {load<F>(tiles.y + t * W), Vec<F>{}};  // two sums: half the latency
      Vec<F> decay = exp2<F>(delta * load<F>(rate));
      SSM_UNROLL
      for (int n = 0; n < Count; ++n) {
        if (!Shared && n > 0) decay = exp2<F>(delta * load<F>(rate + n * W));
        h[n] = decay * h[n] + delta_u * b.at(t, n);
        y[n % 2] += h[n] * c.at(t, n);
      }
      store(tiles.y + t * W, y[0] + y[1]);
    }
    prefetch = ahead;
    SSM_UNROLL
    for (int n = 0; n < Count; ++n) store(states + n * W, h[n]);
  }
};

}  // namespace ssm::SSM_ISA
