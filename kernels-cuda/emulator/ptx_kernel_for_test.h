// SPDX-License-Identifier: Apache-2.0
//
// Small kernels written in PTX, for the tests of the emulator itself. They run on the second
// board, which a kernel may break.
#pragma once

#include <gtest/gtest.h>

#include <cstring>
#include <string>
#include <vector>

#include "kernels-cuda/emulator/emulator.h"

namespace nibble::cuda::emulator {

// One kernel `k` of a module, ready to be launched. Parameters are up to eight 64-bit words p0...
class PtxKernel {
 public:
  // body: statements; declarations: what stands before the kernel at module level.
  explicit PtxKernel(const std::string& body, int sm = 89, const std::string& declarations = "",
                     const std::string& target = "")
      : driver_(EmulatedDriver(sm, true)) {
    text_ = ".version 8.7\n.target " +
            (target.empty() ? "sm_" + std::to_string(sm) + (sm >= 90 ? "a" : "") : target) +
            "\n.address_size 64\n" + declarations + "\n.visible .entry k(";
    for (int i = 0; i < 8; ++i)
      text_ += (i == 0 ? ".param .u64 p" : ", .param .u64 p") + std::to_string(i);
    text_ +=
        ")\n{\n.reg .pred %p<10>;\n.reg .b16 %h<20>;\n.reg .b32 %r<60>;\n.reg .f32 %f<60>;\n.reg "
        ".b64 %d<30>;\n.reg .f64 %g<10>;\n" +
        body + "\nret;\n}\n";
    EXPECT_EQ(driver_.cuDeviceGet(&device_, 0), CUDA_SUCCESS);
    EXPECT_EQ(driver_.cuDevicePrimaryCtxRetain(&context_, device_), CUDA_SUCCESS);
    EXPECT_EQ(driver_.cuCtxPushCurrent_v2(context_), CUDA_SUCCESS);
    EXPECT_EQ(driver_.cuStreamCreate(&stream_, CU_STREAM_NON_BLOCKING), CUDA_SUCCESS);
    load_result_ = driver_.cuModuleLoadData(&module_, text_.c_str());
    if (load_result_ == CUDA_SUCCESS)
      load_result_ = driver_.cuModuleGetFunction(&function_, module_, "k");
  }
  ~PtxKernel() {
    driver_.cuCtxPopCurrent_v2(nullptr);
    driver_.cuDevicePrimaryCtxRelease_v2(device_);
  }
  PtxKernel(const PtxKernel&) = delete;
  PtxKernel& operator=(const PtxKernel&) = delete;

  CUresult load_result() const { return load_result_; }
  std::string Message(CUresult result) const {
    const char* text = nullptr;
    driver_.cuGetErrorString(result, &text);
    return text == nullptr ? "" : text;
  }
  const Driver& driver() const { return driver_; }
  CUstream stream() const { return stream_; }
  CUfunction function() const { return function_; }

  CUdeviceptr Allocate(size_t bytes) const {
    CUdeviceptr memory = 0;
    EXPECT_EQ(driver_.cuMemAlloc_v2(&memory, bytes), CUDA_SUCCESS);
    return memory;
  }
  template <class T>
  CUdeviceptr Upload(const std::vector<T>& values) const {
    const CUdeviceptr memory = Allocate(values.size() * sizeof(T));
    EXPECT_EQ(
        driver_.cuMemcpyHtoDAsync_v2(memory, values.data(), values.size() * sizeof(T), stream_),
        CUDA_SUCCESS);
    return memory;
  }
  template <class T>
  std::vector<T> Download(CUdeviceptr memory, size_t count) const {
    std::vector<T> values(count);
    EXPECT_EQ(driver_.cuMemcpyDtoHAsync_v2(values.data(), memory, count * sizeof(T), stream_),
              CUDA_SUCCESS)
        << LastViolation();
    return values;
  }

  // Launches and waits.
  CUresult Run(std::vector<uint64_t> words, unsigned threads = 32, unsigned blocks = 1,
               unsigned shared = 0) const {
    EXPECT_EQ(load_result_, CUDA_SUCCESS) << Message(load_result_);
    if (load_result_ != CUDA_SUCCESS) return load_result_;
    words.resize(8, 0);
    std::vector<void*> pointers;
    for (uint64_t& word : words) pointers.push_back(&word);
    const CUresult result = driver_.cuLaunchKernel(function_, blocks, 1, 1, threads, 1, 1, shared,
                                                   stream_, pointers.data(), nullptr);
    return result != CUDA_SUCCESS ? result : driver_.cuStreamSynchronize(stream_);
  }

 private:
  const Driver& driver_;
  std::string text_;
  CUdevice device_ = 0;
  CUcontext context_ = nullptr;
  CUstream stream_ = nullptr;
  CUmodule module_ = nullptr;
  CUfunction function_ = nullptr;
  CUresult load_result_ = CUDA_SUCCESS;
};

// For each lane (of one warp) the result of one statement: %r/%d sources a, b, c come from the
// arrays, the result goes to the array of results. `in` and `out` name the register kinds used:
// "r" (32 bits), "d" (64), "h" (16), "f" (F32), "g" (F64).
template <class Out, class In>
std::vector<Out> RunLanes(const std::string& statement, char out, char in,
                          const std::vector<std::vector<In>>& sources, int sm = 89) {
  const auto kind = [](char c) {
    return c == 'h' ? "u16" : c == 'r' ? "u32" : c == 'd' ? "u64" : c == 'f' ? "f32" : "f64";
  };
  std::string body =
      "mov.u32 %r50, %tid.x;\nmov.u32 %r51, %ctaid.x;\nmad.lo.u32 %r50, %r51, 32, %r50;\n";
  for (size_t i = 0; i < sources.size(); ++i) {
    const std::string n = std::to_string(i);
    body += "ld.param.u64 %d20, [p" + std::to_string(i + 1) + "];\nmul.wide.u32 %d21, %r50, " +
            std::to_string(sizeof(In)) + ";\nadd.u64 %d20, %d20, %d21;\nld.global." + kind(in) +
            " %" + in + n + ", [%d20];\n";
  }
  body += statement + "\n";
  body += std::string("ld.param.u64 %d20, [p0];\nmul.wide.u32 %d21, %r50, ") +
          std::to_string(sizeof(Out)) + ";\nadd.u64 %d20, %d20, %d21;\nst.global." + kind(out) +
          " [%d20], %" + out + "9;\n";
  PtxKernel kernel(body, sm);
  EXPECT_EQ(kernel.load_result(), CUDA_SUCCESS)
      << statement << ": " << kernel.Message(kernel.load_result());
  if (kernel.load_result() != CUDA_SUCCESS) return {};
  const size_t count = sources[0].size() / 32 * 32;
  std::vector<uint64_t> words{kernel.Allocate(count * sizeof(Out))};
  for (const std::vector<In>& source : sources) words.push_back(kernel.Upload(source));
  EXPECT_EQ(kernel.Run(words, 32, static_cast<unsigned>(count / 32)), CUDA_SUCCESS)
      << LastViolation();
  return kernel.Download<Out>(words[0], count);
}

}  // namespace nibble::cuda::emulator
