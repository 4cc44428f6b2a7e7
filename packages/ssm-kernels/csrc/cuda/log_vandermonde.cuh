// The sum of powers; see s4_kernels_plan.h for how it is taken apart.
#pragma once

#include "cuda/complex.cuh"
#include "cuda/launch.h"
#include "cuda/pole_gradients.cuh"
#include "cuda/s4_kernels_plan.h"

namespace ssm::cuda {

template <class F>
struct VandermondeParams {
  const Complex<F>*v, *x;
  F* K;               // forward
  const F* grad_K;    // backward
  PoleSums<F>* sums;  // backward: (tiles, c, h, n)
  int64_t channels, rows, states, steps, tiles;
  bool aligned;  // steps is a multiple of 4: so is every row
};

// What one block makes.
template <class F, int R>
struct VandermondeTile {
  static constexpr int kLines = R * kLineThreads;
  int64_t tile, row, pair;  // pair: channel and row
  int64_t first;            // step
  int64_t first_line;
  int place_thread, line_thread;

  __device__ __forceinline__ explicit VandermondeTile(const VandermondeParams<F>& p) {
    tile = int64_t(blockIdx.x) % p.tiles, pair = int64_t(blockIdx.x) / p.tiles;
    row = pair % p.rows, first_line = tile * kLines, first = first_line * kPlaces;
    place_thread = int(threadIdx.x) % 8, line_thread = int(threadIdx.x) / 8;
  }
};

// Writes value(exp((first + i * stride) x)) for every 8th i < Count from `from` on: one accurate power, then a few
// multiplications, whose rounding errors stay at a few units.
template <int Count, class F, class Use>
__device__ __forceinline__ void few_powers(Complex<F> x, F first, F stride, int from, Complex<F> factor, Use use) {
  Complex<F> power = exp_of_product(first + F(from) * stride, x) * factor;
  const Complex<F> step = exp_of_product(F(8) * stride, x);
#pragma unroll
  for (int i = 0; i < Count / 8; ++i) {
    use(from + 8 * i, power);
    power = power * step;
  }
}

template <class F, int R>
__global__ void __launch_bounds__(kS4Threads) vandermonde_forward_kernel(VandermondeParams<F> p) {
  using Tile = VandermondeTile<F, R>;
  constexpr int kLineRow = Tile::kLines + kSpare;
  const Tile tile(p);
  F* const places = shared_memory<F>();                       // (2 states, places): real and imaginary parts
  F* const lines = places + 2 * kBlockStates * kPlaceRow;     // (2 states, lines): with v; imaginary parts negated
  const int own_state = int(threadIdx.x) / 8, own_part = int(threadIdx.x) % 8;
  F sum[R][8] = {};
  for (int64_t begin = 0; begin < p.states; begin += kBlockStates) {
    const int count = int(min(int64_t(kBlockStates), p.states - begin));
    __syncthreads();
    if (own_state < count) {
      const Complex<F> x = p.x[tile.row * p.states + begin + own_state];
      const Complex<F> v = p.v[tile.pair * p.states + begin + own_state];
      F* const place_row = places + 2 * own_state * kPlaceRow;
      few_powers<kPlaces>(x, F(0), F(1), own_part, Complex<F>{1, 0}, [&](int i, Complex<F> z) {
        place_row[i] = z.re, place_row[kPlaceRow + i] = z.im;
      });
      F* const line_row = lines + 2 * own_state * kLineRow;
      few_powers<Tile::kLines>(x, F(tile.first), F(kPlaces), own_part, Complex<F>{2 * v.re, 2 * v.im},
                               [&](int i, Complex<F> z) { line_row[i] = z.re, line_row[kLineRow + i] = -z.im; });
    }
    __syncthreads();
#pragma unroll 4
    for (int m = 0; m < 2 * count; ++m) {
      const F* const row = places + m * kPlaceRow + 4 * tile.place_thread;
      const Four<F> near = load_four(row), far = load_four(row + 32);
      F line[R];
      const F* const own_lines = lines + m * kLineRow + R * tile.line_thread;
      if constexpr (R == 4) {
        const Four<F> four = load_four(own_lines);
#pragma unroll
        for (int r = 0; r < R; ++r) line[r] = four.at[r];
      } else {
#pragma unroll
        for (int r = 0; r < R; ++r) line[r] = own_lines[r];
      }
#pragma unroll
      for (int r = 0; r < R; ++r) {
#pragma unroll
        for (int i = 0; i < 4; ++i) sum[r][i] += line[r] * near.at[i], sum[r][4 + i] += line[r] * far.at[i];
      }
    }
  }
  F* const K = p.K + tile.pair * p.steps;
#pragma unroll
  for (int r = 0; r < R; ++r) {
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      const int64_t t = tile.first + (R * tile.line_thread + r) * kPlaces + 32 * half + 4 * tile.place_thread;
      if (p.aligned && t + 4 <= p.steps) {
        Four<F> four;
#pragma unroll
        for (int i = 0; i < 4; ++i) four.at[i] = sum[r][4 * half + i];
        store_four(K + t, four);
      } else {
#pragma unroll
        for (int i = 0; i < 4; ++i)
          if (t + i < p.steps) K[t + i] = sum[r][4 * half + i];
      }
    }
  }
}

}  // namespace ssm::cuda
