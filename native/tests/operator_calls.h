// SPDX-License-Identifier: Apache-2.0
//
// For tests: one valid call of every function of the ABI that takes tensors, in a form whose
// tensors can be spoiled, guarded or compared one by one. The same rows, flush and seed give
// the same inputs, whatever context they are made with.
#pragma once

#include <cstring>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "native/tests/abi_test.h"
#include "kernels-cpu/testing/guarded_array.h"

namespace nibble {

enum class Use { kInput, kOutput, kInPlace };

struct TensorArg {
  std::string name;  // as messages spell it
  Use use;
  nb_tensor tensor;
  std::shared_ptr<GuardedArray> memory;  // exactly the tensor's bytes
  bool optional = false;                 // may be NULL
  bool contiguous = false;               // gaps between rows are refused
  uint32_t dtypes = 0;                   // accepted ones, a bit each
  std::vector<uint8_t> initial;          // the bytes before the call

  void Restore() const {
    if (!initial.empty()) std::memcpy(memory->data(), initial.data(), initial.size());
  }
  std::vector<uint8_t> Bytes() const {
    return {memory->data(), memory->data() + memory->size()};
  }
};

struct OperatorCall {
  std::string function;
  std::string label;  // function and variant
  std::vector<TensorArg> args;
  // Runs with one tensor pointer for each of args, in order.
  std::function<nb_status(nb_context*, const std::vector<const nb_tensor*>&)> run;

  std::vector<const nb_tensor*> Pointers() const {
    std::vector<const nb_tensor*> pointers;
    for (const TensorArg& a : args) pointers.push_back(&a.tensor);
    return pointers;
  }
};

class OperatorCalls {
 public:
  // Sizes that fill no tile, panel, group or vector.
  static constexpr int64_t kCols = 43, kOutputs = 37;
  static constexpr int32_t kHeadDim = 18, kKvHeads = 2, kQueryHeads = 4, kLayers = 2;
  static constexpr int64_t kPrefix = 5;  // tokens already in the first sequence's cache

  OperatorCalls(nb_context* context, int64_t rows, Flush flush)
      : context_(context), rows_(rows), flush_(flush), random_(TestRandom(77)) {
    for (const nb_weight_format& f :
         {Format(NB_I4, NB_E4M3, 16), Format(NB_I4, NB_POW2, 32), Format(NB_E3M2, NB_F32),
          Format(NB_I8, NB_F16, 16), Format(NB_F16)}) {
      AddWeightCalls(f);
    }
    for (const int32_t activation : {NB_F32, NB_BF16, NB_E4M3, NB_I8}) {
      AddProducts(Format(NB_I4, NB_E4M3, 16), activation);
      AddProducts(Format(NB_I8, NB_F32), activation);
      if (activation == NB_I8) continue;
      for (const nb_weight_format& f :
           {Format(NB_E3M2, NB_F32), Format(NB_E2M3, NB_BF16, 16), Format(NB_E4M3, NB_F32),
            Format(NB_E5M2, NB_F16), Format(NB_BF16), Format(NB_F16), Format(NB_F32)}) {
        AddProducts(f, activation);
      }
    }
    AddElementwise();
    for (const int32_t type : {NB_F32, NB_BF16, NB_I8, NB_I4}) AddAttention(type);
  }

  std::vector<OperatorCall>& calls() { return calls_; }

 private:
  using Pointers = std::vector<const nb_tensor*>;

  // rows == -1: a vector of cols elements.
  TensorArg Arg(const char* name, Use use, int32_t dtype, int64_t rows, int64_t cols,
                int64_t gap = 0) {
    const int64_t stride = cols + gap;
    const bool vector = rows < 0;
    const int64_t elements =
        vector ? cols : rows == 0 || cols == 0 ? 0 : (rows - 1) * stride + cols;
    TensorArg a;
    a.name = name;
    a.use = use;
    const auto bytes = static_cast<size_t>(elements * BytesOf(dtype));
    a.memory = std::make_shared<GuardedArray>(bytes, flush_);
    a.tensor = vector ? Tensor(dtype, a.memory->data(), {cols})
                      : Tensor(dtype, a.memory->data(), {rows, cols});
    if (!vector) a.tensor.strides[0] = stride;
    a.tensor.byte_length = elements * BytesOf(dtype);
    a.dtypes = 1u << dtype;
    if (use != Use::kOutput && dtype == NB_F32) {
      const std::vector<float> values = NormalValues(random_, elements);
      if (elements > 0) std::memcpy(a.memory->data(), values.data(), a.memory->size());
    }
    return a;
  }
  TensorArg Optional(TensorArg a) {
    a.optional = true;
    return a;
  }
  TensorArg Contiguous(TensorArg a) {
    a.contiguous = true;
    return a;
  }

