// Gradients that are sums over batch, time or channels.
//
// Every task of the backward pass adds to a place of its own; the places are then added up in a fixed order.  Their
// number follows from the sizes of the tensors alone, so the gradients are the same bits for any number of threads.
#pragma once

#include "cpu/parallel.h"
#include "cpu/selective_scan.h"

namespace ssm::SSM_ISA {

// Sequences are dealt to this many parts at most; a part sums over its sequences in order.
constexpr int64_t kMostParts = 32;

template <class F>
class PartialSums {
 public:
  PartialSums(const ScanBackward& params, const Partition& partition)
      : params_(params), in_(params.in), partition_(partition), sequences_(in_.sequences().count), parts_(smaller(sequences_, kMostParts)),
        scratch_(3 * Scratch::size<F>(parts_ * matrix_size()) + 2 * Scratch::size<F>(parts_ * in_.channels) +
                 Scratch::size<F>(rows_size(in_.B)) + Scratch::size<F>(rows_size(in_.C))) {
    A_ = scratch_.take<F>(parts_ * matrix_size());
    constant_B_ = in_.B.variable() ? nullptr : scratch_.take<F>(parts_ * matrix_size());
    constant_C_ = in_.C.variable() ? nullptr : scratch_.take<F>(parts_ * matrix_size());
    D_ = scratch_.take<F>(parts_ * in_.channels);
    delta_bias_ = scratch_.take<F>(parts_ * in_.channels);
    rows_B_ = scratch_.take<F>(rows_size(in_.B));
    rows_C_ = scratch_.take<F>(rows_size(in_.C));
  }

  int64_t parts() const { return parts_; }
  int64_t first_sequence(int64_t part) const { return sequences_ * part / parts_; }

  // (d, n) sums of one part.
  F* A(int64_t part) const { return A_ + part * matrix_size(); }
  F* constant_B(int64_t part) const { return constant_B_ + part * matrix_size(); }
  F* constant_C(int64_t part) const { return constant_C_ + part * matrix_size(); }
  // (d,) sums of one part.
  F* D(int64_t part) const { return D_ + part * in_.channels; }
  F* delta_bias(int64_t part) const { return delta_bias_ + part * in_.channels; }
  // (l, n) sums over the channels of one slab.
  F* rows_B(int64_t slab, int64_t batch) const { return rows_B_ + (slab * in_.batch + batch) * row_block(); }
  F* rows_C(int64_t slab, int64_t batch) const { return rows_C_ + (slab * in_.batch + batch) * row_block(); }

  // Adds everything up into the gradients.
  void combine() {
    add_parts(A_, matrix_size(), params_.grad_A);
    if (!in_.B.variable()) add_parts(constant_B_, matrix_size(), params_.grad_B.data);
    if (!in_.C.variable()) add_parts(constant_C_, matrix_size(), params_.grad_C.data);
    if (params_.grad_D != nullptr) add_parts(D_, in_.channels, params_.grad_D);
    if (params_.grad_delta_bias != nullptr) add_parts(delta_bias_, in_.channels, params_.grad_delta_bias);
    if (in_.B.variable()) add_slabs(rows_B_, params_.grad_B);
    if (in_.C.variable()) add_slabs(rows_C_, params_.grad_C);
  }

 private:
  int64_t matrix_size() const { return in_.channels * in_.states; }
  int64_t row_block() const { return in_.steps * in_.states; }
  int64_t rows_size(const CoefficientView& view) const {
    return view.variable() ? partition_.slabs * in_.batch * row_block() : 0;
  }

  // to[i] = sum over parts of from[part][i]
  void add_parts(const F* from, int64_t size, void* to) {
    constexpr int64_t slice = 1024;
    parallel_for(ceil_div(size, slice), in_.num_threads, [&](int64_t task) {
      const int64_t begin = task * slice, end = smaller(size, begin + slice);
      F* out = static_cast<F*>(to);
      for (int64_t i = begin; i < end; ++i) out[i] = from[i];
      for (int64_t part = 1; part < parts_; ++part)
        for (int64_t i = begin; i < end; ++i) out[i] += from[part * size + i];
    });
  }

  // to(b, l, group, :) = sum over the slabs of the group; the first slab's place is used as the total.
  void add_slabs(F* from, const CoefficientView& to) {
    constexpr int64_t stretch = 32;
    const int64_t chunks = ceil_div(in_.steps, stretch), slabs_per_group = partition_.slabs / to.groups;
    parallel_for(in_.batch * chunks, in_.num_threads, [&](int64_t task) {
      const int64_t batch = task / chunks, begin = task % chunks * stretch;
      const int64_t steps = smaller(stretch, in_.steps - begin), size = steps * in_.states;
      for (int64_t group = 0; group < to.groups; ++group) {
        const int64_t slab = group * slabs_per_group;
        F* total = from + ((slab * in_.batch + batch) * in_.steps + begin) * in_.states;
        for (int64_t other = 1; other < slabs_per_group; ++other) {
          const F* term = total + other * in_.batch * row_block();
          for (int64_t i = 0; i < size; ++i) total[i] += term[i];
        }
        const int64_t offset = batch * to.stride_b + begin * to.stride_l + group * to.stride_g;
        const DType dtype = in_.coefficient_dtype();
        const Matrix m = {to.data + offset * size_of(dtype), to.stride_l, to.stride_n, steps, in_.states};
        write_matrix<F>(dtype, m, total, in_.states);
      }
    });
  }

  const ScanBackward& params_;
  const ScanInputs& in_;
  const Partition& partition_;
  int64_t sequences_, parts_;
  Scratch scratch_;
  F *A_, *constant_B_, *constant_C_, *D_, *delta_bias_, *rows_B_, *rows_C_;
};

template <class F>
void zero(void* data, int64_t count) {
  if (data != nullptr) __builtin_memset(data, 0, static_cast<size_t>(count) * sizeof(F));
}

// Without batch or channels every gradient that is a sum is zero.
template <class F>
void zero_sums(const ScanBackward& params) {
  const ScanInputs& in = params.in;
  zero<F>(params.grad_A, in.channels * in.states);
  zero<F>(params.grad_D, in.channels);
  zero<F>(params.grad_delta_bias, in.channels);
  for (const CoefficientView* grad : {&params.grad_B, &params.grad_C}) {
    if (!grad->variable()) {
      zero<F>(grad->data, in.channels * in.states);
      continue;
    }
    const int64_t size = size_of(in.coefficient_dtype());
    for (int64_t row = 0; row < in.batch * in.steps; ++row) {
      const int64_t offset = row / in.steps * grad->stride_b + row % in.steps * grad->stride_l;
      for (int64_t i = 0; i < grad->groups * in.states; ++i)
        zero<char>(grad->data + (offset + i / in.states * grad->stride_g + i % in.states * grad->stride_n) * size, size);
    }
  }
}

}  // namespace ssm::SSM_ISA
