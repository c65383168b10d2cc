// SPDX-License-Identifier: Apache-2.0
//
// Every operator of the C ABI on every emulated generation, against the CPU on the same inputs:
// tensors in ordinary memory, on the device, and mixed. What the kernels compute to the last bit
// is tested with their families; here it is that every operand reaches its place.
#include <algorithm>
#include <cmath>
#include <random>

#include "kernels-cuda/plugin/emulated_cuda.h"
#include "native/tests/decode_step.h"
#include "native/tests/operator_calls.h"

namespace nibble {
namespace {

enum class Where { kHost, kDevice, kMixed };

// The products that nibble.h says CUDA devices have, by the label "nb_matmul CODE/... x TYPE".
bool Supported(const std::string& label) {
  const size_t at = label.rfind(" x ");
  if (at == std::string::npos) return true;
  const int activation = std::atoi(label.c_str() + at + 3);
  const std::string code = label.substr(label.find(' ') + 1, label.find('/') - label.find(' ') - 1);
  if (code == "F32") return activation == NB_F32;
  if (activation == NB_F32) return code != "I4";
  if (activation != NB_I8) return true;
  return code == "I4" || code == "I8" || code == "E3M2" || code == "E2M3";
}

bool IsWeightCall(const std::string& function) {
  return function.rfind("nb_quantize", 0) == 0 && function != "nb_quantize_activations" ? true
         : function.rfind("nb_matrix", 0) == 0;
}

// How far an element of an output may be from the CPU's, relative to the largest of the output.
double Tolerance(const OperatorCall& call) {
  const auto has = [&](const char* text) { return call.label.find(text) != std::string::npos; };
  // Queries are rounded to E4M3 (2^-4), weights of the softmax to 16 bits or 8 (2^-9, 2^-4).
  if (call.function == "nb_attention") return has("type 8") || has("type 9") ? 0.05 : 0.01;
  // An activation code may be another where a norm's last bit differs: one of 43 products by a
  // sixteenth of an operand.
  if (has(" x 4") || has(" x 9")) return 0.03;
  // Sums of 43 products of 16-bit operands in F32: 43 * 2^-24 of the norm, and 2^-8 where the
  // norm's last bit decides how a BF16 operand is rounded.
  if (has(" x 3")) return 0.005;
  return 1e-5;
}

void ExpectClose(const OperatorCall& call, const TensorArg& arg,
                 const std::vector<uint8_t>& actual, const std::vector<uint8_t>& expected) {
  ASSERT_EQ(actual.size(), expected.size());
  if (arg.tensor.dtype != NB_F32) {
    if (call.function != "nb_quantize_activations") {
      EXPECT_EQ(actual, expected) << call.label << ": " << arg.name;
      return;
    }
    // A code differs by one at most, and hardly any does.
    int64_t others = 0;
    for (size_t i = 0; i < actual.size(); ++i) {
      EXPECT_LE(std::abs(actual[i] - expected[i]), 1) << call.label << ": code " << i;
      others += actual[i] != expected[i];
    }
    EXPECT_LE(others, 2) << call.label;
    return;
  }
  const auto* a = reinterpret_cast<const float*>(actual.data());
  const auto* e = reinterpret_cast<const float*>(expected.data());
  const size_t count = actual.size() / 4;
  const int64_t cols = arg.tensor.shape[arg.tensor.rank - 1];
  const int64_t stride = arg.tensor.rank == 1 ? cols : arg.tensor.strides[0];
  double largest = 0;
  const auto element = [&](size_t i) { return static_cast<int64_t>(i) % stride < cols; };
  for (size_t i = 0; i < count; ++i) {
    if (element(i)) largest = std::max(largest, std::abs(static_cast<double>(e[i])));
  }
  const double tolerance = Tolerance(call) * largest;
  for (size_t i = 0; i < count; ++i) {
    if (!element(i)) {
      ASSERT_EQ(std::memcmp(a + i, e + i, 4), 0) << call.label << ": a gap was written";
    } else {
      ASSERT_LE(std::abs(static_cast<double>(a[i]) - e[i]), tolerance)
          << call.label << ": " << arg.name << "[" << i << "]: " << a[i] << ", CPU " << e[i];
    }
  }
}

class CudaOperators : public EmulatedCuda, public ::testing::WithParamInterface<int> {};

void CompareWithCpu(nb_context* cuda, nb_context* cpu, int64_t rows, Where where) {
  OperatorCalls on_cuda(cuda, rows, Flush::kEnd), on_cpu(cpu, rows, Flush::kEnd);
  std::mt19937_64 random(static_cast<uint64_t>(rows));
  int supported = 0;
  for (size_t i = 0; i < on_cuda.calls().size(); ++i) {
    OperatorCall& call = on_cuda.calls()[i];
    OperatorCall& reference = on_cpu.calls()[i];
    ASSERT_EQ(call.label, reference.label);
    std::vector<std::unique_ptr<DeviceMemory>> memory(call.args.size());
    std::vector<nb_tensor> tensors;
    std::vector<const nb_tensor*> pointers;
    for (size_t a = 0; a < call.args.size(); ++a) {
      nb_tensor t = call.args[a].tensor;
      const bool on_device = where == Where::kDevice || (where == Where::kMixed && random() % 2);
      if (on_device && !IsWeightCall(call.function) && t.byte_length > 0) {
        memory[a] = std::make_unique<DeviceMemory>(cuda, call.args[a].Bytes());
        t.data = memory[a]->data();
      }
      tensors.push_back(t);
    }
    for (const nb_tensor& t : tensors) pointers.push_back(&t);
    SCOPED_TRACE(call.label);
    const nb_status status = call.run(cuda, pointers);
    if (!Supported(call.label)) {
      ExpectFailure(status, NB_UNSUPPORTED, call.function, {"activations on cuda:0"});
      continue;
    }
    ASSERT_EQ(status, NB_OK) << call.label << ": " << nb_last_error();
    ++supported;
    ASSERT_EQ(reference.run(cpu, reference.Pointers()), NB_OK) << nb_last_error();
    for (size_t a = 0; a < call.args.size(); ++a) {
      std::vector<uint8_t> actual = call.args[a].Bytes();
      if (memory[a] != nullptr) actual = memory[a]->Read<uint8_t>();
      ExpectClose(call, call.args[a], actual, reference.args[a].Bytes());
      if (::testing::Test::HasFatalFailure()) return;
    }
  }
  EXPECT_GT(supported, 60);
}

TEST_P(CudaOperators, AgreeWithTheCpu) {
  UseGeneration(GetParam());
  const ContextPtr cuda = CudaContext(), cpu = MakeContext(1);
  CompareWithCpu(cuda.get(), cpu.get(), 3, Where::kMixed);
}

INSTANTIATE_TEST_SUITE_P(Generations, CudaOperators, ::testing::Values(80, 89, 90, 120),
                         ::testing::PrintToStringParamName());

class CudaMemory : public EmulatedCuda {};

TEST_F(CudaMemory, OrdinaryOneRow) {
  const ContextPtr cuda = CudaContext(), cpu = MakeContext(1);
  CompareWithCpu(cuda.get(), cpu.get(), 1, Where::kHost);
}

TEST_F(CudaMemory, OnTheDeviceManyRows) {
  const ContextPtr cuda = CudaContext(2), cpu = MakeContext(2);
  CompareWithCpu(cuda.get(), cpu.get(), 19, Where::kDevice);
}

TEST_F(CudaMemory, NoRowsAtAll) {
  const ContextPtr cuda = CudaContext(), cpu = MakeContext(1);
  OperatorCalls calls(cuda.get(), 0, Flush::kEnd);
  for (OperatorCall& call : calls.calls()) {
    if (!Supported(call.label)) continue;
    EXPECT_EQ(call.run(cuda.get(), call.Pointers()), NB_OK) << call.label << nb_last_error();
  }
}

}  // namespace
}  // namespace nibble
