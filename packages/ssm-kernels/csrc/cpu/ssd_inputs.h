// The inputs of one chunk as the SSD scan uses them: step sizes and decays of the heads of a slab, and B and C.
#pragma once

#include "cpu/ssd_chunk.h"
#include "cpu/vec_math.h"

namespace ssm::SSM_ISA {

// What the steps of one head do to its state, kSsdSteps numbers each.
template <class F>
struct StepsOfHead {
  const F *raw;      // dt + bias
  const F *step;     // its size
  const F *decay;    // of this step
  const F *since;    // from the start of the chunk to after the step
  const F *to_end;   // from after the step to the end of the chunk
  F whole;           // of the chunk
};

// The same of all heads of a slab.
template <class F>
class ChunkSteps {
 public:
  static int64_t scratch_bytes(int64_t heads) { return 5 * Scratch::size<F>(heads * kSsdSteps); }

  ChunkSteps(const SsdInputs& in, const Heads& heads, Scratch& scratch) : in_(in), heads_(heads) {
    for (F** tile : {&raw_, &step_, &decay_, &since_, &to_end_})
      *tile = scratch.take_zeroed<F>(heads.count * kSsdSteps);
  }

  void read(const SsdChunk& chunk) {
    rows_ = chunk.rows;
    read_matrix<F>(in_.dtype, chunk.steps_of(in_, in_.dt, heads_), raw_, kSsdSteps);
    for (int64_t head = 0; head < heads_.count; ++head) {
      const int64_t at = head * kSsdSteps;
      const F A = static_cast<const F*>(in_.A)[heads_.first + head];
      const F bias = in_.dt_bias == nullptr ? F(0) : static_cast<const F*>(in_.dt_bias)[heads_.first + head];
      for (int64_t i = at; i < at + rows_; i += kWidth<F>) {
        const Vec<F> raw = load<F>(raw_ + i) + bias;
        const Vec<F> plain = in_.dt_softplus ? softplus<F>(raw) : raw;
        const Vec<F> step = clamp<F>(plain, static_cast<F>(in_.dt_min), static_cast<F>(in_.dt_max));
        store(raw_ + i, raw);
        store(step_ + i, step);
        store(decay_ + i, exp<F>(step * A));
      }
      F product = 1;
      for (int64_t i = at; i < at + rows_; ++i) since_[i] = product *= decay_[i];
      product = 1;
      for (int64_t i = at + rows_ - 1; i >= at; --i) to_end_[i] = product, product *= decay_[i];
    }
  }

  StepsOfHead<F> of(int64_t head) const {
    const int64_t at = head * kSsdSteps;
    return {raw_ + at, step_ + at, decay_ + at, since_ + at, to_end_ + at, since_[at + rows_ - 1]};
  }

 private:
  const SsdInputs& in_;
  const Heads heads_;
  int64_t rows_ = 0;
  F *raw_, *step_, *decay_, *since_, *to_end_;
};

// B and C of a chunk, (steps, n), and their inner products C[i] . B[j] for j <= i.
template <class F>
class ChunkCoefficients {
 public:
  static int64_t scratch_bytes(const SsdInputs& in) {
    return 2 * Scratch::size<F>(kSsdSteps * whole_vectors<F>(in.states)) +
           Scratch::size<F>(in.states * kSsdSteps) + Scratch::size<F>(kSsdSteps * kSsdSteps);
  }

  ChunkCoefficients(const SsdInputs& in, int64_t group, Scratch& scratch)
      : in_(in), group_(group), stride_(whole_vectors<F>(in.states)) {
    B_ = scratch.take_zeroed<F>(kSsdSteps * stride_), C_ = scratch.take_zeroed<F>(kSsdSteps * stride_);
    columns_B_ = scratch.take_zeroed<F>(in.states * kSsdSteps);
    CB_ = scratch.take_zeroed<F>(kSsdSteps * kSsdSteps);
  }

  void read_B(const SsdChunk& chunk) {
    read_matrix<F>(in_.dtype, chunk.rows_of(in_, in_.B, group_, in_.states), B_, stride_);
  }

  void read(const SsdChunk& chunk) {
    read_B(chunk);
    read_matrix<F>(in_.dtype, chunk.rows_of(in_, in_.C, group_, in_.states), C_, stride_);
    transpose_tile<F>(B(), chunk.rows, in_.states, {columns_B_, kSsdSteps});
    product_of_lower<F>(C(), {columns_B_, kSsdSteps}, {CB_, kSsdSteps}, chunk.rows, in_.states);
  }

  Tile<const F> B() const { return {B_, stride_}; }
  Tile<const F> C() const { return {C_, stride_}; }
  Tile<const F> CB() const { return {CB_, kSsdSteps}; }

 private:
  const SsdInputs& in_;
  const int64_t group_, stride_;
  F *B_, *C_, *columns_B_, *CB_;
};

}  // namespace ssm::SSM_ISA
