// How the sum of powers is taken apart.  With t = first + 64 r + i, exp(t x) is the product of a power that depends on
// the line r and one that depends on the place i in it, so that a table of 64 places and one of the lines replace an
// exponential per step, and the sum over the states is a product of two small matrices of real numbers:
//   K[r, i] = sum_n Re(line[r, n] place[n, i]) = sum_n (Re line Re place - Im line Im place).
// The tables are made in double precision, so that angles lose no digits however large t is.
#pragma once

#include <math.h>

#include "cpu/integers.h"
#include "cpu/scratch.h"
#include "cpu/tile.h"
#include "cpu/vec_trig.h"
#include "log_vandermonde_params.h"

namespace ssm::SSM_ISA::vandermonde {

constexpr int64_t kPlaces = 64;
constexpr int64_t kLines = 128;  // of one piece, the part of a row that one task makes
constexpr int64_t kPieceSteps = kPlaces * kLines;
constexpr int64_t kStates = 64;  // whose tables are in memory at once

inline int64_t pieces_of(int64_t steps) { return (steps + kPieceSteps - 1) / kPieceSteps; }

// Part of one row h: lines of kPlaces steps each, the last of which may be cut short.
struct Piece {
  int64_t index, row, first, steps;
  int64_t lines() const { return (steps + kPlaces - 1) / kPlaces; }
};

inline Piece piece_of(const VandermondeInputs& in, int64_t task) {
  const int64_t pieces = pieces_of(in.steps), index = task % pieces, first = index * kPieceSteps;
  return {index, task / pieces, first, smaller(kPieceSteps, in.steps - first)};
}

struct Complex {
  Vec<double> re, im;
};
SSM_INLINE Complex operator*(Complex a, Complex b) {
  return {a.re * b.re - a.im * b.im, a.re * b.im + a.im * b.re};
}

// Complex numbers of a block of states: real parts, then imaginary parts, `padded` of each.
struct Row {
  double *re, *im;
  SSM_INLINE Complex load(int64_t n) const { return {SSM_ISA::load<double>(re + n), SSM_ISA::load<double>(im + n)}; }
  SSM_INLINE void store(int64_t n, Complex z) const { SSM_ISA::store(re + n, z.re), SSM_ISA::store(im + n, z.im); }
};

// The states [first, first + count) of one row, padded to whole vectors with x = 0.
template <class F>
class Block {
 public:
  static constexpr int64_t W = kWidth<double>, kPadding = kWidth<float>;
  static constexpr int64_t kBytes = 5 * 2 * kStates * static_cast<int64_t>(sizeof(double));

  int64_t count = 0, padded = 0;

  explicit Block(Scratch& scratch) {
    for (Row* row : {&x_, &one_, &line_, &begin_, &current})
      row->re = scratch.take<double>(kStates), row->im = scratch.take<double>(kStates);
  }

  Row current;  // free for use

  void read(const VandermondeInputs& in, const Piece& piece, int64_t first) {
    count = smaller(kStates, in.states - first);
    padded = (count + kPadding - 1) / kPadding * kPadding;
    const F* x = static_cast<const F*>(in.x) + 2 * (piece.row * in.states + first);
    for (int64_t n = 0; n < padded; ++n)
      x_.re[n] = n < count ? x[2 * n] : 0, x_.im[n] = n < count ? x[2 * n + 1] : 0;
    powers(1, one_);
    if constexpr (sizeof(F) == 8) {
      powers(kPlaces, line_);
    } else {  // rounding errors of double precision 64 times over are still nothing in float
      for (int64_t n = 0; n < padded; n += W) {
        Complex z = one_.load(n);
        SSM_UNROLL
        for (int64_t k = 1; k < kPlaces; k *= 2) z = z * z;
        line_.store(n, z);
      }
    }
    powers(static_cast<double>(piece.first), begin_);
  }

