// The loops behind LimitRound.  A compiler that sees a result unused deletes the work, and one that sees the input
// deletes it too: every loop reads what `opaque` has hidden and gives its result to `opaque`.
#include "cpu/machine_limits.h"

#include "cpu/operators.h"
#include "cpu/parallel.h"
#include "cpu/vec_math.h"

namespace ssm::SSM_ISA {
namespace {

constexpr int W = kWidth<float>;

// Tells the compiler that anything may happen to this memory.  Costs no instruction.
SSM_INLINE void opaque(void* memory) { __asm__ volatile("" : : "r"(memory) : "memory"); }

// Independent chains of multiply-adds: enough to hide the latency of one (4 steps on 2 units need 8, on 4 units 16), and
// few enough to stay in the registers (16 for SSE and AVX2).
#if defined(SSM_ISA_IS_avx512) || !defined(__x86_64__)
constexpr int kChains = 20;
#else
constexpr int kChains = 12;
#endif
constexpr int64_t kChainSteps = 500000;

int64_t multiply_add() {
  alignas(64) float memory[(kChains + 2) * W];
  for (int i = 0; i < (kChains + 2) * W; ++i) memory[i] = 0.5f;
  opaque(memory);
  Vec<float> x[kChains];
  SSM_UNROLL
  for (int i = 0; i < kChains; ++i) x[i] = load<float>(memory + i * W);
  const Vec<float> y = load<float>(memory + kChains * W), z = load<float>(memory + (kChains + 1) * W);
  for (int64_t step = 0; step < kChainSteps; ++step) {
    SSM_UNROLL
    for (int i = 0; i < kChains; ++i) x[i] = x[i] * y + z;
  }
  SSM_UNROLL
  for (int i = 0; i < kChains; ++i) store(memory + i * W, x[i]);
  opaque(memory);
  return kChainSteps * kChains * W;
}

constexpr int kNumbers = 2048;  // 8 KiB in and 8 KiB out stay in the first-level cache
constexpr int64_t kPasses = 4000;

int64_t exponential() {
  alignas(64) float in[kNumbers], out[kNumbers];
  for (int i = 0; i < kNumbers; ++i) in[i] = -0.16f * static_cast<float>(i % 97);
  opaque(in);
  for (int64_t pass = 0; pass < kPasses; ++pass) {
    for (int i = 0; i < kNumbers; i += 4 * W) {
      SSM_UNROLL
      for (int j = i; j < i + 4 * W; j += W) store(out + j, exp2<float>(load<float>(in + j)));
    }
    opaque(out);
  }
  return kPasses * kNumbers;
}

template <bool Streaming>
SSM_INLINE void store_aligned(float* to, Vec<float> v) {
#if defined(SSM_ISA_IS_avx512)
  if constexpr (Streaming) return _mm512_stream_ps(to, (__m512)v);
#elif defined(SSM_ISA_IS_avx2)
  if constexpr (Streaming) return _mm256_stream_ps(to, (__m256)v);
#elif defined(__SSE2__) && !defined(SSM_GENERIC_VECTORS)
  if constexpr (Streaming) return _mm_stream_ps(to, (__m128)v);
#endif
  store(to, v);
}

template <bool Streaming>
void triad(const LimitRound& round, int64_t begin, int64_t end) {
  for (int64_t i = begin; i < end; i += W)
    store_aligned<Streaming>(round.a + i, load<float>(round.b + i) + 3.0f * load<float>(round.c + i));
#if defined(__SSE2__) && !defined(SSM_GENERIC_VECTORS)
  if constexpr (Streaming) _mm_sfence();  // the stores are on their way only: wait for them
#endif
}

template <bool Streaming>
int64_t triad(const LimitRound& round) {
  const int64_t tasks = 8 * round.num_threads, lines = round.count / 64;
  parallel_for(tasks, round.num_threads, [&](int64_t task) {
    triad<Streaming>(round, lines * task / tasks * 64, lines * (task + 1) / tasks * 64);
  });
  return lines * 64;
}

// The same amount of work on every thread; returns all of it.
template <class Work>
int64_t on_every_thread(const LimitRound& round, Work work) {
  int64_t done = 0;
  parallel_for(round.num_threads, round.num_threads, [&](int64_t task) {
    const int64_t count = work();
    if (task == 0) done = count;
  });
  return done * round.num_threads;
}

}  // namespace

int64_t machine_limit_round(const LimitRound& round) {
  switch (round.loop) {
    case LimitLoop::multiply_add: return on_every_thread(round, multiply_add);
    case LimitLoop::exponential: return on_every_thread(round, exponential);
    case LimitLoop::triad: return triad<false>(round);
    case LimitLoop::triad_streaming: return triad<true>(round);
  }
  return 0;
}

}  // namespace ssm::SSM_ISA
