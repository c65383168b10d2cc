// SPDX-License-Identifier: Apache-2.0
//
// wgmma.mma_async against the PTX manual: where elements stand in the registers of 128 threads
// (figures of the fragments of m64nNk8, k16 and k32), and in shared memory (canonical K-major
// layouts, matrix descriptors), written out here in the manual's terms.

#include <cmath>
#include <random>

#include "kernels-cuda/emulator/ptx_kernel_for_test.h"
#include "kernels-cuda/emulator/small_floats.h"

namespace nibble::cuda::emulator {
namespace {

struct Place {
  int row, col;
};

// Accumulator of any shape: element i of thread t.
Place D(int t, int i) {
  return {t / 32 * 16 + t % 32 / 4 + 8 * (i / 2 % 2), i / 4 * 8 + t % 4 * 2 + i % 2};
}
// A of m64nNk32 (8 bits), k16 (16 bits), k8 (32 bits): element i of thread t. A register holds
// `per` neighbouring columns; registers 1 and 3 are rows 8 further, 2 and 3 the second half of K.
Place A(int t, int i, int per) {
  const int reg = i / per;
  return {t / 32 * 16 + t % 32 / 4 + 8 * (reg % 2), t % 4 * per + i % per + 4 * per * (reg / 2)};
}

struct Type {
  const char* name;
  SmallFormat format;
  int bits;
};
constexpr Type kTypeE4M3{"e4m3", kE4M3, 8}, kTypeE5M2{"e5m2", kE5M2, 8}, kTypeF16{"f16", kF16, 16},
    kTypeBF16{"bf16", kBF16, 16}, kTypeTF32{"tf32", kTF32, 32};

// Mode of the descriptor -> 16-byte words of a pattern's row, and swizzled bits.
constexpr int kModeWords[] = {1, 8, 4, 2}, kModeBits[] = {0, 3, 2, 1};

// Swizzle<B, 4, 3> of a byte's address: bit 4 + b is inverted where bit 7 + b is set.
uint32_t Swizzle(uint32_t address, int mode) {
  for (int b = 0; b < kModeBits[mode]; ++b) address ^= (address >> (7 + b) & 1) << (4 + b);
  return address;
}

// A matrix in shared memory: ((8,m),(T,2)):((w T, SBO),(1, w = 1 ? LBO : T)) in elements, K-major.
struct Layout {
  int mode;
  uint32_t base;         // offset of the pattern, on a boundary of 1024
  uint32_t along_k;      // how far into the pattern's rows the matrix begins, in bytes
  uint32_t stride, leading;  // SBO, LBO in bytes

