// Tensors of the tests: doubles outwardly, any storage type and strides in memory.
#pragma once

#include <cmath>
#include <cstring>
#include <limits>
#include <memory>
#include <vector>

#include "params.h"
#include "tests/check.h"
#include "tests/half.h"

namespace ssm::tests {

// How a tensor lies in memory.
struct Layout {
  std::vector<int> order;       // the axes from the outermost to the innermost; empty: as they are
  int backwards = -1;           // axis with a negative stride
  int repeated = -1;            // axis with stride 0
  int64_t step = 1, gap = 0;    // of the innermost axis: its stride, and elements left out after each row
};

// The block in memory is exactly as large as needed: the sanitizers see an access of one element too far.
class Tensor {
 public:
  Tensor() = default;  // absent

  // shifted: begin one element after what the allocator aligned.
  Tensor(DType dtype, std::vector<int64_t> shape, const Layout& layout = {}, bool shifted = false)
      : present_(true), dtype_(dtype), shape_(std::move(shape)), strides_(shape_.size()) {
    const int axes = static_cast<int>(shape_.size());
    int64_t stride = layout.step, first = 0, last = 0;
    bool empty = false;
    for (int i = axes - 1; i >= 0; --i) {
      const int axis = layout.order.empty() ? i : layout.order[static_cast<size_t>(i)];
      const int64_t extent = size(axis);
      empty |= extent == 0;
      if (axis == layout.repeated) continue;
      strides_[static_cast<size_t>(axis)] = axis == layout.backwards ? -stride : stride;
      (axis == layout.backwards ? first : last) += (extent - 1) * stride;
      stride *= extent;
      if (i == axes - 1) stride += layout.gap;
    }
    if (empty) return;  // without an address, like an empty tensor of torch
    const int64_t elements = first + last + 1, shift = shifted ? 1 : 0;
    bytes_ = elements * size_of(dtype_);
    block_ = std::make_unique<char[]>(static_cast<size_t>(bytes_ + shift * size_of(dtype_)));
    begin_ = block_.get() + shift * size_of(dtype_);
    data_ = begin_ + first * size_of(dtype_);
  }

  bool present() const { return present_; }
  DType dtype() const { return dtype_; }
  int64_t size(int axis) const { return shape_[static_cast<size_t>(axis)]; }
  int64_t stride(int axis) const { return strides_[static_cast<size_t>(axis)]; }
  const std::vector<int64_t>& shape() const { return shape_; }
  char* data() const { return data_; }
  View3 view() const { return present_ ? View3{data_, stride(0), stride(1), stride(2), dtype_} : View3{}; }

  double at(const std::vector<int64_t>& index) const { return read(data_ + offset(index) * size_of(dtype_)); }
  template <class... Index>
  double operator()(Index... index) const {
    return read(data_ + offset({static_cast<int64_t>(index)...}) * size_of(dtype_));
  }
  template <class... Index>
  void add(double value, Index... index) const {
    char* to = data_ + offset({static_cast<int64_t>(index)...}) * size_of(dtype_);
    write(to, read(to) + value);
  }

  void fill(Random& random, double low, double high) const {
    for (int64_t at = 0; at < bytes_; at += size_of(dtype_)) write(begin_ + at, random.uniform(low, high));
  }
  void fill(double value) const {
    for (int64_t at = 0; at < bytes_; at += size_of(dtype_)) write(begin_ + at, value);
  }

  bool same_bytes(const Tensor& other) const {
    return bytes_ == other.bytes_ && (bytes_ == 0 || std::memcmp(begin_, other.begin_, size_t(bytes_)) == 0);
  }

 private:
  template <class Index>
  int64_t offset(const Index& index) const {
    int64_t sum = 0;
    const int64_t* stride = strides_.data();
    for (int64_t i : index) sum += i * *stride++;
    return sum;
  }
  int64_t offset(std::initializer_list<int64_t> index) const { return offset<std::initializer_list<int64_t>>(index); }

