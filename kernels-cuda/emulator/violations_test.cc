// SPDX-License-Identifier: Apache-2.0
//
// Every kind of violation: a small kernel that commits it must be stopped, and its correct twin
// must not.

#include <functional>

#include "kernels-cuda/emulator/ptx_kernel_for_test.h"

namespace nibble::cuda::emulator {
namespace {

constexpr char kShared[] = ".extern .shared .align 16 .b8 dynamic[];";
constexpr char kThread[] =
    "mov.u32 %r0, %tid.x;\nmov.u32 %r1, dynamic;\nshl.b32 %r2, %r0, 2;\nadd.u32 %r3, %r1, %r2;\n";

// Runs the body on 64 threads with 1 KiB of shared memory and p0 = 256 bytes of device memory.
std::string Violation(const std::string& body, unsigned threads = 64, int sm = 89) {
  PtxKernel kernel(body, sm, kShared);
  EXPECT_EQ(kernel.load_result(), CUDA_SUCCESS) << kernel.Message(kernel.load_result());
  const CUdeviceptr memory = kernel.Upload(std::vector<uint32_t>(64, 7));
  const CUresult result = kernel.Run({memory}, threads, 1, 1024);
  if (result == CUDA_SUCCESS) return "";
  EXPECT_EQ(result, CUDA_ERROR_LAUNCH_FAILED);
  const std::string text = kernel.Message(result);
  EXPECT_NE(text.find("kernel k, block (0,0,0), warp "), std::string::npos) << text;
  // Lost until released.
  CUdeviceptr more = 0;
  EXPECT_EQ(kernel.driver().cuMemAlloc_v2(&more, 16), CUDA_ERROR_LAUNCH_FAILED);
  return text;
}

#define EXPECT_VIOLATION(text, words) EXPECT_NE((text).find(words), std::string::npos) << (text)

TEST(EmulatorViolations, OneByteOutside) {
  const std::string head = "ld.param.u64 %d0, [p0];\n";
  EXPECT_EQ(Violation(head + "ld.global.u32 %r0, [%d0+252];"), "");
  EXPECT_VIOLATION(Violation(head + "ld.global.u8 %r0, [%d0+256];"), "past the end");
  EXPECT_VIOLATION(Violation(head + "ld.global.u32 %r0, [%d0+256];"), "PTX line");
  EXPECT_VIOLATION(Violation(head + "st.global.u8 [%d0+-1], %r0;"), "lie in no allocation");
  EXPECT_VIOLATION(Violation(head + "ld.global.v4.u32 {%r0,%r1,%r2,%r3}, [%d0+256];"),
                   "past the end");
  EXPECT_VIOLATION(Violation("mov.u64 %d0, 16;\nst.global.u32 [%d0], %r0;"),
                   "lie in no allocation");
  EXPECT_VIOLATION(Violation("ld.u32 %r0, [%d0];"),
                   "0xffffffffffffffff");  // an uninitialized register
}

TEST(EmulatorViolations, UseAfterFree) {
  PtxKernel kernel("ld.param.u64 %d0, [p0];\nld.global.u32 %r0, [%d0];");
  const CUdeviceptr memory = kernel.Allocate(64);
  EXPECT_EQ(kernel.Run({memory}), CUDA_SUCCESS);
  EXPECT_EQ(kernel.driver().cuMemFree_v2(memory), CUDA_SUCCESS);
  EXPECT_EQ(kernel.Run({memory}), CUDA_ERROR_LAUNCH_FAILED);
  EXPECT_VIOLATION(LastViolation(), "has been freed");
}

TEST(EmulatorViolations, Misaligned) {
  const std::string head = "ld.param.u64 %d0, [p0];\n";
  EXPECT_VIOLATION(Violation(head + "ld.global.u32 %r0, [%d0+2];"), "boundary of 4");
  EXPECT_EQ(Violation(head + "ld.global.v4.u32 {%r0,%r1,%r2,%r3}, [%d0+16];"), "");
  EXPECT_VIOLATION(Violation(head + "ld.global.v4.u32 {%r0,%r1,%r2,%r3}, [%d0+8];"),
                   "boundary of 16");
  EXPECT_VIOLATION(Violation(head + "ld.global.v2.u16 {%h0,%h1}, [%d0+2];"), "boundary of 4");
  EXPECT_VIOLATION(Violation("ld.shared.u64 %d0, [dynamic+4];"), "boundary of 8");
}

TEST(EmulatorViolations, SharedAndLocalBounds) {
  EXPECT_EQ(Violation("st.shared.u32 [dynamic+1020], 1;", 1), "");
  EXPECT_VIOLATION(Violation("st.shared.u32 [dynamic+1024], 1;", 1),
                   "of 1024 bytes of shared memory");
  EXPECT_VIOLATION(Violation("mov.u32 %r0, 0;\nld.shared.u32 %r1, [%r0];", 1), "of shared memory");
  EXPECT_EQ(Violation(".local .align 4 .b8 mine[8];\nst.local.u32 [mine+4], 1;"), "");
  EXPECT_VIOLATION(Violation(".local .align 4 .b8 mine[16];\nst.local.u32 [mine+16], 1;"),
                   "local address");
}

TEST(EmulatorViolations, WriteToConstant) {
  PtxKernel kernel("mov.u64 %d0, table;\nst.global.u32 [%d0], 1;", 89,
                   ".const .align 4 .b8 table[8] = {1,2,3,4};");
  EXPECT_EQ(kernel.Run({}), CUDA_ERROR_LAUNCH_FAILED);
  EXPECT_VIOLATION(LastViolation(), "constant memory");
}

// Warps exchange data: thread t reads what thread t ^ 32 wrote.
TEST(EmulatorViolations, RaceBetweenWarps) {
  const std::string write = std::string(kThread) + "st.shared.u32 [%r3], %r0;\n";
  const std::string read =
      "xor.b32 %r4, %r2, 128;\nadd.u32 %r5, %r1, %r4;\nld.shared.u32 %r6, [%r5];\n";
  EXPECT_EQ(Violation(write + "bar.sync 0;\n" + read), "");
  const std::string text = Violation(write + read);
  EXPECT_VIOLATION(text, "race: ");
  EXPECT_VIOLATION(text, "PTX line 17");  // both lines: the store's
  EXPECT_VIOLATION(text, "PTX line 20");  // and the load's
  // Write after read.
  EXPECT_VIOLATION(Violation(write + "bar.sync 0;\n" + read + "st.shared.u32 [%r3], %r6;"),
                   "race: ");
  EXPECT_EQ(Violation(write + "bar.sync 0;\n" + read + "bar.sync 0;\nst.shared.u32 [%r3], %r6;"),
            "");
  // A named barrier orders those that meet at it.
  EXPECT_EQ(Violation(write + "bar.sync 3, 64;\n" + read), "");
  // One side only arrives, and then reads: nothing orders its read.
  EXPECT_VIOLATION(
      Violation(write +
                "setp.lt.u32 %p0, %r0, 32;\n@%p0 bar.arrive 1, 64;\n@!%p0 bar.sync 1, 64;\n" +
                read),
      "race: ");
  // The waiting side alone reads.
  EXPECT_EQ(
      Violation(
          write +
          "setp.lt.u32 %p0, %r0, 32;\n@%p0 bar.arrive 1, 64;\n@!%p0 bar.sync 1, 64;\n@%p0 ret;\n" +
          read),
      "");
  // Bytes of one word by different warps do not meet.
  EXPECT_EQ(Violation("mov.u32 %r0, %tid.x;\nmov.u32 %r1, dynamic;\nshr.u32 %r2, %r0, 5;\nand.b32 "
                      "%r3, %r0, 31;\nsetp.ne.u32 %p0, %r3, 0;\n@%p0 ret;\n"
                      "add.u32 %r4, %r1, %r2;\nst.shared.u8 [%r4], %r0;"),
            "");
}

TEST(EmulatorViolations, RaceWithinWarp) {
  const std::string write = std::string(kThread) + "st.shared.u32 [%r3], %r0;\n";
  const std::string read =
      "xor.b32 %r4, %r2, 4;\nadd.u32 %r5, %r1, %r4;\nld.shared.u32 %r6, [%r5];\n";
  EXPECT_VIOLATION(Violation(write + read, 32), "race: ");
  EXPECT_EQ(Violation(write + "bar.warp.sync -1;\n" + read, 32), "");
  EXPECT_EQ(Violation(write + "ld.shared.u32 %r6, [%r3];", 32), "");  // its own word
  EXPECT_VIOLATION(
      Violation(write + "bar.warp.sync -1;\n" + read + "st.shared.u32 [%r3], %r6;", 32), "race: ");
  EXPECT_VIOLATION(Violation("mov.u32 %r0, %tid.x;\nst.shared.u32 [dynamic], %r0;", 32), "race: ");
  // Atomics do not race with each other, but with plain accesses.
  EXPECT_EQ(Violation("red.shared.add.u32 [dynamic], 1;", 64), "");
  EXPECT_VIOLATION(Violation("red.shared.add.u32 [dynamic], 1;\nld.shared.u32 %r0, [dynamic];", 64),
                   "race: ");
}

// cp.async: nothing may look before its wait, and other threads not before a barrier.
TEST(EmulatorViolations, AsyncCopies) {
  const std::string copy =
      std::string(kThread) +
      "and.b32 %r7, %r0, 15;\nmul.wide.u32 %d1, %r7, 16;\nld.param.u64 %d0, [p0];\nadd.u64 %d0, "
      "%d0, %d1;\n"
      "shl.b32 %r8, %r0, 4;\nadd.u32 %r9, %r1, %r8;\ncp.async.cg.shared.global [%r9], [%d0], 16;\n";
  const std::string own = "ld.shared.u32 %r10, [%r9];\n";
  const std::string others =
      "xor.b32 %r11, %r8, 16;\nadd.u32 %r12, %r1, %r11;\nld.shared.u32 %r10, [%r12];\n";
  EXPECT_VIOLATION(Violation(copy + own), "has still to deliver");
  EXPECT_VIOLATION(Violation(copy + "cp.async.commit_group;\n" + own), "has still to deliver");
  EXPECT_VIOLATION(Violation(copy + "cp.async.commit_group;\ncp.async.wait_group 1;\n" + own),
                   "has still to deliver");
  EXPECT_VIOLATION(Violation(copy + "cp.async.wait_group 0;\n" + own),
                   "has still to deliver");  // never committed
  EXPECT_EQ(Violation(copy + "cp.async.commit_group;\ncp.async.wait_group 0;\n" + own), "");
  EXPECT_EQ(Violation(copy + "cp.async.wait_all;\n" + own), "");
  EXPECT_EQ(
      Violation(copy + "cp.async.commit_group;\ncp.async.commit_group;\ncp.async.wait_group 1;\n" +
                own),
      "");
  EXPECT_VIOLATION(Violation(copy + "cp.async.wait_all;\n" + others), "race: ");
  EXPECT_EQ(Violation(copy + "cp.async.wait_all;\nbar.sync 0;\n" + others), "");
  EXPECT_VIOLATION(Violation(copy + "bar.sync 0;\n" + others), "has still to deliver");
  EXPECT_VIOLATION(Violation(copy + "st.shared.u32 [%r9], 1;"), "has still to deliver");
  // A new copy over what others may still be reading.
  EXPECT_VIOLATION(Violation(copy + "cp.async.wait_all;\nbar.sync 0;\n" + others +
                             "cp.async.cg.shared.global [%r9], [%d0], 16;\ncp.async.wait_all;"),
                   "race: ");
  EXPECT_EQ(
      Violation(copy + "cp.async.wait_all;\nbar.sync 0;\n" + others +
                "bar.sync 0;\ncp.async.cg.shared.global [%r9], [%d0], 16;\ncp.async.wait_all;"),
      "");
}

TEST(EmulatorViolations, AsyncCopyOperands) {
  const std::string head = "ld.param.u64 %d0, [p0];\n";
  EXPECT_VIOLATION(Violation(head + "cp.async.cg.shared.global [dynamic+8], [%d0], 16;", 1),
                   "boundary of 16");
  EXPECT_VIOLATION(Violation(head + "cp.async.cg.shared.global [dynamic], [%d0+8], 16;", 1),
                   "boundary of 16");
  EXPECT_VIOLATION(Violation(head + "cp.async.cg.shared.global [dynamic], [%d0+256], 16;", 1),
                   "past the end");
  EXPECT_EQ(
      Violation(head + "mov.u32 %r0, 0;\ncp.async.cg.shared.global [dynamic], [%d0+256], 16, %r0;",
                1),
      "");
  EXPECT_VIOLATION(
      Violation(head + "mov.u32 %r0, 17;\ncp.async.cg.shared.global [dynamic], [%d0], 16, %r0;", 1),
      "src-size");
}

TEST(EmulatorViolations, Barriers) {
  EXPECT_VIOLATION(Violation("mov.u32 %r0, %tid.x;\nsetp.lt.u32 %p0, %r0, 7;\n@%p0 bar.sync 0;"),
                   "all lanes");
  EXPECT_VIOLATION(Violation("mov.u32 %r0, %tid.x;\nsetp.lt.u32 %p0, %r0, 32;\n@%p0 bar.sync 0;"),
                   "barrier");
  EXPECT_VIOLATION(
      Violation("mov.u32 %r0, %tid.x;\nsetp.lt.u32 %p0, %r0, 32;\n@%p0 ret;\nbar.sync 0;"),
      "ended");
  EXPECT_VIOLATION(Violation("bar.sync 1, 96;"), "a barrier of 96 threads");
  EXPECT_VIOLATION(Violation("bar.sync 1, 40;"), "a barrier of 40 threads");
  EXPECT_VIOLATION(Violation("mov.u32 %r0, %tid.x;\nshr.u32 %r1, %r0, 5;\nbar.sync %r1, 64;"),
                   "deadlock");
  EXPECT_EQ(Violation("mov.u32 %r0, %tid.x;\nshr.u32 %r1, %r0, 5;\nbar.sync %r1, 32;"), "");
  // A diverged pair of barriers is one barrier too many for each side.
  EXPECT_VIOLATION(Violation("mov.u32 %r0, %tid.x;\nand.b32 %r1, %r0, 1;\nsetp.eq.u32 %p0, %r1, "
                             "0;\n@%p0 bra A;\nbar.sync 0;\nbra B;\nA:\nbar.sync 0;\nB:"),
                   "all lanes");
}

TEST(EmulatorViolations, WarpWideInstructions) {
  const std::string head = "mov.u32 %r0, %tid.x;\nsetp.lt.u32 %p0, %r0, 16;\n";
  EXPECT_VIOLATION(Violation(head + "@%p0 shfl.sync.bfly.b32 %r1|%p1, %r0, 1, 31, -1;", 32),
                   "membermask");
  EXPECT_EQ(Violation(head + "@%p0 shfl.sync.bfly.b32 %r1|%p1, %r0, 1, 31, 65535;", 32), "");
  EXPECT_VIOLATION(Violation(head + "@%p0 shfl.sync.bfly.b32 %r1|%p1, %r0, 16, 31, 65535;", 32),
                   "does not take part");
  EXPECT_VIOLATION(Violation(head + "shfl.sync.idx.b32 %r1, %r0, 1, 31, 65535;", 32), "membermask");
  EXPECT_VIOLATION(Violation(head + "@%p0 vote.sync.ballot.b32 %r1, %p0, -1;", 32), "membermask");
  EXPECT_VIOLATION(Violation(head + "@%p0 bar.warp.sync -1;", 32), "membermask");
  EXPECT_VIOLATION(Violation(head + "@%p0 redux.sync.add.s32 %r1, %r0, -1;", 32), "membermask");
  EXPECT_VIOLATION(
      Violation(head + "@%p0 ldmatrix.sync.aligned.m8n8.x1.shared.b16 {%r1}, [dynamic];", 32),
      "all lanes");
  EXPECT_VIOLATION(Violation("ldmatrix.sync.aligned.m8n8.x1.shared.b16 {%r1}, [dynamic];", 16),
                   "all lanes");
  EXPECT_VIOLATION(Violation("ldmatrix.sync.aligned.m8n8.x1.shared.b16 {%r1}, [dynamic+8];", 32),
                   "boundary of 16");
  EXPECT_VIOLATION(
      Violation(head + "@%p0 mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 "
                       "{%f0,%f1,%f2,%f3}, {%r1,%r2,%r3,%r4}, {%r5,%r6}, {%f0,%f1,%f2,%f3};",
                32),
      "all lanes");
  EXPECT_VIOLATION(
      Violation(
          "mov.u32 %r1, 0x40;\nmma.sync.aligned.m16n8k32.row.col.kind::f8f6f4.f32.e3m2.e4m3.f32 "
          "{%f0,%f1,%f2,%f3}, {%r1,%r1,%r1,%r1}, {%r1,%r1}, {%f0,%f1,%f2,%f3};",
          32, 120),
      "not zero");
}

TEST(EmulatorViolations, TrapAndEndlessLoop) {
  EXPECT_VIOLATION(Violation("trap;"), "trap");
  Options options = GetOptions();
  const Options before = options;
  options.max_steps = 100000;
  SetOptions(options);
  EXPECT_VIOLATION(Violation("A:\nbra A;"), "never comes");
  SetOptions(before);
}

TEST(EmulatorViolations, BranchThatSaysItIsUniform) {
  EXPECT_VIOLATION(
      Violation(
          "mov.u32 %r0, %tid.x;\nsetp.lt.u32 %p0, %r0, 3;\n@%p0 bra.uni A;\nmov.u32 %r1, 1;\nA:"),
      "bra.uni");
}

// What has no value yet is poison: a NaN in every format, minus one as an integer.
TEST(EmulatorViolations, PoisonWhereNothingWasWritten) {
  PtxKernel kernel(
      "ld.param.u64 %d0, [p0];\nst.global.f32 [%d0], %f7;\nld.shared.u32 %r0, "
      "[dynamic];\nst.global.u32 [%d0+4], %r0;\n"
      "st.global.u16 [%d0+8], %h3;",
      89, kShared);
  const CUdeviceptr memory = kernel.Allocate(16);
  EXPECT_EQ(kernel.Run({memory}, 1, 1, 64), CUDA_SUCCESS) << LastViolation();
  EXPECT_EQ(kernel.Download<uint32_t>(memory, 4), (std::vector<uint32_t>{~0u, ~0u, ~0u, ~0u}));
}

TEST(EmulatorViolations, UnknownInstructionsAreNamed) {
  const auto message = [](const std::string& body, int sm = 89) {
    PtxKernel kernel(body, sm);
    EXPECT_EQ(kernel.load_result(), CUDA_ERROR_INVALID_PTX) << body;
    return kernel.Message(kernel.load_result());
  };
  EXPECT_VIOLATION(message("frobnicate.u32 %r0, %r1;"), "frobnicate.u32");
  EXPECT_VIOLATION(message("add.u32.wobble %r0, %r1, %r2;"), "modifier .wobble");
  EXPECT_VIOLATION(message("wgmma.fence.sync.aligned;", 120), "wgmma.fence");
  EXPECT_VIOLATION(
      message("mma.sync.aligned.m16n8k24.row.col.f32.bf16.bf16.f32 {%f0}, {%r0}, {%r0}, {%f0};"),
      "m16n8k24");
  EXPECT_VIOLATION(message("ld.global.u32 %r0, [%r99];"), "%r99");
  EXPECT_VIOLATION(message("add.u32 %r0, %r1, %d0;"), "64 bits, not 32");
  EXPECT_VIOLATION(message("bra NOWHERE;"), "NOWHERE");
}

}  // namespace
}  // namespace nibble::cuda::emulator
