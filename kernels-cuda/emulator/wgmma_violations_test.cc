// SPDX-License-Identifier: Apache-2.0
//
// What the PTX manual leaves undefined about wgmma: a small kernel that does it must be stopped,
// and its correct twin must not.

#include "kernels-cuda/emulator/ptx_kernel_for_test.h"

namespace nibble::cuda::emulator {
namespace {

constexpr char kShared[] = ".extern .shared .align 1024 .b8 dynamic[];";

// B of m64n8k32 (ones in E4M3) at the start of shared memory, without a swizzle: two core matrices
// of 128 bytes, of which threads 0..63 write one word each; its descriptor in %d0. A in %r10..13
// and its like in %r14..17 (ones), accumulators %f0..3 and %f4..7 (zeros).
constexpr char kWrite[] =
    "mov.u32 %r0, %tid.x;\nmov.u32 %r1, dynamic;\nshl.b32 %r2, %r0, 2;\nadd.u32 %r3, %r1, %r2;\n"
    "shr.u32 %r4, %r1, 4;\ncvt.u64.u32 %d0, %r4;\nor.b64 %d0, %d0, 0x800080000;\n"
    "setp.lt.u32 %p0, %r0, 64;\nsetp.eq.u32 %p1, 0, 0;\nshr.u32 %r5, %r0, 5;\n"
    "@%p0 st.shared.u32 [%r3], 0x38383838;\n";
constexpr char kProxy[] = "fence.proxy.async.shared::cta;\n";
constexpr char kBarrier[] = "bar.sync 0;\n";
const std::string kRegisters = [] {
  std::string text;
  for (int i = 0; i < 8; ++i) {
    text += "mov.u32 %r" + std::to_string(10 + i) + ", 0x38383838;\nmov.f32 %f" +
            std::to_string(i) + ", 0f00000000;\n";
  }
  return text;
}();
constexpr char kFence[] = "wgmma.fence.sync.aligned;\n";
constexpr char kOpcode[] = "wgmma.mma_async.sync.aligned.m64n8k32.f32.e4m3.e4m3 ";
constexpr char kProduct[] =
    "wgmma.mma_async.sync.aligned.m64n8k32.f32.e4m3.e4m3 {%f0,%f1,%f2,%f3}, "
    "{%r10,%r11,%r12,%r13}, %d0, %p1, 1, 1;\n";
constexpr char kSecond[] =
    "wgmma.mma_async.sync.aligned.m64n8k32.f32.e4m3.e4m3 {%f4,%f5,%f6,%f7}, "
    "{%r14,%r15,%r16,%r17}, %d0, %p1, 1, 1;\n";
constexpr char kCommit[] = "wgmma.commit_group.sync.aligned;\n";
constexpr char kWait[] = "wgmma.wait_group.sync.aligned 0;\n";
constexpr char kWaitOne[] = "wgmma.wait_group.sync.aligned 1;\n";
// Takes a warp so long that the others come to where they wait or end.
constexpr char kDelay[] =
    "mov.u32 %r50, 0;\nDELAY:\nadd.u32 %r50, %r50, 1;\nsetp.lt.u32 %p5, %r50, 5000;\n"
    "@%p5 bra DELAY;\n";
const std::string kReady = std::string(kWrite) + kProxy + kBarrier + kRegisters;
const std::string kIssue = kReady + kFence + kProduct + kCommit;

// "", or what the emulator objects to. The first accumulator's register 0 goes to *sum.
std::string Violation(const std::string& body, unsigned threads = 128, float* sum = nullptr) {
  PtxKernel kernel(body + "\nld.param.u64 %d20, [p0];\nmov.u32 %r40, %tid.x;\nmul.wide.u32 %d21, "
                          "%r40, 4;\nadd.u64 %d20, %d20, %d21;\nst.global.f32 [%d20], %f0;\n",
                   90, kShared);
  EXPECT_EQ(kernel.load_result(), CUDA_SUCCESS) << kernel.Message(kernel.load_result());
  const CUdeviceptr memory = kernel.Upload(std::vector<float>(256, 0));
  const CUresult result = kernel.Run({memory}, threads, 1, 4096);
  if (result != CUDA_SUCCESS) return kernel.Message(result);
  if (sum != nullptr) *sum = kernel.Download<float>(memory, 1)[0];
  return "";
}

#define EXPECT_VIOLATION(body, words)                            \
  do {                                                           \
    const std::string text = Violation(body);                          \
    EXPECT_NE(text.find(words), std::string::npos) << text;      \
  } while (false)

TEST(EmulatorWgmmaViolations, ACorrectProduct) {
  float sum = 0;
  EXPECT_EQ(Violation(kIssue + kWait, 128, &sum), "");
  EXPECT_EQ(sum, 32);
  EXPECT_EQ(Violation(kReady + kFence + kProduct + kProduct + kSecond + kProduct + kCommit + kWait,
                      128, &sum),
            "");
  EXPECT_EQ(sum, 96);
}

TEST(EmulatorWgmmaViolations, RegistersNeedAFence) {
  EXPECT_VIOLATION(kReady + kProduct + kCommit + kWait, "was accessed at PTX line");
  EXPECT_VIOLATION(std::string(kWrite) + kProxy + kBarrier + kProduct + kCommit + kWait,
                   "no wgmma.fence comes before the first product");
  // Written after the fence: of the accumulator, and of A; the same value too.
  for (const char* write : {"mov.f32 %f3, 0f00000000;\n", "mov.u32 %r13, 0x38383838;\n"}) {
    EXPECT_VIOLATION(kReady + kFence + write + kProduct + kCommit + kWait,
                     "no wgmma.fence has come since");
    EXPECT_EQ(Violation(kReady + kFence + write + kFence + kProduct + kCommit + kWait), "");
    EXPECT_VIOLATION(kIssue + kWait + write + kProduct + kCommit + kWait,
                     "no wgmma.fence has come since");
  }
  // A lane alone.
  EXPECT_VIOLATION(kReady + kFence +
                       "setp.eq.u32 %p2, %r0, 5;\n@%p2 mov.f32 %f3, 0f00000000;\n" + kProduct +
                       kCommit + kWait,
                   "no wgmma.fence has come since");
  // The result was read, and is accumulated upon.
  const std::string read = "add.f32 %f20, %f0, %f1;\n";
  EXPECT_VIOLATION(kIssue + kWait + read + kProduct + kCommit + kWait,
                   "no wgmma.fence has come since");
  EXPECT_EQ(Violation(kIssue + kWait + read + kFence + kProduct + kCommit + kWait), "");
  // Products of one shape follow each other on an accumulator without one, others do not.
  EXPECT_EQ(Violation(kIssue + kProduct + kCommit + kWait + kProduct + kCommit + kWait), "");
  const std::string other =
      "wgmma.mma_async.sync.aligned.m64n16k32.f32.e4m3.e4m3 {%f0,%f1,%f2,%f3,%f4,%f5,%f6,%f7}, "
      "{%r10,%r11,%r12,%r13}, %d0, %p1, 1, 1;\n";
  EXPECT_VIOLATION(kIssue + other + kCommit + kWait, "of another shape");
  EXPECT_VIOLATION(kIssue + kFence + other + kCommit + kWait, "nothing has waited for");
  EXPECT_VIOLATION(kIssue + kWait + other + kCommit + kWait, "no wgmma.fence has come since");
  EXPECT_EQ(Violation(kIssue + kWait + kFence + other + kCommit + kWait), "");
}

TEST(EmulatorWgmmaViolations, NothingTouchesRegistersBeforeTheWait) {
  for (const char* access : {"add.f32 %f20, %f3, %f3;\n", "mov.f32 %f2, 0f3f800000;\n",
                             "mov.u32 %r13, 0;\n", "add.u32 %r20, %r10, 1;\n"}) {
    EXPECT_VIOLATION(kIssue + access + kWait, "which nothing has waited for");
    EXPECT_EQ(Violation(kIssue + kWait + access), "");
    // Not committed, and thus not waited for.
    EXPECT_VIOLATION(kReady + kFence + kProduct + kWait + access, "which nothing has waited for");
    // One group may still be under way.
    EXPECT_VIOLATION(kIssue + kWaitOne + access + kWait, "which nothing has waited for");
    EXPECT_EQ(Violation(kIssue + kSecond + kCommit + kWaitOne + access + kWait), "");
    EXPECT_EQ(Violation(kIssue + kCommit + kWaitOne + access), "");  // an empty group
  }
}

TEST(EmulatorWgmmaViolations, ProductsAreWaitedFor) {
  const std::string end = "setp.ge.u32 %p3, %r0, 0;\n@%p3 exit;\n";
  EXPECT_VIOLATION(kIssue + end, "the warp ends, but nothing has waited for");
  EXPECT_VIOLATION(kIssue + kWaitOne + end, "the warp ends, but nothing has waited for");
  EXPECT_VIOLATION(kReady + kFence + kProduct + kWait + end,
                   "the warp ends, but nothing has waited for");
  EXPECT_EQ(Violation(kIssue + kWait + end), "");
}

// A and B are read when they are waited for: what is written until then would be read.
TEST(EmulatorWgmmaViolations, SharedMemoryIsReadUntilTheWait) {
  const std::string overwrite = "@%p0 st.shared.u32 [%r3], 0;\n";
  const std::string by_last = "setp.eq.u32 %p4, %r0, 127;\n@%p4 st.shared.u32 [%r1], 0;\n";
  for (const std::string& write : {overwrite, by_last}) {
    EXPECT_VIOLATION(kIssue + write + kWait, "may still be reading");
    EXPECT_VIOLATION(kIssue + kBarrier + write + kWait, "may still be reading");
    EXPECT_EQ(Violation(kIssue + kWait + kBarrier + write), "");
    EXPECT_VIOLATION(kIssue + kSecond + kCommit + kWaitOne + kBarrier + write + kWait,
                     "may still be reading");
  }
  // Its own wait does not order a warp's write behind what the other warps read.
  const std::string text = Violation(kIssue + kWait + by_last);
  EXPECT_TRUE(text.find("race: ") != std::string::npos ||
              text.find("may still be reading") != std::string::npos)
      << text;
  EXPECT_VIOLATION(kIssue + kWait + kDelay + by_last, "race: ");
  // cp.async writes at any time.
  EXPECT_VIOLATION(kIssue + kBarrier +
                       "ld.param.u64 %d5, [p0];\nsetp.eq.u32 %p4, %r0, 0;\n"
                       "@%p4 cp.async.cg.shared.global [%r1], [%d5], 16;\n" + kWait +
                       "cp.async.wait_all;\n",
                   "may still be reading");
}

TEST(EmulatorWgmmaViolations, WritesReachTheAsyncProxy) {
  const std::string product = kRegisters + kFence + kProduct + kCommit + kWait;
  EXPECT_VIOLATION(kWrite + std::string(kBarrier) + product, "no fence.proxy.async between");
  EXPECT_VIOLATION(kWrite + std::string(kBarrier) + kProxy + product,
                   "no fence.proxy.async between");  // the reader's, after the barrier
  // The writers' too late, though before the product in time.
  EXPECT_VIOLATION(kWrite + std::string(kBarrier) + kProxy + kDelay + product,
                   "no fence.proxy.async between");
  EXPECT_VIOLATION(std::string(kProxy) + kWrite + kBarrier + product,
                   "no fence.proxy.async between");
  EXPECT_VIOLATION(kWrite + std::string("fence.proxy.async.global;\n") + kBarrier + product,
                   "no fence.proxy.async between");
  EXPECT_VIOLATION(kWrite + std::string("setp.ne.u32 %p4, %r0, 7;\n@%p4 ") + kProxy + kBarrier +
                       product,
                   "lane 7 had no fence.proxy.async between");
  EXPECT_EQ(Violation(kWrite + std::string("@%p0 ") + kProxy + kBarrier + product), "");
  EXPECT_EQ(Violation(kWrite + std::string("fence.proxy.async;\n") + kBarrier + product), "");
  EXPECT_VIOLATION(kWrite + std::string(kProxy) + product, "race: ");  // no barrier
  // A second write after the fence.
  EXPECT_VIOLATION(kWrite + std::string(kProxy) + "@%p0 st.shared.u8 [%r3], 0;\n" + kBarrier +
                       product,
                   "no fence.proxy.async between");
  // What nobody has written holds NaN.
  float sum = 0;
  EXPECT_EQ(Violation(kWrite + std::string(kProxy) + kBarrier + "add.u64 %d0, %d0, 32;\n" + product,
                      128, &sum),
            "");
  EXPECT_TRUE(sum != sum);
}

// cp.async writes as ordinary instructions do, when it is waited for.
TEST(EmulatorWgmmaViolations, CopiesReachTheAsyncProxy) {
  const std::string copy = std::string(kWrite) + kBarrier +
                           "ld.param.u64 %d5, [p0];\nsetp.eq.u32 %p4, %r0, 0;\n"
                           "@%p4 cp.async.cg.shared.global [%r1], [%d5], 16;\n";
  const std::string arrive = "cp.async.wait_all;\n";
  const std::string product = kRegisters + kFence + kProduct + kCommit + kWait;
  EXPECT_EQ(Violation(copy + arrive + kProxy + kBarrier + product), "");
  EXPECT_VIOLATION(copy + kProxy + arrive + kBarrier + product, "no fence.proxy.async between");
  EXPECT_VIOLATION(copy + kProxy + kBarrier + product, "has still to deliver");
}

TEST(EmulatorWgmmaViolations, TheWarpgroupIssuesTogether) {
  for (const unsigned threads : {96, 160}) {
    const std::string text = Violation(kIssue + kWait, threads);
    EXPECT_NE(text.find("no whole warpgroup"), std::string::npos) << text;
  }
  EXPECT_EQ(Violation(kIssue + kWait, 256), "");
  // Of two warpgroups one may have nothing to do, of one all four warps have.
  const std::string skip = "@%p4 bra END;\n" + std::string(kFence) + kProduct + kCommit + kWait +
                           "END:\n";
  EXPECT_EQ(Violation(kReady + "setp.ge.u32 %p4, %r0, 128;\n" + skip, 256), "");
  for (const char* who : {"setp.ge.u32 %p4, %r0, 96;\n", "setp.lt.u32 %p4, %r0, 32;\n"}) {
    EXPECT_VIOLATION(kReady + who + skip, "warpgroup");
    EXPECT_VIOLATION(kReady + who + "@%p4 exit;\n" + kDelay + skip,
                     "of the warpgroup has ended without this");
  }
  EXPECT_VIOLATION(kReady + "setp.ge.u32 %p4, %r0, 96;\n@%p4 bra B;\n" + kFence + kProduct +
                       kCommit + kWait + "bra END;\nB:\n" + kFence + kProduct + kCommit + kWait +
                       "END:\n",
                   "disagree about the instruction");
  EXPECT_VIOLATION(kReady + "setp.eq.u32 %p4, %r5, 2;\n@%p4 add.u64 %d0, %d0, 1;\n" + kFence +
                       kProduct + kCommit + kWait,
                   "disagree about the matrix descriptor");
  EXPECT_VIOLATION(kReady + "setp.ne.u32 %p1, %r5, 2;\n" + kFence + kProduct + kCommit + kWait,
                   "disagree about the scale-d");
  EXPECT_VIOLATION(kReady + "setp.eq.u32 %p4, %r0, 2;\n@%p4 add.u64 %d0, %d0, 1;\n" + kFence +
                       kProduct + kCommit + kWait,
                   "the lanes disagree about the matrix descriptor");
  EXPECT_VIOLATION(kReady + "setp.ne.u32 %p1, %r0, 2;\n" + kFence + kProduct + kCommit + kWait,
                   "the lanes disagree about scale-d");
  EXPECT_VIOLATION(kReady + kFence + "@%p0 " + kProduct + kCommit + kWait,
                   "disagree about the instruction");
  for (const char* part : {kFence, kProduct, kCommit, kWait}) {
    std::string body = kReady + "setp.ne.u32 %p4, %r0, 9;\n";
    for (const char* each : {kFence, kProduct, kCommit, kWait}) {
      body += (each == part ? "@%p4 " : "") + std::string(each);
    }
    EXPECT_VIOLATION(body, "must run with all lanes");
  }
}

TEST(EmulatorWgmmaViolations, Descriptors) {
  const auto with = [](const std::string& change, const char* product = kProduct) {
    return kReady + change + kFence + product + kCommit + kWait;
  };
  constexpr char kWide[] =
      "wgmma.mma_async.sync.aligned.m64n16k32.f32.e4m3.e4m3 {%f0,%f1,%f2,%f3,%f4,%f5,%f6,%f7}, "
      "{%r10,%r11,%r12,%r13}, %d0, %p1, 1, 1;\n";
  for (const int bit : {14, 15, 30, 31, 46, 48, 52, 61}) {
    EXPECT_VIOLATION(with("or.b64 %d0, %d0, " + std::to_string(uint64_t{1} << bit) + ";\n"),
                     "bits that have no meaning");
  }
  EXPECT_VIOLATION(with("or.b64 %d0, %d0, " + std::to_string(uint64_t{1} << 49) + ";\n"),
                   "base offsets");
  // The last byte of the two words is the last of shared memory, or lies behind it.
  EXPECT_EQ(Violation(with("add.u64 %d0, %d0, 240;\n")), "");
  EXPECT_VIOLATION(with("add.u64 %d0, %d0, 241;\n"), "of 4096 bytes of shared memory");
  EXPECT_VIOLATION(with("add.u64 %d0, %d0, -64;\n"), "of shared memory");
  const auto mode = [](uint64_t m, uint64_t sixteens, uint64_t stride = 64) {
    return "and.b64 %d0, %d0, 0x3FFF;\nor.b64 %d0, %d0, " +
           std::to_string(m << 62 | uint64_t{1} << 16 | stride << 32) + ";\nadd.u64 %d0, %d0, " +
           std::to_string(sixteens) + ";\n";
  };
  const struct {
    uint64_t mode, words;  // 16-byte words of a row
  } kModes[] = {{1, 8}, {2, 4}, {3, 2}};
  for (const auto& m : kModes) {
    EXPECT_EQ(Violation(with(mode(m.mode, 0))), "");
    EXPECT_EQ(Violation(with(mode(m.mode, m.words * 8 + m.words - 2))), "");
    EXPECT_VIOLATION(with(mode(m.mode, m.words)), "does not begin at");
    EXPECT_VIOLATION(with(mode(m.mode, m.words * 4)), "does not begin at");
    EXPECT_VIOLATION(with(mode(m.mode, m.words - 1)), "K leaves the swizzled rows");
    EXPECT_EQ(Violation(with(mode(m.mode, 0, m.words * 8), kWide)), "");
    EXPECT_VIOLATION(with(mode(m.mode, 0, m.words * 4), kWide), "puts rows off");
  }
}

TEST(EmulatorWgmmaViolations, UnknownFormsAreNamed) {
  const auto message = [](const std::string& body, const std::string& target = "") {
    PtxKernel kernel(body, 90, kShared, target);
    EXPECT_EQ(kernel.load_result(), CUDA_ERROR_INVALID_PTX) << body;
    return kernel.Message(kernel.load_result());
  };
  const auto expect = [&](const std::string& text, const char* words) {
    EXPECT_NE(text.find(words), std::string::npos) << text;
  };
  const std::string d = "{%f0,%f1,%f2,%f3}", a = ", {%r10,%r11,%r12,%r13}, %d0, %p1, ";
  const std::string head = "wgmma.mma_async.sync.aligned.";
  expect(message(kFence, "sm_90"), "sm_90, not sm_90a");
  expect(message(kProduct, "sm_90"), "sm_90, not sm_90a");
  expect(message("wgmma.wobble.sync.aligned;"), "wobble");
  expect(message("wgmma.fence.aligned;"), "wgmma.fence.aligned");
  expect(message(head + "m64n12k32.f32.e4m3.e4m3 " + d + a + "1, 1;"), "m64n12k32");
  expect(message(head + "m64n264k32.f32.e4m3.e4m3 " + d + a + "1, 1;"), "m64n264k32");
  expect(message(head + "m64n8k16.f32.e4m3.e4m3 " + d + a + "1, 1;"), "m64n8k16");
  expect(message(head + "m64n8k32.f16.e4m3.e4m3 " + d + a + "1, 1;"), "accumulator .f16");
  expect(message(head + "m64n8k32.s32.s8.s8 " + d + a + "1, 1;"), "accumulator .s32");
  expect(message(head + "m64n8k16.f32.f16.bf16 " + d + a + "1, 1, 0;"), ".f16 and .bf16");
  expect(message(head + "m64n8k16.f32.f16.f16 " + d + a + "1, 1, 1;"), "not K-major");
  expect(message(head + "m64n8k16.f32.f16.f16 " + d + a + "1, 1;"), "6 operands, not 7");
  expect(message(kOpcode + d + a + "1, 2;"), "must be 1 or -1");
  expect(message(kOpcode + d + a + "%r0, 1;"), "must be a constant");
  expect(message(kOpcode + std::string("{%f0,%f1,%f2}") + a + "1, 1;"), "3 registers, not 4");
  expect(message(kOpcode + std::string("{%f0,%f1,%f2,%f1}") + a + "1, 1;"), "there twice");
  expect(message(kOpcode + d + ", {%r10,%r11,%r12}, %d0, %p1, 1, 1;"), "3 registers, not 4");
}

}  // namespace
}  // namespace nibble::cuda::emulator
