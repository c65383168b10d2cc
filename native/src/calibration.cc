// SPDX-License-Identifier: Apache-2.0
//
// What a calibrating quantizer computes natively, and the key scales it gives to a cache.
#include <cmath>

#include "kernels-cpu/quantize/calibrated_quantize.h"
#include "kernels-cpu/quantize/channel_statistics.h"
#include "kernels-cpu/quantize/drift_correction.h"
#include "native/src/kv_cache.h"
#include "native/src/memory.h"
#include "native/src/weights.h"

namespace {

using namespace nibble;
using namespace nibble::abi;

nb_status CheckCpu(const char* function, const nb_context* context) {
  NIBBLE_RETURN_IF_FAILED(CheckContext(function, context));
  if (context->device == kCpu) return NB_OK;
  return FailArg(NB_UNSUPPORTED, {function, "context"}, "of %s, but only \"cpu\" has this",
                 DeviceName(context->device).c_str());
}

nb_status DoChannelStatistics(nb_context* context, const nb_tensor* x, const nb_tensor* sums,
                              const nb_tensor* maxima) {
  constexpr char kFunction[] = "nb_channel_statistics";
  NIBBLE_RETURN_IF_FAILED(CheckCpu(kFunction, context));
  View xv, s, m;
  NIBBLE_RETURN_IF_FAILED(CheckTensor({kFunction, "x"}, x, F32Rows(kAnySize, kAnySize), &xv));
  const Expected vector = Output(F32Vector(xv.cols));
  NIBBLE_RETURN_IF_FAILED(CheckOptionalTensor({kFunction, "sums"}, sums, vector, &s));
  NIBBLE_RETURN_IF_FAILED(CheckOptionalTensor({kFunction, "maxima"}, maxima, vector, &m));
  NIBBLE_RETURN_IF_FAILED(CheckDisjoint({kFunction, "sums"}, s, "x", xv));
  NIBBLE_RETURN_IF_FAILED(CheckDisjoint({kFunction, "maxima"}, m, "x", xv));
  NIBBLE_RETURN_IF_FAILED(CheckDisjoint({kFunction, "maxima"}, m, "sums", s));
  if (xv.empty()) return NB_OK;
  const Turn turn(context->lock);
  NIBBLE_RETURN_IF_FAILED(CheckNotRecording(kFunction, context));
  AddChannelStatistics(context->workspace, xv.f32(), xv.stride, xv.rows, xv.cols, s.f32(),
                       m.f32());
  return NB_OK;
}

Expected Moments(int64_t cols) {
  return {DTypeBit(NB_F32), 2, {cols, cols}, {"K", "K"}, /*output=*/false, /*contiguous=*/true};
}

nb_status DoSecondMoments(nb_context* context, const nb_tensor* x, const nb_tensor* moments) {
  constexpr char kFunction[] = "nb_second_moments";
  NIBBLE_RETURN_IF_FAILED(CheckCpu(kFunction, context));
  View xv, h;
  NIBBLE_RETURN_IF_FAILED(CheckTensor({kFunction, "x"}, x, F32Rows(kAnySize, kAnySize), &xv));
  NIBBLE_RETURN_IF_FAILED(
      CheckTensor({kFunction, "moments"}, moments, Output(Moments(xv.cols)), &h));
  NIBBLE_RETURN_IF_FAILED(CheckDisjoint({kFunction, "moments"}, h, "x", xv));
  if (xv.empty()) return NB_OK;
  const Turn turn(context->lock);
  NIBBLE_RETURN_IF_FAILED(CheckNotRecording(kFunction, context));
  AddSecondMoments(context->workspace, xv.f32(), xv.stride, xv.rows, xv.cols, h.f32());
  return NB_OK;
}

nb_status DoCrossMoments(nb_context* context, const nb_tensor* x, const nb_tensor* y,
                         const nb_tensor* moments) {
  constexpr char kFunction[] = "nb_cross_moments";
  NIBBLE_RETURN_IF_FAILED(CheckCpu(kFunction, context));
  View xv, yv, m;
  NIBBLE_RETURN_IF_FAILED(CheckTensor({kFunction, "x"}, x, F32Rows(kAnySize, kAnySize), &xv));
  NIBBLE_RETURN_IF_FAILED(CheckTensor({kFunction, "y"}, y, F32Rows(xv.rows, xv.cols), &yv));
  NIBBLE_RETURN_IF_FAILED(
      CheckTensor({kFunction, "moments"}, moments, Output(Moments(xv.cols)), &m));
  NIBBLE_RETURN_IF_FAILED(CheckDisjoint({kFunction, "moments"}, m, "x", xv));
  NIBBLE_RETURN_IF_FAILED(CheckDisjoint({kFunction, "moments"}, m, "y", yv));
  if (xv.empty()) return NB_OK;
  const Turn turn(context->lock);
  NIBBLE_RETURN_IF_FAILED(CheckNotRecording(kFunction, context));
  AddCrossMoments(context->workspace, xv.f32(), xv.stride, yv.f32(), yv.stride, xv.rows, xv.cols,
                  m.f32());
  return NB_OK;
}

nb_status DoCorrectDrift(nb_context* context, const nb_tensor* weights, const nb_tensor* moments,
                         const nb_tensor* cross, float damping) {
  constexpr char kFunction[] = "nb_correct_drift";
  NIBBLE_RETURN_IF_FAILED(CheckCpu(kFunction, context));
  View w, m, c;
  NIBBLE_RETURN_IF_FAILED(CheckTensor({kFunction, "weights"}, weights,
                                      Output(F32Rows(kAnySize, kAnySize)), &w));
  NIBBLE_RETURN_IF_FAILED(CheckTensor({kFunction, "moments"}, moments, Moments(w.cols), &m));
  NIBBLE_RETURN_IF_FAILED(CheckTensor({kFunction, "cross"}, cross, Moments(w.cols), &c));
  NIBBLE_RETURN_IF_FAILED(CheckDisjoint({kFunction, "weights"}, w, "moments", m));
  NIBBLE_RETURN_IF_FAILED(CheckDisjoint({kFunction, "weights"}, w, "cross", c));
  if (!(std::isfinite(damping) && damping > 0)) {
    return FailArg(NB_INVALID_ARGUMENT, {kFunction, "damping"},
                   "%g but a finite number above 0 was expected", static_cast<double>(damping));
  }
  if (w.empty()) return NB_OK;
  const Turn turn(context->lock);
  NIBBLE_RETURN_IF_FAILED(CheckNotRecording(kFunction, context));
  const std::string problem = CorrectDrift(context->workspace, w.f32(), w.stride, w.rows, w.cols,
                                           m.f32(), c.f32(), damping);
  if (problem.empty()) return NB_OK;
  return Fail(NB_INVALID_ARGUMENT, "%s: %s", kFunction, problem.c_str());
}

nb_status DoScaleMatrix(nb_context* context, const nb_tensor* weights,
                        const nb_tensor* row_factors, const nb_tensor* col_factors) {
  constexpr char kFunction[] = "nb_scale_matrix";
  NIBBLE_RETURN_IF_FAILED(CheckCpu(kFunction, context));
  View w, r, c;
  NIBBLE_RETURN_IF_FAILED(CheckTensor({kFunction, "weights"}, weights,
                                      Output(F32Rows(kAnySize, kAnySize)), &w));
  NIBBLE_RETURN_IF_FAILED(
      CheckOptionalTensor({kFunction, "row_factors"}, row_factors, F32Vector(w.rows), &r));
  NIBBLE_RETURN_IF_FAILED(
      CheckOptionalTensor({kFunction, "col_factors"}, col_factors, F32Vector(w.cols), &c));
  NIBBLE_RETURN_IF_FAILED(CheckDisjoint({kFunction, "weights"}, w, "row_factors", r));
  NIBBLE_RETURN_IF_FAILED(CheckDisjoint({kFunction, "weights"}, w, "col_factors", c));
  if (w.empty()) return NB_OK;
  const Turn turn(context->lock);
  NIBBLE_RETURN_IF_FAILED(CheckNotRecording(kFunction, context));
  ScaleMatrix(context->workspace, w.f32(), w.stride, w.rows, w.cols, r.f32(), c.f32());
  return NB_OK;
}

nb_status CheckOptions(const char* function, const nb_calibration_options* options,
                       const WeightFormat& format, bool with_moments) {
  const Arg arg{function, "options"};
  NIBBLE_RETURN_IF_FAILED(CheckNotNull(arg, options));
  NIBBLE_RETURN_IF_FAILED(
      CheckStructSize(arg, options->struct_size, sizeof(nb_calibration_options)));
  const auto check_flag = [&](const char* field, int32_t value) {
    if (value == 0 || value == 1) return NB_OK;
    return FailArg(NB_INVALID_ARGUMENT, arg.Field(field), "%d but 0 or 1 was expected", value);
  };
  NIBBLE_RETURN_IF_FAILED(check_flag("clipping", options->clipping));
  NIBBLE_RETURN_IF_FAILED(check_flag("by_magnitude", options->by_magnitude));
  if (options->clipping == 1 && format.code != DType::kI4) {
    return FailArg(NB_UNSUPPORTED, arg.Field("clipping"),
                   "1 for %s codes, but only I4 codes have it",
                   DTypeName(static_cast<int32_t>(format.code)));
  }
  if (with_moments && !(std::isfinite(options->damping) && options->damping > 0)) {
    return FailArg(NB_INVALID_ARGUMENT, arg.Field("damping"),
                   "%g but a finite number above 0 was expected",
                   static_cast<double>(options->damping));
  }
  const float factor = options->factor;
  if (factor == 0 || (std::isnormal(factor) && factor > 0 && format.HasMatrixFactor())) {
    return NB_OK;
  }
  return FailArg(NB_INVALID_ARGUMENT, arg.Field("factor"),
                 "%g but 0, or for E4M3 scales a normal positive number, was expected",
                 static_cast<double>(factor));
}

nb_status DoQuantizeCalibrated(nb_context* context, const nb_weight_format* format,
                               const nb_calibration_options* options, const nb_tensor* weights,
                               const nb_tensor* importance, const nb_tensor* moments,
                               const nb_tensor* codes, const nb_tensor* codes_high,
                               const nb_tensor* scales, const nb_tensor* factors) {
  constexpr char kFunction[] = "nb_quantize_calibrated";
  NIBBLE_RETURN_IF_FAILED(CheckCpu(kFunction, context));
  View w, h, m;
  WeightFormat f;
  Canonical out;
  NIBBLE_RETURN_IF_FAILED(
      CheckTensor({kFunction, "weights"}, weights, F32Rows(kAnySize, kAnySize), &w));
  NIBBLE_RETURN_IF_FAILED(CheckFormat(kFunction, format, w.rows, w.cols, &f));
  if (IsUnquantized(f.code)) {
    return FailArg(NB_UNSUPPORTED, {kFunction, "format", -1, "code_type"},
                   "%s but a quantized type was expected: nb_quantize converts to the others",
                   DTypeName(format->code_type));
  }
  NIBBLE_RETURN_IF_FAILED(CheckOptions(kFunction, options, f, moments != nullptr));
  NIBBLE_RETURN_IF_FAILED(
      CheckOptionalTensor({kFunction, "importance"}, importance, F32Vector(w.cols), &h));
  NIBBLE_RETURN_IF_FAILED(
      CheckOptionalTensor({kFunction, "moments"}, moments, Moments(w.cols), &m));
  NIBBLE_RETURN_IF_FAILED(CheckCanonicalTensors(kFunction, f, w.rows, w.cols, codes, codes_high,
                                                scales, factors, /*outputs=*/true, &out));
  for (const auto& [name, part] : {std::pair<const char*, const View&>{"codes", out.codes},
                                   {"codes_high", out.codes_high},
                                   {"scales", out.scales},
                                   {"factors", out.factors}}) {
    NIBBLE_RETURN_IF_FAILED(CheckDisjoint({kFunction, name}, part, "weights", w));
    NIBBLE_RETURN_IF_FAILED(CheckDisjoint({kFunction, name}, part, "importance", h));
    NIBBLE_RETURN_IF_FAILED(CheckDisjoint({kFunction, name}, part, "moments", m));
  }
  for (int64_t k = 0; k < h.cols; ++k) {
    if (h.data == nullptr || (std::isfinite(h.f32()[k]) && h.f32()[k] >= 0)) continue;
    return FailArg(NB_INVALID_ARGUMENT, {kFunction, "importance", k},
                   "%g but a finite number that is not negative was expected",
                   static_cast<double>(h.f32()[k]));
  }
  CalibratedOptions o;
  o.clipping = options->clipping == 1;
  o.by_magnitude = options->by_magnitude == 1;
  o.damping = options->damping;
  o.matrix_factor = options->factor;
  const Turn turn(context->lock);
  NIBBLE_RETURN_IF_FAILED(CheckNotRecording(kFunction, context));
  const std::string problem =
      QuantizeCalibrated(context->workspace, f, w.f32(), w.stride, w.rows, w.cols, h.f32(),
                         m.f32(), o, out.weights());
  if (problem.empty()) return NB_OK;
  return Fail(NB_INVALID_ARGUMENT, "%s: %s", kFunction, problem.c_str());
}

nb_status DoSetKeyScales(nb_kv_cache* cache, int32_t layer, const nb_tensor* scales) {
  constexpr char kFunction[] = "nb_kv_cache_set_key_scales";
  if (cache == nullptr) {
    return FailArg(NB_INVALID_ARGUMENT, {kFunction, "cache"}, "NULL but a cache was expected");
  }
  if (cache->cpu == nullptr) {
    return FailArg(NB_UNSUPPORTED, {kFunction, "cache"}, "of %s, but only \"cpu\" has key scales",
                   DeviceName(cache->device).c_str());
  }
  const KvCacheShape& shape = cache->shape;
  if (layer < 0 || layer >= shape.layers) {
    return FailArg(NB_INVALID_ARGUMENT, {kFunction, "layer"}, "%d but 0..%d was expected", layer,
                   shape.layers - 1);
  }
  View s;
  const Expected expected{DTypeBit(NB_F32), 2, {shape.kv_heads, shape.head_dim},
                          {"kv_heads", "head_dim"}, /*output=*/false, /*contiguous=*/true};
  NIBBLE_RETURN_IF_FAILED(CheckOptionalTensor({kFunction, "scales"}, scales, expected, &s));
  for (int64_t i = 0; s.data != nullptr && i < s.rows * s.cols; ++i) {
    if (std::isnormal(s.f32()[i]) && s.f32()[i] > 0) continue;
    return FailArg(NB_INVALID_ARGUMENT, {kFunction, "scales", i},
                   "%g but a normal positive number was expected",
                   static_cast<double>(s.f32()[i]));
  }
  if (cache->in_use.exchange(true, std::memory_order_acquire)) {
    return FailArg(NB_INVALID_ARGUMENT, {kFunction, "cache"},
                   "in use by another call, but a cache serves one call at a time");
  }
  const int64_t held = cache->length(layer);
  if (held == 0) cache->cpu->SetKeyScales(layer, s.f32());
  cache->in_use.store(false, std::memory_order_release);
  if (held == 0) return NB_OK;
  return FailArg(NB_INVALID_ARGUMENT, {kFunction, "layer"},
                 "%d holds %lld tokens but an empty one was expected", layer,
                 static_cast<long long>(held));
}

}  // namespace

