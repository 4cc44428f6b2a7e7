// Backward pass of the causal convolution; see causal_conv1d_plan.h for which thread does what.
//
// With s the sums before the activation and g = grad_y silu'(s), the gradient of sample q is the sum over the taps j of
// weight[j] g[q + width - 1 - j].  A thread slides along its run and a window further, with x and g in two windows of
// registers: at the end of a window it has all that the gradient of the sample at its beginning needs.  It adds up the
// gradients of its weights on the way; the rows of a block add theirs through shared memory, the blocks theirs through
// the workspace.
#pragma once

#include "cuda/causal_conv1d_tile.cuh"

namespace ssm::cuda {

struct ConvBackwardParams {
  ConvBackward op;
  ConvPlan plan;
  char* partials = nullptr;  // (blocks of runs, width + 1, channels) in the compute type
  int64_t tile_bytes = 0;    // of shared memory, before the sums
};

// What a sample has to do with the final state: its gradient there, or 0.
template <class F>
__device__ __forceinline__ F conv_final_gradient(const ConvBackward& op, const ConvSequence& s, int64_t channel,
                                                 int64_t q) {
  const int64_t number = q - (s.end - (op.in.width - 1));
  if (op.grad_final_state == nullptr || number < 0) return F(0);
  return static_cast<const F*>(op.grad_final_state)[conv_state_at(op.in, s.index, channel, number)];
}

// g of one step and channel from scratch, for the few that the initial state needs.
template <class F>
__device__ F conv_gradient_of_sum(const ConvBackward& op, const ConvSequence& s, int64_t batch, int64_t channel,
                                  int64_t q) {
  const ConvInputs& in = op.in;
  const ConvLine x(in, in.x, batch, channel), grad_y(in, op.grad_y, batch, channel);
  const F gradient = load<F>(grad_y.at(q), 0, in.dtype);
  if (!in.silu) return gradient;
  const F* weight = static_cast<const F*>(in.weight) + channel * in.width;
  F sum = in.bias != nullptr ? static_cast<const F*>(in.bias)[channel] : F(0);
  for (int64_t j = 0; j < in.width; ++j) {
    const int64_t from = q - (in.width - 1) + j;
    F sample;
    if (from >= s.begin) sample = load<F>(x.at(from), 0, in.dtype);
    else conv_initial<F, 1>(in, s, channel, s.begin - from, &sample);
    sum += weight[j] * sample;
  }
  return gradient * conv_silu_slope(sum);
}

template <class F>
__device__ __forceinline__ void write_initial_gradient(const ConvBackwardParams& p) {
  const ConvInputs& in = p.op.in;
  const ConvStatePlace place(in, p.plan);
  if (!place.present) return;
  const ConvSequence s = conv_sequence(in, place.sequence);
  const int64_t batch = in.offsets != nullptr ? 0 : place.sequence;
  const F* weight = static_cast<const F*>(in.weight) + place.channel * in.width;
  for (int64_t number = 0; number < in.width - 1; ++number) {
    F gradient = conv_final_gradient<F>(p.op, s, place.channel, s.begin - (in.width - 1) + number);
    for (int64_t j = 0; j <= number; ++j) {
      const int64_t q = s.begin + number - j;
      if (q < s.end) gradient += weight[j] * conv_gradient_of_sum<F>(p.op, s, batch, place.channel, q);
    }
    static_cast<F*>(p.op.grad_initial_state)[conv_state_at(in, s.index, place.channel, number)] = gradient;
  }
}

// The gradients of the weights and the bias of a thread's channels.
template <class F, int Count, int Width>
struct ConvWeightGradients {
  static constexpr int kTaps = ConvWidth<Width>::kTaps;
  F sums[kTaps + 1][Count] = {};

  __device__ __forceinline__ void add(const ConvWindow<F, Count, Width>& x, int width, int u, const F* g) {
#pragma unroll
    for (int j = 0; j < kTaps; ++j) {
      if (!ConvWidth<Width>::has(j, width)) continue;
#pragma unroll
      for (int i = 0; i < Count; ++i) sums[j][i] += g[i] * x.slots[x.slot(u, kTaps - 1 - j)][i];
    }
#pragma unroll
    for (int i = 0; i < Count; ++i) sums[kTaps][i] += g[i];
  }

