// SPDX-License-Identifier: Apache-2.0
//
// Arithmetic, logic, comparison and conversion instructions, each against a plain function of one
// lane written here, over edge values and random ones.

#include <cfenv>
#include <cfloat>
#include <cmath>
#include <functional>
#include <limits>
#include <random>

#include "kernels-cpu/numerics/formats.h"
#include "kernels-cuda/emulator/ptx_kernel_for_test.h"
#include "kernels-cuda/emulator/small_floats.h"

namespace nibble::cuda::emulator {
namespace {

template <class T>
std::vector<T> Values(uint64_t seed, size_t count = 2048) {
  std::mt19937_64 random(seed);
  std::vector<T> values;
  for (size_t i = 0; i < count; ++i) {
    uint64_t x = random();
    if (i % 4 == 1) x >>= random() % 64;        // small numbers
    if (i % 4 == 2) x = ~(x >> random() % 64);  // and small negative ones
    if (i % 16 == 3) x = uint64_t{1} << (random() % 64);
    if (i % 64 == 7) x = i % 128 == 7 ? 0 : ~uint64_t{0};
    values.push_back(static_cast<T>(x));
  }
  return values;
}

float AsFloat(uint32_t bits) {
  float f;
  std::memcpy(&f, &bits, 4);
  return f;
}
uint32_t AsBits(float f) {
  uint32_t bits;
  std::memcpy(&bits, &f, 4);
  return bits;
}

std::vector<float> Floats(uint64_t seed) {
  std::vector<float> values;
  std::mt19937_64 random(seed);
  for (uint32_t x : Values<uint32_t>(seed)) values.push_back(AsFloat(x));
  for (size_t i = 0; i < values.size(); i += 2)
    values[i] = std::ldexp(static_cast<float>(static_cast<int32_t>(random())),
                           static_cast<int>(random() % 40) - 50);
  const float edges[] = {0.0f, -0.0f,     1.0f,      -1.0f,   INFINITY, -INFINITY,
                         NAN,  0x1p-149f, 0x1p-126f, FLT_MAX, 0.5f,     1.5f,
                         2.5f, -2.5f,     448.0f,    464.0f,  65504.0f, 65520.0f};
  for (size_t i = 0; i < std::size(edges); ++i) values[64 + 7 * i + seed % 7] = edges[i];
  return values;
}

void ExpectSame(float got, float expected, const std::string& what) {
  if (std::isnan(expected)) {
    EXPECT_TRUE(std::isnan(got)) << what;
  } else {
    EXPECT_EQ(AsBits(got), AsBits(expected)) << what << ": " << got << " for " << expected;
  }
}

template <class T>
void Check3(const std::string& statement, char kind, const std::function<T(T, T, T)>& reference) {
  const auto a = Values<T>(1), b = Values<T>(2), c = Values<T>(3);
  const auto got = RunLanes<T, T>(statement, kind, kind, {a, b, c});
  ASSERT_EQ(got.size(), a.size()) << statement;
  for (size_t i = 0; i < got.size(); ++i) {
    ASSERT_EQ(got[i], reference(a[i], b[i], c[i]))
        << statement << " of " << a[i] << ", " << b[i] << ", " << c[i];
  }
}
using U32 = uint32_t;
using U64 = uint64_t;
#define CHECK32(statement, ...)                                \
  Check3<U32>(statement, 'r', [](U32 a, U32 b, U32 c) -> U32 { \
    (void)a;                                                   \
    (void)b;                                                   \
    (void)c;                                                   \
    return static_cast<U32>(__VA_ARGS__);                      \
  })
#define CHECK64(statement, ...)                                \
  Check3<U64>(statement, 'd', [](U64 a, U64 b, U64 c) -> U64 { \
    (void)a;                                                   \
    (void)b;                                                   \
    (void)c;                                                   \
    return static_cast<U64>(__VA_ARGS__);                      \
  })
#define S(x) static_cast<int32_t>(x)
#define L(x) static_cast<int64_t>(x)

TEST(EmulatorArithmetic, Integers) {
  CHECK32("add.s32 %r9, %r0, %r1;", a + b);
  CHECK32("sub.u32 %r9, %r0, %r1;", a - b);
  CHECK32("add.sat.s32 %r9, %r0, %r1;",
          std::min<int64_t>(INT32_MAX, std::max<int64_t>(INT32_MIN, L(S(a)) + S(b))));
  CHECK32("mul.lo.s32 %r9, %r0, %r1;", a * b);
  CHECK32("mul.hi.u32 %r9, %r0, %r1;", U64{a} * b >> 32);
  CHECK32("mul.hi.s32 %r9, %r0, %r1;", (L(S(a)) * S(b)) >> 32);
  CHECK32("mad.lo.s32 %r9, %r0, %r1, %r2;", a * b + c);
  CHECK32("mad.hi.u32 %r9, %r0, %r1, %r2;", (U64{a} * b >> 32) + c);
  CHECK32("max.s32 %r9, %r0, %r1;", std::max(S(a), S(b)));
  CHECK32("min.u32 %r9, %r0, %r1;", std::min(a, b));
  CHECK32("abs.s32 %r9, %r0;", S(a) < 0 ? 0u - a : a);
  CHECK32("neg.s32 %r9, %r0;", 0u - a);
  CHECK32("sad.s32 %r9, %r0, %r1, %r2;", c + (S(a) > S(b) ? a - b : b - a));
  CHECK32("or.b32 %r3, %r1, 1;\ndiv.u32 %r9, %r0, %r3;", a / (b | 1));
  CHECK32("or.b32 %r3, %r1, 1;\nrem.s32 %r9, %r0, %r3;", S(b | 1) == -1 ? 0 : S(a) % S(b | 1));
  CHECK32("{ .reg .u64 %w; mul.wide.u32 %w, %r0, %r1; shr.u64 %w, %w, 7; cvt.u32.u64 %r9, %w; }",
          U64{a} * b >> 7);
  CHECK32("{ .reg .s64 %w; mul.wide.s32 %w, %r0, %r1; shr.s64 %w, %w, 7; cvt.u32.u64 %r9, %w; }",
          (L(S(a)) * S(b)) >> 7);
  CHECK64("mul.lo.u64 %d9, %d0, %d1;", a * b);
  CHECK64("mul.hi.u64 %d9, %d0, %d1;", static_cast<unsigned __int128>(a) * b >> 64);
  CHECK64("add.u64 %d9, %d0, %d1;", a + b);
  CHECK64("max.s64 %d9, %d0, %d1;", std::max(L(a), L(b)));
  // 64-bit sum by halves with the carry.
  CHECK64(
      "{ .reg .b32 %l<4>; .reg .b32 %u<4>; mov.b64 {%l0,%u0}, %d0; mov.b64 {%l1,%u1}, %d1; "
      "add.cc.u32 %l2, %l0, %l1; addc.u32 %u2, %u0, %u1; mov.b64 %d9, {%l2,%u2}; }",
      a + b);
  CHECK64(
      "{ .reg .b32 %l<4>; .reg .b32 %u<4>; mov.b64 {%l0,%u0}, %d0; mov.b64 {%l1,%u1}, %d1; "
      "sub.cc.u32 %l2, %l0, %l1; subc.u32 %u2, %u0, %u1; mov.b64 %d9, {%l2,%u2}; }",
      a - b);
  CHECK32(
      "dp4a.s32.s32 %r9, %r0, %r1, %r2;", c + [](U32 x, U32 y) {
        U32 sum = 0;
        for (int i = 0; i < 4; ++i) sum += S(int8_t(x >> 8 * i)) * S(int8_t(y >> 8 * i));
        return sum;
      }(a, b));
  CHECK32(
      "dp4a.u32.s32 %r9, %r0, %r1, %r2;", c + [](U32 x, U32 y) {
        U32 sum = 0;
        for (int i = 0; i < 4; ++i) sum += S(uint8_t(x >> 8 * i)) * S(int8_t(y >> 8 * i));
        return sum;
      }(a, b));
}

TEST(EmulatorArithmetic, Bits) {
  CHECK32("and.b32 %r9, %r0, %r1;", a & b);
  CHECK32("xor.b32 %r9, %r0, %r1;", a ^ b);
  CHECK32("not.b32 %r9, %r0;", ~a);
  CHECK32("shl.b32 %r9, %r0, %r1;", b > 31 ? 0 : a << b);
  CHECK32("shr.u32 %r9, %r0, %r1;", b > 31 ? 0 : a >> b);
  CHECK32("shr.s32 %r9, %r0, %r1;", S(a) >> std::min(b, 31u));
  CHECK32("and.b32 %r3, %r2, 63;\nshf.l.clamp.b32 %r9, %r0, %r1, %r3;",
          (c & 63) >= 32  ? a
          : (c & 63) == 0 ? b
                          : b << (c & 63) | a >> (32 - (c & 63)));
  CHECK32("shf.r.wrap.b32 %r9, %r0, %r1, %r2;",
          (c & 31) == 0 ? a : a >> (c & 31) | b << (32 - (c & 31)));
  CHECK32("popc.b32 %r9, %r0;", __builtin_popcount(a));
  CHECK32("clz.b32 %r9, %r0;", a == 0 ? 32 : __builtin_clz(a));
  CHECK32("bfind.u32 %r9, %r0;", a == 0 ? ~0u : 31 - __builtin_clz(a));
  CHECK32("bfind.s32 %r9, %r0;", [](U32 x) {
    const U32 y = S(x) < 0 ? ~x : x;
    return y == 0 ? ~0u : 31u - __builtin_clz(y);
  }(a));
  CHECK32("brev.b32 %r9, %r0;", [](U32 x) {
    U32 r = 0;
    for (int i = 0; i < 32; ++i)
      if (x >> i & 1) r |= 1u << (31 - i);
    return r;
  }(a));
  CHECK32("and.b32 %r3, %r1, 31;\nand.b32 %r4, %r2, 31;\nbfe.u32 %r9, %r0, %r3, %r4;",
          (a >> (b & 31)) & ((1u << (c & 31)) - 1));
  CHECK32("and.b32 %r3, %r2, 31;\nbfi.b32 %r9, %r0, %r1, %r3, 5;", [](U32 x, U32 y, U32 at) {
    const U32 m = 31u << at;
    return (y & ~m) | (x << at & m);
  }(a, b, c & 31));
  CHECK32("lop3.b32 %r9, %r0, %r1, %r2, 0xE8;", (a & b) | (a & c) | (b & c));
  CHECK32("lop3.b32 %r9, %r0, %r1, %r2, 0x1E;", a ^ (b | c));
  CHECK32("prmt.b32 %r9, %r0, %r1, %r2;", [](U32 x, U32 y, U32 s) {
    const uint8_t bytes[8] = {uint8_t(x), uint8_t(x >> 8), uint8_t(x >> 16), uint8_t(x >> 24),
                              uint8_t(y), uint8_t(y >> 8), uint8_t(y >> 16), uint8_t(y >> 24)};
    U32 r = 0;
    for (int i = 0; i < 4; ++i, s >>= 4)
      r |= (s & 8 ? U32(bytes[s & 7] & 0x80 ? 255 : 0) : bytes[s & 7]) << 8 * i;
    return r;
  }(a, b, c));
  CHECK32("prmt.b32.rc16 %r9, %r0, %r1, %r2;", (c & 1 ? a >> 16 : a & 0xFFFF) * 0x10001u);
  CHECK64("shl.b64 %d9, %d0, 13;", a << 13);
  CHECK64("bfe.s64 %d9, %d0, 9, 20;", L(a << 35) >> 44);
}

TEST(EmulatorArithmetic, ComparesAndSelects) {
  CHECK32("setp.lt.s32 %p0, %r0, %r1;\nselp.b32 %r9, 1, 2, %p0;", S(a) < S(b) ? 1 : 2);
  CHECK32("setp.hs.u32 %p0, %r0, %r1;\nselp.b32 %r9, %r0, %r1, %p0;", a >= b ? a : b);
  CHECK32(
      "setp.ne.b32 %p1, %r2, 0;\nsetp.gt.and.u32 %p0|%p2, %r0, %r1, %p1;\nselp.b32 %r3, 1, 0, "
      "%p0;\nselp.b32 %r9, 2, 0, %p2;\nor.b32 %r9, %r9, %r3;",
      ((a > b && c != 0) ? 1 : 0) | ((!(a > b) && c != 0) ? 2 : 0));
  CHECK32(
      "setp.eq.s32 %p1, %r2, 0;\nsetp.le.xor.s32 %p0, %r0, %r1, !%p1;\nselp.b32 %r9, 5, 6, %p0;",
      ((S(a) <= S(b)) != (c != 0)) ? 5 : 6);
  CHECK32("set.lt.u32.s32 %r9, %r0, %r1;", S(a) < S(b) ? ~0u : 0);
  CHECK32("slct.b32.s32 %r9, %r0, %r1, %r2;", S(c) >= 0 ? a : b);
  CHECK32("mov.u32 %r9, 1;\nsetp.gt.u32 %p0, %r0, %r1;\n@%p0 mov.u32 %r9, 2;", a > b ? 2 : 1);
  const auto a = Floats(1), b = Floats(2);
  const struct {
    const char* test;
    bool (*holds)(float, float);
  } kTests[] = {{"lt", [](float x, float y) { return x < y; }},
                {"geu", [](float x, float y) { return !(x < y); }},
                {"eq", [](float x, float y) { return x == y; }},
                {"neu", [](float x, float y) { return !(x == y); }},
                {"ne", [](float x, float y) { return x < y || x > y; }},
                {"nan", [](float x, float y) { return std::isnan(x) || std::isnan(y); }},
                {"gtu", [](float x, float y) { return !(x <= y); }},
                {"num", [](float x, float y) { return !std::isnan(x) && !std::isnan(y); }}};
  for (const auto& test : kTests) {
    const auto got = RunLanes<uint32_t, float>(
        std::string("setp.") + test.test + ".f32 %p0, %f0, %f1;\nselp.b32 %r9, 1, 0, %p0;", 'r',
        'f', {a, b});
    for (size_t i = 0; i < got.size(); ++i)
      EXPECT_EQ(got[i] != 0, test.holds(a[i], b[i])) << test.test << " " << a[i] << " " << b[i];
  }
}

void CheckFloat(const std::string& statement,
                const std::function<float(float, float, float)>& reference, double tolerance = 0) {
  const auto a = Floats(1), b = Floats(2), c = Floats(3);
  const auto got = RunLanes<float, float>(statement, 'f', 'f', {a, b, c});
  ASSERT_EQ(got.size(), a.size());
  for (size_t i = 0; i < got.size(); ++i) {
    const float expected = reference(a[i], b[i], c[i]);
    const std::string what = statement + " of " + std::to_string(a[i]) + ", " +
                             std::to_string(b[i]) + ", " + std::to_string(c[i]);
    if (tolerance != 0 && std::isfinite(expected) && std::fabs(expected) > 0x1p-120f) {
      EXPECT_LE(std::fabs(got[i] - expected), tolerance * std::fabs(expected)) << what;
    } else if (tolerance == 0 || !std::isfinite(expected)) {
      ExpectSame(got[i], expected, what);
    }
  }
}

float Directed(int mode, const std::function<float()>& compute) {
  std::fesetround(mode);
  const float r = compute();
  std::fesetround(FE_TONEAREST);
  return r;
}

TEST(EmulatorArithmetic, Floats) {
  CheckFloat("add.f32 %f9, %f0, %f1;", [](float a, float b, float) { return a + b; });
  CheckFloat("mul.rn.f32 %f9, %f0, %f1;", [](float a, float b, float) { return a * b; });
  CheckFloat("fma.rn.f32 %f9, %f0, %f1, %f2;",
             [](float a, float b, float c) { return std::fma(a, b, c); });
  CheckFloat("div.rn.f32 %f9, %f0, %f1;", [](float a, float b, float) { return a / b; });
  CheckFloat("sqrt.rn.f32 %f9, %f0;", [](float a, float, float) { return std::sqrt(a); });
  CheckFloat("rcp.rn.f32 %f9, %f0;", [](float a, float, float) { return 1 / a; });
  CheckFloat("max.f32 %f9, %f0, %f1;", [](float a, float b, float) {
    return std::isnan(a)      ? b
           : std::isnan(b)    ? a
           : a == 0 && b == 0 ? (std::signbit(a) ? b : a)
                              : std::fmax(a, b);
  });
  CheckFloat("min.NaN.f32 %f9, %f0, %f1;", [](float a, float b, float) {
    return std::isnan(a) || std::isnan(b) ? NAN
           : a == 0 && b == 0             ? (std::signbit(a) ? a : b)
                                          : std::fmin(a, b);
  });
  CheckFloat("add.sat.f32 %f9, %f0, %f1;", [](float a, float b, float) {
    const float s = a + b;
    return !(s > 0) ? 0.0f : s > 1 ? 1.0f : s;
  });
  CheckFloat("neg.f32 %f9, %f0;", [](float a, float, float) { return -a; });
  CheckFloat("abs.f32 %f9, %f0;", [](float a, float, float) { return std::fabs(a); });
  const auto flush = [](float x) { return std::fabs(x) < FLT_MIN ? std::copysign(0.0f, x) : x; };
  CheckFloat("mul.ftz.f32 %f9, %f0, %f1;",
             [&](float a, float b, float) { return flush(flush(a) * flush(b)); });
  const struct {
    const char* name;
    int mode;
  } kModes[] = {{"rz", FE_TOWARDZERO}, {"rm", FE_DOWNWARD}, {"rp", FE_UPWARD}};
  for (const auto& mode : kModes) {
    CheckFloat(std::string("fma.") + mode.name + ".f32 %f9, %f0, %f1, %f2;",
               [&](float a, float b, float c) {
                 return Directed(mode.mode, [&] {
                   volatile float x = a, y = b, z = c;
                   return std::fma(x, y, z);
                 });
               });
    CheckFloat(std::string("add.") + mode.name + ".f32 %f9, %f0, %f1;",
               [&](float a, float b, float) {
                 return Directed(mode.mode, [&] {
                   volatile float x = a, y = b;
                   volatile float r = x + y;
                   return static_cast<float>(r);
                 });
               });
  }
  // Approximations: within the manual's bounds of the true value.
  CheckFloat(
      "abs.f32 %f3, %f0;\nmin.f32 %f3, %f3, 0f42C80000;\nex2.approx.f32 %f9, %f3;",
      [](float a, float, float) {
        return std::exp2(
            static_cast<double>(std::isnan(a) ? 100.0f : std::min(std::fabs(a), 100.0f)));
      },
      0x1p-22);
  CheckFloat("rcp.approx.f32 %f9, %f0;", [](float a, float, float) { return 1 / a; }, 0x1p-23);
  CheckFloat(
      "abs.f32 %f3, %f0;\nrsqrt.approx.f32 %f9, %f3;",
      [](float a, float, float) {
        return static_cast<float>(1 / std::sqrt(static_cast<double>(std::fabs(a))));
      },
      0x1p-22);
  CheckFloat(
      "tanh.approx.f32 %f9, %f0;", [](float a, float, float) { return std::tanh(a); }, 0x1p-10);
}

// All pairs of some, and all of one operand, against double arithmetic rounded once by the
// library's own encoders.
TEST(EmulatorArithmetic, SixteenBitFloats) {
  std::vector<uint16_t> a, b, c;
  std::mt19937 random(5);
  for (uint32_t i = 0; i < 65536; ++i) {
    a.push_back(static_cast<uint16_t>(i));
    b.push_back(static_cast<uint16_t>(random()));
    c.push_back(static_cast<uint16_t>(random()));
  }
  const auto half = [](uint16_t h) { return static_cast<double>(DecodeF16(h)); };
  const auto check = [&](const std::string& statement, bool brain,
                         const std::function<double(double, double, double)>& f) {
    const auto got = RunLanes<uint16_t, uint16_t>(statement, 'h', 'h', {a, b, c});
    for (size_t i = 0; i < got.size(); ++i) {
      const auto value = [&](uint16_t h) {
        return brain ? static_cast<double>(DecodeBF16(h)) : half(h);
      };
      const double x = f(value(a[i]), value(b[i]), value(c[i]));
      if (std::isnan(x)) {
        ASSERT_TRUE(std::isnan(value(got[i])));
        continue;
      }
      ASSERT_EQ(got[i], EncodeSmall(brain ? kBF16 : kF16, x, Rounding::kNearestEven, false))
          << statement << " " << a[i] << " " << b[i] << " " << c[i];
    }
  };
  check("add.f16 %h9, %h0, %h1;", false, [](double x, double y, double) { return x + y; });
  check("mul.f16 %h9, %h0, %h1;", false, [](double x, double y, double) { return x * y; });
  check("add.rn.bf16 %h9, %h0, %h1;", true,
        [](double x, double y, double) { return static_cast<float>(x + y); });
  check("mul.rn.bf16 %h9, %h0, %h1;", true, [](double x, double y, double) { return x * y; });
  // Sums of a product and a number: exact in long double for most; those that are not differ far
  // below the rounding.
  check("fma.rn.f16 %h9, %h0, %h1, %h2;", false, [](double x, double y, double z) {
    const long double exact = static_cast<long double>(x) * y + z;
    double d = static_cast<double>(exact);
    if (d != exact && std::isfinite(d)) {  // to odd
      uint64_t bits;
      std::memcpy(&bits, &d, 8);
      if ((bits & 1) == 0) bits += (exact > d) == (d > 0) ? 1 : -1;
      std::memcpy(&d, &bits, 8);
    }
    return d;
  });
  const auto pairs = RunLanes<uint32_t, uint32_t>(
      "mul.f16x2 %r9, %r0, %r1;", 'r', 'r',
      {{0x3C004000u, 0x40003C00u, 0x42004400u, 0u, 0u, 0u, 0u, 0u, 0u, 0u, 0u, 0u, 0u, 0u, 0u, 0u,
        0u,          0u,          0u,          0u, 0u, 0u, 0u, 0u, 0u, 0u, 0u, 0u, 0u, 0u, 0u, 0u},
       {0x40004200u, 0x42004000u, 0x3C003C00u, 0u, 0u, 0u, 0u, 0u, 0u, 0u, 0u,
        0u,          0u,          0u,          0u, 0u, 0u, 0u, 0u, 0u, 0u, 0u,
        0u,          0u,          0u,          0u, 0u, 0u, 0u, 0u, 0u, 0u}});
  EXPECT_EQ(pairs[0], 0x40004600u);
  EXPECT_EQ(pairs[1], 0x46004000u);
  EXPECT_EQ(pairs[2], 0x42004400u);
}

// ---- conversions --------------------------------------------------------------------------------

TEST(EmulatorArithmetic, SmallFormatsMatchTheLibrarysOverAllCodes) {
  for (uint32_t i = 0; i < 65536; ++i) {
    const auto h = static_cast<uint16_t>(i);
    ExpectSame(HalfToFloat(h), DecodeF16(h), "f16 " + std::to_string(i));
    ExpectSame(BrainToFloat(h), DecodeBF16(h), "bf16 " + std::to_string(i));
    ExpectSame(static_cast<float>(DecodeSmall(kF16, i)), DecodeF16(h), "f16 by definition");
  }
  for (uint32_t i = 0; i < 256; ++i) {
    ExpectSame(SmallTable(kE4M3)[i], DecodeE4M3(static_cast<uint8_t>(i)), "e4m3");
    ExpectSame(SmallTable(kE5M2)[i], DecodeE5M2(static_cast<uint8_t>(i)), "e5m2");
  }
  for (uint32_t i = 0; i < 64; ++i) {
    ExpectSame(SmallTable(kE3M2)[i], DecodeE3M2(static_cast<uint8_t>(i)), "e3m2");
    ExpectSame(SmallTable(kE2M3)[i], DecodeE2M3(static_cast<uint8_t>(i)), "e2m3");
  }
  std::mt19937 random(3);
  for (int i = 0; i < 2000000; ++i) {
    const float f = AsFloat(random());
    if (std::isnan(f)) continue;
    ASSERT_EQ(FloatToHalf(f), EncodeSmall(kF16, f, Rounding::kNearestEven, false)) << f;
    ASSERT_EQ(FloatToBrain(f), EncodeSmall(kBF16, f, Rounding::kNearestEven, false)) << f;
  }
}

// Each code's value, and the values half way to the next and just beside them.
std::vector<float> Boundaries(const SmallFormat& format) {
  std::vector<float> values;
  const uint32_t largest = LargestSmall(format);
  for (uint32_t code = 0; code <= largest; ++code) {
    const double x = DecodeSmall(format, code);
    const double next =
        code < largest ? DecodeSmall(format, code + 1) : 2 * x - DecodeSmall(format, code - 1);
    const float middle = static_cast<float>((x + next) / 2);
    for (float v : {static_cast<float>(x), middle, std::nextafter(middle, 0.0f),
                    std::nextafter(middle, INFINITY)}) {
      values.push_back(v);
      values.push_back(-v);
    }
  }
  for (float v : {1e30f, -1e30f, INFINITY, -INFINITY, 0.0f, -0.0f, NAN}) values.push_back(v);
  while (values.size() % 32 != 0) values.push_back(0.25f);
  return values;
}

TEST(EmulatorArithmetic, ConversionsToSmallFormats) {
  const struct {
    const char* name;
    SmallFormat format;
    uint8_t (*encode)(float);
    int sm;
  } kPairs[] = {{"e4m3x2", kE4M3, EncodeE4M3, 89},
                {"e5m2x2", kE5M2, EncodeE5M2, 89},
                {"e3m2x2", kE3M2, EncodeE3M2, 120},
                {"e2m3x2", kE2M3, EncodeE2M3, 120}};
  for (const auto& pair : kPairs) {
    const auto values = Boundaries(pair.format);
    std::vector<float> reversed(values.rbegin(), values.rend());
    const auto got = RunLanes<uint16_t, float>(
        std::string("cvt.rn.satfinite.") + pair.name + ".f32 %h9, %f0, %f1;", 'h', 'f',
        {values, reversed}, pair.sm);
    ASSERT_EQ(got.size(), values.size());
    // Unlike the library's encoder, .satfinite makes the largest number of an infinity.
    const auto finite = [](float v) { return std::isinf(v) ? std::copysign(FLT_MAX, v) : v; };
    for (size_t i = 0; i < got.size(); ++i) {
      // The first operand stands in the upper byte.
      if (!std::isnan(values[i])) {
        EXPECT_EQ(got[i] >> 8, pair.encode(finite(values[i]))) << pair.name << " of " << values[i];
      }
      if (!std::isnan(reversed[i])) {
        EXPECT_EQ(got[i] & 0xFF, pair.encode(finite(reversed[i])))
            << pair.name << " of " << reversed[i];
      }
    }
    // And back, over all codes.
    std::vector<uint16_t> codes;
    for (uint32_t i = 0; i < 256; ++i)
      codes.push_back(static_cast<uint16_t>((i | i * 7 << 8) & (pair.sm == 120 ? 0x3F3F : 0xFFFF)));
    const auto back =
        RunLanes<uint16_t, uint16_t>(std::string("{ .reg .b32 %w; cvt.rn.f16x2.") + pair.name +
                                         " %w, %h0; mov.b32 {%h9, %h8}, %w; }",
                                     'h', 'h', {codes}, pair.sm);
    for (size_t i = 0; i < back.size(); ++i) {
      ExpectSame(DecodeF16(back[i]), static_cast<float>(DecodeSmall(pair.format, codes[i] & 0xFF)),
                 pair.name);
    }
  }
  for (bool brain : {false, true}) {
    const auto values = Floats(9), others = Floats(10);
    const auto got = RunLanes<uint32_t, float>(
        std::string("cvt.rn.") + (brain ? "bf16x2" : "f16x2") + ".f32 %r9, %f0, %f1;", 'r', 'f',
        {values, others});
    for (size_t i = 0; i < got.size(); ++i) {
      if (!std::isnan(values[i])) {
        EXPECT_EQ(got[i] >> 16,
                  EncodeSmall(brain ? kBF16 : kF16, values[i], Rounding::kNearestEven, false));
      }
      if (!std::isnan(others[i])) {
        EXPECT_EQ(got[i] & 0xFFFF,
                  EncodeSmall(brain ? kBF16 : kF16, others[i], Rounding::kNearestEven, false));
      }
    }
  }
}

TEST(EmulatorArithmetic, ConversionsBetweenNumbers) {
  const auto floats = Floats(11);
  const struct {
    const char* mode;
    double (*round)(double);
  } kModes[] = {{"rni", [](double x) { return std::nearbyint(x); }},
                {"rzi", [](double x) { return std::trunc(x); }},
                {"rmi", [](double x) { return std::floor(x); }},
                {"rpi", [](double x) { return std::ceil(x); }}};
  for (const auto& mode : kModes) {
    const auto ints = RunLanes<uint32_t, float>(
        std::string("cvt.") + mode.mode + ".s32.f32 %r9, %f0;", 'r', 'f', {floats});
    const auto unsigneds = RunLanes<uint32_t, float>(
        std::string("cvt.") + mode.mode + ".u32.f32 %r9, %f0;", 'r', 'f', {floats});
    const auto rounded = RunLanes<float, float>(
        std::string("cvt.") + mode.mode + ".f32.f32 %f9, %f0;", 'f', 'f', {floats});
    for (size_t i = 0; i < ints.size(); ++i) {
      const double r = mode.round(floats[i]);
      EXPECT_EQ(S(ints[i]), std::isnan(r) ? 0
                            : r >= 0x1p31 ? INT32_MAX
                            : r < -0x1p31 ? INT32_MIN
                                          : static_cast<int32_t>(r))
          << floats[i];
      EXPECT_EQ(unsigneds[i], std::isnan(r) || r < 0 ? 0u
                              : r >= 0x1p32          ? UINT32_MAX
                                                     : static_cast<uint32_t>(r))
          << floats[i];
      ExpectSame(rounded[i], static_cast<float>(r), mode.mode);
    }
  }
  CHECK32("cvt.rn.f32.s32 %f9, %r0;\nmov.b32 %r9, %f9;", AsBits(static_cast<float>(S(a))));
  CHECK32("cvt.rn.f32.u32 %f9, %r0;\nmov.b32 %r9, %f9;", AsBits(static_cast<float>(a)));
  CHECK32("cvt.rz.f32.s32 %f9, %r0;\nmov.b32 %r9, %f9;", AsBits(Directed(FE_TOWARDZERO, [&] {
            volatile int32_t x = S(a);
            volatile float f = static_cast<float>(x);
            return static_cast<float>(f);
          })));
  CHECK32("cvt.s32.s8 %r9, %r0;", S(int8_t(a)));
  CHECK32("cvt.u32.u8 %r9, %r0;", a & 0xFF);
  CHECK32("cvt.sat.s8.s32 %r9, %r0;", std::min(127, std::max(-128, S(a))));
  CHECK32("cvt.u16.u32 %h0, %r0;\ncvt.s32.s16 %r9, %h0;", S(int16_t(a)));
  CHECK32("cvt.pack.sat.s8.s32.b32 %r9, %r0, %r1, %r2;",
          (c << 16) | (static_cast<U32>(std::min(127, std::max(-128, S(a)))) & 255) << 8 |
              (static_cast<U32>(std::min(127, std::max(-128, S(b)))) & 255));
  CHECK64("cvt.u32.u64 %r0, %d0;\ncvt.s64.s32 %d9, %r0;", L(S(a)));
  CHECK64("cvt.rn.f64.s64 %g0, %d0;\nmov.b64 %d9, %g0;", [](U64 x) {
    const double d = static_cast<double>(L(x));
    U64 bits;
    std::memcpy(&bits, &d, 8);
    return bits;
  }(a));
  CHECK64("cvt.rn.f64.u64 %g0, %d0;\ncvt.rzi.u64.f64 %d9, %g0;", [](U64 x) {
    const double d = static_cast<double>(x);
    return d >= 0x1p64 ? ~U64{0} : static_cast<U64>(d);
  }(a));
}

// ---- lanes
// ----------------------------------------------------------------------------------------

TEST(EmulatorArithmetic, BetweenLanes) {
  const auto a = Values<uint32_t>(4, 32);
  const auto each = [&](const std::string& statement,
                        const std::function<uint32_t(int)>& expected) {
    const auto got = RunLanes<uint32_t, uint32_t>(statement, 'r', 'r', {a});
    for (int lane = 0; lane < 32; ++lane)
      EXPECT_EQ(got[lane], expected(lane)) << statement << " lane " << lane;
  };
  each("shfl.sync.bfly.b32 %r9|%p0, %r0, 5, 31, -1;", [&](int l) { return a[l ^ 5]; });
  each("shfl.sync.up.b32 %r9|%p0, %r0, 3, 0, -1;", [&](int l) { return a[l >= 3 ? l - 3 : l]; });
  each("shfl.sync.down.b32 %r9|%p0, %r0, 3, 31, -1;",
       [&](int l) { return a[l + 3 < 32 ? l + 3 : l]; });
  each("shfl.sync.idx.b32 %r9|%p0, %r0, 7, 31, -1;", [&](int) { return a[7]; });
  // Groups of eight lanes: the third operand is (32 - 8) << 8 | 31, or | 0 for up.
  each("shfl.sync.down.b32 %r9|%p0, %r0, 3, 6175, -1;",
       [&](int l) { return a[l % 8 + 3 < 8 ? l + 3 : l]; });
  each("shfl.sync.up.b32 %r9|%p0, %r0, 3, 6144, -1;",
       [&](int l) { return a[l % 8 >= 3 ? l - 3 : l]; });
  each("shfl.sync.idx.b32 %r9|%p0, %r0, 2, 6175, -1;", [&](int l) { return a[l / 8 * 8 + 2]; });
  each("shfl.sync.down.b32 %r8|%p0, %r0, 3, 6175, -1;\nselp.b32 %r9, 1, 0, %p0;",
       [&](int l) { return l % 8 + 3 < 8 ? 1u : 0u; });
  uint32_t odd = 0, sum = 0;
  int32_t most = INT32_MIN;
  for (int l = 0; l < 32; ++l) {
    odd |= (a[l] & 1) << l;
    sum += a[l];
    most = std::max(most, S(a[l]));
  }
  const std::string test = "and.b32 %r1, %r0, 1;\nsetp.ne.u32 %p0, %r1, 0;\n";
  each(test + "vote.sync.ballot.b32 %r9, %p0, -1;", [&](int) { return odd; });
  each(test + "vote.sync.any.pred %p1, %p0, -1;\nselp.b32 %r9, 1, 0, %p1;",
       [&](int) { return odd != 0 ? 1u : 0u; });
  each(test + "vote.sync.all.pred %p1, !%p0, -1;\nselp.b32 %r9, 1, 0, %p1;",
       [&](int) { return odd == 0 ? 1u : 0u; });
  each("redux.sync.add.u32 %r9, %r0, -1;", [&](int) { return sum; });
  each("redux.sync.max.s32 %r9, %r0, -1;", [&](int) { return static_cast<uint32_t>(most); });
  each("and.b32 %r1, %r0, 3;\nmatch.any.sync.b32 %r9, %r1, -1;", [&](int l) {
    uint32_t same = 0;
    for (int m = 0; m < 32; ++m) same |= static_cast<uint32_t>((a[m] & 3) == (a[l] & 3)) << m;
    return same;
  });
  each(test + "@%p0 activemask.b32 %r9;\n@!%p0 mov.u32 %r9, 0;",
       [&](int l) { return (a[l] & 1) != 0 ? odd : 0; });
  each("mov.u32 %r9, %lanemask_lt;", [](int l) { return (1u << l) - 1; });
  each("bar.red.popc.u32 %r9, 0, %p9;", [](int) { return 32u; });  // a poisoned predicate is true
}

}  // namespace
}  // namespace nibble::cuda::emulator
