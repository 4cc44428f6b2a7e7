// Which kernel runs a forward pass of the selective scan.
#include "cuda/selective_scan_forward.h"

#include "cuda/operators.h"
#include "cuda/workspace.h"

namespace ssm::cuda {
namespace {

int64_t state_bytes(const ScanInputs& in) {
  return in.sequences().count * in.channels * in.states * (in.dtype == DType::f64 ? 8 : 4);
}

}  // namespace

void selective_scan_forward(const ScanForward& scan) {
  void* states = scan.final_state != nullptr ? scan.final_state : allocate(scan.in.cuda, state_bytes(scan.in));
  selective_scan_forward_general(scan, states);
}

void selective_scan_directions_forward(const ScanForward* directions, int64_t count) {
  char* states = allocate(directions[0].in.cuda, state_bytes(directions[0].in));
  for (int64_t k = 0; k < count; ++k) {
    ScanForward scan = directions[k];
    scan.add_to_y = k > 0;
    selective_scan_forward_general(scan, states);
  }
}

}  // namespace ssm::cuda
