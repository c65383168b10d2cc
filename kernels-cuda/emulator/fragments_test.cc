// SPDX-License-Identifier: Apache-2.0
//
// Where each element of a matrix stands in the registers of the 32 lanes, lane by lane, as the PTX
// manual's figures and formulas for mma, ldmatrix, stmatrix and movmatrix give it: written out
// here per instruction, with rows and columns computed from the manual's groupID (lane >> 2) and
// threadID_in_group (lane % 4).

#include <cmath>
#include <functional>
#include <random>

#include "kernels-cuda/emulator/ptx_kernel_for_test.h"
#include "kernels-cuda/emulator/small_floats.h"

namespace nibble::cuda::emulator {
namespace {

struct Place {
  int row, col;
};

// ---- The manual's formulas --------------------------------------------------------------------

// m16n8k8, .f16 and .bf16: a0..a3, b0..b1.
Place A16K8(int lane, int i) {
  return {i < 2 ? lane >> 2 : (lane >> 2) + 8, (lane % 4) * 2 + (i & 1)};
}
Place B16K8(int lane, int i) { return {(lane % 4) * 2 + i, lane >> 2}; }
// m16n8k16, .f16 and .bf16: a0..a7, b0..b3.
Place A16K16(int lane, int i) {
  const int group = lane >> 2, thread = lane % 4;
  const int row = (0 <= i && i < 2) || (4 <= i && i < 6) ? group : group + 8;
  const int col = i < 4 ? thread * 2 + (i & 1) : thread * 2 + (i & 1) + 8;
  return {row, col};
}
Place B16K16(int lane, int i) {
  const int thread = lane % 4;
  return {i < 2 ? thread * 2 + (i & 1) : thread * 2 + (i & 1) + 8, lane >> 2};
}
// m16n8k4 and m16n8k8, .tf32.
Place ATf32K4(int lane, int i) { return {i == 0 ? lane >> 2 : (lane >> 2) + 8, lane % 4}; }
Place BTf32K4(int lane, int) { return {lane % 4, lane >> 2}; }
Place ATf32K8(int lane, int i) {
  return {i == 0 || i == 2 ? lane >> 2 : (lane >> 2) + 8,
          i == 0 || i == 1 ? lane % 4 : lane % 4 + 4};
}
Place BTf32K8(int lane, int i) { return {i == 0 ? lane % 4 : lane % 4 + 4, lane >> 2}; }
// m16n8k16, 8-bit types.
Place A8K16(int lane, int i) {
  return {i < 4 ? lane >> 2 : (lane >> 2) + 8, (lane % 4) * 4 + (i & 3)};
}
Place B8K16(int lane, int i) { return {(lane % 4) * 4 + i, lane >> 2}; }
// m16n8k32, 8-bit types.
Place A8K32(int lane, int i) {
  const int row = (0 <= i && i < 4) || (8 <= i && i < 12) ? lane >> 2 : (lane >> 2) + 8;
  return {row, i < 8 ? (lane % 4) * 4 + (i & 3) : (lane % 4) * 4 + (i & 3) + 16};
}
Place B8K32(int lane, int i) {
  return {i < 4 ? (lane % 4) * 4 + (i & 3) : (lane % 4) * 4 + (i & 3) + 16, lane >> 2};
}
// m16n8k32 and k64, 4-bit types.
Place A4K32(int lane, int i) {
  return {i < 8 ? lane >> 2 : (lane >> 2) + 8, (lane % 4) * 8 + (i & 7)};
}
Place B4K32(int lane, int i) { return {(lane % 4) * 8 + (i & 7), lane >> 2}; }
Place A4K64(int lane, int i) {
  const int row = (0 <= i && i < 8) || (16 <= i && i < 24) ? lane >> 2 : (lane >> 2) + 8;
  return {row, i < 16 ? (lane % 4) * 8 + (i & 7) : (lane % 4) * 8 + (i & 7) + 32};
}
Place B4K64(int lane, int i) {
  return {i < 8 ? (lane % 4) * 8 + (i & 7) : (lane % 4) * 8 + (i & 7) + 32, lane >> 2};
}
// The accumulator of every m16n8: c0..c3.
Place C(int lane, int i) { return {i < 2 ? lane >> 2 : (lane >> 2) + 8, (lane % 4) * 2 + (i & 1)}; }

using Formula = Place (*)(int, int);

struct Instruction {
  const char* name;
  int k, bits;  // of an element
  int a_count, b_count;
  Formula a, b;
  double (*value_a)(uint32_t), (*value_b)(uint32_t);
  char result;  // 'f' F32, 'h' F16, 's' S32
  int sm;
  uint32_t code_mask;
};

double F16(uint32_t c) { return DecodeSmall(kF16, c); }
double BF16(uint32_t c) { return DecodeSmall(kBF16, c); }
double TF32(uint32_t c) {
  float f;
  const uint32_t bits = c & ~0x1FFFu;
  std::memcpy(&f, &bits, 4);
  return f;
}
double E4M3(uint32_t c) { return DecodeSmall(kE4M3, c); }
double E5M2(uint32_t c) { return DecodeSmall(kE5M2, c); }
double E3M2(uint32_t c) { return DecodeSmall(kE3M2, c); }
double E2M3(uint32_t c) { return DecodeSmall(kE2M3, c); }
double S8(uint32_t c) { return static_cast<int8_t>(c); }
double U8(uint32_t c) { return c; }
double S4(uint32_t c) { return static_cast<int>(c ^ 8) - 8; }
double U4(uint32_t c) { return c; }

const Instruction kInstructions[] = {
    {"m16n8k8.row.col.f32.f16.f16.f32", 8, 16, 4, 2, A16K8, B16K8, F16, F16, 'f', 80, 0xFFFF},
    {"m16n8k8.row.col.f16.f16.f16.f16", 8, 16, 4, 2, A16K8, B16K8, F16, F16, 'h', 80, 0xFFFF},
    {"m16n8k8.row.col.f32.bf16.bf16.f32", 8, 16, 4, 2, A16K8, B16K8, BF16, BF16, 'f', 80, 0xFFFF},
    {"m16n8k16.row.col.f32.f16.f16.f32", 16, 16, 8, 4, A16K16, B16K16, F16, F16, 'f', 80, 0xFFFF},
    {"m16n8k16.row.col.f16.f16.f16.f16", 16, 16, 8, 4, A16K16, B16K16, F16, F16, 'h', 80, 0xFFFF},
    {"m16n8k16.row.col.f32.bf16.bf16.f32", 16, 16, 8, 4, A16K16, B16K16, BF16, BF16, 'f', 80,
     0xFFFF},
    {"m16n8k4.row.col.f32.tf32.tf32.f32", 4, 32, 2, 1, ATf32K4, BTf32K4, TF32, TF32, 'f', 80,
     0xFFFFFFFF},
    {"m16n8k8.row.col.f32.tf32.tf32.f32", 8, 32, 4, 2, ATf32K8, BTf32K8, TF32, TF32, 'f', 80,
     0xFFFFFFFF},
    {"m16n8k16.row.col.s32.s8.s8.s32", 16, 8, 8, 4, A8K16, B8K16, S8, S8, 's', 80, 0xFF},
    {"m16n8k16.row.col.s32.u8.s8.s32", 16, 8, 8, 4, A8K16, B8K16, U8, S8, 's', 80, 0xFF},
    {"m16n8k32.row.col.s32.s8.s8.s32", 32, 8, 16, 8, A8K32, B8K32, S8, S8, 's', 80, 0xFF},
    {"m16n8k32.row.col.s32.s8.u8.s32", 32, 8, 16, 8, A8K32, B8K32, S8, U8, 's', 80, 0xFF},
    {"m16n8k32.row.col.s32.s4.s4.s32", 32, 4, 16, 8, A4K32, B4K32, S4, S4, 's', 80, 0xF},
    {"m16n8k64.row.col.s32.s4.u4.s32", 64, 4, 32, 16, A4K64, B4K64, S4, U4, 's', 80, 0xF},
    {"m16n8k32.row.col.f32.e4m3.e4m3.f32", 32, 8, 16, 8, A8K32, B8K32, E4M3, E4M3, 'f', 89, 0xFF},
    {"m16n8k32.row.col.f32.e5m2.e4m3.f32", 32, 8, 16, 8, A8K32, B8K32, E5M2, E4M3, 'f', 89, 0xFF},
    {"m16n8k32.row.col.f32.e4m3.e5m2.f32", 32, 8, 16, 8, A8K32, B8K32, E4M3, E5M2, 'f', 89, 0xFF},
    {"m16n8k16.row.col.f32.e4m3.e4m3.f32", 16, 8, 8, 4, A8K16, B8K16, E4M3, E4M3, 'f', 89, 0xFF},
    {"m16n8k32.row.col.kind::f8f6f4.f32.e3m2.e4m3.f32", 32, 8, 16, 8, A8K32, B8K32, E3M2, E4M3, 'f',
     120, 0x3F},
    {"m16n8k32.row.col.kind::f8f6f4.f32.e4m3.e2m3.f32", 32, 8, 16, 8, A8K32, B8K32, E4M3, E2M3, 'f',
     120, 0x3F},
    {"m16n8k32.row.col.kind::f8f6f4.f32.e2m3.e3m2.f32", 32, 8, 16, 8, A8K32, B8K32, E2M3, E3M2, 'f',
     120, 0x3F},
};

// Registers as [register][lane], elements packed from the low bits.
std::vector<uint32_t> Pack(const Instruction& i, int count, Formula place,
                           const std::vector<uint32_t>& matrix, int cols) {
  const int per = 32 / i.bits;
  std::vector<uint32_t> registers(static_cast<size_t>(count / per) * 32, 0);
  for (int lane = 0; lane < 32; ++lane) {
    for (int e = 0; e < count; ++e) {
      const Place p = place(lane, e);
      registers[e / per * 32 + lane] |= matrix[p.row * cols + p.col] << (i.bits * (e % per));
    }
  }
  return registers;
}

std::string Names(char kind, int first, int count) {
  std::string text = "{";
  for (int i = 0; i < count; ++i)
    text += (i == 0 ? "%" : ",%") + std::string(1, kind) + std::to_string(first + i);
  return text + "}";
}

// c at p0, a at p1, b at p2, the result at p3; each [register][lane] of 32-bit words.
std::string MmaKernel(const Instruction& i) {
  const int a = i.a_count * i.bits / 32, b = i.b_count * i.bits / 32, c = i.result == 'h' ? 2 : 4;
  std::string body = "mov.u32 %r50, %tid.x;\nmul.wide.u32 %d10, %r50, 4;\n";
  const auto load = [&](int parameter, char kind, int first, int count) {
    body += "ld.param.u64 %d0, [p" + std::to_string(parameter) + "];\nadd.u64 %d0, %d0, %d10;\n";
    for (int n = 0; n < count; ++n) {
      body += std::string("ld.global.") + (kind == 'f' ? "f32" : "u32") + " %" + kind +
              std::to_string(first + n) + ", [%d0+" + std::to_string(128 * n) + "];\n";
    }
  };
  const char kind = i.result == 'f' ? 'f' : 'r';
  load(0, kind, 0, c);
  load(1, 'r', 10, a);
  load(2, 'r', 20, b);
  const std::string acc = Names(kind, 0, c);
  body += std::string("mma.sync.aligned.") + i.name + " " + acc + ", " + Names('r', 10, a) + ", " +
          Names('r', 20, b) + ", " + acc + ";\n";
  body += "ld.param.u64 %d0, [p3];\nadd.u64 %d0, %d0, %d10;\n";
  for (int n = 0; n < c; ++n) {
    body += std::string("st.global.") + (kind == 'f' ? "f32" : "u32") + " [%d0+" +
            std::to_string(128 * n) + "], %" + kind + std::to_string(n) + ";\n";
  }
  return body;
}

class Mma : public ::testing::TestWithParam<Instruction> {};

// One element of A and one of B at a time, everywhere: C shows where they are.
TEST_P(Mma, EveryElementIsWhereTheManualSays) {
  const Instruction& i = GetParam();
  PtxKernel kernel(MmaKernel(i), i.sm);
  ASSERT_EQ(kernel.load_result(), CUDA_SUCCESS) << kernel.Message(kernel.load_result());
  std::mt19937 random(7);
  for (int round = 0; round < 40; ++round) {
    std::vector<uint32_t> a(16 * i.k), b(i.k * 8);
    std::vector<double> c(16 * 8);
    const auto code = [&](double (*value)(uint32_t)) {
      for (;;) {
        uint32_t x = random() & i.code_mask;
        if (i.bits == 8 && value != E3M2 && value != E2M3) x = random() & 0xFF;
        if (i.bits == 32) {
          const float f = static_cast<float>(random() % 4096) / 64 - 32;
          std::memcpy(&x, &f, 4);
        }
        const double v = value(x);
        if (std::isfinite(v) && std::fabs(v) <= 512 && (v == 0 || std::fabs(v) >= 1.0 / 512))
          return x;
      }
    };
    if (round < 20) {
      // Sparse: a single nonzero pair of elements, so that a wrong place is a wrong product.
      const int m = random() % 16, k = random() % i.k, n = random() % 8;
      do a[m * i.k + k] = code(i.value_a);
      while (i.value_a(a[m * i.k + k]) == 0);
      do b[k * 8 + n] = code(i.value_b);
      while (i.value_b(b[k * 8 + n]) == 0);
    } else {
      for (uint32_t& x : a) x = code(i.value_a);
      for (uint32_t& x : b) x = code(i.value_b);
    }
    for (double& x : c) x = static_cast<int>(random() % 64) - 32;
    std::vector<uint32_t> registers((i.result == 'h' ? 2 : 4) * 32, 0);
    for (int lane = 0; lane < 32; ++lane) {
      for (int e = 0; e < 4; ++e) {
        const double v = c[C(lane, e).row * 8 + C(lane, e).col];
        if (i.result == 'h') {
          registers[e / 2 * 32 + lane] |= EncodeSmall(kF16, v, Rounding::kNearestEven, false)
                                          << 16 * (e % 2);
        } else if (i.result == 's') {
          registers[e * 32 + lane] = static_cast<uint32_t>(static_cast<int32_t>(v));
        } else {
          const float f = static_cast<float>(v);
          std::memcpy(&registers[e * 32 + lane], &f, 4);
        }
      }
    }
    const CUdeviceptr out = kernel.Allocate(registers.size() * 4);
    ASSERT_EQ(kernel.Run({kernel.Upload(registers), kernel.Upload(Pack(i, i.a_count, i.a, a, i.k)),
                          kernel.Upload(Pack(i, i.b_count, i.b, b, 8)), out}),
              CUDA_SUCCESS)
        << LastViolation();
    const std::vector<uint32_t> got = kernel.Download<uint32_t>(out, registers.size());
    for (int lane = 0; lane < 32; ++lane) {
      for (int e = 0; e < 4; ++e) {
        const Place p = C(lane, e);
        double expected = c[p.row * 8 + p.col], size = std::fabs(expected);
        for (int k = 0; k < i.k; ++k) {
          const double product = i.value_a(a[p.row * i.k + k]) * i.value_b(b[k * 8 + p.col]);
          expected += product;
          size += std::fabs(product);
        }
        double value;
        if (i.result == 'h') {
          value = F16(got[e / 2 * 32 + lane] >> 16 * (e % 2) & 0xFFFF);
        } else if (i.result == 's') {
          value = static_cast<int32_t>(got[e * 32 + lane]);
        } else {
          float f;
          std::memcpy(&f, &got[e * 32 + lane], 4);
          value = f;
        }
        // F32: one rounding a product, 2^-24 of the sum of magnitudes each; F16: one more at the
        // end.
        const double bound = i.result == 's'
                                 ? 0
                                 : size * (i.k + 1) * 0x1p-24 +
                                       (i.result == 'h' ? std::fabs(expected) * 0x1p-11 : 0);
        if (i.result == 'h' && std::fabs(expected) >= 65504) continue;
        ASSERT_NEAR(value, expected, bound) << "lane " << lane << " c" << e << " round " << round;
      }
    }
  }
}

std::string NameOf(const ::testing::TestParamInfo<Instruction>& info) {
  std::string name = info.param.name;
  for (char& c : name) {
    if (c == '.' || c == ':') c = '_';
  }
  return name;
}
INSTANTIATE_TEST_SUITE_P(EmulatorFragments, Mma, ::testing::ValuesIn(kInstructions), NameOf);

// ldmatrix: lane l receives of matrix i, whose row r is at the address of lane 8 i + r, elements
// 2 (l % 4) and 2 (l % 4) + 1 of row l / 4; transposed, of column l / 4.
TEST(EmulatorFragments, LoadAndStoreMatrix) {
  for (int count : {1, 2, 4}) {
    for (bool transposed : {false, true}) {
      const std::string form = "x" + std::to_string(count) + (transposed ? ".trans" : "");
      // Rows are scattered: row n of all stands at 16 * (n * 13 % 64) bytes.
      std::string body =
          "ld.param.u64 %d0, [p0];\nld.param.u64 %d1, [p1];\nmov.u32 %r0, %tid.x;\nmov.u32 %r1, "
          "memory;\n"
          // each lane copies 32 bytes of the 1024
          "mul.wide.u32 %d2, %r0, 32;\nadd.u64 %d3, %d0, %d2;\nshl.b32 %r2, %r0, 5;\nadd.u32 %r3, "
          "%r1, %r2;\n"
          "ld.global.v4.u32 {%r10,%r11,%r12,%r13}, [%d3];\nst.shared.v4.u32 [%r3], "
          "{%r10,%r11,%r12,%r13};\n"
          "ld.global.v4.u32 {%r10,%r11,%r12,%r13}, [%d3+16];\nst.shared.v4.u32 [%r3+16], "
          "{%r10,%r11,%r12,%r13};\n"
          "bar.sync 0;\nmul.lo.u32 %r4, %r0, 13;\nand.b32 %r4, %r4, 63;\nshl.b32 %r4, %r4, "
          "4;\nadd.u32 %r5, %r1, %r4;\n";
      body += "ldmatrix.sync.aligned.m8n8." + form + ".shared.b16 " + Names('r', 20, count) +
              ", [%r5];\n";
      body += "mul.wide.u32 %d4, %r0, 4;\nadd.u64 %d5, %d1, %d4;\n";
      for (int n = 0; n < count; ++n)
        body += "st.global.u32 [%d5+" + std::to_string(128 * n) + "], %r" + std::to_string(20 + n) +
                ";\n";
      // stmatrix puts them back where they came from, to a second kilobyte.
      body += "stmatrix.sync.aligned.m8n8." + form + ".shared.b16 [%r5+1024], " +
              Names('r', 20, count) +
              ";\nbar.sync 0;\n"
              "ld.shared.v4.u32 {%r10,%r11,%r12,%r13}, [%r5+1024];\nld.param.u64 %d6, "
              "[p2];\nmul.wide.u32 %d7, %r0, 16;\nadd.u64 %d6, %d6, %d7;\n"
              "st.global.v4.u32 [%d6], {%r10,%r11,%r12,%r13};\n";
      PtxKernel kernel(body, 90, ".shared .align 16 .b8 memory[2048];");
      ASSERT_EQ(kernel.load_result(), CUDA_SUCCESS) << kernel.Message(kernel.load_result());
      std::vector<uint16_t> memory(512);
      for (size_t i = 0; i < memory.size(); ++i) memory[i] = static_cast<uint16_t>(i * 31 + 5);
      const CUdeviceptr out = kernel.Allocate(128 * count), back = kernel.Allocate(512);
      ASSERT_EQ(kernel.Run({kernel.Upload(memory), out, back}), CUDA_SUCCESS) << LastViolation();
      const std::vector<uint32_t> got = kernel.Download<uint32_t>(out, 32 * count);
      const std::vector<uint16_t> rows = kernel.Download<uint16_t>(back, 256);
      for (int matrix = 0; matrix < count; ++matrix) {
        for (int lane = 0; lane < 32; ++lane) {
          for (int h = 0; h < 2; ++h) {
            const int row = transposed ? 2 * (lane % 4) + h : lane / 4;
            const int col = transposed ? lane / 4 : 2 * (lane % 4) + h;
            const uint16_t expected = memory[(8 * matrix + row) * 13 % 64 * 8 + col];
            EXPECT_EQ(got[32 * matrix + lane] >> 16 * h & 0xFFFF, expected)
                << form << " lane " << lane << " half " << h;
          }
        }
        for (int row = 0; row < 8; ++row) {
          for (int col = 0; col < 8; ++col) {
            EXPECT_EQ(rows[(8 * matrix + row) * 8 + col],
                      memory[(8 * matrix + row) * 13 % 64 * 8 + col])
                << form;
          }
        }
      }
    }
  }
}

TEST(EmulatorFragments, MoveMatrix) {
  std::vector<uint32_t> in(32);
  for (int i = 0; i < 32; ++i)
    in[i] = static_cast<uint32_t>(2 * i) | static_cast<uint32_t>(2 * i + 1) << 16;
  const auto out = RunLanes<uint32_t, uint32_t>("movmatrix.sync.aligned.m8n8.trans.b16 %r9, %r0;",
                                                'r', 'r', {in});
  for (int lane = 0; lane < 32; ++lane) {
    // Element (row, col) of the input has the value 8 row + col; lane l holds (l / 4, 2 (l % 4) +
    // h).
    for (int h = 0; h < 2; ++h)
      EXPECT_EQ(out[lane] >> 16 * h & 0xFFFF,
                static_cast<uint32_t>(8 * (2 * (lane % 4) + h) + lane / 4));
  }
}

// 2^14 + 1 fits in F32, but not in sums that keep 13 bits below the largest product.
TEST(EmulatorFragments, TruncatedAccumulation) {
  const Instruction& i = kInstructions[14];
  ASSERT_STREQ(i.name, "m16n8k32.row.col.f32.e4m3.e4m3.f32");
  const Options before = GetOptions();
  for (bool truncated : {false, true}) {
    Options options = before;
    options.fp8_accumulation = truncated ? Accumulation::kTruncated : Accumulation::kFloat;
    SetOptions(options);
    PtxKernel kernel(MmaKernel(i), i.sm);
    std::vector<uint32_t> a(16 * 32, 0), b(32 * 8, 0);
    a[0] = b[0] = EncodeSmall(kE4M3, 128, Rounding::kNearestEven, false);  // 2^14
    a[1] = b[8] = EncodeSmall(kE4M3, 1, Rounding::kNearestEven, false);
    const CUdeviceptr out = kernel.Allocate(512);
    ASSERT_EQ(kernel.Run({kernel.Upload(std::vector<uint32_t>(128, 0)),
                          kernel.Upload(Pack(i, i.a_count, i.a, a, 32)),
                          kernel.Upload(Pack(i, i.b_count, i.b, b, 8)), out}),
              CUDA_SUCCESS);
    EXPECT_EQ(kernel.Download<float>(out, 1)[0], truncated ? 16384.0f : 16385.0f);
  }
  SetOptions(before);
}

}  // namespace
}  // namespace nibble::cuda::emulator
