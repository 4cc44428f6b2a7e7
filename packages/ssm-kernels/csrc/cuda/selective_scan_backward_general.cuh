// Backward pass of the scan for everything: any strides, states and groups, complex A, constant B and C, double.
// One warp per block; a lane has a channel and takes one state after the other.  Formulas: cpu/selective_scan_adjoint.h
// and, with complex A, cpu/selective_scan_complex_adjoint.h.
//
// A lane reads and writes its own column of shared memory only, so that no barriers are needed.
#pragma once

#include "cuda/selective_scan_backward.cuh"

namespace ssm::cuda {

template <class F>
__device__ __forceinline__ F sum_of_warp(F x) {
#pragma unroll
  for (int bit = 16; bit > 0; bit /= 2) x += __shfl_xor_sync(~0u, x, bit);
  return x;
}

template <class F, bool Complex>
struct GeneralBackward {
  static constexpr int kParts = Complex ? 2 : 1;
  static constexpr int kRows = int(kScanChunk);

  // (rows, lanes) in shared memory; of them the lane's column.
  struct Column {
    F* data;
    __device__ __forceinline__ F& operator[](int row) const { return data[32 * row]; }
  };

  const ScanBackwardLaunch& p;
  const ScanBackward& call;
  const ScanInputs& in;
  const ScanSlab slab;
  const TimeOrder order;
  const int lane;
  const bool active;
  const int64_t channel;
  Column delta, u, dy, q1, q2, y;
  Column decay[kParts], state[kParts];  // state: of the step before, and one more
  int64_t group_B, group_C;
  int64_t own_position = 0;  // of the chunk's step with the number of the lane
  F grad_D = 0, grad_bias = 0;

  __device__ __forceinline__ GeneralBackward(const ScanBackwardLaunch& p, const ScanSlab& slab)
      : p(p), call(p.calls[slab.direction]), in(call.in), slab(slab), order(in, slab.sequence), lane(int(threadIdx.x)),
        active(lane < slab.channels), channel(active ? slab.first + lane : slab.first) {
    group_B = in.B.variable() ? channel / (in.channels / in.B.groups) : 0;
    group_C = in.C.variable() ? channel / (in.channels / in.C.groups) : 0;
    F* shared = shared_memory<F>() + lane;
    const auto take = [&](int rows) {
      const Column column = {shared};
      shared += 32 * rows;
      return column;
    };
    delta = take(kRows), u = take(kRows), dy = take(kRows), q1 = take(kRows), q2 = take(kRows), y = take(kRows);
#pragma unroll
    for (int part = 0; part < kParts; ++part) decay[part] = take(kRows), state[part] = take(kRows + 1);
  }

  __device__ __forceinline__ int64_t at(const View3& view, int64_t l) const {
    return slab.sequence.batch * view.stride_b + l * view.stride_l + channel * view.stride_d;
  }
  __device__ __forceinline__ F value(const View3& view, int64_t l) const {
    return load<F>(view.data, at(view, l), view.dtype);
  }
  __device__ __forceinline__ F parameter(const void* data, F otherwise) const {
    return data == nullptr ? otherwise : static_cast<const F*>(data)[channel];
  }

  // Where on the axis l the chunk's step t is.  Divisions are slow: each lane has done those of one step.
  __device__ __forceinline__ int64_t position(int t) const { return __shfl_sync(~0u, own_position, t); }

  // Part of B or C of state n at step l.
  __device__ __forceinline__ F coefficient(const CoefficientView& view, int64_t group, int64_t l, int64_t n,
                                           int part) const {
    if (!view.variable()) return reinterpret_cast<const F*>(view.data)[channel * in.states + n + part];
    const int64_t index = slab.sequence.batch * view.stride_b + l * view.stride_l + group * view.stride_g +
                          n / kParts * view.stride_n + part;
    return load<F>(view.data, index, in.coefficient_dtype());
  }
  __device__ __forceinline__ F B(int64_t l, int64_t n, int part) const {
    return coefficient(in.B, group_B, l, n, part);
  }
  __device__ __forceinline__ F C(int64_t l, int64_t n, int part) const {
    return coefficient(in.C, group_C, l, n, part);
  }

