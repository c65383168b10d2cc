// SPDX-License-Identifier: Apache-2.0
//
// For tests: a weight matrix in canonical form in ordinary memory, driven through the ABI.
#pragma once

#include <cmath>
#include <cstring>
#include <vector>

#include "kernels-cpu/numerics/quantize.h"
#include "native/tests/abi_test.h"

namespace nibble {

class CanonicalMatrix {
 public:
  nb_weight_format format;
  int64_t rows, cols;
  std::vector<uint8_t> codes, high, scales;
  std::vector<float> factors;

  CanonicalMatrix(const nb_weight_format& f, int64_t n, int64_t k) : format(f), rows(n), cols(k) {
    int64_t c = 0, h = 0, s = 0, t = 0;
    EXPECT_EQ(nb_weight_sizes(&f, n, k, &c, &h, &s, &t), NB_OK) << nb_last_error();
    codes.assign(static_cast<size_t>(c), 0xCC);
    high.assign(static_cast<size_t>(h), 0xCC);
    scales.assign(static_cast<size_t>(s), 0xCC);
    factors.assign(static_cast<size_t>(t), -3.0f);
  }

  static CanonicalMatrix Quantize(nb_context* context, const nb_weight_format& f,
                                  const std::vector<float>& weights, int64_t n, int64_t k) {
    CanonicalMatrix m(f, n, k);
    EXPECT_EQ(m.QuantizeFrom(context, F32(weights, {n, k})), NB_OK) << nb_last_error();
    return m;
  }

  // Every legal code (so also those that the quantizer never makes, -8 among them) and
  // scales around 1.
  static CanonicalMatrix Random(const nb_weight_format& f, int64_t n, int64_t k,
                                std::mt19937_64& random) {
    CanonicalMatrix m(f, n, k);
    m.codes.assign(m.codes.size(), 0);
    m.high.assign(m.high.size(), 0);
    for (int64_t r = 0; r < n; ++r) {
      for (int64_t c = 0; c < k; ++c) m.SetCode(r, c, m.RandomCode(random));
    }
    const int64_t bytes = BytesOf(f.scale_type);
    for (size_t i = 0; i + bytes <= m.scales.size(); i += bytes) {
      float value = std::exp2(std::uniform_real_distribution<float>(-4, 4)(random));
      uint32_t code = 0;
      // Of either sign where they may be.
      const bool sign = f.scale_type != NB_POW2 && f.scale_type != NB_E4M3;
      if (sign && random() % 2 == 1) value = -value;
      if (f.scale_type == NB_POW2) {
        code = static_cast<uint8_t>(static_cast<int>(std::floor(std::log2(value))));
      } else if (f.scale_type == NB_F32) {
        std::memcpy(&code, &value, 4);
      } else {
        EXPECT_EQ(nb_encode(f.scale_type, &value, 1, &code, 4), NB_OK);
      }
      std::memcpy(m.scales.data() + i, &code, bytes);
    }
    for (float& t : m.factors) t = std::uniform_real_distribution<float>(0.01f, 2)(random);
    return m;
  }

  // The same bits in every part.
  bool SameBits(const CanonicalMatrix& other) const {
    return codes == other.codes && high == other.high && scales == other.scales &&
           factors.size() == other.factors.size() &&
           (factors.empty() || std::memcmp(factors.data(), other.factors.data(),
                                           factors.size() * sizeof(float)) == 0);
  }

  int64_t Groups() const {
    const int64_t group = format.group_size == 0 ? cols : format.group_size;
    return (cols + group - 1) / group;
  }

  uint32_t Code(int64_t r, int64_t c) const {
    const int64_t row_bytes = static_cast<int64_t>(codes.size()) / rows;
    const uint8_t* row = codes.data() + r * row_bytes;
    if (!IsNibbles()) {
      const int64_t bytes = row_bytes / cols;
      uint32_t code = 0;
      std::memcpy(&code, row + c * bytes, bytes);
      return code;
    }
    uint32_t code = row[c / 2] >> (4 * (c % 2)) & 15;
    if (!high.empty()) {
      const int64_t high_bytes = static_cast<int64_t>(high.size()) / rows;
      code |= (high[r * high_bytes + c / 4] >> (2 * (c % 4)) & 3u) << 4;
    }
    return code;
  }

  uint32_t Scale(int64_t r, int64_t group) const {
    const int64_t bytes = BytesOf(format.scale_type);
    uint32_t code = 0;
    std::memcpy(&code, scales.data() + (r * Groups() + group) * bytes, bytes);
    return code;
  }