  // table[i][n] and table[i][padded + n]: real and imaginary part of exp(i x[n]).
  void places(F* table) const {
    const Complex unit = {broadcast<double>(1), {}};
    int64_t n = 0;
    for (; n + 4 * W <= padded; n += 4 * W) {
      Complex z[4] = {unit, unit, unit, unit};
      advance<4>(z, one_, n, kPlaces, [&](int64_t i, int64_t at, Complex p) { put(table + 2 * i * padded + at, p); });
    }
    for (; n < padded; n += W) {
      Complex z[1] = {unit};
      advance<1>(z, one_, n, kPlaces, [&](int64_t i, int64_t at, Complex p) { put(table + 2 * i * padded + at, p); });
    }
  }

  // current <- v exp(first x), the beginning of lines(), or without v.
  void begin_lines(const F* v, double scale) const {
    for (int64_t n = 0; n < padded; ++n)
      current.re[n] = n < count ? scale * v[2 * n] : 0, current.im[n] = n < count ? scale * v[2 * n + 1] : 0;
    for (int64_t n = 0; n < padded; n += W) current.store(n, current.load(n) * begin_.load(n));
  }
  void begin_lines() const {
    for (int64_t n = 0; n < padded; n += W) current.store(n, begin_.load(n));
  }

  // Calls use(r, n, power) for r in [0, lines) with power = current exp(64 r x), a vector of states at a time; current
  // is then that of the line after the last.
  template <class Use>
  SSM_INLINE void lines(int64_t lines, Use use) const {
    int64_t n = 0;
    for (; n + 4 * W <= padded; n += 4 * W) {
      Complex z[4];
      for (int k = 0; k < 4; ++k) z[k] = current.load(n + k * W);
      advance<4>(z, line_, n, lines, use);
      for (int k = 0; k < 4; ++k) current.store(n + k * W, z[k]);
    }
    for (; n < padded; n += W) {
      Complex z[1] = {current.load(n)};
      advance<1>(z, line_, n, lines, use);
      current.store(n, z[0]);
    }
  }

  // Stores the parts of W numbers, in the type F, at `to` and `padded` behind it.
  SSM_INLINE void put(F* to, Complex z) const {
    if constexpr (sizeof(F) == 8) {
      SSM_ISA::store(to, z.re), SSM_ISA::store(to + padded, z.im);
    } else {
      double re[W], im[W];
      SSM_ISA::store(re, z.re), SSM_ISA::store(im, z.im);
      for (int64_t k = 0; k < W; ++k) to[k] = F(re[k]), to[padded + k] = F(im[k]);
    }
  }

 private:
  // N vectors at once: each step waits for the one before.
  template <int N, class Use>
  static SSM_INLINE void advance(Complex* z, const Row& factor, int64_t n, int64_t steps, Use use) {
    Complex f[N];
    for (int k = 0; k < N; ++k) f[k] = factor.load(n + k * W);
    for (int64_t i = 0; i < steps; ++i) {
      SSM_UNROLL
      for (int k = 0; k < N; ++k) {
        use(i, n + k * W, z[k]);
        z[k] = z[k] * f[k];
      }
    }
  }

  // to <- exp(t x).
  SSM_NOINLINE void powers(double t, const Row& to) const {
    for (int64_t n = 0; n < padded; n += W) {
      const Complex x = x_.load(n);
      const Vec<double> angle = x.im * t, size = SSM_ISA::exp<double>(x.re * t);
      const SinCos<double> turn = near_sin_cos<double>(angle);
      to.store(n, {size * turn.cos, size * turn.sin});
    }
    for (int64_t n = 0; n < padded; ++n) {
      const double angle = x_.im[n] * t;
      if (fabs(angle) <= TrigConstants<double>::far_angle) continue;
      const double size = ::exp(x_.re[n] * t);
      to.re[n] = size * ::cos(angle), to.im[n] = size * ::sin(angle);
    }
  }

  Row x_, one_, line_, begin_;  // x, exp(x), exp(64 x), exp(first x)
};

}  // namespace ssm::SSM_ISA::vandermonde