  // This lane's number in a (n, d) matrix of sums.
  __device__ __forceinline__ F& sum(int64_t place, int64_t n) const {
    return slab.template sums<F>(p, place, in.states)[n * in.channels + channel];
  }
  __device__ __forceinline__ int64_t state_index(int64_t n) const {
    return (slab.sequence.index * in.channels + channel) * in.states + n;
  }

  __device__ __forceinline__ void run() {
    for (int64_t n = 0; active && n < in.states; ++n) {
      const F* grad = static_cast<const F*>(call.grad_final_state);
      sum(p.plan.carry, n) = grad == nullptr ? F(0) : grad[state_index(n)];
      sum(p.plan.grad_A, n) = 0;
      if (!in.B.variable()) sum(p.plan.constant_B, n) = 0;
      if (!in.C.variable()) sum(p.plan.constant_C, n) = 0;
    }
    for (int64_t chunk = (order.steps + kRows - 1) / kRows - 1; chunk >= 0; --chunk) run_chunk(chunk);
    if (!active) return;
    slab.template sums<F>(p, p.plan.grad_D, 1)[channel] = grad_D;
    slab.template sums<F>(p, p.plan.grad_bias, 1)[channel] = grad_bias;
    if (call.grad_initial_state == nullptr) return;
    for (int64_t n = 0; n < in.states; ++n)
      static_cast<F*>(call.grad_initial_state)[state_index(n)] = sum(p.plan.carry, n);
  }

  __device__ __forceinline__ void run_chunk(int64_t chunk) {
    const int64_t begin = chunk * kRows;
    const int rows = int(order.steps - begin < kRows ? order.steps - begin : kRows);
    own_position = order.position(begin + (lane < rows ? lane : 0));
    const F bias = parameter(in.delta_bias, 0), D = parameter(in.D, 0);
    for (int t = 0; t < rows; ++t) {
      const int64_t l = position(t);
      const F raw = value(in.delta, l) + bias, grad_y = value(call.grad_y, l);
      delta[t] = in.delta_softplus ? softplus(raw) : raw;
      u[t] = value(in.u, l);
      dy[t] = in.z.data == nullptr ? grad_y : grad_y * silu(value(in.z, l));
      y[t] = D * u[t], q1[t] = 0, q2[t] = 0;
    }
    const int64_t checkpoint = first_checkpoint(in.sequences(), slab.sequence) + chunk;
    for (int64_t n = 0; n < in.states; n += kParts) {
      F A[2], initial[2];
      for (int part = 0; part < kParts; ++part) {
        A[part] = static_cast<const F*>(in.A)[channel * in.states + n + part];
        const int64_t at = (checkpoint * in.states + n + part) * in.channels + channel;
        initial[part] = static_cast<const F*>(call.checkpoints)[at];
      }
      recompute(rows, n, A, initial);
      run_adjoint(rows, n, A);
    }
    finish(rows, bias, D);
  }

  __device__ __forceinline__ void recompute(int rows, int64_t n, const F* A, const F* initial) {
    F re = initial[0], im = Complex ? initial[1] : F(0);
    for (int t = 0; t < rows; ++t) {
      const int64_t l = position(t);
      const Decay<F, Complex> a = Decay<F, Complex>::of(delta[t], A);
      const F delta_u = delta[t] * u[t];
      decay[0][t] = a.re, state[0][t] = re;
      if constexpr (Complex) {
        decay[1][t] = a.im, state[1][t] = im;
        const F before = re;
        re = a.re * before - a.im * im + delta_u * B(l, n, 0);
        im = a.re * im + a.im * before + delta_u * B(l, n, 1);
        y[t] += 2 * (re * C(l, n, 0) - im * C(l, n, 1));
      } else {
        re = a.re * re + delta_u * B(l, n, 0);
        y[t] += re * C(l, n, 0);
      }
    }
    state[0][rows] = re;
    if constexpr (Complex) state[1][rows] = im;
  }

