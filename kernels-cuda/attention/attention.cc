// SPDX-License-Identifier: Apache-2.0
//
// Host side of attention: geometry of caches, and the grids, which depend on bounds alone.
#include "kernels-cuda/attention/attention.h"

#include <algorithm>
#include <limits>
#include <vector>

#include "kernels-cuda/attention/kv_geometry.h"
#include "kernels-cuda/attention/shapes.h"

namespace nibble::cuda::attention {
namespace {

constexpr float kLog2E = 1.44269504f;
constexpr int64_t kMaxBlocks = std::numeric_limits<int32_t>::max();  // of a grid in x
constexpr int64_t kCacheAlignment = 256;
constexpr int64_t kWordBytes = 16;

int64_t RowBytes(const KvCacheShape& shape) {
  const int64_t bits = shape.type == DType::kI4     ? 4
                       : shape.type == DType::kI8   ? 8
                       : shape.type == DType::kBF16 ? 16
                                                    : 32;
  return RoundUp(shape.head_dim * bits, 8 * kWordBytes) / 8;
}

int64_t FactorBytes(const KvCacheShape& shape) {
  return RoundUp(int64_t{shape.layers} * 2 * int64_t{sizeof(float)}, kCacheAlignment);
}

KvGeometry Geometry(const KvCacheShape& shape, int layer) {
  KvGeometry g = {};
  g.data = FactorBytes(shape);
  g.kv_heads = shape.kv_heads;
  g.head_dim = shape.head_dim;
  g.group_dim = shape.type == DType::kI4 ? static_cast<int32_t>(shape.group_size) : shape.head_dim;
  g.groups = shape.head_dim / g.group_dim;
  g.row_bytes = static_cast<int32_t>(RowBytes(shape));
  g.scale_bytes = shape.type == DType::kI4   ? g.groups * kKvBlockRows
                  : shape.type == DType::kI8 ? kKvBlockRows * static_cast<int32_t>(sizeof(float))
                                             : 0;
  g.block_bytes = 2 * (g.scale_bytes + kKvBlockRows * g.row_bytes);
  g.layer = layer;
  g.group_reciprocal = g.groups > 1 ? 65536 / (static_cast<uint32_t>(g.group_dim) / 16) + 1 : 0;
  return g;
}

// Tiles that a sequence of few rows may have; of F32, any sequence.
int64_t FewRowTiles(const KvCacheShape& shape, int64_t heads, const SequenceBatch& batch) {
  const int64_t rows = batch.max_rows * heads;
  if (shape.type == DType::kF32) return DivUp(rows, kTileRows);
  // One token's heads may be more than kFewRows.
  return DivUp(std::min(rows, std::max(kFewRows, heads)), kTileRows);
}

int64_t MaxRanges(const SequenceBatch& batch) {
  return std::min<int64_t>(kMaxRanges, DivUp(batch.max_keys, kMinRangeKeys));
}

// Rows that may have states, for a sequence.
int64_t StateRows(const SequenceBatch& batch, int64_t heads) {
  return RoundUp(std::min(batch.max_rows * heads, std::max(kFewRows, heads)), kTileRows);
}

// An error where kernels could not count so many.
Status CheckCount(int64_t count, const char* what) {
  if (count <= kMaxCount) return Status();
  return Status(NB_UNSUPPORTED, "a batch of " + std::to_string(count) + " " + what +
                                    ", but at most " + std::to_string(kMaxCount) +
                                    " are supported");
}

// Blocks of threads, or an error where a grid cannot hold them.
Status Blocks(int64_t blocks, const char* what, unsigned* grid) {
  if (blocks > kMaxBlocks) {
    return Status(NB_UNSUPPORTED, std::string(what) + " of this batch needs " +
                                      std::to_string(blocks) + " blocks of threads, but at most " +
                                      std::to_string(kMaxBlocks) + " fit in a launch");
  }
  *grid = static_cast<unsigned>(blocks);
  return Status();
}

// One kernel and how it is launched.
struct KernelLaunch {
  KernelId id;
  unsigned threads, shared_bytes;
  int64_t rows;  // of a tile
};

template <KvKind kKind, int kDim>
KernelLaunch Decode(const char* module, const char* name) {
  using Shape = DecodeShape<kKind, kDim>;
  return {{module, name}, Shape::kThreads, Shape::kSharedBytes, kTileRows};
}
template <KvKind kKind, int kDim>
KernelLaunch Prefill(const char* module, const char* name) {
  using Shape = PrefillShape<kKind, kDim>;
  return {{module, name}, Shape::kThreads, Shape::kSharedBytes, Shape::kRows};
}

// The kernel of the next larger head size.
#define NIBBLE_ATTENTION_KERNEL(Kernel, kernel, name, kind, dim)                       \
  if (head_dim <= dim) {                                                               \
    return Kernel<KvKind::kind, dim>("attention_" #kernel "_" #name,                   \
                                     "attention_" #kernel "_" #name "_" #dim);         \
  }
#define NIBBLE_ATTENTION_DECODE(name, kind)                     \
  NIBBLE_ATTENTION_KERNEL(Decode, decode, name, kind, 64)       \
  NIBBLE_ATTENTION_KERNEL(Decode, decode, name, kind, 128)      \
  NIBBLE_ATTENTION_KERNEL(Decode, decode, name, kind, 256)
#define NIBBLE_ATTENTION_PREFILL(name, kind)                    \
  NIBBLE_ATTENTION_KERNEL(Prefill, prefill, name, kind, 64)     \
  NIBBLE_ATTENTION_KERNEL(Prefill, prefill, name, kind, 96)     \
  NIBBLE_ATTENTION_KERNEL(Prefill, prefill, name, kind, 128)    \
  NIBBLE_ATTENTION_KERNEL(Prefill, prefill, name, kind, 256)

KernelLaunch FewRowsKernel(DType type, int head_dim) {
  if (type == DType::kI4) {
    NIBBLE_ATTENTION_DECODE(i4, kI4)
  } else if (type == DType::kI8) {
    NIBBLE_ATTENTION_DECODE(i8, kI8)
  } else if (type == DType::kBF16) {
    NIBBLE_ATTENTION_DECODE(bf16, kBF16)
  }
  return {{"attention_f32", "attention_f32"}, F32Shape::kThreads, F32Shape::kSharedBytes,
          kTileRows};
}

KernelLaunch ManyRowsKernel(DType type, int head_dim) {
  if (type == DType::kI4) {
    NIBBLE_ATTENTION_PREFILL(i4, kI4)
  } else if (type == DType::kI8) {
    NIBBLE_ATTENTION_PREFILL(i8, kI8)
  } else {
    NIBBLE_ATTENTION_PREFILL(bf16, kBF16)
  }
  return {};
}

KernelId RopeKernel(DType type) {
  switch (type) {
    case DType::kI4: return {"rope_append", "rope_append_i4"};
    case DType::kI8: return {"rope_append", "rope_append_i8"};
    case DType::kBF16: return {"rope_append", "rope_append_bf16"};
    default: return {"rope_append", "rope_append_f32"};
  }
}

}  // namespace

int64_t KvCacheBytes(const KvCacheShape& shape) {
  const KvGeometry g = Geometry(shape, 0);
  int64_t bytes = 0;
  if (shape.capacity > std::numeric_limits<int64_t>::max() - kKvBlockRows ||
      __builtin_mul_overflow(DivUp(shape.capacity, kKvBlockRows), g.block_bytes, &bytes) ||
      __builtin_mul_overflow(bytes, shape.kv_heads, &bytes) ||
      __builtin_mul_overflow(bytes, shape.layers, &bytes) ||
      __builtin_add_overflow(bytes, g.data, &bytes)) {
    return -1;
  }
  return bytes;
}

Status PrepareKvCache(Device& device, const KvCacheShape& shape, const float* key_factors,
                      const float* value_factors, DevicePtr memory) {
  std::vector<float> factors(static_cast<size_t>(2 * shape.layers), 1.0f);
  for (int i = 0; i < shape.layers; ++i) {
    if (key_factors != nullptr) factors[static_cast<size_t>(2 * i)] = key_factors[i];
    if (value_factors != nullptr) factors[static_cast<size_t>(2 * i + 1)] = value_factors[i];
  }
  return device.CopyIn(memory, factors.data(),
                       static_cast<int64_t>(factors.size() * sizeof(float)));
}

Status RopeAppend(Device& device, const KvCacheShape& shape, int layer, int64_t q_heads,
                  const DeviceRows& q, const DeviceRows& k, const DeviceRows& v,
                  const DeviceRows& angles, const SequenceBatch& batch) {
  if (batch.count == 0 || batch.total_rows == 0) return Status();
  RopeParameters p = {};
  p.kv = Geometry(shape, layer);
  p.sequences = batch.sequences;
  p.q = q.values;
  p.k = k.values;
  p.v = v.values;
  p.angles = angles.values;
  p.q_stride = q.stride;
  p.k_stride = k.stride;
  p.v_stride = v.stride;
  p.angles_stride = angles.stride;
  const int64_t items = batch.total_rows * (q_heads + 2 * shape.kv_heads);
  NIBBLE_CUDA_RETURN_IF_FAILED(CheckCount(items, "tokens' heads"));
  NIBBLE_CUDA_RETURN_IF_FAILED(CheckCount(batch.max_keys, "keys a sequence"));
  p.rows = static_cast<int32_t>(batch.total_rows);
  p.q_heads = static_cast<int32_t>(q_heads);
  p.count = static_cast<int32_t>(batch.count);
  LaunchShape launch;
  launch.block_x = kRopeThreads;
  NIBBLE_CUDA_RETURN_IF_FAILED(
      Blocks(DivUp(items, kRopeThreads / 32), "the appending", &launch.grid_x));
  return LaunchKernel(device, RopeKernel(shape.type), launch, p);
}

int64_t ScratchBytes(const KvCacheShape& shape, int64_t q_heads, const SequenceBatch& batch) {
  const int64_t ranges = MaxRanges(batch);
  if (ranges <= 1) return 0;
  const int64_t rows = StateRows(batch, q_heads / shape.kv_heads);
  return batch.count * rows * shape.kv_heads * ranges * (2 + shape.head_dim) *
         static_cast<int64_t>(sizeof(float));
}

Status Attention(Device& device, const KvCacheShape& shape, int layer, int64_t q_heads,
                 const DeviceRows& q, float scale, const DeviceRows& output,
                 const SequenceBatch& batch, const Scratch& scratch) {
  if (batch.count == 0 || batch.total_rows == 0) return Status();
  const int64_t heads = q_heads / shape.kv_heads;
  const int64_t needed = ScratchBytes(shape, q_heads, batch);
  if (scratch.bytes < needed) {
    return Status(NB_INTERNAL, "attention got " + std::to_string(scratch.bytes) +
                                   " bytes of scratch, but " + std::to_string(needed) +
                                   " were expected");
  }
  NIBBLE_CUDA_RETURN_IF_FAILED(CheckCount(batch.max_keys, "keys a sequence"));
  NIBBLE_CUDA_RETURN_IF_FAILED(CheckCount(batch.max_rows * heads, "query rows a sequence"));
  AttentionParameters p = {};
  p.kv = Geometry(shape, layer);
  p.sequences = batch.sequences;
  p.q = q.values;
  p.y = output.values;
  p.states = scratch.memory;
  p.q_stride = q.stride;
  p.y_stride = output.stride;
  p.count = static_cast<int32_t>(batch.count);
  p.heads = static_cast<int32_t>(heads);
  p.ranges = static_cast<int32_t>(MaxRanges(batch));
  p.log2_scale = scale * kLog2E;

  // Sequences of few rows; F32: all.
  const int64_t tiles = FewRowTiles(shape, heads, batch);
  p.state_rows = static_cast<int32_t>(StateRows(batch, heads));
  p.state_slots = batch.count * p.state_rows * shape.kv_heads * p.ranges;
  p.tiles = static_cast<int32_t>(tiles);
  const bool all_few = HasFewRows(batch.max_rows, heads);
  const bool f32 = shape.type == DType::kF32;
  const KernelLaunch few = FewRowsKernel(shape.type, shape.head_dim);
  LaunchShape launch;
  launch.block_x = few.threads;
  launch.dynamic_shared_bytes = few.shared_bytes;
  NIBBLE_CUDA_RETURN_IF_FAILED(
      Blocks(batch.count * shape.kv_heads * tiles * p.ranges, "attention", &launch.grid_x));
  NIBBLE_CUDA_RETURN_IF_FAILED(LaunchKernel(device, few.id, launch, p));
  if (p.ranges > 1) {
    LaunchShape merge;
    merge.block_x = kMergeThreads;
    const int64_t rows = batch.count * p.state_rows * shape.kv_heads;
    NIBBLE_CUDA_RETURN_IF_FAILED(CheckCount(rows, "rows of all sequences and heads"));
    NIBBLE_CUDA_RETURN_IF_FAILED(Blocks(DivUp(rows, kMergeThreads / 32),
                                        "the merging of attention", &merge.grid_x));
    NIBBLE_CUDA_RETURN_IF_FAILED(
        LaunchKernel(device, {"attention_merge", "attention_merge"}, merge, p));
  }
  if (all_few || f32) return Status();

  // Sequences of many rows.
  const KernelLaunch many = ManyRowsKernel(shape.type, shape.head_dim);
  LaunchShape prefill;
  prefill.block_x = many.threads;
  prefill.dynamic_shared_bytes = many.shared_bytes;
  // The last tile of each sequence may be short; a batch cannot have more tiles than this.
  const int64_t most = std::min(
      batch.count * DivUp(batch.max_rows * heads, many.rows),
      batch.total_rows * heads / many.rows + batch.count);
  p.tiles = static_cast<int32_t>(most);
  NIBBLE_CUDA_RETURN_IF_FAILED(
      Blocks(most * shape.kv_heads, "attention", &prefill.grid_x));
  return LaunchKernel(device, many.id, prefill, p);
}

}  // namespace nibble::cuda::attention
