// Forward pass of the selective scan with real A.
#include "cpu/operators.h"
#include "cpu/selective_scan_real_forward.h"

namespace ssm::SSM_ISA {

void selective_scan_forward(const ScanForward& params) { forward<RealForward>(&params, 1); }

void selective_scan_directions_forward(const ScanForward* directions, int64_t count) {
  ScanForward scans[kMostDirections];
  for (int64_t first = 0; first < count; first += kMostDirections) {
    const int64_t some = smaller(count - first, kMostDirections);
    for (int64_t k = 0; k < some; ++k) {
      scans[k] = directions[first + k];
      scans[k].add_to_y = first + k > 0;
    }
    if (scans[0].in.complex_A) for (int64_t k = 0; k < some; ++k) selective_scan_complex_forward(scans[k]);
    else forward<RealForward>(scans, some);
  }
}

}  // namespace ssm::SSM_ISA
