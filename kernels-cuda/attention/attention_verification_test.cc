// SPDX-License-Identifier: Apache-2.0
//
// What the mutation suite runs: small launches of every attention kernel, against the formula
// (attention_batch_for_test.h), and of the appending, against the CPU's bytes.
#include <cstring>

#include "kernels-cuda/attention/attention_batch_for_test.h"
#include "kernels-cuda/testing/emulated_device.h"
#include "kernels-cuda/testing/verification.h"

namespace nibble::cuda::attention {
namespace {

// One batch and what it should come to, worked out once.
struct KnownBatch {
  KnownBatch(DType type, int dim, int64_t group, int64_t q_heads,
             const std::vector<std::pair<int64_t, int64_t>>& sequences, int64_t nan_value = -1)
      : random(static_cast<uint64_t>(dim) * 31 + static_cast<uint64_t>(q_heads)),
        batch(random, MakeShape(type, 1, dim, 1, group), q_heads, sequences,
              [&](Operands& x) {
                if (nan_value >= 0 && nan_value < x.rows) x.v[nan_value * x.kv_width + 3] = NAN;
                if (nan_value >= 1 && nan_value <= x.rows) x.k[(nan_value - 1) * x.kv_width] = NAN;
                // Values' scales grow, and then do not.
                for (int64_t i = 0; i < static_cast<int64_t>(x.v.size()); ++i) {
                  if (i / x.kv_width > 20) x.v[i] *= 8;
                }
              }),
        expected(batch.Reference(kScale)) {}

  bool Matches(Device& device) const {
    std::vector<float> y;
    return batch.Run(device, kScale, 0, &y).ok() && expected.FirstWrong(y) < 0;
  }

