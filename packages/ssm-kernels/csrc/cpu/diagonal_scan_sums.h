// The gradient of an a that is broadcast: sums over the axes where it has one value for all.
//
// Every task adds to a place of its own, except that sequences sharing a place follow each other.  The places follow
// from the sizes alone and are added up in a fixed order, so the sums do not depend on the number of threads.
#pragma once

#include "cpu/diagonal_scan.h"
#include "cpu/parallel.h"

namespace ssm::SSM_ISA::diagonal {

template <class F, bool Complex>
class SumsOfA {
 public:
  static constexpr int64_t P = kParts<Complex>;

  SumsOfA(const DiagonalBackward& params, const Panels<F, Complex>& panels)
      : in_(params.in), panels_(panels), to_(static_cast<F*>(params.grad_a)),
        wanted_(params.grad_a != nullptr && in_.a_broadcast()), over_time_(wanted_ && !in_.a_per_step),
        per_step_(wanted_ && in_.a_per_step && !in_.a_per_channel),
        size_(over_time_ ? chunks() * row() : per_step_ ? panels.count * steps() : 0),
        scratch_(Scratch::size<F>(size_)), sums_(scratch_.template take_zeroed<F>(size_)) {
    // Sums over the batch alone are added to in place.
    if (wanted_ && size_ == 0) std::memset(to_, 0, static_cast<size_t>(steps() * in_.channels) * sizeof(F));
  }

  // Tasks of different sequences add to the same place.
  static bool shared_by_sequences(const DiagonalBackward& params) {
    return params.grad_a != nullptr && params.in.a_per_step && !params.in.a_per_batch;
  }

  // The panel's place for the steps of one chunk, if a is the same at every step; else nullptr.
  F* over_time(const Sequence& s, int64_t chunk, const Panel& panel) const {
    return over_time_ ? sums_ + (place(s) + chunk) * row() + panel.index * panels_.row : nullptr;
  }

  // The panel's place for the channels of one step, if a is the same for all of them; else nullptr.
  F* over_channels(const Sequence& s, int64_t step, const Panel& panel) const {
    return per_step_ ? sums_ + panel.index * steps() + (batch_of_a(s) * in_.steps + step) * P : nullptr;
  }

  // Adds everything up into the gradient.
  void finish() const {
    if (over_time_ && in_.a_per_channel) {
      parallel_for(panels_.count, in_.num_threads, [&](int64_t k) { finish_panel(panels_[k]); });
    } else if (over_time_) {
      for (int64_t batch = 0; batch < batches(); ++batch) finish_all_channels(batch);
    } else if (per_step_) {
      for (int64_t i = 0; i < steps(); ++i) {
        F total = 0;
        for (int64_t k = 0; k < panels_.count; ++k) total += sums_[k * steps() + i];
        to_[i] = total;
      }
    }
  }

 private:
  int64_t row() const { return panels_.count * panels_.row; }
  int64_t batches() const { return in_.a_per_batch ? in_.batch : 1; }
  int64_t steps() const { return batches() * in_.steps * P; }
  int64_t batch_of_a(const Sequence& s) const { return in_.a_per_batch ? s.batch : 0; }

  // Sequences of different lengths need a place per chunk: a sequence touches at most one stretch of kChunk steps more
  // than it has chunks, so counting sequences and stretches before it leaves enough.
  int64_t place(const Sequence& s) const { return (s.batch * in_.steps + s.first) / kChunk + s.index; }
  int64_t chunks() const { return in_.batch * in_.steps / kChunk + in_.sequences().count + 1; }
  int64_t first_place(int64_t batch) const { return in_.a_per_batch && batch > 0 ? place(in_.sequences().at(batch)) : 0; }
  int64_t last_place(int64_t batch) const {
    return batch + 1 < batches() ? first_place(batch + 1) : chunks();
  }

  void finish_panel(const Panel& panel) const {
    double totals[kPanelBytes / sizeof(F)];
    for (int64_t batch = 0; batch < batches(); ++batch) {
      for (double& total : totals) total = 0;
      for (int64_t c = first_place(batch); c < last_place(batch); ++c)
        for (int64_t i = 0; i < panel.count * P; ++i) totals[i] += sums_[c * row() + panel.index * panels_.row + i];
      for (int64_t i = 0; i < panel.count * P; ++i)
        to_[(batch * in_.channels + panel.first) * P + i] = static_cast<F>(totals[i]);
    }
  }

  void finish_all_channels(int64_t batch) const {
    double totals[P] = {};
    for (int64_t c = first_place(batch); c < last_place(batch); ++c)
      for (int64_t i = 0; i < row(); ++i) totals[i % P] += sums_[c * row() + i];
    for (int64_t part = 0; part < P; ++part) to_[batch * P + part] = static_cast<F>(totals[part]);
  }

  const DiagonalInputs& in_;
  const Panels<F, Complex>& panels_;
  F* to_;
  bool wanted_, over_time_, per_step_;
  int64_t size_;
  Scratch scratch_;
  F* sums_;
};

}  // namespace ssm::SSM_ISA::diagonal
