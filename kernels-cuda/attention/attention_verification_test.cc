// SPDX-License-Identifier: Apache-2.0
//
// What the mutation suite runs: small launches of every attention kernel against the formula
// (attention_batch_for_test.h). Where operands are such that every step is exact, results are
// compared bit for bit.
#include "kernels-cuda/attention/attention_batch_for_test.h"
#include "kernels-cuda/attention/shapes.h"
#include "kernels-cuda/testing/verification.h"

namespace nibble::cuda::attention {
namespace {

// How operands are made.
enum class Data {
  kRandom,     // as Operands makes them
  kEven,       // the scale is 0: a result is the mean of the values seen, whose sums are exact
  kOwn,        // each row weighs one key alone: its result is that key's value
  kTies,       // show how each element of a query is rounded
  kSmallTies,
  kPeaks,      // show where a query row is largest, to its last bit
  kInfinite,   // rows of queries have an element that is not finite, or are zero
  kLargest,    // KV8: of the values that a row sees, the last one has by far the largest scale
};

// One element of a value, or key, that is not finite.
struct Bad {
  int64_t token;
  int head;
  int64_t element;
  bool in_key = false;
  float value = NAN;
};

// What a batch is made of. scale: the smaller, the more evenly keys are weighed, so that a wrong
// value shows whatever its key is; with a large one running maxima and scales change.
struct Plan {
  int dim;
  int64_t group = 0;  // of scales, KV4
  int kv_heads = 1;
  int64_t q_heads = 2;
  std::vector<std::pair<int64_t, int64_t>> sequences;  // older tokens, new ones
  float scale = 0.25f;
  Data data = Data::kRandom;
  std::vector<Bad> bad = {};
};

// Factors of KV4: with these, scales of one or two bits more are exact.
constexpr float kKeyFactor = 0.5f, kValueFactor = 0.25f;

float Sign(std::mt19937_64& random) { return UniformInt(random, 0, 1) == 0 ? 1.0f : -1.0f; }

// Values that the type holds exactly. wide: all bits that an F16 keeps of a scale, or a BF16 of a
// value, and all sorts of exponents; else sums of some hundred values are exact in F32.
void MakeValues(std::mt19937_64& random, DType type, int64_t group, bool wide, Operands* x) {
  for (int64_t first = 0; first < static_cast<int64_t>(x->v.size()); first += group) {
    const bool quantized = type == DType::kI4 || type == DType::kI8;
    const float mantissa = type == DType::kI8 && wide
                               ? static_cast<float>(2 * UniformInt(random, 512, 1023) + 1) / 1024
                               : static_cast<float>(UniformInt(random, 8, 15)) / 8;
    int exponent = static_cast<int>(UniformInt(random, -2, 2));
    if (type == DType::kI8 && wide) {
      // From the largest to the smallest is as far as F16 goes.
      exponent = static_cast<int>(UniformInt(random, -14, 14));
      if (exponent % 3 != 0) exponent = exponent > 0 ? 14 : -14;
    }
    const float scale = std::ldexp(mantissa, exponent);
    const int64_t most = type == DType::kI4 ? 7 : type == DType::kI8 ? 127 : 255;
    const int64_t largest = first + UniformInt(random, 0, group - 1);
    for (int64_t i = first; i < first + group; ++i) {
      int64_t code = UniformInt(random, -most, most);
      if (i == largest) code = UniformInt(random, 0, 1) == 0 ? most : -most;
      if (quantized) {
        x->v[i] = static_cast<float>(code) * (type == DType::kI4 ? scale * kValueFactor : scale);
      } else {
        if (wide) code = Sign(random) < 0 ? -(2 * std::abs(code / 4) + 129) : 2 * (code / 4) + 191;
        x->v[i] = std::ldexp(static_cast<float>(code),
                             wide ? static_cast<int>(UniformInt(random, -9, -3)) : -4);
      }
    }
  }
}

// Each row's query is a visible key of its own, and even more so the first key that it does not
// see.
void MakeOwnKeys(std::mt19937_64& random, int64_t dim, bool last, Operands* x) {
  const int64_t heads = x->q_width / x->kv_width;
  for (int64_t row = 0; row < x->rows; ++row) {
    for (int64_t h = 0; h < x->q_heads; ++h) {
      const int64_t seen =
          last || UniformInt(random, 0, 2) == 0 ? row : UniformInt(random, 0, row);
      const float* own = &x->k[seen * x->kv_width + h / heads * dim];
      const float* next = row + 1 < x->rows ? &x->k[(row + 1) * x->kv_width + h / heads * dim]
                                            : nullptr;
      for (int64_t i = 0; i < dim; ++i) {
        x->q[row * x->q_width + h * dim + i] =
            128 * (own[i] + (next != nullptr ? 1.5f * next[i] : 0.0f));
      }
    }
  }
}

// Every query element stands halfway between two codes of the type (for quantized caches: once
// divided by the row's scale, which is 1, in the normal range or below it), or one F32 next to
// that. Elements go in pairs of equal ones, keys in pairs +1, -1 or -1, +1: all scores are 0, and
// half of the values 1. One element that is rounded to its other neighbour lifts some scores and
// lowers the others.
void MakeTies(DType type, Data data, int64_t dim, Operands* x) {
  const bool brain = type == DType::kBF16, small = data == Data::kSmallTies;
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

// Of queries against quantized keys, each row has its largest element at another multiple of 4, in
// either half of a tile. It is the F32 above 448, which makes the scale the one above 1 and every
// other element (19, halfway between two codes) become 18. Without its last bit it would be 20.
void MakePeaks(std::mt19937_64& random, int64_t dim, Operands* x) {
  for (float& k : x->k) k = Sign(random);
  for (int64_t row = 0; row < x->rows * x->q_heads; ++row) {
    float* q = &x->q[row * dim];
    for (int64_t i = 0; i < dim; ++i) q[i] = 19 * Sign(random);
    // Rows of the sequence, which has one head of keys.
    q[(row / 16 * 8 + row % 8) % ((dim + 3) / 4) * 4] = Sign(random) * (448 + 0x1p-15f);
  }
}

// Every other token's scale of values grows, in each head other ones, and is so little below a
// power of two that a weight in F16 has no room for twice as much. The rest is tiny.
void MakeLargest(int64_t dim, Operands* x) {
  for (int64_t i = 0; i < static_cast<int64_t>(x->v.size()); ++i) {
    const int64_t row = i / x->kv_width, head = i % x->kv_width / dim;
    const float code = i % dim == 0 ? 127.0f : static_cast<float>(i % 251 - 125);
    const int exponent = (row + head) % 2 == 0 ? 2 * (static_cast<int>(row) - 40) : -99;
    x->v[i] = std::ldexp(1.9999f * code, exponent);
  }
}

// Each row has an element that is NaN or infinite: at each place of what one lane of KV16's has in
// a step of 16 elements. Some rows are zero.
void MakeInfinite(int64_t dim, Operands* x) {
  for (int64_t row = 0; row < x->rows * x->q_heads; ++row) {
    const int64_t j = row / 16 * 8 + row % 8;
    const int64_t element = j / 4 * 16 + j / 2 % 2 * 8 + j % 2 + j / 4 % 4 * 2;
    if (row % 8 == 7 && row > 64) {
      std::fill_n(&x->q[row * dim], dim, 0.0f);
    } else {
      x->q[row * dim + element % dim] = row % 3 == 0 ? NAN : row % 3 == 1 ? INFINITY : -INFINITY;
    }
  }
}

void Make(DType type, const Plan& plan, std::mt19937_64& random, Operands* x) {
  const int64_t group = type == DType::kI4 && plan.group != 0 ? plan.group : plan.dim;
  switch (plan.data) {
    case Data::kRandom:
      // Values' scales grow, and then do not.
      for (int64_t i = 0; plan.scale >= 0.1f && i < static_cast<int64_t>(x->v.size()); ++i) {
        if (i / x->kv_width > 20) x->v[i] *= 8;
      }
      break;
    case Data::kEven: MakeValues(random, type, group, false, x); break;
    case Data::kOwn:
      MakeValues(random, type, group, true, x);
      MakeOwnKeys(random, plan.dim, false, x);
      break;
    case Data::kLargest:
      MakeLargest(plan.dim, x);
      MakeOwnKeys(random, plan.dim, true, x);
      break;
    case Data::kTies:
    case Data::kSmallTies: MakeTies(type, plan.data, plan.dim, x); break;
    case Data::kPeaks: MakePeaks(random, plan.dim, x); break;
    case Data::kInfinite: MakeInfinite(plan.dim, x); break;
  }
  for (const Bad& bad : plan.bad) {
    if (bad.token >= x->rows) continue;
    (bad.in_key ? x->k : x->v)[bad.token * x->kv_width + bad.head * plan.dim + bad.element] =
        bad.value;
  }
}

float Scale(DType type, const Plan& plan) {
  switch (plan.data) {
    case Data::kEven: return 0.0f;
    case Data::kOwn:
    case Data::kLargest: return 1.0f;
    case Data::kTies: return type == DType::kBF16 ? 50.0f : 0.2f;
    case Data::kSmallTies: return 200.0f;
    case Data::kPeaks: return 0.003f;
    default: return plan.scale;
  }
}

// One batch and what it should come to, worked out once.
struct KnownBatch {
  KnownBatch(DType type, const Plan& plan)
      : scale(Scale(type, plan)),
        random(static_cast<uint64_t>(plan.dim) * 31 + static_cast<uint64_t>(plan.q_heads)),
        batch(random,
              MakeShape(type, plan.kv_heads, plan.dim, 1, type == DType::kI4 ? plan.group : 0),
              plan.q_heads, plan.sequences,
              [&](Operands& x) { Make(type, plan, random, &x); },
              plan.data == Data::kEven || plan.data == Data::kOwn
                  ? std::make_pair(kKeyFactor, kValueFactor)
                  : std::make_pair(0.0f, 0.0f)),
        expected(batch.Reference(scale)) {
    for (size_t i = 0; i < expected.y.size(); ++i) {
      // kOwn: a number that F32 holds is one value and nothing else.
      const float y = static_cast<float>(expected.y[i]);
      const bool exact =
          plan.data == Data::kEven || (plan.data == Data::kOwn && y == expected.y[i]);
      if (!exact) continue;
      expected.y[i] = y;
      expected.bound[i] = 0;
    }
    if (type != DType::kI4) return;
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
  for (const Plan& plan : plans) {
    const bool quantized = type == DType::kI4 || type == DType::kI8;
    if (plan.data == Data::kPeaks && !quantized) continue;
    if (plan.data == Data::kSmallTies && !quantized) continue;
    if (plan.data == Data::kLargest && type != DType::kI8) continue;
    const auto known = std::make_shared<KnownBatch>(type, plan);
    cases.push_back([known](Device& device) { return known->Matches(device); });
  }
  return cases;
}

// Each head has one value, or in the last head key, that is not finite: at each element of a word
// of KV16, in each word of 64 elements. Its key is at each place of a block that lanes differ in
// (by register of their keys; a lane of odd number), in each of `blocks` blocks of a step, of which
// one plan has eight. Rows that do not see it are not to know of it.
Plan HiddenValues(int dim, int64_t group, int64_t blocks, int64_t part, int64_t older,
                  int64_t rows) {
  constexpr int64_t kPlaces[] = {2, 15, 10, 7};
  constexpr int kHeads = 8;
  Plan plan = {dim, group, kHeads, kHeads, {{older, rows}}};
  plan.data = Data::kOwn;
  for (int h = 0; h < kHeads; ++h) {
    const int64_t index = kHeads * part + h;
    // One block: the first place in every word of 64.
    const int64_t place = blocks == 1 ? (h % 2 == 0 ? 0 : (h + 1) / 2 % 4) : index / blocks % 4;
    const int64_t element = (64 * (h / 2) + 8 * (h / 2 % 2)) % (dim / 8 * 8) + h;
    plan.bad.push_back({older / 16 * 16 + index % blocks * 16 + kPlaces[place], h, element,
                        blocks == 1 && h + 1 == kHeads, h % 4 < 2 ? NAN : INFINITY});
  }
  return plan;
}

// Tokens whose rows end at every place of a block of keys, for either half of a tile; several
// ranges, rows that see nothing of the last one, several blocks a warp.
template <DType kType>
VerificationCases DecodeCases() {
  std::vector<Plan> plans = {{48, 16, 1, 2, {{10, 12}}, 0, Data::kEven},
                             {112, 16, 1, 2, {{20, 3}}},
                             {176, 16, 1, 2, {{20, 3}}},
                             {64, 16, 2, 2, {{20, 16}, {28, 16}, {0, 1}}, 0.03f},
                             {64, 32, 1, 3, {{127, 4}}},
                             {128, 32, 2, 6, {{40, 3}}},
                             {128, 64, 1, 2, {{13, 3}}},
                             {256, 16, 1, 2, {{13, 3}}},
                             {256, 32, 1, 2, {{13, 3}}},
                             {256, 64, 1, 2, {{13, 3}}},
                             {256, 128, 1, 2, {{13, 3}}},
                             {16, 0, 1, 1, {{1, 9}}},
                             {66, 0, 1, 1, {{1, 9}}},
                             {130, 0, 1, 1, {{1, 9}}}};
  for (const int dim : {64, 128, 256}) {
    plans.push_back({dim, 0, 1, 1, {{3, 1}}});
    plans.push_back({dim, 0, 1, 1, {{3, 1}, {0, 65}}});
    plans.push_back({dim, 0, 2, 2, {{1, 16}, {9, 16}}, 0, Data::kLargest});
    plans.push_back({dim, 0, 1, 1, {{20, 16}}, 0.03f});
    plans.push_back({dim, 0, 1, 1, {{28, 16}}, 0, Data::kEven});
    plans.push_back({dim, 16, 1, 1, {{121, 16}}, 0, Data::kEven});
    plans.push_back({dim, 16, 1, 2, {{119, 12}, {1, 2}}, 0, Data::kOwn});
    plans.push_back({dim, 0, 1, dim / 2, {{3, 1}}, 0, Data::kPeaks});
    plans.push_back({dim, 0, 1, std::max(72, dim / 2), {{3, 1}}, 0.03f, Data::kInfinite});
    plans.push_back({dim, 0, 1, 1, {{2, 16}, {5, 16}}, 0, Data::kTies});
    plans.push_back({dim, 0, 1, 1, {{2, 16}, {5, 16}}, 0, Data::kSmallTies});
    plans.push_back(HiddenValues(dim, 16, 1, 0, 65, 16));
  }
  return Cases(kType, plans);
}

// As above; one and several tiles and stages.
template <DType kType>
VerificationCases PrefillCases() {
  std::vector<Plan> plans = {{48, 0, 1, 2, {{0, 40}}},
                             {80, 16, 1, 2, {{20, 33}}, 0, Data::kEven},
                             {112, 16, 1, 2, {{20, 33}}},
                             {144, 16, 1, 2, {{20, 33}}},
                             {64, 32, 1, 33, {{62, 2}}},
                             {96, 32, 1, 33, {{62, 2}}},
                             {96, 48, 1, 33, {{62, 2}}},
                             {128, 32, 1, 33, {{62, 2}}},
                             {128, 64, 1, 33, {{62, 2}}},
                             {256, 32, 1, 33, {{62, 2}}},
                             {256, 64, 1, 33, {{62, 2}}},
                             {256, 128, 1, 33, {{62, 2}}},
                             {64, 16, 1, 2, {{200, 35}}}};
  for (const int dim : {64, 96, 128, 256}) {
    const int64_t heads = std::max(33, dim / 4);
    plans.push_back({dim, 0, 1, 1, {{20, 70}}, 0.03f});
    if (kType == DType::kI4) plans.push_back({dim, 16, 1, 1, {{20, 70}}, 0.03f});
    plans.push_back({dim, 16, 1, 1, {{28, 80}}, 0, Data::kEven});
    plans.push_back({dim, 16, 1, 1, {{150, 66}}, 0, Data::kOwn});
    plans.push_back({dim, 0, 2, 2, {{1, 66}, {9, 66}}, 0, Data::kLargest});
    plans.push_back({dim, 0, 1, heads, {{2, 2}}, 0, Data::kPeaks});
    plans.push_back({dim, 0, 1, heads, {{2, 2}}, 0.03f, Data::kInfinite});
    plans.push_back({dim, 0, 1, 1, {{2, 66}}, 0, Data::kTies});
    plans.push_back({dim, 0, 1, 1, {{2, 66}}, 0, Data::kSmallTies});
    const int64_t blocks = dim == 64 ? 4 : dim == 96 || (dim == 128 && kType == DType::kI8) ? 2 : 1;
    for (int64_t part = 0; part < (blocks + 1) / 2; ++part) {
      plans.push_back(HiddenValues(dim, 16, blocks, part, 3, 66));
    }
  }
  return Cases(kType, plans);
}

// Heads of every size, odd numbers of words among them, end somewhere else in a lane's parts.
VerificationCases F32Cases() {
  std::vector<Plan> plans = {{64, 0, 2, 2, {{20, 16}, {28, 16}, {0, 1}}, 0.03f},
                             {254, 0, 1, 2, {{40, 3}}},
                             {18, 0, 1, 2, {{3, 40}}},
                             {64, 0, 1, 3, {{127, 2}}},
                             {64, 0, 1, 2, {{119, 12}, {1, 2}}, 0, Data::kOwn},
                             {128, 0, 1, 2, {{121, 16}}, 0, Data::kEven},
                             HiddenValues(64, 0, 1, 0, 65, 16),
                             {250, 0, 2, 2, {{127, 3}, {0, 1}}, 0.03f}};
  for (int dim = 16; dim <= 256; dim += 2) {
    if (dim % 32 > 4 && dim % 32 < 30) continue;
    plans.push_back({dim, 0, 1, 1, {{16, 1}}, 0.03f});
  }
  return Cases(DType::kF32, plans);
}

// The merge by itself, of states that make every step exact: powers of two between the maxima,
// whole numbers for the rest. Some ranges have seen nothing.
bool VerifyMerge(Device& device, int dim, int64_t ranges) {
  constexpr int kHeads = 3, kKvHeads = 2, kRows = 16;
  std::mt19937_64 random(static_cast<uint64_t>(dim + ranges));
  const int64_t last = ranges > 16 ? 131072 - 5 : ranges * 128 - 5;
  // A row that is merged, two rows, rows that are another kernel's, keys that are one range.
  const std::vector<DeviceSequence> sequences = {
      {0, 0, last, 1, 0}, {0, 0, last, 2, 1}, {0, 0, last, 30, 3}, {0, 0, 100, 1, 33}};
  const int64_t rows = 34, width = kKvHeads * kHeads * dim;
  AttentionParameters p = {};
  p.kv.kv_heads = kKvHeads;
  p.kv.head_dim = dim;
  p.count = static_cast<int32_t>(sequences.size());
  p.heads = kHeads;
  p.ranges = static_cast<int32_t>(ranges);
  p.state_rows = kRows;
  p.state_slots = p.count * kRows * kKvHeads * ranges;
  p.y_stride = width + 1;
  std::vector<float> states(static_cast<size_t>(p.state_slots * (2 + dim)));
  for (float& s : states) s = static_cast<float>(UniformInt(random, -50, 50));
  for (int64_t slot = 0; slot < p.state_slots; ++slot) {
    const bool none = slot % 5 == 3;
    states[2 * slot] = none ? -INFINITY : static_cast<float>(UniformInt(random, -6, 3));
    states[2 * slot + 1] = none ? 0.0f : static_cast<float>(UniformInt(random, 1, 9));
    if (none) std::fill_n(&states[2 * p.state_slots + slot * dim], dim, 0.0f);
  }
  std::vector<float> expected(static_cast<size_t>(rows * p.y_stride), 12345.0f);
  for (int64_t i = 0; i < 2; ++i) {
    for (int64_t row = 0; row < sequences[i].rows * kHeads; ++row) {
      for (int64_t head = 0; head < kKvHeads; ++head) {
        const int64_t slot = StateSlot(p, i, row, head, 0);
        float* y = &expected[(sequences[i].first_row + row / kHeads) * p.y_stride +
                             (head * kHeads + row % kHeads) * dim];
        for (int64_t d = 0; d < dim; ++d) {
          double sum = 0, total = 0;
          for (int64_t r = 0; r < ranges; ++r) {
            const double weight = std::exp2(states[2 * (slot + r)]);
            sum += weight * states[2 * (slot + r) + 1];
            total += weight * states[2 * p.state_slots + (slot + r) * dim + d];
          }
          y[d] = static_cast<float>(total / sum);
        }
      }
    }
  }
  const OnDevice<DeviceSequence> on_device(device, sequences);
  const OnDevice<float> in(device, states);
  const OnDevice<float> out(device, std::vector<float>(expected.size(), 12345.0f));
  for (const Status& s : {on_device.status(), in.status(), out.status()}) {
    if (!s.ok()) return false;
  }
  p.sequences = on_device.get();
  p.states = in.get();
  p.y = out.get();
  LaunchShape launch;
  launch.block_x = kMergeThreads;
  launch.grid_x = static_cast<unsigned>(p.count * kRows * kKvHeads * 32 / kMergeThreads + 1);
  if (!LaunchKernel(device, {"attention_merge", "attention_merge"}, launch, p).ok()) return false;
  Status status;
  const std::vector<float> got = out.Read(&status);
  return status.ok() && got == expected;
}

VerificationCases MergeCases() {
  return {[](Device& device) { return VerifyMerge(device, 16, 2); },
          [](Device& device) { return VerifyMerge(device, 66, 5); },
          [](Device& device) { return VerifyMerge(device, 256, 7); },
          [](Device& device) { return VerifyMerge(device, 256, 64); }};
}

const std::vector<int> kAll = {80, 89, 90, 120};
const VerificationRegistration kRegistrations[] = {
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
    VerificationRegistration({"attention f32", {"attention_f32"}, F32Cases, kAll}),
    VerificationRegistration({"attention merge", {"attention_merge"}, MergeCases, kAll}),
};

}  // namespace
}  // namespace nibble::cuda::attention
