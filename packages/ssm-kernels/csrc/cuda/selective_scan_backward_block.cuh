// What a block of the scan's backward pass works on, and how it reads and writes its tensors.
#pragma once

#include "cuda/ptx.h"
#include "cuda/selective_scan_backward.cuh"

namespace ssm::cuda {

// A (l, d) part of a tensor.  Its strides count bytes and are short: an address is then one instruction.
struct ShortView {
  char* data;
  int32_t stride_l, stride_d;
  DType dtype;

  __device__ __forceinline__ ShortView(char* data, int64_t stride_l, int64_t stride_d, DType dtype)
      : data(data), stride_l(int32_t(stride_l * size_of(dtype))), stride_d(int32_t(stride_d * size_of(dtype))),
        dtype(dtype) {}

  __device__ __forceinline__ char* column(int32_t d) const { return global_address(data, d, stride_d); }
  template <class Bits>
  __device__ __forceinline__ Bits* at(char* column, int32_t l) const {
    return reinterpret_cast<Bits*>(global_address(column, l, stride_l));
  }
};

// Eight steps of one channel.
struct BackwardItem {
  static constexpr int kSteps = int(scan_backward::kItemSteps);
  int channel, step;
  int steps;  // that exist
};

// What a block works on.  In shared memory: registers are for states.
struct BackwardBlock {
  static constexpr int kSteps = BackwardItem::kSteps;
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

  template <class Bits>
  static __device__ __forceinline__ void load_steps(const ShortView& view, const BackwardItem& at,
                                                    const int32_t* positions, Bits (&v)[kSteps]) {
    char* column = view.column(at.channel);
#pragma unroll
    for (int t = 0; t < kSteps; ++t) v[t] = *view.at<Bits>(column, positions[at.step + t]);
  }

  template <class Bits>
  static __device__ __forceinline__ void store_steps(const ShortView& view, const BackwardItem& at,
                                                     const int32_t* positions, const Bits (&v)[kSteps]) {
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
  __device__ __forceinline__ void read(Tensor which, const BackwardItem& at, const int32_t* positions,
                                       float (&v)[kSteps]) const {
    if (at.steps > 0) {
      const ShortView view = views[which];
      if (view.dtype == DType::f32) {
        load_steps(view, at, positions, v);
      } else {
        uint16_t bits[kSteps];
        load_steps(view, at, positions, bits);
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

  __device__ __forceinline__ void write(Tensor which, const BackwardItem& at, const int32_t* positions, bool add,
                                        float (&v)[kSteps]) const {
    const ShortView view = views[which];
    if (add) {
      float there[kSteps];
      read(which, at, positions, there);
#pragma unroll
      for (int t = 0; t < kSteps; ++t) v[t] += there[t];
    }
    if (view.dtype == DType::f32) return store_steps(view, at, positions, v);
    uint16_t bits[kSteps];
    if (view.dtype == DType::bf16) {
#pragma unroll
      for (int t = 0; t < kSteps; ++t) bits[t] = encode_bf16(v[t]);
    } else {
#pragma unroll
      for (int t = 0; t < kSteps; ++t) bits[t] = encode_f16(v[t]);
    }
    store_steps(view, at, positions, bits);
  }
};

}  // namespace ssm::cuda
