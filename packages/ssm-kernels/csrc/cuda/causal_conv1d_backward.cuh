// Backward pass of the causal convolution; see causal_conv1d_plan.h for which thread does what.
//
// With s the sums before the activation and g = grad_y silu'(s), the gradient of sample q is the sum over the taps j of
// weight[j] g[q + width - 1 - j].  A thread slides along its run and a window further, with x and g in two windows of
// registers: at the end of a window it has all that the gradient of the sample at its beginning needs.  It adds up the gradients of its
// weights on the way; the rows of a block add theirs through shared memory, the blocks theirs through the workspace.
#pragma once

#include "cuda/causal_conv1d.cuh"
#include "cuda/launch.h"

namespace ssm::cuda {

struct ConvBackwardParams {
  ConvBackward op;
  ConvPlan plan;
  char* partials = nullptr;  // (blocks of runs, width + 1, channels) in the compute type
};

// What a sample has to do with the final state: its gradient there, or 0.
template <class F>
__device__ __forceinline__ F conv_final_gradient(const ConvBackward& op, const ConvSequence& s, int64_t channel, int64_t q) {
  const int64_t number = q - (s.end - (op.in.width - 1));
  if (op.grad_final_state == nullptr || number < 0) return F(0);
  return static_cast<const F*>(op.grad_final_state)[conv_state_at(op.in, s.index, channel, number)];
}

// g of one step and channel from scratch, for the few that the initial state needs.
template <class F>
__device__ F conv_gradient_of_sum(const ConvBackward& op, const ConvSequence& s, int64_t batch, int64_t channel, int64_t q) {
  const ConvInputs& in = op.in;
  const ConvLine x(in, in.x, batch, channel), grad_y(in, op.grad_y, batch, channel);
  const F gradient = load<F>(op.grad_y.data, grad_y.at(q), op.grad_y.dtype);
  if (!in.silu) return gradient;
  const F* weight = static_cast<const F*>(in.weight) + channel * in.width;
  F sum = in.bias != nullptr ? static_cast<const F*>(in.bias)[channel] : F(0);
  for (int64_t j = 0; j < in.width; ++j) {
    const int64_t from = q - (in.width - 1) + j;
    F sample;
    if (from >= s.begin) sample = load<F>(in.x.data, x.at(from), in.x.dtype);
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
    F* shared = shared_memory<F>();  // (rows, width + 1, columns)
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

// One thread's steps [begin, end) of one sequence.
template <class Vector, int Width>
struct ConvBackwardPiece {
  using F = typename Vector::Compute;
  static constexpr int kCount = Vector::kCount, kTaps = ConvWidth<Width>::kTaps, kBehind = kTaps - 1;
  static constexpr int kSteps = kTaps, kAhead = kTaps % 4 == 0 ? 4 : kTaps;  // loads under way: of x, and of grad_y
  const ConvBackwardParams& p;
  const ConvTaps<F, kCount, Width>& taps;
  const int width;
  ConvWindow<F, kCount, Width> x, g;

  __device__ __forceinline__ void run(const ConvPlace& place, const ConvSequence& s, int steps,
                                      ConvWeightGradients<F, kCount, Width>& gradients) {
    const ConvInputs& in = p.op.in;
    const ConvLine x_line(in, in.x, place.batch, place.channel), y_line(in, p.op.grad_y, place.batch, place.channel);
    const ConvLine out(in, p.op.grad_x, place.batch, place.channel);
    x.template fill<Vector>(in, s, x_line, place.channel, place.begin);
#pragma unroll
    for (int j = 0; j < kTaps; ++j)
#pragma unroll
      for (int i = 0; i < kCount; ++i) g.slots[j][i] = F(0);
    const int64_t left = s.end - place.begin;
    const int all = steps + kBehind, known = left < all ? int(left) : all;
    int64_t x_at = x_line.at(place.begin), y_at = y_line.at(place.begin), out_at = out.at(place.begin - kBehind);
    for (int t0 = 0; t0 < all; t0 += kSteps) {
#pragma unroll
      for (int from = 0; from < kSteps; from += kAhead) {
        Vector x_ahead[kAhead], y_ahead[kAhead];
#pragma unroll
        for (int u = 0; u < kAhead; ++u, x_at += x_line.step, y_at += y_line.step) {
          if (t0 + from + u >= known) continue;
          x_ahead[u].load_from(in.x, x_at);
          y_ahead[u].load_from(p.op.grad_y, y_at);
        }
#pragma unroll
        for (int u = from; u < from + kAhead; ++u, out_at += out.step) {
          const int t = t0 + u;
          if (t >= all) break;
          step(x_ahead[u - from], y_ahead[u - from], u, t < known);
          if (t < steps) gradients.add(x, width, u, g.slots[g.slot(u, 0)]);
          if (t >= kBehind) write(place, s, out_at, u, place.begin + t - kBehind);
        }
      }
    }
  }

 private:
  // Takes the windows to the next step; after the sequence nothing follows.
  __device__ __forceinline__ void step(const Vector& x_word, const Vector& y_word, int u, bool known) {
    F* sample = x.slots[x.slot(u, 0)];
    F* gradient = g.slots[g.slot(u, 0)];
    if (!known) {
#pragma unroll
      for (int i = 0; i < kCount; ++i) sample[i] = gradient[i] = F(0);
      return;
    }
    x_word.decode(p.op.in.x, sample);
    y_word.decode(p.op.grad_y, gradient);
    if (!p.op.in.silu) return;
    F sums[kCount];
    x.sum(taps, width, u, sums);
#pragma unroll
    for (int i = 0; i < kCount; ++i) gradient[i] *= conv_silu_slope(sums[i]);
  }

  // The gradient of sample q, u being the step kBehind later.
  __device__ __forceinline__ void write(const ConvPlace& place, const ConvSequence& s, int64_t out_at, int u, int64_t q) {
    F sums[kCount];
#pragma unroll
    for (int i = 0; i < kCount; ++i) sums[i] = F(0);
#pragma unroll
    for (int j = 0; j < kTaps; ++j) {
      if (!ConvWidth<Width>::has(j, width)) continue;
#pragma unroll
      for (int i = 0; i < kCount; ++i) sums[i] += taps.weight[j][i] * g.slots[g.slot(u, j)][i];
    }
    if (p.op.grad_final_state != nullptr && q >= s.end - (width - 1)) {
#pragma unroll
      for (int i = 0; i < kCount; ++i) sums[i] += conv_final_gradient<F>(p.op, s, place.channel + i, q);
    }
    Vector::store_to(p.op.grad_x, out_at, sums);
  }
};

template <class Vector, int Width>
__global__ void __launch_bounds__(kConvThreads) conv_backward_kernel(ConvBackwardParams p) {
  using F = typename Vector::Compute;
  constexpr int kCount = Vector::kCount;
  if (blockIdx.x >= p.plan.run_blocks) return write_initial_gradient<F>(p);
  const ConvInputs& in = p.op.in;
  const int width = Width == 0 ? int(in.width) : Width;
  ConvPlace place(in, p.plan, kCount);
  ConvWeightGradients<F, kCount, Width> gradients;
  if (place.present) {
    const ConvTaps<F, kCount, Width> taps(in, place.channel);
    while (place.begin < place.end) {
      const ConvSequence s = conv_sequence_of_step(in, place.batch, place.begin);
      const int steps = int((s.end < place.end ? s.end : place.end) - place.begin);
      ConvBackwardPiece<Vector, Width>{p, taps, width}.run(place, s, steps, gradients);
      place.begin += steps;
    }
  }
  gradients.write(p, width);
}

}  // namespace ssm::cuda
