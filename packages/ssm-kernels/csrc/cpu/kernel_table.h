// The operators of each instruction set that was compiled.
#pragma once

#include "kernels.h"

namespace ssm {

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
