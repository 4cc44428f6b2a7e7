// Compiled once per instruction set: SSM_ISA is baseline, avx2 or avx512.
#include "cpu/kernel_table.h"

#include "cpu/operators.h"

namespace ssm::SSM_ISA {

extern const KernelTable kernel_table;
const KernelTable kernel_table = {
    selective_scan_forward,
    selective_scan_backward,
    selective_scan_complex_forward,
    selective_scan_complex_backward,
    causal_conv1d_forward,
    causal_conv1d_backward,
    diagonal_scan_forward,
    diagonal_scan_backward,
};

}  // namespace ssm::SSM_ISA
