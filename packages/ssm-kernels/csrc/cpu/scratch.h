// Scratch memory of one task: a block that is handed out piece by piece and freed as a whole.  A thread keeps up to two
// blocks of at most 8 MiB for what it does next.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>

namespace ssm {

// 64-byte aligned, not initialised; throws std::bad_alloc.  Free with free_scratch.
void* allocate_scratch(int64_t bytes);
void free_scratch(void* block) noexcept;

}  // namespace ssm

#if defined(SSM_ISA)
namespace ssm::SSM_ISA {

class Scratch {
 public:
  explicit Scratch(int64_t bytes) : begin_(static_cast<char*>(allocate_scratch(bytes))), next_(begin_) {}
  ~Scratch() { free_scratch(begin_); }
  Scratch(const Scratch&) = delete;
  Scratch& operator=(const Scratch&) = delete;

  // Bytes that take() uses for this many elements of F: the next piece is aligned again.
  template <class F>
  static int64_t size(int64_t count) {
    return (count * static_cast<int64_t>(sizeof(F)) + 63) / 64 * 64;
  }

  template <class F>
  F* take(int64_t count) {
    F* piece = reinterpret_cast<F*>(next_);
    next_ += size<F>(count);
    return piece;
  }

  template <class F>
  F* take_zeroed(int64_t count) {
    F* piece = take<F>(count);
    std::memset(piece, 0, static_cast<size_t>(count) * sizeof(F));
    return piece;
  }

 private:
  char* begin_;
  char* next_;
};

}  // namespace ssm::SSM_ISA
#endif
