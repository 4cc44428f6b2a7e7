// One decode step of the selective scan but for its innermost loop, which is the template parameter Pass: real or
// complex states.  A task is one batch index, one head and up to kUpdateChannels of its channels.
//
// Pass<F>::advance(task, block) takes the states of one vector of channels a step on, for the slice of states whose
// coefficients the task holds, and adds C h to their y.
#pragma once

#include "cpu/parallel.h"
#include "cpu/tile.h"
#include "cpu/vec_math.h"
#include "selective_state_update_params.h"

namespace ssm::SSM_ISA {

constexpr int64_t kUpdateChannels = 128;
constexpr int64_t kUpdateStates = 128;  // whose B and C a task holds at a time: tasks need no memory but the stack

// Below this number of states (50 microseconds of one core), waking a sleeping team of threads may take longer.
constexpr int64_t kStatesWorthThreads = 128 * 1024;

// All bits set in the first `count` lanes.
template <class F>
SSM_INLINE VecInt<F> first_lanes(int64_t count) {
  VecInt<F> mask;
  for (int i = 0; i < kWidth<F>; ++i) mask[i] = i < count ? -1 : 0;
  return mask;
}

// The chosen lanes of a vector in memory; the others are 0 and their memory is not touched.
template <class F>
SSM_INLINE Vec<F> load_chosen(const char* from, VecInt<F> mask) {
#if defined(SSM_ISA_IS_avx512)
  if constexpr (sizeof(F) == 4) return (Vec<F>)_mm512_maskz_loadu_ps(_mm512_movepi32_mask((__m512i)mask), from);
  if constexpr (sizeof(F) == 8) return (Vec<F>)_mm512_maskz_loadu_pd(_mm512_movepi64_mask((__m512i)mask), from);
#elif defined(SSM_ISA_IS_avx2)
  if constexpr (sizeof(F) == 4) return (Vec<F>)_mm256_maskload_ps((const float*)from, (__m256i)mask);
  if constexpr (sizeof(F) == 8) return (Vec<F>)_mm256_maskload_pd((const double*)from, (__m256i)mask);
#else
  Vec<F> v = {};
  for (int i = 0; i < kWidth<F>; ++i)
    if (mask[i]) v[i] = load_as<F>(from + i * sizeof(F));
  return v;
#endif
}

template <class F>
SSM_INLINE void store_chosen(char* to, VecInt<F> mask, Vec<F> v) {
#if defined(SSM_ISA_IS_avx512)
  if constexpr (sizeof(F) == 4) _mm512_mask_storeu_ps(to, _mm512_movepi32_mask((__m512i)mask), (__m512)v);
  if constexpr (sizeof(F) == 8) _mm512_mask_storeu_pd(to, _mm512_movepi64_mask((__m512i)mask), (__m512d)v);
#elif defined(SSM_ISA_IS_avx2)
  if constexpr (sizeof(F) == 4) _mm256_maskstore_ps((float*)to, (__m256i)mask, (__m256)v);
  if constexpr (sizeof(F) == 8) _mm256_maskstore_pd((double*)to, (__m256i)mask, (__m256d)v);
#else
  for (int i = 0; i < kWidth<F>; ++i)
    if (mask[i]) store(to + i * sizeof(F), v[i]);
#endif
}

template <class S>
constexpr bool kIsPlain = S::bytes == sizeof(typename S::Compute);

// `count` numbers that lie `stride` apart, as lanes; missing lanes are 0.
template <class S>
SSM_INLINE Vec<typename S::Compute> load_lanes(const char* from, int64_t stride, int64_t count) {
  using F = typename S::Compute;
  if (stride == 1 && count >= kWidth<F>) return S::load(from);
  F lanes[kWidth<F>] = {};
  for (int64_t i = 0; i < kWidth<F> && i < count; ++i) lanes[i] = S::load_one(from + i * stride * S::bytes);
  return load<F>(lanes);
}

template <class S>
SSM_INLINE void store_lanes(char* to, int64_t stride, int64_t count, Vec<typename S::Compute> v) {
  using F = typename S::Compute;
  if (stride == 1 && count >= kWidth<F>) return S::store(to, v);
  F lanes[kWidth<F>];
  store(lanes, v);
  for (int64_t i = 0; i < kWidth<F> && i < count; ++i) S::store_one(to + i * stride * S::bytes, lanes[i]);
}

// v in the chosen lanes, 0 (not 0 times whatever the lane holds) in the others.
template <class F>
SSM_INLINE Vec<F> choose(Vec<F> v, VecInt<F> mask) {
  return from_bits<F>(to_bits<F>(v) & mask);
}

template <class F>
struct UpdateTask {
  const StateUpdate& in;
  const int64_t batch, head, first, count;  // channels [first, first + count) of the head
  int64_t slice = 0, states = 0;            // states [slice, slice + states)
  alignas(64) F dt[kUpdateChannels];        // after bias and softplus
  alignas(64) F drive[kUpdateChannels];     // dt x
  alignas(64) F y[kUpdateChannels];
  alignas(64) F B[2][kUpdateStates];  // real parts and, with complex A, imaginary parts
  alignas(64) F C[2][kUpdateStates];

