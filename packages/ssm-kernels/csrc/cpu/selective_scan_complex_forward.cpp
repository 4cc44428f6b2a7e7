// Forward pass of the selective scan with complex A.
#include "cpu/operators.h"
#include "cpu/selective_scan_complex.h"
#include "cpu/selective_scan_forward_task.h"

namespace ssm::SSM_ISA {
namespace {

struct ComplexForward {
  template <class F, bool Variable>
  using Coefficient = ComplexCoefficient<F, Variable>;

  static constexpr int kNumbers = 2;
  static constexpr int kMost = 4;  // their decays of one chunk stay in the first-level cache
  static constexpr int kStoredDecays = kMost;

  // For Count / 2 states.  y takes up 2 Re(C h): the other state of each conjugate pair is not stored.
  template <class F, int Count, class CoefficientB, class CoefficientC>
  static SSM_INLINE void run(int64_t rows, const ForwardTiles<F>& tiles, const F* rate, F* states,
                             const CoefficientB& b, const CoefficientC& c, Prefetch& prefetch) {
    for (int64_t t = 0; t < rows; ++t) prefetch.step();
    constexpr int64_t W = kWidth<F>;
    constexpr int States = Count / 2;
    compute_decays<F, States>(rows, tiles.delta, rate, tiles.decays);
    Vec<F> h_re[States], h_im[States];
    SSM_UNROLL
    for (int n = 0; n < States; ++n) {
      h_re[n] = load<F>(states + 2 * n * W);
      h_im[n] = load<F>(states + (2 * n + 1) * W);
    }
    for (int64_t t = 0; t < rows; ++t) {
      const Vec<F> delta_u = load<F>(tiles.delta_u + t * W);
      Vec<F> half = {};
      SSM_UNROLL
      for (int n = 0; n < States; ++n) {
        const F* decay = tiles.decays + (t * Count + 2 * n) * W;
        const Vec<F> a_re = load<F>(decay), a_im = load<F>(decay + W), before = h_re[n];
        h_re[n] = a_re * before - a_im * h_im[n] + delta_u * b.re(t, n);
        h_im[n] = a_re * h_im[n] + a_im * before + delta_u * b.im(t, n);
        half += h_re[n] * c.re(t, n) - h_im[n] * c.im(t, n);
      }
      store(tiles.y + t * W, load<F>(tiles.y + t * W) + F(2) * half);
    }
    SSM_UNROLL
    for (int n = 0; n < States; ++n) {
      store(states + 2 * n * W, h_re[n]);
      store(states + (2 * n + 1) * W, h_im[n]);
    }
  }
};

}  // namespace

void selective_scan_complex_forward(const ScanForward& params) { forward<ComplexForward>(&params, 1); }

}  // namespace ssm::SSM_ISA