  static constexpr float kScale = 0.25f;
  std::mt19937_64 random;
  Batch batch;
  Expected expected;
};

bool AllMatch(Device& device, const std::vector<KnownBatch>& known) {
  for (const KnownBatch& k : known) {
    if (!k.Matches(device)) return false;
  }
  return true;
}

// Several ranges, rows that see nothing of the last one, several blocks a warp; a NaN at the end.
template <DType kType>
bool VerifyDecode(Device& device) {
  static const std::vector<KnownBatch>* const known = [] {
    auto* all = new std::vector<KnownBatch>;
    const int64_t group = kType == DType::kI4 ? 16 : 0;
    all->emplace_back(kType, 64, group, 3, std::vector<std::pair<int64_t, int64_t>>{{127, 2}});
    all->emplace_back(kType, 48, 0, 4, std::vector<std::pair<int64_t, int64_t>>{{100, 3}}, 102);
    all->emplace_back(kType, 128, 0, 2, std::vector<std::pair<int64_t, int64_t>>{{100, 1}});
    all->emplace_back(kType, 112, group, 2, std::vector<std::pair<int64_t, int64_t>>{{20, 1}});
    all->emplace_back(kType, 256, 0, 2, std::vector<std::pair<int64_t, int64_t>>{{80, 1}});
    all->emplace_back(kType, 144, group, 2, std::vector<std::pair<int64_t, int64_t>>{{20, 1}});
    return all;
  }();
  return AllMatch(device, *known);
}

template <DType kType>
bool VerifyPrefill(Device& device) {
  static const std::vector<KnownBatch>* const known = [] {
    auto* all = new std::vector<KnownBatch>;
    const int64_t group = kType == DType::kI4 ? 16 : 0;
    using Sequences = std::vector<std::pair<int64_t, int64_t>>;
    all->emplace_back(kType, 64, group, 2, Sequences{{200, 35}});
    all->emplace_back(kType, 48, 0, 2, Sequences{{0, 40}}, 38);
    all->emplace_back(kType, 96, 0, 2, Sequences{{150, 33}});
    all->emplace_back(kType, 80, group, 2, Sequences{{20, 33}});
    all->emplace_back(kType, 128, 0, 1, Sequences{{150, 65}});
    all->emplace_back(kType, 112, group, 2, Sequences{{20, 33}});
    all->emplace_back(kType, 256, 0, 2, Sequences{{70, 33}});
    all->emplace_back(kType, 144, group, 2, Sequences{{20, 33}});
    return all;
  }();
  return AllMatch(device, *known);
}

bool VerifyF32(Device& device) {
  static const std::vector<KnownBatch>* const known = [] {
    auto* all = new std::vector<KnownBatch>;
    using Sequences = std::vector<std::pair<int64_t, int64_t>>;
    all->emplace_back(DType::kF32, 64, 0, 3, Sequences{{127, 2}});
    all->emplace_back(DType::kF32, 254, 0, 2, Sequences{{40, 3}}, 42);
    all->emplace_back(DType::kF32, 18, 0, 2, Sequences{{3, 40}});
    return all;
  }();
  return AllMatch(device, *known);
}

// Two calls into one cache, the second of which drops a token.
template <DType kType>
bool VerifyAppend(Device& device) {
  std::mt19937_64 random(5);
  for (const int dim : {32, 254}) {
    const int64_t q_heads = 2, q_width = q_heads * dim, kv_width = dim;
    KvCacheShape shape = MakeShape(kType, 1, dim, 40, kType == DType::kI4 && dim == 32 ? 16 : 0);
    const float factor = kType == DType::kI4 ? 0.3f : 1.0f;
    const float* factors = kType == DType::kI4 ? &factor : nullptr;
    KvCache cache(shape, factors, factors);
    const DeviceLayout layout(shape);
    std::vector<uint8_t> expected(static_cast<size_t>(layout.total), 0xEE);
    const OnDevice<uint8_t> memory(device, expected);
    if (!memory.status().ok() ||
        !PrepareKvCache(device, shape, factors, factors, memory.get()).ok()) {
      return false;
    }
    Workspace workspace(1);
    for (const auto& [start, n] : {std::pair<int64_t, int64_t>{0, 18}, {17, 3}}) {
      std::vector<float> q = NormalValues(random, n * q_width);
      std::vector<float> k = NormalValues(random, n * kv_width);
      const std::vector<float> v = NormalValues(random, n * kv_width);
      std::fill_n(k.begin(), dim, 0.0f);
      // Below the smallest scale.
      for (int64_t i = 0; i < dim; ++i) k[kv_width + i] *= 1e-6f;
      if (n > 4) k[3 * kv_width + 1] = INFINITY;
      const std::vector<float> angles = NormalValues(random, n * dim);
      const OnDevice<float> dq(device, q), dk(device, k), dv(device, v), da(device, angles);
      const OnDevice<DeviceSequence> ds(device, {{memory.get(), shape.capacity, 0, 0, 0},
                                                 {memory.get(), shape.capacity, start, n, 0}});
      for (const Status& s : {dq.status(), dk.status(), dv.status(), da.status(), ds.status()}) {
        if (!s.ok()) return false;
      }
      Status status = RopeAppend(device, shape, 0, q_heads, {dq.get(), q_width},
                                 {dk.get(), kv_width}, {dv.get(), kv_width}, {da.get(), dim},
                                 {ds.get(), 2, n + 1, n, 40});
      if (!status.ok()) return false;
      const std::vector<float> rotated = dq.Read(&status);
      if (!status.ok()) return false;
      const Sequence s = {&cache, start, n};
      nibble::RopeAppend(workspace, 0, q.data(), q_width, q_heads, k.data(), kv_width, v.data(),
                         kv_width, angles.data(), dim, &s, 1);
      if (std::memcmp(rotated.data(), q.data(), q.size() * sizeof(float)) != 0) return false;
    }
    PackLayer(cache, 0, 20, layout, &expected);
    Status status;
    const std::vector<uint8_t> got = memory.Read(&status);
    if (!status.ok() || got != expected) return false;
  }
  return true;
}

bool VerifyAppendAll(Device& device) {
  return VerifyAppend<DType::kI4>(device) && VerifyAppend<DType::kI8>(device) &&
         VerifyAppend<DType::kBF16>(device) && VerifyAppend<DType::kF32>(device);
}

const std::vector<int> kAll = {80, 89, 90, 120};
const VerificationRegistration kRegistrations[] = {
    VerificationRegistration({"attention rope_append", {"rope_append"}, VerifyAppendAll, kAll}),
    VerificationRegistration({"attention decode i4", {"attention_decode_i4", "attention_merge"},
                              VerifyDecode<DType::kI4>, kAll}),
    VerificationRegistration({"attention decode i8", {"attention_decode_i8"},
                              VerifyDecode<DType::kI8>, kAll}),
    VerificationRegistration({"attention decode bf16", {"attention_decode_bf16"},
                              VerifyDecode<DType::kBF16>, kAll}),
    VerificationRegistration({"attention prefill i4", {"attention_prefill_i4"},
                              VerifyPrefill<DType::kI4>, kAll}),
    VerificationRegistration({"attention prefill i8", {"attention_prefill_i8"},
                              VerifyPrefill<DType::kI8>, kAll}),
    VerificationRegistration({"attention prefill bf16", {"attention_prefill_bf16"},
                              VerifyPrefill<DType::kBF16>, kAll}),
    VerificationRegistration({"attention f32", {"attention_f32"}, VerifyF32, kAll}),
};

TEST(CudaAttention, VerificationsHoldForIntactKernels) {
  for (const int sm : {80, 89}) {
    Device& device = EmulatedDevice(sm);
    EXPECT_TRUE(VerifyAppendAll(device));
    EXPECT_TRUE(VerifyDecode<DType::kI4>(device));
    EXPECT_TRUE(VerifyDecode<DType::kI8>(device));
    EXPECT_TRUE(VerifyDecode<DType::kBF16>(device));
    EXPECT_TRUE(VerifyPrefill<DType::kI4>(device));
    EXPECT_TRUE(VerifyPrefill<DType::kI8>(device));
    EXPECT_TRUE(VerifyPrefill<DType::kBF16>(device));
    EXPECT_TRUE(VerifyF32(device));
  }
}

}  // namespace
}  // namespace nibble::cuda::attention
