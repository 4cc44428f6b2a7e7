// Conversions that a GPU has instructions for.
#include <cmath>

#include "cuda/numbers.h"

namespace ssm::cuda {

float decode_f16(uint16_t bits) {
  const int exponent = bits >> 10 & 31, fraction = bits & 1023;
  float magnitude = std::ldexp(float(exponent == 0 ? fraction : fraction + 1024), (exponent == 0 ? 1 : exponent) - 25);
  if (exponent == 31) magnitude = fraction == 0 ? INFINITY : NAN;
  return bits & 0x8000 ? -magnitude : magnitude;
}

uint16_t encode_f16(float x) {
  const uint16_t sign = std::signbit(x) ? 0x8000 : 0;
  const float magnitude = std::fabs(x);
  if (std::isnan(x)) return 0x7fff;
  if (magnitude >= 65520.f) return sign | 0x7c00;  // half a unit above the largest number
  int exponent = -14;  // of the numbers of fewest digits
  if (magnitude >= 6.103515625e-5f) exponent = std::ilogb(magnitude);
  const int units = int(std::nearbyint(std::ldexp(magnitude, 10 - exponent)));  // to even; may reach the next exponent
  return uint16_t(sign | ((exponent + 14) * 1024 + units));
}

uint16_t encode_bf16(float x) {
  const uint32_t bits = __float_as_uint(x);
  if (std::isnan(x)) return 0x7fff;
  return uint16_t((bits + 0x7fff + (bits >> 16 & 1)) >> 16);
}

}  // namespace ssm::cuda
