// What the chunk of the scan's backward pass has in shared memory: what the loop over time reads, made from the tensors,
// and the gradients made from what it leaves there.
//
// All tiles are float, one row per channel (or state) with the steps of the chunk side by side.  A thread works on eight
// steps of a channel at a time and finishes those that it prepared, so that no barrier is needed between the gradients of
// one chunk and the tiles of the next.
#pragma once

#include "cuda/selective_scan_backward.cuh"

namespace ssm::cuda {

// A (l, d) part of a tensor.  Its strides count bytes and are short: an address is then one instruction.
struct ShortView {
  char* data;
  int32_t stride_l, stride_d;
  DType dtype;

  __device__ __forceinline__ ShortView(char* data, int64_t stride_l, int64_t stride_d, DType dtype)
      : data(data), stride_l(int32_t(stride_l * size_of(dtype))), stride_d(int32_t(stride_d * size_of(dtype))), dtype(dtype) {}

  __device__ __forceinline__ char* column(int32_t d) const { return global_address(data, d, stride_d); }
  template <class Bits>
  __device__ __forceinline__ Bits* at(char* column, int32_t l) const {
    return reinterpret_cast<Bits*>(global_address(column, l, stride_l));
  }
};

// What a block works on.  In shared memory: registers are for states.
struct BackwardBlock {
  enum Tensor { kU, kDelta, kZ, kGradY, kGradU, kGradDelta, kGradZ, kB, kC, kTensors };

  ScanSlab slab;
  TimeOrder order;
  int64_t first_checkpoint;
  float* rows;  // of the sums over channels, in the workspace
  ShortView views[kTensors];

  // By one thread, before a barrier.
  __device__ __forceinline__ void fill(const ScanBackwardLaunch& p, bool gated) {
    const ScanSlab own(p, blockIdx.x);
    const ScanBackward& call = p.calls[own.direction];
    const ScanInputs& in = call.in;
    slab = own;
    order = TimeOrder(in, own.sequence);
    first_checkpoint = ssm::cuda::first_checkpoint(in.sequences(), own.sequence);
    rows = own.template rows<float>(p);
    const auto tensor = [&](Tensor which, const View3& view) {
      const int64_t offset = own.sequence.batch * view.stride_b + own.first * view.stride_d;
      views[which] = ShortView(view.data + offset * size_of(view.dtype), view.stride_l, view.stride_d, view.dtype);
    };
    tensor(kU, in.u), tensor(kDelta, in.delta), tensor(kGradY, call.grad_y);
    tensor(kGradU, call.grad_u), tensor(kGradDelta, call.grad_delta);
    if (gated) tensor(kZ, in.z), tensor(kGradZ, call.grad_z);
    const auto coefficient = [&](Tensor which, const CoefficientView& view) {
      const int64_t group = own.first / (in.channels / view.groups);
      const int64_t offset = own.sequence.batch * view.stride_b + group * view.stride_g;
      views[which] = ShortView(view.data + offset * size_of(in.dtype), view.stride_l, view.stride_n, in.dtype);
    };
    coefficient(kB, in.B), coefficient(kC, in.C);
  }
};

// Eight steps of one channel.
struct BackwardItem {
  static constexpr int kSteps = int(scan_backward::kItemSteps);
  int channel, step;
  int steps;  // that exist
};

template <int kLanes, bool kGated>
struct BackwardTiles {
  static constexpr int kWarps = int(scan_backward::warps_for(kLanes)), kThreads = 32 * kWarps;
  static constexpr int kChannels = kWarps * int(scan_backward::channels_per_warp(kLanes));
  static constexpr int kStates = 2 * kLanes;  // n, rounded up
  static constexpr int kPitch = int(scan_backward::kPitch), kChunk = int(kScanChunk);
  static constexpr int kSteps = BackwardItem::kSteps;
  static constexpr int kItems = kChannels * kChunk / kSteps;
  using Block = BackwardBlock;
  using Tensor = Block::Tensor;

  Block& block;
  const ScanBackward& call;
  const ScanInputs& in;
  const bool steps_together;  // neighbouring threads take neighbouring steps, not channels
  float4* before;             // (batches, threads): see LanesBackward
  float *delta, *delta_u, *dy, *q2, *u, *slope, *y, *gate;  // (channels, steps)
  float *q1;                                                // in the place of delta_u
  float *B, *C;                                             // (states, steps)
  float* parts;               // (warps, B and C, states, steps): sums over the channels of a warp
  float *sums_D, *sums_bias;  // (items)
  int32_t* positions;         // of the steps on the axis l

