// What the forward and the backward pass of the causal convolution share.
//
// Steps of a sequence are counted in the order of processing: step 0 is its last one if the taps look ahead.  Taps, tiles
// and states then look the same both ways.  A tile is some steps of one block of channels, one channel per lane, as rows
// of vectors in the compute type; "padded" tiles begin width - 1 steps early.
#pragma once

#include <type_traits>

#include "causal_conv1d_params.h"
#include "cpu/tile.h"
#include "cpu/vec_math.h"

namespace ssm::SSM_ISA {

constexpr int64_t kConvTile = 64;  // steps; the tiles of a task stay in the first-level cache

// Neighbouring channels that share vectors, the last block of a tensor being partly empty.
struct ConvBlock {
  int64_t channel, lanes;
};

template <class F>
SSM_INLINE ConvBlock conv_block(const ConvInputs& in, int64_t index) {
  const int64_t channel = index * kWidth<F>, left = in.channels - channel;
  return {channel, left < kWidth<F> ? left : kWidth<F>};
}

template <class F>
SSM_INLINE int64_t conv_blocks(const ConvInputs& in) {
  return (in.channels + kWidth<F> - 1) / kWidth<F>;
}

// How many steps a task gets: whole sequences if they are short.
SSM_INLINE int64_t conv_part_steps(const Sequences& sequences, int64_t most) {
  const bool short_ones = !sequences.packed() && sequences.steps > 0 && sequences.steps <= most;
  return short_ones ? most / sequences.steps * sequences.steps : most;
}

// Sequences are laid end to end and cut into parts, at least one: sequences without a step still have states.
SSM_INLINE int64_t conv_parts(const Sequences& sequences, int64_t part_steps) {
  const int64_t total = sequences.total();
  return total == 0 ? 1 : (total + part_steps - 1) / part_steps;
}

// Calls body(sequence, begin, end) for the steps of every sequence that lie in one part.
template <class Body>
SSM_INLINE void conv_for_pieces(const ConvInputs& in, int64_t part, int64_t part_steps, Body body) {
  const Sequences sequences = in.sequences();
  const int64_t total = sequences.total(), begin = part * part_steps;
  const int64_t end = begin + part_steps < total ? begin + part_steps : total;
  for (int64_t i = sequences.first_from(begin); i < sequences.count; ++i) {
    const int64_t first = sequences.place(i), last = sequences.place(i + 1);
    if (first >= end && end < total) break;
    const Sequence sequence = sequences.at(i);
    const int64_t low = (first > begin ? first : begin) - first, high = (last < end ? last : end) - first;
    if (in.reverse) body(sequence, sequence.steps - high, sequence.steps - low);
    else body(sequence, low, high);
  }
}

SSM_INLINE Matrix conv_steps(const ConvInputs& in, const View3& v, const Sequence& sequence, ConvBlock block,
                             int64_t step, int64_t rows) {
  const int64_t time = sequence.first + (in.reverse ? sequence.steps - 1 - step : step);
  const int64_t offset = sequence.batch * v.stride_b + time * v.stride_l + block.channel * v.stride_d;
  return {v.data + offset * size_of(v.dtype), in.reverse ? -v.stride_l : v.stride_l, v.stride_d, rows, block.lanes};
}

// Asks for the lines that the block beside this one needs of the same rows, one row per call, while this one is worked
// on: the rows lie in different pages, where the prefetchers of the hardware lose track.
template <class F>
struct ConvPrefetch {
  const char* next = nullptr;
  int64_t stride = 0;

  // Nothing to ask for without rows, or if the lanes of a vector are not neighbours in memory.
  ConvPrefetch(const ConvInputs& in, const View3& view, const Sequence& sequence, ConvBlock block, int64_t begin,
               int64_t rows) {
    if (rows <= 0 || view.stride_d != 1) return;
    const Matrix m = conv_steps(in, view, sequence, block, begin, rows);
    next = m.data + kWidth<F> * size_of(view.dtype);
    stride = m.stride_row * size_of(view.dtype);
  }

