// SPDX-License-Identifier: Apache-2.0
//
// The measuring program on an emulated device and tiny shapes: every kernel runs, every result
// has its fields, nothing stays allocated.
#include "kernels-cuda/verify/verify.h"

#include <gtest/gtest.h>

#include <sstream>

#include "kernels-cuda/testing/emulated_device.h"

namespace nibble::cuda::verify {
namespace {

constexpr char kShapes[] = R"(
rows 1 5
keys 48
contexts 0
kernel a8f_w4     code i4   scale e4m3 group 32  activation e4m3
kernel a8i_w4     code i4   scale f16  group 32  activation i8
kernel a16_w6e3m2 code e3m2 scale f32  group 0   activation bf16
kernel a8i_w8i    code i8   scale f32  group 0   activation i8
kernel a16_bf16   code bf16 scale none group 0   activation bf16
kernel f32_f32    code f32  scale none group 0   activation f32
scheme w4a8       kernel a8f_w4 head a8f_w4 cache i4
model tiny layers 1 heads 2 kv_heads 1 head_dim 64
matrix tiny q    128 64
matrix tiny k    64  64
matrix tiny v    64  64
matrix tiny o    64  128
matrix tiny gate 96  64
matrix tiny up   96  64
matrix tiny down 64  96
matrix tiny head 100 64
)";

int Count(const std::string& text, const std::string& part) {
  int count = 0;
  for (size_t at = text.find(part); at != std::string::npos; at = text.find(part, at + 1)) ++count;
  return count;
}

TEST(GpuVerify, MeasuresEveryKernel) {
  std::istringstream in(kShapes);
  const bench::ShapeList shapes = bench::ParseShapes(in, "shapes");
  Options options;
  options.models = {"tiny"};
  options.window_seconds = 0;
  options.windows = 1;
  options.copy_bytes = 1 << 14;
  options.matrix_steps = 2;
  for (const int sm : Generations()) {
    Device& device = EmulatedDevice(sm);
    const int64_t before = device.allocation_count();
    std::string json;
    const Status status =
        MeasureAll(device, options, shapes, {{"tests", "3 passed"}}, &json);
    ASSERT_TRUE(Succeeded(status)) << sm;
    EXPECT_EQ(device.allocation_count(), before);
    EXPECT_NE(json.find("\"tests\": \"3 passed\""), std::string::npos) << json;
    EXPECT_NE(json.find(device.properties().name), std::string::npos);
    // Five distinct matrices (64 x 64 is two, 96 x 64 too) in as many rows.
    const int products = 6;
    for (const char* kernel : {"a8f_w4", "a8i_w4", "a16_w6e3m2", "a8i_w8i", "a16_bf16",
                               "f32_f32"}) {
      EXPECT_EQ(Count(json, std::string("\"gemm_f32_") + kernel + "\""), products * 2) << kernel;
    }
    EXPECT_EQ(Count(json, "\"keys\": 48"), 6);
    EXPECT_EQ(Count(json, "\"operator\": "), 5 * 2 + 3);
    // Each result says what share of the limit it reached.
    EXPECT_EQ(Count(json, "\"share_of_limit\": "), Count(json, "\"median_s\": "));
    EXPECT_EQ(Count(json, "null"), 0) << json;
  }
}

}  // namespace
}  // namespace nibble::cuda::verify
