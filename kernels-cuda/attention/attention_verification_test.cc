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

// kTies, kSmallTies: show how each element of a query is rounded. kOwnKey: a row weighs its own key
// alone, and values have an odd last bit in BF16, so that its loss exceeds what is tolerated.
enum class Queries { kRandom, kTies, kSmallTies, kOwnKey };

// What a batch is made of. scale: the smaller, the more evenly keys are weighed, so that a wrong
// value shows whatever its key is; with a large one running maxima and scales change.
struct Plan {
  int dim;
  int64_t group = 0;  // of scales, KV4
  int kv_heads = 1;
  int64_t q_heads = 2;
  std::vector<std::pair<int64_t, int64_t>> sequences;  // older tokens, new ones
  int64_t nan_value = -1;                              // the token whose value, and key before, is
  float scale = 0.25f;
  Queries queries = Queries::kRandom;
  bool keys_stay = false;   // of nan_value the value alone is
  float bad_value = NAN;    // NaN, or infinite
  // Of each head one element of one token's value, or key, that is NaN.
  int64_t nan_element = -1;
  bool nan_in_key = false;
};

// Places of a block of 16 keys that stand for all: the four registers of a lane's keys, and the
// first byte of four.
constexpr int64_t kPlaces[] = {4, 5, 8, 13};

void MakeOwnKeys(Operands* x) {
  for (int64_t i = 0; i < static_cast<int64_t>(x->q.size()); ++i) {
    x->q[i] = 4 * x->k[i];  // one query head a key head
    x->v[i] = std::copysign(1 + 0x1p-7f, x->v[i]);
  }
}

// Every query element stands halfway between two codes of the type (for quantized caches: once
// divided by the row's scale, which is 1, in the normal range or below it), or one F32 next to
// that. Elements go in pairs of equal ones, keys in pairs +1, -1 or -1, +1: all scores are 0, and
// half of the values 1. One element that is rounded to its other neighbour lifts some scores and
// lowers the others.
void MakeTies(DType type, Queries queries, int64_t dim, Operands* x) {
  const bool brain = type == DType::kBF16, small = queries == Queries::kSmallTies;
  const float unit = brain ? 0x1p-7f : small ? 0x1p-9f : 2.0f;  // between neighbouring codes
  const float base = brain ? 1.0f : small ? 0.0f : 16.0f;
  const int64_t pairs = dim / 2;
  for (int64_t r = 0; r < x->rows; ++r) {
    for (int64_t i = 0; i < dim; ++i) {
      const int64_t pair = i / 2, kind = (pair + r) % 4;
      float q = base + unit * (static_cast<float>(2 * (pair % 3) + kind % 2) + 0.5f);
      if (kind == 2) q = std::nextafter(q, INFINITY);
      if (kind == 3) q = std::nextafter(q, 0.0f);
      if (pair % 2 != 0) q = -q;
      const int64_t peak = small ? pairs - 1 : 0;
      // Makes the scale 1: 448 is the largest code.
      if (!brain && pair == peak) q = 448;
      for (int64_t h = 0; h < x->q_heads; ++h) x->q[r * x->q_width + h * dim + i] = q;
      const float k = !brain && pair == peak ? 0.0f : (i + r) % 2 == 0 ? 1.0f : -1.0f;
      for (int64_t at = i; at < x->kv_width; at += dim) {
        x->k[r * x->kv_width + at] = k;
        x->v[r * x->kv_width + at] = r % 2 == 0 ? 1.0f : 0.0f;
      }
    }
  }
}

// One batch and what it should come to, worked out once.
struct KnownBatch {
  KnownBatch(DType type, const Plan& plan)
      : scale(plan.scale),
        random(static_cast<uint64_t>(plan.dim) * 31 + static_cast<uint64_t>(plan.q_heads)),
        batch(random,
              MakeShape(type, plan.kv_heads, plan.dim, 1, type == DType::kI4 ? plan.group : 0),
              plan.q_heads, plan.sequences,
              [&](Operands& x) {
                const int64_t bad = plan.nan_value;
                const bool own_keys = plan.queries == Queries::kOwnKey;
                if (own_keys) MakeOwnKeys(&x);
                if (bad >= 0 && bad < x.rows) {
                  std::fill_n(&x.v[bad * x.kv_width], x.kv_width, plan.bad_value);
                }
                if (bad >= 1 && bad <= x.rows && !plan.keys_stay) {
                  x.k[(bad - 1) * x.kv_width] = NAN;
                }
                if (!own_keys && plan.queries != Queries::kRandom) {
                  MakeTies(type, plan.queries, plan.dim, &x);
                }
                for (int h = 0; plan.nan_element >= 0 && h < plan.kv_heads; ++h) {
                  const int64_t token = 16 + kPlaces[h];
                  (plan.nan_in_key ? x.k : x.v)[token * x.kv_width + h * plan.dim +
                                                plan.nan_element] = NAN;
                }
                if (plan.scale < 0.1f || plan.queries != Queries::kRandom) return;
                // Values' scales grow, and then do not.
                for (int64_t i = 0; i < static_cast<int64_t>(x.v.size()); ++i) {
                  if (i / x.kv_width > 20) x.v[i] *= 8;
                }
              }),
        expected(batch.Reference(scale)) {
    if (plan.nan_element < 0) return;
    // A scale of a value that is NaN makes its key's weight NaN (block_products.cuh), not its own
    // columns alone.
    for (auto row = expected.y.begin(); row != expected.y.end(); row += plan.dim) {
      if (std::any_of(row, row + plan.dim, [](double y) { return std::isnan(y); })) {
        std::fill(row, row + plan.dim, NAN);
      }
    }
  }

