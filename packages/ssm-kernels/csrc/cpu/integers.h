// Arithmetic on sizes.
#pragma once

#include <cstdint>

#include "cpu/vec.h"

namespace ssm::SSM_ISA {

SSM_INLINE int64_t smaller(int64_t a, int64_t b) { return a < b ? a : b; }
SSM_INLINE int64_t larger(int64_t a, int64_t b) { return a > b ? a : b; }
SSM_INLINE int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }

}  // namespace ssm::SSM_ISA
