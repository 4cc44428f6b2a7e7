// The sums over nodes for the gradients of v and w: sum_k g conj(p) + conj(g) q and that of the squares.
#pragma once

#include "cuda/cauchy.cuh"

namespace ssm::cuda {

template <class F, int C>
__global__ void __launch_bounds__(kS4Threads) cauchy_pole_kernel(CauchyKernelParams<F> p) {
  const int64_t piece = int64_t(blockIdx.x) % p.tiles, rest = int64_t(blockIdx.x) / p.tiles;
  const int64_t row = rest % p.rows, channel = rest / p.rows * C;
  const int64_t first = piece * p.piece_nodes;
  const int count = int(min(p.piece_nodes, p.nodes - first));
  Complex<F>* const z = shared_memory<Complex<F>>();  // (nodes,)
  Complex<F>* const g = z + p.piece_nodes;            // (nodes, C)
  F* const shares = reinterpret_cast<F*>(g + p.piece_nodes * C);  // (4 C, threads)
  for (int k = int(threadIdx.x); k < count; k += kS4Threads) {
    z[k] = p.z[row * p.z_row + first + k];
#pragma unroll
    for (int c = 0; c < C; ++c) {
      const int64_t at = ((channel + c) * p.rows + row) * p.nodes + first + k;
      g[k * C + c] = channel + c < p.channels ? p.grad_R[at] : Complex<F>{0, 0};
    }
  }
  __syncthreads();
  const int sharers = kS4Threads / p.block_states;
  const int state = int(threadIdx.x) % p.block_states, share = int(threadIdx.x) / p.block_states;
  for (int64_t begin = 0; begin < p.states; begin += p.block_states) {
    const int64_t n = begin + state;
    const Complex<F> w = p.w[row * p.states + min(n, p.states - 1)];
    PoleSums<F> sum[C];
#pragma unroll
    for (int c = 0; c < C; ++c) sum[c] = {{0, 0}, {0, 0}};
#pragma unroll 2
    for (int k = share; k < count; k += sharers) {
      const Pole<F> at(z[k], w);
      const Fractions<F> plain = at.plain(), squared = at.squared();
#pragma unroll
      for (int c = 0; c < C; ++c) {
        plain.add_adjoint_to(sum[c].s, g[k * C + c]);
        squared.add_adjoint_to(sum[c].t, g[k * C + c]);
      }
    }
    if (sharers > 1) {  // then all states are here at once
#pragma unroll
      for (int c = 0; c < C; ++c) {
        F* const own = shares + 4 * c * kS4Threads + threadIdx.x;
        own[0] = sum[c].s.re, own[kS4Threads] = sum[c].s.im;
        own[2 * kS4Threads] = sum[c].t.re, own[3 * kS4Threads] = sum[c].t.im;
      }
      __syncthreads();
      for (int other = 1; other < sharers && share == 0; ++other) {
#pragma unroll
        for (int c = 0; c < C; ++c) {
          const F* const from = shares + 4 * c * kS4Threads + other * p.block_states + threadIdx.x;
          sum[c].s.re += from[0], sum[c].s.im += from[kS4Threads];
          sum[c].t.re += from[2 * kS4Threads], sum[c].t.im += from[3 * kS4Threads];
        }
      }
    }
    if (share > 0 || n >= p.states) continue;
#pragma unroll
    for (int c = 0; c < C; ++c)
      if (channel + c < p.channels)
        p.sums[((piece * p.channels + channel + c) * p.rows + row) * p.states + n] = sum[c];
  }
}

}  // namespace ssm::cuda