  void Add(const char* function, const std::string& variant, std::vector<TensorArg> args,
           std::function<nb_status(nb_context*, const Pointers&)> run) {
    for (TensorArg& a : args) a.initial = a.Bytes();
    calls_.push_back({function, std::string(function) + " " + variant, std::move(args),
                      std::move(run)});
  }

  nb_matrix* Matrix(const nb_weight_format& format, int64_t rows, int64_t cols) {
    matrices_.push_back(
        QuantizeMatrix(context_, format, NormalValues(random_, rows * cols), rows, cols));
    return matrices_.back().get();
  }

  // The canonical tensors of a [kOutputs, kCols] matrix; missing ones have no element.
  std::vector<TensorArg> Canonical(const nb_weight_format& f, Use use) {
    int64_t codes = 0, high = 0, scales = 0, factors = 0;
    EXPECT_EQ(nb_weight_sizes(&f, kOutputs, kCols, &codes, &high, &scales, &factors), NB_OK);
    std::vector<TensorArg> args;
    args.push_back(Contiguous(Arg("codes", use, NB_U8, kOutputs, codes / kOutputs)));
    if (high > 0) {
      args.push_back(Contiguous(Arg("codes_high", use, NB_U8, kOutputs, high / kOutputs)));
    }
    if (scales > 0) {
      args.push_back(Contiguous(Arg("scales", use, f.scale_type, kOutputs,
                                    scales / kOutputs / BytesOf(f.scale_type))));
    }
    if (factors > 0) args.push_back(Arg("factors", use, NB_F32, -1, factors));
    return args;
  }

  // Spreads the present canonical tensors over the four parameters.
  static std::vector<const nb_tensor*> Spread(const std::vector<TensorArg>& args,
                                              const Pointers& p, size_t first) {
    std::vector<const nb_tensor*> four(4, nullptr);
    for (size_t i = first; i < args.size(); ++i) {
      const std::string& n = args[i].name;
      four[n == "codes" ? 0 : n == "codes_high" ? 1 : n == "scales" ? 2 : 3] = p[i];
    }
    return four;
  }

  void AddWeightCalls(const nb_weight_format& f) {
    const std::string variant = FormatName(f);
    TensorArg weights = Arg("weights", Use::kInput, NB_F32, kOutputs, kCols, 5);
    weights.dtypes = 1u << NB_F32 | 1u << NB_F16 | 1u << NB_BF16;

    std::vector<TensorArg> quantize = Canonical(f, Use::kOutput);
    quantize.insert(quantize.begin(), weights);
    Add("nb_quantize", variant, quantize, [f, quantize](nb_context* c, const Pointers& p) {
      const auto four = Spread(quantize, p, 1);
      return nb_quantize(c, &f, p[0], four[0], four[1], four[2], four[3]);
    });
    Add("nb_matrix_quantize", variant, {weights}, [f](nb_context* c, const Pointers& p) {
      nb_matrix* m = nullptr;
      const nb_status status = nb_matrix_quantize(c, &f, p[0], &m);
      EXPECT_EQ(m != nullptr, status == NB_OK);
      nb_matrix_destroy(m);
      return status;
    });
    nb_matrix* matrix = Matrix(f, kOutputs, kCols);
    const std::vector<TensorArg> unpack = Canonical(f, Use::kOutput);
    Add("nb_matrix_unpack", variant, unpack, [matrix, unpack](nb_context* c, const Pointers& p) {
      const auto four = Spread(unpack, p, 0);
      return nb_matrix_unpack(c, matrix, four[0], four[1], four[2], four[3]);
    });
    std::vector<TensorArg> pack = Canonical(f, Use::kInput);
    Pointers parts;
    for (const TensorArg& a : pack) parts.push_back(&a.tensor);
    const auto four = Spread(pack, parts, 0);
    EXPECT_EQ(nb_matrix_unpack(context_, matrix, four[0], four[1], four[2], four[3]), NB_OK)
        << nb_last_error();
    Add("nb_matrix_pack", variant, pack, [f, pack](nb_context* c, const Pointers& p) {
      nb_matrix* m = nullptr;
      const auto spread = Spread(pack, p, 0);
      const nb_status status = nb_matrix_pack(c, &f, kOutputs, kCols, spread[0], spread[1],
                                              spread[2], spread[3], &m);
      EXPECT_EQ(m != nullptr, status == NB_OK);
      nb_matrix_destroy(m);
      return status;
    });
    Add("nb_matrix_dequantize", variant,
        {Arg("output", Use::kOutput, NB_F32, kOutputs, kCols, 2)},
        [matrix](nb_context* c, const Pointers& p) {
          return nb_matrix_dequantize(c, matrix, p[0]);
        });
    Add("nb_embedding", variant, {Ids(), Arg("output", Use::kOutput, NB_F32, rows_, kCols, 3)},
        [matrix](nb_context* c, const Pointers& p) { return nb_embedding(c, matrix, p[0], p[1]); });
  }

