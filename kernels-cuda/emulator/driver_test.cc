// SPDX-License-Identifier: Apache-2.0
//
// The emulated driver: what is asynchronous, graphs, memory, launch limits, targets, leaks.

#include "kernels-cuda/emulator/ptx_kernel_for_test.h"

namespace nibble::cuda::emulator {
namespace {

// p0[i] += p1 for i = thread + 32 block.
constexpr char kAdd[] =
    "ld.param.u64 %d0, [p0];\nld.param.u64 %d1, [p1];\nmov.u32 %r0, %tid.x;\nmov.u32 %r1, "
    "%ctaid.x;\nmad.lo.u32 %r0, %r1, 32, %r0;\n"
    "mul.wide.u32 %d2, %r0, 4;\nadd.u64 %d0, %d0, %d2;\nld.global.u32 %r2, [%d0];\ncvt.u32.u64 "
    "%r3, %d1;\nadd.u32 %r2, %r2, %r3;\n"
    "st.global.u32 [%d0], %r2;";

TEST(EmulatorDriver, WorkHappensOnlyWhenWaitedFor) {
  PtxKernel kernel(kAdd);
  const Driver& d = kernel.driver();
  void* pinned = nullptr;
  ASSERT_EQ(d.cuMemHostAlloc(&pinned, 128, 0), CUDA_SUCCESS);
  auto* words = static_cast<uint32_t*>(pinned);
  std::fill_n(words, 32, 1u);
  const CUdeviceptr memory = kernel.Allocate(128);
  // From pinned memory, a copy reads when it runs.
  ASSERT_EQ(d.cuMemcpyHtoDAsync_v2(memory, pinned, 128, kernel.stream()), CUDA_SUCCESS);
  words[0] = 50;
  EXPECT_EQ(kernel.Download<uint32_t>(memory, 32)[0], 50u);
  // From pageable memory, when it is queued.
  std::vector<uint32_t> pageable(32, 3);
  ASSERT_EQ(d.cuMemcpyHtoDAsync_v2(memory, pageable.data(), 128, kernel.stream()), CUDA_SUCCESS);
  pageable[0] = 4;
  // To pinned memory, a copy is not waited for.
  ASSERT_EQ(d.cuMemcpyDtoHAsync_v2(pinned, memory, 128, kernel.stream()), CUDA_SUCCESS);
  EXPECT_EQ(words[0], 50u);
  ASSERT_EQ(d.cuStreamSynchronize(kernel.stream()), CUDA_SUCCESS);
  EXPECT_EQ(words[0], 3u);
  EXPECT_EQ(d.cuMemFreeHost(pinned), CUDA_SUCCESS);
}

TEST(EmulatorDriver, GraphsReplayLaunchesCopiesAndFills) {
  PtxKernel kernel(kAdd);
  const Driver& d = kernel.driver();
  const CUdeviceptr a = kernel.Upload(std::vector<uint32_t>(64, 10)), b = kernel.Allocate(256);
  ASSERT_EQ(d.cuStreamSynchronize(kernel.stream()), CUDA_SUCCESS);
  ASSERT_EQ(d.cuStreamBeginCapture_v2(kernel.stream(), CU_STREAM_CAPTURE_MODE_RELAXED),
            CUDA_SUCCESS);
  uint64_t words[8] = {a, 7};
  void* parameters[8];
  for (int i = 0; i < 8; ++i) parameters[i] = &words[i];
  ASSERT_EQ(d.cuLaunchKernel(kernel.function(), 2, 1, 1, 32, 1, 1, 0, kernel.stream(), parameters,
                             nullptr),
            CUDA_SUCCESS);
  words[1] = 1000;  // was taken at the launch
  ASSERT_EQ(d.cuMemcpyDtoDAsync_v2(b, a, 256, kernel.stream()), CUDA_SUCCESS);
  ASSERT_EQ(d.cuMemsetD8Async(b, 0, 4, kernel.stream()), CUDA_SUCCESS);
  CUgraph graph = nullptr;
  ASSERT_EQ(d.cuStreamEndCapture(kernel.stream(), &graph), CUDA_SUCCESS);
  CUgraphExec executable = nullptr;
  ASSERT_EQ(d.cuGraphInstantiateWithFlags(&executable, graph, 0), CUDA_SUCCESS);
  EXPECT_EQ(d.cuGraphDestroy(graph), CUDA_SUCCESS);
  EXPECT_EQ(kernel.Download<uint32_t>(a, 64)[0], 10u);  // recorded, not run
  for (uint32_t expected : {17u, 24u, 31u}) {
    ASSERT_EQ(d.cuGraphLaunch(executable, kernel.stream()), CUDA_SUCCESS);
    EXPECT_EQ(kernel.Download<uint32_t>(a, 64), std::vector<uint32_t>(64, expected));
    std::vector<uint32_t> copied(64, expected);
    copied[0] = 0;
    EXPECT_EQ(kernel.Download<uint32_t>(b, 64), copied);
  }
  EXPECT_EQ(d.cuGraphExecDestroy(executable), CUDA_SUCCESS);
}

TEST(EmulatorDriver, CaptureRefusesWaiting) {
  PtxKernel kernel(kAdd);
  const Driver& d = kernel.driver();
  ASSERT_EQ(d.cuStreamBeginCapture_v2(kernel.stream(), CU_STREAM_CAPTURE_MODE_GLOBAL),
            CUDA_SUCCESS);
  EXPECT_EQ(d.cuStreamSynchronize(kernel.stream()), CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED);
  CUdeviceptr memory = 0;
  EXPECT_EQ(d.cuMemAlloc_v2(&memory, 16), CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED);
  CUgraph graph = nullptr;
  EXPECT_EQ(d.cuStreamEndCapture(kernel.stream(), &graph), CUDA_ERROR_STREAM_CAPTURE_INVALIDATED);
}

TEST(EmulatorDriver, OutOfMemoryAndLeaks) {
  const int64_t before = LiveObjects();
  SetDeviceMemory(1 << 20);
  {
    PtxKernel kernel(kAdd);
    const Driver& d = kernel.driver();
    size_t free = 0, total = 0;
    ASSERT_EQ(d.cuMemGetInfo_v2(&free, &total), CUDA_SUCCESS);
    EXPECT_EQ(total, size_t{1} << 20);
    const CUdeviceptr most = kernel.Allocate((1 << 20) - 100);
    CUdeviceptr more = 0;
    EXPECT_EQ(d.cuMemAlloc_v2(&more, 101), CUDA_ERROR_OUT_OF_MEMORY);
    EXPECT_EQ(d.cuMemAlloc_v2(&more, 100), CUDA_SUCCESS);
    ASSERT_EQ(d.cuMemFree_v2(most), CUDA_SUCCESS);
    EXPECT_EQ(d.cuMemFree_v2(most), CUDA_ERROR_INVALID_VALUE);
    EXPECT_EQ(d.cuMemFree_v2(more + 4), CUDA_ERROR_INVALID_VALUE);
    EXPECT_GT(LiveObjects(), before);
  }
  SetDeviceMemory(0);
  EXPECT_EQ(LiveObjects(), before);
}

TEST(EmulatorDriver, LaunchLimits) {
  PtxKernel kernel("bar.sync 0;", 89,
                   ".extern .shared .align 16 .b8 dynamic[];\n.shared .align 4 .b8 fixed[1024];");
  const auto run = [&](unsigned threads, unsigned blocks, unsigned shared) {
    return kernel.Run({}, threads, blocks, shared);
  };
  EXPECT_EQ(run(1024, 1, 0), CUDA_SUCCESS);
  EXPECT_EQ(run(1025, 1, 0), CUDA_ERROR_INVALID_VALUE);
  EXPECT_EQ(run(0, 1, 0), CUDA_ERROR_INVALID_VALUE);
  EXPECT_EQ(run(32, 0, 0), CUDA_ERROR_INVALID_VALUE);
  EXPECT_EQ(run(32, 1, 47 << 10), CUDA_SUCCESS);
  EXPECT_EQ(run(32, 1, (47 << 10) + 1), CUDA_ERROR_INVALID_VALUE);  // not asked for
  const auto ask = [&](int bytes) {
    return kernel.driver().cuFuncSetAttribute(
        kernel.function(), CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES, bytes);
  };
  EXPECT_EQ(ask(99 << 10), CUDA_ERROR_INVALID_VALUE);  // with the fixed part more than sm_89 has
  EXPECT_EQ(ask(98 << 10), CUDA_SUCCESS);
  EXPECT_EQ(run(32, 1, 98 << 10), CUDA_SUCCESS);
  uint64_t word = 0;
  void* parameters[8];
  for (void*& p : parameters) p = &word;
  const auto grid = [&](unsigned y, unsigned z) {
    return kernel.driver().cuLaunchKernel(kernel.function(), 1, y, z, 32, 1, 1, 0, kernel.stream(),
                                          parameters, nullptr);
  };
  EXPECT_EQ(grid(65535, 1), CUDA_SUCCESS);
  EXPECT_EQ(grid(65536, 1), CUDA_ERROR_INVALID_VALUE);
  EXPECT_EQ(grid(1, 65536), CUDA_ERROR_INVALID_VALUE);
}

TEST(EmulatorDriver, Targets) {
  EXPECT_EQ(PtxKernel("", 89, "", "sm_80").load_result(), CUDA_SUCCESS);
  EXPECT_EQ(PtxKernel("", 80, "", "sm_89").load_result(), CUDA_ERROR_NO_BINARY_FOR_GPU);
  EXPECT_EQ(PtxKernel("", 120, "", "sm_90a").load_result(), CUDA_ERROR_NO_BINARY_FOR_GPU);
  EXPECT_EQ(PtxKernel("", 90, "", "sm_90a").load_result(), CUDA_SUCCESS);
  PtxKernel kernel("");
  CUmodule module = nullptr;
  EXPECT_EQ(kernel.driver().cuModuleLoadData(&module, "\177ELF and so on"),
            CUDA_ERROR_NO_BINARY_FOR_GPU);
}

TEST(EmulatorDriver, CopiesAreChecked) {
  PtxKernel kernel("");
  const CUdeviceptr memory = kernel.Allocate(100);
  std::vector<uint8_t> host(101);
  ASSERT_EQ(kernel.driver().cuMemcpyHtoDAsync_v2(memory, host.data(), 101, kernel.stream()),
            CUDA_SUCCESS);
  EXPECT_EQ(kernel.driver().cuStreamSynchronize(kernel.stream()), CUDA_ERROR_ILLEGAL_ADDRESS);
  EXPECT_TRUE(IsLost(89, true));
}

// Two runs with one seed do the same; another seed changes the order (here: of atomics).
TEST(EmulatorDriver, SeedsDecideTheOrder) {
  const auto order = [](uint64_t seed) {
    Options options = GetOptions();
    options.seed = seed;
    options.threads = 1;
    SetOptions(options);
    PtxKernel kernel(
        "ld.param.u64 %d0, [p0];\natom.global.add.u32 %r1, [%d0], 1;\nmov.u32 %r0, "
        "%tid.x;\nmov.u32 %r2, %ctaid.x;\n"
        "mad.lo.u32 %r0, %r2, 64, %r0;\nmul.wide.u32 %d1, %r0, 4;\nadd.u64 %d0, %d0, "
        "%d1;\nst.global.u32 [%d0+4], %r1;");
    const CUdeviceptr memory = kernel.Upload(std::vector<uint32_t>(257, 0));
    EXPECT_EQ(kernel.Run({memory}, 64, 4), CUDA_SUCCESS) << LastViolation();
    return kernel.Download<uint32_t>(memory, 257);
  };
  const Options before = GetOptions();
  const auto first = order(1);
  EXPECT_EQ(first[0], 256u);
  EXPECT_EQ(order(1), first);
  EXPECT_NE(order(2), first);
  SetOptions(before);
}

// Calls, parameters in memory, branch tables, local memory, constants, loops with divergence.
TEST(EmulatorDriver, ControlFlow) {
  const std::string declarations =
      ".const .align 4 .b32 table[4] = {100, 200, 300, 400};\n"
      ".func (.param .b32 result) twice(.param .b32 x)\n{\n.reg .b32 %r<4>;\n.reg .pred "
      "%p<2>;\nld.param.u32 %r0, [x];\n"
      "setp.gt.u32 %p0, %r0, 20;\n@%p0 bra BIG;\nadd.u32 %r1, %r0, %r0;\nst.param.b32 [result], "
      "%r1;\nret;\n"
      "BIG:\nmov.u32 %r1, 7;\nst.param.b32 [result], %r1;\nret;\n}\n";
  const std::string body =
      "mov.u32 %r0, %tid.x;\n"
      "{ .param .b32 arg; st.param.b32 [arg], %r0; .param .b32 back; call.uni (back), twice, "
      "(arg); ld.param.b32 %r1, [back]; }\n"
      // a loop of as many turns as the lane's number: r2 = sum of 1..lane
      "mov.u32 %r2, 0;\nmov.u32 %r3, %r0;\nLOOP:\nsetp.eq.u32 %p0, %r3, 0;\n@%p0 bra "
      "DONE;\nadd.u32 %r2, %r2, %r3;\nsub.u32 %r3, %r3, 1;\nbra LOOP;\nDONE:\n"
      // reconverged: all lanes take part
      "redux.sync.add.u32 %r4, %r2, -1;\n"
      "and.b32 %r5, %r0, 3;\nTARGETS: .branchtargets L0, L1, L2, L3;\nbrx.idx %r5, TARGETS;\n"
      "L0: mov.u32 %r6, 10; bra END;\nL1: mov.u32 %r6, 11; bra END;\nL2: mov.u32 %r6, 12; bra "
      "END;\nL3: mov.u32 %r6, 13;\nEND:\n"
      "mul.wide.u32 %d0, %r5, 4;\nmov.u64 %d1, table;\nadd.u64 %d1, %d1, %d0;\nld.const.u32 %r7, "
      "[%d1];\n"
      "{ .local .align 8 .b8 mine[16]; .reg .b32 %r0; mov.u64 %d2, mine; st.local.u32 [%d2+4], "
      "%r7; mov.u32 %r0, 5; ld.local.u32 %r8, [mine+4]; }\n"
      "ld.param.u64 %d3, [p0];\nmul.wide.u32 %d4, %r0, 20;\nadd.u64 %d3, %d3, %d4;\n"
      "st.global.u32 [%d3], %r1;\nst.global.u32 [%d3+4], %r2;\nst.global.u32 [%d3+8], "
      "%r4;\nst.global.u32 [%d3+12], %r6;\nst.global.u32 [%d3+16], %r8;";
  PtxKernel kernel(body, 89, declarations);
  const CUdeviceptr memory = kernel.Allocate(32 * 20);
  ASSERT_EQ(kernel.Run({memory}), CUDA_SUCCESS) << LastViolation();
  const auto got = kernel.Download<uint32_t>(memory, 160);
  for (uint32_t lane = 0; lane < 32; ++lane) {
    EXPECT_EQ(got[5 * lane], lane > 20 ? 7 : 2 * lane);
    EXPECT_EQ(got[5 * lane + 1], lane * (lane + 1) / 2);
    EXPECT_EQ(got[5 * lane + 2], 31u * 32 * 33 / 6);
    EXPECT_EQ(got[5 * lane + 3], 10 + lane % 4);
    EXPECT_EQ(got[5 * lane + 4], 100 * (lane % 4 + 1));
  }
}

}  // namespace
}  // namespace nibble::cuda::emulator
