#include <stdexcept>
#include "cuda/operators.h"
namespace ssm::cuda {
void ssd_scan_backward(const SsdBackward&) { throw std::runtime_error("not yet"); }
}