  uint32_t Byte(int row, int k, int bits) const {
    const int t = 128 / bits;
    const uint32_t from = base + along_k + row % 8 * kModeWords[mode] * 16 + row / 8 * stride +
                          k % t * bits / 8 + k / t * (mode == 0 ? leading : 16);
    return Swizzle(from, mode);
  }
  uint64_t Descriptor() const {
    return uint64_t{(base + along_k) / 16} | uint64_t{leading / 16} << 16 |
           uint64_t{stride / 16} << 32 | uint64_t(mode) << 62;
  }
};

struct Case {
  Type a, b;
  int n;
  Layout layout_b;
  bool a_in_memory = false;
  Layout layout_a = {0, 0, 0, 0, 0};
  bool accumulate = true;
  int scale_a = 1, scale_b = 1;
};

std::string Registers(const std::string& prefix, int count) {
  std::string text = "{";
  for (int i = 0; i < count; ++i) text += (i == 0 ? prefix : "," + prefix) + std::to_string(i);
  return text + "}";
}

constexpr char kShared[] = ".extern .shared .align 1024 .b8 dynamic[];";

// p0: shared memory's bytes, p1 how many; p2: A [register][thread]; p3: D [register][thread], in
// and out; p4, p5: descriptors of A and B without the start of shared memory.
std::string Kernel(const Case& c) {
  const int k = 256 / c.a.bits, d = c.n / 2;
  std::string body =
      ".reg .f32 %acc<128>;\n.reg .b32 %left<4>;\n"
      "mov.u32 %r0, %tid.x;\nmov.u32 %r1, dynamic;\nld.param.u64 %d0, [p0];\nld.param.u64 %d1, "
      "[p1];\ncvt.u32.u64 %r2, %d1;\nshl.b32 %r3, %r0, 4;\n"
      "LOOP:\nsetp.ge.u32 %p0, %r3, %r2;\n@%p0 bra DONE;\ncvt.u64.u32 %d2, %r3;\nadd.u64 %d2, "
      "%d0, %d2;\nadd.u32 %r4, %r1, %r3;\nld.global.v4.u32 {%r10,%r11,%r12,%r13}, [%d2];\n"
      "st.shared.v4.u32 [%r4], {%r10,%r11,%r12,%r13};\nadd.u32 %r3, %r3, 2048;\nbra LOOP;\nDONE:\n"
      "fence.proxy.async.shared::cta;\nbar.sync 0;\n"
      "mul.wide.u32 %d3, %r0, 4;\nld.param.u64 %d4, [p3];\nadd.u64 %d4, %d4, %d3;\n"
      "ld.param.u64 %d5, [p2];\nadd.u64 %d5, %d5, %d3;\n"
      "shr.u32 %r5, %r1, 4;\ncvt.u64.u32 %d6, %r5;\nld.param.u64 %d7, [p4];\nadd.u64 %d7, %d7, "
      "%d6;\nld.param.u64 %d8, [p5];\nadd.u64 %d8, %d8, %d6;\n";
  body += std::string("setp.") + (c.accumulate ? "eq" : "ne") + ".u32 %p1, 0, 0;\n";
  for (int i = 0; i < d; ++i) {
    body += "ld.global.f32 %acc" + std::to_string(i) + ", [%d4+" + std::to_string(512 * i) + "];\n";
  }
  for (int i = 0; i < 4 && !c.a_in_memory; ++i) {
    body +=
        "ld.global.u32 %left" + std::to_string(i) + ", [%d5+" + std::to_string(512 * i) + "];\n";
  }
  body += "wgmma.fence.sync.aligned;\nwgmma.mma_async.sync.aligned.m64n" + std::to_string(c.n) +
          "k" + std::to_string(k) + ".f32." + c.a.name + "." + c.b.name + " " +
          Registers("%acc", d) + ", " + (c.a_in_memory ? "%d7" : Registers("%left", 4)) +
          ", %d8, %p1, " + std::to_string(c.scale_a) + ", " + std::to_string(c.scale_b);
  if (c.a.bits == 16) body += c.a_in_memory ? ", 0, 0" : ", 0";
  body += ";\nwgmma.commit_group.sync.aligned;\nwgmma.wait_group.sync.aligned 0;\n";
  for (int i = 0; i < d; ++i) {
    body += "st.global.f32 [%d4+" + std::to_string(512 * i) + "], %acc" + std::to_string(i) + ";\n";
  }
  return body;
}

// Integers, whose sums are exact, everywhere that the instruction has an element; NaN elsewhere.
void Check(const Case& c) {
  SCOPED_TRACE(std::string(c.a.name) + " " + c.b.name + " n " + std::to_string(c.n) + " mode " +
               std::to_string(c.layout_b.mode) + " along K " + std::to_string(c.layout_b.along_k) +
               (c.a_in_memory ? " A in memory" : ""));
  PtxKernel kernel(Kernel(c), 90, kShared);
  ASSERT_EQ(kernel.load_result(), CUDA_SUCCESS) << kernel.Message(kernel.load_result());
  std::mt19937 random(static_cast<unsigned>(c.n * 100 + c.layout_b.mode * 10 + c.a.bits));
  const int k = 256 / c.a.bits, per = 32 / c.a.bits;
  std::vector<uint8_t> memory(45056, 0xFF);
  const auto put = [&](const Layout& layout, const Type& type, int row, int col, uint32_t code) {
    const uint32_t at = layout.Byte(row, col, type.bits);
    const size_t bytes = static_cast<size_t>(type.bits / 8);
    ASSERT_LE(at + bytes, memory.size());
    std::memcpy(&memory[at], &code, bytes);
  };
  const auto code = [](const Type& type, int value) {
    const uint32_t bits = EncodeSmall(type.format, value, Rounding::kNearestEven, false);
    return type.bits == 32 ? bits << 13 : bits;
  };
  std::vector<std::vector<int>> a(64, std::vector<int>(k)), b(c.n, std::vector<int>(k));
  std::vector<uint32_t> left(4 * 128, 0);
  for (auto* matrix : {&a, &b}) {
    for (auto& row : *matrix) {
      for (int& value : row) value = static_cast<int>(random() % 17) - 8;
    }
  }
  for (int n = 0; n < c.n; ++n) {
    for (int j = 0; j < k; ++j) put(c.layout_b, c.b, n, j, code(c.b, b[n][j]));
  }
  for (int m = 0; m < 64 && c.a_in_memory; ++m) {
    for (int j = 0; j < k; ++j) put(c.layout_a, c.a, m, j, code(c.a, a[m][j]));
  }
  std::vector<float> d(static_cast<size_t>(c.n / 2) * 128);
  for (int t = 0; t < 128; ++t) {
    for (int i = 0; i < 4 * per; ++i) {
      const Place p = A(t, i, per);
      left[i / per * 128 + t] |= code(c.a, a[p.row][p.col]) << i % per * c.a.bits;
    }
    for (int i = 0; i < c.n / 2; ++i) d[i * 128 + t] = c.accumulate ? float(i * 128 + t) : NAN;
  }
  const CUdeviceptr result = kernel.Upload(d);
  ASSERT_EQ(kernel.Run({kernel.Upload(memory), memory.size(), kernel.Upload(left), result,
                        c.layout_a.Descriptor(), c.layout_b.Descriptor()},
                       128, 1, static_cast<unsigned>(memory.size())),
            CUDA_SUCCESS)
      << LastViolation();
  const std::vector<float> got = kernel.Download<float>(result, d.size());
  for (int t = 0; t < 128; ++t) {
    for (int i = 0; i < c.n / 2; ++i) {
      const Place p = D(t, i);
      int sum = 0;
      for (int j = 0; j < k; ++j) sum += a[p.row][j] * b[p.col][j];
      const float before = c.accumulate ? d[i * 128 + t] : 0;
      const float expected = float(c.scale_a * c.scale_b * sum) + before;
      ASSERT_EQ(got[i * 128 + t], expected) << "thread " << t << " d" << i;
    }
  }
}

// Rows as close as the pattern allows; without a swizzle, both words of K one after the other.
Layout Dense(int mode, uint32_t base = 0) {
  return {mode, base, 0, 8u * 16 * kModeWords[mode] * (mode == 0 ? 2 : 1), mode == 0 ? 128u : 16u};
}

TEST(EmulatorWgmma, EveryColumnCount) {
  for (int n = 8; n <= 256; n += 8) {
    ASSERT_NO_FATAL_FAILURE(Check({kTypeE4M3, kTypeE4M3, n, Dense(n / 8 % 4)}));
  }
}

TEST(EmulatorWgmma, EverySwizzleAlongK) {
  for (const int n : {8, 64, 256}) {
    for (int mode = 0; mode < 4; ++mode) {
      for (int k = 0; k < std::max(1, kModeWords[mode] / 2); ++k) {
        Layout layout = Dense(mode);
        layout.along_k = 32u * static_cast<uint32_t>(k);
        ASSERT_NO_FATAL_FAILURE(Check({kTypeE4M3, kTypeE4M3, n, layout}));
      }
    }
  }
}

TEST(EmulatorWgmma, StridesOfTheDescriptor) {
  for (int mode = 0; mode < 4; ++mode) {
    Layout layout = Dense(mode, 1024);
    layout.stride *= 3;
    ASSERT_NO_FATAL_FAILURE(Check({kTypeE4M3, kTypeE4M3, 40, layout}));
  }
  // The two words of K far apart, each with its rows of all columns together.
  ASSERT_NO_FATAL_FAILURE(Check({kTypeE4M3, kTypeE4M3, 64, {0, 512, 0, 128, 4096}}));
}

TEST(EmulatorWgmma, EveryType) {
  int mode = 0;
  for (const auto& [a, b] : {std::pair<Type, Type>{kTypeE4M3, kTypeE5M2},
                             {kTypeE5M2, kTypeE4M3},
                             {kTypeE5M2, kTypeE5M2},
                             {kTypeF16, kTypeF16},
                             {kTypeBF16, kTypeBF16},
                             {kTypeTF32, kTypeTF32}}) {
    ASSERT_NO_FATAL_FAILURE(Check({a, b, 16, Dense(mode++ % 4)}));
    ASSERT_NO_FATAL_FAILURE(Check({a, b, 64, Dense(mode % 4), true, Dense(mode % 3, 16384)}));
  }
}

TEST(EmulatorWgmma, LeftOperandInMemory) {
  for (int mode = 0; mode < 4; ++mode) {
    ASSERT_NO_FATAL_FAILURE(
        Check({kTypeE4M3, kTypeE4M3, 24, Dense(3 - mode), true, Dense(mode, 32768)}));
  }
}

TEST(EmulatorWgmma, ScaleOfTheAccumulatorAndSigns) {
  for (const bool accumulate : {false, true}) {
    for (const int a : {1, -1}) {
      for (const int b : {1, -1}) {
        Case c{kTypeE4M3, kTypeE4M3, 16, Dense(1)};
        c.accumulate = accumulate;
        c.scale_a = a;
        c.scale_b = b;
        ASSERT_NO_FATAL_FAILURE(Check(c));
      }
    }
  }
}

// 2^14 + 1 fits in F32, but not in sums that keep 13 bits below the largest product.
TEST(EmulatorWgmma, TruncatedAccumulation) {
  const Options before = GetOptions();
  for (const bool truncated : {false, true}) {
    Options options = before;
    options.fp8_accumulation = truncated ? Accumulation::kTruncated : Accumulation::kFloat;
    SetOptions(options);
    Case c{kTypeE4M3, kTypeE4M3, 8, Dense(0)};
    PtxKernel kernel(Kernel(c), 90, kShared);
    std::vector<uint8_t> memory(2048, 0);
    std::vector<uint32_t> left(4 * 128, 0);
    const uint32_t large = EncodeSmall(kE4M3, 128, Rounding::kNearestEven, false);
    const uint32_t one = EncodeSmall(kE4M3, 1, Rounding::kNearestEven, false);
    memory[0] = static_cast<uint8_t>(large);
    memory[1] = static_cast<uint8_t>(one);
    left[0] = large | one << 8;
    const CUdeviceptr result = kernel.Upload(std::vector<float>(512, 0));
    ASSERT_EQ(kernel.Run({kernel.Upload(memory), memory.size(), kernel.Upload(left), result, 0,
                          c.layout_b.Descriptor()},
                         128, 1, 2048),
              CUDA_SUCCESS)
        << LastViolation();
    EXPECT_EQ(kernel.Download<float>(result, 1)[0], truncated ? 16384.0f : 16385.0f);
  }
  SetOptions(before);
}

}  // namespace
}  // namespace nibble::cuda::emulator
