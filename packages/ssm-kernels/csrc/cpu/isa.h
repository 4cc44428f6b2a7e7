// Which instruction set the CPU kernels use: found out at run time, overridable through SSM_KERNELS_ISA.
#pragma once

#include <string>
#include <vector>

#include "cpu/kernel_table.h"

namespace ssm {

// Sets compiled into this library, slowest first.
std::vector<std::string> compiled_isas();

// Those of them that this processor runs.
std::vector<std::string> available_isas();

// The set in use: SSM_KERNELS_ISA if it was set when first asked, otherwise the best available.
// Throws std::runtime_error for a name that is unknown, was not compiled or does not run here.
std::string active_isa();

// Chooses another set for the calls that follow (tests, benchmarks).  Same errors as active_isa().
void set_isa(const std::string& name);

}  // namespace ssm
