// SPDX-License-Identifier: Apache-2.0
#include "native/src/checks.h"

#include <cmath>
#include <cstdarg>
#include <cstdio>

namespace nibble::abi {
namespace {

// A short text built without allocation: shapes and lists of names in messages.
class Text {
 public:
  void Add(const char* format, ...) __attribute__((format(printf, 2, 3))) {
    if (length_ >= static_cast<int>(sizeof(text_)) - 1) return;
    va_list arguments;
    va_start(arguments, format);
    const int n =
        std::vsnprintf(text_ + length_, sizeof(text_) - length_, format, arguments);
    va_end(arguments);
    if (n > 0) length_ += n;
  }
  const char* c_str() const { return text_; }

 private:
  char text_[192] = "";
  int length_ = 0;
};

Text ShapeText(const int64_t* shape, int rank, const char* const* names) {
  Text text;
  text.Add("[");
  for (int i = 0; i < rank; ++i) {
    if (i > 0) text.Add(", ");
    if (shape[i] == kAnySize && names != nullptr) {
      text.Add("%s", names[i]);
    } else {
      text.Add("%lld", static_cast<long long>(shape[i]));
    }
  }
  text.Add("]");
  return text;
}

// "F32, F16 or BF16"
Text DTypesText(uint32_t dtypes) {
  Text text;
  bool first = true;
  for (int32_t t = 0; dtypes != 0; ++t) {
    if ((dtypes & DTypeBit(t)) == 0) continue;
    dtypes &= ~DTypeBit(t);
    text.Add("%s%s", first ? "" : dtypes == 0 ? " or " : ", ", DTypeName(t));
    first = false;
  }
  return text;
}

void WriteArg(const Arg& arg, Text* text) {
  text->Add("%s", arg.name);
  if (arg.index >= 0) text->Add("[%lld]", static_cast<long long>(arg.index));
  if (arg.field != nullptr) text->Add(".%s", arg.field);
}

nb_status CheckShape(const Arg& arg, const nb_tensor& t, const Expected& e) {
  if (t.rank != e.rank) {
    return FailArg(NB_INVALID_ARGUMENT, arg, "rank %d but %d (shape %s) was expected", t.rank,
                   e.rank, ShapeText(e.shape, e.rank, e.names).c_str());
  }
  for (int i = 0; i < e.rank; ++i) {
    if (t.shape[i] < 0 || (e.shape[i] != kAnySize && t.shape[i] != e.shape[i])) {
      return FailArg(NB_INVALID_ARGUMENT, arg, "shape %s but %s was expected",
                     ShapeText(t.shape, e.rank, nullptr).c_str(),
                     ShapeText(e.shape, e.rank, e.names).c_str());
    }
  }
  return NB_OK;
}

nb_status CheckStrides(const Arg& arg, const nb_tensor& t, const Expected& e) {
  const int inner = e.rank - 1;
  if (t.strides[inner] != 1) {
    return FailArg(NB_INVALID_ARGUMENT, arg, "strides[%d] is %lld but the innermost must be 1",
                   inner, static_cast<long long>(t.strides[inner]));
  }
  if (e.rank == 1) return NB_OK;
  const long long stride = t.strides[0], cols = t.shape[1];
  if (stride < 0) {
    return FailArg(NB_INVALID_ARGUMENT, arg, "strides[0] is %lld but at least 0 was expected",
                   stride);
  }
  if (t.shape[0] <= 1) return NB_OK;  // the stride between rows is never used
  if (e.contiguous && stride != cols) {
    return FailArg(NB_INVALID_ARGUMENT, arg,
                   "strides[0] is %lld but %lld (contiguous rows) was expected", stride, cols);
  }
  if (e.output && stride < cols) {
    return FailArg(NB_INVALID_ARGUMENT, arg,
                   "strides[0] is %lld but at least %lld was expected: rows of an output must "
                   "not overlap",
                   stride, cols);
  }
  return NB_OK;
}

nb_status CheckMemory(const Arg& arg, const nb_tensor& t, int64_t element_bytes, View* view) {
  // The last element stands at (rows - 1) * stride + cols - 1.
  int64_t needed = 0;
  if (!view->empty()) {
    int64_t skipped = 0;
    if (!CheckedMul(view->rows - 1, view->stride, &skipped) ||
        !CheckedAdd(skipped, view->cols, &needed) ||
        !CheckedMul(needed, element_bytes, &needed)) {
      return FailArg(NB_INVALID_ARGUMENT, arg, "shape %s with strides %s overflows a byte count",
                     ShapeText(t.shape, t.rank, nullptr).c_str(),
                     ShapeText(t.strides, t.rank, nullptr).c_str());
    }
  }
  if (t.byte_length < needed) {
    return FailArg(NB_INVALID_ARGUMENT, arg,
                   "byte_length is %lld but shape %s of %s needs at least %lld",
                   static_cast<long long>(t.byte_length),
                   ShapeText(t.shape, t.rank, nullptr).c_str(), DTypeName(t.dtype),
                   static_cast<long long>(needed));
  }
  if (t.data == nullptr) {
    if (view->empty()) return NB_OK;
    return FailArg(NB_INVALID_ARGUMENT, arg, "data is NULL but shape %s has elements",
                   ShapeText(t.shape, t.rank, nullptr).c_str());
  }
  const auto address = reinterpret_cast<uintptr_t>(t.data);
  if (address % static_cast<uintptr_t>(element_bytes) != 0) {
    return FailArg(NB_INVALID_ARGUMENT, arg,
                   "data is at address 0x%llx but a multiple of %lld was expected for %s",
                   static_cast<unsigned long long>(address),
                   static_cast<long long>(element_bytes), DTypeName(t.dtype));
  }
  if (static_cast<uint64_t>(needed) > UINTPTR_MAX - address) {
    return FailArg(NB_INVALID_ARGUMENT, arg, "data and byte_length pass the end of memory");
  }
  return NB_OK;
}

}  // namespace

nb_status FailArg(nb_status status, const Arg& arg, const char* format, ...) noexcept {
  char text[kMaxMessage];
  va_list arguments;
  va_start(arguments, format);
  const int length = std::vsnprintf(text, sizeof(text), format, arguments);
  va_end(arguments);
  if (length < 0) text[0] = '\0';
  Text name;
  WriteArg(arg, &name);
  return Fail(status, "%s: %s: %s", arg.function, name.c_str(), text);
}

const char* DTypeName(int32_t dtype) {
  switch (dtype) {
    case NB_NONE: return "NONE";
    case NB_F32: return "F32";
    case NB_F16: return "F16";
    case NB_BF16: return "BF16";
    case NB_E4M3: return "E4M3";
    case NB_E5M2: return "E5M2";
    case NB_E3M2: return "E3M2";
    case NB_E2M3: return "E2M3";
    case NB_I4: return "I4";
    case NB_I8: return "I8";
    case NB_I32: return "I32";
    case NB_U8: return "U8";
    case NB_POW2: return "POW2";
    case NB_F64: return "F64";
    default: return "unknown";
  }
}

int64_t DTypeBytes(int32_t dtype) {
  switch (dtype) {
    case NB_F64: return 8;
    case NB_F32:
    case NB_I32: return 4;
    case NB_F16:
    case NB_BF16: return 2;
    case NB_E4M3:
    case NB_E5M2:
    case NB_I8:
    case NB_U8:
    case NB_POW2: return 1;
    default: return 0;
  }
}

nb_status CheckTensor(const Arg& arg, const nb_tensor* tensor, const Expected& expected,
                      View* view) {
  if (tensor == nullptr) {
    return FailArg(NB_INVALID_ARGUMENT, arg, "NULL but a tensor of shape %s was expected",
                   ShapeText(expected.shape, expected.rank, expected.names).c_str());
  }
  const nb_tensor& t = *tensor;
  NIBBLE_RETURN_IF_FAILED(CheckStructSize(arg, t.struct_size, sizeof(nb_tensor)));
  if (t.dtype < 0 || t.dtype > 31 || (expected.dtypes & DTypeBit(t.dtype)) == 0) {
    return FailArg(NB_INVALID_ARGUMENT, arg, "dtype is %d (%s) but %s was expected", t.dtype,
                   DTypeName(t.dtype), DTypesText(expected.dtypes).c_str());
  }
  NIBBLE_RETURN_IF_FAILED(CheckShape(arg, t, expected));
  NIBBLE_RETURN_IF_FAILED(CheckStrides(arg, t, expected));
  View v;
  v.data = static_cast<uint8_t*>(t.data);
  v.dtype = t.dtype;
  v.element_bytes = DTypeBytes(t.dtype);
  v.rows = expected.rank == 1 ? 1 : t.shape[0];
  v.cols = expected.rank == 1 ? t.shape[0] : t.shape[1];
  // A single row never uses its stride: a harmless one keeps later arithmetic in range.
  v.stride = expected.rank == 1 || v.rows <= 1 ? v.cols : t.strides[0];
  NIBBLE_RETURN_IF_FAILED(CheckMemory(arg, t, v.element_bytes, &v));
  *view = v;
  return NB_OK;
}

nb_status CheckOptionalTensor(const Arg& arg, const nb_tensor* tensor, const Expected& expected,
                              View* view) {
  *view = View();
  return tensor == nullptr ? NB_OK : CheckTensor(arg, tensor, expected, view);
}

bool Overlap(const View& a, const View& b) {
  if (a.empty() || b.empty()) return false;
  // CheckTensor has shown that none of these sums overflows.
  struct Rows {
    uintptr_t begin, length, step;
    int64_t count;
  };
  const auto rows_of = [](const View& v) {
    const auto e = static_cast<uintptr_t>(v.element_bytes);
    const auto step = static_cast<uintptr_t>(v.stride) * e;
    return Rows{reinterpret_cast<uintptr_t>(v.data), static_cast<uintptr_t>(v.cols) * e, step,
                step == 0 ? 1 : v.rows};
  };
  const Rows x = rows_of(a), y = rows_of(b);
  const auto end_of = [](const Rows& r) {
    return r.begin + static_cast<uintptr_t>(r.count - 1) * r.step + r.length;
  };
  if (end_of(x) <= y.begin || end_of(y) <= x.begin) return false;
  // Both lists of row intervals are sorted: walk them side by side.
  for (int64_t i = 0, j = 0; i < x.count && j < y.count;) {
    const uintptr_t xi = x.begin + static_cast<uintptr_t>(i) * x.step;
    const uintptr_t yj = y.begin + static_cast<uintptr_t>(j) * y.step;
    if (xi + x.length <= yj) {
      ++i;
    } else if (yj + y.length <= xi) {
      ++j;
    } else {
      return true;
    }
  }
  return false;
}

bool SameMemory(const View& a, const View& b) {
  return a.data == b.data && a.rows == b.rows && a.cols == b.cols &&
         a.element_bytes == b.element_bytes && (a.rows <= 1 || a.stride == b.stride);
}

nb_status CheckDisjoint(const Arg& written, const View& a, const char* other_name,
                        const View& b) {
  if (!Overlap(a, b)) return NB_OK;
  return FailArg(NB_INVALID_ARGUMENT, written, "overlaps %s but separate memory was expected",
                 other_name);
}

nb_status CheckDisjointOrSame(const Arg& written, const View& a, const char* other_name,
                              const View& b) {
  if (SameMemory(a, b) || !Overlap(a, b)) return NB_OK;
  return FailArg(NB_INVALID_ARGUMENT, written,
                 "overlaps %s in part but separate or exactly the same memory was expected",
                 other_name);
}

nb_status CheckNotNull(const Arg& arg, const void* pointer) {
  if (pointer != nullptr) return NB_OK;
  return FailArg(NB_INVALID_ARGUMENT, arg, "NULL but a pointer was expected");
}

nb_status CheckStructSize(const Arg& arg, int64_t actual, int64_t expected) {
  if (actual == expected) return NB_OK;
  return FailArg(NB_INVALID_ARGUMENT, arg, "struct_size is %lld but %lld was expected",
                 static_cast<long long>(actual), static_cast<long long>(expected));
}

nb_status CheckEpsilon(const Arg& arg, float epsilon) {
  if (std::isfinite(epsilon) && epsilon > 0) return NB_OK;
  return FailArg(NB_INVALID_ARGUMENT, arg, "%g but a finite positive number was expected",
                 static_cast<double>(epsilon));
}

}  // namespace nibble::abi
