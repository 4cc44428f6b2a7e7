// The sum of powers, K[c, h, t] = 2 Re sum_n v[c, h, n] exp(t x[h, n]), and its gradients with g that of K:
//   grad v = 2 sum_t g conj(exp(t x)),  grad x = sum_c conj(v) 2 sum_t g t conj(exp(t x)).
#include "cpu/log_vandermonde.h"
#include "cpu/operators.h"
#include "cpu/pole_gradients.h"

namespace ssm::SSM_ISA {
namespace {

using namespace vandermonde;

// Vectors and lines of a block of the matrix products that stays in registers.
#if defined(SSM_ISA_IS_avx512)
constexpr int kVectors = 4, kForwardLines = 4, kBackwardLines = 4;
#else
constexpr int kVectors = 2, kForwardLines = 4, kBackwardLines = 2;
#endif

// K[r, i] (+)= sum over m < depth of lines[r][m] places[m][i] for R lines; K has kPlaces numbers per line.
template <int R, class F>
SSM_NOINLINE void add_lines(const F* lines, const F* places, int64_t depth, bool add, F* K) {
  constexpr int64_t W = kWidth<F>;
  for (int64_t i = 0; i < kPlaces; i += kVectors * W) {
    Vec<F> sum[R][kVectors];
    SSM_UNROLL
    for (int r = 0; r < R; ++r)
      SSM_UNROLL
      for (int k = 0; k < kVectors; ++k) {
        sum[r][k] = Vec<F>{};
        if (add) sum[r][k] = load<F>(K + r * kPlaces + i + k * W);
      }
    for (int64_t m = 0; m < depth; ++m) {
      Vec<F> place[kVectors];
      SSM_UNROLL
      for (int k = 0; k < kVectors; ++k) place[k] = load<F>(places + m * kPlaces + i + k * W);
      SSM_UNROLL
      for (int r = 0; r < R; ++r) {
        const F line = lines[r * depth + m];
        SSM_UNROLL
        for (int k = 0; k < kVectors; ++k) sum[r][k] += line * place[k];
      }
    }
    SSM_UNROLL
    for (int r = 0; r < R; ++r)
      SSM_UNROLL
      for (int k = 0; k < kVectors; ++k) store(K + r * kPlaces + i + k * W, sum[r][k]);
  }
}

template <class F>
void forward_piece(const VandermondeForward& params, const Piece& piece) {
  const VandermondeInputs& in = params.in;
  const int64_t table = 2 * kStates * kPlaces, lines = piece.lines();
  Scratch scratch(Block<F>::kBytes + 2 * Scratch::size<F>(table) + Scratch::size<F>(lines * 2 * kStates) +
                  Scratch::size<F>(kPlaces));
  Block<F> block(scratch);
  F *const by_place = scratch.take<F>(table), *const places = scratch.take<F>(table);
  F* const line_table = scratch.take<F>(lines * 2 * kStates);
  F* const cut_short = scratch.take<F>(kPlaces);
  for (int64_t first = 0; first < in.states; first += kStates) {
    block.read(in, piece, first);
    block.places(by_place);
    const int64_t depth = 2 * block.padded;
    read_matrix<F>(kComputeType<F>, {reinterpret_cast<char*>(by_place), 1, depth, depth, kPlaces}, places, kPlaces);
    for (int64_t c = 0; c < in.channels; ++c) {
      const int64_t row = c * in.rows + piece.row;
      block.begin_lines(static_cast<const F*>(in.v) + 2 * (row * in.states + first), 2);
      block.lines(lines, [&](int64_t r, int64_t n, Complex z) {
        block.put(line_table + r * depth + n, {z.re, -z.im});
      });
      F* const K = static_cast<F*>(params.K) + row * in.steps + piece.first;
      // Blocks of states after the first add to what is there.
      const int64_t whole = piece.steps / kPlaces;
      int64_t r = 0;
      for (; r + kForwardLines <= whole; r += kForwardLines)
        add_lines<kForwardLines, F>(line_table + r * depth, places, depth, first > 0, K + r * kPlaces);
      for (; r < whole; ++r) add_lines<1, F>(line_table + r * depth, places, depth, first > 0, K + r * kPlaces);
      if (whole == lines) continue;
      const size_t bytes = static_cast<size_t>(piece.steps - whole * kPlaces) * sizeof(F);
      if (first > 0) std::memcpy(cut_short, K + whole * kPlaces, bytes);
      else std::memset(cut_short, 0, kPlaces * sizeof(F));
      add_lines<1, F>(line_table + whole * depth, places, depth, true, cut_short);
      std::memcpy(K + whole * kPlaces, cut_short, bytes);
    }
  }
}

// Of R lines r and the states n: sum_i g[r, i] p[i, n] and sum_i i g[r, i] p[i, n], each as real and imaginary part:
// sums[r][4][padded].  by_place: [i][2][padded].
template <int R, class F>
SSM_NOINLINE void sum_lines(const F* g, const F* by_place, int64_t padded, F* sums) {
  for (int64_t n = 0; n < padded; n += kWidth<F>) {
    Vec<F> sum[R][4];
    SSM_UNROLL
    for (int r = 0; r < R; ++r)
      SSM_UNROLL
      for (int k = 0; k < 4; ++k) sum[r][k] = Vec<F>{};
    for (int64_t i = 0; i < kPlaces; ++i) {
      const Vec<F> re = load<F>(by_place + 2 * i * padded + n), im = load<F>(by_place + (2 * i + 1) * padded + n);
      const Vec<F> re_i = re * F(i), im_i = im * F(i);
      SSM_UNROLL
      for (int r = 0; r < R; ++r) {
        const F gradient = g[r * kPlaces + i];
        sum[r][0] += gradient * re, sum[r][1] += gradient * im;
        sum[r][2] += gradient * re_i, sum[r][3] += gradient * im_i;
      }
    }
    SSM_UNROLL
    for (int r = 0; r < R; ++r)
      SSM_UNROLL
      for (int k = 0; k < 4; ++k) store(sums + (4 * r + k) * padded + n, sum[r][k]);
  }
}

template <class F>
SSM_INLINE Vec<double> widened(const F* from) {
  if constexpr (sizeof(F) == 8) {
    return load<double>(from);
  } else {
    double wide[kWidth<double>];
    for (int k = 0; k < kWidth<double>; ++k) wide[k] = from[k];
    return load<double>(wide);
  }
}

// The two sums over the steps of a piece, line by line: totals holds (n,) real and imaginary parts of each.
template <class F>
class Sums {
 public:
  static constexpr int64_t kBytes = 4 * kStates * static_cast<int64_t>(sizeof(double) + kBackwardLines * sizeof(F));

