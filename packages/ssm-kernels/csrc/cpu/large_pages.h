// Large pages under large fresh outputs.
#pragma once

#include <cstdint>

#include "params.h"

namespace ssm {

// Ask the system to back an output that is about to be written with large pages, if it is contiguous and so large that
// the faults of its small pages would take longer than writing it (a fault per 4 KiB costs as much as some 20 KiB
// written).  A hint: without support for it nothing happens.
void prefer_large_pages(const View3& output, int64_t batch, int64_t steps, int64_t channels, int64_t element_bytes);

}  // namespace ssm
