// How the warps of a block link the runs of one tile.
#pragma once

#include "cuda/diagonal_scan_memory.cuh"

namespace ssm::cuda::diagonal {

// Element types of x and a, and the sizes of a run.
template <class X_, class A_, bool Backward_>
struct Types {
  using X = X_;
  using A = A_;
  using N = typename X::Value;
  static constexpr bool kBackward = Backward_;
  static constexpr int kBlocks = sizeof(N) > 8 ? 1 : 2;  // that share a multiprocessor at least
  static constexpr int G = sizeof(typename X::Bits) == 2 ? 2 : 1;
  static constexpr int T = [] {
    constexpr int rows = (Backward_ ? 32 : 64) / int(G * sizeof(typename X::Bits));  // diagonal_run_steps
    return rows < 4 ? 4 : rows;
  }();
};

// What the warps of a block tell each other: what their runs do to a state, and the state before the tile.  In shared
// memory, twice, so that one barrier per tile is enough.
template <class N, int G>
struct Borders {
  N* data;
  int warps;

  __device__ __forceinline__ explicit Borders(int n_warps) : data(shared_memory<N>()), warps(n_warps) {}
  __device__ __forceinline__ N& slot(int parity, int index, int g) const {
    return data[((parity * (2 * warps + 1) + index) * G + g) * kDiagonalLanes + threadIdx.x];
  }
  __device__ __forceinline__ Affine<N> run(int parity, int warp, int g) const {
    return {slot(parity, warp, g), slot(parity, warps + warp, g)};
  }
  __device__ __forceinline__ void set_run(int parity, int warp, int g, const Affine<N>& map) const {
    slot(parity, warp, g) = map.a, slot(parity, warps + warp, g) = map.x;
  }
  __device__ __forceinline__ N& result(int parity, int warp, int g) const { return slot(parity, warps + warp, g); }
  __device__ __forceinline__ N& start(int parity, int g) const { return slot(parity, 2 * warps, g); }
  __device__ __forceinline__ void set_start(int parity, const N (&state)[G]) const {
#pragma unroll
    for (int g = 0; g < G; ++g) start(parity, g) = state[g];
  }
};

// The factor of a run of an a that is constant in time.  All runs share its rounding error, which would add up over the
// memory of a slow channel: hence a second number for what is lost.
template <class Y>
struct ConstantFactor {
  using N = typename Y::N;
  bool constant;
  N high[Y::G], low[Y::G];

  __device__ __forceinline__ ConstantFactor(const Task& p, const Place& place, int64_t steps) {
    constant = !p.in.a_per_step;
    Run<typename Y::A, Y::G, 1> a;
    load_direct(p, p.a, place, 0, constant ? 1 : 0, a);
#pragma unroll
    for (int g = 0; g < Y::G; ++g) power(factor<Y::kBackward>(a.at(0, g)), constant ? steps : 0, high[g], low[g]);
  }
};

// What this lane's run does to a state.
template <class Y>
__device__ __forceinline__ Affine<typename Y::N> map_of_run(const Run<typename Y::A, Y::G, Y::T>& a,
                                                            const Run<typename Y::X, Y::G, Y::T>& x, int rows, int g,
                                                            const ConstantFactor<Y>& constant) {
  using N = typename Y::N;
  Affine<N> map = Affine<N>::identity();
#pragma unroll
  for (int t = 0; t < Y::T; ++t) {
    if (t >= rows) continue;
    const N factor_of_row = factor<Y::kBackward>(a.at(t, g));
    advance<Y::kBackward>(a.at(t, g), x.at(t, g), map.x);
    map.a = Field<N>::times(factor_of_row, map.a);
  }
  if (constant.constant && rows == Y::T) map.a = constant.high[g];
  return map;
}

__device__ __forceinline__ bool any_lane(bool yes) {
  int found = yes;
#pragma unroll
  for (int bits = 16; bits > 0; bits /= 2) found |= __shfl_xor_sync(~0u, found, bits);
  return found != 0;
}

// The state before this warp's run, from the maps of the runs before it.  Products may overflow where the states that
// they stand for do not, and vanish where an infinite state does not: false if a number is not finite, in all warps.
template <class Y>
__device__ __forceinline__ bool link_runs(const Borders<typename Y::N, Y::G>& borders, int parity,
                                          const ConstantFactor<Y>& constant, typename Y::N (&state)[Y::G]) {
  using N = typename Y::N;
  bool finite = true;
#pragma unroll
  for (int g = 0; g < Y::G; ++g) {
    N next = borders.start(parity, g);
    finite = finite && Field<N>::is_finite(next);
    for (int warp = 0; warp < borders.warps; ++warp) {
      if (warp == int(threadIdx.y)) state[g] = next;
      const Affine<N> map = borders.run(parity, warp, g);
      next = map.of(next, constant.low[g]);
      finite = finite && map.is_finite() && Field<N>::is_finite(next);
    }
  }
  return !any_lane(!finite);
}

// The same in the order of time, one warp after the other.
template <class Y>
__device__ __forceinline__ void walk_runs(const Borders<typename Y::N, Y::G>& borders, int parity,
                                       const Run<typename Y::A, Y::G, Y::T>& a,
                                       const Run<typename Y::X, Y::G, Y::T>& x, int rows, typename Y::N (&state)[Y::G]) {
  for (int warp = 0; warp < borders.warps; ++warp) {
    __syncthreads();
    if (warp != int(threadIdx.y)) continue;
#pragma unroll
    for (int g = 0; g < Y::G; ++g) {
      typename Y::N next = warp == 0 ? borders.start(parity, g) : borders.result(parity, warp - 1, g);
      state[g] = next;
#pragma unroll
      for (int t = 0; t < Y::T; ++t)
        if (t < rows) advance<Y::kBackward>(a.at(t, g), x.at(t, g), next);
      borders.result(parity, warp, g) = next;
    }
  }
}

}  // namespace ssm::cuda::diagonal
