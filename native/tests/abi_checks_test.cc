// SPDX-License-Identifier: Apache-2.0
#include "native/src/checks.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <new>
#include <set>
#include <stdexcept>
#include <string>
#include <thread>

#include "native/src/status.h"
#include "native/tests/abi_test.h"

namespace nibble {
namespace {

using namespace abi;

TEST(Status, MessageIsOneLineAndCut) {
  EXPECT_EQ(Fail(NB_INVALID_ARGUMENT, "%s: two\nlines\r%d", "f", 7), NB_INVALID_ARGUMENT);
  EXPECT_STREQ(nb_last_error(), "f: two lines 7");
  EXPECT_EQ(Fail(NB_INTERNAL, "%s", std::string(5000, 'x').c_str()), NB_INTERNAL);
  EXPECT_EQ(std::string(nb_last_error()), std::string(kMaxMessage - 1, 'x'));
  // The current message may be part of the next.
  Fail(NB_INTERNAL, "first");
  Fail(NB_INTERNAL, "second after %s", nb_last_error());
  EXPECT_STREQ(nb_last_error(), "second after first");
}

TEST(Status, EachThreadHasItsOwn) {
  Fail(NB_INTERNAL, "mine");
  std::string fresh = "unset", other;
  std::thread([&] {
    fresh = nb_last_error();
    Fail(NB_INTERNAL, "other");
    other = nb_last_error();
  }).join();
  EXPECT_EQ(fresh, "");
  EXPECT_EQ(other, "other");
  EXPECT_STREQ(nb_last_error(), "mine");
}

TEST(Status, ExceptionsBecomeStatuses) {
  EXPECT_EQ(Guard("f", [] { return NB_UNSUPPORTED; }), NB_UNSUPPORTED);
  EXPECT_EQ(Guard("f", []() -> nb_status { throw std::bad_alloc(); }), NB_OUT_OF_MEMORY);
  EXPECT_STREQ(nb_last_error(), "f: the system has not enough free memory");
  EXPECT_EQ(Guard("f", []() -> nb_status { throw std::length_error("l"); }), NB_OUT_OF_MEMORY);
  EXPECT_EQ(Guard("f", []() -> nb_status {
              throw std::system_error(std::make_error_code(std::errc::operation_not_permitted));
            }),
            NB_OUT_OF_MEMORY);
  EXPECT_EQ(Guard("f", []() -> nb_status { throw std::runtime_error("why"); }), NB_INTERNAL);
  EXPECT_STREQ(nb_last_error(), "f: unexpected error: why");
  EXPECT_EQ(Guard("f", []() -> nb_status { throw 3; }), NB_INTERNAL);
}

TEST(Checks, ArgumentNames) {
  const auto text = [](const Arg& arg) {
    FailArg(NB_INVALID_ARGUMENT, arg, "bad %d", 1);
    return std::string(nb_last_error());
  };
  EXPECT_EQ(text({"nb_f", "x"}), "nb_f: x: bad 1");
  EXPECT_EQ(text({"nb_f", "list", 3}), "nb_f: list[3]: bad 1");
  EXPECT_EQ(text({"nb_f", "list", 3, "part"}), "nb_f: list[3].part: bad 1");
  EXPECT_EQ(text(Arg{"nb_f", "format"}.Field("group_size")), "nb_f: format.group_size: bad 1");
}

TEST(Checks, ShapeMessage) {
  const std::vector<float> data(4 * 33);
  const nb_tensor t = F32(data, {4, 33});
  View view;
  EXPECT_EQ(CheckTensor({"nb_matmul", "projections", 1, "output"}, &t, F32Rows(4, 32), &view),
            NB_INVALID_ARGUMENT);
  EXPECT_STREQ(nb_last_error(),
               "nb_matmul: projections[1].output: shape [4, 33] but [4, 32] was expected");
  EXPECT_EQ(CheckTensor({"nb_f", "x"}, &t, F32Rows(kAnySize, 32), &view), NB_INVALID_ARGUMENT);
  EXPECT_STREQ(nb_last_error(), "nb_f: x: shape [4, 33] but [M, 32] was expected");
}

TEST(Checks, ViewOfGoodTensors) {
  std::vector<float> data(100);
  nb_tensor t = F32(data, {4, 10});
  View view;
  t.strides[0] = 30;
  t.byte_length = 100 * 4;
  ASSERT_EQ(CheckTensor({"f", "x"}, &t, F32Rows(kAnySize, kAnySize), &view), NB_OK);
  EXPECT_EQ(view.rows, 4);
  EXPECT_EQ(view.cols, 10);
  EXPECT_EQ(view.stride, 30);
  EXPECT_EQ(view.f32(), data.data());
  t.byte_length = 100 * 4 - 1;
  EXPECT_EQ(CheckTensor({"f", "x"}, &t, F32Rows(kAnySize, kAnySize), &view), NB_INVALID_ARGUMENT);
  // One row: whatever its stride, only the row itself is needed.
  t.shape[0] = 1;
  t.strides[0] = int64_t{1} << 62;
  t.byte_length = 40;
  EXPECT_EQ(CheckTensor({"f", "x"}, &t, Output(F32Rows(1, 10)), &view), NB_OK);
  EXPECT_EQ(view.stride, 10);
  // No rows: no memory.
  t.shape[0] = 0;
  t.data = nullptr;
  t.byte_length = 0;
  EXPECT_EQ(CheckTensor({"f", "x"}, &t, Output(F32Rows(kAnySize, 10)), &view), NB_OK);
  EXPECT_TRUE(view.empty());
  // An input's rows may overlap or even be one row repeated.
  nb_tensor repeated = F32(data, {4, 10});
  repeated.strides[0] = 0;
  repeated.byte_length = 40;
  EXPECT_EQ(CheckTensor({"f", "x"}, &repeated, F32Rows(4, 10), &view), NB_OK);
  EXPECT_EQ(CheckTensor({"f", "x"}, &repeated, Output(F32Rows(4, 10)), &view),
            NB_INVALID_ARGUMENT);
}

TEST(Checks, SizesThatOverflow) {
  float one = 0;
  View view;
  const int64_t huge[] = {int64_t{1} << 30, int64_t{1} << 31, int64_t{1} << 61, int64_t{1} << 62,
                          std::numeric_limits<int64_t>::max()};
  for (const int64_t rows : huge) {
    for (const int64_t cols : huge) {
      for (const int64_t stride : {cols, std::numeric_limits<int64_t>::max()}) {
        nb_tensor t = Tensor(NB_F32, &one, {1, 1});
        t.shape[0] = rows;
        t.shape[1] = cols;
        t.strides[0] = stride;
        t.byte_length = 4;
        EXPECT_EQ(CheckTensor({"f", "x"}, &t, F32Rows(kAnySize, kAnySize), &view),
                  NB_INVALID_ARGUMENT)
            << rows << " " << cols << " " << stride;
      }
    }
  }
  // A length that passes the end of the address space.
  nb_tensor t = Tensor(NB_F32, &one, {int64_t{1} << 60});
  t.byte_length = std::numeric_limits<int64_t>::max();
  t.data = reinterpret_cast<void*>(UINTPTR_MAX - 255);
  EXPECT_EQ(CheckTensor({"f", "x"}, &t, F32Vector(kAnySize), &view), NB_INVALID_ARGUMENT);
}

// Overlap against the definition: the sets of bytes that the elements occupy.
TEST(Checks, OverlapIsExact) {
  std::mt19937_64 random = TestRandom(1);
  const auto pick = [&](int64_t low, int64_t high) {
    return std::uniform_int_distribution<int64_t>(low, high)(random);
  };
  uint8_t memory[256];
  const auto view = [&] {
    View v;
    v.element_bytes = pick(0, 1) ? 1 : 4;
    v.rows = pick(0, 4);
    v.cols = pick(0, 4);
    v.stride = pick(0, 6);
    v.data = memory + v.element_bytes * pick(0, 24);
    return v;
  };
  const auto bytes = [](const View& v) {
    std::set<const uint8_t*> set;
    for (int64_t r = 0; r < v.rows; ++r) {
      for (int64_t b = 0; b < v.cols * v.element_bytes; ++b) {
        set.insert(v.data + r * v.stride * v.element_bytes + b);
      }
    }
    return set;
  };
  int overlaps = 0;
  for (int i = 0; i < 20000; ++i) {
    const View a = view(), b = view();
    bool expected = false;
    const auto in_b = bytes(b);
    for (const uint8_t* byte : bytes(a)) expected = expected || in_b.count(byte) > 0;
    overlaps += expected;
    ASSERT_EQ(Overlap(a, b), expected)
        << "a: " << a.rows << "x" << a.cols << " stride " << a.stride << " at "
        << a.data - memory << ", b: " << b.rows << "x" << b.cols << " stride " << b.stride
        << " at " << b.data - memory;
    ASSERT_EQ(Overlap(b, a), expected);
  }
  EXPECT_GT(overlaps, 1000);
  EXPECT_LT(overlaps, 19000);
}

TEST(Checks, Epsilon) {
  EXPECT_EQ(CheckEpsilon({"f", "epsilon"}, 1e-5f), NB_OK);
  EXPECT_EQ(CheckEpsilon({"f", "epsilon"}, std::numeric_limits<float>::denorm_min()), NB_OK);
  for (const float bad : {0.0f, -0.0f, -1e-5f, INFINITY, NAN}) {
    EXPECT_EQ(CheckEpsilon({"f", "epsilon"}, bad), NB_INVALID_ARGUMENT) << bad;
  }
}

}  // namespace
}  // namespace nibble
