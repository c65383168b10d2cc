// SPDX-License-Identifier: Apache-2.0
//
// The byte dot products on every target and in every unit, against plain integers.
#include <gtest/gtest.h>

#include <cstdint>
#include <vector>

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels-cpu/numerics/byte_dot_test.cc"
#include "hwy/foreach_target.h"  // IWYU pragma: keep
//
#include "kernels-cpu/numerics/byte_dot-inl.h"

HWY_BEFORE_NAMESPACE();
namespace nibble {
namespace HWY_NAMESPACE {
namespace {

template <ByteDotUnit kUnit>
void Dots(bool nibbles, const uint8_t* u, const int8_t* s, int32_t* acc, size_t quads) {
  const TileI di;
  for (size_t i = 0; i < quads; i += hn::Lanes(di)) {
    const VU8 vu = hn::LoadU(TileU8(), u + 4 * i);
    const VI8 vs = hn::LoadU(TileI8(), s + 4 * i);
    const VI sum = hn::LoadU(di, acc + i);
    hn::StoreU(nibbles ? SevenBitDot<kUnit>(vu, vs, sum) : ByteDot<kUnit>(vu, vs, sum), di, acc + i);
  }
}

}  // namespace

// Returns the unit that ran.
ByteDotUnit ByteDots(bool nibbles, const uint8_t* u, const int8_t* s, int32_t* acc,
                     size_t quads) {
  return WithByteDotUnit([&](auto unit) {
    Dots<decltype(unit)::value>(nibbles, u, s, acc, quads);
    return decltype(unit)::value;
  });
}

}  // namespace HWY_NAMESPACE
}  // namespace nibble
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
#include "kernels-cpu/testing/kernel_test.h"

namespace nibble {
namespace {

HWY_EXPORT(ByteDots);

// Sums that begin anywhere: what ByteDot adds must wrap around like two's complement.
int32_t Start(size_t i) { return static_cast<int32_t>(i * 2654435761u); }

struct Quads {
  std::vector<uint8_t> u;
  std::vector<int8_t> s;

  void Add(const uint8_t (&bytes)[4], const int8_t (&signed_bytes)[4]) {
    u.insert(u.end(), bytes, bytes + 4);
    s.insert(s.end(), signed_bytes, signed_bytes + 4);
  }

