// The kernels of the diagonal scan.
#pragma once

#include "cuda/diagonal_scan_gradient.cuh"

namespace ssm::cuda::diagonal {

constexpr int kThreads = int(kDiagonalWarps * kDiagonalLanes);

// All rows of one chunk of the channels of a block.  The backward pass lacks the gradient of a if that is not wanted.
template <class Y>
__global__ void __launch_bounds__(kThreads, Y::kBlocks) run_chunks(Task p) {
  using N = typename Y::N;
  constexpr int G = Y::G, T = Y::T;
  const int64_t chunk = blockIdx.x / p.plan.row_blocks;
  const Place place = find_place(p, blockIdx.x % p.plan.row_blocks);
  const Rows rows_of_block = rows_of_chunk(p, place, chunk);
  const int warp = int(threadIdx.y);
  const Borders<N, G> borders(int(blockDim.y));
  const ConstantFactor<Y> constant(p, place, T);
  GradientOfA<Y> gradient(p, place, chunk);

  N state[G];
  const bool cut = p.plan.chunks > 1;
  load_state<N, G>(p, cut ? p.results : p.first_state, cut ? place.sequence * p.plan.chunks + chunk : place.sequence,
                   place, state);
  int parity = 0;
  if (warp == 0) borders.set_start(parity, state);

  for (int64_t row = rows_of_block.begin; row < rows_of_block.end; row += p.plan.tile_steps(), parity ^= 1) {
    const int64_t rows = min(p.plan.tile_steps(), rows_of_block.end - row);
    const int mine = rows_of_run<T>(rows);
    Run<typename Y::A, G, T> a;
    Run<typename Y::X, G, T> x;
    load_run(p, p.a, place, row, rows, a);
    load_run(p, p.x, place, row, rows, x);
    if constexpr (Y::kBackward)
      if (gradient.wanted()) gradient.load_states(row, rows);

#pragma unroll
    for (int g = 0; g < G; ++g) borders.set_run(parity, warp, g, map_of_run<Y>(a, x, mine, g, constant));
    __syncthreads();
    if (!link_runs<Y>(borders, parity, constant, state)) walk_runs<Y>(borders, parity, a, x, mine, state);

#pragma unroll
    for (int t = 0; t < T; ++t) {
      if (t >= mine) continue;
      N result[G];
#pragma unroll
      for (int g = 0; g < G; ++g) result[g] = advance<Y::kBackward>(a.at(t, g), x.at(t, g), state[g]);
      x.set(t, result);
      if constexpr (Y::kBackward)
        if (gradient.wanted()) gradient.add(row + warp * T, t, result, a);
    }
    if (p.y.wanted()) store_run(p, p.y, place, row, rows, x);
    if constexpr (Y::kBackward) gradient.end_tile(row, rows, a);
    if (warp == int((rows - 1) / T)) borders.set_start(parity ^ 1, state);
  }

  __syncthreads();
  if (warp == 0 && rows_of_block.last) {
#pragma unroll
    for (int g = 0; g < G; ++g) state[g] = borders.start(parity, g);
    store_state<N, G>(p, p.last_state, place.sequence, place, state);
  }
  if constexpr (Y::kBackward) gradient.end_chunk(borders);
}

// What each chunk but the last of a sequence does to a state.
template <class Y>
__global__ void __launch_bounds__(kThreads, Y::kBlocks) map_chunks(Task p) {
  using N = typename Y::N;
  constexpr int G = Y::G, T = Y::T;
  const int64_t chunk = blockIdx.x / p.plan.row_blocks;
  const Place place = find_place(p, blockIdx.x % p.plan.row_blocks);
  const Rows rows_of_block = rows_of_chunk(p, place, chunk);
  const Borders<N, G> borders(int(blockDim.y));
  const ConstantFactor<Y> constant(p, place, T);
  Affine<N> map[G];
#pragma unroll
  for (int g = 0; g < G; ++g) map[g] = Affine<N>::identity();

  int parity = 0;
  for (int64_t row = rows_of_block.begin; row < rows_of_block.end; row += p.plan.tile_steps(), parity ^= 1) {
    const int64_t rows = min(p.plan.tile_steps(), rows_of_block.end - row);
    Run<typename Y::A, G, T> a;
    Run<typename Y::X, G, T> x;
    load_run(p, p.a, place, row, rows, a);
    load_run(p, p.x, place, row, rows, x);
#pragma unroll
    for (int g = 0; g < G; ++g)
      borders.set_run(parity, int(threadIdx.y), g, map_of_run<Y>(a, x, rows_of_run<T>(rows), g, constant));
    __syncthreads();
    if (threadIdx.y != 0) continue;
#pragma unroll
    for (int g = 0; g < G; ++g)
      for (int warp = 0; warp < borders.warps; ++warp) {
        const Affine<N> run = borders.run(parity, warp, g);
        map[g] = {Field<N>::times(run.a, map[g].a), run.of(map[g].x, constant.low[g])};
      }
  }
  if (threadIdx.y != 0) return;
  const ConstantFactor<Y> whole(p, place, rows_of_block.end - rows_of_block.begin);
  N product[G], result[G];
#pragma unroll
  for (int g = 0; g < G; ++g) product[g] = whole.constant ? whole.high[g] : map[g].a, result[g] = map[g].x;
  const int64_t at = place.sequence * p.plan.chunks + chunk;
  store_state<N, G>(p, p.products, at, place, product);
  store_state<N, G>(p, p.results, at, place, result);
}

// A chunk in the order of time, for numbers that are not finite: see link_runs.
template <class Y>
__device__ __forceinline__ typename Y::N walk_chunk(const Task& p, const Place& place, int64_t chunk, int g,
                                                    typename Y::N state) {
  const Rows rows = rows_of_chunk(p, place, chunk);
#pragma unroll 1
  for (int64_t row = rows.begin; row < rows.end; ++row) {
    const int64_t at_a = offset_of(p, p.a.view, place, row) + g * p.a.view.stride_d;
    const int64_t at_x = offset_of(p, p.x.view, place, row) + g * p.x.view.stride_d;
    advance<Y::kBackward>(Y::A::decode(reinterpret_cast<const typename Y::A::Bits*>(p.a.view.data)[at_a]),
                          Y::X::decode(reinterpret_cast<const typename Y::X::Bits*>(p.x.view.data)[at_x]), state);
  }
  return state;
}

// The state before each chunk, in the place of what the chunk makes of zeros.
template <class Y>
__global__ void __launch_bounds__(int(kDiagonalLanes)) link_chunks(Task p) {
  using N = typename Y::N;
  constexpr int kTogether = sizeof(N) > 16 / 2 ? 2 : int(32 / sizeof(N));
  const Place place = find_place(p, blockIdx.x);
  const int64_t last = p.plan.chunks - 1;
  const int64_t first_number = place.sequence * p.plan.chunks * p.in.channels + place.channel;
#pragma unroll 1
  for (int g = 0; g < place.count; ++g) {
    const N* products = reinterpret_cast<const N*>(p.products) + first_number + g;
    N* results = reinterpret_cast<N*>(p.results) + first_number + g;
    const N* first_state = static_cast<const N*>(p.first_state);
    N state = Field<N>::real(0);
    if (first_state != nullptr) state = first_state[place.sequence * p.in.channels + place.channel + g];
    for (int64_t begin = 0; begin <= last; begin += kTogether) {
      Affine<N> maps[kTogether];  // read together, as each takes its time to come
#pragma unroll
      for (int k = 0; k < kTogether; ++k)
        if (begin + k < last) maps[k] = {products[(begin + k) * p.in.channels], results[(begin + k) * p.in.channels]};
#pragma unroll
      for (int k = 0; k < kTogether; ++k) {
        if (begin + k > last) continue;
        results[(begin + k) * p.in.channels] = state;
        if (begin + k == last) continue;
        const N next = maps[k].of(state);
        const bool finite = maps[k].is_finite() && Field<N>::is_finite(state) && Field<N>::is_finite(next);
        state = finite ? next : walk_chunk<Y>(p, place, begin + k, g, state);
      }
    }
  }
}

}  // namespace ssm::cuda::diagonal
