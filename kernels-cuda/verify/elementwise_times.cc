// SPDX-License-Identifier: Apache-2.0
//
// The row operators at the models' widths.
#include <algorithm>

#include "kernels-cuda/elementwise/elementwise.h"
#include "kernels-cuda/verify/verify.h"

namespace nibble::cuda::verify {
namespace {

struct Operands {
  DevicePtr x, up, weight, left, ids, uniforms, scratch;
  int64_t scratch_bytes;
};

struct Operator {
  const char* name;
  int64_t cols;
  int64_t bytes_a_row;  // that it must move
  std::function<Status(int64_t rows)> run;
};

std::vector<Operator> Operators(Device& device, const bench::Model& model, const Operands& o) {
  using elementwise::LayOutLeft;
  const int64_t hidden = model.hidden(), inner = model.inner(), vocabulary = model.vocabulary();
  const elementwise::Norm norm = {o.weight, 1e-5f};
  const auto make = [&device, o, norm, hidden](DType type) {
    return [&device, o, norm, hidden, type](int64_t rows) {
      return elementwise::MakeLeft(device, {o.x, hidden}, norm,
                                   LayOutLeft(type, rows, hidden, o.left));
    };
  };
  const auto sample = [&device, o, vocabulary](float top_p) {
    return [&device, o, vocabulary, top_p](int64_t rows) {
      SampleOptions options;
      options.temperature = 0.8f;
      options.top_p = top_p;
      return elementwise::Sample(device, {o.x, vocabulary}, rows, vocabulary, options, o.uniforms,
                                 o.ids, {o.scratch, o.scratch_bytes});
    };
  };
  return {
      {"rms_norm_quantize_e4m3", hidden, 5 * hidden, make(DType::kE4M3)},
      {"rms_norm_quantize_i8", hidden, 5 * hidden, make(DType::kI8)},
      {"rms_norm_quantize_bf16", hidden, 6 * hidden, make(DType::kBF16)},
      {"swiglu_quantize_e4m3", inner, 9 * inner,
       [&device, o, inner](int64_t rows) {
         return elementwise::SwiGluLeft(device, {o.x, inner}, {o.up, inner},
                                        LayOutLeft(DType::kE4M3, rows, inner, o.left));
       }},
      {"add", hidden, 12 * hidden,
       [&device, o, hidden](int64_t rows) {
         return elementwise::Add(device, {o.x, hidden}, {o.up, hidden}, rows, hidden,
                                 {o.x, hidden});
       }},
      {"argmax", vocabulary, 4 * vocabulary,
       [&device, o, vocabulary](int64_t rows) {
         return elementwise::Argmax(device, {o.x, vocabulary}, rows, vocabulary, o.ids);
       }},
      {"sample", vocabulary, 4 * vocabulary, sample(1)},
      {"sample_top_p", vocabulary, 4 * vocabulary, sample(0.9f)},
  };
}

}  // namespace

Status TimeElementwise(Device& device, const Options& options, const bench::ShapeList& list,
                       const Limits& limits, bench::Json* json) {
  json->Key("elementwise").BeginArray();
  for (const std::string& name : options.models) {
    if (options.progress) options.progress("elementwise " + name);
    const bench::Model& model = list.model(name);
    const int64_t rows_most = *std::max_element(list.rows.begin(), list.rows.end());
    const int64_t width = std::max(model.hidden(), model.inner());
    const int64_t floats = std::max(rows_most * width, model.vocabulary());
    Operands o = {};
    o.scratch_bytes = elementwise::SampleScratchBytes(1, model.vocabulary());
    const auto run = [&]() -> Status {
      const auto zeros = [&](int64_t bytes, DevicePtr* memory) {
        NIBBLE_CUDA_RETURN_IF_FAILED(device.Allocate(bytes, memory));
        return device.Fill(*memory, 0, bytes);
      };
      NIBBLE_CUDA_RETURN_IF_FAILED(zeros(floats * 4, &o.x));
      NIBBLE_CUDA_RETURN_IF_FAILED(zeros(floats * 4, &o.up));
      NIBBLE_CUDA_RETURN_IF_FAILED(zeros(width * 4, &o.weight));
      NIBBLE_CUDA_RETURN_IF_FAILED(
          zeros(elementwise::LeftBytes(DType::kBF16, rows_most, width), &o.left));
      NIBBLE_CUDA_RETURN_IF_FAILED(zeros(4, &o.ids));
      NIBBLE_CUDA_RETURN_IF_FAILED(zeros(8, &o.uniforms));
      NIBBLE_CUDA_RETURN_IF_FAILED(zeros(o.scratch_bytes, &o.scratch));
      std::vector<float> ramp(static_cast<size_t>(floats));
      for (size_t i = 0; i < ramp.size(); ++i) {
        ramp[i] = static_cast<float>(i * 2654435761u % 4096) / 256 - 8;
      }
      NIBBLE_CUDA_RETURN_IF_FAILED(device.CopyIn(o.x, ramp.data(), floats * 4));
      for (const Operator& op : Operators(device, model, o)) {
        for (const int64_t m : {int64_t{1}, rows_most}) {
          if (m > 1 && op.cols == model.vocabulary()) continue;
          Timing timing;
          NIBBLE_CUDA_RETURN_IF_FAILED(
              Measure(device, options, [&](int64_t) { return op.run(m); }, &timing));
          const auto bytes = static_cast<double>(m * op.bytes_a_row);
          json->BeginObject()
              .Field("model", name)
              .Field("operator", op.name)
              .Field("rows", m)
              .Field("cols", op.cols);
          WriteTiming(timing, json);
          json->Field("gb_per_s", bytes / timing.median * 1e-9)
              .Field("share_of_limit", bytes / limits.copy_bytes_per_second / timing.median)
              .EndObject();
        }
      }
      return Status();
    };
    const Status status = run();
    for (const DevicePtr memory : {o.x, o.up, o.weight, o.left, o.ids, o.uniforms, o.scratch}) {
      device.Free(memory);
    }
    NIBBLE_CUDA_RETURN_IF_FAILED(status);
  }
  json->EndArray();
  return Status();
}

}  // namespace nibble::cuda::verify
