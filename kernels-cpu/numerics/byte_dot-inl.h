// SPDX-License-Identifier: Apache-2.0
//
// Dot products of four bytes a 32-bit lane, unsigned times signed. Included once per SIMD
// target.
//
//   u    | u0 u1 u2 u3 | ...    unsigned bytes
//   s    | s0 s1 s2 s3 | ...    signed bytes
//   acc  |    lane     | ...    += u0*s0 + u1*s1 + u2*s2 + u3*s3
//
// Exact for every input: the four products lie within 4 * 255 * 128 < 2^17, and no step
// before the last addition is narrower than its sums:
//   vpmaddubsw  adds two products in 16 saturating bits, where 2 * 255 * 128 > 2^15 but
//               2 * 127 * 128 < 2^15: SevenBitDot (u <= 127) uses it; ByteDot widens both
//               operands to 16 bits and uses pmaddwd.
//   smull       has 16-bit products of signed bytes, so u - 128 goes in (a flipped top bit)
//               and 128 * (s0 + s1 + s2 + s3) is added. Two products of -128 * -128 do not fit
//               into 16 bits: pairs are added in 32 bits, but for SevenBitDot, which takes u as
//               it is, in 16.
//   sdot        the same, without a step in 16 bits.
// Only acc itself can overflow; it wraps.
//
// Which of them a kernel runs is a template parameter, a ByteDotUnit (byte_dot.h): units that
// Highway has no target for are assembler, which needs no compiler option, and are chosen at
// run time by WithByteDotUnit around a kernel's outermost call.

#if defined(NIBBLE_BYTE_DOT_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef NIBBLE_BYTE_DOT_INL_H_
#undef NIBBLE_BYTE_DOT_INL_H_
#else
#define NIBBLE_BYTE_DOT_INL_H_
#endif

#include <type_traits>

#include "hwy/highway.h"
#include "kernels-cpu/numerics/byte_dot.h"
#include "kernels-cpu/numerics/tile_decode-inl.h"

