// SPDX-License-Identifier: Apache-2.0
#include "native/src/weights.h"

#include <limits>

#include "native/src/memory.h"

namespace nibble::abi {
namespace {

static_assert(static_cast<int32_t>(DType::kNone) == NB_NONE &&
              static_cast<int32_t>(DType::kF32) == NB_F32 &&
              static_cast<int32_t>(DType::kF16) == NB_F16 &&
              static_cast<int32_t>(DType::kBF16) == NB_BF16 &&
              static_cast<int32_t>(DType::kE4M3) == NB_E4M3 &&
              static_cast<int32_t>(DType::kE5M2) == NB_E5M2 &&
              static_cast<int32_t>(DType::kE3M2) == NB_E3M2 &&
              static_cast<int32_t>(DType::kE2M3) == NB_E2M3 &&
              static_cast<int32_t>(DType::kI4) == NB_I4 &&
              static_cast<int32_t>(DType::kI8) == NB_I8 &&
              static_cast<int32_t>(DType::kI32) == NB_I32 &&
              static_cast<int32_t>(DType::kU8) == NB_U8 &&
              static_cast<int32_t>(DType::kPow2) == NB_POW2,
              "the kernels' DType and the ABI's nb_dtype are one enumeration");

// Sizes stay below this, so that the kernels may add and round up without a check.
constexpr int64_t kMaxBytes = int64_t{1} << 62;

// Rows and columns: what the kernels index with 32 bits in places, and embedding ids reach.
constexpr int64_t kMaxSize = std::numeric_limits<int32_t>::max();

constexpr int64_t kGroupMultiple = 16;

bool IsCodeType(int32_t t) {
  switch (t) {
    case NB_F32:
    case NB_F16:
    case NB_BF16:
    case NB_E4M3:
    case NB_E5M2:
    case NB_E3M2:
    case NB_E2M3:
    case NB_I4:
    case NB_I8: return true;
    default: return false;
  }
}

// The scale types of a code type, as nb_weight_format lists them.
bool IsScaleOf(int32_t code, int32_t scale) {
  if (IsUnquantized(static_cast<DType>(code))) return scale == NB_NONE;
  switch (scale) {
    case NB_F16:
    case NB_BF16:
    case NB_F32: return true;
    case NB_E4M3:
    case NB_POW2: return code == NB_I4;
    default: return false;
  }
}

const char* ScalesOf(int32_t code) {
  if (IsUnquantized(static_cast<DType>(code))) return "NONE";
  return code == NB_I4 ? "E4M3, POW2, F16, BF16 or F32" : "F16, BF16 or F32";
}

nb_status CheckSize(const char* function, const char* name, int64_t size) {
  if (size >= 1 && size <= kMaxSize) return NB_OK;
  return FailArg(NB_INVALID_ARGUMENT, {function, name}, "%lld but 1..%lld was expected",
                 static_cast<long long>(size), static_cast<long long>(kMaxSize));
}

// Whether every form of the matrix fits: none has more than a 32-bit code and a 32-bit scale
// for each element, padding included.
bool SizesFit(int64_t rows, int64_t cols) {
  constexpr int64_t kPadding = 64;  // more than any kernel rounds up to, rows or columns
  int64_t elements = 0;
  return CheckedMul(rows + kPadding, cols + kPadding, &elements) && elements < kMaxBytes / 8;
}

// What one canonical part of the matrix must be: rows of n elements, all contiguous.
Expected Part(int32_t dtype, int64_t rows, int64_t n, bool output) {
  return {DTypeBit(dtype), 2, {rows, n}, {"N", "bytes"}, output, /*contiguous=*/true};
}

nb_status CheckPart(const char* function, const char* name, bool present,
                    const nb_tensor* tensor, const Expected& expected, View* view) {
  *view = View();
  if (present) return CheckTensor({function, name}, tensor, expected, view);
  if (tensor == nullptr) return NB_OK;
  return FailArg(NB_INVALID_ARGUMENT, {function, name},
                 "a tensor, but the format has none: NULL was expected");
}

}  // namespace

nb_status CheckFormat(const char* function, const nb_weight_format* format, int64_t rows,
                      int64_t cols, WeightFormat* out) {
  const Arg arg{function, "format"};
  NIBBLE_RETURN_IF_FAILED(CheckNotNull(arg, format));
  NIBBLE_RETURN_IF_FAILED(CheckStructSize(arg, format->struct_size, sizeof(nb_weight_format)));
  if (!IsCodeType(format->code_type)) {
    return FailArg(NB_INVALID_ARGUMENT, arg.Field("code_type"),
                   "%d (%s) but F32, F16, BF16, E4M3, E5M2, E3M2, E2M3, I4 or I8 was expected",
                   format->code_type, DTypeName(format->code_type));
  }
  if (!IsScaleOf(format->code_type, format->scale_type)) {
    return FailArg(NB_INVALID_ARGUMENT, arg.Field("scale_type"),
                   "%d (%s) but %s was expected for %s codes", format->scale_type,
                   DTypeName(format->scale_type), ScalesOf(format->code_type),
                   DTypeName(format->code_type));
  }
  if (format->group_size < 0 || format->group_size % kGroupMultiple != 0) {
    return FailArg(NB_INVALID_ARGUMENT, arg.Field("group_size"),
                   "%lld but a multiple of 16, or 0, was expected",
                   static_cast<long long>(format->group_size));
  }
  NIBBLE_RETURN_IF_FAILED(CheckSize(function, "rows", rows));
  NIBBLE_RETURN_IF_FAILED(CheckSize(function, "cols", cols));
  if (!SizesFit(rows, cols)) {
    return FailArg(NB_INVALID_ARGUMENT, {function, "rows"},
                   "a matrix of [%lld, %lld] overflows a byte count",
                   static_cast<long long>(rows), static_cast<long long>(cols));
  }
  out->code = static_cast<DType>(format->code_type);
  out->scale = static_cast<DType>(format->scale_type);
  const bool whole_row = IsUnquantized(out->code) || format->group_size >= cols;
  out->group_size = whole_row ? 0 : format->group_size;
  return NB_OK;
}

nb_status CheckCanonicalTensors(const char* function, const WeightFormat& format, int64_t rows,
                                int64_t cols, const nb_tensor* codes,
                                const nb_tensor* codes_high, const nb_tensor* scales,
                                const nb_tensor* factors, bool outputs, Canonical* out) {
  NIBBLE_RETURN_IF_FAILED(
      CheckPart(function, "codes", true, codes,
                Part(NB_U8, rows, format.CodeRowBytes(cols), outputs), &out->codes));
  NIBBLE_RETURN_IF_FAILED(
      CheckPart(function, "codes_high", IsSixBit(format.code), codes_high,
                Part(NB_U8, rows, format.HighRowBytes(cols), outputs), &out->codes_high));
  NIBBLE_RETURN_IF_FAILED(
      CheckPart(function, "scales", format.Groups(cols) > 0, scales,
                Part(static_cast<int32_t>(format.scale), rows, format.Groups(cols), outputs),
                &out->scales));
  const int64_t factor_count = format.FactorCount(rows);
  Expected vector = F32Vector(factor_count);
  vector.output = outputs;
  NIBBLE_RETURN_IF_FAILED(
      CheckPart(function, "factors", factor_count > 0, factors, vector, &out->factors));
  NIBBLE_RETURN_IF_FAILED(CheckOrdinary({{{function, "codes"}, &out->codes},
                                         {{function, "codes_high"}, &out->codes_high},
                                         {{function, "scales"}, &out->scales},
                                         {{function, "factors"}, &out->factors}}));
  if (!outputs) return NB_OK;
  NIBBLE_RETURN_IF_FAILED(
      CheckDisjoint({function, "codes_high"}, out->codes_high, "codes", out->codes));
  NIBBLE_RETURN_IF_FAILED(CheckDisjoint({function, "scales"}, out->scales, "codes", out->codes));
  NIBBLE_RETURN_IF_FAILED(
      CheckDisjoint({function, "scales"}, out->scales, "codes_high", out->codes_high));
  NIBBLE_RETURN_IF_FAILED(CheckDisjoint({function, "factors"}, out->factors, "codes", out->codes));
  NIBBLE_RETURN_IF_FAILED(
      CheckDisjoint({function, "factors"}, out->factors, "codes_high", out->codes_high));
  return CheckDisjoint({function, "factors"}, out->factors, "scales", out->scales);
}

}  // namespace nibble::abi
