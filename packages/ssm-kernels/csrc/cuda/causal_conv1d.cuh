// What the forward and the backward pass of the causal convolution share.
//
// Steps of a batch index ("line") are counted in the order of processing: step 0 is the last one if the taps look ahead.
// The samples before the first step of a sequence are those of the initial state, or 0.
#pragma once

#include <type_traits>

#include "causal_conv1d_params.h"
#include "cuda/causal_conv1d_plan.h"
#include "cuda/functions.cuh"
#include "cuda/raw_numbers.cuh"
#include "cuda/time_order.h"

namespace ssm::cuda {

// The numbers of neighbouring channels as one word; loaded, then decoded.  Wider words are not better: with more registers
// fewer threads have as many bytes under way.
template <DType T, int Count>
struct ConvVector {
  using Compute = float;
  using Bits = typename Number<T>::Bits;
  static constexpr int kCount = Count, kBytes = Count * (T == DType::f32 ? 4 : 2);
  static constexpr int kAhead = T == DType::f32 ? 4 : 8;  // loads under way
  using Word = std::conditional_t<kBytes == 16, uint4, std::conditional_t<kBytes == 8, uint2, uint1>>;
  Word word;

  __device__ __forceinline__ void load_from(const char* address, DType) { word = *reinterpret_cast<const Word*>(address); }
  __device__ __forceinline__ void decode(DType, float* out) const {
#pragma unroll
    for (int i = 0; i < Count; ++i) {
      if constexpr (T == DType::f32) {
        out[i] = __uint_as_float(part(word, i));
      } else {
        const uint32_t two = part(word, i / 2);
        if constexpr (T == DType::bf16) out[i] = __uint_as_float(i % 2 == 0 ? two << 16 : two & 0xffff0000);
        else out[i] = decode_f16(uint16_t(two >> (i % 2 * 16)));
      }
    }
  }
  static __device__ __forceinline__ void store_to(char* address, DType, const float* in) {
    Word word;
#pragma unroll
    for (int i = 0; i < kBytes / 4; ++i) {
      if constexpr (T == DType::f32) part(word, i) = __float_as_uint(in[i]);
      else part(word, i) = Number<T>::encode(in[2 * i]) | uint32_t(Number<T>::encode(in[2 * i + 1])) << 16;
    }
    *reinterpret_cast<Word*>(address) = word;
  }

 private:
  template <class W>
  static __device__ __forceinline__ auto& part(W& word, int i) {
    if constexpr (sizeof(W) == 4) return word.x;
    else if constexpr (sizeof(W) == 8) return i == 0 ? word.x : word.y;
    else return i == 0 ? word.x : i == 1 ? word.y : i == 2 ? word.z : word.w;
  }
};

// One number of any type and with any strides.
template <class F>
struct ConvNumber {
  using Compute = F;
  using Bits = F;
  static constexpr int kCount = 1, kAhead = 8;
  RawNumbers<F, 1> raw;

  __device__ __forceinline__ void load_from(const char* address, DType type) { raw.load_from(address, 0, type); }
  __device__ __forceinline__ void decode(DType type, F* out) const { raw.decode(type, out); }
  static __device__ __forceinline__ void store_to(char* address, DType type, const F* in) {
    store<F>(address, 0, type, in[0]);
  }
};

// The address of step 0 of a line, and the bytes from a step to the next.
struct ConvLine {
  char* first;
  int64_t step;
  __device__ __forceinline__ ConvLine(char* first_step, int64_t bytes) : first(first_step), step(bytes) {}
  __device__ __forceinline__ ConvLine(const ConvInputs& in, const View3& v, int64_t batch, int64_t channel) {
    const int64_t start = batch * v.stride_b + channel * v.stride_d + (in.reverse ? (in.steps - 1) * v.stride_l : 0);
    first = v.data + start * size_of(v.dtype);
    step = (in.reverse ? -v.stride_l : v.stride_l) * size_of(v.dtype);
  }
  __device__ __forceinline__ char* at(int64_t q) const { return first + q * step; }
};

// Steps [begin, end) of a line.
struct ConvSequence {
  int64_t index, begin, end;
};

__device__ __forceinline__ ConvSequence conv_sequence(const ConvInputs& in, int64_t index) {
  const Sequence s = sequence_at(in.sequences(), index);
  const int64_t begin = in.reverse ? in.steps - s.first - s.steps : s.first;
  return {index, begin, begin + s.steps};
}

// The sequence with step q of a line.  Whatever the offsets hold, it has that step and is part of the line.
__device__ __forceinline__ ConvSequence conv_sequence_of_step(const ConvInputs& in, int64_t batch, int64_t q) {
  if (in.offsets == nullptr) return {batch, 0, in.steps};
  const int64_t time = in.reverse ? in.steps - 1 - q : q;
  int64_t low = 0, high = in.packed_sequences - 1;
  while (low < high) {
    const int64_t middle = low + (high - low + 1) / 2;
    if (in.offsets[middle] <= time) low = middle;
    else high = middle - 1;
  }
  const ConvSequence s = conv_sequence(in, low);
  return {low, s.begin < q ? s.begin : q, s.end > q ? s.end : q + 1};
}

// Where sample `number` of a state (b, d, width - 1) lies, 0 being the first one in the order of processing.
__device__ __forceinline__ int64_t conv_state_at(const ConvInputs& in, int64_t sequence, int64_t channel, int64_t number) {
  const int64_t samples = in.width - 1;
  return (sequence * in.channels + channel) * samples + (in.reverse ? samples - 1 - number : number);
}

// The sample `back` steps before step `begin` of a sequence, for neighbouring channels.
template <class F, int Count>
__device__ __forceinline__ void conv_initial(const ConvInputs& in, const ConvSequence& s, int64_t channel, int64_t back,
                                             F* out) {
#pragma unroll
  for (int i = 0; i < Count; ++i) {
    const int64_t at = conv_state_at(in, s.index, channel + i, in.width - 1 - back);
    out[i] = in.initial_state != nullptr ? static_cast<const F*>(in.initial_state)[at] : F(0);
  }
}

// A width known to the compiler, or, with Width = 0, any up to the greatest: then the first entries of windows and taps
// stay empty.
template <int Width>
struct ConvWidth {
  static constexpr int kTaps = Width == 0 ? int(kMostTaps) : Width;
  // About so many steps, but a multiple of the window.
  static constexpr int steps(int about) { return about < kTaps ? kTaps : about / kTaps * kTaps; }
  static __device__ __forceinline__ bool has(int tap, int width) { return Width != 0 || tap >= kTaps - width; }
};

// Weight and bias of neighbouring channels.
template <class F, int Count, int Width>
struct ConvTaps {
  static constexpr int kTaps = ConvWidth<Width>::kTaps;
  F weight[kTaps][Count], bias[Count];

