// SPDX-License-Identifier: Apache-2.0
//
// Rotation, quantization and append: bit for bit what the CPU writes.
#include "kernels-cuda/attention/device_cache_for_test.h"
#include "kernels-cuda/testing/emulated_device.h"

namespace nibble::cuda::attention {
namespace {

constexpr int kTargets[] = {80, 89, 90, 120};

// One call over several sequences, on the CPU and on the device.
struct AppendCase {
  KvCacheShape shape;
  int64_t q_heads = 1;
  bool rotate = true;
  int layer = 0;
  std::vector<std::pair<int64_t, int64_t>> sequences;  // start, rows
  std::vector<float> key_factors, value_factors;
  // Changes k and v.
  void (*edit)(std::vector<float>&, int64_t) = nullptr;
};

void Check(std::mt19937_64& random, int sm, const AppendCase& c) {
  SCOPED_TRACE(Describe(c.shape) + " sm_" + std::to_string(sm));
  Device& device = EmulatedDevice(sm);
  Workspace workspace(1);
  const int64_t dim = c.shape.head_dim, kv_width = c.shape.kv_heads * dim;
  const int64_t q_width = c.q_heads * dim, pad = 5;
  const float* factors[2] = {c.key_factors.empty() ? nullptr : c.key_factors.data(),
                             c.value_factors.empty() ? nullptr : c.value_factors.data()};

  std::vector<std::unique_ptr<KvCache>> caches;
  std::vector<Sequence> sequences;
  std::vector<std::vector<uint8_t>> expected;
  std::vector<std::unique_ptr<OnDevice<uint8_t>>> memory;
  std::vector<DeviceSequence> on_device;
  int64_t rows = 0;
  for (const auto& [start, n] : c.sequences) {
    KvCacheShape own = c.shape;
    own.capacity = start + n + UniformInt(random, 0, 20);
    own.capacity = std::max<int64_t>(own.capacity, 1);
    caches.push_back(std::make_unique<KvCache>(own, factors[0], factors[1]));
    const DeviceLayout layout(own);
    ASSERT_EQ(KvCacheBytes(own), layout.total);
    // What is there before, in all layers, must stay but for the new tokens.
    std::vector<uint8_t> bytes(static_cast<size_t>(layout.total));
    for (uint8_t& b : bytes) b = static_cast<uint8_t>(random());
    memory.push_back(std::make_unique<OnDevice<uint8_t>>(device, bytes));
    ASSERT_TRUE(PrepareKvCache(device, own, factors[0], factors[1], memory.back()->get()).ok());
    Status status;
    const std::vector<uint8_t> prepared = memory.back()->Read(&status);
    ASSERT_TRUE(status.ok()) << status.message();
    std::memcpy(bytes.data(), prepared.data(), static_cast<size_t>(8 * own.layers));
    expected.push_back(std::move(bytes));
    sequences.push_back({caches.back().get(), start, n});
    on_device.push_back({memory.back()->get(), own.capacity, start, n, rows});
    rows += n;
  }
  std::vector<float> q = NormalValues(random, rows * (q_width + pad));
  std::vector<float> k = NormalValues(random, rows * (kv_width + pad));
  std::vector<float> v = NormalValues(random, rows * (kv_width + pad));
  if (c.edit != nullptr) {
    c.edit(k, dim);
    c.edit(v, dim);
  }
  const int64_t angles_stride = dim + 3;
  std::vector<float> angles(static_cast<size_t>(rows * angles_stride));
  for (int64_t r = 0; r < rows; ++r) {
    for (int64_t i = 0; i < dim / 2; ++i) {
      const double a = static_cast<double>(UniformInt(random, 0, 1 << 20)) * 1e-3;
      angles[r * angles_stride + i] = static_cast<float>(std::cos(a));
      angles[r * angles_stride + dim / 2 + i] = static_cast<float>(std::sin(a));
    }
  }

  {
    const OnDevice<float> dq(device, q), dk(device, k), dv(device, v), da(device, angles);
    const OnDevice<DeviceSequence> ds(device, on_device);
    // Bounds may exceed what is there.
    const SequenceBatch batch = {ds.get(), static_cast<int64_t>(on_device.size()), rows + 3,
                                 rows + 1, 10000};
    Status status = RopeAppend(
        device, c.shape, c.layer, c.q_heads, {dq.get(), q_width + pad}, {dk.get(), kv_width + pad},
        {dv.get(), kv_width + pad}, {c.rotate ? da.get() : 0, angles_stride}, batch);
    ASSERT_TRUE(status.ok()) << status.message();
    const std::vector<float> rotated = dq.Read(&status);
    ASSERT_TRUE(status.ok()) << status.message();
    const std::vector<float> k_after = dk.Read(&status), v_after = dv.Read(&status);
    ASSERT_EQ(std::memcmp(k_after.data(), k.data(), k.size() * 4), 0);
    ASSERT_EQ(std::memcmp(v_after.data(), v.data(), v.size() * 4), 0);
    nibble::RopeAppend(workspace, c.layer, q.data(), q_width + pad, c.q_heads, k.data(),
                       kv_width + pad, v.data(), kv_width + pad, c.rotate ? angles.data() : nullptr,
                       angles_stride, sequences.data(), static_cast<int>(sequences.size()));
    ASSERT_EQ(std::memcmp(rotated.data(), q.data(), q.size() * 4), 0) << "rotated queries";
  }
  for (size_t i = 0; i < caches.size(); ++i) {
    // The new tokens, by the CPU, over what was there.
    const DeviceLayout layout(caches[i]->shape());
    std::vector<uint8_t> all = expected[i];
    PackLayer(*caches[i], c.layer, sequences[i].start + sequences[i].rows, layout, &all);
    std::vector<uint8_t> old = expected[i];
    for (int64_t head = 0; head < c.shape.kv_heads; ++head) {
      for (int64_t t = 0; t < sequences[i].start; ++t) {
        // Older tokens: back to what was there.
        const int64_t block = layout.Block(c.layer, head, t), slot = t % 16;
        for (int64_t part = 0; part < 2; ++part) {
          const auto restore = [&](int64_t at, int64_t n) {
            std::memcpy(all.data() + at, old.data() + at, static_cast<size_t>(n));
          };
          restore(block + 2 * layout.scale_bytes + (slot + 16 * part) * layout.row_bytes,
                  layout.row_bytes);
          const int64_t scales = block + part * layout.scale_bytes;
          if (c.shape.type == DType::kI8) restore(scales + 4 * slot, 4);
          if (c.shape.type != DType::kI4) continue;
          for (int64_t g = 0; g < layout.groups; ++g) restore(scales + 16 * g + slot, 1);
        }
      }
    }
    Status status;
    const std::vector<uint8_t> got = memory[i]->Read(&status);
    ASSERT_TRUE(status.ok()) << status.message();
    // NaN stays NaN, but not its other bits: common/encode.cuh.
    const auto is_nan = [](const std::vector<uint8_t>& bytes, size_t at) {
      uint16_t code = 0;
      std::memcpy(&code, &bytes[at], sizeof(code));
      return std::isnan(DecodeBF16(code));
    };
    for (size_t b = 0; b < all.size(); ++b) {
      const size_t first = b / 2 * 2;
      if (c.shape.type == DType::kBF16 && is_nan(got, first) && is_nan(all, first)) continue;
      ASSERT_EQ(got[b], all[b]) << "sequence " << i << ", byte " << b;
    }
  }
}

TEST(CudaRopeAppend, HeadAndGroupSizes) {
  std::mt19937_64 random = TestRandom(701);
  int turn = 0;
  for (const DType type : kKvTypes) {
    for (const int dim : {16, 18, 30, 48, 64, 80, 96, 128, 130, 254, 256}) {
      std::vector<int64_t> groups = {0};
      if (type == DType::kI4 && dim % 16 == 0) {
        for (int64_t g = 16; g < dim; g += 16) {
          if (dim % g == 0) groups.push_back(g);
        }
      }
      for (const int64_t group : groups) {
        AppendCase c;
        c.shape = MakeShape(type, 2, dim, 1, group);
        c.q_heads = 2;
        c.sequences = {{UniformInt(random, 0, 20), UniformInt(random, 1, 3)}};
        Check(random, kTargets[turn++ % 4], c);
        if (HasFatalFailure()) return;
      }
    }
  }
}

TEST(CudaRopeAppend, BatchesLayersAndFactors) {
  std::mt19937_64 random = TestRandom(702);
  for (const int sm : kTargets) {
    for (const DType type : kKvTypes) {
      AppendCase c;
      c.shape = MakeShape(type, 3, 32, 1, 16 * (type == DType::kI4));
      c.shape.layers = 3;
      c.layer = 1;
      c.q_heads = 9;
      c.sequences = {{0, 0}, {15, 2}, {0, 17}, {7, 0}, {33, 1}, {16, 16}, {5, 0}};
      if (type == DType::kI4) {
        c.key_factors = {1.0f, 0.037f, 2.0f};
        c.value_factors = {1.0f, 3e-20f, 2.0f};
      }
      c.rotate = sm != 90;
      Check(random, sm, c);
      if (HasFatalFailure()) return;
    }
  }
}

TEST(CudaRopeAppend, UnusualValues) {
  std::mt19937_64 random = TestRandom(703);
  for (const int sm : kTargets) {
    for (const DType type : kKvTypes) {
      AppendCase c;
      c.shape = MakeShape(type, 1, 64, 1, 16 * (type == DType::kI4));
      c.sequences = {{3, 12}};
      c.rotate = false;
      c.edit = [](std::vector<float>& x, int64_t dim) {
        const int64_t stride = dim + 5;
        const auto row = [&](int64_t r) { return x.data() + r * stride; };
        std::fill_n(row(0), dim, 0.0f);              // zeros
        row(1)[7] = NAN;                             // one group
        row(2)[40] = -INFINITY;
        for (int64_t i = 0; i < dim; ++i) row(3)[i] *= 1e-40f;  // subnormal
        for (int64_t i = 0; i < dim; ++i) row(4)[i] *= 1e38f;
        for (int64_t i = 0; i < dim; ++i) row(5)[i] *= 1e-6f;   // below the smallest E4M3 scale
        for (int64_t i = 0; i < dim; ++i) row(6)[i] = i % 2 == 0 ? 7.5f : -7.0f;  // ties
        for (int64_t i = 0; i < dim; ++i) row(7)[i] = static_cast<float>(i - 30) * 0.5f;
        std::fill_n(row(8), dim, -0.0f);
        for (int64_t i = 0; i < dim; ++i) row(9)[i] *= 5e3f;    // scales saturate
        row(10)[dim - 1] = 3.4028235e38f;
      };
      Check(random, sm, c);
      if (HasFatalFailure()) return;
    }
  }
}

}  // namespace
}  // namespace nibble::cuda::attention
