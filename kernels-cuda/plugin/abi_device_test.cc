// SPDX-License-Identifier: Apache-2.0
//
// The C ABI on an emulated GPU: devices, memory, what belongs to which device, graphs, threads,
// and what is said when something is missing or goes wrong.
#include <cmath>
#include <cstdio>
#include <limits>
#include <thread>

#include "kernels-cuda/plugin/emulated_cuda.h"
#include "native/tests/canonical_matrix.h"
#include "native/tests/decode_step.h"

namespace nibble {
namespace {

class CudaAbi : public EmulatedCuda {};

TEST_F(CudaAbi, TellsAboutItself) {
  char text[512];
  ASSERT_EQ(nb_cuda_targets(text, sizeof(text)), NB_OK) << nb_last_error();
  EXPECT_NE(std::string(text).find("sm_89"), std::string::npos) << text;
  ExpectFailure(nb_cuda_targets(text, 3), NB_INVALID_ARGUMENT, "nb_cuda_targets",
                {"buffer_length: 3"});
  EXPECT_EQ(nb_device_status("cuda:0"), NB_OK) << nb_last_error();
  ASSERT_EQ(nb_device_describe("cuda:0", text, sizeof(text)), NB_OK) << nb_last_error();
  EXPECT_NE(std::string(text).find("compute capability 8.9"), std::string::npos) << text;
  ExpectFailure(nb_device_describe("cuda:0", text, 9), NB_INVALID_ARGUMENT, "nb_device_describe",
                {"buffer_length: 9"});
  ExpectFailure(nb_device_status("cuda:1"), NB_UNSUPPORTED, "nb_device_status",
                {"\"cuda:1\" cannot be used", "finds 1 device, cuda:0"});
  nb_context* context = nullptr;
  ExpectFailure(nb_context_create("cuda:1", 1, &context), NB_UNSUPPORTED, "nb_context_create",
                {"\"cuda:1\" cannot be used", "finds 1 device, cuda:0"});
  EXPECT_EQ(context, nullptr);
  EXPECT_EQ(nb_cuda_open(NIBBLE_CUDA_LIBRARY_FILE), NB_OK) << "the same again";
  ExpectFailure(nb_cuda_open("/elsewhere/libnibble_cuda.so"), NB_INVALID_ARGUMENT, "nb_cuda_open",
                {"open already, from"});
  EXPECT_EQ(nb_context_threads(CudaContext(3).get()), 3);
}

TEST_F(CudaAbi, MeasuresItsCopyBandwidth) {
  const ContextPtr context = CudaContext();
  double rate = 0;
  ASSERT_EQ(nb_measure_read_bandwidth(context.get(), 1 << 20, 1, &rate), NB_OK)
      << nb_last_error();
  EXPECT_GT(rate, 0);
}

TEST_F(CudaAbi, Memory) {
  const ContextPtr context = CudaContext();
  void* memory = nullptr;
  EXPECT_EQ(nb_memory_allocate(context.get(), 0, &memory), NB_OK);
  EXPECT_EQ(memory, nullptr);
  const std::vector<int32_t> values = {1, -2, 3, 1 << 30};
  {
    const DeviceMemory a(context.get(), values), b(context.get(), 16);
    EXPECT_EQ(a.Read<int32_t>(), values);
    ASSERT_EQ(nb_memory_copy(context.get(), b.data(), a.data(), 16), NB_OK) << nb_last_error();
    EXPECT_EQ(b.Read<int32_t>(), values);
    // Parts, and the ends.
    auto* at = static_cast<uint8_t*>(b.data());
    ASSERT_EQ(nb_memory_copy(context.get(), at + 12, values.data(), 4), NB_OK);
    EXPECT_EQ(b.Read<int32_t>(), (std::vector<int32_t>{1, -2, 3, 1}));
    ExpectFailure(nb_memory_copy(context.get(), at + 12, values.data(), 8), NB_INVALID_ARGUMENT,
                  "nb_memory_copy", {"destination: ", "pass the end of its memory on cuda:0"});
    ExpectFailure(nb_memory_copy(context.get(), at + 4, at, 8), NB_INVALID_ARGUMENT,
                  "nb_memory_copy", {"destination: overlaps source"});
    ExpectFailure(nb_memory_free(at + 4), NB_INVALID_ARGUMENT, "nb_memory_free", {"memory: "});
    EXPECT_EQ(nb_synchronize(context.get()), NB_OK);
  }
  // Large enough not to go through the staging memory.
  std::vector<float> large(300000);
  for (size_t i = 0; i < large.size(); ++i) large[i] = static_cast<float>(i);
  const DeviceMemory c(context.get(), large);
  EXPECT_EQ(c.Read<float>(), large);
}

TEST_F(CudaAbi, MemoryOutlivesItsContextAndServesAnother) {
  ContextPtr first = CudaContext();
  void* memory = nullptr;
  ASSERT_EQ(nb_memory_allocate(first.get(), 16, &memory), NB_OK);
  const std::vector<float> values = {1, 2, 3, 4};
  ASSERT_EQ(nb_memory_copy(first.get(), memory, values.data(), 16), NB_OK);
  ASSERT_EQ(nb_synchronize(first.get()), NB_OK);
  first.reset();
  const ContextPtr second = CudaContext();
  const nb_tensor t = Tensor(NB_F32, memory, {1, 4});
  std::vector<float> sum(4);
  const nb_tensor st = F32(sum, {1, 4});
  ASSERT_EQ(nb_add(second.get(), &t, &t, &st), NB_OK) << nb_last_error();
  EXPECT_EQ(sum, (std::vector<float>{2, 4, 6, 8}));
  EXPECT_EQ(nb_memory_free(memory), NB_OK);
}

// A call that has returned may still be at work: what it uses is not freed under it.
TEST_F(CudaAbi, FreeingWaitsForTheCallsBefore) {
  const ContextPtr context = CudaContext(), other = CudaContext();
  const DeviceMemory sum(context.get(), 8);
  const nb_tensor st = sum.AsTensor(NB_F32, {1, 2});
  const MatrixPtr kept = QuantizeMatrix(context.get(), Format(NB_F32), {1, 2, 3, 4}, 2, 2);
  {
    const DeviceMemory a(context.get(), std::vector<float>{1, 2});
    const nb_tensor at = a.AsTensor(NB_F32, {1, 2});
    const MatrixPtr w = QuantizeMatrix(other.get(), Format(NB_F32), {1, 0, 1, 1}, 2, 2);
    const nb_projection p = {w.get(), nullptr, nullptr, &st};
    ASSERT_EQ(nb_matmul(context.get(), NB_F32, &at, nullptr, 0, &p, 1), NB_OK)
        << nb_last_error();
  }
  EXPECT_EQ(sum.Read<float>(), (std::vector<float>{1, 3}));
}

TEST_F(CudaAbi, WhatIsOfAnotherDeviceIsRefused) {
  const ContextPtr cuda = CudaContext(), cpu = MakeContext(1);
  const std::vector<float> values(64, 0.5f);
  std::vector<float> out(64);
  const nb_tensor x = F32(values, {1, 8}), y = F32(out, {1, 8}), w = F32(values, {8, 8});
  const MatrixPtr on_cuda = QuantizeMatrix(cuda.get(), Format(NB_F32), values, 8, 8);
  const MatrixPtr on_cpu = QuantizeMatrix(cpu.get(), Format(NB_F32), values, 8, 8);
  const nb_projection p_cuda = {on_cuda.get(), nullptr, nullptr, &y};
  const nb_projection p_cpu = {on_cpu.get(), nullptr, nullptr, &y};
  ExpectFailure(nb_matmul(cpu.get(), NB_F32, &x, nullptr, 0, &p_cuda, 1), NB_INVALID_ARGUMENT,
                "nb_matmul", {"projections[0].matrix: of cuda:0 but of cpu, as the context"});
  ExpectFailure(nb_matmul(cuda.get(), NB_F32, &x, nullptr, 0, &p_cpu, 1), NB_INVALID_ARGUMENT,
                "nb_matmul", {"projections[0].matrix: of cpu but of cuda:0, as the context"});
  ExpectFailure(nb_swiglu_matmul(cuda.get(), NB_F32, &x, nullptr, 0, on_cuda.get(), nullptr,
                                 on_cpu.get(), nullptr, &y),
                NB_INVALID_ARGUMENT, "nb_swiglu_matmul", {"up: of cpu but of cuda:0"});
  const int32_t id = 0;
  const nb_tensor ids = Tensor(NB_I32, &id, {1});
  ExpectFailure(nb_embedding(cpu.get(), on_cuda.get(), &ids, &y), NB_INVALID_ARGUMENT,
                "nb_embedding", {"table: of cuda:0 but of cpu"});
  ExpectFailure(nb_matrix_dequantize(cpu.get(), on_cuda.get(), &w), NB_INVALID_ARGUMENT,
                "nb_matrix_dequantize", {"matrix: of cuda:0 but of cpu"});

  const CachePtr cache = MakeCache(cuda.get(), NB_F32, 1, 1, 16, 4);
  const std::vector<float> kv(16);
  std::vector<float> q(16);
  const nb_tensor qt = F32(q, {1, 16}), kt = F32(kv, {1, 16});
  const nb_sequence s = {cache.get(), 0, 1};
  ExpectFailure(nb_rope_append(cpu.get(), 0, &qt, &kt, &kt, nullptr, &s, 1), NB_INVALID_ARGUMENT,
                "nb_rope_append", {"sequences[0].cache: of cuda:0 but of cpu"});

  const DeviceMemory memory(cuda.get(), values);
  const nb_tensor device = memory.AsTensor(NB_F32, {1, 8});
  ExpectFailure(nb_add(cpu.get(), &x, &device, &y), NB_INVALID_ARGUMENT, "nb_add",
                {"b: data is at 0x", "in memory of cuda:0, but memory of cpu was expected"});
  const nb_tensor weights = memory.AsTensor(NB_F32, {8, 8});
  const nb_weight_format f32 = Format(NB_F32);
  nb_matrix* made = nullptr;
  ExpectFailure(nb_matrix_quantize(cuda.get(), &f32, &weights, &made), NB_INVALID_ARGUMENT,
                "nb_matrix_quantize",
                {"weights: in memory of cuda:0, but ordinary memory was expected"});
  nb_tensor beyond = memory.AsTensor(NB_F32, {1, 8});
  beyond.data = static_cast<float*>(memory.data()) + 60;
  ExpectFailure(nb_add(cuda.get(), &x, &beyond, &y), NB_INVALID_ARGUMENT, "nb_add",
                {"b: ", "pass the end of its memory on cuda:0"});
}

// ------------------------------------------------------------------ weights --

TEST_F(CudaAbi, EveryFormatComesBackBitForBit) {
  const ContextPtr cuda = CudaContext(2), cpu = MakeContext(2);
  std::mt19937_64 random = TestRandom(5);
  for (const nb_weight_format& f : AllFormats()) {
    const int64_t rows = UniformInt(random, 1, 40), cols = UniformInt(random, 1, 200);
    const std::vector<float> w = NormalValues(random, rows * cols);
    const MatrixPtr a = QuantizeMatrix(cuda.get(), f, w, rows, cols);
    const MatrixPtr b = QuantizeMatrix(cpu.get(), f, w, rows, cols);
    CanonicalMatrix from_cuda(f, rows, cols), from_cpu(f, rows, cols);
    ASSERT_EQ(from_cuda.UnpackFrom(cuda.get(), a.get()), NB_OK) << nb_last_error();
    ASSERT_EQ(from_cpu.UnpackFrom(cpu.get(), b.get()), NB_OK) << nb_last_error();
    EXPECT_TRUE(from_cuda.SameBits(from_cpu)) << FormatName(f) << " " << rows << " x " << cols;
    nb_matrix_info info = {};
    info.struct_size = sizeof(info);
    ASSERT_EQ(nb_matrix_get_info(a.get(), &info), NB_OK);
    EXPECT_EQ(info.rows, rows);
    EXPECT_EQ(info.cols, cols);
    EXPECT_GT(info.packed_bytes, 0);
  }
}

TEST_F(CudaAbi, RecordsAreTheCpus) {
  const ContextPtr cuda = CudaContext(2), cpu = MakeContext(2);
  const std::string path = ::testing::TempDir() + "nibble_cuda_record";
  std::mt19937_64 random = TestRandom(6);
  for (const nb_weight_format& f :
       {Format(NB_I4, NB_E4M3, 32), Format(NB_E3M2, NB_F32), Format(NB_I8, NB_F16, 16)}) {
    const int64_t rows = 37, cols = 75;
    const std::vector<float> w = NormalValues(random, rows * cols);
    const MatrixPtr a = QuantizeMatrix(cuda.get(), f, w, rows, cols);
    const MatrixPtr b = QuantizeMatrix(cpu.get(), f, w, rows, cols);
    int64_t bytes = 0;
    ASSERT_EQ(nb_matrix_record_bytes(&f, rows, cols, &bytes), NB_OK);
    const auto file = [&](nb_context* context, const nb_matrix* m) {
      std::fclose(std::fopen(path.c_str(), "w"));
      EXPECT_EQ(nb_matrix_write(context, m, path.c_str(), 0, bytes), NB_OK) << nb_last_error();
      std::vector<char> content(static_cast<size_t>(bytes));
      std::FILE* in = std::fopen(path.c_str(), "rb");
      EXPECT_EQ(std::fread(content.data(), 1, content.size(), in), content.size());
      std::fclose(in);
      return content;
    };
    EXPECT_EQ(file(cpu.get(), b.get()), file(cuda.get(), a.get())) << FormatName(f);
    nb_matrix* read = nullptr;
    ASSERT_EQ(nb_matrix_read(cuda.get(), &f, rows, cols, path.c_str(), 0, bytes, &read), NB_OK)
        << nb_last_error();
    const MatrixPtr owner(read);
    CanonicalMatrix before(f, rows, cols), after(f, rows, cols);
    ASSERT_EQ(before.UnpackFrom(cuda.get(), a.get()), NB_OK);
    ASSERT_EQ(after.UnpackFrom(cuda.get(), read), NB_OK);
    EXPECT_TRUE(before.SameBits(after)) << FormatName(f);
  }
  std::remove(path.c_str());
}

// ----------------------------------------------------------- tokens, graphs --

TEST_F(CudaAbi, TokensAreTheCpus) {
  const ContextPtr cuda = CudaContext(), cpu = MakeContext(1);
  std::mt19937_64 random = TestRandom(7);
  constexpr int64_t kRows = 4, kCols = 777;
  std::vector<float> logits = NormalValues(random, kRows * kCols, 3);
  logits[1 * kCols + 70] = std::numeric_limits<float>::quiet_NaN();
  const std::vector<double> uniforms = {0, 0.3, 0.6, 0.99};
  std::vector<int32_t> a(kRows), b(kRows);
  const nb_tensor lt = F32(logits, {kRows, kCols}), at = Tensor(NB_I32, a.data(), {kRows}),
                  bt = Tensor(NB_I32, b.data(), {kRows});
  nb_tensor ut = Tensor(NB_F64, uniforms.data(), {kRows});
  ut.byte_length = kRows * 8;
  ASSERT_EQ(nb_argmax(cuda.get(), &lt, &at), NB_OK) << nb_last_error();
  ASSERT_EQ(nb_argmax(cpu.get(), &lt, &bt), NB_OK) << nb_last_error();
  EXPECT_EQ(a, b);
  EXPECT_EQ(a[1], -71);
  const int64_t size = sizeof(nb_sample_options);
  for (const nb_sample_options& o :
       {nb_sample_options{size, 1, 0, 1, 0}, nb_sample_options{size, 0.7f, 40, 0.9f, 0},
        nb_sample_options{size, 2, 0, 0.8f, 0.1f}}) {
    ASSERT_EQ(nb_sample(cuda.get(), &lt, &o, &ut, &at), NB_OK) << nb_last_error();
    ASSERT_EQ(nb_sample(cpu.get(), &lt, &o, &ut, &bt), NB_OK) << nb_last_error();
    EXPECT_EQ(a, b) << o.temperature;
  }
  std::vector<float> one(logits.begin(), logits.begin() + kCols), two = one;
  const std::vector<int32_t> tokens = {5, 700, -3, 777, 0};
  const nb_tensor ot = F32(one, {kCols}), tt = F32(two, {kCols}),
                  ids = Tensor(NB_I32, tokens.data(), {5});
  ASSERT_EQ(nb_penalize(cuda.get(), &ot, &ids, 1.3f), NB_OK) << nb_last_error();
  ASSERT_EQ(nb_penalize(cpu.get(), &tt, &ids, 1.3f), NB_OK) << nb_last_error();
  EXPECT_EQ(one, two);
}

TEST_F(CudaAbi, UnknownIdsOnTheDeviceGiveNaN) {
  const ContextPtr context = CudaContext();
  for (const nb_weight_format& f : {Format(NB_F32), Format(NB_I8, NB_F32)}) {
    const MatrixPtr table = QuantizeMatrix(context.get(), f, {1, 2, 3, 4, 5, 6}, 3, 2);
    const DeviceMemory ids(context.get(), std::vector<int32_t>{2, -1, 3, 1, 1 << 30}),
        x(context.get(), 40);
    const nb_tensor it = ids.AsTensor(NB_I32, {5}), xt = x.AsTensor(NB_F32, {5, 2});
    ASSERT_EQ(nb_embedding(context.get(), table.get(), &it, &xt), NB_OK) << nb_last_error();
    const std::vector<float> rows = x.Read<float>();
    EXPECT_NEAR(rows[1], 6, 1e-5);
    EXPECT_NEAR(rows[7], 4, 1e-5);
    for (const size_t i : {2, 3, 4, 5, 8, 9}) EXPECT_TRUE(std::isnan(rows[i])) << i;
  }
}

class CudaGraph : public EmulatedCuda, public ::testing::WithParamInterface<int> {};

TEST_P(CudaGraph, RepeatsItsCalls) {
  UseGeneration(GetParam());
  const ContextPtr context = CudaContext();
  for (const StepScheme& scheme : kStepSchemes) ExpectGraphRepeatsCalls(context.get(), scheme);
}

INSTANTIATE_TEST_SUITE_P(Generations, CudaGraph, ::testing::Values(80, 89, 90, 120),
                         ::testing::PrintToStringParamName());

TEST_F(CudaAbi, GraphsRefuse) {
  const ContextPtr context = CudaContext(), other = CudaContext();
  ExpectGraphRefusals(context.get(), other.get());
  const ContextPtr cpu = MakeContext(1);
  DecodeStep step(context.get(), kStepSchemes[0], 1);
  const GraphPtr graph = step.Record(0);
  ExpectFailure(nb_graph_launch(cpu.get(), graph.get(), nullptr, 0), NB_INVALID_ARGUMENT,
                "nb_graph_launch", {"graph: of cuda:0 but of cpu"});
}

TEST_F(CudaAbi, AGraphMayOutliveItsContext) {
  GraphPtr graph;
  {
    const ContextPtr context = CudaContext();
    DecodeStep step(context.get(), kStepSchemes[2], 1);
    graph = step.Record(0);
  }
  EXPECT_GT(PluginTable()->live_resources(), 0);
  graph.reset();
}

TEST_F(CudaAbi, AContextMayEndWhileItRecords) {
  const ContextPtr context = CudaContext();
  ASSERT_EQ(nb_graph_begin(context.get(), 0), NB_OK);
}

TEST_F(CudaAbi, TheWholeStepFollowsTheCpu) {
  const ContextPtr cuda = CudaContext(), cpu = MakeContext(1);
  const StepScheme& f32 = kStepSchemes[0];
  const StepResults a = RunSteps(cuda.get(), f32, 3, 6, true);
  const StepResults b = RunSteps(cpu.get(), f32, 3, 6, true);
  for (size_t i = 0; i < a.ids.size(); ++i) {
    EXPECT_EQ(a.ids[i], b.ids[i]) << "step " << i;
    for (size_t j = 0; j < a.logits[i].size(); ++j) {
      ASSERT_NEAR(a.logits[i][j], b.logits[i][j], 2e-4) << "step " << i;
    }
  }
}

// ------------------------------------------------------------------ threads --

TEST_F(CudaAbi, EightThreadsOverFourContexts) {
  constexpr int kContexts = 4, kThreads = 8;
  std::vector<ContextPtr> contexts;
  for (int i = 0; i < kContexts; ++i) contexts.push_back(CudaContext());
  std::mt19937_64 random = TestRandom(8);
  const int64_t n = 70, k = 96;
  const MatrixPtr matrix = QuantizeMatrix(contexts[0].get(), Format(NB_I4, NB_E4M3, 32),
                                          NormalValues(random, n * k), n, k);
  const std::vector<float> x = NormalValues(random, 2 * k);
  const nb_tensor xt = F32(x, {2, k});
  const auto product = [&](nb_context* context) {
    std::vector<float> y(2 * n);
    const nb_tensor yt = F32(y, {2, n});
    const nb_projection p = {matrix.get(), nullptr, nullptr, &yt};
    EXPECT_EQ(nb_matmul(context, NB_E4M3, &xt, nullptr, 0, &p, 1), NB_OK) << nb_last_error();
    return y;
  };
  const std::vector<float> expected = product(contexts[0].get());
  std::vector<std::thread> threads;
  for (int t = 0; t < kThreads; ++t) {
    threads.emplace_back([&, t] {
      nb_context* context = contexts[static_cast<size_t>(t % kContexts)].get();
      for (int i = 0; i < 4; ++i) {
        EXPECT_EQ(product(context), expected) << "thread " << t;
        // Packing, freeing and other memory beside it.
        const MatrixPtr own =
            QuantizeMatrix(context, Format(NB_I8, NB_F32), std::vector<float>(64, 1), 8, 8);
        const DeviceMemory memory(context, std::vector<float>(32, static_cast<float>(t)));
        EXPECT_EQ(memory.Read<float>()[31], static_cast<float>(t));
      }
    });
  }
  for (std::thread& t : threads) t.join();
}

// ------------------------------------------------------------------- errors --

TEST_F(CudaAbi, TooLittleMemory) {
  setenv("NIBBLE_EMULATED_MEMORY", "4194304", 1);
  const ContextPtr context = CudaContext();
  void* memory = &memory;
  ExpectFailure(nb_memory_allocate(context.get(), 1 << 30, &memory), NB_OUT_OF_MEMORY,
                "nb_memory_allocate", {"1073741824 bytes were asked for", "are free"});
  EXPECT_EQ(memory, nullptr);
  const std::vector<float> w(1200 * 1200, 0.25f);
  const nb_tensor wt = F32(w, {1200, 1200});
  const nb_weight_format f32 = Format(NB_F32);
  nb_matrix* matrix = nullptr;
  ExpectFailure(nb_matrix_quantize(context.get(), &f32, &wt, &matrix), NB_OUT_OF_MEMORY,
                "nb_matrix_quantize", {"bytes were asked for"});
  EXPECT_EQ(matrix, nullptr);
  const nb_kv_cache_options options = {sizeof(options), NB_F32, 8, 8, 128, 65536, 0,
                                       nullptr, nullptr};
  nb_kv_cache* cache = nullptr;
  ExpectFailure(nb_kv_cache_create(context.get(), &options, &cache), NB_OUT_OF_MEMORY,
                "nb_kv_cache_create", {"bytes were asked for"});
  EXPECT_EQ(cache, nullptr);
  std::vector<float> a(1 << 21), y(1 << 21);
  const nb_tensor at = F32(a, {1 << 11, 1 << 10}), yt = F32(y, {1 << 11, 1 << 10});
  ExpectFailure(nb_add(context.get(), &at, &at, &yt), NB_OUT_OF_MEMORY, "nb_add",
                {"bytes were asked for"});
  // What fits goes on working.
  const std::vector<float> small = {1, 2};
  std::vector<float> sum(2);
  const nb_tensor s = F32(small, {1, 2}), t = F32(sum, {1, 2});
  ASSERT_EQ(nb_add(context.get(), &s, &s, &t), NB_OK) << nb_last_error();
  EXPECT_EQ(sum, (std::vector<float>{2, 4}));
}

// A graph whose memory was freed, against the rules: the kernel touches what is gone. Hardware may
// or may not notice; the emulator always does.
TEST_F(CudaAbi, AKernelsErrorEndsTheDeviceAndNothingElse) {
  const ContextPtr cpu = MakeContext(1);
  const std::vector<float> ones = {1, 1};
  std::vector<float> sum(2);
  const nb_tensor ot = F32(ones, {1, 2}), st = F32(sum, {1, 2});
  {
    const ContextPtr context = CudaContext(), other = CudaContext();
    const MatrixPtr matrix = QuantizeMatrix(context.get(), Format(NB_F32), {1, 2, 3, 4}, 2, 2);
    nb_graph* graph = nullptr;
    {
      const DeviceMemory a(context.get(), ones);
      const nb_tensor at = a.AsTensor(NB_F32, {1, 2});
      ASSERT_EQ(nb_graph_begin(context.get(), 0), NB_OK);
      ASSERT_EQ(nb_add(context.get(), &at, &at, &at), NB_OK) << nb_last_error();
      ASSERT_EQ(nb_graph_end(context.get(), &graph), NB_OK) << nb_last_error();
    }
    const GraphPtr owner(graph);
    EXPECT_EQ(nb_graph_launch(context.get(), graph, nullptr, 0), NB_OK) << nb_last_error();
    ExpectFailure(nb_synchronize(context.get()), NB_DEVICE_ERROR, "nb_synchronize",
                  {"cuda:0: ", "cannot use the device any more"});
    for (nb_context* c : {context.get(), other.get()}) {
      ExpectFailure(nb_add(c, &ot, &ot, &st), NB_DEVICE_ERROR, "nb_add", {"cuda:0: "});
      void* memory = nullptr;
      ExpectFailure(nb_memory_allocate(c, 16, &memory), NB_DEVICE_ERROR, "nb_memory_allocate",
                    {"cuda:0: "});
    }
    nb_matrix* none = nullptr;
    const nb_weight_format f32 = Format(NB_F32);
    const nb_tensor w = F32(ones, {1, 2});
    ExpectFailure(nb_matrix_quantize(context.get(), &f32, &w, &none), NB_DEVICE_ERROR,
                  "nb_matrix_quantize", {"cuda:0: "});
    EXPECT_EQ(nb_add(cpu.get(), &ot, &ot, &st), NB_OK) << nb_last_error();
    EXPECT_EQ(sum, (std::vector<float>{2, 2}));
  }
  EXPECT_EQ(PluginTable()->live_resources(), 0);
}

}  // namespace
}  // namespace nibble