  double read(const char* from) const {
    switch (dtype_) {
      case DType::f32: return copy<float>(from);
      case DType::f64: return copy<double>(from);
      case DType::bf16: return decode_half(copy<uint16_t>(from), 7);
      case DType::f16: return decode_half(copy<uint16_t>(from), 10);
    }
    return 0;
  }
  void write(char* to, double value) const {
    switch (dtype_) {
      case DType::f32: return put(to, static_cast<float>(value));
      case DType::f64: return put(to, value);
      case DType::bf16: return put(to, encode_half(value, 7));
      case DType::f16: return put(to, encode_half(value, 10));
    }
  }
  template <class T>
  static T copy(const char* from) {
    T value;
    std::memcpy(&value, from, sizeof value);
    return value;
  }
  template <class T>
  static void put(char* to, T value) {
    std::memcpy(to, &value, sizeof value);
  }

  bool present_ = false;
  DType dtype_ = DType::f32;
  std::vector<int64_t> shape_, strides_;
  std::unique_ptr<char[]> block_;
  int64_t bytes_ = 0;
  char* begin_ = nullptr;
  char* data_ = nullptr;
};

inline DType compute_type(DType dtype) { return dtype == DType::f64 ? DType::f64 : DType::f32; }

// A layout for a tensor whose first `axes` axes may be moved; the last `fixed` ones stay innermost with stride 1.
inline Layout random_layout(Random& random, int axes, int fixed = 0) {
  Layout layout;
  for (int i = 0; i < axes + fixed; ++i) layout.order.push_back(i);
  const auto axis = [&] { return static_cast<int>(random.below(axes)); };
  if (random.chance(40))  // some other order
    for (int i = axes - 1; i > 0; --i) std::swap(layout.order[size_t(i)], layout.order[size_t(random.below(i + 1))]);
  if (random.chance(20)) layout.backwards = axis();
  if (random.chance(15)) layout.repeated = axis();
  if (fixed == 0 && random.chance(20)) layout.step = 2;
  if (fixed == 0 && random.chance(30)) layout.gap = 3;
  return layout;
}

// Every element of `got` within tolerance * (largest magnitude wanted, at least 1: the terms of a sum that cancels) and half
// a unit of its storage of `want`.
inline void check_close(const Tensor& got, const Tensor& want, double tolerance, const char* name) {
  CHECK_MESSAGE(got.present() && got.shape() == want.shape(), std::string(name) + ": absent or of another shape");
  if (!got.present() || got.shape() != want.shape()) return;
  std::vector<std::vector<int64_t>> indices = {{}};
  for (int64_t extent : got.shape()) {
    std::vector<std::vector<int64_t>> longer;
    for (const std::vector<int64_t>& index : indices)
      for (int64_t i = 0; i < extent; ++i) {
        longer.push_back(index);
        longer.back().push_back(i);
      }
    indices.swap(longer);
  }
  double largest = 1;
  for (const auto& index : indices) largest = std::fmax(largest, std::fabs(want.at(index)));
  const double storage = got.dtype() == DType::bf16 ? 0x1p-8 : got.dtype() == DType::f16 ? 0x1p-11 : 0;
  double worst = -1, value = 0, wanted = 0;
  for (const auto& index : indices) {
    const double w = want.at(index), g = got.at(index);
    const double slack = tolerance * largest + storage * std::fabs(w) + (storage > 0 ? 0x1p-25 : 0);
    const double excess = std::isnan(g) ? std::numeric_limits<double>::infinity() : std::fabs(g - w) / slack;
    if (excess > worst) worst = excess, value = g, wanted = w;
  }
  char text[200];
  std::snprintf(text, sizeof text, "%s: %.9g instead of %.9g, %.3g times the tolerance", name, value, wanted, worst);
  CHECK_MESSAGE(worst <= 1, text);
}

}  // namespace ssm::tests
