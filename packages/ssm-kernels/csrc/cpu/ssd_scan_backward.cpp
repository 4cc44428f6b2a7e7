// Backward pass of the SSD scan.  A task is one sequence and some heads of a group: the states before each chunk are
// computed again, then gradients are carried from the last chunk to the first.
//
// With G the gradient of the state after the chunk, S the state before it, u = dt x and E[i][j] = L[i][j] (C[i] . B[j])
// (dy[i] . u[j]), all per head:
//   du[j]  = to_end[j] G B[j] + sum over i >= j of L[i][j] (C[i] . B[j]) dy[i]
//   dB[j]  = to_end[j] u[j] G + sum over i >= j of L[i][j] (dy[i] . u[j]) C[i],  dC likewise
//   d log decay[k] = sum of E[i][j] over j < k <= i, and what goes from S to a step i >= k, from a step j < k to G, and
//   from S to G: sums of products, never differences of sums
#include "cpu/operators.h"
#include "cpu/ssd_gradient_tiles.h"
#include "cpu/ssd_sums.h"

namespace ssm::SSM_ISA {
namespace {

constexpr int64_t kTasks = 16;

template <class F>
class Task {
 public:
  Task(const SsdBackward& params, const SsdSums<F>& sums, const SsdPartition& partition, int64_t slab,
       const Sequence& sequence)
      : params_(params), in_(params.in), sums_(sums), slab_(slab), heads_(partition.heads(slab)), sequence_(sequence),
        chunks_(SsdChunk::count(sequence)), width_(whole_vectors<F>(in_.channels)), matrix_(in_.states * width_),
        scratch_(ChunkSteps<F>::scratch_bytes(heads_.count) + ChunkCoefficients<F>::scratch_bytes(in_) +
                 SsdGradientTiles<F>::scratch_bytes(in_) + Scratch::size<F>((chunks_ + 1) * heads_.count * matrix_) +
                 Scratch::size<F>(heads_.count * matrix_) + Scratch::size<F>(heads_.count * kSsdSteps)),
        steps_(in_, heads_, scratch_), coefficients_(in_, heads_.group, scratch_), tiles_(in_, scratch_) {
    states_ = scratch_.take<F>((chunks_ + 1) * heads_.count * matrix_);
    carry_ = scratch_.take_zeroed<F>(heads_.count * matrix_);
    grad_raw_ = scratch_.take_zeroed<F>(heads_.count * kSsdSteps);
  }

  void run() {
    compute_states();
    for (int64_t head = 0; head < heads_.count; ++head) {
      sums_.A(sequence_.index, heads_.first + head) = sums_.dt_bias(sequence_.index, heads_.first + head) = 0;
      F* sum_D = sums_.D(sequence_.index, heads_.first + head);
      for (int64_t k = 0; k < in_.channels; ++k) sum_D[k] = 0;
      if (params_.grad_final_state != nullptr) read_state(params_.grad_final_state, head, carry_ + head * matrix_);
    }
    for (int64_t index = chunks_ - 1; index >= 0; --index) run_chunk(index);
    for (int64_t head = 0; head < heads_.count && params_.grad_initial_state != nullptr; ++head) {
      const Matrix state = state_of<F>(in_, params_.grad_initial_state, sequence_.index, heads_.first + head);
      write_matrix<F>(kComputeType<F>, state, carry_ + head * matrix_, width_);
    }
  }

 private:
  Tile<const F> by_channels(const F* data) const { return {data, width_}; }

  void read_state(const void* from, int64_t head, F* to) {
    const Matrix state = state_of<F>(in_, from, sequence_.index, heads_.first + head);
    read_matrix<F>(kComputeType<F>, state, to, width_);
  }

  F* state(int64_t index, int64_t head) const { return states_ + (index * heads_.count + head) * matrix_; }

  // The states before each chunk, and after the last one.
  void compute_states() {
    std::memset(states_, 0, static_cast<size_t>((chunks_ + 1) * heads_.count * matrix_) * sizeof(F));
    for (int64_t head = 0; head < heads_.count && in_.initial_state != nullptr; ++head)
      read_state(in_.initial_state, head, state(0, head));
    for (int64_t index = 0; index + 1 < chunks_; ++index) {
      const SsdChunk chunk(in_, sequence_, index);
      steps_.read(chunk);
      coefficients_.read_B(chunk);
      for (int64_t head = 0; head < heads_.count; ++head) {
        const StepsOfHead<F> steps = steps_.of(head);
        tiles_.read_x(chunk, heads_.first + head, steps);
        tiles_.scale_driven(steps.to_end, chunk.rows);
        const F *from = state(index, head);
        F* to = state(index + 1, head);
        for (int64_t i = 0; i < matrix_; i += kWidth<F>) store(to + i, steps.whole * load<F>(from + i));
        product<F, Product::add_transposed>(coefficients_.B(), tiles_.scaled(), {to, width_}, in_.states, chunk.rows,
                                            in_.channels);
      }
    }
  }

