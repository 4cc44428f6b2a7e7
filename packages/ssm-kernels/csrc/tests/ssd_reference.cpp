#include "tests/ssd_reference.h"

namespace ssm::tests {
namespace {

using Row = std::vector<double>;

double sigmoid(double x) { return 1 / (1 + std::exp(-x)); }

Tensor zeros_like(const Tensor& t) { return t.present() ? Tensor(DType::f64, t.shape()) : Tensor(); }

// The last axis of a tensor.
template <class... Index>
Row row_of(const Tensor& t, Index... index) {
  Row row(static_cast<size_t>(t.shape().back()));
  for (size_t k = 0; k < row.size(); ++k) row[k] = t(index..., k);
  return row;
}

// One head of one sequence: states and rows are read once, since they are needed again on the way back.
class Head {
 public:
  Head(const SsdTensors& in, const SsdCotangents& cotangents, const SsdResults& out, const Sequence& sequence,
       int64_t head)
      : in_(in), cotangents_(cotangents), out_(out), sequence_(sequence), head_(head),
        group_(head / (in.x.size(2) / in.B.size(2))), channels_(size_t(in.x.size(3))), states_(size_t(in.B.size(3))),
        A_(in.A(head)), skip_(channels_) {
    for (size_t k = 0; k < channels_ && in.D.present(); ++k)
      skip_[k] = in.D.shape().size() == 2 ? in.D(head, k) : in.D(head);
  }

  void run() {
    Row S = state_in(in_.initial_state);
    for (int64_t step = 0; step < sequence_.steps; ++step) {
      trajectory_.push_back(S);
      advance(time(step), S);
    }
    state_out(S, out_.final_state);
    Row G = state_in(cotangents_.final_state);  // gradient of the state after the step
    for (int64_t step = sequence_.steps - 1; step >= 0; --step) {
      const Row& before = trajectory_[size_t(step)];
      go_back(time(step), before, step + 1 < sequence_.steps ? trajectory_[size_t(step) + 1] : S, G);
    }
    state_out(G, out_.grad_initial_state);
  }

 private:
  int64_t time(int64_t step) const {
    return sequence_.first + (in_.reverse ? sequence_.steps - 1 - step : step);
  }

  Row state_in(const Tensor& from) const {
    Row state(channels_ * states_);
    if (!from.present()) return state;
    for (size_t k = 0; k < channels_; ++k)
      for (size_t n = 0; n < states_; ++n) state[k * states_ + n] = from(sequence_.index, head_, k, n);
    return state;
  }
  void state_out(const Row& state, const Tensor& to) const {
    for (size_t k = 0; k < channels_; ++k)
      for (size_t n = 0; n < states_; ++n) to.add(state[k * states_ + n], sequence_.index, head_, k, n);
  }

  // The step before and after it is brought within its limits.
  double raw(int64_t t) const {
    return in_.dt(sequence_.batch, t, head_) + (in_.dt_bias.present() ? in_.dt_bias(head_) : 0);
  }
  double plain(int64_t t) const {
    const double x = raw(t);
    return in_.softplus && x <= 20 ? std::log1p(std::exp(x)) : x;
  }
  double size(int64_t t) const { return std::fmin(std::fmax(plain(t), in_.dt_min), in_.dt_max); }
  double slope(int64_t t) const {
    if (plain(t) < in_.dt_min || plain(t) > in_.dt_max) return 0;
    return in_.softplus && raw(t) <= 20 ? sigmoid(raw(t)) : 1;
  }

  // y before the gate.
  double sum(const Row& S, const Row& C, const Row& x, size_t k) const {
    double sum = skip_[k] * x[k];
    for (size_t n = 0; n < states_; ++n) sum += S[k * states_ + n] * C[n];
    return sum;
  }

