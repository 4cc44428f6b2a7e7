// A grid of so many blocks along x, the only axis that may be long.
#pragma once

#include <stdexcept>

#include "cuda/launch.h"

namespace ssm::cuda {

inline dim3 grid_of(int64_t blocks, int64_t rows = 1) {
  if (blocks > 0x7fffffff || rows > 0xffff) throw std::runtime_error("the tensors are too large for one launch");
  return dim3(static_cast<unsigned>(blocks), static_cast<unsigned>(rows));
}

}  // namespace ssm::cuda
