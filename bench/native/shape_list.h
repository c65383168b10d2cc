// SPDX-License-Identifier: Apache-2.0
//
// bench/shapes.txt: what is measured, in the format that the file itself explains.
#pragma once

#include <cstdint>
#include <iosfwd>
#include <string>
#include <vector>

#include "native/include/nibble/nibble.h"

namespace nibble::bench {

struct Kernel {
  std::string name;
  nb_weight_format format;
  int32_t activation;  // nb_dtype
};

struct Scheme {
  std::string name;
  const Kernel* projections;
  const Kernel* head;
  int32_t cache;  // nb_dtype
};

struct Matrix {
  std::string name;
  int64_t n, k;
};

struct Model {
  std::string name;
  int layers, heads, kv_heads, head_dim;
  std::vector<Matrix> matrices;  // in the file's order

  const Matrix& matrix(const std::string& matrix_name) const;
  int64_t hidden() const { return matrix("q").k; }
  int64_t inner() const { return matrix("gate").n; }
  int64_t vocabulary() const { return matrix("head").n; }
};

struct ShapeList {
  std::vector<int64_t> rows, keys, contexts;
  std::vector<Kernel> kernels;
  std::vector<Scheme> schemes;  // point into kernels: a list is neither copied nor changed
  std::vector<Model> models;

  ShapeList() = default;
  ShapeList(const ShapeList&) = delete;
  ShapeList(ShapeList&&) = default;

  // Throws std::runtime_error naming the names that exist.
  const Scheme& scheme(const std::string& name) const;
  const Model& model(const std::string& name) const;
};

// Reads a list; name stands for it in messages. Throws std::runtime_error with one line that
// names the file, the line, the word and what was expected.
ShapeList ParseShapes(std::istream& in, const std::string& name);
ShapeList ReadShapes(const std::string& path);

// "i4", "e4m3", ... as the list spells nb_dtype.
const char* TypeName(int32_t dtype);

}  // namespace nibble::bench
