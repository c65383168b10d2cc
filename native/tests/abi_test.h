// SPDX-License-Identifier: Apache-2.0
//
// What the tests of the C ABI share: owners of handles, tensors over vectors, and the check
// of a failed call.
#pragma once

#include <gtest/gtest.h>

#include <cstdint>
#include <initializer_list>
#include <memory>
#include <string>
#include <vector>

#include "kernels-cpu/testing/kernel_test.h"
#include "nibble/nibble.h"

namespace nibble {

struct ContextDeleter {
  void operator()(nb_context* c) const { nb_context_destroy(c); }
};
struct MatrixDeleter {
  void operator()(nb_matrix* m) const { nb_matrix_destroy(m); }
};
struct CacheDeleter {
  void operator()(nb_kv_cache* c) const { nb_kv_cache_destroy(c); }
};
using ContextPtr = std::unique_ptr<nb_context, ContextDeleter>;
using MatrixPtr = std::unique_ptr<nb_matrix, MatrixDeleter>;
using CachePtr = std::unique_ptr<nb_kv_cache, CacheDeleter>;

inline ContextPtr MakeContext(int32_t threads) {
  nb_context* context = nullptr;
  EXPECT_EQ(nb_context_create("cpu", threads, &context), NB_OK) << nb_last_error();
  return ContextPtr(context);
}

inline int64_t BytesOf(int32_t dtype) {
  switch (dtype) {
    case NB_F32:
    case NB_I32: return 4;
    case NB_F16:
    case NB_BF16: return 2;
    default: return 1;
  }
}

// A contiguous tensor over memory of exactly its size.
inline nb_tensor Tensor(int32_t dtype, const void* data, std::initializer_list<int64_t> shape) {
  nb_tensor t = {};
  t.struct_size = sizeof(nb_tensor);
  t.dtype = dtype;
  t.rank = static_cast<int32_t>(shape.size());
  int i = 0;
  int64_t count = 1;
  for (const int64_t n : shape) {
    t.shape[i++] = n;
    count *= n;
  }
  int64_t stride = 1;
  for (int d = t.rank - 1; d >= 0; --d) {
    t.strides[d] = stride;
    stride *= t.shape[d];
  }
  t.data = const_cast<void*>(data);
  t.byte_length = count * BytesOf(dtype);
  return t;
}

inline nb_tensor F32(const std::vector<float>& v, std::initializer_list<int64_t> shape) {
  nb_tensor t = Tensor(NB_F32, v.data(), shape);
  EXPECT_LE(t.byte_length, static_cast<int64_t>(v.size() * sizeof(float)));
  return t;
}

inline nb_weight_format Format(int32_t code, int32_t scale = NB_NONE, int64_t group = 0) {
  return {sizeof(nb_weight_format), code, scale, group};
}

inline MatrixPtr QuantizeMatrix(nb_context* context, const nb_weight_format& format,
                                const std::vector<float>& weights, int64_t rows, int64_t cols) {
  const nb_tensor t = F32(weights, {rows, cols});
  nb_matrix* matrix = nullptr;
  EXPECT_EQ(nb_matrix_quantize(context, &format, &t, &matrix), NB_OK) << nb_last_error();
  return MatrixPtr(matrix);
}

inline CachePtr MakeCache(nb_context* context, int32_t type, int32_t layers, int32_t kv_heads,
                          int32_t head_dim, int64_t capacity, int64_t group_size = 0) {
  const nb_kv_cache_options options = {sizeof(nb_kv_cache_options), type,     layers,
                                       kv_heads, head_dim, capacity, group_size, nullptr, nullptr};
  nb_kv_cache* cache = nullptr;
  EXPECT_EQ(nb_kv_cache_create(context, &options, &cache), NB_OK) << nb_last_error();
  return CachePtr(cache);
}

// Every format of nb_weight_format, groups of a few sizes each.
inline std::vector<nb_weight_format> AllFormats() {
  std::vector<nb_weight_format> formats = {Format(NB_F32), Format(NB_F16), Format(NB_BF16)};
  for (const int64_t group : {0, 16, 48, 128}) {
    for (const int32_t scale : {NB_E4M3, NB_POW2, NB_F16, NB_BF16, NB_F32}) {
      formats.push_back(Format(NB_I4, scale, group));
    }
    for (const int32_t code : {NB_I8, NB_E4M3, NB_E5M2, NB_E3M2, NB_E2M3}) {
      for (const int32_t scale : {NB_F16, NB_BF16, NB_F32}) {
        formats.push_back(Format(code, scale, group));
      }
    }
  }
  return formats;
}

inline std::string FormatName(const nb_weight_format& f) {
  static const char* const kNames[] = {"NONE", "F32",  "F16", "BF16", "E4M3", "E5M2", "E3M2",
                                       "E2M3", "I4",   "I8",  "I32",  "U8",   "POW2"};
  return std::string(kNames[f.code_type]) + "/" + kNames[f.scale_type] + "/" +
         std::to_string(f.group_size);
}

// Expects `call` to have failed with status and one line that begins with "function: " and
// holds every part.
inline void ExpectFailure(nb_status actual, nb_status expected, const std::string& function,
                          std::initializer_list<std::string> parts) {
  const std::string message = nb_last_error();
  EXPECT_EQ(actual, expected) << message;
  if (actual == NB_OK) return;  // the message is an older call's
  EXPECT_EQ(message.rfind(function + ": ", 0), 0u) << message;
  EXPECT_EQ(message.find('\n'), std::string::npos) << message;
  for (const std::string& part : parts) {
    EXPECT_NE(message.find(part), std::string::npos)
        << "\"" << part << "\" is missing in: " << message;
  }
}

}  // namespace nibble
