// SPDX-License-Identifier: Apache-2.0
//
// nb_encode and nb_decode: the scalar definitions of every format, for whole arrays.
#include <cmath>
#include <cstring>

#include "kernels-cpu/numerics/formats.h"
#include "native/src/checks.h"

namespace {

using namespace nibble;
using namespace nibble::abi;

// Bytes of one code; 0 for a type that these functions do not have.
int64_t CodeBytes(int32_t dtype) {
  switch (dtype) {
    case NB_F16:
    case NB_BF16: return 2;
    case NB_E4M3:
    case NB_E5M2:
    case NB_E3M2:
    case NB_E2M3:
    case NB_I4:
    case NB_I8: return 1;
    default: return 0;
  }
}

bool HasNaN(int32_t dtype) {
  return dtype == NB_F16 || dtype == NB_BF16 || dtype == NB_E4M3 || dtype == NB_E5M2;
}

// The bits that a code of the type may have set.
uint32_t CodeMask(int32_t dtype) {
  switch (dtype) {
    case NB_I4: return 0x0F;
    case NB_E3M2:
    case NB_E2M3: return 0x3F;
    case NB_F16:
    case NB_BF16: return 0xFFFF;
    default: return 0xFF;
  }
}

nb_status CheckArrays(const char* function, int32_t dtype, const float* values, int64_t count,
                      const void* codes, int64_t code_bytes) {
  const int64_t each = CodeBytes(dtype);
  if (each == 0) {
    return FailArg(NB_INVALID_ARGUMENT, {function, "dtype"},
                   "%d (%s) but F16, BF16, E4M3, E5M2, E3M2, E2M3, I4 or I8 was expected", dtype,
                   DTypeName(dtype));
  }
  int64_t needed = 0, value_bytes = 0;
  if (count < 0 || !CheckedMul(count, each, &needed) ||
      !CheckedMul(count, sizeof(float), &value_bytes)) {
    return FailArg(NB_INVALID_ARGUMENT, {function, "count"},
                   "%lld but a count whose bytes fit in 63 bits was expected",
                   static_cast<long long>(count));
  }
  if (code_bytes < needed) {
    return FailArg(NB_INVALID_ARGUMENT, {function, "code_bytes"},
                   "%lld but at least %lld was expected for %lld codes of %s",
                   static_cast<long long>(code_bytes), static_cast<long long>(needed),
                   static_cast<long long>(count), DTypeName(dtype));
  }
  if (count == 0) return NB_OK;
  NIBBLE_RETURN_IF_FAILED(CheckNotNull({function, "values"}, values));
  NIBBLE_RETURN_IF_FAILED(CheckNotNull({function, "codes"}, codes));
  if (reinterpret_cast<uintptr_t>(values) % alignof(float) != 0) {
    return FailArg(NB_INVALID_ARGUMENT, {function, "values"},
                   "address %p but a multiple of 4 was expected",
                   static_cast<const void*>(values));
  }
  const View v{reinterpret_cast<uint8_t*>(const_cast<float*>(values)), 1, count, count, 4, NB_F32};
  const View c{static_cast<uint8_t*>(const_cast<void*>(codes)), 1, needed, needed, 1, NB_U8};
  return CheckDisjoint({function, "codes"}, c, "values", v);
}

nb_status EncodeAll(int32_t dtype, const float* values, int64_t count, uint8_t* codes) {
  const int64_t each = CodeBytes(dtype);
  if (!HasNaN(dtype)) {  // before the first code is written
    for (int64_t i = 0; i < count; ++i) {
      if (!std::isnan(values[i])) continue;
      return FailArg(NB_INVALID_ARGUMENT, {"nb_encode", "values", i},
                     "NaN but a number was expected: %s has no NaN", DTypeName(dtype));
    }
  }
  for (int64_t i = 0; i < count; ++i) {
    const uint32_t code = Encode(static_cast<DType>(dtype), values[i]) & CodeMask(dtype);
    std::memcpy(codes + i * each, &code, static_cast<size_t>(each));  // little-endian
  }
  return NB_OK;
}

nb_status DecodeAll(int32_t dtype, const uint8_t* codes, int64_t count, float* values) {
  const int64_t each = CodeBytes(dtype);
  const uint32_t mask = CodeMask(dtype);
  for (int64_t i = 0; i < count; ++i) {
    uint32_t code = 0;
    std::memcpy(&code, codes + i * each, static_cast<size_t>(each));
    values[i] = Decode(static_cast<DType>(dtype), code & mask);
  }
  return NB_OK;
}

}  // namespace

nb_status nb_encode(int32_t dtype, const float* values, int64_t count, void* codes,
                    int64_t code_bytes) {
  return Guard("nb_encode", [&] {
    NIBBLE_RETURN_IF_FAILED(CheckArrays("nb_encode", dtype, values, count, codes, code_bytes));
    return EncodeAll(dtype, values, count, static_cast<uint8_t*>(codes));
  });
}

nb_status nb_decode(int32_t dtype, const void* codes, int64_t code_bytes, float* values,
                    int64_t count) {
  return Guard("nb_decode", [&] {
    NIBBLE_RETURN_IF_FAILED(CheckArrays("nb_decode", dtype, values, count, codes, code_bytes));
    return DecodeAll(dtype, static_cast<const uint8_t*>(codes), count, values);
  });
}
