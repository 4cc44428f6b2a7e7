// The end of a backward pass that sums over a long axis (steps, nodes) in pieces: of every piece, channel c, row h and
// state n two complex sums s and t arrive; grad_v[c, h, n] = sum s and grad_x[h, n] = sum_c conj(v[c, h, n]) sum t,
// over the pieces in their order.
#pragma once

#include "cpu/parallel.h"
#include "cpu/scratch.h"
#include "cpu/vec.h"

namespace ssm::SSM_ISA {

class PoleGradients {
 public:
  PoleGradients(int64_t pieces, int64_t channels, int64_t rows, int64_t states)
      : pieces_(pieces), channels_(channels), rows_(rows), states_(states),
        scratch_(Scratch::size<double>(pieces * channels * rows * states * 4)),
        sums_(scratch_.take<double>(pieces * channels * rows * states * 4)) {}

  // The (n, 4) numbers re s, im s, re t, im t of one piece; the caller writes all of them.
  double* at(int64_t piece, int64_t channel, int64_t row) const {
    return sums_ + ((piece * channels_ + channel) * rows_ + row) * states_ * 4;
  }

  template <class F>
  void finish(const F* v, F* grad_v, F* grad_x, int num_threads) const {
    parallel_for(rows_, num_threads, [&](int64_t row) {
      for (int64_t n = 0; n < states_; ++n) {
        double re = 0, im = 0;
        for (int64_t c = 0; c < channels_; ++c) {
          double sum[4] = {};
          for (int64_t piece = 0; piece < pieces_; ++piece)
            for (int i = 0; i < 4; ++i) sum[i] += at(piece, c, row)[4 * n + i];
          const int64_t entry = 2 * ((c * rows_ + row) * states_ + n);
          if (grad_v != nullptr) grad_v[entry] = F(sum[0]), grad_v[entry + 1] = F(sum[1]);
          re += v[entry] * sum[2] + v[entry + 1] * sum[3];
          im += v[entry] * sum[3] - v[entry + 1] * sum[2];
        }
        const int64_t entry = 2 * (row * states_ + n);
        if (grad_x != nullptr) grad_x[entry] = F(re), grad_x[entry + 1] = F(im);
      }
    });
  }

 private:
  int64_t pieces_, channels_, rows_, states_;
  Scratch scratch_;
  double* sums_;
};

}  // namespace ssm::SSM_ISA
