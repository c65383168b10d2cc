// SPDX-License-Identifier: Apache-2.0
#include "bench/native/shape_list.h"

#include <algorithm>
#include <fstream>
#include <set>
#include <sstream>
#include <stdexcept>

namespace nibble::bench {
namespace {

constexpr int64_t kMaxSize = int64_t{1} << 31;

struct Type {
  const char* name;
  int32_t dtype;
};
const Type kTypes[] = {{"none", NB_NONE}, {"f32", NB_F32},   {"f16", NB_F16},   {"bf16", NB_BF16},
                       {"e4m3", NB_E4M3}, {"e5m2", NB_E5M2}, {"e3m2", NB_E3M2}, {"e2m3", NB_E2M3},
                       {"i4", NB_I4},     {"i8", NB_I8},     {"pow2", NB_POW2}};
const char* const kMatrices[] = {"q", "k", "v", "o", "gate", "up", "down", "head"};

// One line's words, taken one after the other.
class Line {
 public:
  Line(const std::string& file, int number, const std::string& text)
      : place_(file + ":" + std::to_string(number) + ": ") {
    std::istringstream in(text.substr(0, text.find('#')));
    for (std::string word; in >> word;) words_.push_back(word);
  }

  [[noreturn]] void Fail(const std::string& what) const { throw std::runtime_error(place_ + what); }

  bool done() const { return next_ == words_.size(); }

  std::string Word(const std::string& what) {
    if (done()) Fail("the line ends, expected " + what);
    return words_[next_++];
  }

  std::string Name(const std::string& what) {
    const std::string name = Word(what);
    for (const char c : name) {
      const bool letter = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z');
      if (!letter && !(c >= '0' && c <= '9') && c != '.' && c != '_' && c != '-') {
        Fail(what + ": \"" + name + "\" given, expected letters, digits, '.', '_' and '-'");
      }
    }
    return name;
  }

  void Keyword(const std::string& word) {
    const std::string given = Word("\"" + word + "\"");
    if (given != word) Fail("\"" + given + "\" given, expected \"" + word + "\"");
  }

  int64_t Number(const std::string& what, int64_t min) {
    const std::string word = Word(what);
    const bool digits = word.find_first_not_of("0123456789") == std::string::npos;
    const int64_t value = digits && word.size() < 12 ? std::stoll(word) : -1;
    if (value < min || value >= kMaxSize) {
      Fail(what + ": \"" + word + "\" given, expected " + std::to_string(min) + " to 2^31 - 1");
    }
    return value;
  }

  int32_t TypeCode(const std::string& what) {
    const std::string word = Word(what);
    for (const Type& t : kTypes) {
      if (word == t.name) return t.dtype;
    }
    std::string names;
    for (const Type& t : kTypes) names += std::string(" ") + t.name;
    Fail(what + ": \"" + word + "\" given, expected one of" + names);
  }

  std::vector<int64_t> Numbers(const std::string& what, int64_t min) {
    std::vector<int64_t> numbers;
    do {
      numbers.push_back(Number(what, min));
    } while (!done());
    return numbers;
  }

