// SPDX-License-Identifier: Apache-2.0
#include "bench/native/shape_list.h"

#include <gtest/gtest.h>

#include <sstream>

namespace nibble::bench {
namespace {

const char kSmall[] =
    "rows 1 8\n"
    "keys 64\n"
    "contexts 0 32  # a comment\n"
    "\n"
    "kernel a8i_w4 code i4 scale e4m3 group 128 activation i8\n"
    "scheme w4a8i kernel a8i_w4 head a8i_w4 cache i4\n"
    "model tiny layers 2 heads 4 kv_heads 2 head_dim 16\n"
    "matrix tiny q 64 48\n"
    "matrix tiny k 32 48\n"
    "matrix tiny v 32 48\n"
    "matrix tiny o 48 64\n"
    "matrix tiny gate 80 48\n"
    "matrix tiny up 80 48\n"
    "matrix tiny down 48 80\n"
    "matrix tiny head 100 48\n";

ShapeList Parse(const std::string& text) {
  std::istringstream in(text);
  return ParseShapes(in, "list.txt");
}

std::string Replaced(std::string text, const std::string& from, const std::string& to) {
  const size_t at = text.find(from);
  EXPECT_NE(at, std::string::npos) << from;
  return text.replace(at, from.size(), to);
}

// The message of a list in which `from` is replaced by `to`.
std::string Message(const std::string& from, const std::string& to) {
  try {
    Parse(Replaced(kSmall, from, to));
  } catch (const std::runtime_error& e) {
    return e.what();
  }
  return "accepted";
}

TEST(ShapeList, Reads) {
  const ShapeList list = Parse(kSmall);
  EXPECT_EQ(list.rows, (std::vector<int64_t>{1, 8}));
  EXPECT_EQ(list.contexts, (std::vector<int64_t>{0, 32}));
  ASSERT_EQ(list.kernels.size(), 1u);
  EXPECT_EQ(list.kernels[0].format.code_type, NB_I4);
  EXPECT_EQ(list.kernels[0].format.scale_type, NB_E4M3);
  EXPECT_EQ(list.kernels[0].format.group_size, 128);
  EXPECT_EQ(list.kernels[0].activation, NB_I8);
  EXPECT_EQ(list.scheme("w4a8i").projections, &list.kernels[0]);
  EXPECT_EQ(list.scheme("w4a8i").cache, NB_I4);
  const Model& model = list.model("tiny");
  EXPECT_EQ(model.layers, 2);
  EXPECT_EQ(model.matrix("down").k, 80);
  EXPECT_EQ(model.hidden(), 48);
  EXPECT_EQ(model.inner(), 80);
  EXPECT_EQ(model.vocabulary(), 100);
}

TEST(ShapeList, TheListOfTheRepositoryHasEveryMatrixAndRowCount) {
  const ShapeList list = ReadShapes(NIBBLE_SHAPES_FILE);
  EXPECT_EQ(list.rows, (std::vector<int64_t>{1, 2, 4, 8, 16, 32, 128, 512}));
  for (const char* name : {"llama-2-7b", "llama-3.2-1b", "llama-3-8b"}) {
    EXPECT_EQ(list.model(name).matrices.size(), 8u) << name;
  }
  EXPECT_EQ(list.model("llama-3-8b").inner(), 14336);
  EXPECT_EQ(list.model("llama-2-7b").vocabulary(), 32000);
  // What is run as a whole when nothing is asked for.
  EXPECT_EQ(list.models.front().name, "llama-3.2-1b");
}

TEST(ShapeList, ErrorsNameTheLineTheWordAndWhatWasExpected) {
  EXPECT_EQ(Message("rows 1 8", "rows 1 zero"),
            "list.txt:1: rows: \"zero\" given, expected 1 to 2^31 - 1");
  EXPECT_EQ(Message("rows 1 8", "rows 1 99999999999999999999"),
            "list.txt:1: rows: \"99999999999999999999\" given, expected 1 to 2^31 - 1");
  EXPECT_EQ(Message("rows 1 8", "rows"), "list.txt:1: the line ends, expected rows");
  EXPECT_EQ(Message("keys 64", "rows 64"), "list.txt:2: rows is given twice");
  EXPECT_EQ(Message("keys 64\n", "\n"), "list.txt: has no line \"keys\"");
  EXPECT_EQ(Message("keys 64", "kees 64"),
            "list.txt:2: \"kees\" given, expected rows, keys, contexts, kernel, scheme, model or "
            "matrix");
  EXPECT_NE(Message("code i4", "code i5").find("list.txt:5: code: \"i5\" given, expected one of"),
            std::string::npos);
  EXPECT_EQ(Message("scale e4m3", "skale e4m3"),
            "list.txt:5: \"skale\" given, expected \"scale\"");
  EXPECT_NE(Message("group 128", "group 17").find("list.txt:5: kernel a8i_w4: "),
            std::string::npos);
  EXPECT_EQ(Message("head a8i_w4", "head none"),
            "list.txt:6: kernel: \"none\" given, expected one of those above: a8i_w4");
  EXPECT_EQ(Message("kv_heads 2", "kv_heads 3"),
            "list.txt:7: heads is not a multiple of kv_heads");
  EXPECT_EQ(Message("head_dim 16", "head_dim 16 1"), "list.txt:7: \"1\" is one word too many");
  EXPECT_EQ(Message("tiny q", "tiny qq"),
            "list.txt:8: matrix: \"qq\" given, expected q k v o gate up down or head");
  EXPECT_EQ(Message("tiny v", "tiny k"), "list.txt:10: matrix: \"k\" is there already");
  EXPECT_EQ(Message("matrix tiny head 100 48\n", ""), "list.txt: model tiny: has no matrix head");
  EXPECT_EQ(Message("tiny down 48 80", "tiny down 48 81"),
            "list.txt: model tiny: matrix down is 48 x 81, expected 48 x 80");
  EXPECT_EQ(Message("a8i_w4 code", "a8i\x01w4 code").substr(0, 19), "list.txt:5: kernel:");
}

TEST(ShapeList, AMissingFileIsNamed) {
  EXPECT_THROW(
      {
        try {
          ReadShapes("/nonexistent/shapes.txt");
        } catch (const std::runtime_error& e) {
          EXPECT_STREQ(e.what(), "/nonexistent/shapes.txt: cannot be read");
          throw;
        }
      },
      std::runtime_error);
}

}  // namespace
}  // namespace nibble::bench
