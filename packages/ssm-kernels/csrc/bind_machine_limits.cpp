// Times the loops of cpu/machine_limits.h.  The clock and the arrays live here, outside the files that are compiled per
// instruction set.
#include <chrono>
#include <cstring>
#include <map>
#include <memory>
#include <stdexcept>
#include <string>

#include <pybind11/stl.h>

#include "bindings.h"
#include "cpu/isa.h"
#include "cpu/machine_limits.h"
#include "cpu/scratch.h"

namespace py = pybind11;

namespace ssm {
namespace {

using Clock = std::chrono::steady_clock;
using Array = std::unique_ptr<float, void (*)(void*)>;

double seconds_since(Clock::time_point start) { return std::chrono::duration<double>(Clock::now() - start).count(); }

Array make_array(int64_t count, float value) {
  Array array(static_cast<float*>(allocate_scratch(count * 4)), [](void* block) { free_scratch(block); });
  for (int64_t i = 0; i < count; ++i) array.get()[i] = value;  // also brings the pages in
  return array;
}

// Operations per second of the fastest round within `seconds`; at least one round after the warm-up.
double best_rate(const KernelTable& kernels, const LimitRound& round, double seconds) {
  kernels.machine_limit_round(round);
  double best = 0;
  const Clock::time_point begin = Clock::now();
  do {
    const Clock::time_point start = Clock::now();
    const double work = static_cast<double>(kernels.machine_limit_round(round));
    const double rate = work / seconds_since(start);
    best = rate > best ? rate : best;
  } while (seconds_since(begin) < seconds);
  return best;
}

std::map<std::string, double> machine_limits(int num_threads, int64_t array_bytes, double seconds) {
  if (num_threads < 1) throw std::invalid_argument("num_threads must be 1 or more");
  if (array_bytes < 256) throw std::invalid_argument("array_bytes must be 256 or more");
  if (!(seconds >= 0)) throw std::invalid_argument("seconds must be 0 or more");
  const KernelTable& kernels = active_kernels();
  const int64_t count = array_bytes / 256 * 64;
  LimitRound round;
  round.num_threads = num_threads;
  round.count = count;

  py::gil_scoped_release release;
  const Array a = make_array(count, 0.0f), b = make_array(count, 1.0f), c = make_array(count, 2.0f);
  round.a = a.get(), round.b = b.get(), round.c = c.get();
  std::map<std::string, double> rates;
  for (const auto& [name, loop] : {std::pair("multiply_add", LimitLoop::multiply_add),
                                   std::pair("exponential", LimitLoop::exponential),
                                   std::pair("triad", LimitLoop::triad),
                                   std::pair("triad_streaming", LimitLoop::triad_streaming)}) {
    round.loop = loop;
    rates[name] = best_rate(kernels, round, seconds);
  }
  return rates;
}

}  // namespace

void bind_machine_limits(py::module_& module) {
  module.def("machine_limits", &machine_limits, py::arg("num_threads"), py::arg("array_bytes"), py::arg("seconds"));
}

}  // namespace ssm
