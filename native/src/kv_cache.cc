// SPDX-License-Identifier: Apache-2.0
#include "native/src/kv_cache.h"

#include <cmath>

#include "native/src/graph.h"

namespace nibble::abi {
namespace {

constexpr int kMinHeadDim = 16, kMaxHeadDim = 256;
constexpr int64_t kMaxCapacity = int64_t{1} << 40;
// Bytes of a cache stay below this, so that the kernels may round up without a check.
constexpr int64_t kMaxBytes = int64_t{1} << 62;

// No model comes near: a layer or head count above this is garbage, and must not make the
// process touch gigabytes before an allocation fails.
constexpr int64_t kMaxLayersOrHeads = 65536;

nb_status CheckCountRange(const Arg& arg, int64_t value, int64_t largest) {
  if (value >= 1 && value <= largest) return NB_OK;
  return FailArg(NB_INVALID_ARGUMENT, arg, "%lld but 1..%lld was expected",
                 static_cast<long long>(value), static_cast<long long>(largest));
}

nb_status CheckFactors(const char* function, const char* field, const nb_kv_cache_options& o,
                       const float* factors) {
  if (factors == nullptr) return NB_OK;
  const Arg arg{function, "options", -1, field};
  if (o.type != NB_I4) {
    return FailArg(NB_INVALID_ARGUMENT, arg, "given, but only type I4 has factors: expected NULL");
  }
  if (reinterpret_cast<uintptr_t>(factors) % alignof(float) != 0) {
    return FailArg(NB_INVALID_ARGUMENT, arg, "address %p but a multiple of 4 was expected",
                   static_cast<const void*>(factors));
  }
  for (int32_t i = 0; i < o.layers; ++i) {
    if (std::isnormal(factors[i]) && factors[i] > 0) continue;
    return FailArg(NB_INVALID_ARGUMENT, arg,
                   "factor %d is %g but a normal positive number was expected", i,
                   static_cast<double>(factors[i]));
  }
  return NB_OK;
}

nb_status CheckGroupSize(const Arg& arg, const nb_kv_cache_options& o) {
  if (o.group_size == 0) return NB_OK;
  const auto given = static_cast<long long>(o.group_size);
  if (o.type != NB_I4) {
    return FailArg(NB_INVALID_ARGUMENT, arg, "%lld but only type I4 has groups: 0 was expected",
                   given);
  }
  if (o.group_size < 0 || o.group_size % 16 != 0 || o.head_dim % o.group_size != 0) {
    return FailArg(NB_INVALID_ARGUMENT, arg,
                   "%lld but a multiple of 16 that divides head_dim (%d), or 0, was expected",
                   given, o.head_dim);
  }
  return NB_OK;
}

// Whether a cache of F32, the largest type, with as many scales fits in 62 bits.
bool SizeFits(const nb_kv_cache_options& o) {
  int64_t tokens = 0, n = 0;
  return CheckedAdd(o.capacity, 64, &tokens) && CheckedMul(tokens, o.layers, &n) &&
         CheckedMul(n, o.kv_heads, &n) && CheckedMul(n, kMaxHeadDim, &n) && n < kMaxBytes / 16;
}

nb_status CheckOptions(const char* function, const nb_kv_cache_options* options,
                       KvCacheShape* shape) {
  const Arg arg{function, "options"};
  NIBBLE_RETURN_IF_FAILED(CheckNotNull(arg, options));
  const nb_kv_cache_options& o = *options;
  NIBBLE_RETURN_IF_FAILED(CheckStructSize(arg, o.struct_size, sizeof(o)));
  if (o.type != NB_I4 && o.type != NB_I8 && o.type != NB_BF16 && o.type != NB_F32) {
    return FailArg(NB_INVALID_ARGUMENT, arg.Field("type"),
                   "%d (%s) but I4, I8, BF16 or F32 was expected", o.type, DTypeName(o.type));
  }
  NIBBLE_RETURN_IF_FAILED(CheckCountRange(arg.Field("layers"), o.layers, kMaxLayersOrHeads));
  NIBBLE_RETURN_IF_FAILED(
      CheckCountRange(arg.Field("kv_heads"), o.kv_heads, kMaxLayersOrHeads));
  if (o.head_dim < kMinHeadDim || o.head_dim > kMaxHeadDim || o.head_dim % 2 != 0) {
    return FailArg(NB_INVALID_ARGUMENT, arg.Field("head_dim"),
                   "%d but an even number in %d..%d was expected", o.head_dim, kMinHeadDim,
                   kMaxHeadDim);
  }
  NIBBLE_RETURN_IF_FAILED(CheckCountRange(arg.Field("capacity"), o.capacity, kMaxCapacity));
  NIBBLE_RETURN_IF_FAILED(CheckGroupSize(arg.Field("group_size"), o));
  if (!SizeFits(o)) {
    return FailArg(NB_INVALID_ARGUMENT, arg.Field("capacity"),
                   "%lld tokens of %d layers and %d heads overflow a byte count",
                   static_cast<long long>(o.capacity), o.layers, o.kv_heads);
  }
  NIBBLE_RETURN_IF_FAILED(CheckFactors(function, "key_factors", o, o.key_factors));
  NIBBLE_RETURN_IF_FAILED(CheckFactors(function, "value_factors", o, o.value_factors));
  shape->type = static_cast<DType>(o.type);
  shape->layers = o.layers;
  shape->kv_heads = o.kv_heads;
  shape->head_dim = o.head_dim;
  shape->capacity = o.capacity;
  shape->group_size = o.group_size == 0 ? o.head_dim : o.group_size;
  return NB_OK;
}

nb_status Create(nb_context* context, const nb_kv_cache_options* options, nb_kv_cache** cache) {
  constexpr char kFunction[] = "nb_kv_cache_create";
  NIBBLE_RETURN_IF_FAILED(CheckNotNull({kFunction, "cache"}, cache));
  *cache = nullptr;
  NIBBLE_RETURN_IF_FAILED(CheckContext(kFunction, context));
  KvCacheShape shape;
  NIBBLE_RETURN_IF_FAILED(CheckOptions(kFunction, options, &shape));
  const float *key_factors = options->key_factors, *value_factors = options->value_factors;
  const Turn turn(context->lock);
  NIBBLE_RETURN_IF_FAILED(CheckNotRecording(kFunction, context));
  if (context->cuda == nullptr) {
    *cache = new nb_kv_cache(shape, key_factors, value_factors);
    return NB_OK;
  }
  const cuda::Backend* backend = context->backend;
  cuda::BackendCache* made = nullptr;
  NIBBLE_RETURN_IF_FAILED(CallCuda(kFunction, [&](cuda::BackendError* error) {
    return backend->cache_create(context->cuda, &shape, key_factors, value_factors, &made, error);
  }));
  try {
    *cache = new nb_kv_cache(shape, context->device, backend, made);
  } catch (...) {
    backend->cache_destroy(made);
    throw;
  }
  return NB_OK;
}

nb_status CheckCount(const char* function, const nb_sequence* sequences, int32_t count) {
  if (count < 0) {
    return FailArg(NB_INVALID_ARGUMENT, {function, "count"}, "%d but at least 0 was expected",
                   count);
  }
  return count == 0 ? NB_OK : CheckNotNull({function, "sequences"}, sequences);
}

// start >= 0, rows >= 0, and neither start + rows nor the sum of all rows overflows.
nb_status CheckPositions(const char* function, const nb_sequence& s, int64_t index,
                         int64_t* total) {
  const Arg arg{function, "sequences", index};
  if (s.start < 0) {
    return FailArg(NB_INVALID_ARGUMENT, arg.Field("start"), "%lld but at least 0 was expected",
                   static_cast<long long>(s.start));
  }
  int64_t end = 0;
  if (s.rows < 0 || !CheckedAdd(s.start, s.rows, &end) || !CheckedAdd(*total, s.rows, total)) {
    return FailArg(NB_INVALID_ARGUMENT, arg.Field("rows"),
                   "%lld but a count that is not negative and whose sums fit in 63 bits was "
                   "expected",
                   static_cast<long long>(s.rows));
  }
  return NB_OK;
}

// length: of the layer of the sequence's cache at the time of the call.
nb_status CheckRange(const char* function, const nb_sequence& s, int64_t index, int32_t layer,
                     int64_t length, Batch::Positions positions) {
  const Arg arg{function, "sequences", index};
  const auto start = static_cast<long long>(s.start), rows = static_cast<long long>(s.rows);
  if (positions == Batch::Positions::kAttend) {
    if (s.start + s.rows <= length) return NB_OK;
    return FailArg(NB_INVALID_ARGUMENT, arg.Field("rows"),
                   "positions %lld..%lld but layer %d of the cache holds %lld tokens", start,
                   start + rows - 1, layer, static_cast<long long>(length));
  }
  if (s.start > length) {
    return FailArg(NB_INVALID_ARGUMENT, arg.Field("start"),
                   "%lld but at most %lld, the length of layer %d of the cache, was expected",
                   start, static_cast<long long>(length), layer);
  }
  const int64_t capacity = s.cache->shape.capacity;
  if (s.start + s.rows <= capacity) return NB_OK;
  return FailArg(NB_INVALID_ARGUMENT, arg.Field("rows"),
                 "%lld at start %lld, but the cache has a capacity of %lld tokens", rows, start,
                 static_cast<long long>(capacity));
}

void ClearSequences(nb_context* context, int32_t count) {
  context->sequences.clear();
  context->cuda_sequences.clear();
  context->sequences.reserve(static_cast<size_t>(count));
  context->cuda_sequences.reserve(static_cast<size_t>(count));
}

void AddSequence(nb_context* context, const nb_sequence& s, bool with_cache) {
  const bool cached = with_cache && s.cache != nullptr;
  if (context->cuda == nullptr) {
    context->sequences.push_back({cached ? s.cache->cpu.get() : nullptr, s.start, s.rows});
  } else {
    context->cuda_sequences.push_back({cached ? s.cache->cuda : nullptr, s.start, s.rows});
  }
}

}  // namespace

Batch::~Batch() {
  for (nb_kv_cache* cache : leased()) cache->in_use.store(false, std::memory_order_release);
  leased().clear();
}

nb_status Batch::Lease(const char* function, const nb_sequence* sequences, int64_t index) {
  const Arg arg{function, "sequences", index, "cache"};
  nb_kv_cache* cache = sequences[index].cache;
  if (cache == nullptr) {
    return FailArg(NB_INVALID_ARGUMENT, arg, "NULL but a cache was expected");
  }
  NIBBLE_RETURN_IF_FAILED(CheckSameDevice(arg, cache->device, context_));
  if (cache->in_use.exchange(true, std::memory_order_acquire)) {
    for (int64_t i = 0; i < index; ++i) {
      if (sequences[i].cache != cache) continue;
      return FailArg(NB_INVALID_ARGUMENT, arg,
                     "the cache of sequences[%lld] again, but one cache for each sequence was "
                     "expected",
                     static_cast<long long>(i));
    }
    return FailArg(NB_INVALID_ARGUMENT, arg,
                   "in use by another call, but a cache serves one call at a time");
  }
  leased().push_back(cache);  // has room: reserved before
  if (shape_ == nullptr) {
    shape_ = &cache->shape;
    return NB_OK;
  }
  if (*shape_ == cache->shape) return NB_OK;
  const KvCacheShape &a = cache->shape, &b = *shape_;
  return FailArg(NB_INVALID_ARGUMENT, arg,
                 "type %s, %d layers, %d heads of %d, groups of %lld, but those of "
                 "sequences[0].cache (%s, %d, %d, %d, %lld) were expected",
                 DTypeName(static_cast<int32_t>(a.type)), a.layers, a.kv_heads, a.head_dim,
                 static_cast<long long>(a.group_size), DTypeName(static_cast<int32_t>(b.type)),
                 b.layers, b.kv_heads, b.head_dim, static_cast<long long>(b.group_size));
}

nb_status Batch::Open(const char* function, int32_t layer, const nb_sequence* sequences,
                      int32_t count, Positions positions) {
  NIBBLE_RETURN_IF_FAILED(CheckCount(function, sequences, count));
  ClearSequences(context_, count);
  leased().clear();
  leased().reserve(static_cast<size_t>(count));
  for (int64_t i = 0; i < count; ++i) {
    const nb_sequence& s = sequences[i];
    NIBBLE_RETURN_IF_FAILED(Lease(function, sequences, i));
    if (layer < 0 || layer >= shape_->layers) {
      return FailArg(NB_INVALID_ARGUMENT, {function, "layer"}, "%d but 0..%d was expected",
                     layer, shape_->layers - 1);
    }
    NIBBLE_RETURN_IF_FAILED(CheckPositions(function, s, i, &rows_));
    if (context_->recording == nullptr) {
      NIBBLE_RETURN_IF_FAILED(
          CheckRange(function, s, i, layer, s.cache->length(layer), positions));
    }
    AddSequence(context_, s, true);
  }
  return CheckRecordedBatch(function, context_, sequences, count);
}

nb_status Batch::OpenForGraph(const char* function, const RecordedCalls& recorded,
                              const nb_sequence* sequences, int32_t count) {
  NIBBLE_RETURN_IF_FAILED(CheckCount(function, sequences, count));
  const std::vector<nb_sequence>& batch = recorded.batch;
  if (static_cast<size_t>(count) != batch.size()) {
    return FailArg(NB_INVALID_ARGUMENT, {function, "count"},
                   "%d but %zu, as recorded, was expected", count, batch.size());
  }
  ClearSequences(context_, count);
  leased().clear();
  leased().reserve(batch.size());
  std::vector<int64_t> lengths;
  for (int64_t i = 0; i < count; ++i) {
    const nb_sequence& s = sequences[i];
    const nb_sequence& expected = batch[static_cast<size_t>(i)];
    const Arg arg{function, "sequences", i};
    if (expected.cache != nullptr) {
      if (s.cache != expected.cache) {
        return FailArg(NB_INVALID_ARGUMENT, arg.Field("cache"),
                       "another cache than the one recorded");
      }
      NIBBLE_RETURN_IF_FAILED(Lease(function, sequences, i));
    }
    NIBBLE_RETURN_IF_FAILED(CheckPositions(function, s, i, &rows_));
    if (s.rows != expected.rows) {
      return FailArg(NB_INVALID_ARGUMENT, arg.Field("rows"),
                     "%lld but %lld, as recorded, was expected", static_cast<long long>(s.rows),
                     static_cast<long long>(expected.rows));
    }
    if (expected.cache != nullptr && s.start + s.rows > recorded.max_tokens) {
      return FailArg(NB_INVALID_ARGUMENT, arg.Field("start"),
                     "%lld, which makes %lld tokens, but at most %lld was expected: max_tokens "
                     "of the recording",
                     static_cast<long long>(s.start), static_cast<long long>(s.start + s.rows),
                     static_cast<long long>(recorded.max_tokens));
    }
    // What the calls will find, one after the other.
    if (!recorded.uses.empty()) {
      lengths.clear();
      for (int32_t l = 0; l < s.cache->shape.layers; ++l) lengths.push_back(s.cache->length(l));
    }
    for (const CacheUse& use : recorded.uses) {
      int64_t& length = lengths[static_cast<size_t>(use.layer)];
      NIBBLE_RETURN_IF_FAILED(CheckRange(function, s, i, use.layer, length, use.positions));
      if (use.positions == Positions::kAppend) length = s.start + s.rows;
    }
    AddSequence(context_, s, expected.cache != nullptr);
  }
  return NB_OK;
}

nb_status ReadPositions(const char* function, nb_context* context, const nb_sequence* sequences,
                        int32_t count, int64_t* rows) {
  NIBBLE_RETURN_IF_FAILED(CheckCount(function, sequences, count));
  ClearSequences(context, count);
  *rows = 0;
  for (int64_t i = 0; i < count; ++i) {
    NIBBLE_RETURN_IF_FAILED(CheckPositions(function, sequences[i], i, rows));
    AddSequence(context, sequences[i], false);
  }
  return CheckRecordedBatch(function, context, sequences, count);
}

nb_status CheckRecordedBatch(const char* function, const nb_context* context,
                             const nb_sequence* sequences, int32_t count) {
  if (context->recording == nullptr || !context->recording->has_batch) return NB_OK;
  const std::vector<nb_sequence>& batch = context->recording->batch;
  if (static_cast<size_t>(count) != batch.size()) {
    return FailArg(NB_INVALID_ARGUMENT, {function, "count"},
                   "%d but %zu, as in the recording's first call with sequences, was expected",
                   count, batch.size());
  }
  for (int64_t i = 0; i < count; ++i) {
    const nb_sequence& first = batch[static_cast<size_t>(i)];
    const bool other = sequences[i].cache != nullptr && first.cache != nullptr &&
                       sequences[i].cache != first.cache;
    if (!other && sequences[i].rows == first.rows) continue;
    return FailArg(NB_INVALID_ARGUMENT, {function, "sequences", i},
                   "%s than in an earlier call of the recording, but all its calls need one batch",
                   other ? "another cache" : "other rows");
  }
  return NB_OK;
}

void KeepBatch(nb_context* context, const nb_sequence* sequences, int32_t count) {
  if (context->recording == nullptr) return;
  RecordedCalls& recorded = *context->recording;
  if (!recorded.has_batch) recorded.batch.assign(sequences, sequences + count);
  recorded.has_batch = true;
  for (int64_t i = 0; i < count; ++i) {
    nb_sequence& kept = recorded.batch[static_cast<size_t>(i)];
    if (sequences[i].cache != nullptr) kept.cache = sequences[i].cache;
  }
}

void KeepUse(nb_context* context, int32_t layer, Batch::Positions positions) {
  if (context->recording != nullptr) context->recording->uses.push_back({layer, positions});
}

void SetLengths(const nb_context& context, int32_t layer) {
  for (size_t i = 0; i < context.leased.size(); ++i) {
    const cuda::BackendSequence& s = context.cuda_sequences[i];
    context.leased[i]->lengths[static_cast<size_t>(layer)] = s.start + s.rows;
  }
}

}  // namespace nibble::abi

using namespace nibble::abi;

nb_status nb_kv_cache_create(nb_context* context, const nb_kv_cache_options* options,
                             nb_kv_cache** cache) {
  return Guard("nb_kv_cache_create", [&] { return Create(context, options, cache); });
}

nb_status nb_kv_cache_destroy(nb_kv_cache* cache) {
  return Guard("nb_kv_cache_destroy", [&] {
    delete cache;
    return NB_OK;
  });
}

int64_t nb_kv_cache_length(const nb_kv_cache* cache, int32_t layer) {
  if (cache == nullptr || layer < 0 || layer >= cache->shape.layers) return -1;
  return cache->length(layer);
}

int64_t nb_kv_cache_bytes(const nb_kv_cache* cache) {
  return cache == nullptr ? 0 : cache->bytes();
}
