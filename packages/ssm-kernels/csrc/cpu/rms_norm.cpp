// RMS norm, plain or gated, without a gradient.  A task is some rows.
#include "rms_norm_params.h"

#include <math.h>

#include <cstring>

#include "cpu/operators.h"
#include "cpu/parallel.h"
#include "cpu/sum_of_lanes.h"
#include "cpu/vec_math.h"

namespace ssm::SSM_ISA {
namespace {

constexpr int64_t kTaskNumbers = 1 << 13;  // of x per task: enough work to pay for handing it out

// Not std::sqrt: it may stay out of line.
SSM_INLINE float square_root(float x) { return ::sqrtf(x); }
SSM_INLINE double square_root(double x) { return ::sqrt(x); }

template <class F>
void normalise(const F* x, const F* weight, F* y, int64_t channels, F eps) {
  constexpr int64_t W = kWidth<F>;
  const int64_t whole = channels / W * W;
  Vec<F> squares = {};
  for (int64_t i = 0; i < whole; i += W) squares += load<F>(x + i) * load<F>(x + i);
  F sum = sum_of_lanes<F>(squares);
  for (int64_t i = whole; i < channels; ++i) sum += x[i] * x[i];
  const F scale = 1 / square_root(sum / static_cast<F>(channels) + eps);
  for (int64_t i = 0; i < whole; i += W) store(y + i, load<F>(x + i) * scale * load<F>(weight + i));
  for (int64_t i = whole; i < channels; ++i) y[i] = x[i] * scale * weight[i];
}

// Up to kWidth neighbours, zeros beyond.
template <class F>
Vec<F> load_some(const F* from, int64_t count) {
  F lanes[kWidth<F>] = {};
  std::memcpy(lanes, from, static_cast<size_t>(count) * sizeof(F));
  return load<F>(lanes);
}

// y <- x silu(gate), then its norm.
template <class F>
void normalise_gated(const F* x, const F* gate, const F* weight, F* y, int64_t channels, F eps) {
  constexpr int64_t W = kWidth<F>;
  // The sums of a scan grow with the fourth power of its input, and their squares leave float32.  A power of two changes
  // no digit.
  constexpr F kSmaller = F(1) / (int64_t{1} << 32);
  const int64_t whole = channels / W * W, rest = channels - whole;
  Vec<F> squares = {};
  const auto gated = [&](Vec<F> own, Vec<F> z) {
    const Vec<F> v = own * (z * sigmoid<F>(z) * kSmaller);
    squares += v * v;
    return v;
  };
  for (int64_t i = 0; i < whole; i += W) store(y + i, gated(load<F>(x + i), load<F>(gate + i)));
  if (rest > 0) {
    F lanes[W];
    store(lanes, gated(load_some<F>(x + whole, rest), load_some<F>(gate + whole, rest)));
    std::memcpy(y + whole, lanes, static_cast<size_t>(rest) * sizeof(F));
  }
  const F mean = sum_of_lanes<F>(squares) / static_cast<F>(channels);
  const F scale = 1 / square_root(mean + eps * (kSmaller * kSmaller));
  for (int64_t i = 0; i < whole; i += W) store(y + i, load<F>(y + i) * scale * load<F>(weight + i));
  for (int64_t i = whole; i < channels; ++i) y[i] = y[i] * scale * weight[i];
}

template <class F>
void all_rows(const RmsNorm& params) {
  const int64_t d = params.channels, row_size = params.groups * d;
  if (d == 0) return;
  const int64_t most = kTaskNumbers / row_size > 0 ? kTaskNumbers / row_size : 1, tasks = (params.rows + most - 1) / most;
  const F* x = static_cast<const F*>(params.x);
  const F* gate = static_cast<const F*>(params.gate);
  F* y = static_cast<F*>(params.y);
  const F eps = static_cast<F>(params.eps);
  parallel_for(tasks, params.num_threads, [&](int64_t task) {
    const int64_t first = task * most, end = first + most < params.rows ? first + most : params.rows;
    for (int64_t row = first; row < end; ++row) {
      for (int64_t at = 0; at < row_size; at += d) {
        const F* weight = static_cast<const F*>(params.weight) + at;
        const int64_t i = row * row_size + at;
        if (gate == nullptr) normalise<F>(x + i, weight, y + i, d, eps);
        else normalise_gated<F>(x + i, gate + row * params.gate_stride + at, weight, y + i, d, eps);
      }
    }
  });
}

}  // namespace

void rms_norm(const RmsNorm& params) {
  if (params.dtype == DType::f64) return all_rows<double>(params);
  return all_rows<float>(params);
}

}  // namespace ssm::SSM_ISA