nb_status nb_channel_statistics(nb_context* context, const nb_tensor* x, const nb_tensor* sums,
                                const nb_tensor* maxima) {
  return Guard("nb_channel_statistics",
               [&] { return DoChannelStatistics(context, x, sums, maxima); });
}

nb_status nb_second_moments(nb_context* context, const nb_tensor* x, const nb_tensor* moments) {
  return Guard("nb_second_moments", [&] { return DoSecondMoments(context, x, moments); });
}

nb_status nb_cross_moments(nb_context* context, const nb_tensor* x, const nb_tensor* y,
                           const nb_tensor* moments) {
  return Guard("nb_cross_moments", [&] { return DoCrossMoments(context, x, y, moments); });
}

nb_status nb_correct_drift(nb_context* context, const nb_tensor* weights,
                           const nb_tensor* moments, const nb_tensor* cross, float damping) {
  return Guard("nb_correct_drift",
               [&] { return DoCorrectDrift(context, weights, moments, cross, damping); });
}

nb_status nb_scale_matrix(nb_context* context, const nb_tensor* weights,
                          const nb_tensor* row_factors, const nb_tensor* col_factors) {
  return Guard("nb_scale_matrix",
               [&] { return DoScaleMatrix(context, weights, row_factors, col_factors); });
}

nb_status nb_quantize_calibrated(nb_context* context, const nb_weight_format* format,
                                 const nb_calibration_options* options, const nb_tensor* weights,
                                 const nb_tensor* importance, const nb_tensor* moments,
                                 const nb_tensor* codes, const nb_tensor* codes_high,
                                 const nb_tensor* scales, const nb_tensor* factors) {
  return Guard("nb_quantize_calibrated", [&] {
    return DoQuantizeCalibrated(context, format, options, weights, importance, moments, codes,
                                codes_high, scales, factors);
  });
}

nb_status nb_kv_cache_set_key_scales(nb_kv_cache* cache, int32_t layer, const nb_tensor* scales) {
  return Guard("nb_kv_cache_set_key_scales",
               [&] { return DoSetKeyScales(cache, layer, scales); });
}
