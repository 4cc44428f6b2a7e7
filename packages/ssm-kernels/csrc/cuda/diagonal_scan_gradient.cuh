// The gradient of a, lambda conj(h[t-1]), added up as far as one block can.
#pragma once

#include "cuda/diagonal_scan_links.cuh"

namespace ssm::cuda::diagonal {

template <class Y>
class GradientOfA {
 public:
  using N = typename Y::N;
  static constexpr int G = Y::G, T = Y::T;

  __device__ __forceinline__ GradientOfA(const Task& p, const Place& place, int64_t chunk)
      : p_(p), place_(place), chunk_(chunk) {
#pragma unroll
    for (int g = 0; g < G; ++g) total_[g] = Field<N>::real(0);
  }

  __device__ __forceinline__ bool wanted() const { return p_.sum != SumOfA::not_wanted; }

  // The states before the rows of the tile: those of the rows that follow, and in the end the initial state.
  __device__ __forceinline__ void load_states(int64_t first, int64_t rows) {
    const int64_t inside = min(rows, place_.steps - 1 - first);
    load_run<typename Y::X, G, T>(p_, p_.h, place_, first + 1, inside, before_);
    n_inside_ = rows_of_run<T>(inside);
    if (inside < rows) load_state<N, G>(p_, p_.initial_state, place_.sequence, place_, initial_);
  }

  // Row t of the run that begins with row `row`; a: from now on the gradient, if it is not summed.  Lanes without a
  // channel have lambda 0.
  __device__ __forceinline__ void add(int64_t row, int t, const N (&lambda)[G], Run<typename Y::A, G, T>& a) {
    N gradient[G];
#pragma unroll
    for (int g = 0; g < G; ++g) {
      const N state = t < n_inside_ ? before_.at(t, g) : initial_[g];
      gradient[g] = Field<N>::times(Field<N>::conjugate(state), lambda[g]);
    }
    if (p_.sum == SumOfA::nothing) a.set(t, gradient);
    if (p_.sum == SumOfA::time) {
#pragma unroll
      for (int g = 0; g < G; ++g) tile_[g] = t == 0 ? gradient[g] : Field<N>::plus(tile_[g], gradient[g]);
    }
    if (p_.sum == SumOfA::channels) add_channels(step_of(p_, place_, row + t), gradient);
  }

  // All threads of the block call it together.
  __device__ __forceinline__ void end_tile(int64_t first, int64_t rows, const Run<typename Y::A, G, T>& a) {
    if (p_.sum == SumOfA::nothing) store_run(p_, p_.grad_a, place_, first, rows, a);
    if (p_.sum == SumOfA::time && rows_of_run<T>(rows) > 0) {
#pragma unroll
      for (int g = 0; g < G; ++g) total_[g] = Field<N>::plus(total_[g], tile_[g]);
    }
  }

  // Adds up the warps.
  __device__ __forceinline__ void end_chunk(const Borders<N, G>& borders) const {
    if (p_.sum != SumOfA::time) return;
    __syncthreads();
#pragma unroll
    for (int g = 0; g < G; ++g) borders.slot(0, threadIdx.y, g) = total_[g];
    __syncthreads();
    if (threadIdx.y != 0) return;
    N total[G];
#pragma unroll
    for (int g = 0; g < G; ++g) {
      total[g] = Field<N>::real(0);
      for (int warp = 0; warp < borders.warps; ++warp) total[g] = Field<N>::plus(total[g], borders.slot(0, warp, g));
    }
    const int64_t at = place_.sequence * p_.plan.chunks + chunk_;
    if (p_.in.a_per_channel) return store_state<N, G>(p_, p_.partials, at, place_, total);
    const N sum = sum_of_lanes(total);
    if (threadIdx.x == 0) reinterpret_cast<N*>(p_.partials)[at * p_.plan.panels() + panel()] = sum;
  }

 private:
  __device__ __forceinline__ int64_t panel() const { return place_.channel / (G * kDiagonalLanes); }

  static __device__ __forceinline__ N sum_of_lanes(const N (&x)[G]) {
    N sum = x[0];
#pragma unroll
    for (int g = 1; g < G; ++g) sum = Field<N>::plus(sum, x[g]);
#pragma unroll
    for (int bits = 16; bits > 0; bits /= 2) sum = Field<N>::plus(sum, Field<N>::from_lane(sum, bits));
    return sum;
  }

  // Every warp has its own place for a step: (panel, batch, step), or (batch, panel, step) to add up the batch, too.
  __device__ __forceinline__ void add_channels(int64_t step, const N (&gradient)[G]) const {
    const N sum = sum_of_lanes(gradient);
    const int64_t at = p_.in.a_per_batch ? panel() * p_.in.batch + place_.batch
                                         : place_.batch * p_.plan.panels() + panel();
    if (threadIdx.x == 0) reinterpret_cast<N*>(p_.partials)[at * p_.in.steps + step] = sum;
  }

  const Task& p_;
  const Place& place_;
  const int64_t chunk_;
  Run<typename Y::X, G, T> before_;
  int n_inside_ = 0;
  N initial_[G], total_[G], tile_[G];
};

}  // namespace ssm::cuda::diagonal
