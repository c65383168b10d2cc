// SPDX-License-Identifier: Apache-2.0
//
// Rotary embedding, append and attention over a batch of sequences.
#include "kernels-cpu/attention/attention.h"

#include <cmath>

#include "native/src/kv_cache.h"
#include "native/src/memory.h"

namespace {

using namespace nibble;
using namespace nibble::abi;

// q's columns: query heads of head_dim, a whole number of them for each key/value head.
nb_status CheckQueryHeads(const Arg& arg, int64_t cols, const KvCacheShape& shape) {
  const int64_t unit = int64_t{shape.head_dim} * shape.kv_heads;
  if (cols > 0 && cols % unit == 0) return NB_OK;
  return FailArg(NB_INVALID_ARGUMENT, arg,
                 "%lld columns but a multiple of %lld (%d key/value heads of %d) was expected",
                 static_cast<long long>(cols), static_cast<long long>(unit), shape.kv_heads,
                 shape.head_dim);
}

nb_status DoRopeAngles(nb_context* context, const nb_tensor* inverse_frequencies,
                       const nb_sequence* sequences, int32_t count, const nb_tensor* angles) {
  static constexpr char kFunction[] = "nb_rope_angles";
  NIBBLE_RETURN_IF_FAILED(CheckContext(kFunction, context));
  View f, a;
  Expected vector = F32Vector(kAnySize);
  vector.names[0] = "D/2";
  NIBBLE_RETURN_IF_FAILED(
      CheckTensor({kFunction, "inverse_frequencies"}, inverse_frequencies, vector, &f));
  const Turn turn(context->lock);
  int64_t rows = 0;
  NIBBLE_RETURN_IF_FAILED(ReadPositions(kFunction, context, sequences, count, &rows));
  // 2 * cols cannot overflow: the bytes of inverse_frequencies fit.
  NIBBLE_RETURN_IF_FAILED(
      CheckTensor({kFunction, "angles"}, angles, Output(F32Rows(rows, 2 * f.cols)), &a));
  NIBBLE_RETURN_IF_FAILED(CheckDisjoint({kFunction, "angles"}, a, "inverse_frequencies", f));
  NIBBLE_RETURN_IF_FAILED(CheckPlaces(
      context, {{{kFunction, "inverse_frequencies"}, &f}, {{kFunction, "angles"}, &a}}));
  if (a.empty()) return NB_OK;
  KeepBatch(context, sequences, count);
  if (context->cuda == nullptr) {
    return Submit(context, [=](nb_context& c) {
      RopeAngles(c.workspace, f.f32(), f.cols, c.sequences.data(), count, a.f32(), a.stride);
      return NB_OK;
    });
  }
  const Work work = [f = CudaView(f), a = CudaView(a), count](nb_context& c) {
    return CallCuda(kFunction, [&](cuda::BackendError* error) {
      return c.backend->rope_angles(c.cuda, &f, c.cuda_sequences.data(), count, &a, error);
    });
  };
  return Submit(context, work);
}

nb_status DoRopeAppend(nb_context* context, int32_t layer, const nb_tensor* q, const nb_tensor* k,
                       const nb_tensor* v, const nb_tensor* angles, const nb_sequence* sequences,
                       int32_t count) {
  static constexpr char kFunction[] = "nb_rope_append";
  NIBBLE_RETURN_IF_FAILED(CheckContext(kFunction, context));
  const Turn turn(context->lock);
  Batch batch(context);
  NIBBLE_RETURN_IF_FAILED(
      batch.Open(kFunction, layer, sequences, count, Batch::Positions::kAppend));
  const KvCacheShape* shape = batch.shape();
  const int64_t rows = batch.rows();
  const int64_t kv_cols =
      shape == nullptr ? kAnySize : int64_t{shape->kv_heads} * shape->head_dim;
  View qv, kv, vv, av;
  NIBBLE_RETURN_IF_FAILED(CheckTensor({kFunction, "q"}, q,
                                      Output(F32Rows(rows, kAnySize, "Hq*D")), &qv));
  NIBBLE_RETURN_IF_FAILED(
      CheckTensor({kFunction, "k"}, k, F32Rows(rows, kv_cols, "Hkv*D"), &kv));
  NIBBLE_RETURN_IF_FAILED(
      CheckTensor({kFunction, "v"}, v, F32Rows(rows, kv_cols, "Hkv*D"), &vv));
  NIBBLE_RETURN_IF_FAILED(
      CheckOptionalTensor({kFunction, "angles"}, angles,
                          F32Rows(rows, shape == nullptr ? kAnySize : shape->head_dim, "D"), &av));
  if (shape == nullptr) return NB_OK;  // no sequences: nothing to do
  NIBBLE_RETURN_IF_FAILED(CheckQueryHeads({kFunction, "q"}, qv.cols, *shape));
  NIBBLE_RETURN_IF_FAILED(CheckDisjoint({kFunction, "q"}, qv, "k", kv));
  NIBBLE_RETURN_IF_FAILED(CheckDisjoint({kFunction, "q"}, qv, "v", vv));
  NIBBLE_RETURN_IF_FAILED(CheckDisjoint({kFunction, "q"}, qv, "angles", av));
  NIBBLE_RETURN_IF_FAILED(CheckPlaces(context, {{{kFunction, "q"}, &qv},
                                                {{kFunction, "k"}, &kv},
                                                {{kFunction, "v"}, &vv},
                                                {{kFunction, "angles"}, &av}}));
  KeepBatch(context, sequences, count);
  KeepUse(context, layer, Batch::Positions::kAppend);
  const int64_t q_heads = qv.cols / shape->head_dim;
  // Zero rows still drop the tokens from start on.
  if (context->cuda == nullptr) {
    return Submit(context, [=](nb_context& c) {
      RopeAppend(c.workspace, layer, qv.f32(), qv.stride, q_heads, kv.f32(), kv.stride, vv.f32(),
                 vv.stride, av.f32(), av.stride, c.sequences.data(), count);
      return NB_OK;
    });
  }
  if (rows > 0) {
    const Work work = [=, q = CudaView(qv), k = CudaView(kv), v = CudaView(vv),
                       a = CudaView(av)](nb_context& c) {
      return CallCuda(kFunction, [&](cuda::BackendError* error) {
        return c.backend->rope_append(c.cuda, layer, q_heads, &q, &k, &v, &a,
                                      c.cuda_sequences.data(), count, error);
      });
    };
    NIBBLE_RETURN_IF_FAILED(Submit(context, work));
  }
  if (context->recording == nullptr) SetLengths(*context, layer);
  return NB_OK;
}

nb_status DoAttention(nb_context* context, int32_t layer, const nb_tensor* q, float scale,
                      const nb_sequence* sequences, int32_t count, const nb_tensor* output) {
  static constexpr char kFunction[] = "nb_attention";
  NIBBLE_RETURN_IF_FAILED(CheckContext(kFunction, context));
  if (!std::isfinite(scale)) {
    return FailArg(NB_INVALID_ARGUMENT, {kFunction, "scale"},
                   "%g but a finite number was expected", static_cast<double>(scale));
  }
  const Turn turn(context->lock);
  Batch batch(context);
  NIBBLE_RETURN_IF_FAILED(
      batch.Open(kFunction, layer, sequences, count, Batch::Positions::kAttend));
  View qv, y;
  NIBBLE_RETURN_IF_FAILED(
      CheckTensor({kFunction, "q"}, q, F32Rows(batch.rows(), kAnySize, "Hq*D"), &qv));
  NIBBLE_RETURN_IF_FAILED(CheckTensor({kFunction, "output"}, output,
                                      Output(F32Rows(batch.rows(), qv.cols, "Hq*D")), &y));
  if (batch.shape() == nullptr) return NB_OK;  // no sequences: nothing to do
  NIBBLE_RETURN_IF_FAILED(CheckQueryHeads({kFunction, "q"}, qv.cols, *batch.shape()));
  NIBBLE_RETURN_IF_FAILED(CheckDisjoint({kFunction, "output"}, y, "q", qv));
  NIBBLE_RETURN_IF_FAILED(
      CheckPlaces(context, {{{kFunction, "q"}, &qv}, {{kFunction, "output"}, &y}}));
  if (y.empty()) return NB_OK;
  KeepBatch(context, sequences, count);
  KeepUse(context, layer, Batch::Positions::kAttend);
  const int64_t q_heads = qv.cols / batch.shape()->head_dim;
  if (context->cuda == nullptr) {
    return Submit(context, [=](nb_context& c) {
      Attention(c.workspace, layer, qv.f32(), qv.stride, q_heads, scale, c.sequences.data(),
                count, y.f32(), y.stride);
      return NB_OK;
    });
  }
  const Work work = [=, q = CudaView(qv), y = CudaView(y)](nb_context& c) {
    return CallCuda(kFunction, [&](cuda::BackendError* error) {
      return c.backend->attention(c.cuda, layer, q_heads, &q, scale, c.cuda_sequences.data(),
                                  count, &y, error);
    });
  };
  return Submit(context, work);
}

}  // namespace

nb_status nb_rope_angles(nb_context* context, const nb_tensor* inverse_frequencies,
                         const nb_sequence* sequences, int32_t count, const nb_tensor* angles) {
  return Guard("nb_rope_angles", [&] {
    return DoRopeAngles(context, inverse_frequencies, sequences, count, angles);
  });
}

nb_status nb_rope_append(nb_context* context, int32_t layer, const nb_tensor* q,
                         const nb_tensor* k, const nb_tensor* v, const nb_tensor* angles,
                         const nb_sequence* sequences, int32_t count) {
  return Guard("nb_rope_append", [&] {
    return DoRopeAppend(context, layer, q, k, v, angles, sequences, count);
  });
}

nb_status nb_attention(nb_context* context, int32_t layer, const nb_tensor* q, float scale,
                       const nb_sequence* sequences, int32_t count, const nb_tensor* output) {
  return Guard("nb_attention", [&] {
    return DoAttention(context, layer, q, scale, sequences, count, output);
  });
}
