// Backward pass of the causal convolution.
//
// A task is some steps of one sequence, or several short sequences, times a band of channels; it sums the gradients of
// weight and bias over its part, and the sums of all tasks are added in a fixed order at the end.  How the steps are cut
// depends on the lengths alone, so the result does not depend on the number of threads.
#include "cpu/causal_conv1d.h"
#include "cpu/operators.h"
#include "cpu/parallel.h"
#include "cpu/scratch.h"

namespace ssm::SSM_ISA {
namespace {

constexpr int64_t kPartSteps = 4 * kConvTile;  // per task
constexpr int64_t kBandBlocks = 8;

int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }

template <class F, int K>
struct BackwardBlock {
  static constexpr int64_t W = kWidth<F>;
  static constexpr int kSums = K + 1;  // per channel: the taps, then the bias

  const ConvBackward& params;
  const ConvInputs& in;
  ConvBlock block;
  Vec<F> taps[K], bias;

  BackwardBlock(const ConvBackward& params, ConvBlock block) : params(params), in(params.in), block(block) {
    conv_read_taps<F, K>(in, block, taps);
    bias = conv_read_bias<F>(in, block);
  }

  // Steps [begin, end) of one sequence, at most kConvTile; adds the gradients of weight and bias to `sums`.
  void run(const Sequence& sequence, int64_t begin, int64_t end, F* sums) const {
    const int64_t rows = end - begin, left = sequence.steps - begin;
    // A sample reaches K - 1 steps ahead, so the gradient of the sums is needed that far beyond the tile.
    const int64_t ahead = rows + K - 1, known = ahead < left ? ahead : left;
    alignas(64) F padded[(kConvTile + 2 * (K - 1)) * W];
    alignas(64) F grad_sum_rows[(kConvTile + 2 * (K - 1)) * W];
    alignas(64) F grad_x[(kConvTile + K - 1) * W];
    F* grad_sum = grad_sum_rows + (K - 1) * W;  // row 0 is step `begin`; the rows before are for the initial state

    conv_read_padded<F>(in, sequence, block, begin - (K - 1), begin + ahead, padded);
    if (known > 0) {
      const Matrix m = conv_steps(in, params.grad_y, sequence, block, begin, known);
      conv_read<F>(params.grad_y.dtype, m, grad_sum);
    }
    for (int64_t t = -(K - 1); t < 0; ++t) store(grad_sum + t * W, Vec<F>{});
    for (int64_t t = known; t < ahead; ++t) store(grad_sum + t * W, Vec<F>{});
    if (in.silu) through_silu(padded, known, grad_sum);
    add_sums(padded, grad_sum, rows, sums);

    // The first tile also covers the K - 1 samples before step 0.
    const int64_t early = begin == 0 ? K - 1 : 0;
    const ConvPrefetch<F> next_x(in, in.x, sequence, block, begin, rows);
    const ConvPrefetch<F> next_grad_y(in, params.grad_y, sequence, block, begin, rows);
    const ConvPrefetch<F> next_grad_x(in, params.grad_x, sequence, block, begin, rows);
    for (int64_t t = -early; t < rows; ++t) {
      next_x.row(t), next_grad_y.row(t), next_grad_x.row(t);
      store(grad_x + (t + early) * W, reach(grad_sum + t * W));
    }
    if (params.grad_final_state != nullptr) add_final_state(sequence, begin - early, end, grad_x);
    if (rows > 0) {
      const Matrix m = conv_steps(in, params.grad_x, sequence, block, begin, rows);
      write_matrix<F>(params.grad_x.dtype, m, grad_x + early * W, W);
    }
    if (early > 0 && params.grad_initial_state != nullptr) {
      const Matrix m = conv_state<F>(in, params.grad_initial_state, sequence, block, 0, K - 1);
      write_matrix<F>(kComputeType<F>, m, grad_x, W);
    }
  }

 private:
  // d silu(s) / ds = sig(s) (1 + s (1 - sig(s)))
  void through_silu(const F* padded, int64_t rows, F* grad_sum) const {
    for (int64_t t = 0; t < rows; ++t) {
      const Vec<F> sum = conv_sum<F, K>(padded + t * W, taps, bias), sig = sigmoid<F>(sum);
      store(grad_sum + t * W, load<F>(grad_sum + t * W) * (sig * (F(1) + sum * (F(1) - sig))));
    }
  }

