// SPDX-License-Identifier: Apache-2.0
//
// Attention on the device against its formula in F64, over caches that the CPU has filled.
#include "kernels-cuda/attention/attention_batch_for_test.h"
#include "kernels-cuda/testing/emulated_device.h"

namespace nibble::cuda::attention {
namespace {

constexpr int kTargets[] = {80, 89, 90, 120};

float SoftmaxScale(int head_dim) { return 1 / std::sqrt(static_cast<float>(head_dim)); }

std::vector<float> RunOn(const Batch& batch, int sm, float scale, int64_t slack = 0) {
  std::vector<float> y;
  const Status status = batch.Run(EmulatedDevice(sm), scale, slack, &y);
  EXPECT_TRUE(status.ok()) << status.message();
  y.resize(static_cast<size_t>(batch.rows * batch.q_width), NAN);
  return y;
}

void Check(const Batch& batch, std::initializer_list<int> targets, float scale,
           const std::string& what, int64_t slack = 0) {
  const Expected expected = batch.Reference(scale);
  for (const int sm : targets) {
    const std::vector<float> y = RunOn(batch, sm, scale, slack);
    const int64_t wrong = expected.FirstWrong(y);
    ASSERT_EQ(wrong, -1) << what << " " << Describe(batch.shape) << " q_heads " << batch.q_heads
                         << " sm_" << sm << ": row " << wrong / batch.q_width << " column "
                         << wrong % batch.q_width << " is " << y[wrong] << ", but "
                         << expected.y[wrong] << " within " << expected.bound[wrong]
                         << " was expected";
  }
}

// On one target, a different one each time.
void CheckOne(const Batch& batch, float scale, const std::string& what, int64_t slack = 0) {
  static int turn = 0;
  Check(batch, {kTargets[turn++ % 4]}, scale, what, slack);
}

std::string Keys(int64_t start, int64_t rows) {
  return "start " + std::to_string(start) + " rows " + std::to_string(rows);
}

TEST(CudaAttention, DecodeAllHeadSizes) {
  std::mt19937_64 random = TestRandom(711);
  for (const DType type : kKvTypes) {
    for (const int dim : {16, 18, 48, 64, 80, 96, 128, 144, 256}) {
      Check(Batch(random, MakeShape(type, 2, dim, 1), 4, {{37, 1}}),
            {80, 89, 90, 120}, SoftmaxScale(dim), "decode");
      if (HasFatalFailure()) return;
    }
  }
}

TEST(CudaAttention, DecodeGroupSizes) {
  std::mt19937_64 random = TestRandom(712);
  for (const auto& [dim, group] : std::vector<std::pair<int, int>>{
           {64, 16}, {64, 32}, {96, 16}, {96, 48}, {112, 16}, {128, 32}, {128, 64}, {144, 48},
           {256, 16}, {256, 128}, {160, 80}}) {
    Check(Batch(random, MakeShape(DType::kI4, 1, dim, 1, group), 3, {{40, 2}}),
            {80, 89}, SoftmaxScale(dim), "groups");
    if (HasFatalFailure()) return;
  }
}

TEST(CudaAttention, DecodeAroundBlockAndRangeEdges) {
  std::mt19937_64 random = TestRandom(713);
  for (const DType type : kKvTypes) {
    for (const int64_t keys : {1, 2, 15, 16, 17, 63, 64, 65, 127, 128, 129, 257}) {
      CheckOne(Batch(random, MakeShape(type, 1, 32, 1), 3, {{keys - 1, 1}}),
            SoftmaxScale(32), Keys(keys - 1, 1));
      if (HasFatalFailure()) return;
    }
    // The first rows see nothing, or one key, of the last range.
    for (const int64_t keys : {129, 131, 257}) {
      CheckOne(Batch(random, MakeShape(type, 2, 16, 1), 4, {{keys - 3, 3}, {4, 1}}),
            SoftmaxScale(16), Keys(keys - 3, 3));
      if (HasFatalFailure()) return;
    }
  }
}

TEST(CudaAttention, GroupedQueryRatios) {
  std::mt19937_64 random = TestRandom(714);
  for (const DType type : kKvTypes) {
    for (const int64_t heads : {1, 3, 5, 8, 16, 17, 71}) {
      CheckOne(Batch(random, MakeShape(type, 2, 64, 1), 2 * heads, {{20, 1}}),
            SoftmaxScale(64), "ratio");
      if (HasFatalFailure()) return;
    }
    CheckOne(Batch(random, MakeShape(type, 1, 32, 1), 21, {{20, 5}}),
            SoftmaxScale(32), "ratio");
    if (HasFatalFailure()) return;
  }
}

TEST(CudaAttention, PrefillAllHeadSizes) {
  std::mt19937_64 random = TestRandom(715);
  for (const DType type : kKvTypes) {
    for (const int dim : {16, 64, 80, 96, 128, 130, 256}) {
      Check(Batch(random, MakeShape(type, 1, dim, 1), 2, {{5, 66}}),
            {80, 89}, SoftmaxScale(dim), "prefill");
      if (HasFatalFailure()) return;
    }
  }
}

TEST(CudaAttention, PrefillGroupSizes) {
  std::mt19937_64 random = TestRandom(716);
  for (const auto& [dim, group] : std::vector<std::pair<int, int>>{
           {64, 16}, {96, 48}, {128, 32}, {112, 16}, {256, 16}, {160, 32}}) {
    Check(Batch(random, MakeShape(DType::kI4, 1, dim, 1, group), 2, {{3, 40}}),
            {80, 120}, SoftmaxScale(dim), "groups");
    if (HasFatalFailure()) return;
  }
}

TEST(CudaAttention, PrefillAroundTileEdges) {
  std::mt19937_64 random = TestRandom(717);
  for (const DType type : kKvTypes) {
    for (const auto& s : std::vector<std::pair<int64_t, int64_t>>{
             {0, 65}, {62, 66}, {63, 66}, {0, 127}, {0, 128}, {0, 129}, {127, 70}}) {
      CheckOne(Batch(random, MakeShape(type, 1, 32, 1), 1, {s}),
            SoftmaxScale(32), Keys(s.first, s.second));
      if (HasFatalFailure()) return;
    }
    CheckOne(Batch(random, MakeShape(type, 2, 48, 1), 6, {{200, 45}}),
            SoftmaxScale(48), Keys(200, 45));
    if (HasFatalFailure()) return;
  }
}

TEST(CudaAttention, BatchesOfFewManyAndNoRows) {
  std::mt19937_64 random = TestRandom(718);
  for (const int sm : kTargets) {
    for (const DType type : kKvTypes) {
      const Batch batch(random, MakeShape(type, 2, 64, 1), 6,
                        {{0, 0}, {130, 1}, {9, 23}, {0, 1}, {50, 0}, {0, 44}, {3, 2}});
      Check(batch, {sm}, SoftmaxScale(64), "batch", 5);
      if (HasFatalFailure()) return;
    }
  }
}

TEST(CudaAttention, SequenceHasTheSameBitsInAnyBatch) {
  std::mt19937_64 random = TestRandom(719);
  for (const DType type : kKvTypes) {
    const Batch batch(random, MakeShape(type, 1, 32, 1), 2, {{150, 1}, {7, 33}, {30, 2}});
    const std::vector<float> together = RunOn(batch, 89, 0.2f, 40);
    // Whatever order warps and blocks of threads run in: the emulator takes another each time.
    const std::vector<float> again = RunOn(batch, 89, 0.2f, 40);
    ASSERT_EQ(std::memcmp(again.data(), together.data(), again.size() * 4), 0);
    int64_t row = 0;
    for (const Sequence& s : batch.sequences) {
      Batch alone(random, batch.shape, 2, {});
      alone.sequences = {s};
      alone.rows = s.rows;
      alone.q.assign(batch.q.begin() + row * batch.q_width,
                     batch.q.begin() + (row + s.rows) * batch.q_width);
      const std::vector<float> y = RunOn(alone, 89, 0.2f);
      ASSERT_EQ(std::memcmp(y.data(), together.data() + row * batch.q_width, y.size() * 4), 0)
          << Describe(batch.shape) << " row " << row;
      row += s.rows;
    }
  }
}

TEST(CudaAttention, LongContexts) {
  // 32768 keys in 64 ranges; what a sum in 16 bits, or a weight below F16's smallest, would lose
  // shows: scores are close together, so that all keys count.
  std::mt19937_64 random = TestRandom(720);
  for (const auto& [type, sm] : std::vector<std::pair<DType, int>>{
           {DType::kI4, 80}, {DType::kI4, 89}, {DType::kI8, 120}, {DType::kBF16, 90},
           {DType::kF32, 89}}) {
    const auto edit = [](Operands& x) {
      for (float& v : x.v) v += 0.5f;
    };
    Check(Batch(random, MakeShape(type, 1, 64, 1), 2, {{32767, 1}}, edit),
            {sm}, 0.01f, "32768 keys");
    if (HasFatalFailure()) return;
  }
}

TEST(CudaAttention, LargeScoresPickOneKey) {
  std::mt19937_64 random = TestRandom(721);
  for (const DType type : kKvTypes) {
    CheckOne(Batch(random, MakeShape(type, 2, 64, 1), 4, {{150, 2}}),
            300.0f, "scale 300");
    if (HasFatalFailure()) return;
    CheckOne(Batch(random, MakeShape(type, 1, 64, 1), 4, {{50, 20}}),
            300.0f, "scale 300");
    if (HasFatalFailure()) return;
  }
}

TEST(CudaAttention, SoftmaxScaleOfEitherSignAndZero) {
  std::mt19937_64 random = TestRandom(722);
  for (const DType type : kKvTypes) {
    for (const float scale : {-0.3f, 0.0f}) {
      CheckOne(Batch(random, MakeShape(type, 1, 48, 1), 4, {{50, 1}, {3, 20}}),
            scale, "sign");
      if (HasFatalFailure()) return;
    }
  }
}

TEST(CudaAttention, ValuesOfVeryDifferentSizes) {
  // Scales of KV8 from 2^-60 to 2^60, growing and falling from block to block.
  std::mt19937_64 random = TestRandom(723);
  for (const DType type : {DType::kI8, DType::kBF16, DType::kF32}) {
    const auto edit = [](Operands& x) {
      for (int64_t row = 0; row < x.rows; ++row) {
        const int exponent = static_cast<int>(row * 7 % 121) - 60;
        for (int64_t i = 0; i < x.kv_width; ++i) {
          float& v = x.v[row * x.kv_width + i];
          v = std::ldexp(v, row < 90 ? static_cast<int>(row / 2) - 60 : exponent);
        }
      }
    };
    CheckOne(Batch(random, MakeShape(type, 1, 64, 1), 2, {{140, 2}}, edit),
            0.1f, "sizes");
    if (HasFatalFailure()) return;
    CheckOne(Batch(random, MakeShape(type, 1, 64, 1), 2, {{70, 40}}, edit),
            0.1f, "sizes");
    if (HasFatalFailure()) return;
  }
}

TEST(CudaAttention, TinyQueryElementsAndZeroQueries) {
  std::mt19937_64 random = TestRandom(724);
  for (const DType type : kKvTypes) {
    const auto edit = [](Operands& x) {
      const int64_t dim = x.q_width / x.q_heads;
      for (int64_t row = 0; row < x.rows; ++row) {
        for (int64_t i = 0; i < x.kv_width; i += dim) x.k[row * x.kv_width + i] = 0;
        for (int64_t i = 0; i < x.q_width; ++i) {
          float& q = x.q[row * x.q_width + i];
          q = i % dim == 0 ? 448.0f : q * 0.02f;
          if (row % 3 == 0 && i < dim) q = 0;
        }
      }
    };
    CheckOne(Batch(random, MakeShape(type, 1, 64, 1), 4, {{40, 3}}, edit),
            3.0f, "tiny");
    if (HasFatalFailure()) return;
    CheckOne(Batch(random, MakeShape(type, 1, 64, 1), 4, {{0, 20}}, edit),
            3.0f, "tiny");
    if (HasFatalFailure()) return;
  }
}

// A NaN in a key or value of one head reaches the rows that see it, and nothing else.
TEST(CudaAttention, NaNReachesOnlyWhatSeesIt) {
  std::mt19937_64 random = TestRandom(725);
  for (const DType type : kKvTypes) {
    for (const bool in_key : {true, false}) {
      for (const int64_t rows : {6, 40}) {  // few and many rows of 4 heads each
        const int64_t start = 12, bad = start + UniformInt(random, 1, rows - 1);
        const KvCacheShape shape = MakeShape(type, 1, 32, 1);
        // The formula itself says what is NaN: of an unquantized value its own element only.
        const Batch bad_batch(random, shape, 4, {{start, rows}}, [&](Operands& x) {
          (in_key ? x.k : x.v)[bad * x.kv_width + 3] = NAN;
        });
        const Expected expected = bad_batch.Reference(0.3f);
        ASSERT_FALSE(std::isnan(expected.y[0]));
        ASSERT_TRUE(std::isnan(expected.y[expected.y.size() - 32 + 3]));
        CheckOne(bad_batch, 0.3f, in_key ? "NaN key" : "NaN value");
        if (HasFatalFailure()) return;
      }
    }
  }
}

TEST(CudaAttention, NaNQueryReachesOnlyItsHead) {
  std::mt19937_64 random = TestRandom(726);
  for (const DType type : kKvTypes) {
    for (const int64_t rows : {2, 20}) {
      Batch batch(random, MakeShape(type, 1, 16, 1), 4, {{3, rows}});
      batch.q[1 * batch.q_width + 2 * 16 + 1] = NAN;
      batch.q[0 * batch.q_width + 3 * 16 + 7] = INFINITY;
      const std::vector<float> y = RunOn(batch, 89, 0.3f);
      for (int64_t i = 0; i < static_cast<int64_t>(y.size()); ++i) {
        const int64_t row = i / batch.q_width, head = i % batch.q_width / 16;
        ASSERT_EQ(std::isnan(y[i]), (row == 1 && head == 2) || (row == 0 && head == 3))
            << Describe(batch.shape) << " row " << row << " head " << head;
      }
    }
  }
}

// One recorded call, replayed after its array of sequences was overwritten: positions in the first
// range of keys, and in others.
TEST(CudaAttention, RecordedCallTakesNewPositions) {
  std::mt19937_64 random = TestRandom(728);
  Device& device = EmulatedDevice(89);
  for (const DType type : kKvTypes) {
    Batch batch(random, MakeShape(type, 2, 32, 1), 4, {{300, 1}});
    const OnDevice<uint8_t> memory(device, batch.Bytes(0));
    const int64_t capacity = batch.sequences[0].cache->shape().capacity;
    const OnDevice<float> q(device, batch.q), y(device, std::vector<float>(batch.q.size()));
    const OnDevice<DeviceSequence> sequences(device, {{memory.get(), capacity, 0, 1, 0}});
    const SequenceBatch bounds = {sequences.get(), 1, 1, 1, capacity};
    const int64_t bytes = ScratchBytes(batch.shape, 4, bounds);
    const OnDevice<uint8_t> scratch(device, std::vector<uint8_t>(static_cast<size_t>(bytes), 0xFF));
    ASSERT_TRUE(device.BeginRecording().ok());
    const Status recorded = Attention(device, batch.shape, 0, 4, {q.get(), batch.q_width}, 0.2f,
                                      {y.get(), batch.q_width}, bounds, {scratch.get(), bytes});
    CUgraphExec graph = nullptr;
    ASSERT_TRUE(device.EndRecording(&graph).ok());
    ASSERT_TRUE(recorded.ok()) << recorded.message();
    for (const int64_t start : {37, 300, 128, 0}) {
      const DeviceSequence now = {memory.get(), capacity, start, 1, 0};
      ASSERT_TRUE(device.CopyIn(sequences.get(), &now, sizeof(now)).ok());
      ASSERT_TRUE(device.LaunchGraph(graph).ok());
      Status status;
      const std::vector<float> got = y.Read(&status);
      ASSERT_TRUE(status.ok()) << status.message();
      batch.sequences[0].start = start;
      EXPECT_EQ(batch.Reference(0.2f).FirstWrong(got), -1) << Describe(batch.shape) << start;
    }
    device.DestroyGraph(graph);
  }
}

// FP8 units that cut sums of products 13 bits below the largest: the bound allows for it.
TEST(CudaAttention, SumsThatFp8UnitsCut) {
  std::mt19937_64 random = TestRandom(727);
  const emulator::Options before = emulator::GetOptions();
  emulator::Options cut = before;
  cut.fp8_accumulation = emulator::Accumulation::kTruncated;
  emulator::SetOptions(cut);
  for (const int64_t group : {0, 32, 16}) {
    for (const auto& s : {std::pair<int64_t, int64_t>{60, 1}, {0, 33}}) {
      const Batch batch(random, MakeShape(DType::kI4, 1, 128, 1, group), 2, {s});
      const Expected expected = batch.Reference(SoftmaxScale(128), true);
      const std::vector<float> y = RunOn(batch, 89, SoftmaxScale(128));
      EXPECT_EQ(expected.FirstWrong(y), -1) << Describe(batch.shape);
    }
  }
  emulator::SetOptions(before);
}

TEST(CudaAttention, NothingToDo) {
  Device& device = EmulatedDevice(89);
  const KvCacheShape shape = MakeShape(DType::kI4, 1, 64, 16);
  const SequenceBatch empty = {0, 0, 0, 0, 0};
  EXPECT_EQ(ScratchBytes(shape, 1, empty), 0);
  EXPECT_TRUE(Attention(device, shape, 0, 1, {0, 64}, 1.0f, {0, 64}, empty, {0, 0}).ok());
  EXPECT_TRUE(RopeAppend(device, shape, 0, 1, {0, 64}, {0, 64}, {0, 64}, {0, 0}, empty).ok());
}

TEST(CudaKvCache, Bytes) {
  // One block of 16 tokens, two heads, one layer: factors, scales and rows.
  KvCacheShape shape = MakeShape(DType::kI4, 2, 128, 16);
  EXPECT_EQ(KvCacheBytes(shape), 256 + 2 * 2 * (16 + 16 * 64));
  shape.group_size = 32;
  EXPECT_EQ(KvCacheBytes(shape), 256 + 2 * 2 * (64 + 16 * 64));
  shape.type = DType::kI8;
  EXPECT_EQ(KvCacheBytes(shape), 256 + 2 * 2 * (64 + 16 * 128));
  shape.type = DType::kBF16;
  shape.capacity = 17;
  EXPECT_EQ(KvCacheBytes(shape), 256 + 2 * 2 * 2 * (16 * 256));
  shape.capacity = int64_t{1} << 62;
  EXPECT_EQ(KvCacheBytes(shape), -1);
}

}  // namespace
}  // namespace nibble::cuda::attention
