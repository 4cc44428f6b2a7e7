// The sum of all lanes of a vector.
#pragma once

#include "cpu/vec.h"

namespace ssm::SSM_ISA {

template <class F, int Half, int... I>
SSM_INLINE Vec<F> add_lanes_from(Vec<F> v, std::integer_sequence<int, I...>) {
  return v + shuffle<((I + Half) % kWidth<F>)...>(v, v);
}

// In an order that depends on the width alone: halves are added up, then quarters, and so on.
template <class F, int Half = kWidth<F> / 2>
SSM_INLINE F sum_of_lanes(Vec<F> v) {
  if constexpr (Half > 0) {
    return sum_of_lanes<F, Half / 2>(add_lanes_from<F, Half>(v, std::make_integer_sequence<int, kWidth<F>>{}));
  } else {
    F lanes[kWidth<F>];
    store(lanes, v);
    return lanes[0];
  }
}

}  // namespace ssm::SSM_ISA