  SSM_INLINE void row(int64_t index) const {
    if (stride != 0) SSM_PREFETCH(next + index * stride);
  }
};

// Samples [first, first + rows) of a state (b, d, width - 1), the oldest being sample 0.
template <class F>
SSM_INLINE Matrix conv_state(const ConvInputs& in, const void* state, const Sequence& sequence, ConvBlock block,
                             int64_t first, int64_t rows) {
  const int64_t samples = in.width - 1, column = in.reverse ? samples - 1 - first : first;
  const int64_t offset = (sequence.index * in.channels + block.channel) * samples + column;
  char* data = static_cast<char*>(const_cast<void*>(state)) + offset * static_cast<int64_t>(sizeof(F));
  return {data, in.reverse ? -1 : 1, samples, rows, block.lanes};
}

// read_matrix that also clears the lanes without a channel.
template <class F>
SSM_INLINE void conv_read(DType dtype, const Matrix& m, F* tile) {
  if (m.rows <= 0) return;
  if (m.cols < kWidth<F>) std::memset(tile, 0, static_cast<size_t>(m.rows * kWidth<F>) * sizeof(F));
  read_matrix<F>(dtype, m, tile, kWidth<F>);
}

// Samples of x at steps [begin, end), from the initial state before step 0 and zero after the last step.
template <class F>
SSM_INLINE void conv_read_padded(const ConvInputs& in, const Sequence& sequence, ConvBlock block, int64_t begin,
                                 int64_t end, F* tile) {
  const int64_t steps = sequence.steps, outside = begin < 0 ? -begin : 0, inside = (end < steps ? end : steps) - begin;
  if (in.initial_state == nullptr) {
    std::memset(tile, 0, static_cast<size_t>(outside * kWidth<F>) * sizeof(F));
  } else {
    const int64_t first = begin + in.width - 1;
    conv_read<F>(kComputeType<F>, conv_state<F>(in, in.initial_state, sequence, block, first, outside), tile);
  }
  if (inside > outside) {
    const Matrix m = conv_steps(in, in.x, sequence, block, begin + outside, inside - outside);
    conv_read<F>(in.x.dtype, m, tile + outside * kWidth<F>);
  }
  for (int64_t row = inside; row < end - begin; ++row) store(tile + row * kWidth<F>, Vec<F>{});
}

// weight of one block; taps[0] meets the oldest sample.
template <class F, int K>
SSM_INLINE void conv_read_taps(const ConvInputs& in, ConvBlock block, Vec<F>* taps) {
  alignas(64) F packed[K * kWidth<F>];
  char* data = static_cast<char*>(const_cast<void*>(in.weight)) + block.channel * K * static_cast<int64_t>(sizeof(F));
  conv_read<F>(kComputeType<F>, Matrix{data, 1, K, K, block.lanes}, packed);
  for (int j = 0; j < K; ++j) taps[j] = load<F>(packed + j * kWidth<F>);
}

template <class F>
SSM_INLINE Vec<F> conv_read_bias(const ConvInputs& in, ConvBlock block) {
  alignas(64) F packed[kWidth<F>] = {};
  if (in.bias != nullptr)
    std::memcpy(packed, static_cast<const F*>(in.bias) + block.channel,
                     static_cast<size_t>(block.lanes) * sizeof(F));
  return load<F>(packed);
}

// bias + sum over the taps, for the step whose oldest sample is the first row of `padded`.
template <class F, int K>
SSM_INLINE Vec<F> conv_sum(const F* padded, const Vec<F>* taps, Vec<F> bias) {
  SSM_UNROLL
  for (int j = 0; j < K; ++j) bias += taps[j] * load<F>(padded + j * kWidth<F>);
  return bias;
}

// Calls body(integral_constant<width>).
template <class Body>
SSM_INLINE void with_width(int64_t width, Body body) {
  switch (width) {
    case 1: return body(std::integral_constant<int, 1>{});
    case 2: return body(std::integral_constant<int, 2>{});
    case 3: return body(std::integral_constant<int, 3>{});
    case 4: return body(std::integral_constant<int, 4>{});
    case 5: return body(std::integral_constant<int, 5>{});
    case 6: return body(std::integral_constant<int, 6>{});
    case 7: return body(std::integral_constant<int, 7>{});
    case 8: return body(std::integral_constant<int, 8>{});
    default: SSM_UNREACHABLE();  // refused by the bindings
  }
}

}  // namespace ssm::SSM_ISA