  void add_sums(const F* padded, const F* grad_sum, int64_t rows, F* sums) const {
    Vec<F> total[kSums];
    SSM_UNROLL
    for (int j = 0; j < kSums; ++j) total[j] = load<F>(sums + j * W);
    for (int64_t t = 0; t < rows; ++t) {
      const Vec<F> g = load<F>(grad_sum + t * W);
      SSM_UNROLL
      for (int j = 0; j < K; ++j) total[j] += g * load<F>(padded + (t + j) * W);
      total[K] += g;
    }
    SSM_UNROLL
    for (int j = 0; j < kSums; ++j) store(sums + j * W, total[j]);
  }

  // Gradient of one sample: tap j used it K - 1 - j steps later.
  SSM_INLINE Vec<F> reach(const F* grad_sum) const {
    Vec<F> g = {};
    SSM_UNROLL
    for (int j = 0; j < K; ++j) g += taps[j] * load<F>(grad_sum + (K - 1 - j) * W);
    return g;
  }

  // The final state holds the last K - 1 samples, those of the initial state included if there are fewer steps.
  void add_final_state(const Sequence& sequence, int64_t begin, int64_t end, F* grad_x) const {
    const int64_t oldest = sequence.steps - (K - 1), first = begin > oldest ? begin : oldest;
    if (first >= end) return;
    alignas(64) F grad_state[K * W];
    const Matrix m = conv_state<F>(in, params.grad_final_state, sequence, block, first - oldest, end - first);
    conv_read<F>(kComputeType<F>, m, grad_state);
    for (int64_t step = first; step < end; ++step) {
      F* row = grad_x + (step - begin) * W;
      store(row, load<F>(row) + load<F>(grad_state + (step - first) * W));
    }
  }
};

// Adds the sums (parts, blocks, K + 1, lanes) over the parts and writes one block of the gradients.
template <class F, int K>
void write_sums(const ConvBackward& params, const F* sums, int64_t parts, int64_t blocks, int64_t k) {
  constexpr int64_t W = kWidth<F>;
  const ConvBlock block = conv_block<F>(params.in, k);
  for (int j = 0; j <= K; ++j) {
    double total[W] = {};
    for (int64_t part = 0; part < parts; ++part)
      for (int64_t lane = 0; lane < W; ++lane)
        total[lane] += static_cast<double>(sums[((part * blocks + k) * (K + 1) + j) * W + lane]);
    for (int64_t lane = 0; lane < block.lanes; ++lane) {
      const F value = static_cast<F>(total[lane]);
      if (j < K) {
        static_cast<F*>(params.grad_weight)[(block.channel + lane) * K + j] = value;
      } else if (params.grad_bias != nullptr) {
        static_cast<F*>(params.grad_bias)[block.channel + lane] = value;
      }
    }
  }
}

template <class F, int K>
void backward(const ConvBackward& params) {
  const ConvInputs& in = params.in;
  const int64_t part_steps = conv_part_steps(in.sequences(), kPartSteps), parts = conv_parts(in.sequences(), part_steps);
  const int64_t blocks = conv_blocks<F>(in), bands = ceil_div(blocks, kBandBlocks);
  const int64_t sums_per_block = (K + 1) * kWidth<F>;
  Scratch scratch(Scratch::size<F>(parts * blocks * sums_per_block));
  F* sums = scratch.take_zeroed<F>(parts * blocks * sums_per_block);

  parallel_for(parts * bands, in.num_threads, [&](int64_t task) {
    const int64_t part = task / bands, band = task % bands;
    const int64_t last_block = (band + 1) * kBandBlocks < blocks ? (band + 1) * kBandBlocks : blocks;
    for (int64_t k = band * kBandBlocks; k < last_block; ++k) {
      const BackwardBlock<F, K> block(params, conv_block<F>(in, k));
      F* own_sums = sums + (part * blocks + k) * sums_per_block;
      conv_for_pieces(in, part, part_steps, [&](const Sequence& sequence, int64_t begin, int64_t end) {
        do {  // at least once: without a step there are still states
          const int64_t next = begin + kConvTile < end ? begin + kConvTile : end;
          block.run(sequence, begin, next, own_sums);
          begin = next;
        } while (begin < end);
      });
    }
  });
  parallel_for(blocks, in.num_threads, [&](int64_t k) { write_sums<F, K>(params, sums, parts, blocks, k); });
}

}  // namespace

void causal_conv1d_backward(const ConvBackward& params) {
  with_width(params.in.width, [&](auto width) {
    if (params.in.dtype == DType::f64) return backward<double, decltype(width)::value>(params);
    return backward<float, decltype(width)::value>(params);
  });
}

}  // namespace ssm::SSM_ISA