  // The sums of the rows of the block, in the order of the rows, become partials of the block.
  __device__ __forceinline__ void write(const ConvBackwardParams& p, int width) const {
    const ConvInputs& in = p.op.in;
    const unsigned lanes = unsigned(p.plan.lanes), columns = lanes * Count;  // channels of the block
    F* shared = reinterpret_cast<F*>(shared_memory() + p.tile_bytes);  // (rows, width + 1, columns)
    F* own = shared + threadIdx.x / lanes * (width + 1) * columns + threadIdx.x % lanes * Count;
#pragma unroll
    for (int j = 0; j <= kTaps; ++j) {
      if (j < kTaps && !ConvWidth<Width>::has(j, width)) continue;
#pragma unroll
      for (int i = 0; i < Count; ++i) own[(j - (kTaps - width)) * int(columns) + i] = sums[j][i];
    }
    __syncthreads();
    const unsigned tiles = unsigned(p.plan.tiles), row_block = blockIdx.x / tiles;
    const int64_t first = int64_t(blockIdx.x % tiles) * columns;
    F* partials = reinterpret_cast<F*>(p.partials) + int64_t(row_block) * (width + 1) * in.channels + first;
    for (unsigned index = threadIdx.x; index < (width + 1) * columns; index += kConvThreads) {
      const unsigned j = index / columns, column = index % columns;
      if (first + column >= in.channels) continue;
      F sum = F(0);
      for (int row = 0; row < p.plan.rows; ++row) sum += shared[(row * (width + 1) + j) * columns + column];
      partials[j * in.channels + column] = sum;
    }
  }
};

// One thread's steps [begin, begin + steps) of one sequence.
template <class Vector, int Width>
struct ConvBackwardPiece {
  using F = typename Vector::Compute;
  static constexpr int kCount = Vector::kCount, kTaps = ConvWidth<Width>::kTaps, kBehind = kTaps - 1;
  static constexpr int kSteps = ConvWidth<Width>::steps(4);  // loads of x, and of grad_y, under way
  const ConvBackwardParams& p;
  const ConvPlace& place;
  const ConvSequence& s;
  const int steps;
  const ConvTaps<F, kCount, Width>& taps;
  ConvWeightGradients<F, kCount, Width>& gradients;
  const ConvLine &x_line, &y_line;
  ConvWindow<F, kCount, Width> x, g;

  __device__ __forceinline__ void run() {
    const ConvInputs& in = p.op.in;
    const ConvLine out_line(in, p.op.grad_x, place.batch, place.channel);
    x.template fill<Vector>(in, s, x_line, place.channel, place.begin);
#pragma unroll
    for (int j = 0; j < kTaps; ++j)
#pragma unroll
      for (int i = 0; i < kCount; ++i) g.slots[j][i] = F(0);
    const int width = int(in.width), all = steps + kBehind;
    const int left = s.end - place.begin < all ? int(s.end - place.begin) : all;
    // From this step on the samples that are finished are in the final state.
    const int final_from = p.op.grad_final_state == nullptr ? all : left + kBehind - (width - 1);
    const char *x_at = x_line.at(place.begin), *y_at = y_line.at(place.begin);
    char* out_at = out_line.at(place.begin - kBehind);
    for (int t = 0; t < all; t += kSteps) {
      const Group group = {t, all, left, final_from, x_line.step, y_line.step, out_line.step};
      if (t >= kBehind && t + kSteps <= steps && t + kSteps <= final_from) advance<true>(group, x_at, y_at, out_at);
      else advance<false>(group, x_at, y_at, out_at);
      x_at += kSteps * x_line.step, y_at += kSteps * y_line.step, out_at += kSteps * out_line.step;
    }
  }

 private:
  struct Group {
    int t, all, left, final_from;
    int64_t x_step, y_step, out_step;
  };

