// The gradients of one chunk and head, and their sums over the heads of a slab.  Notation as in ssd_scan_backward.cpp.
#pragma once

#include "cpu/ssd_decays.h"
#include "cpu/ssd_inputs.h"
#include "cpu/sum_of_lanes.h"

namespace ssm::SSM_ISA {

template <class F>
class SsdGradientTiles {
 public:
  static int64_t scratch_bytes(const SsdInputs& in) {
    const int64_t width = whole_vectors<F>(in.channels), states = whole_vectors<F>(in.states);
    return 7 * Scratch::size<F>(kSsdSteps * width) + 3 * Scratch::size<F>(kSsdSteps * states) +
           3 * Scratch::size<F>(kSsdSteps * kSsdSteps) + Scratch::size<F>(in.channels * kSsdSteps) +
           Scratch::size<F>(in.channels * states) + 2 * Scratch::size<F>(width) + 6 * Scratch::size<F>(kSsdSteps) +
           DecayRow<F>::scratch_bytes();
  }

  SsdGradientTiles(const SsdInputs& in, Scratch& scratch)
      : in_(in), width_(whole_vectors<F>(in.channels)), states_(whole_vectors<F>(in.states)), L_(scratch) {
    for (F** tile : {&x_, &driven_, &scaled_, &dy_, &grad_x_, &z_, &y_})
      *tile = scratch.take_zeroed<F>(kSsdSteps * width_);
    for (F** tile : {&grad_B_, &grad_C_, &term_}) *tile = scratch.take_zeroed<F>(kSsdSteps * states_);
    for (F** tile : {&M_, &P_, &E_}) *tile = scratch.take_zeroed<F>(kSsdSteps * kSsdSteps);
    columns_ = scratch.take_zeroed<F>(in.channels * kSsdSteps);
    by_states_ = scratch.take_zeroed<F>(in.channels * states_);
    skip_ = scratch.take_zeroed<F>(width_), sum_D_ = scratch.take_zeroed<F>(width_);
    for (F** row : {&grad_step_, &grad_log_, &crossing_, &before_, &after_, &columns_of_E_})
      *row = scratch.take_zeroed<F>(kSsdSteps);
  }

  const F* grad_B() const { return grad_B_; }        // (steps, n), of all heads since begin()
  const F* grad_C() const { return grad_C_; }
  const F* grad_step() const { return grad_step_; }  // (steps,), of the last head
  const F* grad_log() const { return grad_log_; }
  Tile<const F> scaled() const { return by_channels(scaled_); }

  // x and u = dt x of one head.
  void read_x(const SsdChunk& chunk, int64_t head, const StepsOfHead<F>& steps) {
    read_matrix<F>(in_.dtype, chunk.rows_of(in_, in_.x, head, in_.channels), x_, width_);
    scale_rows<F>(steps.step, by_channels(x_), {driven_, width_}, chunk.rows, width_);
  }

  void scale_driven(const F* factors, int64_t rows) {
    scale_rows<F>(factors, by_channels(driven_), {scaled_, width_}, rows, width_);
  }

  void begin(int64_t rows) {
    for (F* sum : {grad_B_, grad_C_}) std::memset(sum, 0, static_cast<size_t>(rows * states_) * sizeof(F));
    std::memset(P_, 0, static_cast<size_t>(rows * kSsdSteps) * sizeof(F));
  }

