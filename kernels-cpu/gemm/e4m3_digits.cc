// SPDX-License-Identifier: Apache-2.0
#include "kernels-cpu/gemm/e4m3_digits.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels-cpu/gemm/e4m3_digits.cc"
#include "hwy/foreach_target.h"  // IWYU pragma: keep
//
#include "hwy/highway.h"

HWY_BEFORE_NAMESPACE();
namespace nibble {
namespace HWY_NAMESPACE {
namespace {

namespace hn = hwy::HWY_NAMESPACE;

int64_t Split(const uint8_t* codes, int64_t n, int8_t* high, int8_t* low, RestQuad* rests) {
  const hn::CappedTag<int32_t, 16> di;
  const hn::Rebind<uint8_t, decltype(di)> du8;
  const hn::Rebind<int8_t, decltype(di)> di8;
  const int64_t lanes = static_cast<int64_t>(hn::Lanes(di));
  const auto one = hn::Set(di, 1);
  HWY_ALIGN int8_t rest[16];
  int64_t count = 0;
  for (int64_t k = 0; k < n; k += 16) {
    bool any = false;
    for (int64_t i = 0; i < 16; i += lanes) {
      const auto code = hn::PromoteTo(di, hn::LoadU(du8, codes + k + i));
      const auto exponent = hn::And(hn::ShiftRight<3>(code), hn::Set(di, 15));
      const auto mantissa = hn::And(code, hn::Set(di, 7));
      // Subnormal codes (exponent 0) are the mantissa; normal ones have an implicit 8.
      const auto normal = hn::Shl(hn::Or(mantissa, hn::Set(di, 8)),
                                  hn::Sub(hn::Max(exponent, one), one));
      const auto magnitude = hn::IfThenElse(hn::Eq(exponent, hn::Zero(di)), mantissa, normal);
      const auto negative = hn::Ne(hn::And(code, hn::Set(di, 128)), hn::Zero(di));
      const auto v = hn::IfThenElse(negative, hn::Neg(magnitude), magnitude);
      const auto h = hn::ShiftRight<3>(hn::Add(v, hn::Set(di, 4)));
      const auto l = hn::ShiftRight<24>(hn::ShiftLeft<24>(h));
      const auto r = hn::Sub(v, hn::ShiftLeft<3>(h));
      hn::StoreU(hn::DemoteTo(di8, hn::ShiftRight<8>(hn::Sub(h, l))), di8, high + k + i);
      hn::StoreU(hn::DemoteTo(di8, l), di8, low + k + i);
      hn::StoreU(hn::DemoteTo(di8, r), di8, rest + i);
      any = any || !hn::AllTrue(di, hn::Eq(r, hn::Zero(di)));
    }
    for (int i = 0; any && i < 16; i += 4) {
      const RestQuad quad = {static_cast<int32_t>(k + i),
                             {rest[i], rest[i + 1], rest[i + 2], rest[i + 3]}};
      if (quad.rest[0] | quad.rest[1] | quad.rest[2] | quad.rest[3]) rests[count++] = quad;
    }
  }
  return count;
}

void Sums(const int8_t* line, int64_t n, int32_t* sums) {
  const hn::CappedTag<uint8_t, 64> d8;
  const hn::Repartition<uint64_t, decltype(d8)> d64;
  const int64_t lanes = static_cast<int64_t>(hn::Lanes(d8));
  HWY_ALIGN uint64_t eights[8];  // sums of eight bytes, each 128 too large
  const auto flip = hn::Set(d8, 128);
  int64_t k = 0;
  for (; k + lanes <= n; k += lanes) {
    const auto bytes = hn::LoadU(d8, reinterpret_cast<const uint8_t*>(line) + k);
    hn::Store(hn::SumsOf8(hn::Xor(bytes, flip)), d64, eights);
    for (int64_t i = 0; i < lanes / 16; ++i) {
      sums[k / 16 + i] = static_cast<int32_t>(eights[2 * i] + eights[2 * i + 1]) - 16 * 128;
    }
  }
  for (; k < n; k += 16) {
    int32_t sum = 0;
    for (int64_t i = 0; i < 16; ++i) sum += line[k + i];
    sums[k / 16] = sum;
  }
}

}  // namespace

int64_t SplitE4M3(const uint8_t* codes, int64_t n, int8_t* high, int8_t* low, RestQuad* rests) {
  return Split(codes, n, high, low, rests);
}

void SumSixteens(const int8_t* line, int64_t n, int32_t* sums) { Sums(line, n, sums); }

}  // namespace HWY_NAMESPACE
}  // namespace nibble
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace nibble {

HWY_EXPORT(SplitE4M3);
HWY_EXPORT(SumSixteens);

int64_t SplitE4M3(const uint8_t* codes, int64_t n, int8_t* high, int8_t* low, RestQuad* rests) {
  return HWY_DYNAMIC_DISPATCH(SplitE4M3)(codes, n, high, low, rests);
}

void SumSixteens(const int8_t* line, int64_t n, int32_t* sums) {
  HWY_DYNAMIC_DISPATCH(SumSixteens)(line, n, sums);
}

}  // namespace nibble
#endif  // HWY_ONCE
