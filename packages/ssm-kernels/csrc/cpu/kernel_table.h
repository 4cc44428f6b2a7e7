// The operators of one instruction set.  A new operator adds one member here and one line in kernel_table.cpp.
#pragma once

#include "causal_conv1d_params.h"
#include "causal_conv1d_update_params.h"
#include "cpu/machine_limits.h"
#include "diagonal_scan_params.h"
#include "params.h"
#include "selective_state_update_params.h"

namespace ssm {

struct KernelTable {
  void (*selective_scan_forward)(const ScanForward&);
  void (*selective_scan_backward)(const ScanBackward&);
  void (*selective_scan_complex_forward)(const ScanForward&);
  void (*selective_scan_complex_backward)(const ScanBackward&);
  void (*causal_conv1d_forward)(const ConvForward&);
  void (*causal_conv1d_backward)(const ConvBackward&);
  int64_t (*machine_limit_round)(const LimitRound&);
  void (*causal_conv1d_update)(const ConvUpdate&);
  void (*selective_state_update)(const StateUpdate&);
  void (*selective_state_update_complex)(const StateUpdate&);
  void (*diagonal_scan_forward)(const DiagonalForward&);
  void (*diagonal_scan_backward)(const DiagonalBackward&);
};

// Defined once per instruction set by kernel_table.cpp.
namespace generic {  // tests: vec_generic.h on a compiler that does not need it
extern const KernelTable kernel_table;
}
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