  // Of a block that is filled.
  __device__ __forceinline__ explicit BackwardTiles(const ScanBackwardLaunch& p)
      : block(*shared_memory<Block>()), call(p.calls[block.slab.direction]), in(call.in),
        steps_together(in.u.stride_d != 1 && (in.u.stride_l == 1 || in.u.stride_l == -1)) {
    constexpr int kTile = kChannels * kPitch, kRows = kStates * kPitch;
    static_assert(sizeof(Block) <= scan_backward::kBlockBytes);
    before = reinterpret_cast<float4*>(shared_memory<char>() + scan_backward::kBlockBytes);
    float* next = reinterpret_cast<float*>(before + kThreads * kChunk / int(scan_backward::kBatchSteps));
    for (float** tile : {&delta, &delta_u, &dy, &q2, &u, &slope}) *tile = next, next += kTile;
    q1 = delta_u, y = gate = nullptr;
    if constexpr (kGated) y = next, gate = next + kTile, next += 2 * kTile;
    B = next, C = B + kRows, parts = C + kRows;
    sums_D = parts + 2 * kWarps * kRows, sums_bias = sums_D + kItems;
    positions = reinterpret_cast<int32_t*>(sums_bias + kItems);
  }

  __device__ __forceinline__ void begin() const {
    for (int index = int(threadIdx.x); index < kItems; index += kThreads) sums_D[index] = sums_bias[index] = 0.f;
  }

  // Steps after the last one count as it, so that reads need no condition.
  __device__ __forceinline__ void find_positions(int64_t begin, int count) const {
    const int t = int(threadIdx.x);
    if (t < kChunk) positions[t] = int32_t(block.order.position(begin + (t < count ? t : count - 1)));
  }

  // Calls body(item, its number) for this thread's items.
  template <class Body>
  __device__ __forceinline__ void for_items(int count, Body body) const {
    constexpr int kPerChannel = kChunk / kSteps;
#pragma unroll 1
    for (int index = int(threadIdx.x); index < kItems; index += kThreads) {
      BackwardItem item = {index % kChannels, index / kChannels * kSteps, 0};
      if (steps_together) item.channel = index / kPerChannel, item.step = index % kPerChannel * kSteps;
      item.steps = item.channel < block.slab.channels ? count - item.step : 0;
      body(item, index);
    }
  }

  template <class Bits>
  __device__ __forceinline__ void load_steps(const ShortView& view, const BackwardItem& at, Bits (&v)[kSteps]) const {
    char* column = view.column(at.channel);
#pragma unroll
    for (int t = 0; t < kSteps; ++t) v[t] = *view.at<Bits>(column, positions[at.step + t]);
  }

  template <class Bits>
  __device__ __forceinline__ void store_steps(const ShortView& view, const BackwardItem& at, const Bits (&v)[kSteps]) const {
    char* column = view.column(at.channel);
    if (at.steps >= kSteps) {
#pragma unroll
      for (int t = 0; t < kSteps; ++t) *view.at<Bits>(column, positions[at.step + t]) = v[t];
    } else {
#pragma unroll
      for (int t = 0; t < kSteps - 1; ++t)
        if (t < at.steps) *view.at<Bits>(column, positions[at.step + t]) = v[t];
    }
  }

  // Zeros for steps that do not exist.
  __device__ __forceinline__ void read(Tensor which, const BackwardItem& at, float (&v)[kSteps]) const {
    if (at.steps > 0) {
      const ShortView view = block.views[which];
      if (view.dtype == DType::f32) {
        load_steps(view, at, v);
      } else {
        uint16_t bits[kSteps];
        load_steps(view, at, bits);
        if (view.dtype == DType::bf16) {
#pragma unroll
          for (int t = 0; t < kSteps; ++t) v[t] = decode_bf16(bits[t]);
        } else {
#pragma unroll
          for (int t = 0; t < kSteps; ++t) v[t] = decode_f16(bits[t]);
        }
      }
    }
    if (at.steps < kSteps) {
#pragma unroll
      for (int t = 0; t < kSteps; ++t) v[t] = t < at.steps ? v[t] : 0.f;
    }
  }

