// Decays over several steps are products of the decays of single steps, as in a scan step by step: a difference of sums
// of their logarithms would lose digits.
#pragma once

#include "cpu/ssd_chunk.h"

namespace ssm::SSM_ISA {

// The decays L of one head, row by row.
template <class F>
class DecayRow {
 public:
  static int64_t scratch_bytes() { return 2 * Scratch::size<F>(kSsdSteps); }

  explicit DecayRow(Scratch& scratch) {
    row_ = scratch.take<F>(kSsdSteps), index_ = scratch.take<F>(kSsdSteps);
    for (int64_t i = 0; i < kSsdSteps; ++i) index_[i] = static_cast<F>(i);
  }

  void begin() { std::memset(row_, 0, kSsdSteps * sizeof(F)); }

  // Row i from the row before it; 0 beyond the diagonal.
  SSM_INLINE void next(int64_t i, F decay) {
    for (int64_t j = 0; j <= i; j += kWidth<F>) {
      const Vec<F> or_later = select(at(j) > diagonal(i), Vec<F>{}, broadcast<F>(F(1)));
      store(row_ + j, select(at(j) < diagonal(i), decay * load<F>(row_ + j), or_later));
    }
  }

  SSM_INLINE Vec<F> from(int64_t j) const { return load<F>(row_ + j); }

  // v, 0 beyond the diagonal: a product with 0 would not be 0 for infinities.
  SSM_INLINE Vec<F> up_to_diagonal(int64_t i, int64_t j, Vec<F> v) const {
    return select(at(j) > diagonal(i), Vec<F>{}, v);
  }
  SSM_INLINE Vec<F> before_diagonal(int64_t i, int64_t j, Vec<F> v) const {
    return select(at(j) < diagonal(i), v, Vec<F>{});
  }

 private:
  SSM_INLINE Vec<F> at(int64_t j) const { return load<F>(index_ + j); }
  static SSM_INLINE Vec<F> diagonal(int64_t i) { return broadcast<F>(static_cast<F>(i)); }

  F *row_, *index_;
};

// M = L * C B^T of one head, up to the diagonal.
template <class F>
void weigh(DecayRow<F>& L, const F* decay, int64_t rows, Tile<const F> CB, Tile<F> M) {
  L.begin();
  for (int64_t i = 0; i < rows; ++i) {
    L.next(i, decay[i]);
    for (int64_t j = 0; j <= i; j += kWidth<F>) store(M.row(i) + j, L.from(j) * load<F>(CB.row(i) + j));
  }
}

}  // namespace ssm::SSM_ISA
