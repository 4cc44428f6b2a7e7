// Runs a pass of the diagonal scan over all sequences and channels.
//
// Sequences and panels of channels are independent.  Where they are few and a sequence is long, its chunks run at once
// too: every chunk first computes what it makes of a zero state and the product of its a, these give the state before
// each chunk, and then the chunks run as if one after another.  How the work is cut depends on the sizes alone, so the
// result does not depend on the number of threads.
//
// A task is made by make(panel) and has: workspace(); begin(sequence) and end(sequence) that take the state from and to
// the tensors; run(sequence, first, last, keep) that advances the state over rows [first, last) of one chunk and writes
// the results, or (keep = false) multiplies the product up instead; kConjugate: the state is multiplied by conj(a).
#pragma once

#include "cpu/diagonal_scan_task.h"
#include "cpu/parallel.h"

namespace ssm::SSM_ISA::diagonal {

// Their inputs are read twice and should stay in the cache in between.
constexpr int64_t kChunksTogether = 16;

// All chunks of one panel, one after another.
template <class Task>
void run_rows(Task& task, const Sequence& s, int64_t first, int64_t last) {
  for (; first < last; first += kChunk) task.run(s, first, smaller(first + kChunk, last), true);
}

template <class F>
void copy_row(F* to, const F* from, int64_t row) {
  std::memcpy(to, from, static_cast<size_t>(row) * sizeof(F));
}

// States and products at the borders of the chunks that run together, (chunks, panels, row) each.
template <class F, bool Complex>
class Borders {
 public:
  explicit Borders(const Panels<F, Complex>& panels)
      : size_(panels.count * panels.row), row_(panels.row),
        scratch_(3 * Scratch::size<F>(kChunksTogether * size_)) {
    for (F** piece : {&states_, &results_, &products_})
      *piece = scratch_.template take_zeroed<F>(kChunksTogether * size_);
  }

  F* state(int64_t chunk, int64_t panel) const { return states_ + chunk * size_ + panel * row_; }
  // What the chunk makes of a zero state, and the product of its a.
  F* result(int64_t chunk, int64_t panel) const { return results_ + chunk * size_ + panel * row_; }
  F* product(int64_t chunk, int64_t panel) const { return products_ + chunk * size_ + panel * row_; }

  // Finds the states before chunks 1 to `last`; false if a number is not finite: then only the plain order of
  // operations tells where infinity ends and NaN begins.
  template <bool Conjugate>
  bool join(int64_t last) const {
    bool finite = true;
    for (int64_t at = 0; at < last * size_; at += kWidth<F>) {
      const Vec<F> product = load<F>(products_ + at), result = load<F>(results_ + at);
      const Vec<F> next = times<F, Complex, Conjugate>(product, load<F>(states_ + at)) + result;
      store(states_ + at + size_, next);
      // x - x is 0 for a finite x, else NaN
      const Vec<F> zero = (next - next) + (product - product) + (result - result);
      F lanes[kWidth<F>];
      store(lanes, zero);
      for (F lane : lanes) finite = finite && lane == F(0);
    }
    return finite;
  }

 private:
  int64_t size_, row_;
  Scratch scratch_;
  F *states_, *results_, *products_;
};

template <class F, bool Complex, class Make>
void run_in_chunks(const DiagonalInputs& in, const Panels<F, Complex>& panels, const Sequence& s, const Make& make) {
  using Task = decltype(make(panels[0]));
  const Borders<F, Complex> borders(panels);
  for (int64_t k = 0; k < panels.count; ++k) {
    auto task = make(panels[k]);
    task.begin(s);
    copy_row(borders.state(0, k), task.workspace().state, task.workspace().row);
  }
  constexpr int64_t kMostSteps = kChunksTogether * kChunk;
  for (int64_t begin = 0; begin < s.steps; begin += kMostSteps) {
    const int64_t end = smaller(begin + kMostSteps, s.steps), chunks = ceil_div(end - begin, kChunk);
    parallel_for((chunks - 1) * panels.count, in.num_threads, [&](int64_t index) {
      const int64_t chunk = index / panels.count, k = index % panels.count, first = begin + chunk * kChunk;
      auto task = make(panels[k]);
      task.run(s, first, first + kChunk, false);
      copy_row(borders.result(chunk, k), task.workspace().state, task.workspace().row);
      copy_row(borders.product(chunk, k), task.workspace().product, task.workspace().row);
    });
    const int64_t stretches = borders.template join<Task::kConjugate>(chunks - 1) ? chunks : 1;
    const int64_t steps = stretches == 1 ? end - begin : kChunk;
    parallel_for(stretches * panels.count, in.num_threads, [&](int64_t index) {
      const int64_t stretch = index / panels.count, k = index % panels.count, first = begin + stretch * steps;
      auto task = make(panels[k]);
      const int64_t row = task.workspace().row;
      copy_row(task.workspace().state, borders.state(stretch, k), row);
      run_rows(task, s, first, smaller(first + steps, end));
      if (stretch == stretches - 1) copy_row(borders.result(0, k), task.workspace().state, row);
    });
    for (int64_t k = 0; k < panels.count; ++k) copy_row(borders.state(0, k), borders.result(0, k), panels.row);
  }
  for (int64_t k = 0; k < panels.count; ++k) {
    auto task = make(panels[k]);
    copy_row(task.workspace().state, borders.state(0, k), task.workspace().row);
    task.end(s);
  }
}

// one_by_one: the sequences add to the same results, so that for each panel they must follow each other.
template <class F, bool Complex, class Make>
void run_all(const DiagonalInputs& in, const Panels<F, Complex>& panels, bool one_by_one, const Make& make) {
  const Sequences sequences = in.sequences();
  if (sequences.count == 0) return;
  const int64_t per_task = one_by_one ? sequences.count : 1;
  parallel_for(sequences.count / per_task * panels.count, in.num_threads, [&](int64_t index) {
    const int64_t first = index / panels.count * per_task;
    auto task = make(panels[index % panels.count]);
    for (int64_t i = first; i < first + per_task; ++i) {
      const Sequence s = sequences.at(i);
      if (runs_in_chunks(in, s.steps)) continue;
      task.begin(s);
      run_rows(task, s, 0, s.steps);
      task.end(s);
    }
  });
  for (int64_t i = 0; i < sequences.count; ++i)
    if (const Sequence s = sequences.at(i); runs_in_chunks(in, s.steps)) run_in_chunks(in, panels, s, make);
}

}  // namespace ssm::SSM_ISA::diagonal
