// Backward pass of the selective scan with real A.
#include "cpu/operators.h"
#include "cpu/selective_scan_backward_task.h"

namespace ssm::SSM_ISA {
namespace {

struct RealBackward {
  template <class F, bool Variable>
  using Coefficient = SSM_ISA::Coefficient<F, Variable>;

  static constexpr int kNumbers = 1;
  static constexpr int kMost = 4;  // 2 are slower; 2 or 4 of each of two blocks are no faster (AVX-512)

  template <class F, int Count, bool Gated, class CoefficientB, class CoefficientC>
  static SSM_INLINE void run(int64_t rows, const AdjointTiles<F>& tiles, const AdjointStates<F>& states,
                             const CoefficientB& b, const CoefficientC& c, const Trajectory<F>& trajectory,
                             Prefetch& prefetch) {
    if (tiles.shared_decay) recompute<F, Count, Gated, true>(rows, tiles, states, b, c, trajectory, prefetch);
    else recompute<F, Count, Gated, false>(rows, tiles, states, b, c, trajectory, prefetch);
    run_adjoint<F, Count>(rows, tiles, states, b, c, trajectory);
  }
};

}  // namespace

void selective_scan_backward(const ScanBackward& params) { backward<RealBackward>(params); }

}  // namespace ssm::SSM_ISA