  __device__ __forceinline__ ConvTaps(const ConvInputs& in, int64_t channel) {
    const int width = Width == 0 ? int(in.width) : Width;
    const F* from = static_cast<const F*>(in.weight) + channel * width;
#pragma unroll
    for (int i = 0; i < Count; ++i) {
      bias[i] = in.bias != nullptr ? static_cast<const F*>(in.bias)[channel + i] : F(0);
#pragma unroll
      for (int j = 0; j < kTaps; ++j)
        weight[j][i] = ConvWidth<Width>::has(j, width) ? from[i * width + j - (kTaps - width)] : F(0);
    }
  }
};

// The last samples of neighbouring channels as a ring of registers: the one of the u-th step from the start of a sequence
// or run is in slot u % kTaps, and all indices are known to the compiler.
template <class F, int Count, int Width>
struct ConvWindow {
  static constexpr int kTaps = ConvWidth<Width>::kTaps;
  F slots[kTaps][Count];

  static constexpr int slot(int u, int back) { return (u + kTaps - back) % kTaps; }

  // The samples before step q, the sequence having begun at or before it.
  template <class Vector>
  __device__ __forceinline__ void fill(const ConvInputs& in, const ConvSequence& s, const ConvLine& x, int64_t channel,
                                       int64_t q) {
#pragma unroll
    for (int back = 1; back < kTaps; ++back) {
      F* to = slots[slot(0, back)];
#pragma unroll
      for (int i = 0; i < Count; ++i) to[i] = F(0);
      if (!ConvWidth<Width>::has(kTaps - 1 - back, int(in.width))) continue;
      if (q - back >= s.begin) {
        Vector raw;
        raw.load_from(x.at(q - back), in.dtype);
        raw.decode(in.dtype, to);
      } else {
        conv_initial<F, Count>(in, s, channel, back - (q - s.begin), to);
      }
    }
  }

  // bias + the sum over the taps at step u, whose sample is in its slot.
  __device__ __forceinline__ void sum(const ConvTaps<F, Count, Width>& taps, int width, int u, F* out) const {
#pragma unroll
    for (int i = 0; i < Count; ++i) out[i] = taps.bias[i];
#pragma unroll
    for (int j = 0; j < kTaps; ++j) {
      if (!ConvWidth<Width>::has(j, width)) continue;  // a tap that is not there may face an infinite sample
#pragma unroll
      for (int i = 0; i < Count; ++i) out[i] += taps.weight[j][i] * slots[slot(u, kTaps - 1 - j)][i];
    }
  }
};

// The run and the channels of a thread.
struct ConvPlace {
  int64_t batch, begin, end;  // steps of the line
  int64_t channel;
  bool present;

  __device__ __forceinline__ ConvPlace(const ConvInputs& in, const ConvPlan& plan, int count) {
    const unsigned tiles = unsigned(plan.tiles), lanes = unsigned(plan.lanes);
    const int64_t vector = int64_t(blockIdx.x % tiles) * lanes + threadIdx.x % lanes;
    const int64_t run = int64_t(blockIdx.x / tiles) * plan.rows + threadIdx.x / lanes;
    channel = vector * count;
    batch = int64_t(unsigned(run) / unsigned(plan.runs_per_line));
    begin = (run - batch * plan.runs_per_line) * plan.run_steps;
    present = vector < plan.vectors && run < plan.runs && begin < in.steps;
    end = begin + plan.run_steps < in.steps ? begin + plan.run_steps : in.steps;
  }
};

// A sequence and a channel for each thread of the blocks that work on states.
struct ConvStatePlace {
  int64_t sequence, channel;
  bool present;

  __device__ __forceinline__ ConvStatePlace(const ConvInputs& in, const ConvPlan& plan) {
    const int64_t index = (int64_t(blockIdx.x) - plan.run_blocks) * kConvThreads + threadIdx.x;
    sequence = index / in.channels, channel = index - sequence * in.channels;
    present = sequence < in.sequences().count;
  }
};

__device__ __forceinline__ float conv_silu(float x) {  // relative error |x| / 2^24: the far end is next to 0
  return x * reciprocal(1.f + exp2_of(x * -kLog2e));
}
__device__ __forceinline__ double conv_silu(double x) { return silu(x); }

// d silu(x) / dx
template <class F>
__device__ __forceinline__ F conv_silu_slope(F x) {
  F sigmoid_of_x;
  if constexpr (sizeof(F) == 4) sigmoid_of_x = reciprocal(1.f + exp2_of(x * -kLog2e));
  else sigmoid_of_x = sigmoid(x);
  return sigmoid_of_x * (F(1) + x * (F(1) - sigmoid_of_x));
}

}  // namespace ssm::cuda
