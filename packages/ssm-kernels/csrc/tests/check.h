// The checks of the C++ tests, and their random numbers.  Each executable has one main, which ends with
// `return ssm::tests::report();`.
#pragma once

#include <cstdint>
#include <cstdio>
#include <initializer_list>
#include <random>
#include <string>

namespace ssm::tests {

inline int64_t checks = 0, failures = 0;
inline std::string context;  // what is being tested; printed with a failure

inline void check(bool passed, const char* file, int line, const std::string& what) {
  ++checks;
  if (passed) return;
  if (++failures <= 20) std::printf("%s:%d: %s\n    %s\n", file, line, what.c_str(), context.c_str());
}

#define CHECK(condition) ::ssm::tests::check(condition, __FILE__, __LINE__, #condition)
#define CHECK_MESSAGE(condition, message) ::ssm::tests::check(condition, __FILE__, __LINE__, message)

// The exit status of the executable.  A test that checked nothing fails.
inline int report() {
  std::printf("%lld checks, %lld failures\n", static_cast<long long>(checks), static_cast<long long>(failures));
  return checks == 0 || failures != 0;
}

// The same numbers on every machine, which the distributions of the standard library do not promise.
class Random {
 public:
  explicit Random(uint64_t seed) : engine_(seed) {}

  int64_t below(int64_t end) { return static_cast<int64_t>(engine_() % static_cast<uint64_t>(end)); }
  bool chance(int percent) { return below(100) < percent; }
  double uniform(double low, double high) {
    return low + (high - low) * (static_cast<double>(engine_() >> 11) * 0x1p-53);
  }
  template <class T>
  T pick(std::initializer_list<T> choices) {
    return choices.begin()[below(static_cast<int64_t>(choices.size()))];
  }

 private:
  std::mt19937_64 engine_;
};

}  // namespace ssm::tests
