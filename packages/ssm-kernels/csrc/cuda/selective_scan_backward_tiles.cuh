// The chunk of the scan's backward pass in shared memory: what the loop over time reads, made from the tensors, and the
// gradients made from what it leaves there.
//
// All tiles are float, one row per channel (or state) with the steps of the chunk side by side.  A thread works on four
// steps of a channel at a time and finishes those that it prepared, so that no barrier is needed between one chunk's
// gradients and the next chunk's tiles.
#pragma once

#include "cuda/selective_scan_backward.cuh"

namespace ssm::cuda {

// Four steps of one channel.
struct BackwardItem {
  int channel, step;
};

template <int kLanes, bool kGated>
struct BackwardTiles {
  static constexpr int kWarps = int(scan_backward::warps_for(kLanes)), kThreads = 32 * kWarps;
  static constexpr int kChannels = kWarps * int(scan_backward::channels_per_warp(kLanes));
  static constexpr int kStates = 2 * kLanes;  // n, rounded up
  static constexpr int kPitch = int(scan_backward::kPitch), kChunk = int(kScanChunk);
  static constexpr int kItems = kChannels * kChunk / 4;

  const ScanSlab slab;
  const ScanBackward& call;
  const ScanInputs& in;
  const TimeOrder order;
  const bool steps_together;  // neighbouring threads take neighbouring steps, not channels
  float4* before;             // (batches, threads): see LanesBackward
  float *delta, *delta_u, *dy, *q2, *u, *slope, *y, *gate;  // (channels, steps)
  float *q1;                                                // in the place of delta_u
  float *B, *C;                                             // (states, steps)
  float* parts;               // (warps, B and C, states, steps): sums over the channels of a warp
  float *sums_D, *sums_bias;  // (items)
  int64_t* positions;         // of the steps on the axis l
  float* rows;                // of the sums over channels, in the workspace

  __device__ __forceinline__ BackwardTiles(const ScanBackwardLaunch& p, const ScanSlab& slab)
      : slab(slab), call(p.calls[slab.direction]), in(call.in), order(in, slab.sequence),
        steps_together(in.u.stride_d != 1 && (in.u.stride_l == 1 || in.u.stride_l == -1)),
        rows(slab.template rows<float>(p)) {
    constexpr int kTile = kChannels * kPitch, kRows = kStates * kPitch;
    before = shared_memory<float4>();
    positions = reinterpret_cast<int64_t*>(before + kThreads * kChunk / int(scan_backward::kBatchSteps));
    float* next = reinterpret_cast<float*>(positions + kChunk);
    for (float** tile : {&delta, &delta_u, &dy, &q2, &u, &slope}) *tile = next, next += kTile;
    q1 = delta_u, y = gate = nullptr;
    if constexpr (kGated) y = next, gate = next + kTile, next += 2 * kTile;
    B = next, C = B + kRows, parts = C + kRows;
    sums_D = parts + 2 * kWarps * kRows, sums_bias = sums_D + kItems;
  }

  __device__ __forceinline__ void find_positions(int64_t begin, int count) const {
    for (int t = int(threadIdx.x); t < count; t += kThreads) positions[t] = order.position(begin + t);
  }

  __device__ __forceinline__ BackwardItem item(int index) const {
    constexpr int kQuads = kChunk / 4;
    if (steps_together) return {index / kQuads, index % kQuads * 4};
    return {index % kChannels, index / kChannels * 4};
  }

  // Calls body(item, its number, steps of it that exist) for this thread's items.
  template <class Body>
  __device__ __forceinline__ void for_items(int count, Body body) const {
#pragma unroll 1
    for (int index = int(threadIdx.x); index < kItems; index += kThreads) {
      const BackwardItem one = item(index);
      const int steps = one.channel < slab.channels ? count - one.step : 0;
      body(one, index, steps < 4 ? steps : 4);
    }
  }