 private:
  std::string place_;
  std::vector<std::string> words_;
  size_t next_ = 0;
};

template <class Items>
auto Find(Items& items, const std::string& name) -> decltype(items.data()) {
  for (auto& item : items) {
    if (item.name == name) return &item;
  }
  return nullptr;
}

template <class Items>
std::string Names(const Items& items) {
  std::string names;
  for (const auto& item : items) names += " " + item.name;
  return names.empty() ? " (none yet)" : names;
}

template <class Items>
auto& Named(Line& line, Items& items, const std::string& what) {
  const std::string name = line.Name(what);
  auto* found = Find(items, name);
  if (found == nullptr) {
    line.Fail(what + ": \"" + name + "\" given, expected one of those above:" + Names(items));
  }
  return *found;
}

template <class Items>
std::string NewName(Line& line, const Items& items, const std::string& what) {
  const std::string name = line.Name(what);
  if (Find(items, name) != nullptr) line.Fail(what + ": \"" + name + "\" is there already");
  return name;
}

void ParseKernel(Line& line, ShapeList& list) {
  Kernel kernel;
  kernel.name = NewName(line, list.kernels, "kernel");
  kernel.format.struct_size = sizeof kernel.format;
  line.Keyword("code");
  kernel.format.code_type = line.TypeCode("code");
  line.Keyword("scale");
  kernel.format.scale_type = line.TypeCode("scale");
  line.Keyword("group");
  kernel.format.group_size = line.Number("group", 0);
  line.Keyword("activation");
  kernel.activation = line.TypeCode("activation");
  // The library knows which combinations of codes, scales and groups there are.
  if (nb_weight_sizes(&kernel.format, 16, 16, nullptr, nullptr, nullptr, nullptr) != NB_OK) {
    line.Fail("kernel " + kernel.name + ": " + nb_last_error());
  }
  list.kernels.push_back(kernel);
}

void ParseScheme(Line& line, ShapeList& list) {
  Scheme scheme;
  scheme.name = NewName(line, list.schemes, "scheme");
  line.Keyword("kernel");
  scheme.projections = &Named(line, list.kernels, "kernel");
  line.Keyword("head");
  scheme.head = &Named(line, list.kernels, "kernel");
  line.Keyword("cache");
  scheme.cache = line.TypeCode("cache");
  list.schemes.push_back(scheme);
}

void ParseModel(Line& line, ShapeList& list) {
  Model model;
  model.name = NewName(line, list.models, "model");
  const auto number = [&](const char* what) {
    line.Keyword(what);
    return static_cast<int>(line.Number(what, 1));
  };
  model.layers = number("layers");
  model.heads = number("heads");
  model.kv_heads = number("kv_heads");
  model.head_dim = number("head_dim");
  if (model.heads % model.kv_heads != 0) line.Fail("heads is not a multiple of kv_heads");
  list.models.push_back(model);
}

void ParseMatrix(Line& line, ShapeList& list) {
  Model& model = Named(line, list.models, "model");
  Matrix matrix;
  matrix.name = NewName(line, model.matrices, "matrix");
  if (std::find(std::begin(kMatrices), std::end(kMatrices), matrix.name) == std::end(kMatrices)) {
    line.Fail("matrix: \"" + matrix.name + "\" given, expected q k v o gate up down or head");
  }
  matrix.n = line.Number("N", 1);
  matrix.k = line.Number("K", 1);
  model.matrices.push_back(matrix);
}

// The matrices of a model must fit together: the whole model is run too.
void CheckModel(const Model& model, const std::string& file) {
  const auto fail = [&](const std::string& what) {
    throw std::runtime_error(file + ": model " + model.name + ": " + what);
  };
  for (const char* name : kMatrices) {
    if (Find(model.matrices, name) == nullptr) fail(std::string("has no matrix ") + name);
  }
  const int64_t hidden = model.hidden(), inner = model.inner();
  const int64_t queries = int64_t{model.heads} * model.head_dim;
  const int64_t keys = int64_t{model.kv_heads} * model.head_dim;
  const auto expect = [&](const char* name, int64_t n, int64_t k) {
    const Matrix& m = model.matrix(name);
    if (m.n != n || m.k != k) {
      fail(std::string("matrix ") + name + " is " + std::to_string(m.n) + " x " +
           std::to_string(m.k) + ", expected " + std::to_string(n) + " x " + std::to_string(k));
    }
  };
  expect("q", queries, hidden);
  expect("k", keys, hidden);
  expect("v", keys, hidden);
  expect("o", hidden, queries);
  expect("gate", inner, hidden);
  expect("up", inner, hidden);
  expect("down", hidden, inner);
  expect("head", model.vocabulary(), hidden);
}

template <class Items>
const auto& Required(const Items& items, const std::string& name, const char* what) {
  const auto* found = Find(items, name);
  if (found == nullptr) {
    throw std::runtime_error(std::string(what) + ": \"" + name + "\" given, expected one of" +
                             Names(items));
  }
  return *found;
}

}  // namespace

const Matrix& Model::matrix(const std::string& matrix_name) const {
  return Required(matrices, matrix_name, "matrix");
}

const Scheme& ShapeList::scheme(const std::string& name) const {
  return Required(schemes, name, "scheme");
}

const Model& ShapeList::model(const std::string& name) const {
  return Required(models, name, "model");
}

ShapeList ParseShapes(std::istream& in, const std::string& name) {
  ShapeList list;
  // Schemes point into kernels, which must not move.
  list.kernels.reserve(256);
  std::set<std::string> seen;
  int number = 0;
  for (std::string text; std::getline(in, text);) {
    Line line(name, ++number, text);
    if (line.done()) continue;
    const std::string what = line.Word("a statement");
    const auto numbers = [&](std::vector<int64_t>& to, int64_t min) {
      if (!seen.insert(what).second) line.Fail(what + " is given twice");
      to = line.Numbers(what, min);
    };
    if (what == "rows") {
      numbers(list.rows, 1);
    } else if (what == "keys") {
      numbers(list.keys, 1);
    } else if (what == "contexts") {
      numbers(list.contexts, 0);
    } else if (what == "kernel") {
      if (list.kernels.size() == list.kernels.capacity()) line.Fail("more than 256 kernels");
      ParseKernel(line, list);
    } else if (what == "scheme") {
      ParseScheme(line, list);
    } else if (what == "model") {
      ParseModel(line, list);
    } else if (what == "matrix") {
      ParseMatrix(line, list);
    } else {
      line.Fail("\"" + what +
                "\" given, expected rows, keys, contexts, kernel, scheme, model or matrix");
    }
    if (!line.done()) line.Fail("\"" + line.Word("") + "\" is one word too many");
  }
  for (const char* what : {"rows", "keys", "contexts"}) {
    if (seen.count(what) == 0) throw std::runtime_error(name + ": has no line \"" + what + "\"");
  }
  if (list.kernels.empty()) throw std::runtime_error(name + ": has no line \"kernel\"");
  if (list.models.empty()) throw std::runtime_error(name + ": has no line \"model\"");
  for (const Model& model : list.models) CheckModel(model, name);
  return list;
}

ShapeList ReadShapes(const std::string& path) {
  std::ifstream in(path);
  if (!in) throw std::runtime_error(path + ": cannot be read");
  return ParseShapes(in, path);
}

const char* TypeName(int32_t dtype) {
  for (const Type& t : kTypes) {
    if (dtype == t.dtype) return t.name;
  }
  return "?";
}

}  // namespace nibble::bench