  UpdateTask(const StateUpdate& in, int64_t batch, int64_t head, int64_t first)
      : in(in), batch(batch), head(head), first(first),
        count(in.channels - first < kUpdateChannels ? in.channels - first : kUpdateChannels) {}

  // The first state of the slice, in the given channel of the task.
  template <class S>
  SSM_INLINE char* at(const UpdateView& v, int64_t channel) const {
    const int64_t offset =
        batch * v.stride_b + head * v.stride_h + (first + channel) * v.stride_p + slice * v.stride_n;
    return v.data + offset * S::bytes;
  }

  template <class Pass>
  void run() {
    prepare();
    for (slice = 0; slice < in.states; slice += kUpdateStates) {
      states = in.states - slice < kUpdateStates ? in.states - slice : kUpdateStates;
      read_coefficient(in.B, B);
      read_coefficient(in.C, C);
      for (int64_t block = 0; block < count; block += kWidth<F>) Pass::template advance<F>(*this, block);
    }
    finish();
  }

 private:
  Matrix channel_row(const UpdateView& v) const {
    const int64_t offset = batch * v.stride_b + head * v.stride_h + first * v.stride_p;
    return {v.data + offset * size_of(v.dtype), 0, v.stride_p, 1, count};
  }

  // Lanes beyond the last channel become 0.
  SSM_INLINE void read_channels(const UpdateView& v, F* row) const {
    if (count % kWidth<F> != 0) store(row + count / kWidth<F> * kWidth<F>, Vec<F>{});
    read_matrix<F>(v.dtype, channel_row(v), row, 0);
  }

  // dt <- softplus(dt + bias); drive <- dt x; y <- D x
  void prepare() {
    const bool skip = in.D.data != nullptr, biased = in.dt_bias.data != nullptr;
    F* bias = y;  // until it is added
    read_channels(in.dt, dt);
    if (biased) read_channels(in.dt_bias, bias);
    for (int64_t i = 0; i < count; i += kWidth<F>) {
      Vec<F> step = load<F>(dt + i);
      if (biased) step += load<F>(bias + i);
      if (in.dt_softplus) step = softplus<F>(step);
      store(dt + i, step);
    }
    read_channels(in.x, drive);
    if (skip) read_channels(in.D, y);
    for (int64_t i = 0; i < count; i += kWidth<F>) {
      const Vec<F> x = load<F>(drive + i);
      store(drive + i, load<F>(dt + i) * x);
      store(y + i, skip ? load<F>(y + i) * x : Vec<F>{});  // without D not 0 x: x may be infinite
    }
  }

  // y <- y silu(z)
  void finish() {
    if (in.z.data != nullptr) {
      F* z = dt;  // not needed any more
      read_channels(in.z, z);
      for (int64_t i = 0; i < count; i += kWidth<F>) {
        const Vec<F> gate = load<F>(z + i);
        store(y + i, load<F>(y + i) * (gate * sigmoid<F>(gate)));
      }
    }
    write_matrix<F>(in.y.dtype, channel_row(in.y), y, 0);
  }

  void read_coefficient(const UpdateView& v, F (*rows)[kUpdateStates]) const {
    const int64_t group = head / (in.heads / in.groups);
    const int64_t offset = batch * v.stride_b + group * v.stride_h + slice * v.stride_n;
    const int64_t rest = states % kWidth<F>;
    for (int64_t part = 0; part <= (in.complex_A ? 1 : 0); ++part) {
      if (rest != 0) store(rows[part] + states - rest, Vec<F>{});
      const Matrix m = {v.data + (offset + part) * size_of(v.dtype), 0, v.stride_n, 1, states};
      read_matrix<F>(v.dtype, m, rows[part], 0);
    }
  }
};

template <class F, class Pass>
void update(const StateUpdate& in) {
  const int64_t per_head = (in.channels + kUpdateChannels - 1) / kUpdateChannels;
  const int64_t tasks = in.batch * in.heads * per_head;
  const bool worth_threads = in.batch * in.heads * in.channels * in.states >= kStatesWorthThreads;
  // How channels are dealt to tasks depends on the sizes alone, and so does every result.
  parallel_for(tasks, worth_threads ? in.num_threads : 1, [&](int64_t task) {
    const int64_t chunk = task % per_head, head = task / per_head % in.heads, batch = task / per_head / in.heads;
    UpdateTask<F>(in, batch, head, chunk * kUpdateChannels).template run<Pass>();
  });
}

}  // namespace ssm::SSM_ISA
