// 16-bit floats written out plainly, to compare the kernels' conversions with.
#pragma once

#include <cmath>
#include <cstdint>
#include <limits>

namespace ssm::tests {

// bits: sign, then exponent, then `mantissa` bits; the largest exponent stands for infinity and NaN.
inline double decode_half(uint16_t bits, int mantissa) {
  const int exponent_bits = 15 - mantissa, bias = (1 << (exponent_bits - 1)) - 1;
  const int exponent = (bits & 0x7fff) >> mantissa, fraction = bits & ((1 << mantissa) - 1);
  double magnitude;
  if (exponent == (1 << exponent_bits) - 1) {
    magnitude = fraction == 0 ? std::numeric_limits<double>::infinity() : std::numeric_limits<double>::quiet_NaN();
  } else if (exponent == 0) {
    magnitude = std::ldexp(fraction, 1 - bias - mantissa);
  } else {
    magnitude = std::ldexp(fraction + (1 << mantissa), exponent - bias - mantissa);
  }
  return bits & 0x8000 ? -magnitude : magnitude;
}

// Rounds to nearest even; NaN becomes a quiet one.
inline uint16_t encode_half(double value, int mantissa) {
  const int exponent_bits = 15 - mantissa, bias = (1 << (exponent_bits - 1)) - 1;
  const int sign = std::signbit(value) ? 0x8000 : 0, infinity = ((1 << exponent_bits) - 1) << mantissa;
  const double magnitude = std::fabs(value);
  if (std::isnan(value)) return static_cast<uint16_t>(sign | infinity | 1 << (mantissa - 1));
  if (std::isinf(value)) return static_cast<uint16_t>(sign | infinity);
  int exponent = 0;
  std::frexp(magnitude, &exponent);  // magnitude = [1/2, 1) 2^exponent
  int field = exponent - 1 + bias;
  if (field < 1 || magnitude == 0) field = 1;  // subnormal numbers have the spacing of the smallest exponent
  const double units = std::nearbyint(std::ldexp(magnitude, bias + mantissa - field));  // of the last bit
  // Adding, not joining: rounding up to the next power of two moves on to the next exponent, and at last to infinity.
  const int64_t encoded = (static_cast<int64_t>(field - 1) << mantissa) + static_cast<int64_t>(units);
  return static_cast<uint16_t>(sign | (encoded > infinity ? infinity : encoded));
}

}  // namespace ssm::tests
