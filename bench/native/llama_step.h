// SPDX-License-Identifier: Apache-2.0
//
// The forward pass of a LLaMA model through the C ABI, call for call the one that Java's
// dev.nibble.model.Session makes: what Java costs is the difference between the two.
#pragma once

#include <deque>
#include <vector>

#include "bench/native/abi.h"
#include "bench/native/shape_list.h"

namespace nibble::bench {

// Random weights of a model in a scheme, every matrix in memory of its own; the embedding and the
// output head are one matrix.
class LlamaWeights {
 public:
  LlamaWeights(nb_context* context, const Model& model, const Scheme& scheme);

  struct Layer {
    MatrixPtr q, k, v, o, gate, up, down;
  };
  std::vector<Layer> layers;
  MatrixPtr head;

  // Packed bytes that decoding one token reads: all projections and the head.
  int64_t bytes_per_token() const { return bytes_; }

 private:
  int64_t bytes_ = 0;
};

class LlamaStep {
 public:
  // weights must outlive this. A pass takes at most max_rows tokens, the cache holds capacity.
  LlamaStep(nb_context* context, const Model& model, const Scheme& scheme,
            const LlamaWeights& weights, int64_t capacity, int64_t max_rows);

  // Passes tokens through the model, the first at `position` (what stands there and behind is
  // forgotten), and computes the logits of the last one.
  void Forward(const int32_t* tokens, int64_t rows, int64_t position);

  // Fills the cache with random keys and values up to position.
  void FillCache(int64_t position);

  // Bytes of keys and values that one token adds, all layers together.
  double cache_bytes_per_token() const;

  const std::vector<float>& logits() const { return logits_; }

 private:
  struct Layer {
    nb_projection qkv[3], o, down;
    const nb_matrix *gate, *up;
  };

  std::vector<float>& Buffer(int64_t size);
  nb_tensor Scratch(int64_t cols);

  nb_context* context_;
  const Model& model_;
  const Scheme& scheme_;
  int64_t capacity_, max_rows_;
  const nb_matrix* head_;
  CachePtr cache_;
  std::deque<std::vector<float>> memory_;
  std::vector<int32_t> ids_;
  std::vector<float> norm_, logits_;
  nb_tensor ids_t_, x_, q_, k_, v_, attended_, hidden_, angles_, frequencies_, norm_t_, logits_t_;
  std::vector<Layer> layers_;
};

}  // namespace nibble::bench
