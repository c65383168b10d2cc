// SPDX-License-Identifier: Apache-2.0
//
// nibble.h from C++: handles that free themselves, statuses that throw.
#pragma once

#include <memory>
#include <stdexcept>
#include <string>

#include "native/include/nibble/nibble.h"

namespace nibble::bench {

// The library has no kernel for what was asked.
struct Unsupported : std::runtime_error {
  using std::runtime_error::runtime_error;
};

inline void Check(nb_status status) {
  if (status == NB_OK) return;
  if (status == NB_UNSUPPORTED) throw Unsupported(nb_last_error());
  throw std::runtime_error(nb_last_error());
}

struct Destroy {
  void operator()(nb_context* p) const { nb_context_destroy(p); }
  void operator()(nb_matrix* p) const { nb_matrix_destroy(p); }
  void operator()(nb_kv_cache* p) const { nb_kv_cache_destroy(p); }
};
using ContextPtr = std::unique_ptr<nb_context, Destroy>;
using MatrixPtr = std::unique_ptr<nb_matrix, Destroy>;
using CachePtr = std::unique_ptr<nb_kv_cache, Destroy>;

inline ContextPtr NewContext(int threads) {
  nb_context* context = nullptr;
  Check(nb_context_create("cpu", threads, &context));
  return ContextPtr(context);
}

inline int64_t PackedBytes(const nb_matrix* matrix) {
  nb_matrix_info info = {};
  info.struct_size = sizeof info;
  Check(nb_matrix_get_info(matrix, &info));
  return info.packed_bytes;
}

// Contiguous [rows, cols] of elements of element_bytes bytes; cols < 0: a vector [rows].
inline nb_tensor Tensor(int32_t dtype, int64_t element_bytes, const void* data, int64_t rows,
                        int64_t cols = -1) {
  nb_tensor t = {};
  t.struct_size = sizeof t;
  t.dtype = dtype;
  t.rank = cols < 0 ? 1 : 2;
  t.shape[0] = rows;
  t.shape[1] = cols < 0 ? 0 : cols;
  t.strides[0] = cols < 0 ? 1 : cols;
  t.strides[1] = cols < 0 ? 0 : 1;
  t.data = const_cast<void*>(data);
  t.byte_length = rows * (cols < 0 ? 1 : cols) * element_bytes;
  return t;
}

inline nb_tensor F32(const float* data, int64_t rows, int64_t cols = -1) {
  return Tensor(NB_F32, 4, data, rows, cols);
}

// The first rows of a tensor.
inline void SetRows(nb_tensor& t, int64_t rows) {
  t.byte_length = t.byte_length / t.shape[0] * rows;
  t.shape[0] = rows;
}

}  // namespace nibble::bench
