// The end of a backward pass that sums over a long axis (steps, nodes) in pieces.  Of every piece, channel c, row h and
// state n a block has left two complex sums s and t in the workspace (pieces, c, h, n); then
//   grad_v[c, h, n] = sum s,  grad_x[h, n] = sum_c conj(v[c, h, n]) sum t,
// over the pieces and channels in their order.
#pragma once

#include "cuda/complex.cuh"
#include "cuda/grid.h"
#include "cuda/launch.h"

namespace ssm::cuda {

template <class F>
struct alignas(16) PoleSums {
  Complex<F> s, t;
};

template <class F>
struct PoleGradients {
  const PoleSums<F>* sums;
  const Complex<F>* v;
  Complex<F>*grad_v, *grad_x;  // nullptr where not wanted
  int64_t pieces, channels, entries;  // entries: rows times states
};

constexpr int kPoleGradientThreads = 128;

template <class F>
__global__ void __launch_bounds__(kPoleGradientThreads) pole_gradients(PoleGradients<F> p) {
  const int64_t entry = int64_t(blockIdx.x) * kPoleGradientThreads + threadIdx.x;
  if (entry >= p.entries) return;
  Complex<F> gradient = {0, 0};
  for (int64_t c = 0; c < p.channels; ++c) {
    Complex<F> s = {0, 0}, t = {0, 0};
#pragma unroll 4
    for (int64_t piece = 0; piece < p.pieces; ++piece) {
      const PoleSums<F> sums = p.sums[(piece * p.channels + c) * p.entries + entry];
      s.re += sums.s.re, s.im += sums.s.im, t.re += sums.t.re, t.im += sums.t.im;
    }
    const Complex<F> v = p.v[c * p.entries + entry];
    if (p.grad_v != nullptr) p.grad_v[c * p.entries + entry] = s;
    gradient.re += v.re * t.re + v.im * t.im;
    gradient.im += v.re * t.im - v.im * t.re;
  }
  if (p.grad_x != nullptr) p.grad_x[entry] = gradient;
}

template <class F>
void launch_pole_gradients(const PoleGradients<F>& p, const CudaCall& call) {
  launch(pole_gradients<F>, {grid_of(divide_up(p.entries, kPoleGradientThreads)), dim3(kPoleGradientThreads)}, call, p);
}

}  // namespace ssm::cuda
