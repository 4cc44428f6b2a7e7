#include "cpu/isa.h"

#include <atomic>
#include <cstdlib>
#include <stdexcept>

#if defined(SSM_HAS_avx2)
#include <cpuid.h>
#endif

namespace ssm {
namespace {

struct Isa {
  const char* name;
  const KernelTable* kernels;
  bool (*runs_here)();
};

bool always() { return true; }

#if defined(SSM_HAS_avx2)
bool has_f16c() {  // not every supported compiler knows __builtin_cpu_supports("f16c")
  unsigned eax = 0, ebx = 0, ecx = 0, edx = 0;
  return __get_cpuid(1, &eax, &ebx, &ecx, &edx) != 0 && (ecx & (1u << 29)) != 0;
}

// __builtin_cpu_supports also asks whether the operating system saves the wide registers.
bool has_avx2() {
  __builtin_cpu_init();
  return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && has_f16c();
}

bool has_avx512() {
  return has_avx2() && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512dq") &&
         __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512vl");
}
#endif

const Isa kIsas[] = {
#if defined(SSM_HAS_generic)
    {"generic", &generic::kernel_table, always},
#endif
    {"baseline", &baseline::kernel_table, always},
#if defined(SSM_HAS_avx2)
    {"avx2", &avx2::kernel_table, has_avx2},
    {"avx512", &avx512::kernel_table, has_avx512},
#endif
};

std::string join(const std::vector<std::string>& names) {
  std::string text;
  for (const std::string& name : names) text += (text.empty() ? "" : ", ") + name;
  return text;
}

const Isa* find(const std::string& name) {
  for (const Isa& isa : kIsas)
    if (name == isa.name && isa.runs_here()) return &isa;
  throw std::runtime_error("instruction set '" + name + "' is not available on this machine; choose one of " +
                           join(available_isas()) + " (SSM_KERNELS_ISA) or leave the choice open");
}

const Isa* choose() {
  const char* wanted = std::getenv("SSM_KERNELS_ISA");
  if (wanted != nullptr && *wanted != '\0') return find(wanted);
  return find(available_isas().back());
}

std::atomic<const Isa*> current{nullptr};

const Isa& active() {
  const Isa* isa = current.load(std::memory_order_acquire);
  if (isa == nullptr) {
    isa = choose();
    current.store(isa, std::memory_order_release);
  }
  return *isa;
}

}  // namespace

std::vector<std::string> compiled_isas() {
  std::vector<std::string> names;
  for (const Isa& isa : kIsas) names.emplace_back(isa.name);
  return names;
}

std::vector<std::string> available_isas() {
  std::vector<std::string> names;
  for (const Isa& isa : kIsas)
    if (isa.runs_here()) names.emplace_back(isa.name);
  return names;
}

std::string active_isa() { return active().name; }

void set_isa(const std::string& name) { current.store(find(name), std::memory_order_release); }

const KernelTable& active_kernels() { return *active().kernels; }

}  // namespace ssm
