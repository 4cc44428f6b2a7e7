// The vectors of vec.h in standard C++, for compilers without vector extensions: arrays, and operators that loop over them.
#pragma once

#include <cstdint>
#include <cstring>
#include <type_traits>

namespace ssm::SSM_ISA {

// Signed integers as wide as T: the lanes of a comparison's result, all bits set or none.
template <class T>
using MaskLane = typename std::conditional<
    sizeof(T) == 8, int64_t, typename std::conditional<sizeof(T) == 4, int32_t, int16_t>::type>::type;

// What lanes of T are added and shifted in: unsigned for integers, which wrap around then.
template <class T, bool Integer = std::is_integral<T>::value>
struct ArithmeticLane {
  using Type = T;
};
template <class T>
struct ArithmeticLane<T, true> {
  using Type = typename std::make_unsigned<T>::type;
};

template <class T, int N>
struct Lanes {
  using Wide = typename ArithmeticLane<T>::Type;
  using Mask = Lanes<MaskLane<T>, N>;

  T lane[N];

  Lanes() = default;
  SSM_INLINE Lanes(T x) {  // implicit: one operand of an operator may be a number
    for (int i = 0; i < N; ++i) lane[i] = x;
  }

  SSM_INLINE T& operator[](int i) { return lane[i]; }
  SSM_INLINE const T& operator[](int i) const { return lane[i]; }

#define SSM_LANES_OPERATOR(op)                                                                          \
  friend SSM_INLINE Lanes operator op(Lanes a, Lanes b) {                                               \
    for (int i = 0; i < N; ++i) a.lane[i] = static_cast<T>(Wide(a.lane[i]) op Wide(b.lane[i]));         \
    return a;                                                                                           \
  }                                                                                                     \
  friend SSM_INLINE Lanes& operator op##=(Lanes& a, Lanes b) { return a = a op b; }
  SSM_LANES_OPERATOR(+)
  SSM_LANES_OPERATOR(-)
  SSM_LANES_OPERATOR(*)
  SSM_LANES_OPERATOR(/)
  SSM_LANES_OPERATOR(&)
  SSM_LANES_OPERATOR(|)
  SSM_LANES_OPERATOR(^)
#undef SSM_LANES_OPERATOR

#define SSM_LANES_COMPARISON(op)                                                                        \
  friend SSM_INLINE Mask operator op(Lanes a, Lanes b) {                                                \
    Mask mask;                                                                                          \
    for (int i = 0; i < N; ++i) mask.lane[i] = a.lane[i] op b.lane[i] ? MaskLane<T>(-1) : MaskLane<T>(0); \
    return mask;                                                                                        \
  }
  SSM_LANES_COMPARISON(<)
  SSM_LANES_COMPARISON(<=)
  SSM_LANES_COMPARISON(>)
  SSM_LANES_COMPARISON(>=)
  SSM_LANES_COMPARISON(==)
  SSM_LANES_COMPARISON(!=)
#undef SSM_LANES_COMPARISON

  friend SSM_INLINE Lanes operator-(Lanes a) {
    for (int i = 0; i < N; ++i) a.lane[i] = -a.lane[i];
    return a;
  }
  friend SSM_INLINE Lanes operator~(Lanes a) {
    for (int i = 0; i < N; ++i) a.lane[i] = static_cast<T>(~a.lane[i]);
    return a;
  }
  friend SSM_INLINE Lanes operator<<(Lanes a, int bits) {
    for (int i = 0; i < N; ++i) a.lane[i] = static_cast<T>(Wide(a.lane[i]) << bits);
    return a;
  }
  friend SSM_INLINE Lanes operator>>(Lanes a, int bits) {  // keeps the sign
    for (int i = 0; i < N; ++i) a.lane[i] = static_cast<T>(a.lane[i] >> bits);
    return a;
  }
};

template <class F>
struct VecOf;
template <>
struct VecOf<float> {
  static constexpr int width = SSM_VECTOR_BYTES / 4;
  using Type = Lanes<float, width>;
  using Int = Lanes<int32_t, width>;
  using Bits = Lanes<uint32_t, width>;
  using Half = Lanes<uint16_t, width>;
};
template <>
struct VecOf<double> {
  static constexpr int width = SSM_VECTOR_BYTES / 8;
  using Type = Lanes<double, width>;
  using Int = Lanes<int64_t, width>;
};

template <class To, class From>
SSM_INLINE To same_bits(From v) {
  static_assert(sizeof(To) == sizeof(From), "vectors of one size");
  To to;
  std::memcpy(&to, &v, sizeof to);
  return to;
}

template <class T, int N, class From>
SSM_INLINE void convert_lanes(Lanes<T, N>& to, const From& from) {
  for (int i = 0; i < N; ++i) to.lane[i] = static_cast<T>(from.lane[i]);
}

template <class To, class From>
SSM_INLINE To convert(From v) {
  To to;
  convert_lanes(to, v);
  return to;
}

template <class T, int N>
SSM_INLINE Lanes<T, N> select(Lanes<MaskLane<T>, N> mask, Lanes<T, N> yes, Lanes<T, N> no) {
  for (int i = 0; i < N; ++i) yes.lane[i] = mask.lane[i] != 0 ? yes.lane[i] : no.lane[i];
  return yes;
}

template <int... I, class T, int N>
SSM_INLINE Lanes<T, N> shuffle(Lanes<T, N> a, Lanes<T, N> b) {
  return [&](auto... index) {
    Lanes<T, N> v;
    int i = 0;
    ((v.lane[i++] = index < N ? a.lane[index] : b.lane[index - N]), ...);
    return v;
  }(I...);
}

}  // namespace ssm::SSM_ISA
