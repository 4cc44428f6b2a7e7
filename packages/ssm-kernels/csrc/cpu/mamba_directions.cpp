// The inner part of a Mamba mixer, without a gradient: convolution, projections and scan of several directions.
//
// The weights of the projections are packed first.  Then a task is one direction of one sequence from end to end: what it
// convolves is projected, and what it projects is scanned, while it is in the cache.  Where there are too few of these for
// the threads, tasks are some steps, then some channels.  The directions are added up and gated last.
#include "mamba_directions_params.h"

#include <numeric>

#include "cpu/causal_conv1d_forward.h"
#include "cpu/operators.h"
#include "cpu/parallel.h"
#include "cpu/product.h"
#include "cpu/selective_scan_real_forward.h"

namespace ssm::SSM_ISA {
namespace {

constexpr int64_t kMixerSteps = 24;  // of one task; a multiple of the rows of a block
static_assert(kMixerSteps % kProductRows == 0 && kMixerSteps <= kConvTile);

// Where the intermediate results of all directions lie, in elements.  Rows are padded to whole vectors.
template <class F>
struct Workspace {
  int64_t channels, coefficients;  // elements of a row of u, delta or y, and of (step size, B, C)
  int64_t u, delta, y, projected, A, x_proj, dt_proj;  // where they begin in a direction
  int64_t direction;                                   // elements per direction

  static int64_t padded(int64_t count) { return ceil_div(count, kWidth<F>) * kWidth<F>; }

  explicit Workspace(const MambaDirections& in)
      : channels(padded(in.channels)), coefficients(padded(in.rank + 2 * in.states)) {
    const int64_t rows = in.batch * in.steps;
    u = 0;
    delta = u + rows * channels;
    y = delta + rows * channels;  // of one direction among several
    projected = y + (in.count > 1 ? rows * channels : 0);
    A = projected + rows * coefficients;
    x_proj = A + padded(in.channels * in.states);
    dt_proj = x_proj + in.channels * coefficients;
    direction = dt_proj + in.rank * channels;
  }
};

template <class F>
class Mixer {
 public:
  explicit Mixer(const MambaDirections& in)
      : in_(in), space_(in), scratch_(Scratch::size<F>(in.count * space_.direction)),
        workspace_(scratch_.take<F>(in.count * space_.direction)), tiles_(ceil_div(in.steps, kMixerSteps)) {}