  template <DType kType>
  __device__ __forceinline__ void read_as(const View3& view, const BackwardItem& at, int steps, float (&v)[4]) const {
    using Bits = typename Number<kType>::Bits;
    const Bits* data = reinterpret_cast<const Bits*>(view.data) + slab.sequence.batch * view.stride_b +
                       (slab.first + at.channel) * view.stride_d;
#pragma unroll
    for (int t = 0; t < 4; ++t)
      v[t] = t < steps ? Number<kType>::decode(data[positions[at.step + t] * view.stride_l]) : 0.f;
  }

  template <DType kType>
  __device__ __forceinline__ void write_as(const View3& view, const BackwardItem& at, int steps, const float (&v)[4]) const {
    using Bits = typename Number<kType>::Bits;
    Bits* data = reinterpret_cast<Bits*>(view.data) + slab.sequence.batch * view.stride_b +
                 (slab.first + at.channel) * view.stride_d;
#pragma unroll
    for (int t = 0; t < 4; ++t)
      if (t < steps) data[positions[at.step + t] * view.stride_l] = Number<kType>::encode(v[t]);
  }

  // Zeros for steps that do not exist.
  __device__ __forceinline__ void read(const View3& view, const BackwardItem& at, int steps, float (&v)[4]) const {
    if (view.dtype == DType::bf16) read_as<DType::bf16>(view, at, steps, v);
    else if (view.dtype == DType::f16) read_as<DType::f16>(view, at, steps, v);
    else read_as<DType::f32>(view, at, steps, v);
  }

  __device__ __forceinline__ void write(const View3& view, const BackwardItem& at, int steps, bool add, float (&v)[4]) const {
    if (add) {
      float there[4];
      read(view, at, steps, there);
#pragma unroll
      for (int t = 0; t < 4; ++t) v[t] += there[t];
    }
    if (view.dtype == DType::bf16) write_as<DType::bf16>(view, at, steps, v);
    else if (view.dtype == DType::f16) write_as<DType::f16>(view, at, steps, v);
    else write_as<DType::f32>(view, at, steps, v);
  }

  static __device__ __forceinline__ void put(float* tile, const BackwardItem& at, const float (&v)[4]) {
    *reinterpret_cast<float4*>(tile + at.channel * kPitch + at.step) = make_float4(v[0], v[1], v[2], v[3]);
  }
  static __device__ __forceinline__ void get(const float* tile, const BackwardItem& at, float (&v)[4]) {
    const float4 four = *reinterpret_cast<const float4*>(tile + at.channel * kPitch + at.step);
    v[0] = four.x, v[1] = four.y, v[2] = four.z, v[3] = four.w;
  }
  __device__ __forceinline__ float parameter(const void* data, const BackwardItem& at) const {
    return data == nullptr || at.channel >= slab.channels ? 0.f : static_cast<const float*>(data)[slab.first + at.channel];
  }

  __device__ __forceinline__ void begin() const {
    for_items(0, [&](const BackwardItem&, int index, int) { sums_D[index] = sums_bias[index] = 0.f; });
  }

  __device__ __forceinline__ void prepare(int count) const {
    read_coefficient(in.B, count, B);
    read_coefficient(in.C, count, C);
    for_items(count, [&](const BackwardItem& at, int, int steps) {
      float v[4], own_u[4], own_dy[4], own_slope[4], own_gate[4];
      read(in.delta, at, steps, v);
      read(in.u, at, steps, own_u);
      read(call.grad_y, at, steps, own_dy);
      if constexpr (kGated) read(in.z, at, steps, own_gate);
      const float bias = parameter(in.delta_bias, at);
#pragma unroll
      for (int t = 0; t < 4; ++t) {
        float step = v[t] + bias;
        own_slope[t] = 1.f;
        if (in.delta_softplus) own_slope[t] = softplus_slope(step), step = softplus(step);
        v[t] = t < steps ? step : 0.f;  // a step without effect
        if constexpr (kGated) {
          const float z = own_gate[t];
          const Sigmoid<float> s = sigmoid_and_complement(z);
          own_gate[t] = own_dy[t] * s.value * fmaf(z, s.complement, 1.f);
          own_dy[t] *= z * s.value;
        }
      }
      put(delta, at, v), put(u, at, own_u), put(dy, at, own_dy), put(slope, at, own_slope);
      if constexpr (kGated) put(gate, at, own_gate);
#pragma unroll
      for (int t = 0; t < 4; ++t) v[t] *= own_u[t];
      put(delta_u, at, v);
    });
  }

