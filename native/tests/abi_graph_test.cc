// SPDX-License-Identifier: Apache-2.0
//
// Graphs, memory of the device and the choice of a token on the CPU. The CUDA plug-in's tests
// make the same calls on an emulated GPU.
#include <cmath>
#include <limits>

#include "kernels-cpu/elementwise/sample.h"
#include "native/tests/decode_step.h"

namespace nibble {
namespace {

TEST(AbiGraph, RepeatsItsCalls) {
  const ContextPtr context = MakeContext(2);
  for (const StepScheme& scheme : kStepSchemes) ExpectGraphRepeatsCalls(context.get(), scheme);
}

TEST(AbiGraph, WhatIsRefused) {
  const ContextPtr context = MakeContext(1), other = MakeContext(1);
  ExpectGraphRefusals(context.get(), other.get());
}

TEST(AbiGraph, MayOutliveItsContextAndAnotherIsNotTakenForIt) {
  GraphPtr graph;
  {
    const ContextPtr context = MakeContext(1);
    DecodeStep step(context.get(), kStepSchemes[0], 1);
    graph = step.Record(0);
  }
  const ContextPtr context = MakeContext(1);
  ExpectFailure(nb_graph_launch(context.get(), graph.get(), nullptr, 0), NB_INVALID_ARGUMENT,
                "nb_graph_launch", {"recorded by another context"});
}

TEST(AbiGraph, WithoutSequences) {
  const ContextPtr context = MakeContext(1);
  DeviceMemory a(context.get(), std::vector<float>{1, 2, 3}), b(context.get(), 12);
  const nb_tensor at = a.AsTensor(NB_F32, {1, 3}), bt = b.AsTensor(NB_F32, {1, 3});
  nb_graph* graph = nullptr;
  b.Write(std::vector<float>{0, 0, 0});
  ASSERT_EQ(nb_graph_begin(context.get(), 0), NB_OK);
  EXPECT_EQ(nb_add(context.get(), &at, &bt, &bt), NB_OK) << nb_last_error();
  ASSERT_EQ(nb_graph_end(context.get(), &graph), NB_OK) << nb_last_error();
  EXPECT_EQ(b.Read<float>(), (std::vector<float>{0, 0, 0})) << "ran while it was recorded";
  for (int i = 0; i < 3; ++i) EXPECT_EQ(nb_graph_launch(context.get(), graph, nullptr, 0), NB_OK);
  EXPECT_EQ(b.Read<float>(), (std::vector<float>{3, 6, 9}));
  nb_graph_destroy(graph);
}

TEST(AbiGraph, UnknownIdsGiveNaN) {
  const ContextPtr context = MakeContext(1);
  const MatrixPtr table =
      QuantizeMatrix(context.get(), Format(NB_F32), {1, 2, 3, 4, 5, 6}, 3, 2);
  DeviceMemory ids(context.get(), std::vector<int32_t>{2, -1, 3}), x(context.get(), 24);
  const nb_tensor it = ids.AsTensor(NB_I32, {3}), xt = x.AsTensor(NB_F32, {3, 2});
  ExpectFailure(nb_embedding(context.get(), table.get(), &it, &xt), NB_INVALID_ARGUMENT,
                "nb_embedding", {"ids[1]: -1 but 0..2"});
  nb_graph* graph = nullptr;
  ASSERT_EQ(nb_graph_begin(context.get(), 0), NB_OK);
  EXPECT_EQ(nb_embedding(context.get(), table.get(), &it, &xt), NB_OK) << nb_last_error();
  ASSERT_EQ(nb_graph_end(context.get(), &graph), NB_OK);
  ASSERT_EQ(nb_graph_launch(context.get(), graph, nullptr, 0), NB_OK);
  const std::vector<float> rows = x.Read<float>();
  EXPECT_EQ(rows[0], 5);
  EXPECT_EQ(rows[1], 6);
  for (size_t i = 2; i < 6; ++i) EXPECT_TRUE(std::isnan(rows[i])) << i;
  nb_graph_destroy(graph);
}

TEST(AbiMemory, AllocateCopyFree) {
  const ContextPtr context = MakeContext(1);
  void* memory = &memory;
  EXPECT_EQ(nb_memory_allocate(context.get(), 0, &memory), NB_OK);
  EXPECT_EQ(memory, nullptr);
  EXPECT_EQ(nb_memory_free(nullptr), NB_OK);
  for (const int64_t bytes : {int64_t{1}, int64_t{4097}, int64_t{5} << 20}) {
    ASSERT_EQ(nb_memory_allocate(context.get(), bytes, &memory), NB_OK);
    EXPECT_EQ(reinterpret_cast<uintptr_t>(memory) % 256, 0u);
    EXPECT_EQ(static_cast<uint8_t*>(memory)[bytes - 1], 0);
    EXPECT_EQ(nb_memory_free(memory), NB_OK);
    ExpectFailure(nb_memory_free(memory), NB_INVALID_ARGUMENT, "nb_memory_free", {"memory: "});
  }
  ExpectFailure(nb_memory_allocate(context.get(), -1, &memory), NB_INVALID_ARGUMENT,
                "nb_memory_allocate", {"bytes: -1"});
  ExpectFailure(nb_memory_allocate(nullptr, 1, &memory), NB_INVALID_ARGUMENT,
                "nb_memory_allocate", {"context: NULL"});
  ExpectFailure(nb_memory_allocate(context.get(), 1, nullptr), NB_INVALID_ARGUMENT,
                "nb_memory_allocate", {"memory: NULL"});
  EXPECT_EQ(nb_memory_allocate(context.get(), int64_t{1} << 62, &memory), NB_OUT_OF_MEMORY);
  EXPECT_EQ(memory, nullptr);
  std::vector<int32_t> a = {1, 2, 3, 4}, b(4);
  EXPECT_EQ(nb_memory_copy(context.get(), b.data(), a.data(), 16), NB_OK);
  EXPECT_EQ(a, b);
  ExpectFailure(nb_memory_copy(context.get(), a.data() + 1, a.data(), 8), NB_INVALID_ARGUMENT,
                "nb_memory_copy", {"destination: overlaps source"});
  ExpectFailure(nb_memory_copy(context.get(), nullptr, a.data(), 8), NB_INVALID_ARGUMENT,
                "nb_memory_copy", {"destination: NULL"});
  ExpectFailure(nb_memory_copy(context.get(), b.data(), nullptr, 8), NB_INVALID_ARGUMENT,
                "nb_memory_copy", {"source: NULL"});
  ExpectFailure(nb_memory_copy(context.get(), b.data(), a.data(), -8), NB_INVALID_ARGUMENT,
                "nb_memory_copy", {"bytes: -8"});
  EXPECT_EQ(nb_memory_copy(context.get(), nullptr, nullptr, 0), NB_OK);
  EXPECT_EQ(nb_synchronize(context.get()), NB_OK);
  ExpectFailure(nb_synchronize(nullptr), NB_INVALID_ARGUMENT, "nb_synchronize",
                {"context: NULL"});
}

TEST(AbiChooseToken, IsTheKernelsChoice) {
  const ContextPtr context = MakeContext(2);
  std::mt19937_64 random = TestRandom(31);
  constexpr int64_t kRows = 5, kCols = 301;
  std::vector<float> logits = NormalValues(random, kRows * kCols, 3);
  logits[2 * kCols + 17] = std::numeric_limits<float>::quiet_NaN();
  std::vector<double> uniforms = {0, 0.25, 0.5, 0.75, 0.999};
  std::vector<int32_t> ids(kRows);
  const nb_tensor lt = F32(logits, {kRows, kCols}), it = Tensor(NB_I32, ids.data(), {kRows});
  nb_tensor ut = Tensor(NB_F64, uniforms.data(), {kRows});
  ut.byte_length = kRows * 8;
  ASSERT_EQ(nb_argmax(context.get(), &lt, &it), NB_OK) << nb_last_error();
  for (int64_t r = 0; r < kRows; ++r) {
    EXPECT_EQ(ids[r], Argmax(logits.data() + r * kCols, kCols));
  }
  EXPECT_EQ(ids[2], -18);
  nb_sample_options o = {sizeof(nb_sample_options), 0.7f, 50, 0.9f, 0.02f};
  ASSERT_EQ(nb_sample(context.get(), &lt, &o, &ut, &it), NB_OK) << nb_last_error();
  for (int64_t r = 0; r < kRows; ++r) {
    EXPECT_EQ(ids[r], Sample(logits.data() + r * kCols, kCols, {0.7f, 50, 0.9f, 0.02f},
                             uniforms[r]));
  }
  const auto refused = [&](const char* part) {
    ExpectFailure(nb_sample(context.get(), &lt, &o, &ut, &it), NB_INVALID_ARGUMENT, "nb_sample",
                  {part});
    o = {sizeof(nb_sample_options), 0.7f, 50, 0.9f, 0.02f};
  };
  o.struct_size = 8, refused("options: struct_size is 8");
  o.temperature = -1, refused("options.temperature: -1 but 0 to 100");
  o.temperature = std::nanf(""), refused("options.temperature: nan");
  o.top_k = -1, refused("options.top_k: -1");
  o.top_p = 0, refused("options.top_p: 0");
  o.min_p = 1.5f, refused("options.min_p: 1.5");
  uniforms[3] = 1, refused("uniforms[3]: 1 but");
  ExpectFailure(nb_sample(context.get(), &lt, nullptr, &ut, &it), NB_INVALID_ARGUMENT,
                "nb_sample", {"options: NULL"});
}

TEST(AbiChooseToken, RepeatPenalty) {
  const ContextPtr context = MakeContext(1);
  std::vector<float> logits = {1, -1, 2, -2, 3};
  const std::vector<int32_t> tokens = {0, 3, 7, -1};
  const nb_tensor lt = F32(logits, {5}), tt = Tensor(NB_I32, tokens.data(), {4});
  ASSERT_EQ(nb_penalize(context.get(), &lt, &tt, 2), NB_OK) << nb_last_error();
  EXPECT_EQ(logits, (std::vector<float>{0.5f, -1, 2, -4, 3}));
  for (const float bad : {0.0f, -1.0f, std::nanf(""), INFINITY}) {
    ExpectFailure(nb_penalize(context.get(), &lt, &tt, bad), NB_INVALID_ARGUMENT, "nb_penalize",
                  {"penalty: "});
  }
}

TEST(AbiDevices, DescriptionOfTheCpu) {
  char text[512];
  ASSERT_EQ(nb_device_describe("cpu", text, sizeof(text)), NB_OK) << nb_last_error();
  EXPECT_NE(std::string(text).find(nb_simd_target()), std::string::npos) << text;
  ExpectFailure(nb_device_describe("cpu", text, 3), NB_INVALID_ARGUMENT, "nb_device_describe",
                {"buffer_length: 3 but at least"});
  ExpectFailure(nb_device_describe("tpu", text, 512), NB_INVALID_ARGUMENT, "nb_device_describe",
                {"\"tpu\""});
  ExpectFailure(nb_cuda_open(nullptr), NB_INVALID_ARGUMENT, "nb_cuda_open", {"path: NULL"});
  ExpectFailure(nb_cuda_open("/nowhere/libnibble_cuda.so"), NB_UNSUPPORTED, "nb_cuda_open",
                {"there is no /nowhere/libnibble_cuda.so"});
}

}  // namespace
}  // namespace nibble
