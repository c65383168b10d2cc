// SPDX-License-Identifier: Apache-2.0
//
// Choosing a token from its logits.
#include <cmath>

#include "kernels-cpu/elementwise/sample.h"
#include "native/src/memory.h"

namespace {

using namespace nibble;
using namespace nibble::abi;

Expected Ids(int64_t rows) {
  return Output({DTypeBit(NB_I32), 1, {rows, 0}, {"M", ""}});
}

nb_status CheckLogits(const Arg& arg, const nb_tensor* logits, int64_t most, View* view) {
  NIBBLE_RETURN_IF_FAILED(CheckTensor(arg, logits, F32Rows(kAnySize, kAnySize, "N"), view));
  if (view->cols >= 1 && view->cols <= most) return NB_OK;
  return FailArg(NB_INVALID_ARGUMENT, arg, "%lld columns but 1..%lld was expected",
                 static_cast<long long>(view->cols), static_cast<long long>(most));
}

// One row after the other, on all threads: body(row) for each of rows.
template <class Body>
void ForEachRow(nb_context& context, int64_t rows, const Body& body) {
  ThreadPool& pool = context.workspace.pool();
  pool.Run([&](int thread) {
    const Range range = Share(rows, thread, pool.threads());
    for (int64_t r = range.begin; r < range.end; ++r) body(r);
  });
}

nb_status DoArgmax(nb_context* context, const nb_tensor* logits, const nb_tensor* ids) {
  static constexpr char kFunction[] = "nb_argmax";
  NIBBLE_RETURN_IF_FAILED(CheckContext(kFunction, context));
  const Arg logits_arg{kFunction, "logits"}, ids_arg{kFunction, "ids"};
  View l, i;
  NIBBLE_RETURN_IF_FAILED(CheckLogits(logits_arg, logits, INT32_MAX, &l));
  NIBBLE_RETURN_IF_FAILED(CheckTensor(ids_arg, ids, Ids(l.rows), &i));
  NIBBLE_RETURN_IF_FAILED(CheckDisjoint(ids_arg, i, "logits", l));
  const Turn turn(context->lock);
  NIBBLE_RETURN_IF_FAILED(CheckPlaces(context, {{logits_arg, &l}, {ids_arg, &i}}));
  if (l.rows == 0) return NB_OK;
  if (context->cuda == nullptr) {
    return Submit(context, [l, id = reinterpret_cast<int32_t*>(i.data)](nb_context& c) {
      ForEachRow(c, l.rows, [&](int64_t r) {
        id[r] = static_cast<int32_t>(Argmax(l.f32() + r * l.stride, l.cols));
      });
      return NB_OK;
    });
  }
  return Submit(context, [l = CudaView(l), i = CudaView(i)](nb_context& c) {
    return CallCuda(kFunction, [&](cuda::BackendError* error) {
      return c.backend->argmax(c.cuda, &l, &i, error);
    });
  });
}

nb_status CheckSampleOptions(const char* function, const nb_sample_options* options,
                             SampleOptions* out) {
  const Arg arg{function, "options"};
  NIBBLE_RETURN_IF_FAILED(CheckNotNull(arg, options));
  const nb_sample_options& o = *options;
  NIBBLE_RETURN_IF_FAILED(CheckStructSize(arg, o.struct_size, sizeof(o)));
  const auto fail = [&](const char* field, float value, const char* expected) {
    return FailArg(NB_INVALID_ARGUMENT, arg.Field(field), "%g but %s was expected",
                   static_cast<double>(value), expected);
  };
  // Written so that NaN fails.
  if (!(o.temperature >= 0 && o.temperature <= 100)) {
    return fail("temperature", o.temperature, "0 to 100");
  }
  if (o.top_k < 0) {
    return FailArg(NB_INVALID_ARGUMENT, arg.Field("top_k"), "%d but at least 0 was expected",
                   o.top_k);
  }
  if (!(o.top_p > 0 && o.top_p <= 1)) return fail("top_p", o.top_p, "above 0 to 1");
  if (!(o.min_p >= 0 && o.min_p <= 1)) return fail("min_p", o.min_p, "0 to 1");
  *out = {o.temperature, o.top_k, o.top_p, o.min_p};
  return NB_OK;
}

nb_status DoSample(nb_context* context, const nb_tensor* logits, const nb_sample_options* options,
                   const nb_tensor* uniforms, const nb_tensor* ids) {
  static constexpr char kFunction[] = "nb_sample";
  NIBBLE_RETURN_IF_FAILED(CheckContext(kFunction, context));
  const Arg logits_arg{kFunction, "logits"}, uniforms_arg{kFunction, "uniforms"},
      ids_arg{kFunction, "ids"};
  View l, u, i;
  SampleOptions o;
  NIBBLE_RETURN_IF_FAILED(CheckLogits(logits_arg, logits, kMaxSampleTokens, &l));
  NIBBLE_RETURN_IF_FAILED(CheckSampleOptions(kFunction, options, &o));
  NIBBLE_RETURN_IF_FAILED(CheckTensor(
      uniforms_arg, uniforms, {DTypeBit(NB_F64), 1, {l.rows, 0}, {"M", ""}}, &u));
  NIBBLE_RETURN_IF_FAILED(CheckTensor(ids_arg, ids, Ids(l.rows), &i));
  NIBBLE_RETURN_IF_FAILED(CheckDisjoint(ids_arg, i, "logits", l));
  NIBBLE_RETURN_IF_FAILED(CheckDisjoint(ids_arg, i, "uniforms", u));
  const Turn turn(context->lock);
  NIBBLE_RETURN_IF_FAILED(
      CheckPlaces(context, {{logits_arg, &l}, {uniforms_arg, &u}, {ids_arg, &i}}));
  const auto* uniform = reinterpret_cast<const double*>(u.data);
  const bool known = context->recording == nullptr && !u.on_device;
  for (int64_t r = 0; known && r < l.rows; ++r) {
    if (uniform[r] >= 0 && uniform[r] < 1) continue;
    return FailArg(NB_INVALID_ARGUMENT, {kFunction, "uniforms", r},
                   "%g but at least 0 and below 1 was expected", uniform[r]);
  }
  if (l.rows == 0) return NB_OK;
  if (context->cuda == nullptr) {
    return Submit(context, [l, o, uniform, id = reinterpret_cast<int32_t*>(i.data)](nb_context&) {
      for (int64_t r = 0; r < l.rows; ++r) {  // allocates: not on the pool's threads
        id[r] = static_cast<int32_t>(Sample(l.f32() + r * l.stride, l.cols, o, uniform[r]));
      }
      return NB_OK;
    });
  }
  return Submit(context, [l = CudaView(l), o, u = CudaView(u), i = CudaView(i)](nb_context& c) {
    return CallCuda(kFunction, [&](cuda::BackendError* error) {
      return c.backend->sample(c.cuda, &l, &o, &u, &i, error);
    });
  });
}

nb_status DoPenalize(nb_context* context, const nb_tensor* logits, const nb_tensor* tokens,
                     float penalty) {
  static constexpr char kFunction[] = "nb_penalize";
  NIBBLE_RETURN_IF_FAILED(CheckContext(kFunction, context));
  const Arg logits_arg{kFunction, "logits"}, tokens_arg{kFunction, "tokens"};
  View l, t;
  NIBBLE_RETURN_IF_FAILED(CheckTensor(logits_arg, logits, Output(F32Vector(kAnySize)), &l));
  NIBBLE_RETURN_IF_FAILED(CheckTensor(
      tokens_arg, tokens, {DTypeBit(NB_I32), 1, {kAnySize, 0}, {"count", ""}}, &t));
  NIBBLE_RETURN_IF_FAILED(CheckDisjoint(logits_arg, l, "tokens", t));
  if (!(std::isfinite(penalty) && penalty > 0)) {
    return FailArg(NB_INVALID_ARGUMENT, {kFunction, "penalty"},
                   "%g but a finite positive number was expected", static_cast<double>(penalty));
  }
  const Turn turn(context->lock);
  NIBBLE_RETURN_IF_FAILED(CheckPlaces(context, {{logits_arg, &l}, {tokens_arg, &t}}));
  if (l.empty() || t.empty()) return NB_OK;
  if (context->cuda == nullptr) {
    return Submit(context, [l, t, penalty](nb_context&) {
      Penalize(l.f32(), l.cols, reinterpret_cast<const int32_t*>(t.data), t.cols, penalty);
      return NB_OK;
    });
  }
  return Submit(context, [l = CudaView(l), t = CudaView(t), penalty](nb_context& c) {
    return CallCuda(kFunction, [&](cuda::BackendError* error) {
      return c.backend->penalize(c.cuda, &l, &t, penalty, error);
    });
  });
}

}  // namespace

nb_status nb_argmax(nb_context* context, const nb_tensor* logits, const nb_tensor* ids) {
  return Guard("nb_argmax", [&] { return DoArgmax(context, logits, ids); });
}

nb_status nb_sample(nb_context* context, const nb_tensor* logits,
                    const nb_sample_options* options, const nb_tensor* uniforms,
                    const nb_tensor* ids) {
  return Guard("nb_sample", [&] { return DoSample(context, logits, options, uniforms, ids); });
}

nb_status nb_penalize(nb_context* context, const nb_tensor* logits, const nb_tensor* tokens,
                      float penalty) {
  return Guard("nb_penalize", [&] { return DoPenalize(context, logits, tokens, penalty); });
}