  __device__ __forceinline__ void write(Tensor which, const BackwardItem& at, bool add, float (&v)[kSteps]) const {
    const ShortView view = block.views[which];
    if (add) {
      float there[kSteps];
      read(which, at, there);
#pragma unroll
      for (int t = 0; t < kSteps; ++t) v[t] += there[t];
    }
    if (view.dtype == DType::f32) return store_steps(view, at, v);
    uint16_t bits[kSteps];
    if (view.dtype == DType::bf16) {
#pragma unroll
      for (int t = 0; t < kSteps; ++t) bits[t] = encode_bf16(v[t]);
    } else {
#pragma unroll
      for (int t = 0; t < kSteps; ++t) bits[t] = encode_f16(v[t]);
    }
    store_steps(view, at, bits);
  }

  static __device__ __forceinline__ void put(float* tile, const BackwardItem& at, const float (&v)[kSteps]) {
    float4* to = reinterpret_cast<float4*>(tile + at.channel * kPitch + at.step);
#pragma unroll
    for (int t = 0; t < kSteps; t += 4) to[t / 4] = make_float4(v[t], v[t + 1], v[t + 2], v[t + 3]);
  }
  static __device__ __forceinline__ void get(const float* tile, const BackwardItem& at, float (&v)[kSteps]) {
    const float4* from = reinterpret_cast<const float4*>(tile + at.channel * kPitch + at.step);
#pragma unroll
    for (int t = 0; t < kSteps; t += 4) {
      const float4 four = from[t / 4];
      v[t] = four.x, v[t + 1] = four.y, v[t + 2] = four.z, v[t + 3] = four.w;
    }
  }
  __device__ __forceinline__ float parameter(const void* data, const BackwardItem& at) const {
    return data == nullptr || at.steps <= 0 ? 0.f : static_cast<const float*>(data)[block.slab.first + at.channel];
  }

  __device__ __forceinline__ void prepare(int count) const {
    read_coefficient(Block::kB, count, B);
    read_coefficient(Block::kC, count, C);
    for_items(count, [&](const BackwardItem& at, int) {
      float v[kSteps], own_u[kSteps], own_dy[kSteps];
      read(Block::kGradY, at, own_dy);
      if constexpr (kGated) {
        float own_gate[kSteps];
        read(Block::kZ, at, own_gate);
#pragma unroll
        for (int t = 0; t < kSteps; ++t) {
          const float z = own_gate[t];
          const Sigmoid<float> s = sigmoid_and_complement(z);
          own_gate[t] = own_dy[t] * s.value * fmaf(z, s.complement, 1.f);
          own_dy[t] *= z * s.value;
        }
        put(gate, at, own_gate);
      }
      put(dy, at, own_dy);
      read(Block::kDelta, at, v);
      read(Block::kU, at, own_u);
      put(u, at, own_u);
      const float bias = parameter(in.delta_bias, at);
      float own_slope[kSteps];
#pragma unroll
      for (int t = 0; t < kSteps; ++t) {
        v[t] += bias, own_slope[t] = 1.f;
        if (in.delta_softplus) v[t] = softplus_and_slope(v[t], own_slope[t]);
      }
      if (at.steps < kSteps) {
#pragma unroll
        for (int t = 0; t < kSteps; ++t) v[t] = t < at.steps ? v[t] : 0.f;  // steps without effect
      }
      put(slope, at, own_slope);
      put(delta, at, v);
#pragma unroll
      for (int t = 0; t < kSteps; ++t) v[t] *= own_u[t];
      put(delta_u, at, v);
    });
  }

  // Rows of B or C of the slab's group; zeros for steps and states that do not exist.
  __device__ __forceinline__ void read_coefficient(Tensor which, int count, float* tile) const {
    const ShortView view = block.views[which];
    if (view.dtype == DType::bf16) read_coefficient_as<DType::bf16>(view, count, tile);
    else if (view.dtype == DType::f16) read_coefficient_as<DType::f16>(view, count, tile);
    else read_coefficient_as<DType::f32>(view, count, tile);
  }

