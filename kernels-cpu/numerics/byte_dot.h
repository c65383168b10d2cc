// SPDX-License-Identifier: Apache-2.0
//
// Which instruction multiplies bytes, where a SIMD target of Highway leaves that open.
//
//   target            unit        instruction          found by
//   AVX3_DL, ZEN4     kOfTarget   vpdpbusd             the target
//   AVX2              kAvxVnni    vpdpbusd (VEX)       CPUID leaf 7, subleaf 1, EAX bit 4
//   AVX3, AVX2        kOfTarget   vpmaddubsw, vpmaddwd the target
//   SSE2              kOfTarget   pmaddwd              the target
//   NEON              kI8mm       usdot                HWCAP2_I8MM
//   NEON              kDotProd    sdot                 HWCAP_ASIMDDP
//   NEON              kOfTarget   smull                the target
//
// The instructions themselves are in byte_dot-inl.h. All units give the same sums.
#pragma once

#include <cstdint>

namespace nibble {

enum class ByteDotUnit { kOfTarget, kAvxVnni, kDotProd, kI8mm };

// All of them, the better before the worse.
inline constexpr ByteDotUnit kByteDotUnits[] = {ByteDotUnit::kAvxVnni, ByteDotUnit::kI8mm,
                                                ByteDotUnit::kDotProd, ByteDotUnit::kOfTarget};

// What the user reads and may ask for: "AVX2_VNNI", "NEON_DOTPROD", "NEON_I8MM", with the
// Highway target's own name (as AVX2, NEON_WITHOUT_AES) for kOfTarget. Static storage.
const char* ByteDotName(int64_t hwy_target, ByteDotUnit unit);

// Whether the CPU announces the unit. kOfTarget is always there.
bool HasByteDotUnit(ByteDotUnit unit);

// Whether a target has code for the unit. hwy_target: one bit of Highway's targets.
bool TargetHasByteDotUnit(int64_t hwy_target, ByteDotUnit unit);

// The unit that kernels use on their target if it is one of the target's: the best that the
// CPU announces, unless one was forced. Thread-safe.
ByteDotUnit ChosenByteDotUnit();

// Forces a unit, announced or not, for all calls that begin afterwards.
void ForceByteDotUnit(ByteDotUnit unit);

// Undoes ForceByteDotUnit. For tests.
void ChooseBestByteDotUnit();

}  // namespace nibble
