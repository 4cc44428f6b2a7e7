// The operators of one instruction set.  A new operator adds one member here and one line in kernel_table.cpp.
#pragma once

#include "causal_conv1d_params.h"
#include "diagonal_scan_params.h"
#include "params.h"

namespace ssm {

struct KernelTable {
  void (*selective_scan_forward)(const ScanForward&);
  void (*selective_scan_backward)(const ScanBackward&);
  void (*selective_scan_complex_forward)(const ScanForward&);
  void (*selective_scan_complex_backward)(const ScanBackward&);
  void (*causal_conv1d_forward)(const ConvForward&);
  void (*causal_conv1d_backward)(const ConvBackward&);
  void (*diagonal_scan_forward)(const DiagonalForward&);
  void (*diagonal_scan_backward)(const DiagonalBackward&);
};

// Defined once per instruction set by kernel_table.cpp.
namespace baseline {
extern const KernelTable kernel_table;
}
namespace avx2 {
extern const KernelTable kernel_table;
}
namespace avx512 {
extern const KernelTable kernel_table;
}

}  // namespace ssm