  // The gradients of x, z and D, written or added to; those of B and C, added; those of steps and logarithms of decays.
  // S: the state before the chunk.  G: the gradient of the state after it, which becomes that of S.
  void run(const SsdBackward& params, const SsdChunk& chunk, int64_t head, const StepsOfHead<F>& steps,
           const ChunkCoefficients<F>& coefficients, const F* S, F* G, F* sum_D) {
    const int64_t rows = chunk.rows;
    read_x(chunk, head, steps);
    read_skip<F>(in_, head, skip_);
    read_matrix<F>(in_.dtype, chunk.rows_of(in_, params.grad_y, head, in_.channels), dy_, width_);
    if (in_.z.data != nullptr) through_gate(params, chunk, head, steps, coefficients, S);

    transpose_tile<F>(by_channels(driven_), rows, in_.channels, {columns_, kSsdSteps});
    product_of_lower<F>(by_channels(dy_), {columns_, kSsdSteps}, {E_, kSsdSteps}, rows, in_.channels);
    weigh_gradients(steps.decay, coefficients.CB(), rows);
    sum_crossing(rows);

    product<F, Product::plain>(coefficients.B(), by_channels(G), {grad_x_, width_}, rows, in_.states, in_.channels);
    for (int64_t i = 0; i < rows; ++i) {
      scale(steps.to_end[i], grad_x_ + i * width_, width_);
      after_[i] = dot(driven_ + i * width_, grad_x_ + i * width_, width_);
    }
    product<F, Product::add_upper>({M_, kSsdSteps}, by_channels(dy_), {grad_x_, width_}, rows, rows, in_.channels);
    write_x(params, chunk, head, steps, sum_D);

    add_through_state(driven_, G, steps.to_end, rows, grad_B_);
    add_through_state(dy_, S, steps.since, rows, grad_C_);
    for (int64_t i = 0; i < rows; ++i)
      before_[i] = steps.since[i] * dot(coefficients.C().row(i), term_ + i * states_, states_);
    gather_logarithms(rows, steps.whole * dot(S, G, in_.states * width_));

    scale_rows<F>(steps.since, by_channels(dy_), {scaled_, width_}, rows, width_);
    scale(steps.whole, G, in_.states * width_);
    product<F, Product::add_transposed>(coefficients.C(), scaled(), {G, width_}, in_.states, rows, in_.channels);
  }

  // What the steps give each other: once for all heads.
  void finish(const ChunkCoefficients<F>& coefficients, int64_t rows) {
    product<F, Product::add_upper>({P_, kSsdSteps}, coefficients.C(), {grad_B_, states_}, rows, rows, in_.states);
    product<F, Product::add_lower>({P_, kSsdSteps}, coefficients.B(), {grad_C_, states_}, rows, rows, in_.states);
  }

 private:
  Tile<const F> by_channels(const F* data) const { return {data, width_}; }

  static F dot(const F* a, const F* b, int64_t count) {
    Vec<F> sum = {};
    for (int64_t k = 0; k < count; k += kWidth<F>) sum += load<F>(a + k) * load<F>(b + k);
    return sum_of_lanes<F>(sum);
  }

  // The gradient of z, and dy <- dy silu(z).
  void through_gate(const SsdBackward& params, const SsdChunk& chunk, int64_t head, const StepsOfHead<F>& steps,
                    const ChunkCoefficients<F>& coefficients, const F* S) {
    const int64_t rows = chunk.rows;
    product<F, Product::plain>(coefficients.C(), by_channels(S), {y_, width_}, rows, in_.states, in_.channels);
    scale_rows<F>(steps.since, by_channels(y_), {y_, width_}, rows, width_);
    weigh<F>(L_, steps.decay, rows, coefficients.CB(), {M_, kSsdSteps});
    product<F, Product::add_lower>({M_, kSsdSteps}, by_channels(driven_), {y_, width_}, rows, rows, in_.channels);
    read_matrix<F>(in_.dtype, chunk.rows_of(in_, in_.z, head, in_.channels), z_, width_);
    for (int64_t i = 0; i < rows * width_; i += width_) {
      for (int64_t k = i; k < i + width_; k += kWidth<F>) {
        const Vec<F> y = load<F>(y_ + k) + load<F>(skip_ + k - i) * load<F>(x_ + k), z = load<F>(z_ + k);
        const Vec<F> dy = load<F>(dy_ + k);
        const Sigmoid<F> s = sigmoid_and_complement<F>(z);
        store(z_ + k, dy * y * s.value * (z * s.complement + F(1)));
        store(dy_ + k, dy * (z * s.value));
      }
    }
    write_matrix<F>(in_.dtype, chunk.rows_of(in_, params.grad_z, head, in_.channels), z_, width_);
  }

