// SPDX-License-Identifier: Apache-2.0
//
// Why the vectors give the scalar definition's bits:
//
//   division    one IEEE division an element, the same as the scalar one; a product with the
//               reciprocal would not be.
//   integers    clamped to the code's range first (the bounds are integers, so rounding
//               cannot leave it, and nothing overflows the conversion), then rounded to
//               nearest even by the conversion itself.
//   floats      as FastEncodeFloat (fast_encode.h): a normal's mantissa is rounded in integer
//               arithmetic, whose carry moves into the exponent; a subnormal is rounded by one
//               F32 addition whose last mantissa bit is worth the smallest code step.
//   maxima      magnitudes as integers: without the sign, floats order like their bits, with
//               infinity and NaN above every finite value.
#include "kernels-cpu/numerics/quantize_row.h"

#include <algorithm>
#include <cstring>

#include "kernels-cpu/numerics/formats.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels-cpu/numerics/quantize_row.cc"
#include "hwy/foreach_target.h"  // IWYU pragma: keep
//
#include "hwy/highway.h"

HWY_BEFORE_NAMESPACE();
namespace nibble {
namespace HWY_NAMESPACE {
namespace {
namespace hn = hwy::HWY_NAMESPACE;

using DF = hn::ScalableTag<float>;
using DU = hn::RebindToUnsigned<DF>;
using DI = hn::RebindToSigned<DF>;
using D16 = hn::Rebind<uint16_t, DF>;
using D8 = hn::Rebind<uint8_t, DF>;
using VF = hn::Vec<DF>;
using VU = hn::Vec<DU>;

// Calls body(i, count) for each full vector of D, then once for the rest.
template <class D, class Body>
HWY_INLINE void ForEach(D d, int64_t n, const Body& body) {
  const auto lanes = static_cast<int64_t>(hn::Lanes(d));
  int64_t i = 0;
  for (; i + lanes <= n; i += lanes) body(i, lanes);
  if (i < n) body(i, n - i);
}

template <class D>
HWY_INLINE hn::Vec<D> Load(D d, const hn::TFromD<D>* p, int64_t count) {
  return count == static_cast<int64_t>(hn::Lanes(d)) ? hn::LoadU(d, p)
                                                     : hn::LoadN(d, p, static_cast<size_t>(count));
}

template <class D>
HWY_INLINE void Store(hn::Vec<D> v, D d, hn::TFromD<D>* p, int64_t count) {
  if (count == static_cast<int64_t>(hn::Lanes(d))) {
    hn::StoreU(v, d, p);
  } else {
    hn::StoreN(v, d, p, static_cast<size_t>(count));
  }
}

// Element i and what follows of a row, as F32; exact.
template <DType kType>
HWY_INLINE VF LoadF32(const void* x, int64_t i, int64_t count) {
  const DF df;
  if constexpr (kType == DType::kF32) {
    return Load(df, static_cast<const float*>(x) + i, count);
  } else {
    const D16 d16;
    const auto bits = Load(d16, static_cast<const uint16_t*>(x) + i, count);
    if constexpr (kType == DType::kBF16) {
      return hn::BitCast(df, hn::ShiftLeft<16>(hn::PromoteTo(DU(), bits)));
    } else {
      const hn::Rebind<hwy::float16_t, DF> f16;
      return hn::PromoteTo(df, hn::BitCast(f16, bits));
    }
  }
}

// The largest of n elements' bits under mask.
template <class T>
HWY_INLINE T LargestBits(const T* x, int64_t n, T mask) {
  const hn::ScalableTag<T> d;
  const auto m = hn::Set(d, mask);
  auto best0 = hn::Zero(d), best1 = best0;
  const auto lanes = static_cast<int64_t>(hn::Lanes(d));
  int64_t i = 0;
  for (; i + 2 * lanes <= n; i += 2 * lanes) {
    best0 = hn::Max(best0, hn::And(hn::LoadU(d, x + i), m));
    best1 = hn::Max(best1, hn::And(hn::LoadU(d, x + i + lanes), m));
  }
  for (; i < n; i += lanes) {
    best0 = hn::Max(best0, hn::And(Load(d, x + i, std::min(lanes, n - i)), m));
  }
  return hn::ReduceMax(d, hn::Max(best0, best1));
}

void GroupMaximaAll(DType type, const void* x, int64_t n, int64_t group, float* maxima) {
  for (int64_t begin = 0; begin < n; begin += group, ++maxima) {
    const int64_t count = std::min(group, n - begin);
    if (type == DType::kF32) {
      const uint32_t bits =
          LargestBits(static_cast<const uint32_t*>(x) + begin, count, 0x7FFFFFFFu);
      std::memcpy(maxima, &bits, sizeof(bits));
      continue;
    }
    const uint16_t bits =
        LargestBits(static_cast<const uint16_t*>(x) + begin, count, uint16_t{0x7FFF});
    *maxima = type == DType::kBF16 ? DecodeBF16(bits) : DecodeF16(bits);
  }
}

bool AllFiniteAll(DType type, const void* codes, int64_t n) {
  const auto* c8 = static_cast<const uint8_t*>(codes);
  const auto* c16 = static_cast<const uint16_t*>(codes);
  switch (type) {
    case DType::kE4M3: return LargestBits(c8, n, uint8_t{0x7F}) < 0x7F;
    case DType::kE5M2: return LargestBits(c8, n, uint8_t{0x7F}) < 0x7C;
    case DType::kF16: return LargestBits(c16, n, uint16_t{0x7FFF}) < 0x7C00;
    case DType::kBF16: return LargestBits(c16, n, uint16_t{0x7FFF}) < 0x7F80;
    case DType::kF32:
      return LargestBits(static_cast<const uint32_t*>(codes), n, 0x7FFFFFFFu) < 0x7F800000u;
    default: return true;
  }
}

template <int kMantissa, int kBias, uint32_t kMaxCode, int kSign>
struct FloatEncoder {
  HWY_INLINE VU operator()(VF x) const {
    const DF df;
    const DU du;
    constexpr int kShift = 23 - kMantissa;
    const VU bits = hn::BitCast(du, x);
    const VU magnitude = hn::And(bits, hn::Set(du, 0x7FFFFFFFu));
    const VU sign = hn::ShiftLeft<kSign>(hn::ShiftRight<31>(bits));
    const VU lowest = hn::And(hn::ShiftRight<kShift>(magnitude), hn::Set(du, 1u));
    const VU half = hn::Set(du, (1u << (kShift - 1)) - 1);
    VU code = hn::Sub(hn::ShiftRight<kShift>(hn::Add(hn::Add(magnitude, half), lowest)),
                      hn::Set(du, static_cast<uint32_t>(127 - kBias) << kMantissa));
    // BF16 has F32's exponents: its subnormals are F32's, rounded like all others.
    if constexpr (kBias != 127) {
      constexpr uint32_t kMagic = static_cast<uint32_t>(127 + 1 - kBias - kMantissa + 23) << 23;
      const VF magic = hn::BitCast(df, hn::Set(du, kMagic));
      const VU small = hn::Sub(hn::BitCast(du, hn::Add(hn::BitCast(df, magnitude), magic)),
                               hn::Set(du, kMagic));
      const auto is_small =
          hn::Lt(magnitude, hn::Set(du, static_cast<uint32_t>(128 - kBias) << 23));
      code = hn::IfThenElse(is_small, small, code);
    }
    return hn::Or(sign, hn::Min(code, hn::Set(du, kMaxCode)));
  }
};

template <int kMin, int kMax>
struct IntEncoder {
  HWY_INLINE VU operator()(VF x) const {
    const DF df;
    const VF clamped = hn::Min(hn::Max(x, hn::Set(df, float{kMin})), hn::Set(df, float{kMax}));
    constexpr uint32_t kMask = kMax == 7 ? 15 : 255;
    return hn::And(hn::BitCast(DU(), hn::NearestInt(clamped)), hn::Set(DU(), kMask));
  }
};

using EncodeF16 = FloatEncoder<10, 15, 0x7BFF, 15>;
using EncodeBF16 = FloatEncoder<7, 127, 0x7F7F, 15>;

template <class Encoder, DType kType>
void EncodeAll(const void* x, int64_t n, int64_t group, const float* scales, uint8_t* codes) {
  const Encoder encode;
  const D8 d8;
  for (int64_t begin = 0; begin < n; begin += group, ++scales) {
    const int64_t in_group = std::min(group, n - begin);
    if (*scales == 0) {
      std::memset(codes + begin, 0, static_cast<size_t>(in_group));
      continue;
    }
    const VF divisor = hn::Set(DF(), *scales);
    ForEach(DF(), in_group, [&](int64_t i, int64_t count) HWY_ATTR {
      const VU code = encode(hn::Div(LoadF32<kType>(x, begin + i, count), divisor));
      Store(hn::TruncateTo(d8, code), d8, codes + begin + i, count);
    });
  }
}

template <class Encoder>
void EncodeFrom(DType type, const void* x, int64_t n, int64_t group, const float* scales,
                uint8_t* codes) {
  switch (type) {
    case DType::kF32: return EncodeAll<Encoder, DType::kF32>(x, n, group, scales, codes);
    case DType::kF16: return EncodeAll<Encoder, DType::kF16>(x, n, group, scales, codes);
    default: return EncodeAll<Encoder, DType::kBF16>(x, n, group, scales, codes);
  }
}

template <DType kType>
void ConvertFrom(DType to_type, const void* x, int64_t n, void* to) {
  const D16 d16;
  auto* half = static_cast<uint16_t*>(to);
  ForEach(DF(), n, [&](int64_t i, int64_t count) HWY_ATTR {
    const VF v = LoadF32<kType>(x, i, count);
    switch (to_type) {
      case DType::kF32: return Store(v, DF(), static_cast<float*>(to) + i, count);
      case DType::kF16: return Store(hn::TruncateTo(d16, EncodeF16()(v)), d16, half + i, count);
      default: return Store(hn::TruncateTo(d16, EncodeBF16()(v)), d16, half + i, count);
    }
  });
}

}  // namespace

void GroupMaximaTarget(DType type, const void* x, int64_t n, int64_t group, float* maxima) {
  GroupMaximaAll(type, x, n, group, maxima);
}

bool AllFiniteTarget(DType type, const void* codes, int64_t n) {
  return AllFiniteAll(type, codes, n);
}

void EncodeRowTarget(DType code, DType type, const void* x, int64_t n, int64_t group,
                     const float* scales, uint8_t* codes) {
  const auto encode = [&](auto encoder) {
    EncodeFrom<decltype(encoder)>(type, x, n, group, scales, codes);
  };
  switch (code) {
    case DType::kI4: return encode(IntEncoder<-8, 7>());
    case DType::kI8: return encode(IntEncoder<-128, 127>());
    case DType::kE4M3: return encode(FloatEncoder<3, 7, 0x7E, 7>());
    case DType::kE5M2: return encode(FloatEncoder<2, 15, 0x7B, 7>());
    case DType::kE3M2: return encode(FloatEncoder<2, 3, 0x1F, 5>());
    default: return encode(FloatEncoder<3, 1, 0x1F, 5>());
  }
}

void ConvertRowTarget(DType to_type, DType type, const void* x, int64_t n, void* to) {
  switch (type) {
    case DType::kF32: return ConvertFrom<DType::kF32>(to_type, x, n, to);
    case DType::kF16: return ConvertFrom<DType::kF16>(to_type, x, n, to);
    default: return ConvertFrom<DType::kBF16>(to_type, x, n, to);
  }
}

void StorePlanesTarget(uint8_t* codes, int64_t n, uint8_t* low, uint8_t* high) {
  for (int64_t k = n; k < n + 3; ++k) codes[k] = 0;
  const hn::ScalableTag<uint16_t> d2;
  const hn::Rebind<uint8_t, decltype(d2)> d2_8;
  // Two codes a word: the second's nibble comes down beside the first's. Bits above the
  // byte fall away.
  ForEach(d2, DivUp(n, 2), [&](int64_t i, int64_t count) HWY_ATTR {
    const hn::Repartition<uint8_t, decltype(d2)> d8;
    const auto w = hn::BitCast(d2, Load(d8, codes + 2 * i, 2 * count));
    const auto byte = hn::Or(hn::And(w, hn::Set(d2, uint16_t{0x000F})),
                             hn::And(hn::ShiftRight<4>(w), hn::Set(d2, uint16_t{0x00F0})));
    Store(hn::TruncateTo(d2_8, byte), d2_8, low + i, count);
  });
  if (high == nullptr) return;
  // Four codes a word: bits 8i + 4 and 8i + 5 of it go to bits 2i and 2i + 1 of the byte.
  const DU du;
  ForEach(du, DivUp(n, 4), [&](int64_t i, int64_t count) HWY_ATTR {
    const hn::Repartition<uint8_t, DU> d8;
    const VU w = hn::BitCast(du, Load(d8, codes + 4 * i, 4 * count));
    const VU byte =
        hn::Or(hn::Or(hn::And(hn::ShiftRight<4>(w), hn::Set(du, 0x03u)),
                      hn::And(hn::ShiftRight<10>(w), hn::Set(du, 0x0Cu))),
               hn::Or(hn::And(hn::ShiftRight<16>(w), hn::Set(du, 0x30u)),
                      hn::And(hn::ShiftRight<22>(w), hn::Set(du, 0xC0u))));
    Store(hn::TruncateTo(D8(), byte), D8(), high + i, count);
  });
}

}  // namespace HWY_NAMESPACE
}  // namespace nibble
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace nibble {

HWY_EXPORT(GroupMaximaTarget);
HWY_EXPORT(AllFiniteTarget);
HWY_EXPORT(EncodeRowTarget);
HWY_EXPORT(ConvertRowTarget);
HWY_EXPORT(StorePlanesTarget);

void GroupMaxima(DType type, const void* x, int64_t n, int64_t group, float* maxima) {
  HWY_DYNAMIC_DISPATCH(GroupMaximaTarget)(type, x, n, group, maxima);
}

bool AllFinite(DType type, const void* codes, int64_t n) {
  return HWY_DYNAMIC_DISPATCH(AllFiniteTarget)(type, codes, n);
}

void EncodeRow(DType code, DType type, const void* x, int64_t n, int64_t group,
               const float* scales, uint8_t* codes) {
  HWY_DYNAMIC_DISPATCH(EncodeRowTarget)(code, type, x, n, group, scales, codes);
}

void ConvertRow(DType to_type, DType type, const void* x, int64_t n, void* to) {
  if (to_type == type) {
    std::memcpy(to, x, static_cast<size_t>(n) * (type == DType::kF32 ? 4 : 2));
    return;
  }
  HWY_DYNAMIC_DISPATCH(ConvertRowTarget)(to_type, type, x, n, to);
}

void StorePlanes(uint8_t* codes, int64_t n, uint8_t* low, uint8_t* high) {
  HWY_DYNAMIC_DISPATCH(StorePlanesTarget)(codes, n, low, high);
}

}  // namespace nibble
#endif
