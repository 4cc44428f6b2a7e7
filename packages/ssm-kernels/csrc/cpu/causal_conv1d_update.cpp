// The causal convolution of new samples only, which then go into the state.  A task is one batch index and a band of
// channels.
//
// The samples of the state are counted like steps: those in it are [0, s), the new ones follow.  A window holds the
// width - 1 samples before a tile of new ones and that tile, one channel per lane; see causal_conv1d.h.
#include "causal_conv1d_update_params.h"
#include "cpu/causal_conv1d.h"
#include "cpu/operators.h"
#include "cpu/parallel.h"

namespace ssm::SSM_ISA {
namespace {

constexpr int64_t kUpdateBandBlocks = 16;

// Below this number of products (30 microseconds of one core), waking a sleeping team of threads may take longer.
constexpr int64_t kProductsWorthThreads = 64 * 1024;

SSM_INLINE Matrix samples_of(const View3& v, int64_t batch, ConvBlock block, int64_t first, int64_t rows) {
  const int64_t offset = batch * v.stride_b + first * v.stride_l + block.channel * v.stride_d;
  return {v.data + offset * size_of(v.dtype), v.stride_l, v.stride_d, rows, block.lanes};
}

// Rows of a matrix whose rows are not contiguous, from or to a tile: what the taps and a state (b, d, s) are.  Known
// numbers of rows and lanes make this several times as fast as the general copy; any other matrix goes there.
template <class F, int Rows, bool Read>
SSM_INLINE void move_few_rows(DType dtype, const Matrix& m, F* tile) {
  constexpr int64_t W = kWidth<F>;
  if (m.cols < W || m.stride_col == 1) {
    if constexpr (Read) return conv_read<F>(dtype, m, tile);
    return write_matrix<F>(dtype, m, tile, W);
  }
  with_storage<F>(dtype, [&](auto storage) {
    using S = decltype(storage);
    char* at = m.data;
    const int64_t stride_row = m.stride_row * S::bytes, stride_col = m.stride_col * S::bytes;
    for (int64_t lane = 0; lane < W; ++lane, at += stride_col) {
      SSM_UNROLL
      for (int64_t row = 0; row < Rows; ++row) {
        if constexpr (Read) {
          tile[row * W + lane] = S::load_one(at + row * stride_row);
        } else {
          S::store_one(at + row * stride_row, tile[row * W + lane]);
        }
      }
    }
  });
}

// The slot of a ring that holds sample number `sample`, which may be negative.
SSM_INLINE int64_t slot(const ConvUpdate& in, int64_t sample) {
  const int64_t rest = sample % in.samples;
  return rest < 0 ? rest + in.samples : rest;
}

// What has been seen before, or -1 where the state is no ring.
SSM_INLINE int64_t seen_before(const ConvUpdate& in, int64_t batch) {
  if (in.counts == nullptr) return -1;
  return in.wide_counts ? static_cast<const int64_t*>(in.counts)[batch] : static_cast<const int32_t*>(in.counts)[batch];
}

// The width - 1 samples before the first new one.
template <class F, int K>
SSM_INLINE void read_history(const ConvUpdate& in, int64_t batch, ConvBlock block, F* window) {
  constexpr int rows = K - 1;
  if (rows == 0) return;
  if (in.counts == nullptr) {
    const Matrix m = samples_of(in.state, batch, block, in.samples - rows, rows);
    return move_few_rows<F, rows, true>(in.state.dtype, m, window);
  }
  const int64_t seen = seen_before(in, batch);
  for (int64_t row = 0; row < rows; ++row) {
    const Matrix m = samples_of(in.state, batch, block, slot(in, seen - rows + row), 1);
    move_few_rows<F, 1, true>(in.state.dtype, m, window + row * kWidth<F>);
  }
}

// Moves those samples of the state that stay in it without entering the window, the oldest first.
template <class F>
SSM_INLINE void shift_state(const ConvUpdate& in, int64_t batch, ConvBlock block, F* buffer) {
  const int64_t rows = in.samples - (in.width - 1) - in.steps;
  for (int64_t first = 0; first < rows; first += kConvTile) {
    const int64_t some = rows - first < kConvTile ? rows - first : kConvTile;
    read_matrix<F>(in.state.dtype, samples_of(in.state, batch, block, first + in.steps, some), buffer, kWidth<F>);
    write_matrix<F>(in.state.dtype, samples_of(in.state, batch, block, first, some), buffer, kWidth<F>);
  }
}

// Puts those samples of a window into the state that stay in it.  The window has `rows` new ones, from step `begin` on.
template <class F, int K>
SSM_INLINE void keep_samples(const ConvUpdate& in, int64_t batch, ConvBlock block, int64_t begin, int64_t rows,
                             const F* window) {
  constexpr int64_t history = K - 1;
  if (in.counts != nullptr) {
    const int64_t seen = seen_before(in, batch), first_kept = in.steps - in.samples - begin;
    for (int64_t t = first_kept > 0 ? first_kept : 0; t < rows; ++t) {
      const Matrix m = samples_of(in.state, batch, block, slot(in, seen + begin + t), 1);
      move_few_rows<F, 1, false>(in.state.dtype, m, const_cast<F*>(window) + (history + t) * kWidth<F>);
    }
    return;
  }
  const int64_t target = in.samples - history + begin - in.steps;  // of the window's first row
  int64_t row = begin == 0 ? 0 : history;  // the history of a later tile has been kept already
  if (target + row < 0) row = -target;
  if (row >= history + rows) return;
  const Matrix m = samples_of(in.state, batch, block, target + row, history + rows - row);
  if (m.rows == history && history > 0) {  // the usual decode steps: s = k - 1, and below s = k
    move_few_rows<F, K - 1, false>(in.state.dtype, m, const_cast<F*>(window) + row * kWidth<F>);
  } else if (m.rows == K) {
    move_few_rows<F, K, false>(in.state.dtype, m, const_cast<F*>(window) + row * kWidth<F>);
  } else {
    write_matrix<F>(in.state.dtype, m, window + row * kWidth<F>, kWidth<F>);
  }
}

template <class F, int K>
void update_block(const ConvUpdate& in, const ConvInputs& parameters, int64_t batch, ConvBlock block) {
  constexpr int64_t W = kWidth<F>;
  alignas(64) F window[(K - 1 + kConvTile) * W];
  alignas(64) F y[kConvTile * W];
  alignas(64) F packed_taps[K * W];
  char* weight = static_cast<char*>(const_cast<void*>(in.weight)) + block.channel * K * static_cast<int64_t>(sizeof(F));
  move_few_rows<F, K, true>(kComputeType<F>, Matrix{weight, 1, K, K, block.lanes}, packed_taps);
  Vec<F> taps[K];
  for (int j = 0; j < K; ++j) taps[j] = load<F>(packed_taps + j * W);
  const Vec<F> bias = conv_read_bias<F>(parameters, block);

  read_history<F, K>(in, batch, block, window);
  if (in.counts == nullptr) shift_state<F>(in, batch, block, y);
  for (int64_t begin = 0; begin < in.steps; begin += kConvTile) {
    const int64_t rows = in.steps - begin < kConvTile ? in.steps - begin : kConvTile;
    conv_read<F>(in.x.dtype, samples_of(in.x, batch, block, begin, rows), window + (K - 1) * W);
    for (int64_t t = 0; t < rows; ++t) {
      Vec<F> sum = conv_sum<F, K>(window + t * W, taps, bias);
      if (in.silu) sum = sum / (exp<F>(-sum) + F(1));
      store(y + t * W, sum);
    }
    write_matrix<F>(in.y.dtype, samples_of(in.y, batch, block, begin, rows), y, W);
    keep_samples<F, K>(in, batch, block, begin, rows, window);
    for (int64_t row = 0; row < K - 1; ++row) store(window + row * W, load<F>(window + (rows + row) * W));
  }
}

template <class F, int K>
void update(const ConvUpdate& in) {
  if (in.steps == 0) return;
  ConvInputs parameters;  // what the taps and the bias are read with
  parameters.channels = in.channels, parameters.width = in.width;
  parameters.weight = in.weight, parameters.bias = in.bias;
  const int64_t blocks = conv_blocks<F>(parameters), bands = (blocks + kUpdateBandBlocks - 1) / kUpdateBandBlocks;
  const bool worth_threads = in.batch * in.steps * in.channels * K >= kProductsWorthThreads;
  parallel_for(in.batch * bands, worth_threads ? in.num_threads : 1, [&](int64_t task) {
    const int64_t batch = task / bands, begin = task % bands * kUpdateBandBlocks;
    const int64_t end = begin + kUpdateBandBlocks < blocks ? begin + kUpdateBandBlocks : blocks;
    for (int64_t k = begin; k < end; ++k) update_block<F, K>(in, parameters, batch, conv_block<F>(parameters, k));
  });
}

}  // namespace

void causal_conv1d_update(const ConvUpdate& params) {
  with_width(params.width, [&](auto width) {
    if (params.x.dtype == DType::f64) return update<double, decltype(width)::value>(params);
    return update<float, decltype(width)::value>(params);
  });
}

}  // namespace ssm::SSM_ISA
