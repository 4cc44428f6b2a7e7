// RMS norm without a gradient.  A task is some rows.
#include "rms_norm_params.h"

#include <math.h>

#include "cpu/operators.h"
#include "cpu/parallel.h"
#include "cpu/vec.h"

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
  F lanes[W];
  store(lanes, squares);
  F sum = 0;
  for (int64_t i = 0; i < W; ++i) sum += lanes[i];
  for (int64_t i = whole; i < channels; ++i) sum += x[i] * x[i];
  const F scale = 1 / square_root(sum / static_cast<F>(channels) + eps);
  for (int64_t i = 0; i < whole; i += W) store(y + i, load<F>(x + i) * scale * load<F>(weight + i));
  for (int64_t i = whole; i < channels; ++i) y[i] = x[i] * scale * weight[i];
}

template <class F>
void all_rows(const RmsNorm& params) {
  const int64_t d = params.channels;
  if (d == 0) return;
  const int64_t most = kTaskNumbers / d > 0 ? kTaskNumbers / d : 1, tasks = (params.rows + most - 1) / most;
  parallel_for(tasks, params.num_threads, [&](int64_t task) {
    const int64_t first = task * most, end = first + most < params.rows ? first + most : params.rows;
    for (int64_t row = first; row < end; ++row) {
      normalise<F>(static_cast<const F*>(params.x) + row * d, static_cast<const F*>(params.weight),
                   static_cast<F*>(params.y) + row * d, d, static_cast<F>(params.eps));
    }
  });
}

}  // namespace

void rms_norm(const RmsNorm& params) {
  if (params.dtype == DType::f64) return all_rows<double>(params);
  return all_rows<float>(params);
}

}  // namespace ssm::SSM_ISA
