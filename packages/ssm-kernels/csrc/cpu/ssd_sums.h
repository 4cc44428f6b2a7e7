// Gradients of the SSD scan that are sums over heads, time or sequences.
//
// Every task adds to a place of its own; the places are then added up in a fixed order.  Their number follows from the
// sizes of the tensors alone, so the gradients are the same bits for any number of threads.
#pragma once

#include "cpu/parallel.h"
#include "cpu/ssd_chunk.h"

namespace ssm::SSM_ISA {

template <class F>
class SsdSums {
 public:
  SsdSums(const SsdBackward& params, const SsdPartition& partition)
      : params_(params), in_(params.in), partition_(partition), sequences_(in_.sequences().count),
        scratch_(2 * Scratch::size<F>(partition.slabs * slab_size()) + 2 * Scratch::size<F>(sequences_ * in_.heads) +
                 Scratch::size<F>(sequences_ * in_.heads * in_.channels)) {
    B_ = scratch_.take<F>(partition.slabs * slab_size()), C_ = scratch_.take<F>(partition.slabs * slab_size());
    A_ = scratch_.take<F>(sequences_ * in_.heads), bias_ = scratch_.take<F>(sequences_ * in_.heads);
    D_ = scratch_.take<F>(sequences_ * in_.heads * in_.channels);
  }

  // The gradient of B, or of C, of one slab from the step on: rows (n,).
  F* B(int64_t slab, int64_t batch, int64_t step) const { return B_ + row_of(slab, batch, step); }
  F* C(int64_t slab, int64_t batch, int64_t step) const { return C_ + row_of(slab, batch, step); }
  // Of one head in one sequence: numbers, and (p,).
  F& A(int64_t sequence, int64_t head) const { return A_[sequence * in_.heads + head]; }
  F& dt_bias(int64_t sequence, int64_t head) const { return bias_[sequence * in_.heads + head]; }
  F* D(int64_t sequence, int64_t head) const { return D_ + (sequence * in_.heads + head) * in_.channels; }

  // Adds everything up into the gradients.
  void combine() const {
    add_slabs(B_, params_.grad_B);
    add_slabs(C_, params_.grad_C);
    const int64_t per_head = in_.D_per_channel ? in_.channels : 1;
    for (int64_t head = 0; head < in_.heads; ++head) {
      add_sequences(A_ + head, in_.heads, 1, params_.grad_A, head);
      add_sequences(bias_ + head, in_.heads, 1, params_.grad_dt_bias, head);
      for (int64_t k = 0; k < per_head; ++k)
        add_sequences(D_ + head * in_.channels + k, in_.heads * in_.channels, in_.channels / per_head, params_.grad_D,
                      head * per_head + k);
    }
  }

 private:
  int64_t slab_size() const { return in_.batch * in_.steps * in_.states; }
  int64_t row_of(int64_t slab, int64_t batch, int64_t step) const {
    return slab * slab_size() + (batch * in_.steps + step) * in_.states;
  }

  // to[index] = the sum of `count` neighbours in each sequence.
  void add_sequences(const F* from, int64_t stride, int64_t count, void* to, int64_t index) const {
    if (to == nullptr) return;
    F sum = 0;
    for (int64_t sequence = 0; sequence < sequences_; ++sequence)
      for (int64_t k = 0; k < count; ++k) sum += from[sequence * stride + k];
    static_cast<F*>(to)[index] = sum;
  }

  // to(b, l, group, :) = sum over the slabs of the group; the first slab's place is used as the total.
  void add_slabs(F* from, const View4& to) const {
    if (to.data == nullptr) return;  // of no elements
    constexpr int64_t stretch = 32;
    const int64_t stretches = ceil_div(in_.steps, stretch);
    parallel_for(in_.batch * stretches, in_.num_threads, [&](int64_t task) {
      const int64_t batch = task / stretches, begin = task % stretches * stretch;
      const int64_t steps = smaller(stretch, in_.steps - begin), size = steps * in_.states;
      for (int64_t group = 0; group < in_.groups; ++group) {
        F* total = from + row_of(group * partition_.slabs_per_group, batch, begin);
        for (int64_t other = 1; other < partition_.slabs_per_group; ++other) {
          const F* term = total + other * slab_size();
          for (int64_t i = 0; i < size; ++i) total[i] += term[i];
        }
        const int64_t offset = batch * to.stride_b + begin * to.stride_l + group * to.stride_h;
        const Matrix m = {to.data + offset * size_of(in_.dtype), to.stride_l, to.stride_p, steps, in_.states};
        write_matrix<F>(in_.dtype, m, total, in_.states);
      }
    });
  }

  const SsdBackward& params_;
  const SsdInputs& in_;
  const SsdPartition& partition_;
  const int64_t sequences_;
  Scratch scratch_;
  F *B_, *C_, *A_, *bias_, *D_;
};

}  // namespace ssm::SSM_ISA