  TensorArg Ids() {
    TensorArg ids = Arg("ids", Use::kInput, NB_I32, -1, rows_);
    for (int64_t i = 0; i < rows_; ++i) {
      ids.memory->as<int32_t>()[i] = static_cast<int32_t>((i * 17 + 36) % kOutputs);
    }
    return ids;
  }

  void AddProducts(const nb_weight_format& f, int32_t activation) {
    const std::string variant = FormatName(f) + " x " + std::to_string(activation);
    nb_matrix* a = Matrix(f, kOutputs, kCols);
    nb_matrix* b = Matrix(f, kOutputs, kCols);
    nb_matrix* one = Matrix(f, 1, kCols);
    Add("nb_matmul", variant,
        {Arg("x", Use::kInput, NB_F32, rows_, kCols, 1),
         Optional(Arg("norm_weight", Use::kInput, NB_F32, -1, kCols)),
         Optional(Arg("projections[0].bias", Use::kInput, NB_F32, -1, kOutputs)),
         Optional(Arg("projections[0].residual", Use::kInput, NB_F32, rows_, kOutputs, 2)),
         Arg("projections[0].output", Use::kOutput, NB_F32, rows_, kOutputs, 3),
         Arg("projections[1].output", Use::kOutput, NB_F32, rows_, 1, 4),
         Arg("projections[2].output", Use::kOutput, NB_F32, rows_, kOutputs)},
        [a, b, one, activation](nb_context* c, const Pointers& p) {
          const nb_projection projections[3] = {
              {a, p[2], p[3], p[4]}, {one, nullptr, nullptr, p[5]}, {b, nullptr, nullptr, p[6]}};
          return nb_matmul(c, activation, p[0], p[1], 1e-5f, projections, 3);
        });
    Add("nb_swiglu_matmul", variant,
        {Arg("x", Use::kInput, NB_F32, rows_, kCols, 1),
         Optional(Arg("norm_weight", Use::kInput, NB_F32, -1, kCols)),
         Optional(Arg("gate_bias", Use::kInput, NB_F32, -1, kOutputs)),
         Optional(Arg("up_bias", Use::kInput, NB_F32, -1, kOutputs)),
         Arg("output", Use::kOutput, NB_F32, rows_, kOutputs, 3)},
        [a, b, activation](nb_context* c, const Pointers& p) {
          return nb_swiglu_matmul(c, activation, p[0], p[1], 1e-5f, a, p[2], b, p[3], p[4]);
        });
  }

