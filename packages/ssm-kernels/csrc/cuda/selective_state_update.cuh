// One decode step of the selective scan: the state is read and written once, in place, and y taken from it before it is
// rounded to its type.  See selective_state_update_plan.h for which thread does what.
#pragma once

#include "cuda/functions.cuh"
#include "cuda/raw_numbers.cuh"
#include "cuda/selective_state_update_plan.h"

namespace ssm::cuda {

struct StateUpdateParams {
  StateUpdate in;
  int64_t blocks_per_head;
  int lanes;
};

// Where a lane works.  B and C have the head of the group.
struct UpdateChannel {
  int64_t batch, head, channel;

  __device__ __forceinline__ int64_t at(const UpdateView& v) const {
    return batch * v.stride_b + head * v.stride_h + channel * v.stride_p;
  }
  template <class F>
  __device__ __forceinline__ RawNumbers<F, 1> load_from(const UpdateView& v) const {
    RawNumbers<F, 1> raw;  // 0 of an absent tensor
    if (v.data != nullptr) raw.load_from(v.data, at(v), v.dtype);
    return raw;
  }
};

template <class F>
__device__ __forceinline__ F decoded(const RawNumbers<F, 1>& raw, const UpdateView& v) {
  F value;
  raw.decode(v.dtype, &value);
  return value;
}

// Of one channel.
struct UpdateRows {
  int64_t state, A, B, C;
};

__device__ __forceinline__ float exponential(float x) { return exp2_of(x * kLog2e); }
__device__ __forceinline__ double exponential(double x) { return exp(x); }

// A few states of a channel: constructed, they are on their way; advance() takes them on and returns their part of C h.
template <class F, int Count>
struct RealStates {
  static constexpr int kCount = Count;
  static constexpr int kBlocks = sizeof(F) == 4 ? 8 : 4;  // at a time on a multiprocessor
  RawNumbers<F, Count> h, A, B, C;

  __device__ __forceinline__ RealStates(const StateUpdate& in, const UpdateRows& rows, int64_t n) {
    h.load_from(in.state.data, rows.state + n * in.state.stride_n, in.state.dtype);
    if (Count == 1 || in.A.stride_n != 0) {
      A.load_from(in.A.data, rows.A + n * in.A.stride_n, in.A.dtype);
    } else {
      const uint32_t one = reinterpret_cast<const uint32_t*>(in.A.data)[rows.A];  // of all states, as in Mamba-2
      if constexpr (Count == 4) A.bits = make_uint4(one, one, one, one);
    }
    B.load_from(in.B.data, rows.B + n * in.B.stride_n, in.B.dtype);
    C.load_from(in.C.data, rows.C + n * in.C.stride_n, in.C.dtype);
  }

  __device__ __forceinline__ F advance(const StateUpdate& in, const UpdateRows& rows, int64_t n, F dt, F drive) const {
    F h[Count], A[Count], B[Count], C[Count], sum = F(0);
    this->h.decode(in.state.dtype, h), this->A.decode(in.A.dtype, A);
    this->B.decode(in.B.dtype, B), this->C.decode(in.C.dtype, C);
#pragma unroll
    for (int i = 0; i < Count; ++i) {
      h[i] = exponential(dt * A[i]) * h[i] + drive * B[i];
      sum += h[i] * C[i];
    }
    store_numbers(in.state.data, rows.state + n * in.state.stride_n, in.state.dtype, h);
    return sum;
  }
};

// y takes up 2 Re(C h): the other state of each conjugate pair is not stored.
template <class F>
struct ComplexState {
  static constexpr int kCount = 1;
  static constexpr int kBlocks = sizeof(F) == 4 ? 8 : 4;
  struct Number {
    F re, im;
  };
  Number h, A, B, C;

  __device__ __forceinline__ ComplexState(const StateUpdate& in, const UpdateRows& rows, int64_t n)
      : h(get(in.state, rows.state, n)), A(get(in.A, rows.A, n)), B(get(in.B, rows.B, n)), C(get(in.C, rows.C, n)) {}

  __device__ __forceinline__ F advance(const StateUpdate& in, const UpdateRows& rows, int64_t n, F dt, F drive) const {
    const F size = exponential(dt * A.re);
    const SinCos<F> turn = sin_cos_of_product(dt, A.im);
    const Number a = {size * turn.cos, size * turn.sin};
    const F re = a.re * h.re - a.im * h.im + drive * B.re;
    const F im = a.re * h.im + a.im * h.re + drive * B.im;
    F* state = reinterpret_cast<F*>(in.state.data) + rows.state + n * in.state.stride_n;
    state[0] = re, state[1] = im;
    return 2 * (re * C.re - im * C.im);
  }

 private:
  static __device__ __forceinline__ Number get(const UpdateView& v, int64_t row, int64_t n) {
    const F* at = reinterpret_cast<const F*>(v.data) + row + n * v.stride_n;
    return {at[0], at[1]};
  }
};

template <class F, class States>
__global__ void __launch_bounds__(kStateUpdateThreads, States::kBlocks) state_update_kernel(StateUpdateParams p) {
  const StateUpdate& in = p.in;
  const unsigned per_head = unsigned(p.blocks_per_head), row = blockIdx.x / per_head, heads = unsigned(in.heads);
  const unsigned lanes = unsigned(p.lanes), per_block = kStateUpdateThreads / lanes;
  UpdateChannel own = {row / heads, row % heads, 0};
  own.channel = int64_t(blockIdx.x % per_head) * per_block + threadIdx.x / lanes;
  if (own.channel >= in.channels) return;  // with all lanes of the channel
  const UpdateChannel group = {own.batch, int64_t(unsigned(own.head) / unsigned(in.heads / in.groups)), 0};
  const UpdateRows rows = {own.at(in.state), own.at(in.A), group.at(in.B), group.at(in.C)};

  // Every load before the first use of one: the step is short, and waiting in turn would be most of it.
  const RawNumbers<F, 1> raw_dt = own.load_from<F>(in.dt), raw_bias = own.load_from<F>(in.dt_bias);
  const RawNumbers<F, 1> raw_x = own.load_from<F>(in.x), raw_D = own.load_from<F>(in.D), raw_z = own.load_from<F>(in.z);
  const int64_t step = int64_t(lanes) * States::kCount;
  int64_t n = int64_t(threadIdx.x % lanes) * States::kCount;
  F sum = F(0);
  if (n < in.states) {
    States now(in, rows, n);
    F dt = decoded(raw_dt, in.dt);
    if (in.dt_bias.data != nullptr) dt += decoded(raw_bias, in.dt_bias);
    if (in.dt_softplus) dt = softplus(dt);
    const F drive = dt * decoded(raw_x, in.x);
    for (;;) {
      sum += now.advance(in, rows, n, dt, drive);
      n += step;
      if (n >= in.states) break;
      now = States(in, rows, n);
    }
  }
  for (unsigned bits = lanes / 2; bits > 0; bits /= 2) sum += __shfl_xor_sync(0xffffffffu, sum, int(bits));
  if (threadIdx.x % lanes != 0) return;
  if (in.D.data != nullptr) sum += decoded(raw_D, in.D) * decoded(raw_x, in.x);
  if (in.z.data != nullptr) sum *= silu(decoded(raw_z, in.z));
  store<F>(in.y.data, own.at(in.y), in.y.dtype, sum);
}

}  // namespace ssm::cuda