  void Check(bool nibbles) {
    while (u.size() % 64 != 0) Add({0, 0, 0, 0}, {0, 0, 0, 0});
    const size_t quads = u.size() / 4;
    std::vector<int32_t> expected(quads);
    for (size_t i = 0; i < quads; ++i) {
      uint32_t sum = static_cast<uint32_t>(Start(i));
      for (size_t j = 4 * i; j < 4 * i + 4; ++j) sum += static_cast<uint32_t>(u[j] * s[j]);
      expected[i] = static_cast<int32_t>(sum);
    }
    ForEachSimdTarget([&] {
      std::vector<int32_t> acc(quads);
      for (size_t i = 0; i < quads; ++i) acc[i] = Start(i);
      HWY_DYNAMIC_DISPATCH(ByteDots)(nibbles, u.data(), s.data(), acc.data(), quads);
      for (size_t i = 0; i < quads; ++i) {
        ASSERT_EQ(acc[i], expected[i])
            << "(" << +u[4 * i] << " " << +u[4 * i + 1] << " " << +u[4 * i + 2] << " "
            << +u[4 * i + 3] << ") . (" << +s[4 * i] << " " << +s[4 * i + 1] << " "
            << +s[4 * i + 2] << " " << +s[4 * i + 3] << ") + " << Start(i);
      }
    });
  }
};

// Every pair of bytes: alone in each of the four places, and in all of them.
void CheckEveryPair(bool nibbles) {
  Quads quads;
  for (int u = 0; u <= (nibbles ? 127 : 255); ++u) {
    for (int s = -128; s <= 127; ++s) {
      for (int place = 0; place < 5; ++place) {
        uint8_t bytes[4];
        int8_t signed_bytes[4];
        for (int j = 0; j < 4; ++j) {
          const bool here = place == j || place == 4;
          bytes[j] = static_cast<uint8_t>(here ? u : 0);
          // A byte that meets 0 must not count, whatever it is.
          signed_bytes[j] = static_cast<int8_t>(here ? s : 127 - 255 * (u & 1));
        }
        quads.Add(bytes, signed_bytes);
      }
    }
  }
  quads.Check(nibbles);
}

// Every combination of extreme bytes in the four places.
void CheckExtremes(bool nibbles) {
  const std::vector<int> unsigned_bytes =
      nibbles ? std::vector<int>{0, 1, 15, 126, 127} : std::vector<int>{0, 1, 127, 128, 255};
  const std::vector<int> signed_bytes = {-128, -127, -1, 1, 127};
  const size_t nu = unsigned_bytes.size(), ns = signed_bytes.size();
  Quads quads;
  for (size_t i = 0; i < nu * nu * nu * nu; ++i) {
    for (size_t k = 0; k < ns * ns * ns * ns; ++k) {
      uint8_t u[4];
      int8_t s[4];
      size_t a = i, b = k;
      for (int j = 0; j < 4; ++j, a /= nu, b /= ns) {
        u[j] = static_cast<uint8_t>(unsigned_bytes[a % nu]);
        s[j] = static_cast<int8_t>(signed_bytes[b % ns]);
      }
      quads.Add(u, s);
    }
  }
  quads.Check(nibbles);
}

TEST(ByteDot, EveryPair) { CheckEveryPair(false); }
TEST(ByteDot, Extremes) { CheckExtremes(false); }
TEST(SevenBitDot, EveryPair) { CheckEveryPair(true); }
TEST(SevenBitDot, Extremes) { CheckExtremes(true); }

TEST(ByteDot, RunsTheUnitThatIsChosen) {
  for (const int64_t target : ExecutableTargets()) {
    hwy::SetSupportedTargetsForTest(target);
    for (const ByteDotUnit unit : ExecutableByteDotUnits(target)) {
      SCOPED_TRACE(ByteDotName(target, unit));
      ForceByteDotUnit(unit);
      const uint8_t u[64] = {};
      const int8_t s[64] = {};
      int32_t acc[16] = {};
      const ByteDotUnit ran = HWY_DYNAMIC_DISPATCH(ByteDots)(false, u, s, acc, 16);
      // On NEON_BF16, every machine has the dot product.
      EXPECT_EQ(ran, target == HWY_NEON_BF16 && unit == ByteDotUnit::kOfTarget
                         ? ByteDotUnit::kDotProd
                         : unit);
    }
    // A unit of another target's does not run on this one.
    for (const ByteDotUnit unit : {ByteDotUnit::kAvxVnni, ByteDotUnit::kI8mm}) {
      if (TargetHasByteDotUnit(target, unit)) continue;
      ForceByteDotUnit(unit);
      const uint8_t u[64] = {};
      const int8_t s[64] = {};
      int32_t acc[16] = {};
      EXPECT_NE(HWY_DYNAMIC_DISPATCH(ByteDots)(false, u, s, acc, 16), unit);
    }
  }
  hwy::SetSupportedTargetsForTest(0);
  ChooseBestByteDotUnit();
}

TEST(ByteDot, TheBestAnnouncedUnitIsChosen) {
  EXPECT_TRUE(HasByteDotUnit(ChosenByteDotUnit()));
  for (const ByteDotUnit better : {ByteDotUnit::kAvxVnni, ByteDotUnit::kI8mm}) {
    if (HasByteDotUnit(better)) {
      EXPECT_EQ(ChosenByteDotUnit(), better);
    }
  }
}

}  // namespace
}  // namespace nibble
#endif
