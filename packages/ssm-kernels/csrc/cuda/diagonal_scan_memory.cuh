// Runs of a few rows between memory and registers, for channels or steps as neighbours in memory.
#pragma once

#include "cuda/diagonal_scan_task.cuh"
#include "cuda/ptx.h"

namespace ssm::cuda::diagonal {

// The numbers of G neighbouring channels as they are stored.
template <class E, int G>
struct Packet {
  static_assert(G == 1);
  using Raw = typename E::Bits;
  static __device__ __forceinline__ Raw pack(const typename E::Bits (&bits)[1]) { return bits[0]; }
  static __device__ __forceinline__ typename E::Bits bits(Raw raw, int) { return raw; }
};
template <DType Type>
struct Packet<Element<Type, false>, 2> {  // of 16 bits each
  using Raw = uint32_t;
  static __device__ __forceinline__ Raw pack(const uint16_t (&bits)[2]) { return bits[0] | uint32_t(bits[1]) << 16; }
  static __device__ __forceinline__ uint16_t bits(Raw raw, int g) { return uint16_t(raw >> (16 * g)); }
};
template <>
struct Packet<Element<DType::f32, false>, 2> {
  using Raw = float2;
  static __device__ __forceinline__ Raw pack(const float (&bits)[2]) { return {bits[0], bits[1]}; }
  static __device__ __forceinline__ float bits(Raw raw, int g) { return g == 0 ? raw.x : raw.y; }
};

// T rows of one lane; idle ones are zeros.
template <class E, int G, int T>
struct Run {
  using Pack = Packet<E, G>;
  using Bits = typename E::Bits;
  using Value = typename E::Value;
  typename Pack::Raw raw[T];

  __device__ __forceinline__ Value at(int t, int g) const { return E::decode(Pack::bits(raw[t], g)); }
  __device__ __forceinline__ void set(int t, const Value (&values)[G]) {
    Bits bits[G];
#pragma unroll
    for (int g = 0; g < G; ++g) bits[g] = E::encode(values[g]);
    raw[t] = Pack::pack(bits);
  }
};

// Rows of the tile that belong to this warp's run.
template <int T>
__device__ __forceinline__ int rows_of_run(int64_t rows) {
  return int(max(int64_t(0), min(int64_t(T), rows - int64_t(threadIdx.y) * T)));
}

// T rows of a lane, `count` of whose channels are there.  Whole: moved as one.
template <bool Whole, class E, int G, int T>
__device__ __forceinline__ void load_packets(const typename E::Bits* from, int64_t stride, int64_t stride_d, int rows,
                                             int count, Run<E, G, T>& run) {
#pragma unroll
  for (int t = 0; t < T; ++t, from += stride) {
    typename E::Bits bits[G] = {};
    if constexpr (Whole) {
      run.raw[t] = Packet<E, G>::pack(bits);
      if (t < rows) run.raw[t] = *reinterpret_cast<const typename Packet<E, G>::Raw*>(from);
    } else {
#pragma unroll
      for (int g = 0; g < G; ++g)
        if (t < rows && g < count) bits[g] = from[g * stride_d];
      run.raw[t] = Packet<E, G>::pack(bits);
    }
  }
}

template <class E, int G, int T>
__device__ __forceinline__ void load_direct(const Task& p, const Tensor& x, const Place& place, int64_t row, int rows,
                                            Run<E, G, T>& run) {
  const int64_t stride = opaque(row_stride(p, x.view)), stride_d = x.view.stride_d;
  const auto* from = reinterpret_cast<const typename E::Bits*>(x.view.data) + offset_of(p, x.view, place, row);
  if (place.count == 0) rows = 0;
  if (stride == 0) {  // the same at every step
    Run<E, G, 1> only;
    load_packets<false>(from, 0, stride_d, rows, place.count, only);
#pragma unroll
    for (int t = 0; t < T; ++t) run.raw[t] = only.raw[0];
  } else if (G == 1 || (x.whole && place.count != 1)) {
    load_packets<true>(from, stride, stride_d, rows, place.count, run);
  } else {
    load_packets<false>(from, stride, stride_d, rows, place.count, run);
  }
}

template <bool Whole, class E, int G, int T>
__device__ __forceinline__ void store_packets(typename E::Bits* to, int64_t stride, int64_t stride_d, int rows,
                                              int count, const Run<E, G, T>& run) {
#pragma unroll
  for (int t = 0; t < T; ++t, to += stride) {
    if (t >= rows) continue;
    if constexpr (Whole) {
      *reinterpret_cast<typename Packet<E, G>::Raw*>(to) = run.raw[t];
    } else {
#pragma unroll
      for (int g = 0; g < G; ++g)
        if (g < count) to[g * stride_d] = Packet<E, G>::bits(run.raw[t], g);
    }
  }
}

template <class E, int G, int T>
__device__ __forceinline__ void store_direct(const Task& p, const Tensor& y, const Place& place, int64_t row, int rows,
                                             const Run<E, G, T>& run) {
  const int64_t stride = opaque(row_stride(p, y.view)), stride_d = y.view.stride_d;
  auto* to = reinterpret_cast<typename E::Bits*>(y.view.data) + offset_of(p, y.view, place, row);
  if (place.count == 0) rows = 0;
  if (G == 1 || (y.whole && place.count != 1)) {
    store_packets<true>(to, stride, stride_d, rows, place.count, run);
  } else {
    store_packets<false>(to, stride, stride_d, rows, place.count, run);
  }
}

// The turned tile in shared memory: a row per channel.
template <class E>
struct TurnedTile {
  using Bits = typename E::Bits;
  Bits* data;
  int64_t row;
  __device__ __forceinline__ explicit TurnedTile(const Task& p)
      : data(reinterpret_cast<Bits*>(shared_memory() + p.plan.tile_offset)),
        row(diagonal_tile_row(p.plan, sizeof(Bits))) {}

