// The fractions of the Cauchy sum, a vector of nodes at a time.
#pragma once

#include "cauchy_params.h"
#include "cpu/integers.h"
#include "cpu/scratch.h"
#include "cpu/vec.h"

namespace ssm::SSM_ISA::cauchy {

constexpr int64_t kNodes = 512;  // that are worked on together: their parts fit in the first-level cache

inline int64_t pieces_of(int64_t nodes) { return (nodes + kNodes - 1) / kNodes; }

// With p = 1 / (z - w) and q = 1 / (z - conj(w)) the parts of s = p + q and d = p - q: they are what the sums need, as
//   v p + conj(v) q = (Re v Re s - Im v Im d) + i (Re v Im s + Im v Re d).
template <class F>
struct Fractions {
  Vec<F> sum_re, sum_im, difference_re, difference_im;
};

template <class F>
SSM_INLINE Fractions<F> fractions(Vec<F> p_re, Vec<F> p_im, Vec<F> q_re, Vec<F> q_im) {
  return {p_re + q_re, p_im + q_im, p_re - q_re, p_im - q_im};
}

// Of one pole at some nodes; the same of the squares of p and q.  Both differences z - w and z - conj(w) are formed
// before they are multiplied, so that nothing cancels where a node comes close to a pole.
template <class F>
struct Pole {
  Vec<F> p_re, p_im, q_re, q_im;

  SSM_INLINE Pole(Vec<F> z_re, Vec<F> z_im, F w_re, F w_im) {
    const Vec<F> x = z_re - w_re, y = z_im - w_im, mirrored = z_im + w_im, xx = x * x;
    const Vec<F> p = F(1) / (xx + y * y), q = F(1) / (xx + mirrored * mirrored);
    p_re = x * p, p_im = -(y * p), q_re = x * q, q_im = -(mirrored * q);
  }

  SSM_INLINE Fractions<F> plain() const { return fractions<F>(p_re, p_im, q_re, q_im); }
  SSM_INLINE Fractions<F> squared() const {
    return fractions<F>(p_re * p_re - p_im * p_im, F(2) * p_re * p_im, q_re * q_re - q_im * q_im, F(2) * q_re * q_im);
  }
};

// The two parts of some complex numbers, in vectors of their own.
template <class F>
struct Parts {
  F *re, *im;

  explicit Parts(Scratch& scratch) : re(scratch.take<F>(kNodes)), im(scratch.take<F>(kNodes)) {}
  static constexpr int64_t kBytes = 2 * kNodes * static_cast<int64_t>(sizeof(F));

  // Fills the last vector up with copies of the last number.
  void read(const F* pairs, int64_t count) {
    for (int64_t k = 0; k < count; ++k) re[k] = pairs[2 * k], im[k] = pairs[2 * k + 1];
    for (int64_t k = count; k % kWidth<F> != 0; ++k) re[k] = re[count - 1], im[k] = im[count - 1];
  }

  void write(F* pairs, int64_t count) const {
    for (int64_t k = 0; k < count; ++k) pairs[2 * k] = re[k], pairs[2 * k + 1] = im[k];
  }

  // Makes the gradient of numbers that are not there 0.
  void clear_after(int64_t count) {
    for (int64_t k = count; k % kWidth<F> != 0; ++k) re[k] = im[k] = 0;
  }
};

}  // namespace ssm::SSM_ISA::cauchy
