// SPDX-License-Identifier: Apache-2.0
//
// Every tensor argument of every function: each way to spoil it is refused with a message
// that names it, and nothing is written; without elements it is legal; and no byte outside
// of it is touched.
#include <cstdint>
#include <limits>

#include "native/tests/operator_calls.h"

namespace nibble {
namespace {

struct Spoiled {
  std::string how;
  nb_tensor tensor;
};

constexpr int64_t kMin = std::numeric_limits<int64_t>::min();
constexpr int64_t kMax = std::numeric_limits<int64_t>::max();

// All ways in which the fields of a good tensor become bad.
std::vector<Spoiled> Spoil(const TensorArg& arg) {
  std::vector<Spoiled> list;
  const auto add = [&](const std::string& how, auto change) {
    nb_tensor t = arg.tensor;
    change(t);
    list.push_back({how, t});
  };
  const nb_tensor& good = arg.tensor;
  const int inner = good.rank - 1;
  for (const int64_t v : {int64_t{0}, int64_t{-1}, good.struct_size - 1, good.struct_size + 8}) {
    add("struct_size " + std::to_string(v), [&](nb_tensor& t) { t.struct_size = v; });
  }
  for (const int32_t v : {-1, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 31, 32, 64, 1 << 30}) {
    if (v >= 0 && v < 32 && (arg.dtypes >> v & 1)) continue;
    add("dtype " + std::to_string(v), [&](nb_tensor& t) { t.dtype = v; });
  }
  for (const int32_t v : {-1, 0, 1, 2, 3, 4, 5, std::numeric_limits<int32_t>::max()}) {
    if (v == good.rank) continue;
    add("rank " + std::to_string(v), [&](nb_tensor& t) { t.rank = v; });
  }
  for (int d = 0; d < good.rank; ++d) {
    for (const int64_t v : {int64_t{-1}, kMin, good.shape[d] + 1, int64_t{1} << 30,
                            int64_t{1} << 60, int64_t{1} << 62, kMax}) {
      add("shape[" + std::to_string(d) + "] " + std::to_string(v),
          [&](nb_tensor& t) { t.shape[d] = v; });
    }
  }
  add("all sizes 2^62", [&](nb_tensor& t) { t.shape[0] = t.shape[inner] = int64_t{1} << 62; });
  for (const int64_t v : {int64_t{0}, int64_t{-1}, int64_t{2}, kMin, kMax}) {
    add("inner stride " + std::to_string(v), [&](nb_tensor& t) { t.strides[inner] = v; });
  }
  if (good.rank == 2) {
    for (const int64_t v : {int64_t{-1}, kMin, kMax, int64_t{1} << 62}) {
      add("outer stride " + std::to_string(v), [&](nb_tensor& t) { t.strides[0] = v; });
    }
    if (arg.use != Use::kInput || arg.contiguous) {
      for (const int64_t v : {int64_t{0}, good.shape[1] - 1}) {
        add("overlapping rows " + std::to_string(v), [&](nb_tensor& t) { t.strides[0] = v; });
      }
    }
    if (arg.contiguous) {
      add("gap between rows", [&](nb_tensor& t) {
        t.strides[0] += 1;
        t.byte_length *= 2;
      });
    }
  }
  add("data NULL", [](nb_tensor& t) { t.data = nullptr; });
  for (int64_t i = 1; i < BytesOf(good.dtype); ++i) {
    add("misaligned by " + std::to_string(i),
        [&](nb_tensor& t) { t.data = static_cast<char*>(t.data) + i; });
  }
  for (const int64_t v : {good.byte_length - 1, int64_t{0}, int64_t{-1}, kMin}) {
    add("byte_length " + std::to_string(v), [&](nb_tensor& t) { t.byte_length = v; });
  }
  return list;
}

TEST(AbiTensors, EverySpoiledFieldIsRefusedAndNothingWritten) {
  const ContextPtr context = MakeContext(2);
  OperatorCalls all(context.get(), 3, Flush::kEnd);
  size_t checked = 0;
  for (const OperatorCall& call : all.calls()) {
    for (size_t i = 0; i < call.args.size(); ++i) {
      SCOPED_TRACE(call.label + ", " + call.args[i].name);
      std::vector<const nb_tensor*> pointers = call.Pointers();
      const auto expect_refusal = [&](const std::string& how) {
        SCOPED_TRACE(how);
        ExpectFailure(call.run(context.get(), pointers), NB_INVALID_ARGUMENT, call.function,
                      {call.function + ": " + call.args[i].name});
        for (const TensorArg& a : call.args) ASSERT_EQ(a.Bytes(), a.initial) << a.name;
        ++checked;
      };
      if (!call.args[i].optional) {
        pointers[i] = nullptr;
        expect_refusal("NULL");
      }
      for (const Spoiled& s : Spoil(call.args[i])) {
        pointers[i] = &s.tensor;
        expect_refusal(s.how);
        if (HasFatalFailure()) return;
      }
    }
  }
  EXPECT_GT(checked, 5000u);
}

// The memory of each argument ends, or begins, at an inaccessible page; inputs cannot be
// written. Any number of rows around the sizes of tiles.
TEST(AbiTensors, NothingOutsideOfATensorIsTouched) {
  const ContextPtr context = MakeContext(3);
  for (const Flush flush : {Flush::kEnd, Flush::kStart}) {
    for (const int64_t rows : {1, 2, 5, 17, 33}) {
      OperatorCalls all(context.get(), rows, flush);
      for (const OperatorCall& call : all.calls()) {
        SCOPED_TRACE(call.label + ", rows " + std::to_string(rows));
        for (const TensorArg& a : call.args) a.memory->SetReadOnly(a.use == Use::kInput);
        EXPECT_EQ(call.run(context.get(), call.Pointers()), NB_OK) << nb_last_error();
        // Gaps between the rows of an output keep their bytes; the rows themselves are written.
        for (const TensorArg& a : call.args) {
          if (a.use != Use::kOutput || a.tensor.rank != 2) continue;
          const int64_t e = BytesOf(a.tensor.dtype), cols = a.tensor.shape[1];
          for (int64_t r = 0; r + 1 < a.tensor.shape[0]; ++r) {
            for (int64_t b = cols * e; b < a.tensor.strides[0] * e; ++b) {
              ASSERT_EQ(a.memory->data()[r * a.tensor.strides[0] * e + b], 0xA5) << a.name;
            }
          }
        }
      }
    }
  }
}

// Every element of an output is written: twice, over different old bytes, the result is the
// same.
TEST(AbiTensors, OutputsDoNotDependOnTheirOldBytes) {
  const ContextPtr context = MakeContext(2);
  OperatorCalls all(context.get(), 3, Flush::kEnd);
  for (const OperatorCall& call : all.calls()) {
    SCOPED_TRACE(call.label);
    std::vector<std::vector<uint8_t>> results[2];
    for (int pass = 0; pass < 2; ++pass) {
      for (const TensorArg& a : call.args) {
        a.Restore();
        if (a.use != Use::kOutput) continue;
        const int64_t e = BytesOf(a.tensor.dtype);
        const int64_t rows = a.tensor.rank == 2 ? a.tensor.shape[0] : 1;
        const int64_t cols = a.tensor.rank == 2 ? a.tensor.shape[1] : a.tensor.shape[0];
        const int64_t stride = a.tensor.rank == 2 ? a.tensor.strides[0] : 0;
        for (int64_t r = 0; r < rows; ++r) {
          std::memset(a.memory->data() + r * stride * e, pass == 0 ? 0x00 : 0xFF,
                      static_cast<size_t>(cols * e));
        }
      }
      EXPECT_EQ(call.run(context.get(), call.Pointers()), NB_OK) << nb_last_error();
      for (const TensorArg& a : call.args) results[pass].push_back(a.Bytes());
    }
    EXPECT_EQ(results[0], results[1]);
  }
}

TEST(AbiTensors, ZeroRowsAreLegalAndNeedNoMemory) {
  const ContextPtr context = MakeContext(2);
  OperatorCalls all(context.get(), 0, Flush::kEnd);
  for (OperatorCall& call : all.calls()) {
    SCOPED_TRACE(call.label);
    for (TensorArg& a : call.args) {
      if (a.memory->size() == 0) a.tensor.data = nullptr;
    }
    EXPECT_EQ(call.run(context.get(), call.Pointers()), NB_OK) << nb_last_error();
  }
}

TEST(AbiTensors, OptionalTensorsMayBeNull) {
  const ContextPtr context = MakeContext(2);
  OperatorCalls all(context.get(), 2, Flush::kEnd);
  for (const OperatorCall& call : all.calls()) {
    SCOPED_TRACE(call.label);
    std::vector<const nb_tensor*> pointers = call.Pointers();
    for (size_t i = 0; i < pointers.size(); ++i) {
      if (call.args[i].optional) pointers[i] = nullptr;
    }
    EXPECT_EQ(call.run(context.get(), pointers), NB_OK) << nb_last_error();
  }
}

TEST(AbiTensors, NullContextIsRefused) {
  const ContextPtr context = MakeContext(1);
  OperatorCalls all(context.get(), 2, Flush::kEnd);
  for (const OperatorCall& call : all.calls()) {
    SCOPED_TRACE(call.label);
    ExpectFailure(call.run(nullptr, call.Pointers()), NB_INVALID_ARGUMENT, call.function,
                  {"context: NULL"});
    for (const TensorArg& a : call.args) EXPECT_EQ(a.Bytes(), a.initial) << a.name;
  }
}

}  // namespace
}  // namespace nibble