  void run_chunk(int64_t index) {
    const SsdChunk chunk(in_, sequence_, index);
    steps_.read(chunk);
    coefficients_.read(chunk);
    tiles_.begin(chunk.rows);
    for (int64_t head = 0; head < heads_.count; ++head) {
      const StepsOfHead<F> steps = steps_.of(head);
      tiles_.run(params_, chunk, heads_.first + head, steps, coefficients_, state(index, head), carry_ + head * matrix_,
                 sums_.D(sequence_.index, heads_.first + head));
      finish_steps(chunk, head, steps);
    }
    write_matrix<F>(in_.dtype, chunk.steps_of(in_, params_.grad_dt, heads_), grad_raw_, kSsdSteps);
    tiles_.finish(coefficients_, chunk.rows);
    write_sum(chunk, tiles_.grad_B(), sums_.B(slab_, chunk.batch, chunk.time));
    write_sum(chunk, tiles_.grad_C(), sums_.C(slab_, chunk.batch, chunk.time));
  }

  void write_sum(const SsdChunk& chunk, const F* tile, F* rows) const {
    const Matrix m = {reinterpret_cast<char*>(rows), chunk.sign * in_.states, 1, chunk.rows, in_.states};
    write_matrix<F>(kComputeType<F>, m, tile, whole_vectors<F>(in_.states));
  }

  // From the gradients of step sizes and logarithms of decays to those of dt, its bias and A.
  void finish_steps(const SsdChunk& chunk, int64_t head, const StepsOfHead<F>& steps) {
    const F A = static_cast<const F*>(in_.A)[heads_.first + head];
    const F low = static_cast<F>(in_.dt_min), high = static_cast<F>(in_.dt_max);
    F* grad = grad_raw_ + head * kSsdSteps;
    F sum_A = 0, sum_bias = 0;
    for (int64_t i = 0; i < chunk.rows; i += kWidth<F>) {
      Vec<F> plain = load<F>(steps.raw + i);
      const Vec<F> slope = in_.dt_softplus ? softplus_and_slope<F>(plain) : broadcast<F>(F(1));
      const Vec<F> total = (load<F>(tiles_.grad_step() + i) + A * load<F>(tiles_.grad_log() + i)) * slope;
      const Vec<F> above = select(plain > broadcast<F>(high), Vec<F>{}, total);
      store(grad + i, select(plain < broadcast<F>(low), Vec<F>{}, above));
    }
    for (int64_t i = 0; i < chunk.rows; ++i) sum_A += tiles_.grad_log()[i] * steps.step[i], sum_bias += grad[i];
    sums_.A(sequence_.index, heads_.first + head) += sum_A;
    sums_.dt_bias(sequence_.index, heads_.first + head) += sum_bias;
  }

  const SsdBackward& params_;
  const SsdInputs& in_;
  const SsdSums<F>& sums_;
  const int64_t slab_;
  const Heads heads_;
  const Sequence sequence_;
  const int64_t chunks_;
  const int64_t width_;   // channels, padded to whole vectors
  const int64_t matrix_;  // numbers in a state (n, channels)
  Scratch scratch_;
  ChunkSteps<F> steps_;
  ChunkCoefficients<F> coefficients_;
  SsdGradientTiles<F> tiles_;
  F *states_, *carry_;  // (chunks + 1, heads, n, channels), (heads, n, channels)
  F* grad_raw_;         // (heads, steps)
};

template <class F>
void backward(const SsdBackward& params) {
  const SsdInputs& in = params.in;
  // The number of tasks must not follow the number of threads: it decides in which order sums are formed.
  const SsdPartition partition(in, kTasks);
  SsdSums<F> sums(params, partition);
  const Sequences sequences = in.sequences();
  parallel_for(sequences.count * partition.slabs, in.num_threads, [&](int64_t task) {
    Task<F>(params, sums, partition, task % partition.slabs, sequences.at(task / partition.slabs)).run();
  });
  sums.combine();
}

}  // namespace

void ssd_scan_backward(const SsdBackward& params) {
  if (params.in.dtype == DType::f64) return backward<double>(params);
  backward<float>(params);
}

}  // namespace ssm::SSM_ISA
