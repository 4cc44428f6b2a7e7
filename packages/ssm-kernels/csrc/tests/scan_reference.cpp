#include "tests/scan_reference.h"

#include <complex>

namespace ssm::tests {
namespace {

using Complex = std::complex<double>;

Tensor zeros_like(const Tensor& t) { return t.present() ? Tensor(DType::f64, t.shape()) : Tensor(); }

// A number stored as one or two parts along the last axis.
template <class... Index>
Complex number(const Tensor& t, Index... index) {
  const bool pairs = t.shape().back() == 2;
  return {t(index..., 0), pairs ? t(index..., 1) : 0.0};
}

template <class... Index>
void add_number(const Tensor& t, Complex value, Index... index) {
  t.add(value.real(), index..., 0);
  if (t.shape().back() == 2) t.add(value.imag(), index..., 1);
}

// B or C for one batch index, step, channel and state, whether it varies with time or not.
struct Coefficients {
  const Tensor& tensor;
  int64_t channels;

  bool variable() const { return tensor.shape().size() == 5; }
  int64_t group(int64_t d) const { return d / (channels / tensor.size(2)); }
  Complex at(int64_t b, int64_t t, int64_t d, int64_t n) const {
    return variable() ? number(tensor, b, t, group(d), n) : number(tensor, d, n);
  }
  void add(Complex value, int64_t b, int64_t t, int64_t d, int64_t n) const {
    if (variable()) add_number(tensor, value, b, t, group(d), n);
    else add_number(tensor, value, d, n);
  }
};

double sigmoid(double x) { return 1 / (1 + std::exp(-x)); }

// One sequence of one channel, forwards and back.  Gradients are d/d re + i d/d im.
void scan_channel(const ScanTensors& in, const ScanCotangents& cotangents, const ScanResults& out, int64_t b,
                  int64_t d) {
  const int64_t steps = in.u.size(1), channels = in.u.size(2), states = in.A.size(1);
  const double factor = in.complex_A ? 2 : 1;  // the other state of each conjugate pair
  const Coefficients B = {in.B, channels}, C = {in.C, channels};
  const Coefficients grad_B = {out.grad_B, channels}, grad_C = {out.grad_C, channels};
  const double D = in.D.present() ? in.D(d) : 0, bias = in.delta_bias.present() ? in.delta_bias(d) : 0;
  const auto time = [&](int64_t step) { return in.reverse ? steps - 1 - step : step; };
  const auto delta_before = [&](int64_t t) { return in.delta(b, t, d) + bias; };
  const auto delta_at = [&](int64_t t) {
    const double x = delta_before(t);
    return in.softplus && x <= 20 ? std::log1p(std::exp(x)) : x;
  };

  std::vector<std::vector<Complex>> h(static_cast<size_t>(steps) + 1, std::vector<Complex>(size_t(states)));
  std::vector<double> sums(static_cast<size_t>(steps));  // y before the gate
  for (int64_t n = 0; n < states; ++n)
    if (in.initial_state.present()) h[0][size_t(n)] = number(in.initial_state, b, d, n);
  for (int64_t step = 0; step < steps; ++step) {
    const int64_t t = time(step);
    const double delta = delta_at(t), u = in.u(b, t, d);
    double sum = D * u;
    for (int64_t n = 0; n < states; ++n) {
      Complex& next = h[size_t(step) + 1][size_t(n)];
      next = std::exp(delta * number(in.A, d, n)) * h[size_t(step)][size_t(n)] + delta * u * B.at(b, t, d, n);
      sum += factor * (C.at(b, t, d, n) * next).real();
    }
    sums[size_t(step)] = sum;
    const double z = in.z.present() ? in.z(b, t, d) : 0;
    out.y.add(in.z.present() ? sum * z * sigmoid(z) : sum, b, t, d);
  }
  for (int64_t n = 0; n < states; ++n) add_number(out.final_state, h[size_t(steps)][size_t(n)], b, d, n);

  std::vector<Complex> G(static_cast<size_t>(states));  // gradient of the state after the step
  for (int64_t n = 0; n < states; ++n)
    if (cotangents.final_state.present()) G[size_t(n)] = number(cotangents.final_state, b, d, n);
  for (int64_t step = steps - 1; step >= 0; --step) {
    const int64_t t = time(step);
    const double delta = delta_at(t), u = in.u(b, t, d);
    double grad_y = cotangents.y(b, t, d);
    if (in.z.present()) {
      const double z = in.z(b, t, d), s = sigmoid(z);
      out.grad_z.add(grad_y * sums[size_t(step)] * (s + z * s * (1 - s)), b, t, d);
      grad_y *= z * s;
    }
    double grad_delta = 0, grad_u = D * grad_y;
    for (int64_t n = 0; n < states; ++n) {
      const Complex A = number(in.A, d, n), decay = std::exp(delta * A), b_tn = B.at(b, t, d, n);
      const Complex before = h[size_t(step)][size_t(n)], after = h[size_t(step) + 1][size_t(n)];
      Complex& g = G[size_t(n)];
      g += factor * grad_y * std::conj(C.at(b, t, d, n));
      grad_C.add(factor * grad_y * std::conj(after), b, t, d, n);
      grad_B.add(g * delta * u, b, t, d, n);
      const double grad_product = (g * std::conj(b_tn)).real();  // of delta u
      const Complex grad_exponent = g * std::conj(before) * std::conj(decay);  // of delta A
      grad_u += grad_product * delta;
      grad_delta += grad_product * u + (grad_exponent * std::conj(A)).real();
      add_number(out.grad_A, grad_exponent * delta, d, n);
      g *= std::conj(decay);
    }
    const double x = delta_before(t), slope = in.softplus && x <= 20 ? sigmoid(x) : 1;
    out.grad_u.add(grad_u, b, t, d);
    out.grad_delta.add(grad_delta * slope, b, t, d);
    if (in.delta_bias.present()) out.grad_delta_bias.add(grad_delta * slope, d);
    if (in.D.present()) out.grad_D.add(grad_y * u, d);
  }
  if (in.initial_state.present())
    for (int64_t n = 0; n < states; ++n) add_number(out.grad_initial_state, G[size_t(n)], b, d, n);
}

}  // namespace

ScanResults scan_reference(const ScanTensors& in, const ScanCotangents& cotangents) {
  const int64_t batch = in.u.size(0), channels = in.u.size(2), states = in.A.size(1);
  ScanResults out;
  out.y = zeros_like(in.u);
  out.final_state = Tensor(DType::f64, {batch, channels, states, in.complex_A ? 2 : 1});
  out.grad_u = zeros_like(in.u);
  out.grad_delta = zeros_like(in.delta);
  out.grad_z = zeros_like(in.z);
  out.grad_A = zeros_like(in.A);
  out.grad_B = zeros_like(in.B);
  out.grad_C = zeros_like(in.C);
  out.grad_D = zeros_like(in.D);
  out.grad_delta_bias = zeros_like(in.delta_bias);
  out.grad_initial_state = zeros_like(in.initial_state);
  for (int64_t b = 0; b < batch; ++b)
    for (int64_t d = 0; d < channels; ++d) scan_channel(in, cotangents, out, b, d);
  return out;
}

}  // namespace ssm::tests
