// The inner part of a Mamba mixer, without a gradient: convolution, projections and scan of several directions.
//
// A task of the first part is some steps of one direction: what it convolves is projected while it is in the cache.  The
// weights of the projections are packed before.
#include "mamba_directions_params.h"

#include "cpu/causal_conv1d_forward.h"
#include "cpu/operators.h"
#include "cpu/parallel.h"
#include "cpu/product.h"

namespace ssm::SSM_ISA {
namespace {

constexpr int64_t kMixerSteps = 24;  // of one task; a multiple of the rows of a block
static_assert(kMixerSteps % kProductRows == 0 && kMixerSteps <= kConvTile);

template <class F>
class Mixer {
 public:
  explicit Mixer(const MambaDirections& in)
      : in_(in), space_(in), workspace_(reinterpret_cast<F*>(in.workspace)), tiles_((in.steps + kMixerSteps - 1) / kMixerSteps) {}

  void run() const {
    parallel_for(in_.count * 3, in_.num_threads, [&](int64_t task) { prepare(task / 3, task % 3); });
    parallel_for(in_.count * in_.batch * tiles_, in_.num_threads, [&](int64_t task) {
      const int64_t direction = task % in_.count, tile = task / in_.count;
      project(direction, tile / tiles_, tile % tiles_ * kMixerSteps);
    });
    scan();
  }

 private:
  F* piece(int64_t direction, int64_t place) const { return workspace_ + direction * space_.direction + place; }

  // One of three: the weights of the two projections, and A = -exp(A_log).
  void prepare(int64_t direction, int64_t what) const {
    const MambaDirection& own = in_.directions[direction];
    const int64_t coefficients = in_.rank + 2 * in_.states;
    if (what == 0) return pack_weight<F>(own.x_proj, coefficients, in_.channels, piece(direction, space_.x_proj));
    if (what == 1) return pack_weight<F>(own.dt_proj, in_.channels, in_.rank, piece(direction, space_.dt_proj));
    const F* A_log = static_cast<const F*>(own.A_log);
    F* A = piece(direction, space_.A);
    const int64_t size = in_.channels * in_.states, whole = size / kWidth<F> * kWidth<F>;
    for (int64_t i = 0; i < whole; i += kWidth<F>) store(A + i, -exp<F>(load<F>(A_log + i)));
    if (whole == size) return;
    F rest[kWidth<F>] = {};
    std::memcpy(rest, A_log + whole, static_cast<size_t>(size - whole) * sizeof(F));
    store(A + whole, -exp<F>(load<F>(rest)));  // into the padding
  }

  // The steps from `begin` on, in the order of processing: u, then (step size, B, C), then delta.
  void project(int64_t direction, int64_t batch, int64_t begin) const {
    const int64_t end = begin + kMixerSteps < in_.steps ? begin + kMixerSteps : in_.steps;
    convolve(direction, batch, begin, end);
    const int64_t first = batch * in_.steps + (in_.directions[direction].reverse ? in_.steps - end : begin);
    const F* u = piece(direction, space_.u) + first * space_.channels;
    F* projected = piece(direction, space_.projected) + first * space_.coefficients;
    F* delta = piece(direction, space_.delta) + first * space_.channels;
    multiply<F>({u, space_.channels}, end - begin, in_.channels, piece(direction, space_.x_proj),
                in_.rank + 2 * in_.states, {projected, space_.coefficients});
    multiply<F>({projected, space_.coefficients}, end - begin, in_.rank, piece(direction, space_.dt_proj), in_.channels,
                {delta, space_.channels});
  }

  void convolve(int64_t direction, int64_t batch, int64_t begin, int64_t end) const {
    const MambaDirection& own = in_.directions[direction];
    ConvForward params;
    ConvInputs& conv = params.in;
    conv.batch = in_.batch, conv.steps = in_.steps, conv.channels = in_.channels, conv.width = in_.width;
    conv.dtype = in_.dtype, conv.x = in_.x, conv.weight = own.conv_weight, conv.bias = own.conv_bias;
    conv.silu = true, conv.reverse = own.reverse;
    params.y = rows(direction, space_.u, space_.channels);
    with_width(in_.width, [&](auto width) {
      for (int64_t k = 0; k < conv_blocks<F>(conv); ++k)
        convolve_block<F, decltype(width)::value>(params, conv.sequences().at(batch), begin, end, conv_block<F>(conv, k));
    });
  }

  // A (b, l, ..) part of the workspace.
  View3 rows(int64_t direction, int64_t place, int64_t width) const {
    return {reinterpret_cast<char*>(piece(direction, place)), in_.steps * width, width, 1, in_.dtype};
  }

  CoefficientView coefficient(int64_t direction, int64_t column) const {
    const View3 view = rows(direction, space_.projected + column, space_.coefficients);
    return {view.data, 1, view.stride_b, view.stride_l, 0, 1};
  }

  void scan() const {
    ScanForward scans[kMostDirections];
    for (int64_t k = 0; k < in_.count; ++k) {
      const MambaDirection& own = in_.directions[k];
      ScanInputs& scan = scans[k].in;
      scan.batch = in_.batch, scan.steps = in_.steps, scan.channels = in_.channels, scan.states = in_.states;
      scan.dtype = in_.dtype, scan.num_threads = in_.num_threads;
      scan.u = rows(k, space_.u, space_.channels), scan.delta = rows(k, space_.delta, space_.channels);
      if (k == in_.count - 1) scan.z = in_.z;
      scan.B = coefficient(k, in_.rank), scan.C = coefficient(k, in_.rank + in_.states);
      scan.A = piece(k, space_.A), scan.D = own.D, scan.delta_bias = own.dt_bias;
      scan.delta_softplus = true, scan.reverse = own.reverse;
      scans[k].y = in_.y, scans[k].gate_factor = in_.factor;
    }
    selective_scan_directions_forward(scans, in_.count);
  }

  const MambaDirections& in_;
  const MambaWorkspace space_;
  F* const workspace_;
  const int64_t tiles_;
};

}  // namespace

void mamba_directions(const MambaDirections& params) {
  if (params.dtype == DType::f64) return Mixer<double>(params).run();
  return Mixer<float>(params).run();
}

}  // namespace ssm::SSM_ISA
