// SPDX-License-Identifier: Apache-2.0
#include "bench/native/random_weights.h"

#include <algorithm>
#include <random>

#include "kernels-cpu/gemm/weights_for_test.h"

namespace nibble::bench {
namespace {

constexpr int64_t kBlockRows = 64;

// bytes of the block again and again until `to` is full.
template <class T>
void Repeat(const std::vector<T>& block, std::vector<T>& to) {
  for (size_t at = 0; at < to.size(); at += block.size()) {
    std::copy_n(block.begin(), std::min(block.size(), to.size() - at), to.begin() + at);
  }
}

}  // namespace

RandomMatrix::RandomMatrix(const nb_weight_format& format, int64_t n, int64_t k)
    : format_(format), n_(n), k_(k) {
  const WeightFormat f = {static_cast<DType>(format.code_type),
                          static_cast<DType>(format.scale_type), format.group_size};
  std::minstd_rand random(1);
  const CanonicalStorage block = RandomWeights(random, f, std::min(n, kBlockRows), k);
  CanonicalStorage all(f, n, k);
  Repeat(block.codes, all.codes);
  Repeat(block.codes_high, all.codes_high);
  Repeat(block.scales, all.scales);
  Repeat(block.factors, all.factors);
  codes_ = std::move(all.codes);
  high_ = std::move(all.codes_high);
  scales_ = std::move(all.scales);
  factors_ = std::move(all.factors);
}

MatrixPtr RandomMatrix::Pack(nb_context* context) const {
  const auto bytes = [&](const std::vector<uint8_t>& part) {
    return Tensor(NB_U8, 1, part.data(), n_, static_cast<int64_t>(part.size()) / n_);
  };
  nb_tensor codes = bytes(codes_), high = bytes(high_);
  const int64_t element = format_.scale_type == NB_E4M3 || format_.scale_type == NB_POW2 ? 1
                          : format_.scale_type == NB_F32                                 ? 4
                                                                                         : 2;
  nb_tensor scales = Tensor(format_.scale_type, element, scales_.data(), n_,
                            static_cast<int64_t>(scales_.size()) / element / n_);
  nb_tensor factors = F32(factors_.data(), static_cast<int64_t>(factors_.size()));
  nb_matrix* matrix = nullptr;
  Check(nb_matrix_pack(context, &format_, n_, k_, &codes, high_.empty() ? nullptr : &high,
                       scales_.empty() ? nullptr : &scales,
                       factors_.empty() ? nullptr : &factors, &matrix));
  return MatrixPtr(matrix);
}

std::vector<float> RandomValues(int64_t count, unsigned seed) {
  std::minstd_rand random(seed);
  std::normal_distribution<float> normal;
  // A prime number of distinct values: rows of any length still differ.
  std::vector<float> pool(std::min<int64_t>(count, 65537));
  for (float& v : pool) v = normal(random);
  std::vector<float> values(count);
  Repeat(pool, values);
  return values;
}

}  // namespace nibble::bench