  Sums(Scratch& scratch, const Block<F>& block) : block_(block), lines_(scratch.take<F>(4 * kStates * kBackwardLines)) {
    totals_ = scratch.take<double>(4 * kStates);
  }

  void clear() { std::memset(totals_, 0, 4 * kStates * sizeof(double)); }

  // Lines in order; t: the step of the first.
  template <int R>
  void add(const F* g, const F* by_place, int64_t t) {
    const int64_t padded = block_.padded;
    sum_lines<R, F>(g, by_place, padded, lines_);
    block_.lines(R, [&](int64_t r, int64_t n, Complex power) {
      const F* line = lines_ + 4 * r * padded + n;
      const Complex sum = {widened(line), widened(line + padded)};
      const Complex sum_i = {widened(line + 2 * padded), widened(line + 3 * padded)};
      const Vec<double> begin = broadcast<double>(static_cast<double>(t + r * kPlaces));
      add_to(0, n, power * sum);
      add_to(2, n, power * Complex{begin * sum.re + sum_i.re, begin * sum.im + sum_i.im});
    });
  }

  // As PoleGradients wants them.
  void write(double* to) const {
    for (int64_t n = 0; n < block_.count; ++n)
      for (int k = 0; k < 4; ++k) to[4 * n + k] = (k % 2 == 0 ? 2 : -2) * totals_[k * kStates + n];
  }

 private:
  SSM_INLINE void add_to(int64_t place, int64_t n, Complex z) {
    double *const re = totals_ + place * kStates + n, *const im = re + kStates;
    store(re, load<double>(re) + z.re), store(im, load<double>(im) + z.im);
  }

  const Block<F>& block_;
  F* lines_;
  double* totals_;
};

template <class F>
void backward_piece(const VandermondeBackward& params, const PoleGradients& gradients, const Piece& piece) {
  const VandermondeInputs& in = params.in;
  const int64_t table = 2 * kStates * kPlaces;
  Scratch scratch(Block<F>::kBytes + Sums<F>::kBytes + Scratch::size<F>(table) + Scratch::size<F>(kPlaces));
  Block<F> block(scratch);
  Sums<F> sums(scratch, block);
  F *const by_place = scratch.take<F>(table), *const cut_short = scratch.take_zeroed<F>(kPlaces);
  for (int64_t first = 0; first < in.states; first += kStates) {
    block.read(in, piece, first);
    block.places(by_place);
    for (int64_t c = 0; c < in.channels; ++c) {
      const F* const g = static_cast<const F*>(params.grad_K) + (c * in.rows + piece.row) * in.steps + piece.first;
      const int64_t whole = piece.steps / kPlaces, rest = piece.steps - whole * kPlaces;
      sums.clear();
      block.begin_lines();
      int64_t r = 0;
      for (; r + kBackwardLines <= whole; r += kBackwardLines)
        sums.template add<kBackwardLines>(g + r * kPlaces, by_place, piece.first + r * kPlaces);
      for (; r < whole; ++r) sums.template add<1>(g + r * kPlaces, by_place, piece.first + r * kPlaces);
      if (rest > 0) {
        std::memcpy(cut_short, g + whole * kPlaces, static_cast<size_t>(rest) * sizeof(F));
        sums.template add<1>(cut_short, by_place, piece.first + whole * kPlaces);
      }
      sums.write(gradients.at(piece.index, c, piece.row) + 4 * first);
    }
  }
}

template <class F>
void forward(const VandermondeForward& params) {
  const VandermondeInputs& in = params.in;
  parallel_for(in.rows * pieces_of(in.steps), in.num_threads,
               [&](int64_t task) { forward_piece<F>(params, piece_of(in, task)); });
}

template <class F>
void backward(const VandermondeBackward& params) {
  const VandermondeInputs& in = params.in;
  const PoleGradients gradients(pieces_of(in.steps), in.channels, in.rows, in.states);
  parallel_for(in.rows * pieces_of(in.steps), in.num_threads,
               [&](int64_t task) { backward_piece<F>(params, gradients, piece_of(in, task)); });
  gradients.finish(static_cast<const F*>(in.v), static_cast<F*>(params.grad_v), static_cast<F*>(params.grad_x),
                   in.num_threads);
}

}  // namespace

void log_vandermonde_forward(const VandermondeForward& params) {
  return params.in.dtype == DType::f64 ? forward<double>(params) : forward<float>(params);
}

void log_vandermonde_backward(const VandermondeBackward& params) {
  return params.in.dtype == DType::f64 ? backward<double>(params) : backward<float>(params);
}

}  // namespace ssm::SSM_ISA
