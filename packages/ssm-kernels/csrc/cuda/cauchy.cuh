// The Cauchy sum and the gradient of its nodes: a thread has T nodes, and C channels that share the fractions.
#pragma once

#include "cuda/complex.cuh"
#include "cuda/launch.h"
#include "cuda/pole_gradients.cuh"
#include "cuda/s4_kernels_plan.h"

namespace ssm::cuda {

template <class F>
struct CauchyKernelParams {
  const Complex<F>*v, *z, *w;
  Complex<F>* R;             // forward
  const Complex<F>* grad_R;  // backward
  Complex<F>* grad_z;        // (h, k)
  PoleSums<F>* sums;         // (pieces, c, h, n)
  int64_t channels, rows, states, nodes, z_row;  // z_row: 0 if all rows have the same nodes
  int64_t tiles, channel_groups, piece_nodes;
  int block_states;
};

// With p = 1 / (z - w) and q = 1 / (z - conj(w)) the parts of s = p + q and d = p - q: they are what the sums need, as
//   v p + conj(v) q = (Re v Re s - Im v Im d) + i (Re v Im s + Im v Re d).
template <class F>
struct Fractions {
  Complex<F> sum, difference;

  __device__ __forceinline__ Fractions(Complex<F> p, Complex<F> q)
      : sum{p.re + q.re, p.im + q.im}, difference{p.re - q.re, p.im - q.im} {}

  __device__ __forceinline__ void add_to(Complex<F>& total, Complex<F> v) const {
    total.re += v.re * sum.re, total.re -= v.im * difference.im;
    total.im += v.re * sum.im, total.im += v.im * difference.re;
  }
  // g conj(p) + conj(g) q, or of the squares.
  __device__ __forceinline__ void add_adjoint_to(Complex<F>& total, Complex<F> g) const {
    total.re += g.re * sum.re, total.re += g.im * sum.im;
    total.im += g.im * difference.re, total.im -= g.re * difference.im;
  }
};

// One node and one pole.  Both differences are formed before anything is multiplied, so that nothing cancels where they
// come close to each other.
template <class F>
struct Pole {
  Complex<F> p, q;

  __device__ __forceinline__ Pole(Complex<F> z, Complex<F> w) {
    const F x = z.re - w.re, y = z.im - w.im, mirrored = z.im + w.im;
    const F a = reciprocal(x * x + y * y), b = reciprocal(x * x + mirrored * mirrored);
    p = {x * a, -(y * a)}, q = {x * b, -(mirrored * b)};
  }
  __device__ __forceinline__ Fractions<F> plain() const { return {p, q}; }
  __device__ __forceinline__ Fractions<F> squared() const { return {p * p, q * q}; }
};

// sum[k][c] = sum_n v[c] p + conj(v[c]) q at the nodes z[k], or that of the squares.  Called by all threads of a block.
template <bool Squared, int C, int T, class F>
__device__ __forceinline__ void sum_states(const CauchyKernelParams<F>& p, int64_t row, int64_t channel,
                                           const Complex<F> (&z)[T], Complex<F> (&sum)[T][C]) {
  Complex<F>* const w = shared_memory<Complex<F>>();  // (states,)
  Complex<F>* const v = w + kStatesAtOnce;            // (states, C)
#pragma unroll
  for (int k = 0; k < T; ++k)
#pragma unroll
    for (int c = 0; c < C; ++c) sum[k][c] = {0, 0};
  for (int64_t begin = 0; begin < p.states; begin += kStatesAtOnce) {
    const int count = int(min(int64_t(kStatesAtOnce), p.states - begin));
    __syncthreads();
    if (int(threadIdx.x) < count) w[threadIdx.x] = p.w[row * p.states + begin + threadIdx.x];
    for (int i = int(threadIdx.x); i < count * C; i += kS4Threads) {
      const int c = i / count, n = i % count;
      const bool present = channel + c < p.channels;
      v[n * C + c] = present ? p.v[((channel + c) * p.rows + row) * p.states + begin + n] : Complex<F>{0, 0};
    }
    __syncthreads();
#pragma unroll 2
    for (int n = 0; n < count; ++n) {
      const Complex<F> pole = w[n];
      Complex<F> numerator[C];
#pragma unroll
      for (int c = 0; c < C; ++c) numerator[c] = v[n * C + c];
#pragma unroll
      for (int k = 0; k < T; ++k) {
        const Pole<F> at(z[k], pole);
        const Fractions<F> f = Squared ? at.squared() : at.plain();
#pragma unroll
        for (int c = 0; c < C; ++c) f.add_to(sum[k][c], numerator[c]);
      }
    }
  }
}

// The nodes of a thread: every 128th; those that do not exist are like the last one.
template <int T, class F>
__device__ __forceinline__ void read_nodes(const CauchyKernelParams<F>& p, int64_t row, int64_t first,
                                           Complex<F> (&z)[T]) {
#pragma unroll
  for (int k = 0; k < T; ++k) z[k] = p.z[row * p.z_row + min(first + k * kS4Threads, p.nodes - 1)];
}

template <class F, int C, int T>
__global__ void __launch_bounds__(kS4Threads) cauchy_forward_kernel(CauchyKernelParams<F> p) {
  const int64_t tile = int64_t(blockIdx.x) % p.tiles, rest = int64_t(blockIdx.x) / p.tiles;
  const int64_t row = rest % p.rows, channel = rest / p.rows * C;
  const int64_t first = tile * (T * kS4Threads) + threadIdx.x;
  Complex<F> z[T], sum[T][C];
  read_nodes<T>(p, row, first, z);
  sum_states<false, C, T>(p, row, channel, z, sum);
#pragma unroll
  for (int c = 0; c < C; ++c) {
    if (channel + c >= p.channels) break;
#pragma unroll
    for (int k = 0; k < T; ++k) {
      const int64_t node = first + k * kS4Threads;
      if (node < p.nodes) p.R[((channel + c) * p.rows + row) * p.nodes + node] = sum[k][c];
    }
  }
}

// grad z = -sum_c g conj(sum_n v p^2 + conj(v) q^2), of every row.
template <class F, int C>
__global__ void __launch_bounds__(kS4Threads) cauchy_node_kernel(CauchyKernelParams<F> p) {
  const int64_t tile = int64_t(blockIdx.x) % p.tiles, row = int64_t(blockIdx.x) / p.tiles;
  const int64_t node = tile * kS4Threads + threadIdx.x;
  Complex<F> z[1], sum[1][C], total = {0, 0};
  read_nodes<1>(p, row, node, z);
  for (int64_t channel = 0; channel < p.channels; channel += C) {
    sum_states<true, C, 1>(p, row, channel, z, sum);
#pragma unroll
    for (int c = 0; c < C; ++c) {
      if (channel + c >= p.channels || node >= p.nodes) break;
      const Complex<F> g = p.grad_R[((channel + c) * p.rows + row) * p.nodes + node];
      total.re -= g.re * sum[0][c].re + g.im * sum[0][c].im;
      total.im -= g.im * sum[0][c].re - g.re * sum[0][c].im;
    }
  }
  if (node < p.nodes) p.grad_z[row * p.nodes + node] = total;
}

}  // namespace ssm::cuda
