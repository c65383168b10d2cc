// SPDX-License-Identifier: Apache-2.0
//
// What the mutation suite runs of the appending: small launches, against the CPU's bytes.
#include <cstring>

#include "kernels-cuda/attention/device_cache_for_test.h"
#include "kernels-cuda/testing/verification.h"

namespace nibble::cuda::attention {
namespace {

// Two calls into one cache, the second of which drops a token.
template <DType kType, int kDim>
bool VerifyAppend(Device& device) {
  std::mt19937_64 random(5 + kDim);
  constexpr int dim = kDim;
  const int64_t q_heads = 3, q_width = q_heads * dim, kv_width = 2 * dim;
  KvCacheShape shape = MakeShape(kType, 2, dim, 40, kType == DType::kI4 && dim == 32 ? 16 : 0);
  const float factor = kType == DType::kI4 ? 0.25f : 1.0f;
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
    std::vector<float> v = NormalValues(random, n * kv_width);
    // Halfway between numbers of BF16, or one F32 next to that.
    for (int64_t i = 0; i < kv_width; ++i) {
      float& x = v[kv_width + i] = 1 + static_cast<float>(2 * (i / 32 % 2) + 1) * 0x1p-8f;
      if (i / 8 % 4 == 1) x = std::nextafter(x, 2.0f);
      if (i / 8 % 4 == 2) x = std::nextafter(x, 0.0f);
      if (i / 8 % 4 == 3) x = -x;
    }
    std::fill_n(k.begin(), dim, 0.0f);
    // Below the smallest scale.
    for (int64_t i = 0; i < dim; ++i) k[kv_width + i] *= 1e-6f;
    if (n > 4) {
      // Scales of KV4 halfway between two codes, the lower of which is odd, and next to halfway.
      for (int64_t i = 5 * kv_width; i < 7 * kv_width; ++i) v[i] = std::fmin(v[i], 1.0f) * 0.5f;
      v[5 * kv_width + 3] = 7 * 1.1875f * 0.25f;
      v[6 * kv_width + 3] = std::nextafter(7 * 1.0625f * 0.25f, 2.0f);
    }
    if (n > 4) k[3 * kv_width + 1] = INFINITY;
    const std::vector<float> angles = NormalValues(random, n * dim);
    // The second call is of keys rotated before.
    const bool rotate = n > 4;
    const OnDevice<float> dq(device, q), dk(device, k), dv(device, v), da(device, angles);
    const OnDevice<DeviceSequence> ds(device, {{memory.get(), shape.capacity, 0, 0, 0},
                                               {memory.get(), shape.capacity, start, n - 2, 0},
                                               {memory.get(), shape.capacity, 0, 0, n - 2},
                                               {memory.get(), shape.capacity, start + n - 2, 1,
                                                n - 2},
                                               {memory.get(), shape.capacity, start + n - 1, 1,
                                                n - 1}});
    for (const Status& s : {dq.status(), dk.status(), dv.status(), da.status(), ds.status()}) {
      if (!s.ok()) return false;
    }
    Status status = RopeAppend(device, shape, 0, q_heads, {dq.get(), q_width},
                               {dk.get(), kv_width}, {dv.get(), kv_width},
                               {rotate ? da.get() : 0, dim},
                               {ds.get(), 5, n + 1, n, 40});
    if (!status.ok()) return false;
    const std::vector<float> rotated = dq.Read(&status);
    if (!status.ok()) return false;
    const Sequence s = {&cache, start, n};
    nibble::RopeAppend(workspace, 0, q.data(), q_width, q_heads, k.data(), kv_width, v.data(),
                       kv_width, rotate ? angles.data() : nullptr, dim, &s, 1);
    if (std::memcmp(rotated.data(), q.data(), q.size() * sizeof(float)) != 0) return false;
  }
  PackLayer(cache, 0, 20, layout, &expected);
  Status status;
  const std::vector<uint8_t> got = memory.Read(&status);
  if (!status.ok() || got != expected) return false;
  return true;
}

VerificationCases AppendCases() {
  return {VerifyAppend<DType::kBF16, 24>, VerifyAppend<DType::kI4, 16>,
          VerifyAppend<DType::kI4, 32>,   VerifyAppend<DType::kI4, 254>,
          VerifyAppend<DType::kI8, 32>,   VerifyAppend<DType::kI8, 254>,
          VerifyAppend<DType::kBF16, 32>, VerifyAppend<DType::kBF16, 254>,
          VerifyAppend<DType::kF32, 32>,  VerifyAppend<DType::kF32, 254>};
}

const VerificationRegistration kAppend({"attention rope_append", {"rope_append"}, AppendCases,
                                        {80, 89, 90, 120}});

}  // namespace
}  // namespace nibble::cuda::attention