  // Rows of B or C of the slab's group; zeros for steps and states that do not exist.
  __device__ __forceinline__ void read_coefficient(const CoefficientView& view, int count, float* tile) const {
    const int64_t group = slab.first / (in.channels / view.groups);
    const int64_t offset = slab.sequence.batch * view.stride_b + group * view.stride_g;
    for (int index = int(threadIdx.x); index < kStates * kChunk; index += kThreads) {
      const int n = index % kStates, step = index / kStates;
      float value = 0.f;
      if (n < in.states && step < count)
        value = load<float>(view.data, offset + positions[step] * view.stride_l + n * view.stride_n, in.dtype);
      tile[n * kPitch + step] = value;
    }
  }

  __device__ __forceinline__ void finish(int count) const {
    for_items(count, [&](const BackwardItem& at, int index, int steps) {
      if (steps <= 0) return;
      float grad_u[4], grad_delta[4], own_dy[4], own_u[4], a[4], b[4];
      const float D = parameter(in.D, at);
      get(q1, at, a), get(q2, at, b), get(u, at, own_u), get(slope, at, grad_delta);
#pragma unroll
      for (int t = 0; t < 4; ++t) grad_delta[t] *= fmaf(a[t], own_u[t], b[t] * kLn2);
      get(delta, at, b), get(dy, at, own_dy);
      float sum_D = 0.f, sum_bias = 0.f;
#pragma unroll
      for (int t = 0; t < 4; ++t) {
        grad_u[t] = fmaf(a[t], b[t], D * own_dy[t]);
        sum_D += t < steps ? own_dy[t] * own_u[t] : 0.f;
        sum_bias += t < steps ? grad_delta[t] : 0.f;
      }
      sums_D[index] += sum_D, sums_bias[index] += sum_bias;
      write(call.grad_u, at, steps, call.add_to_grad_u, grad_u);
      write(call.grad_delta, at, steps, false, grad_delta);
      if constexpr (kGated) {
        get(gate, at, a), get(y, at, b);
#pragma unroll
        for (int t = 0; t < 4; ++t) a[t] *= fmaf(D, own_u[t], b[t]);
        write(call.grad_z, at, steps, call.add_to_grad_z, a);
      }
    });
    write_rows(count);
  }

  // Adds up what the warps found for the gradients of B and C.
  __device__ __forceinline__ void write_rows(int count) const {
    const int64_t width = 2 * in.states;
    for (int index = int(threadIdx.x); index < 2 * kStates * kChunk / 4; index += kThreads) {
      const int column = index % (2 * kStates), step = index / (2 * kStates) * 4;
      const int n = column % kStates;
      if (n >= in.states) continue;
      float total[4] = {};
#pragma unroll
      for (int warp = 0; warp < kWarps; ++warp) {
        const float* part = parts + (warp * 2 * kStates + column) * kPitch + step;
        const float4 term = *reinterpret_cast<const float4*>(part);
        total[0] += term.x, total[1] += term.y, total[2] += term.z, total[3] += term.w;
      }
      const int64_t at = column < kStates ? n : in.states + n;
#pragma unroll
      for (int t = 0; t < 4; ++t)
        if (step + t < count) rows[positions[step + t] * width + at] = total[t];
    }
  }

  // Sums over time, each channel's by one thread.  After a barrier.
  __device__ __forceinline__ void end(const ScanBackwardLaunch& p) const {
    __syncthreads();
    for (int channel = int(threadIdx.x); channel < slab.channels; channel += kThreads) {
      float D = 0.f, bias = 0.f;
      for (int quad = 0; quad < kChunk / 4; ++quad) {
        const int index = steps_together ? channel * (kChunk / 4) + quad : quad * kChannels + channel;
        D += sums_D[index], bias += sums_bias[index];
      }
      slab.template sums<float>(p, p.plan.grad_D, 1)[slab.first + channel] = D;
      slab.template sums<float>(p, p.plan.grad_bias, 1)[slab.first + channel] = bias;
    }
  }
};

}  // namespace ssm::cuda