  void run() const {
    parallel_for(in_.count * 3, in_.num_threads, [&](int64_t task) { prepare(task / 3, task % 3); });
    const int64_t streams = in_.count * in_.batch;
    // Equal shares only: with one stream more than threads all but one of these would wait for it.
    if (streams % in_.num_threads == 0) {
      parallel_for(streams, in_.num_threads, [&](int64_t task) { stream(task % in_.count, task / in_.count); });
    } else {
      parallel_for(streams * tiles_, in_.num_threads, [&](int64_t task) {
        const int64_t direction = task % in_.count, tile = task / in_.count;
        project(direction, tile / tiles_, tile % tiles_ * kMixerSteps);
      });
      for (int64_t k = 0; k < in_.count; ++k) selective_scan_forward(scan_of(k));
    }
    if (in_.count == 1) return;  // then the scan has gated it
    const int64_t chunks = in_.batch * ceil_div(in_.steps, kTileSteps);
    parallel_for(chunks, in_.num_threads, [&](int64_t task) { add_up(task); });
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

  ScanForward scan_of(int64_t k) const {
    const MambaDirection& own = in_.directions[k];
    ScanForward params;
    ScanInputs& scan = params.in;
    scan.batch = in_.batch, scan.steps = in_.steps, scan.channels = in_.channels, scan.states = in_.states;
    scan.dtype = in_.dtype, scan.num_threads = in_.num_threads;
    scan.u = rows(k, space_.u, space_.channels), scan.delta = rows(k, space_.delta, space_.channels);
    scan.B = coefficient(k, in_.rank), scan.C = coefficient(k, in_.rank + in_.states);
    scan.A = piece(k, space_.A), scan.D = own.D, scan.delta_bias = own.dt_bias;
    scan.delta_softplus = true, scan.reverse = own.reverse;
    params.gate_factor = in_.factor;
    if (in_.count == 1) scan.z = in_.z, params.y = in_.y;
    else params.y = rows(k, space_.y, space_.channels);
    return params;
  }

  // One direction of one sequence.
  void stream(int64_t direction, int64_t batch) const {
    const ScanForward params = scan_of(direction);
    const Partition whole = Partition::of_one_slab(params.in, kWidth<F>);
    int64_t projected = 0;
    ForwardTask<F, RealForward, true, true> task(params, whole, params.in.sequences().at(batch), 0);
    task.run([&](const Chunk& chunk) {
      for (; projected < chunk.begin + chunk.rows; projected += kMixerSteps) project(direction, batch, projected);
    });
  }

  // Some steps of the result.
  void add_up(int64_t task) const {
    constexpr int64_t W = kWidth<F>, tile = kTileSteps * W;
    ScanInputs in;
    in.batch = in_.batch, in.steps = in_.steps, in.channels = in_.channels, in.dtype = in_.dtype;
    const int64_t chunks = ceil_div(in_.steps, kTileSteps), blocks = ceil_div(in_.channels, W);
    const Chunk chunk(in, in.sequences().at(task / chunks), task % chunks);
    const F factor = static_cast<F>(in_.factor);
    alignas(64) F z[kPanelBlocks * tile], sum[kPanelBlocks * tile], y[kPanelBlocks * tile];
    for (int64_t first = 0; first < blocks; first += kPanelBlocks) {
      const int64_t size = smaller(kPanelBlocks, blocks - first) * tile;
      const Channels panel = {first * W, smaller(kPanelBlocks * W, in_.channels - first * W)};
      read_chunk<F>(in, in_.z, chunk, panel, z);
      read_chunk<F>(in, rows(0, space_.y, space_.channels), chunk, panel, sum);
      for (int64_t k = 1; k < in_.count; ++k) {
        read_chunk<F>(in, rows(k, space_.y, space_.channels), chunk, panel, y);
        for (int64_t i = 0; i < size; i += W) store(sum + i, load<F>(sum + i) + load<F>(y + i));
      }
      for (int64_t i = 0; i < size; i += W) {
        const Vec<F> gate = load<F>(z + i);
        store(sum + i, load<F>(sum + i) * (factor * gate * sigmoid<F>(gate)));
      }
      write_chunk<F>(in, in_.y, chunk, panel, sum);
    }
  }

  const MambaDirections& in_;
  const Workspace<F> space_;
  Scratch scratch_;
  F* const workspace_;
  const int64_t tiles_;
};

// Scratch memory up to this size is kept, and near the cache.  A batch of 64 sequences of 65 steps and 384 channels took
// 48 ms with one workspace of 40 MB, and 21 ms in parts.
constexpr int64_t kMostBytes = int64_t{1} << 23;

// The sequences of a batch that are worked on together: equal shares for all threads, as many as a workspace of
// kMostBytes allows.
template <class F>
int64_t sequences_at_once(const MambaDirections& in) {
  MambaDirections one = in;
  one.batch = 1;
  const int64_t bytes = in.count * Workspace<F>(one).direction * static_cast<int64_t>(sizeof(F));
  const int64_t share = in.num_threads / std::gcd(int64_t{in.num_threads}, in.count);
  return larger(1, kMostBytes / larger(bytes, 1) / share) * share;
}

View3 from_sequence(const View3& view, int64_t first) {
  View3 rest = view;
  rest.data += first * view.stride_b * size_of(view.dtype);
  return rest;
}

template <class F>
void in_parts(const MambaDirections& in) {
  const int64_t most = sequences_at_once<F>(in);
  for (int64_t first = 0; first < in.batch; first += most) {
    MambaDirections part = in;
    part.batch = smaller(most, in.batch - first);
    part.x = from_sequence(in.x, first), part.z = from_sequence(in.z, first), part.y = from_sequence(in.y, first);
    Mixer<F>(part).run();
  }
}

}  // namespace

void mamba_directions(const MambaDirections& params) {
  if (params.dtype == DType::f64) return in_parts<double>(params);
  return in_parts<float>(params);
}

}  // namespace ssm::SSM_ISA