  void AddElementwise() {
    Add("nb_rms_norm", "",
        {Arg("x", Use::kInput, NB_F32, rows_, kCols, 1),
         Arg("weight", Use::kInput, NB_F32, -1, kCols),
         Arg("output", Use::kOutput, NB_F32, rows_, kCols, 3)},
        [](nb_context* c, const Pointers& p) { return nb_rms_norm(c, p[0], p[1], 1e-5f, p[2]); });
    Add("nb_swiglu", "",
        {Arg("gate", Use::kInput, NB_F32, rows_, kCols, 1),
         Arg("up", Use::kInput, NB_F32, rows_, kCols, 2),
         Arg("output", Use::kOutput, NB_F32, rows_, kCols, 3)},
        [](nb_context* c, const Pointers& p) { return nb_swiglu(c, p[0], p[1], p[2]); });
    Add("nb_add", "",
        {Arg("a", Use::kInput, NB_F32, rows_, kCols, 1),
         Arg("b", Use::kInput, NB_F32, rows_, kCols, 2),
         Arg("output", Use::kOutput, NB_F32, rows_, kCols, 3)},
        [](nb_context* c, const Pointers& p) { return nb_add(c, p[0], p[1], p[2]); });
    for (const int32_t type : {NB_E4M3, NB_I8}) {
      Add("nb_quantize_activations", std::to_string(type),
          {Arg("x", Use::kInput, NB_F32, rows_, kCols, 1),
           Optional(Arg("norm_weight", Use::kInput, NB_F32, -1, kCols)),
           Arg("codes", Use::kOutput, NB_U8, rows_, kCols, 3),
           Arg("scales", Use::kOutput, NB_F32, -1, rows_)},
          [type](nb_context* c, const Pointers& p) {
            return nb_quantize_activations(c, type, p[0], p[1], 1e-5f, p[2], p[3]);
          });
    }
  }

  // Two sequences share the rows: the first, after a prefix, gets the larger half.
  std::vector<nb_sequence> Sequences(nb_kv_cache* a, nb_kv_cache* b) const {
    const int64_t first = (rows_ + 1) / 2;
    return {{a, kPrefix, first}, {b, 0, rows_ - first}};
  }

  void AddAttention(int32_t type) {
    const std::string variant = "cache type " + std::to_string(type);
    for (int i = 0; i < 2; ++i) {
      caches_.push_back(
          MakeCache(context_, type, kLayers, kKvHeads, kHeadDim, kPrefix + rows_ + i));
    }
    nb_kv_cache* a = caches_[caches_.size() - 2].get();
    nb_kv_cache* b = caches_.back().get();
    const int64_t q_cols = kQueryHeads * kHeadDim, kv_cols = kKvHeads * kHeadDim;
    std::vector<float> q(kPrefix * q_cols);
    const std::vector<float> k = NormalValues(random_, kPrefix * kv_cols);
    const nb_tensor qt = F32(q, {kPrefix, q_cols}), kt = F32(k, {kPrefix, kv_cols});
    const nb_sequence prefix = {a, 0, kPrefix};
    EXPECT_EQ(nb_rope_append(context_, 1, &qt, &kt, &kt, nullptr, &prefix, 1), NB_OK)
        << nb_last_error();

    const std::vector<nb_sequence> sequences = Sequences(a, b);
    Add("nb_rope_angles", variant,
        {Arg("inverse_frequencies", Use::kInput, NB_F32, -1, kHeadDim / 2),
         Arg("angles", Use::kOutput, NB_F32, rows_, kHeadDim, 2)},
        [sequences](nb_context* c, const Pointers& p) {
          return nb_rope_angles(c, p[0], sequences.data(), 2, p[1]);
        });
    Add("nb_rope_append", variant,
        {Arg("q", Use::kInPlace, NB_F32, rows_, q_cols, 1),
         Arg("k", Use::kInput, NB_F32, rows_, kv_cols, 2),
         Arg("v", Use::kInput, NB_F32, rows_, kv_cols, 3),
         Optional(Arg("angles", Use::kInput, NB_F32, rows_, kHeadDim, 4))},
        [sequences](nb_context* c, const Pointers& p) {
          return nb_rope_append(c, 1, p[0], p[1], p[2], p[3], sequences.data(), 2);
        });
    // So that attention is legal on its own; the call above repeats it.
    EXPECT_EQ(calls_.back().run(context_, calls_.back().Pointers()), NB_OK) << nb_last_error();
    for (const TensorArg& arg : calls_.back().args) arg.Restore();
    Add("nb_attention", variant,
        {Arg("q", Use::kInput, NB_F32, rows_, q_cols, 1),
         Arg("output", Use::kOutput, NB_F32, rows_, q_cols, 3)},
        [sequences](nb_context* c, const Pointers& p) {
          return nb_attention(c, 1, p[0], 0.25f, sequences.data(), 2, p[1]);
        });
  }

  nb_context* context_;
  int64_t rows_;
  Flush flush_;
  std::mt19937_64 random_;
  std::vector<MatrixPtr> matrices_;
  std::vector<CachePtr> caches_;
  std::vector<OperatorCall> calls_;
};

}  // namespace nibble