  // E holds dy[i] . u[j]: M and E of this head, and P of all, up to the diagonal.
  void weigh_gradients(const F* decay, Tile<const F> CB, int64_t rows) {
    L_.begin();
    for (int64_t i = 0; i < rows; ++i) {
      L_.next(i, decay[i]);
      for (int64_t j = 0; j <= i; j += kWidth<F>) {
        const int64_t at = i * kSsdSteps + j;
        const Vec<F> L = L_.from(j), weight = L * load<F>(CB.row(i) + j), product = load<F>(E_ + at);
        store(M_ + at, weight);
        store(P_ + at, load<F>(P_ + at) + L * product);
        store(E_ + at, L_.up_to_diagonal(i, j, weight * product));
      }
    }
  }

  // crossing[k] = the sum of E[i][j] over j < k <= i.
  void sum_crossing(int64_t rows) {
    std::memset(columns_of_E_, 0, kSsdSteps * sizeof(F));
    for (int64_t i = rows - 1; i >= 0; --i) {
      Vec<F> sum = {};
      for (int64_t j = 0; j <= i; j += kWidth<F>) {
        const Vec<F> column = L_.before_diagonal(i, j, load<F>(columns_of_E_ + j) + load<F>(E_ + i * kSsdSteps + j));
        store(columns_of_E_ + j, column);
        sum += column;
      }
      crossing_[i] = sum_of_lanes<F>(sum);
    }
  }

  // grad_x_ holds du.  The gradients of x, of the step sizes in u, and of D.
  void write_x(const SsdBackward& params, const SsdChunk& chunk, int64_t head, const StepsOfHead<F>& steps, F* sum_D) {
    std::memset(sum_D_, 0, static_cast<size_t>(width_) * sizeof(F));
    for (int64_t i = 0; i < chunk.rows; ++i) {
      const int64_t row = i * width_;
      Vec<F> sum = {};
      for (int64_t k = 0; k < width_; k += kWidth<F>) {
        const Vec<F> x = load<F>(x_ + row + k), du = load<F>(grad_x_ + row + k), dy = load<F>(dy_ + row + k);
        sum += x * du;
        store(sum_D_ + k, load<F>(sum_D_ + k) + dy * x);
        store(grad_x_ + row + k, steps.step[i] * du + load<F>(skip_ + k) * dy);
      }
      grad_step_[i] = sum_of_lanes<F>(sum);
    }
    for (int64_t k = 0; k < in_.channels; ++k) sum_D[k] += sum_D_[k];
    write_matrix<F>(in_.dtype, chunk.rows_of(in_, params.grad_x, head, in_.channels), grad_x_, width_);
  }

  // sums[i] += factors[i] rows[i] state^T, which is left in `term_` but for the factors.
  void add_through_state(const F* rows, const F* state, const F* factors, int64_t count, F* sums) {
    transpose_tile<F>(by_channels(state), in_.states, in_.channels, {by_states_, states_});
    product<F, Product::plain>(by_channels(rows), {by_states_, states_}, {term_, states_}, count, in_.channels,
                               in_.states);
    for (int64_t i = 0; i < count; ++i) {
      for (int64_t k = i * states_; k < (i + 1) * states_; k += kWidth<F>)
        store(sums + k, load<F>(sums + k) + factors[i] * load<F>(term_ + k));
    }
  }

  // The gradient of the logarithm of the decay at step k: whatever reaches a later step or state from an earlier one.
  void gather_logarithms(int64_t rows, F through) {
    F sum = through;
    for (int64_t i = 0; i < rows; ++i) grad_log_[i] = crossing_[i] + sum, sum += after_[i];
    sum = 0;
    for (int64_t i = rows - 1; i >= 0; --i) grad_log_[i] += sum += before_[i];
  }

  const SsdInputs& in_;
  const int64_t width_, states_;  // channels and states, padded to whole vectors
  DecayRow<F> L_;
  F *x_, *driven_, *scaled_, *dy_, *grad_x_, *z_, *y_;  // (steps, channels)
  F *grad_B_, *grad_C_, *term_;                         // (steps, n)
  F *M_, *P_, *E_;                                      // (steps, steps): row i, column j
  F *columns_, *by_states_;                             // transposed: (channels, steps), (channels, n)
  F *skip_, *sum_D_;                                    // (channels,)
  F *grad_step_, *grad_log_, *crossing_, *before_, *after_, *columns_of_E_;  // (steps,)
};

}  // namespace ssm::SSM_ISA
