// SPDX-License-Identifier: Apache-2.0
//
// For tests: the SIMD targets that this machine really executes. That may be more than its
// CPUID announces: a virtual machine can hide BF16 and AVX-VNNI of the CPU below it, and their
// kernels can be tested there all the same. The library itself goes by what is announced.
//
// An instruction is tried in a child process, which it may kill with SIGILL.
#pragma once

#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <csignal>
#include <cstdint>
#include <vector>

#include "hwy/highway.h"
#include "kernels-cpu/numerics/byte_dot.h"

namespace nibble {

// Whether instructions() returns, in a child. The child runs nothing else, so that other
// threads' locks in this process do not matter to it.
inline bool Executes(void (*instructions)()) {
  const pid_t child = fork();
  if (child < 0) return false;
  if (child == 0) {
    std::signal(SIGILL, SIG_DFL);  // not the sanitizers' handler
    const rlimit no_core = {0, 0};
    setrlimit(RLIMIT_CORE, &no_core);
    instructions();
    _exit(0);
  }
  int status = 0;
  while (waitpid(child, &status, 0) < 0) {
  }
  return WIFEXITED(status) && WEXITSTATUS(status) == 0;
}

// The targets of this build that run here, best first.
inline const std::vector<int64_t>& ExecutableTargets() {
  static const std::vector<int64_t> targets = [] {
    int64_t usable = hwy::SupportedTargets() & HWY_TARGETS;
#if HWY_ARCH_X86
    // AVX3_ZEN4 is AVX3_DL with AVX512-BF16. The registers are AVX3_DL's.
    if ((usable & HWY_AVX3_DL) != 0 && (usable & HWY_AVX3_ZEN4) == 0 &&
        (HWY_TARGETS & HWY_AVX3_ZEN4) != 0 && Executes([] {
          asm volatile(
              "vdpbf16ps %%zmm0, %%zmm0, %%zmm1\n\t"
              "vcvtneps2bf16 %%zmm0, %%ymm1\n\t"
              "vcvtne2ps2bf16 %%zmm0, %%zmm0, %%zmm1\n\t"
              "vzeroupper"
              :
              :
              : "xmm1");
        })) {
      usable |= HWY_AVX3_ZEN4;
    }
#endif
    std::vector<int64_t> list;
    for (; usable != 0; usable &= usable - 1) list.push_back(usable & -usable);
    return list;
  }();
  return targets;
}

// The byte dot units (byte_dot.h) that a target has code for and that run here.
inline std::vector<ByteDotUnit> ExecutableByteDotUnits(int64_t target) {
#if HWY_ARCH_X86
  static const bool has_avx_vnni = HasByteDotUnit(ByteDotUnit::kAvxVnni) ||
                                   ((hwy::SupportedTargets() & HWY_AVX2) != 0 && Executes([] {
                                      asm volatile(
                                          "%{vex%} vpdpbusd %%ymm0, %%ymm0, %%ymm1\n\t"
                                          "vzeroupper"
                                          :
                                          :
                                          : "xmm1");
                                    }));
#else
  const bool has_avx_vnni = false;
#endif
  std::vector<ByteDotUnit> units;
  for (const ByteDotUnit unit : kByteDotUnits) {
    const bool executes = HasByteDotUnit(unit) || (unit == ByteDotUnit::kAvxVnni && has_avx_vnni);
    if (executes && TargetHasByteDotUnit(target, unit)) units.push_back(unit);
  }
  return units;
}

}  // namespace nibble