  bool Matches(Device& device) const {
    std::vector<float> y;
    return batch.Run(device, scale, 0, &y).ok() && expected.FirstWrong(y) < 0;
  }

  float scale;
  std::mt19937_64 random;
  Batch batch;
  Expected expected;
};

VerificationCases Cases(DType type, const std::vector<Plan>& plans) {
  VerificationCases cases;
  for (Plan plan : plans) {
    if (plan.queries == Queries::kTies || plan.queries == Queries::kSmallTies) {
      if (plan.queries == Queries::kSmallTies && type == DType::kBF16) continue;
      plan.scale = type == DType::kBF16 ? 50.0f : plan.queries == Queries::kTies ? 0.2f : 200.0f;
    }
    const auto known = std::make_shared<KnownBatch>(type, plan);
    cases.push_back([known](Device& device) { return known->Matches(device); });
  }
  return cases;
}

// KV16 keeps values that are not finite from rows that do not see them, register by register: one
// such value at either element of a pair, in either half of a block, in each of `blocks` blocks of
// a step; rows in both halves of a tile do not see it, others do.
void AddHiddenValues(int dim, int64_t blocks, int64_t rows, std::vector<Plan>* plans) {
  for (int64_t block = 0; block < blocks; ++block) {
    for (const int64_t place : kPlaces) {
      const int64_t token = 64 + 16 * block + place;
      Plan plan = {dim, 0, 1, 1, {{token - 11, rows}}, token, 0.03f};
      plan.keys_stay = true;
      plan.bad_value = INFINITY;
      plans->push_back(plan);
      plan.bad_value = NAN;
      plan.queries = Queries::kOwnKey;
      plan.scale = 0.25f;
      if (place % 2 != 0) plans->push_back(plan);
    }
  }
}

// KV4: one group of one key, or value, is NaN, so that its scale is. Kernels take four groups at a
// time, and the rest one by one.
void AddBadGroups(int dim, int64_t rows, std::vector<Plan>* plans) {
  const int groups = dim / 16, rest = groups % 4;
  for (int group = rest == 0 ? 0 : groups - rest; group < (rest == 0 ? 4 : groups); ++group) {
    Plan plan = {dim, 16, 4, 4, {{17, rows}}, -1, 0.03f};
    plan.nan_element = 16 * group + 5;
    plans->push_back(plan);
    plan.nan_in_key = true;
    plans->push_back(plan);
  }
}

// Tokens whose rows end at every place of a block of keys, for either half of a tile; several
// ranges, rows that see nothing of the last one, several blocks a warp; a NaN at the end.
template <DType kType>
VerificationCases DecodeCases() {
  std::vector<Plan> plans = {{64, 16, 2, 2, {{20, 16}, {28, 16}, {0, 1}}, -1, 0.03f},
                       {128, 0, 1, 1, {{20, 16}, {28, 16}}, -1, 0.03f},
                       {256, 0, 1, 1, {{20, 16}, {28, 16}}, -1, 0.03f},
                       {64, 16, 1, 3, {{127, 4}}, 129},
                       {48, 0, 1, 4, {{100, 3}}, 102},
                       {128, 16, 2, 6, {{90, 4}}, 92},
                       {112, 16, 1, 5, {{20, 3}}, 21},
                       {256, 16, 1, 6, {{80, 3}}, 81},
                       {144, 16, 1, 5, {{20, 3}}, 21},
                       {64, 0, 1, 1, {{2, 16}, {5, 16}}, -1, 0, Queries::kTies},
                       {128, 0, 1, 1, {{2, 16}, {5, 16}}, -1, 0, Queries::kTies},
                       {256, 0, 1, 1, {{2, 16}, {5, 16}}, -1, 0, Queries::kTies},
                       {64, 0, 1, 1, {{2, 16}, {5, 16}}, -1, 0, Queries::kSmallTies},
                       {128, 0, 1, 1, {{2, 16}, {5, 16}}, -1, 0, Queries::kSmallTies},
                       {256, 0, 1, 1, {{2, 16}, {5, 16}}, -1, 0, Queries::kSmallTies}};
  for (const int dim : {64, 128, 256}) {
    if (kType == DType::kBF16) AddHiddenValues(dim, 1, 16, &plans);
  }
  for (const int dim : {64, 48, 128, 112, 256, 176}) {
    if (kType == DType::kI4) AddBadGroups(dim, 16, &plans);
  }
  return Cases(kType, plans);
}