  // Calls body(number in memory, place in the tile) for the numbers of a tile, neighbours in memory by neighbouring
  // lanes.
  template <int G, class Body>
  __device__ __forceinline__ void for_each(const Task& p, const View3& v, const Place& place, int64_t first,
                                           int64_t rows, Body body) const {
    const int64_t stride = row_stride(p, v), mine = offset_of(p, v, place, first);
    for (int slot = threadIdx.y; slot < G * kDiagonalLanes; slot += blockDim.y) {
      const int64_t offset = __shfl_sync(~0u, mine, slot / G) + slot % G * v.stride_d;
      if (slot % G >= __shfl_sync(~0u, place.count, slot / G)) continue;
#pragma unroll 2
      for (int64_t i = threadIdx.x; i < rows; i += kDiagonalLanes)
        body(reinterpret_cast<Bits*>(v.data) + offset + i * stride, data + slot * row + i);
    }
  }
};

template <class E, int G, int T>
__device__ __forceinline__ void load_turned(const Task& p, const Tensor& x, const Place& place, int64_t first,
                                            int64_t rows, Run<E, G, T>& run) {
  const TurnedTile<E> tile(p);
  using Bits = typename E::Bits;
  tile.template for_each<G>(p, x.view, place, first, rows, [](const Bits* from, Bits* to) { *to = *from; });
  __syncthreads();
  const int mine = rows_of_run<T>(rows);
#pragma unroll
  for (int t = 0; t < T; ++t) {
    Bits bits[G] = {};
#pragma unroll
    for (int g = 0; g < G; ++g)
      if (t < mine && g < place.count) bits[g] = tile.data[(threadIdx.x * G + g) * tile.row + threadIdx.y * T + t];
    run.raw[t] = Packet<E, G>::pack(bits);
  }
  __syncthreads();
}

// This warp's rows of the tile of `rows` rows from row `first` on.  All threads of the block call it together.
template <class E, int G, int T>
__device__ __forceinline__ void load_run(const Task& p, const Tensor& x, const Place& place, int64_t first,
                                         int64_t rows, Run<E, G, T>& run) {
  if (x.turned) return load_turned(p, x, place, first, rows, run);
  load_direct(p, x, place, first + int64_t(threadIdx.y) * T, rows_of_run<T>(rows), run);
}

template <class E, int G, int T>
__device__ __forceinline__ void store_turned(const Task& p, const Tensor& y, const Place& place, int64_t first,
                                             int64_t rows, const Run<E, G, T>& run) {
  const TurnedTile<E> tile(p);
  using Bits = typename E::Bits;
  const int mine = rows_of_run<T>(rows);
#pragma unroll
  for (int t = 0; t < T; ++t)
#pragma unroll
    for (int g = 0; g < G; ++g)
      if (t < mine) tile.data[(threadIdx.x * G + g) * tile.row + threadIdx.y * T + t] = Packet<E, G>::bits(run.raw[t], g);
  __syncthreads();
  tile.template for_each<G>(p, y.view, place, first, rows, [](Bits* to, const Bits* from) { *to = *from; });
  __syncthreads();
}

template <class E, int G, int T>
__device__ __forceinline__ void store_run(const Task& p, const Tensor& y, const Place& place, int64_t first,
                                          int64_t rows, const Run<E, G, T>& run) {
  if (y.turned) return store_turned(p, y, place, first, rows, run);
  store_direct(p, y, place, first + int64_t(threadIdx.y) * T, rows_of_run<T>(rows), run);
}

}  // namespace ssm::cuda::diagonal
