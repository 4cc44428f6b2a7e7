// The Cauchy sum, R[c, h, k] = sum_n v p + conj(v) q with p = 1 / (z - w) and q = 1 / (z - conj(w)), and its gradients
// with g that of R:
//   grad v = sum_k g conj(p) + conj(g) q,  grad w = sum_c conj(v) sum_k g conj(p^2) + conj(g) q^2,
//   grad z = -sum_c g conj(sum_n v p^2 + conj(v) q^2).
#include "cpu/cauchy.h"

#include "cpu/operators.h"
#include "cpu/pole_gradients.h"

namespace ssm::SSM_ISA {
namespace {

using namespace cauchy;

// The inputs of the nodes [first, first + count) of one row.
template <class F>
class Piece {
 public:
  static constexpr int64_t kBytes = Parts<F>::kBytes;

  Piece(Scratch& scratch, const CauchyInputs& in) : in_(in), z_(scratch) {}

  int64_t row = 0, first = 0, count = 0;

  void read(int64_t new_row, int64_t index) {
    row = new_row, first = index * kNodes, count = smaller(kNodes, in_.nodes - first);
    const F* z = static_cast<const F*>(in_.z) + 2 * (in_.z_per_row ? row * in_.nodes : 0);
    z_.read(z + 2 * first, count);
  }

  int64_t row_of(int64_t channel) const { return channel * in_.rows + row; }
  const F* v(int64_t channel) const { return static_cast<const F*>(in_.v) + 2 * row_of(channel) * in_.states; }
  int64_t nodes(int64_t channel) const { return 2 * (row_of(channel) * in_.nodes + first); }

  SSM_INLINE Pole<F> pole(Vec<F> z_re, Vec<F> z_im, int64_t n) const {
    const F* w = static_cast<const F*>(in_.w) + 2 * (row * in_.states + n);
    return {z_re, z_im, w[0], w[1]};
  }
  SSM_INLINE Pole<F> pole(int64_t k, int64_t n) const { return pole(load<F>(z_.re + k), load<F>(z_.im + k), n); }

  // result[c] <- sum_n v[channel + c] p + conj(v) q, or that of the squares.  Channels share the fractions.
  template <int Channels, bool Squared>
  SSM_NOINLINE void sum_states(int64_t channel, const Parts<F>* result) const {
    for (int64_t k = 0; k < count; k += kWidth<F>) {
      const Vec<F> z_re = load<F>(z_.re + k), z_im = load<F>(z_.im + k);
      Vec<F> re[Channels], im[Channels];
      SSM_UNROLL
      for (int c = 0; c < Channels; ++c) re[c] = im[c] = Vec<F>{};
      for (int64_t n = 0; n < in_.states; ++n) {
        const Pole<F> at = pole(z_re, z_im, n);
        const Fractions<F> f = Squared ? at.squared() : at.plain();
        SSM_UNROLL
        for (int c = 0; c < Channels; ++c) {
          const F* v_n = v(channel + c) + 2 * n;
          re[c] += v_n[0] * f.sum_re - v_n[1] * f.difference_im;
          im[c] += v_n[0] * f.sum_im + v_n[1] * f.difference_re;
        }
      }
      SSM_UNROLL
      for (int c = 0; c < Channels; ++c) store(result[c].re + k, re[c]), store(result[c].im + k, im[c]);
    }
  }