  // The exact weight.
  double Value(int64_t r, int64_t c) const {
    const WeightFormat f{static_cast<DType>(format.code_type),
                         static_cast<DType>(format.scale_type), format.group_size};
    auto* self = const_cast<CanonicalMatrix*>(this);
    return WeightValue(f, cols,
                       {self->codes.data(), self->high.data(), self->scales.data(),
                        self->factors.data()},
                       r, c);
  }

  nb_tensor CodesTensor() const { return Bytes(codes); }
  nb_tensor ScalesTensor() const {
    return Tensor(format.scale_type, scales.data(), {rows, Groups()});
  }

  nb_status QuantizeFrom(nb_context* context, const nb_tensor& weights) {
    const Tensors t(*this);
    return nb_quantize(context, &format, &weights, t.p[0], t.p[1], t.p[2], t.p[3]);
  }
  // What a function returns that takes the four parts.
  template <class Function>
  nb_status Call(const Function& function) {
    const Tensors t(*this);
    return function(t.p[0], t.p[1], t.p[2], t.p[3]);
  }
  nb_status UnpackFrom(nb_context* context, const nb_matrix* matrix) {
    const Tensors t(*this);
    return nb_matrix_unpack(context, matrix, t.p[0], t.p[1], t.p[2], t.p[3]);
  }
  nb_status PackInto(nb_context* context, nb_matrix** matrix) const {
    const Tensors t(*this);
    return nb_matrix_pack(context, &format, rows, cols, t.p[0], t.p[1], t.p[2], t.p[3], matrix);
  }
  MatrixPtr Pack(nb_context* context) const {
    nb_matrix* matrix = nullptr;
    EXPECT_EQ(PackInto(context, &matrix), NB_OK) << nb_last_error();
    return MatrixPtr(matrix);
  }

 private:
  // The four tensor arguments; NULL for those that the format lacks.
  struct Tensors {
    explicit Tensors(const CanonicalMatrix& m) {
      t[0] = m.CodesTensor();
      p[0] = &t[0];
      if (!m.high.empty()) t[1] = m.Bytes(m.high), p[1] = &t[1];
      if (!m.scales.empty()) t[2] = m.ScalesTensor(), p[2] = &t[2];
      if (!m.factors.empty()) {
        t[3] = F32(m.factors, {static_cast<int64_t>(m.factors.size())});
        p[3] = &t[3];
      }
    }
    nb_tensor t[4];
    const nb_tensor* p[4] = {nullptr, nullptr, nullptr, nullptr};
  };

  bool IsNibbles() const {
    return format.code_type == NB_I4 || format.code_type == NB_E3M2 || format.code_type == NB_E2M3;
  }
  nb_tensor Bytes(const std::vector<uint8_t>& v) const {
    return Tensor(NB_U8, v.data(), {rows, static_cast<int64_t>(v.size()) / rows});
  }

  uint32_t RandomCode(std::mt19937_64& random) const {
    const auto bits = static_cast<uint32_t>(random());
    if (format.code_type == NB_F32) {
      const float value = std::normal_distribution<float>()(random);
      uint32_t code;
      std::memcpy(&code, &value, 4);
      return code;
    }
    const uint32_t mask = format.code_type == NB_I4 ? 15 : IsNibbles() ? 63
                          : format.code_type == NB_F16 || format.code_type == NB_BF16 ? 0xFFFF
                                                                                      : 0xFF;
    const uint32_t code = bits & mask;
    float value = 0;
    EXPECT_EQ(nb_decode(format.code_type, &code, 4, &value, 1), NB_OK);
    return std::isfinite(value) ? code : 0;
  }

  void SetCode(int64_t r, int64_t c, uint32_t code) {
    const int64_t row_bytes = static_cast<int64_t>(codes.size()) / rows;
    uint8_t* row = codes.data() + r * row_bytes;
    if (!IsNibbles()) {
      const int64_t bytes = row_bytes / cols;
      std::memcpy(row + c * bytes, &code, bytes);
      return;
    }
    row[c / 2] |= static_cast<uint8_t>((code & 15) << (4 * (c % 2)));
    if (high.empty()) return;
    const int64_t high_bytes = static_cast<int64_t>(high.size()) / rows;
    high[r * high_bytes + c / 4] |= static_cast<uint8_t>((code >> 4) << (2 * (c % 4)));
  }
};

}  // namespace nibble
