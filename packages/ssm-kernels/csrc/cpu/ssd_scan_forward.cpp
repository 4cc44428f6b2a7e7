// Forward pass of the SSD scan.  A task is one sequence and some heads of a group, all steps.
#include "cpu/operators.h"
#include "cpu/parallel.h"
#include "cpu/ssd_decays.h"
#include "cpu/ssd_inputs.h"

namespace ssm::SSM_ISA {
namespace {

template <class F>
class Task {
 public:
  Task(const SsdForward& params, const Heads& heads, const Sequence& sequence)
      : params_(params), in_(params.in), heads_(heads), sequence_(sequence), width_(whole_vectors<F>(in_.channels)),
        matrix_(in_.states * width_),
        scratch_(ChunkSteps<F>::scratch_bytes(heads.count) + ChunkCoefficients<F>::scratch_bytes(in_) +
                 DecayRow<F>::scratch_bytes() + Scratch::size<F>(heads.count * matrix_) +
                 4 * Scratch::size<F>(kSsdSteps * width_) + Scratch::size<F>(kSsdSteps * kSsdSteps) +
                 Scratch::size<F>(width_)),
        steps_(in_, heads, scratch_), coefficients_(in_, heads.group, scratch_), L_(scratch_) {
    states_ = scratch_.take_zeroed<F>(heads.count * matrix_);
    for (F** tile : {&x_, &driven_, &y_, &z_}) *tile = scratch_.take_zeroed<F>(kSsdSteps * width_);
    M_ = scratch_.take<F>(kSsdSteps * kSsdSteps);
    skip_ = scratch_.take_zeroed<F>(width_);
  }

  void run() {
    for (int64_t head = 0; head < heads_.count && in_.initial_state != nullptr; ++head) {
      const Matrix state = state_of<F>(in_, in_.initial_state, sequence_.index, heads_.first + head);
      read_matrix<F>(kComputeType<F>, state, states_ + head * matrix_, width_);
    }
    for (int64_t index = 0; index < SsdChunk::count(sequence_); ++index) {
      const SsdChunk chunk(in_, sequence_, index);
      steps_.read(chunk);
      coefficients_.read(chunk);
      for (int64_t head = 0; head < heads_.count; ++head) run_head(chunk, head);
    }
    for (int64_t head = 0; head < heads_.count; ++head) {
      const Matrix state = state_of<F>(in_, params_.final_state, sequence_.index, heads_.first + head);
      write_matrix<F>(kComputeType<F>, state, states_ + head * matrix_, width_);
    }
  }

 private:
  Tile<F> tile(F* data) const { return {data, width_}; }
  Tile<const F> read_only(const F* data) const { return {data, width_}; }

  void run_head(const SsdChunk& chunk, int64_t head) {
    const int64_t rows = chunk.rows, channels = in_.channels, states = in_.states;
    const StepsOfHead<F> steps = steps_.of(head);
    F* state = states_ + head * matrix_;
    read_matrix<F>(in_.dtype, chunk.rows_of(in_, in_.x, heads_.first + head, channels), x_, width_);
    scale_rows<F>(steps.step, read_only(x_), tile(driven_), rows, width_);

    product<F, Product::plain>(coefficients_.C(), read_only(state), tile(y_), rows, states, channels);
    scale_rows<F>(steps.since, read_only(y_), tile(y_), rows, width_);
    weigh<F>(L_, steps.decay, rows, coefficients_.CB(), {M_, kSsdSteps});
    product<F, Product::add_lower>({M_, kSsdSteps}, read_only(driven_), tile(y_), rows, rows, channels);

    scale_rows<F>(steps.to_end, read_only(driven_), tile(driven_), rows, width_);
    scale<F>(steps.whole, state, matrix_);
    product<F, Product::add_transposed>(coefficients_.B(), read_only(driven_), tile(state), states, rows, channels);
    write(chunk, head);
  }

  // The skip and the gate.
  void write(const SsdChunk& chunk, int64_t head) {
    if (in_.D != nullptr) {
      read_skip<F>(in_, heads_.first + head, skip_);
      for (int64_t i = 0; i < chunk.rows * width_; i += width_) {
        for (int64_t k = 0; k < width_; k += kWidth<F>)
          store(y_ + i + k, load<F>(y_ + i + k) + load<F>(skip_ + k) * load<F>(x_ + i + k));
      }
    }
    if (in_.z.data != nullptr) {
      read_matrix<F>(in_.dtype, chunk.rows_of(in_, in_.z, heads_.first + head, in_.channels), z_, width_);
      for (int64_t i = 0; i < chunk.rows * width_; i += kWidth<F>) {
        const Vec<F> z = load<F>(z_ + i);
        store(y_ + i, load<F>(y_ + i) * (z * sigmoid<F>(z)));
      }
    }
    write_matrix<F>(in_.dtype, chunk.rows_of(in_, params_.y, heads_.first + head, in_.channels), y_, width_);
  }

  const SsdForward& params_;
  const SsdInputs& in_;
  const Heads heads_;
  const Sequence sequence_;
  const int64_t width_;   // channels, padded to whole vectors
  const int64_t matrix_;  // numbers in a state (n, channels)
  Scratch scratch_;
  ChunkSteps<F> steps_;
  ChunkCoefficients<F> coefficients_;
  DecayRow<F> L_;
  F* states_;                   // (heads, n, channels)
  F *x_, *driven_, *y_, *z_;    // (steps, channels) of one head
  F *M_, *skip_;
};

template <class F>
void forward(const SsdForward& params) {
  const Sequences sequences = params.in.sequences();
  // Heads are independent of each other, so the result does not depend on how they are dealt to tasks.
  const SsdPartition partition(params.in, 4 * int64_t(params.in.num_threads));
  parallel_for(sequences.count * partition.slabs, params.in.num_threads, [&](int64_t task) {
    Task<F>(params, partition.heads(task % partition.slabs), sequences.at(task / partition.slabs)).run();
  });
}

}  // namespace

void ssd_scan_forward(const SsdForward& params) {
  if (params.in.dtype == DType::f64) return forward<double>(params);
  forward<float>(params);
}

}  // namespace ssm::SSM_ISA
