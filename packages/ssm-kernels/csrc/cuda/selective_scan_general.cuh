// Forward pass of the selective scan for what the tiled kernel leaves out: double, complex A, B or C constant in time,
// many states.  Written to be obviously right: states stay in memory, one step is finished before the next begins.
#pragma once

#include "cuda/functions.cuh"
#include "cuda/launch.h"
#include "cuda/numbers.h"
#include "cuda/time_order.h"

namespace ssm::cuda {

constexpr int kGeneralThreads = 128;

struct GeneralForward {
  ScanForward scan;
  void* states = nullptr;  // (sequences, d, n): while the kernel runs, and at its end
  int32_t lanes = 1;       // neighbouring threads that share a channel: a power of two, at most 32
};

// Number `index` of the row of B or C: at a step if it varies, else of a channel.
template <class F>
__device__ __forceinline__ F coefficient_at(const ScanInputs& in, const CoefficientView& view, int64_t batch,
                                            int64_t position, int64_t channel, int64_t index) {
  if (!view.variable()) return reinterpret_cast<const F*>(view.data)[channel * in.states + index];
  const int64_t parts = in.complex_A ? 2 : 1, group = channel / (in.channels / view.groups);
  const int64_t at = batch * view.stride_b + position * view.stride_l + group * view.stride_g +
                     index / parts * view.stride_n + index % parts;
  return load<F>(view.data, at, in.coefficient_dtype());
}

template <class F>
__device__ __forceinline__ F value_at(const View3& view, int64_t batch, int64_t position, int64_t channel) {
  return load<F>(view.data, batch * view.stride_b + position * view.stride_l + channel * view.stride_d, view.dtype);
}

// Sum over the lanes of a channel; every lane gets it.
template <class F>
__device__ __forceinline__ F sum_over_lanes(F x, unsigned mask, int lanes) {
  for (int distance = lanes / 2; distance > 0; distance /= 2) x += __shfl_xor_sync(mask, x, distance);
  return x;
}

// One channel of one sequence, as one of its lanes sees it.
template <class F, bool kComplex>
struct GeneralChannel {
  const ScanForward& scan;
  const Sequence sequence;
  const int64_t channel;
  const int lane, lanes;
  F* const h;        // of this channel
  const F* const A;

  static constexpr int kParts = kComplex ? 2 : 1;

  __device__ int64_t states() const { return scan.in.states / kParts; }

  __device__ void begin() const {
    const F* initial = static_cast<const F*>(scan.in.initial_state);
    if (initial != nullptr) initial += (sequence.index * scan.in.channels + channel) * scan.in.states;
    for (int64_t i = lane; i < states(); i += lanes)
      for (int part = 0; part < kParts; ++part)
        h[i * kParts + part] = initial == nullptr ? F(0) : initial[i * kParts + part];
  }

  __device__ void keep(int64_t chunk) const {
    F* kept = static_cast<F*>(scan.checkpoints) + chunk * scan.in.states * scan.in.channels + channel;
    for (int64_t i = lane; i < states(); i += lanes)
      for (int part = 0; part < kParts; ++part)
        kept[(i * kParts + part) * scan.in.channels] = h[i * kParts + part];
  }

  // h <- exp(delta A) h + delta u B; returns this lane's part of C h.
  __device__ F advance(int64_t position, F delta, F delta_u) const {
    const ScanInputs& in = scan.in;
    F sum = 0;
    for (int64_t i = lane; i < states(); i += lanes) {
      const auto B = [&](int part) {
        return coefficient_at<F>(in, in.B, sequence.batch, position, channel, i * kParts + part);
      };
      const auto C = [&](int part) {
        return coefficient_at<F>(in, in.C, sequence.batch, position, channel, i * kParts + part);
      };
      const F size = exp2_of(delta * (A[i * kParts] * F(1.4426950408889634074)));
      if constexpr (kComplex) {
        const SinCos<F> turn = sin_cos_of_product(delta, A[2 * i + 1]);
        const F a_re = size * turn.cos, a_im = size * turn.sin, re = h[2 * i], im = h[2 * i + 1];
        h[2 * i] = a_re * re - a_im * im + delta_u * B(0);
        h[2 * i + 1] = a_re * im + a_im * re + delta_u * B(1);
        sum += F(2) * (C(0) * h[2 * i] - C(1) * h[2 * i + 1]);
      } else {
        h[i] = size * h[i] + delta_u * B(0);
        sum += C(0) * h[i];
      }
    }
    return sum;
  }

  __device__ void step(int64_t position, unsigned mask) const {
    const ScanInputs& in = scan.in;
    const F u = value_at<F>(in.u, sequence.batch, position, channel);
    F delta = value_at<F>(in.delta, sequence.batch, position, channel);
    if (in.delta_bias != nullptr) delta += static_cast<const F*>(in.delta_bias)[channel];
    if (in.delta_softplus) delta = softplus(delta);
    F y = sum_over_lanes(advance(position, delta, delta * u), mask, lanes);
    if (lane != 0) return;
    if (in.D != nullptr) y += static_cast<const F*>(in.D)[channel] * u;
    if (scan.add_to_y) y += value_at<F>(scan.y, sequence.batch, position, channel);
    if (in.z.data != nullptr) y *= silu(value_at<F>(in.z, sequence.batch, position, channel));
    const View3& to = scan.y;
    store(to.data, sequence.batch * to.stride_b + position * to.stride_l + channel * to.stride_d, to.dtype, y);
  }

  __device__ void run(unsigned mask) const {
    const TimeOrder order(scan.in, sequence);
    const int64_t checkpoint = first_checkpoint(scan.in.sequences(), sequence);
    begin();
    for (int64_t k = 0; k < sequence.steps; ++k) {
      if (scan.checkpoints != nullptr && k % kScanChunk == 0) keep(checkpoint + k / kScanChunk);
      step(order.position(k), mask);
    }
  }
};

template <class F, bool kComplex>
__global__ void __launch_bounds__(kGeneralThreads) scan_general(GeneralForward p) {
  const ScanInputs& in = p.scan.in;
  const int64_t index = (int64_t(blockIdx.x) * blockDim.x + threadIdx.x) / p.lanes;
  const Sequences sequences = in.sequences();
  if (index >= sequences.count * in.channels) return;
  const int lane_in_warp = int(threadIdx.x) & 31, lane = lane_in_warp & (p.lanes - 1);
  const unsigned all = p.lanes == 32 ? ~0u : (1u << p.lanes) - 1;
  F* h = static_cast<F*>(p.states) + index * in.states;
  const int64_t channel = index % in.channels;
  const GeneralChannel<F, kComplex> one = {p.scan,  sequence_at(sequences, index / in.channels), channel, lane,
                                           p.lanes, h, static_cast<const F*>(in.A) + channel * in.states};
  one.run(all << (lane_in_warp - lane));
}

// Lanes that share a channel of n numbers.
inline int32_t general_lanes(int64_t states, bool complex_A) {
  const int64_t wanted = complex_A ? states / 2 : states;
  int32_t lanes = 1;
  while (lanes < wanted && lanes < 32) lanes *= 2;
  return lanes;
}

}  // namespace ssm::cuda
