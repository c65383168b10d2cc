// SPDX-License-Identifier: Apache-2.0
//
// Attention: one token against long caches, and a prompt against itself.
#include <algorithm>
#include <cmath>

#include "kernels-cuda/attention/attention.h"
#include "kernels-cuda/verify/verify.h"

namespace nibble::cuda::verify {
namespace {

constexpr int64_t kPromptRows = 512;

struct Case {
  int64_t heads, kv_heads, head_dim;
  DType cache;
  int64_t keys, rows;
};

class AttentionCase {
 public:
  AttentionCase(Device& device, const Case& c) : device_(device), case_(c) {
    shape_ = {};
    shape_.type = c.cache;
    shape_.layers = 1;
    shape_.kv_heads = static_cast<int>(c.kv_heads);
    shape_.head_dim = static_cast<int>(c.head_dim);
    shape_.capacity = c.keys;
    shape_.group_size = c.cache == DType::kI4 ? static_cast<int>(c.head_dim) : 0;
  }
  ~AttentionCase() {
    for (const DevicePtr memory : {caches_, q_, y_, sequences_, scratch_}) device_.Free(memory);
  }
  AttentionCase(const AttentionCase&) = delete;
  AttentionCase& operator=(const AttentionCase&) = delete;

  int64_t cache_bytes() const { return bytes_; }

  Status Time(const Options& options, Timing* timing) {
    bytes_ = attention::KvCacheBytes(shape_);
    const int64_t stride = RoundUp(bytes_, int64_t{256});
    const DeviceProperties& p = device_.properties();
    const int64_t copies = std::clamp<int64_t>(
        std::min(DivUp(2 * p.l2_bytes, bytes_) + 1, p.memory_bytes / 4 / bytes_), 1, 64);
    const int64_t width = case_.heads * case_.head_dim;
    NIBBLE_CUDA_RETURN_IF_FAILED(device_.Allocate(stride * copies, &caches_));
    // Zeros are keys and values of zero in every type.
    NIBBLE_CUDA_RETURN_IF_FAILED(device_.Fill(caches_, 0, stride * copies));
    NIBBLE_CUDA_RETURN_IF_FAILED(device_.Allocate(case_.rows * width * 4, &q_));
    NIBBLE_CUDA_RETURN_IF_FAILED(device_.Fill(q_, 0x3C, case_.rows * width * 4));
    NIBBLE_CUDA_RETURN_IF_FAILED(device_.Allocate(case_.rows * width * 4, &y_));
    std::vector<DeviceSequence> sequences;
    for (int64_t c = 0; c < copies; ++c) {
      const DevicePtr cache = caches_ + static_cast<DevicePtr>(c * stride);
      NIBBLE_CUDA_RETURN_IF_FAILED(
          attention::PrepareKvCache(device_, shape_, nullptr, nullptr, cache));
      sequences.push_back({cache, case_.keys, case_.keys - case_.rows, case_.rows, 0});
    }
    const auto bytes = static_cast<int64_t>(sequences.size() * sizeof(DeviceSequence));
    NIBBLE_CUDA_RETURN_IF_FAILED(device_.Allocate(bytes, &sequences_));
    NIBBLE_CUDA_RETURN_IF_FAILED(device_.CopyIn(sequences_, sequences.data(), bytes));
    attention::SequenceBatch batch = {sequences_, 1, case_.rows, case_.rows, case_.keys};
    const int64_t scratch_bytes = attention::ScratchBytes(shape_, case_.heads, batch);
    NIBBLE_CUDA_RETURN_IF_FAILED(device_.Allocate(scratch_bytes, &scratch_));
    const float scale = 1 / std::sqrt(static_cast<float>(case_.head_dim));
    return Measure(
        device_, options,
        [&](int64_t i) {
          batch.sequences =
              sequences_ + static_cast<DevicePtr>(i % copies * sizeof(DeviceSequence));
          return attention::Attention(device_, shape_, 0, case_.heads, {q_, width}, scale,
                                      {y_, width}, batch, {scratch_, scratch_bytes});
        },
        timing);
  }

 private:
  Device& device_;
  Case case_;
  KvCacheShape shape_;
  int64_t bytes_ = 0;
  DevicePtr caches_ = 0, q_ = 0, y_ = 0, sequences_ = 0, scratch_ = 0;
};

// Products of q k^T and p v under the causal mask.
double Ops(const Case& c) {
  const double pairs = static_cast<double>(c.rows) * static_cast<double>(c.keys) -
                       0.5 * static_cast<double>(c.rows) * static_cast<double>(c.rows - 1);
  return 4.0 * pairs * static_cast<double>(c.heads * c.head_dim);
}

Status TimeCase(Device& device, const Options& options, const std::string& model, const Case& c,
                const Limits& limits, bench::Json* json) {
  if (options.progress) {
    options.progress("attention " + model + " " + bench::TypeName(static_cast<int>(c.cache)) +
                     ", " + std::to_string(c.rows) + " rows, " + std::to_string(c.keys) +
                     " keys");
  }
  AttentionCase run(device, c);
  Timing timing;
  NIBBLE_CUDA_RETURN_IF_FAILED(run.Time(options, &timing));
  const auto bytes = static_cast<double>(run.cache_bytes() + 8 * c.rows * c.heads * c.head_dim);
  const double ops = Ops(c);
  const double by_memory = bytes / limits.copy_bytes_per_second, by_matrix = ops / limits.bf16_ops;
  json->BeginObject()
      .Field("model", model)
      .Field("cache", bench::TypeName(static_cast<int>(c.cache)))
      .Field("rows", c.rows)
      .Field("keys", c.keys);
  WriteTiming(timing, json);
  json->Field("gb_per_s", bytes / timing.median * 1e-9)
      .Field("tops", ops / timing.median * 1e-12)
      .Field("bound", by_memory > by_matrix ? "memory" : "matrix")
      .Field("share_of_limit", std::max(by_memory, by_matrix) / timing.median)
      .EndObject();
  return Status();
}

}  // namespace

Status TimeAttention(Device& device, const Options& options, const bench::ShapeList& list,
                     const Limits& limits, bench::Json* json) {
  json->Key("attention").BeginArray();
  for (const std::string& name : options.models) {
    const bench::Model& model = list.model(name);
    for (const DType cache : {DType::kI4, DType::kI8, DType::kBF16}) {
      Case c = {model.heads, model.kv_heads, model.head_dim, cache, 0, 1};
      for (const int64_t keys : list.keys) {
        c.keys = keys;
        NIBBLE_CUDA_RETURN_IF_FAILED(TimeCase(device, options, name, c, limits, json));
      }
      c.keys = c.rows = std::min(kPromptRows, list.keys.front());
      NIBBLE_CUDA_RETURN_IF_FAILED(TimeCase(device, options, name, c, limits, json));
    }
  }
  json->EndArray();
  return Status();
}

}  // namespace nibble::cuda::verify
