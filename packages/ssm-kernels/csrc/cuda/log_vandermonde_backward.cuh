// The sums of the gradients of the sum of powers: with g the gradient of K, Z0 = sum_t g exp(t x) and
// Z1 = sum_t t g exp(t x) over one tile, line by line:
//   M0[line] = sum_place g place,  M1[line] = sum_place g i place,  Z0 = sum line M0,  Z1 = sum line (t M0 + M1)
// with t the first step of the line.
#pragma once

#include "cuda/log_vandermonde.cuh"

namespace ssm::cuda {

// The tile of the gradient, (lines, places); 0 after the last step.
template <class F, int R>
__device__ __forceinline__ void read_gradient(const VandermondeParams<F>& p, const VandermondeTile<F, R>& tile, F* g) {
  const F* const from = p.grad_K + tile.pair * p.steps;
#pragma unroll
  for (int k = 0; k < 2 * R; ++k) {
    const int index = k * kS4Threads + int(threadIdx.x), line = index / 16, place = index % 16 * 4;
    const int64_t t = tile.first + line * kPlaces + place;
    Four<F> four;
    if (p.aligned && t + 4 <= p.steps) {
      four = load_four(from + t);
    } else {
#pragma unroll
      for (int i = 0; i < 4; ++i) four.at[i] = t + i < p.steps ? from[t + i] : F(0);
    }
    store_four(g + line * kPlaceRow + place, four);
  }
}

// M0 and M1 of the R lines and two states of a thread: re, im of the one state, re, im of the other.
template <class F, int R>
__device__ __forceinline__ void sum_places(const F* g, const F* places, F (&m0)[R][4], F (&m1)[R][4]) {
#pragma unroll 1
  for (int begin = 0; begin < kPlaces; begin += 4) {
    Four<F> gradient[R];
#pragma unroll
    for (int r = 0; r < R; ++r) gradient[r] = load_four(g + r * kPlaceRow + begin);
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      const Four<F> place = load_four(places + (begin + i) * kStateRow);
#pragma unroll
      for (int k = 0; k < 4; ++k) {
        const F weighted = F(begin + i) * place.at[k];
#pragma unroll
        for (int r = 0; r < R; ++r) {
          m0[r][k] += gradient[r].at[i] * place.at[k];
          m1[r][k] += gradient[r].at[i] * weighted;
        }
      }
    }
  }
}

// Over the 4 threads of a warp that have the same states.
template <class F>
__device__ __forceinline__ F sum_line_threads(F x) {
  x += __shfl_xor_sync(~0u, x, 8);
  return x + __shfl_xor_sync(~0u, x, 16);
}

template <class F, int R>
__global__ void __launch_bounds__(kS4Threads) vandermonde_backward_kernel(VandermondeParams<F> p) {
  using Tile = VandermondeTile<F, R>;
  constexpr int kLineRow = Tile::kLines + kSpare, kWarps = kS4Threads / 32;
  const Tile tile(p);
  F* const places = shared_memory<F>();                 // (places, 2 states)
  F* const lines = places + kPlaces * kStateRow;        // (2 states, lines)
  F* const g = lines + 2 * kBlockStates * kLineRow;     // (lines, places)
  F* const warp_sums = g + Tile::kLines * kPlaceRow;    // (warps, states, 4)
  const int own_state = int(threadIdx.x) / 8, own_part = int(threadIdx.x) % 8;
  const int own_line = R * tile.line_thread;
  read_gradient<F, R>(p, tile, g);
  for (int64_t begin = 0; begin < p.states; begin += kBlockStates) {
    const int count = int(min(int64_t(kBlockStates), p.states - begin));
    __syncthreads();
    if (own_state < count) {
      const Complex<F> x = p.x[tile.row * p.states + begin + own_state];
      few_powers<kPlaces>(x, F(0), F(1), own_part, Complex<F>{1, 0}, [&](int i, Complex<F> z) {
        *reinterpret_cast<Complex<F>*>(places + i * kStateRow + 2 * own_state) = z;
      });
      F* const line_row = lines + 2 * own_state * kLineRow;
      few_powers<Tile::kLines>(x, F(tile.first), F(kPlaces), own_part, Complex<F>{1, 0},
                               [&](int i, Complex<F> z) { line_row[i] = z.re, line_row[kLineRow + i] = z.im; });
    }
    __syncthreads();
    F m0[R][4] = {}, m1[R][4] = {};
    sum_places<F, R>(g + own_line * kPlaceRow, places + 4 * tile.place_thread, m0, m1);
#pragma unroll
    for (int s = 0; s < 2; ++s) {
      const int state = 2 * tile.place_thread + s;
      Complex<F> z0 = {0, 0}, z1 = {0, 0};
#pragma unroll
      for (int r = 0; r < R; ++r) {
        const F* const power = lines + 2 * state * kLineRow + own_line + r;
        const F t = F(tile.first + (own_line + r) * kPlaces);
        const Complex<F> line = {power[0], power[kLineRow]}, m = {m0[r][2 * s], m0[r][2 * s + 1]};
        const Complex<F> a = line * m;
        const Complex<F> b = line * Complex<F>{t * m.re + m1[r][2 * s], t * m.im + m1[r][2 * s + 1]};
        z0.re += a.re, z0.im += a.im, z1.re += b.re, z1.im += b.im;
      }
      const Four<F> sums = {sum_line_threads(z0.re), sum_line_threads(z0.im), sum_line_threads(z1.re),
                            sum_line_threads(z1.im)};
      if (threadIdx.x % 32 < 8) store_four(warp_sums + (threadIdx.x / 32 * kBlockStates + state) * 4, sums);
    }
    __syncthreads();
    if (int(threadIdx.x) < 4 * count) {
      F sum = 0;
#pragma unroll
      for (int warp = 0; warp < kWarps; ++warp) sum += warp_sums[warp * kBlockStates * 4 + threadIdx.x];
      F* const to = reinterpret_cast<F*>(p.sums + (tile.tile * p.channels * p.rows + tile.pair) * p.states + begin);
      to[threadIdx.x] = (threadIdx.x % 2 == 0 ? F(2) : F(-2)) * sum;
    }
  }
}

}  // namespace ssm::cuda
