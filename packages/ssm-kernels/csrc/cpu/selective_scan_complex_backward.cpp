// Backward pass of the selective scan with complex A.
#include "cpu/operators.h"
#include "cpu/selective_scan_backward_task.h"
#include "cpu/selective_scan_complex_adjoint.h"

namespace ssm::SSM_ISA {
namespace {

struct ComplexBackward {
  template <class F, bool Variable>
  using Coefficient = ComplexCoefficient<F, Variable>;

  static constexpr int kNumbers = 2;
#if defined(SSM_ISA_IS_avx512)
  static constexpr int kMost = 4;
#else
  static constexpr int kMost = 2;
#endif

  template <class F, int Count, bool Gated, class CoefficientB, class CoefficientC>
  static SSM_INLINE void run(int64_t rows, const AdjointTiles<F>& tiles, const AdjointStates<F>& states,
                             const CoefficientB& b, const CoefficientC& c, const Trajectory<F>& trajectory,
                             Prefetch& prefetch) {
    for (int64_t t = 0; t < rows; ++t) prefetch.step();
    recompute_complex<F, Count, Gated>(rows, tiles, states, b, c, trajectory);
    run_complex_adjoint<F, Count>(rows, tiles, states, b, c, trajectory);
  }
};

}  // namespace

void selective_scan_complex_backward(const ScanBackward& params) { backward<ComplexBackward>(params); }

}  // namespace ssm::SSM_ISA