  template <DType kType>
  __device__ __forceinline__ void read_coefficient_as(const ShortView& view, int count, float* tile) const {
    constexpr int kTogether = kThreads / kStates;  // steps that are read together
    const int n = int(threadIdx.x) % kStates, first = int(threadIdx.x) / kStates;
    char* column = view.column(n < in.states ? n : 0);
#pragma unroll
    for (int step = 0; step < kChunk; step += kTogether) {
      const float value =
          Number<kType>::decode(*view.at<typename Number<kType>::Bits>(column, positions[step + first]));
      tile[n * kPitch + step + first] = n < in.states && step + first < count ? value : 0.f;
    }
  }

  __device__ __forceinline__ void finish(int count) const {
    for_items(count, [&](const BackwardItem& at, int index) {
      if (at.steps <= 0) return;
      float own_dy[kSteps], own_u[kSteps], own_q1[kSteps], v[kSteps], w[kSteps];
      const float D = parameter(in.D, at);
      get(u, at, own_u), get(dy, at, own_dy);
      if constexpr (kGated) {
        get(gate, at, v), get(y, at, w);
#pragma unroll
        for (int t = 0; t < kSteps; ++t) v[t] *= fmaf(D, own_u[t], w[t]);
        write(Block::kGradZ, at, call.add_to_grad_z, v);
      }
      get(q1, at, own_q1), get(q2, at, v), get(slope, at, w);
      float sum_D = 0.f, sum_bias = 0.f;
#pragma unroll
      for (int t = 0; t < kSteps; ++t) {
        v[t] = fmaf(own_q1[t], own_u[t], v[t] * kLn2) * w[t];
        sum_D += t < at.steps ? own_dy[t] * own_u[t] : 0.f;
        sum_bias += t < at.steps ? v[t] : 0.f;
      }
      sums_D[index] += sum_D, sums_bias[index] += sum_bias;
      write(Block::kGradDelta, at, false, v);
      get(delta, at, v);
#pragma unroll
      for (int t = 0; t < kSteps; ++t) v[t] = fmaf(own_q1[t], v[t], D * own_dy[t]);
      write(Block::kGradU, at, call.add_to_grad_u, v);
    });
    write_rows(count);
  }

  // Adds up what the warps found for the gradients of B and C.
  __device__ __forceinline__ void write_rows(int count) const {
    const int32_t width = 2 * int32_t(in.states) * int32_t(sizeof(float));
    for (int index = int(threadIdx.x); index < 2 * kStates * kChunk / 4; index += kThreads) {
      const int column = index % (2 * kStates), step = index / (2 * kStates) * 4;
      const int n = column % kStates, at = column < kStates ? n : int(in.states) + n;
      if (n >= in.states) continue;
      float total[4] = {};
#pragma unroll
      for (int warp = 0; warp < kWarps; ++warp) {
        const float* part = parts + (warp * 2 * kStates + column) * kPitch + step;
        const float4 term = *reinterpret_cast<const float4*>(part);
        total[0] += term.x, total[1] += term.y, total[2] += term.z, total[3] += term.w;
      }
      char* rows = reinterpret_cast<char*>(block.rows + at);
#pragma unroll
      for (int t = 0; t < 4; ++t)
        if (step + t < count) *reinterpret_cast<float*>(global_address(rows, positions[step + t], width)) = total[t];
    }
  }

  // Sums over time, each channel's by one thread.
  __device__ __forceinline__ void end(const ScanBackwardLaunch& p) const {
    constexpr int kPerChannel = kChunk / kSteps;
    __syncthreads();
    for (int channel = int(threadIdx.x); channel < block.slab.channels; channel += kThreads) {
      float D = 0.f, bias = 0.f;
      for (int part = 0; part < kPerChannel; ++part) {
        const int index = steps_together ? channel * kPerChannel + part : part * kChannels + channel;
        D += sums_D[index], bias += sums_bias[index];
      }
      block.slab.template sums<float>(p, p.plan.grad_D, 1)[block.slab.first + channel] = D;
      block.slab.template sums<float>(p, p.plan.grad_bias, 1)[block.slab.first + channel] = bias;
    }
  }

 private:
  // Both from one exponential.
  static __device__ __forceinline__ float softplus_and_slope(float x, float& slope) {
    const float e = exp_of_negative(-fabsf(x)), larger = reciprocal(1.f + e);
    slope = x < 0.f ? e * larger : larger;
    return (x < 0.f ? 0.f : x) + log1p_of_small(e);
  }
};

}  // namespace ssm::cuda