  void advance(int64_t t, Row& S) const {
    const int64_t b = sequence_.batch;
    const Row x = row_of(in_.x, b, t, head_), B = row_of(in_.B, b, t, group_), C = row_of(in_.C, b, t, group_);
    const double step = size(t), decay = std::exp(step * A_);
    for (size_t k = 0; k < channels_; ++k) {
      for (size_t n = 0; n < states_; ++n) S[k * states_ + n] = decay * S[k * states_ + n] + step * x[k] * B[n];
      const double z = in_.z.present() ? in_.z(b, t, head_, k) : 0;
      out_.y.add(sum(S, C, x, k) * (in_.z.present() ? z * sigmoid(z) : 1), b, t, head_, k);
    }
  }

  // From the gradient of the state after the step to that of the state before it.
  void go_back(int64_t t, const Row& before, const Row& after, Row& G) const {
    const int64_t b = sequence_.batch;
    const Row x = row_of(in_.x, b, t, head_), B = row_of(in_.B, b, t, group_), C = row_of(in_.C, b, t, group_);
    const double step = size(t), decay = std::exp(step * A_);
    Row grad_B(states_), grad_C(states_);
    double grad_step = 0, grad_log = 0;  // of the step size in dt x, and of the decay's logarithm
    for (size_t k = 0; k < channels_; ++k) {
      double dy = cotangents_.y(b, t, head_, k), grad_driven = 0;
      if (in_.z.present()) {
        const double z = in_.z(b, t, head_, k), s = sigmoid(z);
        out_.grad_z.add(dy * sum(after, C, x, k) * (s + z * s * (1 - s)), b, t, head_, k);
        dy *= z * s;
      }
      for (size_t n = 0; n < states_; ++n) {
        double& g = G[k * states_ + n];
        g += dy * C[n];
        grad_C[n] += dy * after[k * states_ + n];
        grad_B[n] += g * step * x[k];
        grad_driven += g * B[n];
        grad_log += g * decay * before[k * states_ + n];
        g *= decay;
      }
      grad_step += grad_driven * x[k];
      out_.grad_x.add(grad_driven * step + skip_[k] * dy, b, t, head_, k);
      if (in_.D.present() && in_.D.shape().size() == 2) out_.grad_D.add(dy * x[k], head_, k);
      else if (in_.D.present()) out_.grad_D.add(dy * x[k], head_);
    }
    for (size_t n = 0; n < states_; ++n) {
      out_.grad_B.add(grad_B[n], b, t, group_, n);
      out_.grad_C.add(grad_C[n], b, t, group_, n);
    }
    const double grad_raw = (grad_step + grad_log * A_) * slope(t);
    out_.grad_A.add(grad_log * step, head_);
    out_.grad_dt.add(grad_raw, b, t, head_);
    if (in_.dt_bias.present()) out_.grad_dt_bias.add(grad_raw, head_);
  }

  const SsdTensors& in_;
  const SsdCotangents& cotangents_;
  const SsdResults& out_;
  const Sequence sequence_;
  const int64_t head_, group_;
  const size_t channels_, states_;
  const double A_;
  Row skip_;
  std::vector<Row> trajectory_;  // the state before each step
};

}  // namespace

SsdResults ssd_reference(const SsdTensors& in, const SsdCotangents& cotangents) {
  SsdResults out;
  out.y = zeros_like(in.x), out.final_state = Tensor(DType::f64, in.state_shape());
  out.grad_x = zeros_like(in.x), out.grad_dt = zeros_like(in.dt), out.grad_A = zeros_like(in.A);
  out.grad_B = zeros_like(in.B), out.grad_C = zeros_like(in.C), out.grad_D = zeros_like(in.D);
  out.grad_z = zeros_like(in.z), out.grad_dt_bias = zeros_like(in.dt_bias);
  out.grad_initial_state = Tensor(DType::f64, in.state_shape());
  const Sequences sequences = in.sequences();
  for (int64_t index = 0; index < sequences.count; ++index)
    for (int64_t head = 0; head < in.x.size(2); ++head)
      Head(in, cotangents, out, sequences.at(index), head).run();
  return out;
}

}  // namespace ssm::tests