 private:
  const CauchyInputs& in_;
  Parts<F> z_;
};

constexpr int kChannels = 4;  // whose sums stay in registers

// Calls use(first, count) for all channels, a few at a time; result: the sums of those.
template <class F, bool Squared, class Use>
void sum_channels(const Piece<F>& piece, int64_t channels, const Parts<F>* result, Use use) {
  int64_t c = 0;
  for (; c + kChannels <= channels; c += kChannels) {
    piece.template sum_states<kChannels, Squared>(c, result);
    use(c, kChannels);
  }
  for (; c < channels; ++c) {
    piece.template sum_states<1, Squared>(c, result);
    use(c, 1);
  }
}

template <class F>
void forward(const CauchyForward& params) {
  const CauchyInputs& in = params.in;
  const int64_t pieces = pieces_of(in.nodes);
  parallel_for(in.rows * pieces, in.num_threads, [&](int64_t task) {
    Scratch scratch(Piece<F>::kBytes + kChannels * Parts<F>::kBytes);
    Piece<F> piece(scratch, in);
    const Parts<F> result[kChannels] = {Parts<F>(scratch), Parts<F>(scratch), Parts<F>(scratch), Parts<F>(scratch)};
    piece.read(task / pieces, task % pieces);
    sum_channels<F, false>(piece, in.channels, result, [&](int64_t c, int count) {
      for (int i = 0; i < count; ++i) result[i].write(static_cast<F*>(params.R) + piece.nodes(c + i), piece.count);
    });
  });
}

template <class F>
SSM_INLINE double sum_lanes(Vec<F> v) {
  F lane[kWidth<F>];
  store(lane, v);
  double sum = 0;
  for (int i = 0; i < kWidth<F>; ++i) sum += lane[i];
  return sum;
}

// sum_k g conj(p) + conj(g) q and that of the squares, as PoleGradients wants them.  table: the eight parts of the
// fractions of one pole, kNodes of each.
template <class F>
SSM_NOINLINE void sum_nodes(const F* table, const Parts<F>& g, int64_t count, double* to) {
  Vec<F> sum[4] = {};
  for (int64_t k = 0; k < count; k += kWidth<F>) {
    const Vec<F> re = load<F>(g.re + k), im = load<F>(g.im + k);
    SSM_UNROLL
    for (int power = 0; power < 2; ++power) {
      const F* f = table + 4 * power * kNodes + k;
      sum[2 * power] += re * load<F>(f) + im * load<F>(f + kNodes);
      sum[2 * power + 1] += im * load<F>(f + 2 * kNodes) - re * load<F>(f + 3 * kNodes);
    }
  }
  for (int i = 0; i < 4; ++i) to[i] = sum_lanes<F>(sum[i]);
}

template <class F>
SSM_INLINE void store_parts(F* table, int64_t k, Fractions<F> f) {
  store(table + k, f.sum_re), store(table + kNodes + k, f.sum_im);
  store(table + 2 * kNodes + k, f.difference_re), store(table + 3 * kNodes + k, f.difference_im);
}

// Sums over the nodes of a piece for the gradients of v and w.
template <class F>
void pole_sums(const CauchyBackward& params, const PoleGradients& gradients, int64_t task) {
  const CauchyInputs& in = params.in;
  const int64_t pieces = pieces_of(in.nodes), index = task % pieces;
  Scratch scratch(Piece<F>::kBytes + Parts<F>::kBytes + Scratch::size<F>(8 * kNodes));
  Piece<F> piece(scratch, in);
  Parts<F> g(scratch);
  F* const table = scratch.take<F>(8 * kNodes);
  piece.read(task / pieces, index);
  for (int64_t n = 0; n < in.states; ++n) {
    for (int64_t k = 0; k < piece.count; k += kWidth<F>) {
      const Pole<F> at = piece.pole(k, n);
      store_parts(table, k, at.plain()), store_parts(table + 4 * kNodes, k, at.squared());
    }
    for (int64_t c = 0; c < in.channels; ++c) {
      if (n == 0 || in.channels > 1) {
        g.read(static_cast<const F*>(params.grad_R) + piece.nodes(c), piece.count);
        g.clear_after(piece.count);
      }
      sum_nodes<F>(table, g, piece.count, gradients.at(index, c, piece.row) + 4 * n);
    }
  }
}

// The gradient of the nodes of a piece: of z (k,) it is a sum over all rows, in their order.
template <class F>
void node_gradients(const CauchyBackward& params, int64_t task) {
  const CauchyInputs& in = params.in;
  const int64_t pieces = pieces_of(in.nodes);
  Scratch scratch(Piece<F>::kBytes + (kChannels + 2) * Parts<F>::kBytes);
  Piece<F> piece(scratch, in);
  const Parts<F> sums[kChannels] = {Parts<F>(scratch), Parts<F>(scratch), Parts<F>(scratch), Parts<F>(scratch)};
  Parts<F> g(scratch), total(scratch);
  std::memset(total.re, 0, kNodes * sizeof(F)), std::memset(total.im, 0, kNodes * sizeof(F));
  const int64_t first_row = in.z_per_row ? task / pieces : 0, last_row = in.z_per_row ? first_row + 1 : in.rows;
  for (int64_t row = first_row; row < last_row; ++row) {
    piece.read(row, task % pieces);
    sum_channels<F, true>(piece, in.channels, sums, [&](int64_t c, int count) {
      for (int i = 0; i < count; ++i) {
        g.read(static_cast<const F*>(params.grad_R) + piece.nodes(c + i), piece.count);
        for (int64_t k = 0; k < piece.count; ++k) {
          total.re[k] -= g.re[k] * sums[i].re[k] + g.im[k] * sums[i].im[k];
          total.im[k] -= g.im[k] * sums[i].re[k] - g.re[k] * sums[i].im[k];
        }
      }
    });
  }
  total.write(static_cast<F*>(params.grad_z) + 2 * (first_row * in.nodes + piece.first), piece.count);
}

template <class F>
void backward(const CauchyBackward& params) {
  const CauchyInputs& in = params.in;
  const int64_t pieces = pieces_of(in.nodes);
  if (params.grad_v != nullptr || params.grad_w != nullptr) {
    const PoleGradients gradients(pieces, in.channels, in.rows, in.states);
    parallel_for(in.rows * pieces, in.num_threads, [&](int64_t task) { pole_sums<F>(params, gradients, task); });
    gradients.finish(static_cast<const F*>(in.v), static_cast<F*>(params.grad_v), static_cast<F*>(params.grad_w),
                     in.num_threads);
  }
  if (params.grad_z != nullptr)
    parallel_for(in.z_per_row ? in.rows * pieces : pieces, in.num_threads,
                 [&](int64_t task) { node_gradients<F>(params, task); });
}

}  // namespace

void cauchy_forward(const CauchyForward& params) {
  return params.in.dtype == DType::f64 ? forward<double>(params) : forward<float>(params);
}

void cauchy_backward(const CauchyBackward& params) {
  return params.in.dtype == DType::f64 ? backward<double>(params) : backward<float>(params);
}

}  // namespace ssm::SSM_ISA