  // Steps [t, t + kSteps); `Inside`: of which every one reads, adds to the gradients and finishes a sample, and none of
  // those is in the final state.
  template <bool Inside>
  __device__ __forceinline__ void advance(const Group& group, const char* x_at, const char* y_at, char* out_at) {
    const ConvInputs& in = p.op.in;
    Vector x_ahead[kSteps], y_ahead[kSteps];
#pragma unroll
    for (int u = 0; u < kSteps; ++u, x_at += group.x_step, y_at += group.y_step) {
      if (!Inside && group.t + u >= group.left) continue;
      x_ahead[u].load_from(x_at, in.dtype);
      y_ahead[u].load_from(y_at, in.dtype);
    }
#pragma unroll
    for (int u = 0; u < kSteps; ++u, out_at += group.out_step) {
      const int t = group.t + u;
      if (!Inside && t >= group.all) break;
      step(x_ahead[u], y_ahead[u], u, Inside || t < group.left);
      if (Inside || t < steps) gradients.add(x, int(in.width), u, g.slots[g.slot(u, 0)]);
      if (!Inside && t < kBehind) continue;
      F sums[kCount];
      gradient_of_sample(u, sums);
      if (!Inside && t >= group.final_from) {
#pragma unroll
        for (int i = 0; i < kCount; ++i)
          sums[i] += conv_final_gradient<F>(p.op, s, place.channel + i, place.begin + t - kBehind);
      }
      Vector::store_to(out_at, in.dtype, sums);
    }
  }

  // Takes the windows to the next step; after the sequence nothing follows.
  __device__ __forceinline__ void step(const Vector& x_word, const Vector& y_word, int u, bool known) {
    F* sample = x.slots[x.slot(u, 0)];
    F* gradient = g.slots[g.slot(u, 0)];
    if (!known) {
#pragma unroll
      for (int i = 0; i < kCount; ++i) sample[i] = gradient[i] = F(0);
      return;
    }
    x_word.decode(p.op.in.dtype, sample);
    y_word.decode(p.op.in.dtype, gradient);
    if (!p.op.in.silu) return;
    F sums[kCount];
    x.sum(taps, int(p.op.in.width), u, sums);
#pragma unroll
    for (int i = 0; i < kCount; ++i) gradient[i] *= conv_silu_slope(sums[i]);
  }

  // Of the sample kBehind steps before step u.
  __device__ __forceinline__ void gradient_of_sample(int u, F* sums) const {
#pragma unroll
    for (int i = 0; i < kCount; ++i) sums[i] = F(0);
#pragma unroll
    for (int j = 0; j < kTaps; ++j) {
      if (!ConvWidth<Width>::has(j, int(p.op.in.width))) continue;
#pragma unroll
      for (int i = 0; i < kCount; ++i) sums[i] += taps.weight[j][i] * g.slots[g.slot(u, j)][i];
    }
  }
};

// The blocks asked for per multiprocessor keep the compiler from spilling for the sake of one more.
template <class Vector, int Width, bool Staged>
__global__ void __launch_bounds__(kConvThreads, Width == 2 || Width == 3 ? 4 : 3)
    conv_backward_kernel(ConvBackwardParams p) {
  using F = typename Vector::Compute;
  constexpr int kCount = Vector::kCount;
  if (blockIdx.x >= p.plan.run_blocks) return write_initial_gradient<F>(p);
  const ConvInputs& in = p.op.in;
  const int width = Width == 0 ? int(in.width) : Width;
  ConvPlace place(in, p.plan, kCount);
  ConvWeightGradients<F, kCount, Width> gradients;
  ConvLine x(in, in.x, place.batch, place.channel), grad_y(in, p.op.grad_y, place.batch, place.channel);
  if constexpr (Staged) {
    constexpr int kBehind = ConvWidth<Width>::kTaps - 1;
    const ConvTile tile(in, p.plan, kCount, kBehind, kBehind);
    auto* x_tile = shared_memory<typename Vector::Bits>();
    auto* y_tile = reinterpret_cast<typename Vector::Bits*>(shared_memory() + p.tile_bytes / 2);
    tile.load_from(in, in.x, x_tile);
    tile.load_from(in, p.op.grad_y, y_tile);
    __syncthreads();
    x = tile.line(x_tile, place.channel), grad_y = tile.line(y_tile, place.channel);
  }
  if (place.present) {
    const ConvTaps<F, kCount, Width> taps(in, place.channel);
    while (place.begin < place.end) {
      const ConvSequence s = conv_sequence_of_step(in, place.batch, place.begin);
      const int steps = int((s.end < place.end ? s.end : place.end) - place.begin);
      ConvBackwardPiece<Vector, Width>{p, place, s, steps, taps, gradients, x, grad_y}.run();
      place.begin += steps;
    }
  }
  gradients.write(p, width);
}

}  // namespace ssm::cuda
