// SPDX-License-Identifier: Apache-2.0
//
// The benchmark runs from end to end on tiny shapes. Nothing here judges a speed.
#include <gtest/gtest.h>

#include <cmath>
#include <cstdio>
#include <fstream>
#include <sstream>

#include "bench/native/abi.h"
#include "bench/native/command_line.h"
#include "bench/native/json.h"
#include "bench/native/llama_step.h"
#include "bench/native/limits.h"

namespace nibble::bench {
namespace {

const char kTiny[] =
    "rows 1 3\nkeys 40\ncontexts 0 20\n"
    "kernel a8i_w4 code i4 scale e4m3 group 32 activation i8\n"
    "kernel a8i_e5m2 code e5m2 scale f32 group 0 activation i8\n"  // there is no such kernel
    "kernel f32_f32 code f32 scale none group 0 activation f32\n"
    "scheme w4a8i kernel a8i_w4 head a8i_w4 cache i4\n"
    "scheme f32 kernel f32_f32 head f32_f32 cache f32\n"
    "model tiny layers 2 heads 4 kv_heads 2 head_dim 16\n"
    "matrix tiny q 64 64\nmatrix tiny k 32 64\nmatrix tiny v 32 64\nmatrix tiny o 64 64\n"
    "matrix tiny gate 96 64\nmatrix tiny up 96 64\nmatrix tiny down 64 96\n"
    "matrix tiny head 128 64\n";

class Bench : public testing::Test {
 protected:
  void SetUp() override {
    path_ = testing::TempDir() + "shapes_" +
            testing::UnitTest::GetInstance()->current_test_info()->name() + ".txt";
    std::ofstream(path_) << kTiny;
  }
  void TearDown() override { std::remove(path_.c_str()); }

  int Run(std::vector<std::string> arguments) {
    arguments.insert(arguments.begin(), {"--shapes", path_});
    out_.str("");
    err_.str("");
    return RunCommandLine(arguments, out_, err_);
  }

