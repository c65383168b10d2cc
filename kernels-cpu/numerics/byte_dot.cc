// SPDX-License-Identifier: Apache-2.0
#include "kernels-cpu/numerics/byte_dot.h"

#include <atomic>

#include "hwy/detect_targets.h"
#include "hwy/targets.h"

#if HWY_ARCH_X86
#include <cpuid.h>
#elif HWY_ARCH_ARM_A64 && defined(__linux__)
#include <sys/auxv.h>
#endif

namespace nibble {
namespace {

constexpr int64_t kNeonTargets = HWY_ALL_NEON;

#if HWY_ARCH_X86

// That the system saves the registers is part of having AVX2, the unit's only target.
bool HasAvxVnni() {
  unsigned eax = 0, ebx = 0, ecx = 0, edx = 0;
  if (__get_cpuid_count(7, 0, &eax, &ebx, &ecx, &edx) == 0 || eax < 1) return false;
  __get_cpuid_count(7, 1, &eax, &ebx, &ecx, &edx);
  return (eax >> 4 & 1) != 0;
}

#elif HWY_ARCH_ARM_A64 && defined(__linux__)

// The bits of the kernel's ABI, for C libraries whose headers are older than the extensions.
constexpr unsigned long kHwcapDotProd = 1ul << 20;
constexpr unsigned long kHwcap2I8mm = 1ul << 13;

#endif

ByteDotUnit Best() {
  for (const ByteDotUnit unit : kByteDotUnits) {
    if (HasByteDotUnit(unit)) return unit;
  }
  return ByteDotUnit::kOfTarget;
}

std::atomic<ByteDotUnit>& Chosen() {
  static std::atomic<ByteDotUnit> chosen(Best());
  return chosen;
}

}  // namespace

bool HasByteDotUnit(ByteDotUnit unit) {
  switch (unit) {
#if HWY_ARCH_X86
    case ByteDotUnit::kAvxVnni: return HasAvxVnni();
#elif HWY_ARCH_ARM_A64 && defined(__linux__)
    case ByteDotUnit::kDotProd: return (getauxval(AT_HWCAP) & kHwcapDotProd) != 0;
    case ByteDotUnit::kI8mm: return (getauxval(AT_HWCAP2) & kHwcap2I8mm) != 0;
#endif
    case ByteDotUnit::kOfTarget: return true;
    default: return false;
  }
}

bool TargetHasByteDotUnit(int64_t hwy_target, ByteDotUnit unit) {
  switch (unit) {
    case ByteDotUnit::kAvxVnni: return hwy_target == HWY_AVX2;
    case ByteDotUnit::kI8mm: return (hwy_target & kNeonTargets) != 0;
    // NEON_BF16 implies it: there it is kOfTarget.
    case ByteDotUnit::kDotProd: return (hwy_target & kNeonTargets & ~HWY_NEON_BF16) != 0;
    default: return true;
  }
}

const char* ByteDotName(int64_t hwy_target, ByteDotUnit unit) {
  const bool bf16 = hwy_target == HWY_NEON_BF16;
  switch (unit) {
    case ByteDotUnit::kAvxVnni: return "AVX2_VNNI";
    case ByteDotUnit::kDotProd: return "NEON_DOTPROD";
    case ByteDotUnit::kI8mm: return bf16 ? "NEON_BF16_I8MM" : "NEON_I8MM";
    default: return hwy::TargetName(hwy_target);
  }
}

ByteDotUnit ChosenByteDotUnit() { return Chosen().load(std::memory_order_relaxed); }

void ForceByteDotUnit(ByteDotUnit unit) { Chosen().store(unit, std::memory_order_relaxed); }

void ChooseBestByteDotUnit() { Chosen().store(Best(), std::memory_order_relaxed); }

}  // namespace nibble