HWY_BEFORE_NAMESPACE();
namespace nibble {
namespace HWY_NAMESPACE {

using TileU8 = hn::Repartition<uint8_t, TileF>;
using TileI8 = hn::Repartition<int8_t, TileF>;
using VU8 = hn::Vec<TileU8>;
using VI8 = hn::Vec<TileI8>;
using VI = hn::Vec<TileI>;

#undef NIBBLE_NEON_DOT
#if HWY_ARCH_ARM_A64 && HWY_TARGET_IS_NEON
#define NIBBLE_NEON_DOT 1
#else
#define NIBBLE_NEON_DOT 0
#endif

// The unit that every machine of this target has.
#if NIBBLE_NEON_DOT && HWY_TARGET == HWY_NEON_BF16  // implies the dot product extension
constexpr ByteDotUnit kByteDotOfTarget = ByteDotUnit::kDotProd;
#else
constexpr ByteDotUnit kByteDotOfTarget = ByteDotUnit::kOfTarget;
#endif

#if HWY_ARCH_X86 && HWY_TARGET <= HWY_AVX3_DL
// Not the intrinsic: around it GCC 12 copies the sums of a register tile, and has no registers
// left for that.
HWY_INLINE VI VnniDot(VU8 u, VI8 s, VI acc) {
  asm("vpdpbusd %2, %1, %0" : "+v"(acc.raw) : "v"(u.raw), "v"(s.raw));
  return acc;
}
#elif HWY_TARGET == HWY_AVX2
HWY_INLINE VI VnniDot(VU8 u, VI8 s, VI acc) {
  asm("%{vex%} vpdpbusd %2, %1, %0" : "+x"(acc.raw) : "x"(u.raw), "x"(s.raw));
  return acc;
}
#endif

#if HWY_ARCH_X86 && HWY_TARGET > HWY_AVX3_DL
// acc + x, which GCC may not reorder: it would make a tree of a register tile's additions and
// have no registers left for it.
HWY_INLINE VI AddInOrder(VI acc, VI x) {
#if HWY_TARGET <= HWY_AVX2
  asm("vpaddd %1, %0, %0" : "+v"(acc.raw) : "v"(x.raw));
#else
  asm("paddd %1, %0" : "+x"(acc.raw) : "x"(x.raw));
#endif
  return acc;
}
#endif

#if NIBBLE_NEON_DOT
// sdot and usdot by their encoding, since assemblers take the names only where all code may
// use them: the operands print as v0 to v31, which become numbers as .Lnibble_v0 to _v31.
#define NIBBLE_NEON_DOT_ASM(encoding, acc, a, b)                                      \
  asm inline(                                                                         \
      ".ifndef .Lnibble_v0\n\t"                                                       \
      ".irp n,0,1,2,3,4,5,6,7,8,9,10,11,12,13,14,15,16,17,18,19,20,21,22,23,24,25,26" \
      ",27,28,29,30,31\n\t.equ .Lnibble_v\\n, \\n\n\t.endr\n\t.endif\n\t"             \
      ".inst " encoding " | .Lnibble_%2 << 16 | .Lnibble_%1 << 5 | .Lnibble_%0"       \
      : "+w"(acc)                                                                     \
      : "w"(a), "w"(b))

HWY_INLINE VI SignedDot(VI8 a, VI8 b, VI acc) {
  NIBBLE_NEON_DOT_ASM("0x4E809400", acc.raw, a.raw, b.raw);
  return acc;
}
HWY_INLINE VI MixedDot(VU8 u, VI8 s, VI acc) {
  NIBBLE_NEON_DOT_ASM("0x4E809C00", acc.raw, u.raw, s.raw);
  return acc;
}
#undef NIBBLE_NEON_DOT_ASM

struct WideProducts {
  int16x8_t low, high;  // of bytes 0..7 and 8..15
  WideProducts(VI8 a, VI8 b)
      : low(vmull_s8(vget_low_s8(a.raw), vget_low_s8(b.raw))), high(vmull_high_s8(a.raw, b.raw)) {}
};

HWY_INLINE VI SmullByteDot(VU8 u, VI8 s, VI acc) {
  const WideProducts p(hn::BitCast(TileI8(), hn::Xor(u, hn::Set(TileU8(), 0x80))), s);
  const int32x4_t dot = vpaddq_s32(vpaddlq_s16(p.low), vpaddlq_s16(p.high));
  const int32x4_t sum = vpaddlq_s16(vpaddlq_s8(s.raw));
  return VI(vaddq_s32(vaddq_s32(acc.raw, dot), vshlq_n_s32(sum, 7)));
}
HWY_INLINE VI SmullSevenBitDot(VU8 u, VI8 s, VI acc) {
  const WideProducts p(hn::BitCast(TileI8(), u), s);
  return VI(vpadalq_s16(acc.raw, vpaddq_s16(p.low, p.high)));
}
#endif  // NIBBLE_NEON_DOT

// acc[lane] += the sum of the lane's four products.
template <ByteDotUnit kUnit = kByteDotOfTarget>
HWY_INLINE VI ByteDot(VU8 u, VI8 s, VI acc) {
#if HWY_TARGET == HWY_AVX2
  if constexpr (kUnit == ByteDotUnit::kAvxVnni) return VnniDot(u, s, acc);
#endif
#if HWY_ARCH_X86 && HWY_TARGET <= HWY_AVX3_DL
  return VnniDot(u, s, acc);
#elif NIBBLE_NEON_DOT
  if constexpr (kUnit == ByteDotUnit::kI8mm) return MixedDot(u, s, acc);
  if constexpr (kUnit == ByteDotUnit::kDotProd) {
    // The second product, -128 times the sum of s, does not depend on u: the compiler
    // shares it among the u's that one s meets.
    const VI8 minus_128 = hn::Set(TileI8(), int8_t{-128});
    const VI8 w = hn::Xor(hn::BitCast(TileI8(), u), minus_128);
    return hn::Sub(SignedDot(w, s, acc), SignedDot(minus_128, s, hn::Zero(TileI())));
  }
  return SmullByteDot(u, s, acc);
#elif HWY_ARCH_X86
  return AddInOrder(acc, hn::SumOfMulQuadAccumulate(TileI(), u, s, hn::Zero(TileI())));
#else
  return hn::SumOfMulQuadAccumulate(TileI(), u, s, acc);
#endif
}

// The same where no u is above 127 (nibbles among them): fewer steps without VNNI. Not defined
// otherwise.
template <ByteDotUnit kUnit = kByteDotOfTarget>
HWY_INLINE VI SevenBitDot(VU8 u, VI8 s, VI acc) {
#if HWY_TARGET == HWY_AVX2
  if constexpr (kUnit == ByteDotUnit::kAvxVnni) return VnniDot(u, s, acc);
#endif
#if HWY_ARCH_X86 && HWY_TARGET <= HWY_AVX3_DL
  return VnniDot(u, s, acc);
#elif HWY_ARCH_X86 && HWY_TARGET <= HWY_AVX2
  const hn::Repartition<int16_t, TileF> d16;
  const auto pairs = hn::SatWidenMulPairwiseAdd(d16, u, s);
  return AddInOrder(acc, hn::WidenMulPairwiseAdd(TileI(), pairs, hn::Set(d16, 1)));
#elif NIBBLE_NEON_DOT
  if constexpr (kUnit == ByteDotUnit::kI8mm) return MixedDot(u, s, acc);
  if constexpr (kUnit == ByteDotUnit::kDotProd) {
    return SignedDot(hn::BitCast(TileI8(), u), s, acc);
  }
  return SmullSevenBitDot(u, s, acc);
#elif HWY_ARCH_X86
  return AddInOrder(acc, hn::SumOfMulQuadAccumulate(TileI(), u, s, hn::Zero(TileI())));
#else
  return hn::SumOfMulQuadAccumulate(TileI(), u, s, acc);
#endif
}

// Returns body(unit) with the chosen unit as a constant: `template <class Unit>` of the body,
// whose Unit::value is the kernel's ByteDotUnit. Call it outside of loops.
template <class Body>
HWY_INLINE auto WithByteDotUnit(const Body& body) {
#if HWY_TARGET == HWY_AVX2
  if (ChosenByteDotUnit() == ByteDotUnit::kAvxVnni) {
    return body(std::integral_constant<ByteDotUnit, ByteDotUnit::kAvxVnni>());
  }
#elif NIBBLE_NEON_DOT
  if (ChosenByteDotUnit() == ByteDotUnit::kI8mm) {
    return body(std::integral_constant<ByteDotUnit, ByteDotUnit::kI8mm>());
  }
#if HWY_TARGET != HWY_NEON_BF16
  if (ChosenByteDotUnit() == ByteDotUnit::kDotProd) {
    return body(std::integral_constant<ByteDotUnit, ByteDotUnit::kDotProd>());
  }
#endif
#endif
  return body(std::integral_constant<ByteDotUnit, kByteDotOfTarget>());
}

}  // namespace HWY_NAMESPACE
}  // namespace nibble
HWY_AFTER_NAMESPACE();

#endif  // NIBBLE_BYTE_DOT_INL_H_