  std::string path_;
  std::ostringstream out_, err_;
};

int Count(const std::string& text, const std::string& part) {
  int count = 0;
  for (size_t at = text.find(part); at != std::string::npos; at = text.find(part, at + 1)) ++count;
  return count;
}

TEST_F(Bench, MeasuresEverySection) {
  ASSERT_EQ(Run({"--smoke", "--threads", "2", "--schemes", "w4a8i,f32"}), 0) << err_.str();
  const std::string json = out_.str();
  // Five distinct shapes, two kernels that exist, two row counts; the head's kernels alike.
  EXPECT_EQ(Count(json, "\"kernel\": \"gemm_f32_a8i_w4\""), 2 * 5) << json;
  EXPECT_EQ(Count(json, "\"kernel\": \"gemm_f32_f32_f32\""), 2 * 5);
  // Three caches, a decode and a prefill each.
  EXPECT_EQ(Count(json, "\"kernel\": \"attention_kv_"), 6);
  // Models: two schemes with a prefill and two contexts; threads: a prefill and a decode of each
  // scheme for one and two threads.
  EXPECT_EQ(Count(json, "\"scheme\": \"f32\""), 3 + 4);
  EXPECT_EQ(Count(json, "\"read_kernels\""), 2);
  EXPECT_EQ(Count(json, "\"streams\""), 2 * 25);
  EXPECT_GE(Count(json, "gemm_f32_a8i_e5m2: "), 1) << "what has no kernel is named";
  EXPECT_EQ(Count(json, ": -"), 0) << "nothing is negative";
}

TEST_F(Bench, WritesAFile) {
  const std::string file = path_ + ".json";
  ASSERT_EQ(Run({"--smoke", "--sections", "gemm", "--rows", "1", "--out", file}), 0) << err_.str();
  EXPECT_EQ(out_.str(), "");
  std::ifstream in(file);
  std::stringstream text;
  text << in.rdbuf();
  EXPECT_GT(Count(text.str(), "\"rows\": 1,"), 0);
  EXPECT_EQ(Count(text.str(), "\"rows\": 3,"), 0);
  std::remove(file.c_str());
}

TEST_F(Bench, BadArgumentsAreOneLine) {
  const std::vector<std::pair<std::vector<std::string>, std::string>> cases = {
      {{"--what"}, "\"--what\": no such option (see --help)"},
      {{"--threads", "0"}, "--threads: \"0\" given, expected 1 to 1024"},
      {{"--threads"}, "--threads: expects a value"},
      {{"--sections", "gem"}, "--sections: \"gem\" given, expected"},
      {{"--models", "big"}, "model: \"big\" given, expected one of tiny"},
      {{"--schemes", "w3"}, "scheme: \"w3\" given, expected one of w4a8i f32"},
      {{"--kernels", "x"}, "--kernels: \"x\" is not in the list"},
      {{"--rows", "2"}, "--rows: 2 is not in the list"},
      {{"--serve", "w3"}, "scheme: \"w3\" given"},
      {{"--out", "/nonexistent/a"}, "--out: /nonexistent/a cannot be written"},
  };
  for (const auto& [arguments, message] : cases) {
    EXPECT_EQ(Run(arguments), 2);
    EXPECT_EQ(err_.str().rfind("nibble_bench: " + message, 0), 0u) << err_.str();
    EXPECT_EQ(Count(err_.str(), "\n"), 1) << err_.str();
    EXPECT_EQ(out_.str(), "");
  }
}

// Prefill in one pass and token by token must agree, or the benchmark runs something else than
// a forward pass. F32 weights, activations and cache: only the order of sums differs.
TEST_F(Bench, TheModelDecodesWhatItPrefills) {
  const ShapeList list = ReadShapes(path_);
  const ContextPtr context = NewContext(2);
  const Model& model = list.model("tiny");
  const Scheme& scheme = list.scheme("f32");
  const LlamaWeights weights(context.get(), model, scheme);
  const std::vector<int32_t> tokens = {5, 100, 7, 127, 0};
  LlamaStep one(context.get(), model, scheme, weights, 8, 8);
  one.Forward(tokens.data(), 5, 0);
  LlamaStep each(context.get(), model, scheme, weights, 8, 8);
  for (int64_t i = 0; i < 5; ++i) each.Forward(&tokens[i], 1, i);
  double norm = 0, difference = 0;
  for (size_t i = 0; i < one.logits().size(); ++i) {
    norm += std::pow(one.logits()[i], 2);
    difference += std::pow(one.logits()[i] - each.logits()[i], 2);
  }
  ASSERT_TRUE(std::isfinite(norm));
  EXPECT_GT(norm, 0);
  EXPECT_LT(std::sqrt(difference / norm), 1e-4);
  // And the order of the tokens matters, as it does in a model.
  const std::vector<int32_t> other = {100, 5, 7, 127, 0};
  each.Forward(other.data(), 5, 0);
  EXPECT_NE(one.logits(), each.logits());
}

TEST(Json, QuotesAndSeparates) {
  Json json;
  json.BeginObject().Field("a\"\n", 1).Key("b").BeginArray().Value(0.5).Null().EndArray();
  json.Field("nan", std::nan("")).EndObject();
  std::string compact;
  for (const char c : json.text()) {
    if (c != '\n' && c != ' ') compact += c;
  }
  EXPECT_EQ(compact, "{\"a\\\"\\u000a\":1,\"b\":[0.5,null],\"nan\":null}");
}

TEST(Rates, TheSlowerOfMemoryAndArithmeticIsTheLimit) {
  Rates rates;
  rates.read = 100;
  rates.byte_dot = 1000;
  rates.f32_fma = 200;
  EXPECT_DOUBLE_EQ(rates.Limit(200, 1000, NB_I8).limit_seconds, 2);
  EXPECT_TRUE(rates.Limit(200, 1000, NB_I8).memory);
  EXPECT_DOUBLE_EQ(rates.Limit(200, 5000, NB_I8).limit_seconds, 5);
  EXPECT_FALSE(rates.Limit(200, 5000, NB_I8).memory);
  EXPECT_DOUBLE_EQ(rates.Arithmetic(NB_E4M3), 500);
  EXPECT_DOUBLE_EQ(rates.Arithmetic(NB_BF16), 200);
  rates.bf16_dot = 600;
  EXPECT_DOUBLE_EQ(rates.Arithmetic(NB_E4M3), 600);
  EXPECT_DOUBLE_EQ(rates.Arithmetic(NB_BF16), 600);
  EXPECT_DOUBLE_EQ(rates.Arithmetic(NB_F32), 200);

  Rates other;
  other.read = 150;
  other.f32_fma = 100;
  const Rates best = Rates::Best(rates, other);
  EXPECT_DOUBLE_EQ(best.read, 150);
  EXPECT_DOUBLE_EQ(best.f32_fma, 200);
  EXPECT_DOUBLE_EQ(best.bf16_dot, 600);
}

}  // namespace
}  // namespace nibble::bench
