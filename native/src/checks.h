// SPDX-License-Identifier: Apache-2.0
//
// Checks of the arguments that cross the C ABI. Every size is computed with overflow-checked
// arithmetic before it is used, and every message has one form:
//
//   nb_matmul: projections[1].output: shape [4, 33] but [4, 32] was expected
//   function   argument               what was passed   what was expected
//
// Nothing here allocates, so that checking a call costs well under a microsecond.
#pragma once

#include <cstdint>

#include "kernels-cpu/numerics/types.h"
#include "native/src/status.h"

namespace nibble::abi {

// Names one argument in messages: "name", "name.field", "list[index]" or
// "list[index].field". Copies no text: the pieces are string literals.
struct Arg {
  const char* function;
  const char* name;
  int64_t index = -1;           // -1: no index
  const char* field = nullptr;  // or null

  Arg Field(const char* f) const { return {function, name, index, f}; }
};

// Fails with "function: argument: " before the formatted text.
nb_status FailArg(nb_status status, const Arg& arg, const char* format, ...) noexcept
    __attribute__((format(printf, 3, 4)));

// -------------------------------------------------------------- arithmetic --

// False when the exact result does not fit; *out is then unspecified.
inline bool CheckedAdd(int64_t a, int64_t b, int64_t* out) {
  return !__builtin_add_overflow(a, b, out);
}
inline bool CheckedMul(int64_t a, int64_t b, int64_t* out) {
  return !__builtin_mul_overflow(a, b, out);
}

// ----------------------------------------------------------------- tensors --

// The name of a dtype ("E4M3"), or "unknown".
const char* DTypeName(int32_t dtype);

// Bytes of one element in memory; 0 for what has no element of whole bytes (NB_NONE,
// NB_I4 and the six-bit formats) and for unknown values.
int64_t DTypeBytes(int32_t dtype);

// A set of dtypes, for tensors that may have one of several.
constexpr uint32_t DTypeBit(int32_t dtype) { return uint32_t{1} << dtype; }

inline constexpr int64_t kAnySize = -1;

// What a tensor has to be.
struct Expected {
  uint32_t dtypes;           // DTypeBit of each that is accepted
  int rank;                  // 1 or 2
  int64_t shape[2];          // kAnySize where free
  const char* names[2];      // what to call a free size in messages: "M", "K"
  bool output = false;       // will be written: rows must not overlap
  bool contiguous = false;   // rows must follow each other without a gap
};

inline Expected F32Vector(int64_t n) { return {DTypeBit(NB_F32), 1, {n, 0}, {"N", ""}}; }
inline Expected F32Rows(int64_t rows, int64_t cols, const char* cols_name = "K") {
  return {DTypeBit(NB_F32), 2, {rows, cols}, {"M", cols_name}};
}
inline Expected Output(Expected e) {
  e.output = true;
  return e;
}

// A checked tensor as rows of elements; rank 1 is one row. Default: no tensor.
struct View {
  uint8_t* data = nullptr;
  int64_t rows = 0;
  int64_t cols = 0;
  int64_t stride = 0;  // elements from row to row
  int64_t element_bytes = 0;
  int32_t dtype = NB_NONE;
  bool on_device = false;  // in memory of the context's CUDA device (memory.h)

  bool empty() const { return rows == 0 || cols == 0; }
  float* f32() const { return reinterpret_cast<float*>(data); }
};

// Checks all fields of tensor and fills *view. A tensor without elements may have NULL data.
nb_status CheckTensor(const Arg& arg, const nb_tensor* tensor, const Expected& expected,
                      View* view);

// The same where NULL stands for "none": *view is then View().
nb_status CheckOptionalTensor(const Arg& arg, const nb_tensor* tensor, const Expected& expected,
                              View* view);

// Whether any byte belongs to an element of both. Exact for rows of any strides, so that
// interleaved views (the q and k columns of one fused buffer) do not count as overlapping.
bool Overlap(const View& a, const View& b);

// Whether both are the same elements at the same places.
bool SameMemory(const View& a, const View& b);

// Fails unless written and other are disjoint; other_name completes the sentence
// "overlaps x".
nb_status CheckDisjoint(const Arg& written, const View& a, const char* other_name, const View& b);

// The same, but element i of both may be the same memory (in-place operation).
nb_status CheckDisjointOrSame(const Arg& written, const View& a, const char* other_name,
                              const View& b);

// ----------------------------------------------------------------- scalars --

nb_status CheckNotNull(const Arg& arg, const void* pointer);
nb_status CheckStructSize(const Arg& arg, int64_t actual, int64_t expected);

// epsilon of RMSNorm: finite and positive.
nb_status CheckEpsilon(const Arg& arg, float epsilon);

}  // namespace nibble::abi