// As above; one and several tiles and stages.
template <DType kType>
VerificationCases PrefillCases() {
  std::vector<Plan> plans = {{64, 16, 2, 2, {{20, 80}, {28, 80}}, -1, 0.03f},
                       {96, 16, 1, 1, {{20, 80}, {28, 80}}, -1, 0.03f},
                       {128, 0, 1, 1, {{20, 80}, {28, 80}}, -1, 0.03f},
                       {256, 0, 1, 1, {{12, 70}, {20, 70}}, -1, 0.03f},
                       {64, 16, 1, 2, {{200, 35}}, 231},
                       {48, 0, 1, 2, {{0, 40}}, 38},
                       {96, 0, 1, 2, {{150, 33}}, 180},
                       {80, 16, 1, 2, {{20, 33}}},
                       {128, 16, 1, 1, {{150, 65}}, 212},
                       {112, 16, 1, 2, {{20, 33}}, 21},
                       {256, 16, 1, 2, {{70, 33}}, 100},
                       {144, 16, 1, 2, {{20, 33}}, 21},
                       {64, 0, 1, 1, {{2, 66}}, -1, 0, Queries::kTies},
                       {96, 0, 1, 1, {{2, 66}}, -1, 0, Queries::kTies},
                       {128, 0, 1, 1, {{2, 66}}, -1, 0, Queries::kTies},
                       {256, 0, 1, 1, {{2, 66}}, -1, 0, Queries::kTies},
                       {64, 0, 1, 1, {{2, 66}}, -1, 0, Queries::kSmallTies},
                       {96, 0, 1, 1, {{2, 66}}, -1, 0, Queries::kSmallTies},
                       {128, 0, 1, 1, {{2, 66}}, -1, 0, Queries::kSmallTies},
                       {256, 0, 1, 1, {{2, 66}}, -1, 0, Queries::kSmallTies}};
  for (const int dim : {64, 96, 128, 256}) {
    if (kType == DType::kBF16) AddHiddenValues(dim, dim == 64 ? 4 : dim == 96 ? 2 : 1, 33, &plans);
    if (kType == DType::kI4) AddBadGroups(dim, 33, &plans);
  }
  return Cases(kType, plans);
}

// Heads of every size, odd numbers of words among them, end somewhere else in a lane's parts.
VerificationCases F32Cases() {
  std::vector<Plan> plans = {{64, 0, 2, 2, {{20, 16}, {28, 16}, {0, 1}}, -1, 0.03f},
                             {254, 0, 1, 2, {{40, 3}}, 42},
                             {18, 0, 1, 2, {{3, 40}}},
                             {64, 0, 1, 3, {{127, 2}}},
                             {250, 0, 2, 2, {{127, 3}, {0, 1}, {300, 2}}, -1, 0.03f}};
  for (int dim = 16; dim <= 256; dim += 2) {
    if (dim % 32 > 4 && dim % 32 < 30) continue;
    plans.push_back({dim, 0, 1, 1, {{16, 1}}, -1, 0.03f});
  }
  return Cases(DType::kF32, plans);
}

// Two calls into one cache, the second of which drops a token.
template <DType kType, int kDim>
bool VerifyAppend(Device& device) {
  std::mt19937_64 random(5 + kDim);
  constexpr int dim = kDim;
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
  return true;
}

VerificationCases AppendCases() {
  return {VerifyAppend<DType::kI4, 32>,   VerifyAppend<DType::kI4, 254>,
          VerifyAppend<DType::kI8, 32>,   VerifyAppend<DType::kI8, 254>,
          VerifyAppend<DType::kBF16, 32>, VerifyAppend<DType::kBF16, 254>,
          VerifyAppend<DType::kF32, 32>,  VerifyAppend<DType::kF32, 254>};
}

const std::vector<int> kAll = {80, 89, 90, 120};
const VerificationRegistration kRegistrations[] = {
    VerificationRegistration({"attention rope_append", {"rope_append"}, AppendCases, kAll}),
    VerificationRegistration({"attention decode i4", {"attention_decode_i4"},
                              DecodeCases<DType::kI4>, kAll}),
    VerificationRegistration({"attention decode i8", {"attention_decode_i8"},
                              DecodeCases<DType::kI8>, kAll}),
    VerificationRegistration({"attention decode bf16", {"attention_decode_bf16"},
                              DecodeCases<DType::kBF16>, kAll}),
    VerificationRegistration({"attention prefill i4", {"attention_prefill_i4"},
                              PrefillCases<DType::kI4>, kAll}),
    VerificationRegistration({"attention prefill i8", {"attention_prefill_i8"},
                              PrefillCases<DType::kI8>, kAll}),
    VerificationRegistration({"attention prefill bf16", {"attention_prefill_bf16"},
                              PrefillCases<DType::kBF16>, kAll}),
    VerificationRegistration({"attention f32", {"attention_f32", "attention_merge"}, F32Cases,
                              kAll}),
};

}  // namespace
}  // namespace nibble::cuda::attention