  __device__ __forceinline__ void run_adjoint(int rows, int64_t n, const F* A) {
    F carry[kParts], grad_A[kParts] = {}, grad_B[kParts] = {}, grad_C[kParts] = {};
#pragma unroll
    for (int part = 0; part < kParts; ++part) carry[part] = sum(p.plan.carry, n + part);
    for (int t = rows - 1; t >= 0; --t) {
      const int64_t l = position(t);
      const F twice = Complex ? 2 * dy[t] : dy[t], delta_u = delta[t] * u[t];
      F G[kParts];
#pragma unroll
      for (int part = 0; part < kParts; ++part) {
        const F sign = part == 0 ? F(1) : F(-1);  // of the conjugate
        G[part] = carry[part] + sign * twice * C(l, n, part);
        add_coefficients(l, n + part, G[part] * delta_u, sign * twice * state[part][t + 1], grad_B[part], grad_C[part]);
        q1[t] += G[part] * B(l, n, part);
      }
      F through[kParts];
      carry[0] = decay[0][t] * G[0], through[0] = 0;
      if constexpr (Complex) {
        carry[0] += decay[1][t] * G[1];
        carry[1] = decay[0][t] * G[1] - decay[1][t] * G[0];
        through[0] = carry[0] * state[0][t] + carry[1] * state[1][t];
        through[1] = carry[1] * state[0][t] - carry[0] * state[1][t];
      } else {
        through[0] = carry[0] * state[0][t];
      }
#pragma unroll
      for (int part = 0; part < kParts; ++part) {
        q2[t] += through[part] * A[part];
        grad_A[part] += through[part] * delta[t];
      }
    }
    if (!active) return;
#pragma unroll
    for (int part = 0; part < kParts; ++part) {
      sum(p.plan.carry, n + part) = carry[part];
      // Sums of one chunk are added to the total: short sums of sums lose fewer digits than one long sum.
      sum(p.plan.grad_A, n + part) += grad_A[part];
      if (!in.B.variable()) sum(p.plan.constant_B, n + part) += grad_B[part];
      if (!in.C.variable()) sum(p.plan.constant_C, n + part) += grad_C[part];
    }
  }

  // One step's terms of the gradients of B and C: summed over the channels now, or over time in grad_B and grad_C.
  __device__ __forceinline__ void add_coefficients(int64_t l, int64_t n, F term_B, F term_C, F& grad_B,
                                                   F& grad_C) const {
    F* row = slab.template rows<F>(p) + l * 2 * in.states;
    if (in.B.variable()) {
      const F total = sum_of_warp(active ? term_B : F(0));
      if (lane == 0) row[n] = total;
    } else {
      grad_B += term_B;
    }
    if (in.C.variable()) {
      const F total = sum_of_warp(active ? term_C : F(0));
      if (lane == 0) row[in.states + n] = total;
    } else {
      grad_C += term_C;
    }
  }

  __device__ __forceinline__ void put(const View3& view, int64_t l, F x, bool add) const {
    if (!active) return;
    const int64_t index = at(view, l);
    if (add) x += load<F>(view.data, index, view.dtype);
    store(view.data, index, view.dtype, x);
  }

  __device__ __forceinline__ void finish(int rows, F bias, F D) {
    F sum_D = 0, sum_bias = 0;
    for (int t = rows - 1; t >= 0; --t) {
      const int64_t l = position(t);
      const F slope = in.delta_softplus ? softplus_slope(value(in.delta, l) + bias) : F(1);
      const F grad_delta = (q1[t] * u[t] + q2[t]) * slope;
      if (in.z.data != nullptr)
        put(call.grad_z, l, value(call.grad_y, l) * silu_slope(value(in.z, l)) * y[t], call.add_to_grad_z);
      sum_D += dy[t] * u[t];
      sum_bias += grad_delta;
      put(call.grad_u, l, q1[t] * delta[t] + D * dy[t], call.add_to_grad_u);
      put(call.grad_delta, l, grad_delta, false);
    }
    grad_D += sum_D;
    grad_bias += sum_bias;
  }
};

template <class F, bool Complex>
__global__ void __launch_bounds__(32, 1) scan_backward_general(ScanBackwardLaunch p) {
  GeneralBackward<F, Complex>(p, ScanSlab(p, blockIdx.x)).run();
}

}  // namespace ssm::cuda
