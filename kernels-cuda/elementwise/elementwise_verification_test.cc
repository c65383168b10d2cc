// SPDX-License-Identifier: Apache-2.0
//
// What the mutation suite runs on broken versions of the row operators' kernels.
#include <algorithm>
#include <cmath>
#include <cstring>

#include "kernels-cpu/elementwise/elementwise_reference.h"
#include "kernels-cpu/numerics/formats.h"
#include "kernels-cuda/attention/sequence.h"
#include "kernels-cuda/elementwise/elementwise.h"
#include "kernels-cuda/elementwise/verification_block_for_test.h"
#include "kernels-cuda/testing/verification.h"

namespace nibble::cuda::elementwise {
namespace {

bool Near(float got, double expected, double bound) {
  return std::fabs(got - expected) <= bound * std::fabs(expected) + 1e-30;
}

// The left operand made of rows that are already F32, against the definition.
bool LeftMatches(const Block& memory, const GemmLeft& left, const std::vector<float>& rows,
                 int64_t stride) {
  const int64_t bytes = left.type == DType::kBF16 ? 2 : 1;
  std::vector<uint8_t> codes, expected(static_cast<size_t>(left.cols));
  std::vector<float> scales;
  if (!memory.Read(&codes, static_cast<size_t>(left.rows * left.stride * bytes))) return false;
  if (bytes == 1 && !memory.Read(&scales, static_cast<size_t>(left.rows),
                                 static_cast<size_t>(left.scales - left.values))) {
    return false;
  }
  for (int64_t r = 0; r < left.rows; ++r) {
    const uint8_t* got = &codes[r * left.stride * bytes];
    const float* x = &rows[r * stride];
    if (bytes == 1) {
      const float scale = QuantizeRowReference(left.type, x, left.cols, expected.data());
      if (scales[r] != scale && !(std::isnan(scales[r]) && std::isnan(scale))) return false;
      if (!std::equal(expected.begin(), expected.end(), got)) return false;
    } else {
      for (int64_t i = 0; i < left.cols; ++i) {
        const auto code = static_cast<uint16_t>(got[2 * i] | got[2 * i + 1] << 8);
        if (std::isnan(x[i]) ? !std::isnan(DecodeBF16(code)) : code != EncodeBF16(x[i])) {
          return false;
        }
      }
    }
    const auto zero = [](uint8_t b) { return b == 0; };
    if (!std::all_of(got + left.cols * bytes, got + left.stride * bytes, zero)) return false;
  }
  return true;
}

// Rows on a device, and what the operations on them should come to.
class RowsCase {
 public:
  RowsCase(Device& device, int64_t rows, int64_t cols, int64_t stride)
      : device_(device),
        rows_(rows),
        cols_(cols),
        stride_(stride),
        x_(Inputs(rows, cols, stride)),
        up_(Ups(rows, cols, stride)),
        w_(Weights(rows, cols)),
        dx_(device, x_),
        du_(device, up_),
        dw_(device, w_) {}

  bool RmsNormMatches() {
    std::vector<float> normed;
    if (!Normed(&normed)) return false;
    std::vector<double> expected(static_cast<size_t>(cols_));
    for (int64_t r = 0; r < rows_; ++r) {
      RmsNormRowReference(&x_[r * stride_], w_.data(), 0.5f, cols_, expected.data());
      for (int64_t i = 0; Plain(r) && i < cols_; ++i) {
        if (!Near(normed[r * stride_ + i], expected[i], 3e-6)) return false;
      }
    }
    return Untouched(normed);
  }

  bool SwiGluMatches() {
    std::vector<float> gated;
    if (!Gated(&gated)) return false;
    std::vector<double> expected(static_cast<size_t>(cols_));
    for (int64_t r = 0; r < rows_; ++r) {
      SwiGluRowReference(&x_[r * stride_], &up_[r * stride_], cols_, expected.data());
      for (int64_t i = 0; Plain(r) && i < cols_; ++i) {
        if (!Near(gated[r * stride_ + i], expected[i], 0x1p-20)) return false;
      }
    }
    return Untouched(gated);
  }

  // The left operand of a product, as it is, of normalized rows and of SwiGLU's.
  bool LeftMatches(DType type) {
    return Left(type, x_, [&](const GemmLeft& left) {
      return MakeLeft(device_, Of(dx_), Norm(), left);
    });
  }
  bool NormedLeftMatches(DType type) {
    std::vector<float> normed;
    return Normed(&normed) && Left(type, normed, [&](const GemmLeft& left) {
             return MakeLeft(device_, Of(dx_), norm(), left);
           });
  }
  bool GatedLeftMatches(DType type) {
    std::vector<float> gated;
    return Gated(&gated) && Left(type, gated, [&](const GemmLeft& left) {
             return SwiGluLeft(device_, Of(dx_), Of(du_), left);
           });
  }

  // Without padding, rows of codes on no boundary.
  bool CodesMatch(DType type) {
    const Block codes(device_, nullptr, static_cast<size_t>(rows_ * (cols_ + 1)));
    const Block scales(device_, nullptr, static_cast<size_t>(rows_ * 4));
    if (!QuantizeActivations(device_, type, Of(dx_), Norm(), rows_, cols_, codes.get(), cols_ + 1,
                             scales.get()).ok()) {
      return false;
    }
    std::vector<uint8_t> got, reference(static_cast<size_t>(cols_));
    if (!codes.Read(&got, static_cast<size_t>(rows_ * (cols_ + 1)))) return false;
    for (int64_t r = 0; r < rows_; ++r) {
      QuantizeRowReference(type, &x_[r * stride_], cols_, reference.data());
      if (!std::equal(reference.begin(), reference.end(), &got[r * (cols_ + 1)])) return false;
      if (got[r * (cols_ + 1) + cols_] != 0xA5) return false;
    }
    return true;
  }

  bool F32LeftMatches() {
    std::vector<float> normed, gated;
    return Normed(&normed) && Gated(&gated) &&
           F32Left(x_, [&](const GemmLeft& left) {
             return MakeLeft(device_, Of(dx_), Norm(), left);
           }) &&
           F32Left(normed, [&](const GemmLeft& left) {
             return MakeLeft(device_, Of(dx_), norm(), left);
           }) &&
           F32Left(gated, [&](const GemmLeft& left) {
             return SwiGluLeft(device_, Of(dx_), Of(du_), left);
           });
  }

  bool SumsMatch() {  // in place
    std::vector<float> sums;
    if (!Add(device_, Of(dx_), Of(du_), rows_, cols_, Of(dx_)).ok() ||
        !dx_.Read(&sums, x_.size())) {
      return false;
    }
    for (int64_t r = 0; r < rows_; ++r) {
      for (int64_t i = 0; i < stride_; ++i) {
        const float a = x_[r * stride_ + i], b = i < cols_ ? up_[r * stride_ + i] : 0.0f;
        const float sum = sums[r * stride_ + i];
        if (sum != a + b && !(std::isnan(sum) && std::isnan(a))) return false;
      }
    }
    return true;
  }

 private:
  // Rows of random values, and where there are seven or more also: saturation; infinity; zeros;
  // NaN; a row whose norm is exact, 1/2 with an epsilon of 1/2; gates whose silu is exact; and values
  // halfway between codes. The weights and row 5 of `up` are made so that the exact rows, too, come
  // out halfway between codes.
  static constexpr int64_t kExactNorm = 4, kExactGates = 5;
  static constexpr float kExactGate = 32;  // 1 + exp(-32) rounds to 1

  static std::vector<float> Inputs(int64_t rows, int64_t cols, int64_t stride) {
    std::vector<float> x = Values(rows * stride, 7);
    if (rows < 7) return x;
    x[3] = 3.4e38f;
    x[stride + 2] = INFINITY;
    std::fill_n(&x[2 * stride], cols, 0.0f);
    x[3 * stride + 1] = NAN;
    for (int64_t i = 0; i < cols; ++i) {
      const auto value = static_cast<float>(DigitAt(i));  // mean square 3.5
      x[kExactNorm * stride + i] = i % 7 < 3 ? -value : value;
    }
    std::fill_n(&x[kExactGates * stride], cols, kExactGate);
    for (int64_t r = 6; r < rows; ++r) FillHalfway(r - 6, cols, &x[r * stride]);
    return x;
  }
  static std::vector<float> Ups(int64_t rows, int64_t cols, int64_t stride) {
    std::vector<float> up = Values(rows * stride, 8);
    if (rows < 7) return up;
    FillHalfway(0, cols, &up[kExactGates * stride]);
    for (int64_t i = 0; i < cols; ++i) up[kExactGates * stride + i] /= kExactGate;
    return up;
  }
  static std::vector<float> Weights(int64_t rows, int64_t cols) {
    std::vector<float> w = Values(cols, 9);
    if (rows >= 7) FillHalfway(0, cols, w.data());
    return w;
  }

  // 0 to 3, each once in four columns, at places that change.
  static int64_t DigitAt(int64_t i) { return (i + i / 4) % 4; }

  // Values halfway between codes of E4M3 (also below its normal range), I8 or BF16, where the row's
  // scale is 1, or one F32 next to that.
  static void FillHalfway(int64_t kind, int64_t cols, float* row) {
    constexpr float kLargest[] = {448, 448, 127, 3}, kUnit[] = {2, 0x1p-9f, 1, 0x1p-7f};
    constexpr float kBase[] = {16, 0, 0, 1};
    const int64_t t = kind % 4;
    for (int64_t i = 0; i < cols; ++i) {
      row[i] = kBase[t] + kUnit[t] * (static_cast<float>(i * 5 % (t == 2 ? 120 : 7)) + 0.5f);
      const int64_t next = i / 8 % 4;
      if (next == 1) row[i] = std::nextafter(row[i], INFINITY);
      if (next == 2) row[i] = std::nextafter(row[i], 0.0f);
      if (i % 8 >= 4) row[i] = -row[i];
    }
    int64_t at = cols / 2;
    // The exact norm makes it twice the half. Which of a thread's columns it is, the width says.
    while (DigitAt(at) != 2 || at % 4 != cols / 8 % 4) --at;
    row[at] = kLargest[t];
  }
  bool Plain(int64_t row) const { return rows_ < 7 || row > 3; }
  Rows Of(const Block& block) const { return {block.get(), stride_}; }
  Norm norm() const { return {dw_.get(), 0.5f}; }

  // What lies behind the columns, which no kernel may write.
  bool Untouched(const std::vector<float>& y) const {
    for (int64_t r = 0; r < rows_; ++r) {
      if (std::memcmp(&y[r * stride_ + cols_], &x_[r * stride_ + cols_],
                      static_cast<size_t>(stride_ - cols_) * 4) != 0) {
        return false;
      }
    }
    return true;
  }
  bool Normed(std::vector<float>* y) {
    const Block to(device_, x_);
    return RmsNorm(device_, Of(dx_), norm(), rows_, cols_, Of(to)).ok() && to.Read(y, x_.size());
  }
  bool Gated(std::vector<float>* y) {
    const Block to(device_, x_);
    return SwiGlu(device_, Of(dx_), Of(du_), rows_, cols_, Of(to)).ok() && to.Read(y, x_.size());
  }
  template <class Make>
  bool Left(DType type, const std::vector<float>& rows, const Make& make) {
    const Block memory(device_, nullptr, static_cast<size_t>(LeftBytes(type, rows_, cols_)));
    const GemmLeft left = LayOutLeft(type, rows_, cols_, memory.get());
    return make(left).ok() && elementwise::LeftMatches(memory, left, rows, stride_);
  }

  template <class Make>
  bool F32Left(const std::vector<float>& rows, const Make& make) {
    const auto bytes = static_cast<size_t>(LeftBytes(DType::kF32, rows_, cols_));
    const Block memory(device_, nullptr, bytes);
    const GemmLeft left = LayOutLeft(DType::kF32, rows_, cols_, memory.get());
    std::vector<uint8_t> expected(bytes, 0xA5), got;  // what it was, but for the values
    for (int64_t r = 0; r < rows_; ++r) {
      std::memcpy(&expected[r * left.stride * 4], &rows[r * stride_], cols_ * 4);
    }
    return make(left).ok() && memory.Read(&got, bytes) && got == expected;
  }

  Device& device_;
  int64_t rows_, cols_, stride_;
  std::vector<float> x_, up_, w_;
  Block dx_, du_, dw_;
};

bool VerifyAngles(Device& device) {
  constexpr int64_t kHalf = 70, kStride = 2 * kHalf + 1, kRows = 4;
  const std::vector<DeviceSequence> sequences = {
      {0, 0, 5, 1, 0}, {0, 0, 9, 0, 1}, {0, 0, (int64_t{1} << 33) + 5, 2, 1}};
  std::vector<float> frequencies = Values(kHalf, 11);
  frequencies[1] = 1e30f;
  frequencies[2] = 0x1p44f / 5;
  const Block ds(device, sequences), df(device, frequencies);
  const Block angles(device, nullptr, kRows * kStride * 4);
  if (!RopeAngles(device, df.get(), kHalf, ds.get(), 3, kRows, {angles.get(), kStride}).ok()) {
    return false;
  }
  std::vector<float> got;
  std::vector<uint8_t> bytes;
  if (!angles.Read(&got, kRows * kStride) || !angles.Read(&bytes, kRows * kStride * 4)) {
    return false;
  }
  const int64_t positions[] = {5, (int64_t{1} << 33) + 5, (int64_t{1} << 33) + 6};
  for (int64_t r = 0; r < 3; ++r) {
    for (int64_t i = 0; i < kHalf; ++i) {
      const float angle = static_cast<float>(positions[r]) * frequencies[i];
      const float c = got[r * kStride + i], s = got[r * kStride + kHalf + i];
      if (std::fabs(angle) > 0x1p44f) {
        if (!std::isnan(c) || !std::isnan(s)) return false;
      } else if (!Near(c, std::cos(static_cast<double>(angle)), 0x1p-23) ||
                 !Near(s, std::sin(static_cast<double>(angle)), 0x1p-23)) {
        return false;
      }
    }
  }
  return std::all_of(&bytes[3 * kStride * 4], &bytes[3 * kStride * 4] + kStride * 4,
                     [](uint8_t b) { return b == 0xA5; });
}

bool VerifyCopy(Device& device) {
  const std::vector<float> from = Values(4 * 300, 13);
  const Block src(device, from), dst(device, nullptr, from.size() * 4);
  std::vector<float> to;
  return Copy(device, dst.get(), src.get(), static_cast<int64_t>(from.size() * 4 - 16)).ok() &&
         dst.Read(&to, from.size()) && std::equal(from.begin(), from.end() - 4, to.begin()) &&
         to.back() != from.back();
}

// Widths: below or one thread's four columns; chunks with a partial last one; rows of an odd
// stride, on no boundary; longer than the registers hold.
VerificationCases ElementwiseCases() {
  VerificationCases cases = {VerifyAngles, VerifyCopy};
  const int64_t shapes[][3] = {{2, 3, 3},        {2, 4, 4},         {10, 301, 303},
                               {10, 304, 304},   {7, 520, 520},     {7, 1501, 1501},
                               {7, 16640, 16640}};
  for (const auto& shape : shapes) {
    const int64_t rows = shape[0], cols = shape[1], stride = shape[2];
    const auto add = [&](const std::function<bool(RowsCase&)>& check) {
      cases.push_back([=](Device& device) {
        RowsCase c(device, rows, cols, stride);
        return check(c);
      });
    };
    add([](RowsCase& c) { return c.RmsNormMatches(); });
    add([](RowsCase& c) { return c.SwiGluMatches(); });
    add([](RowsCase& c) { return c.F32LeftMatches(); });
    add([](RowsCase& c) { return c.SumsMatch(); });
    for (const DType type : {DType::kE4M3, DType::kI8, DType::kBF16}) {
      add([=](RowsCase& c) { return c.LeftMatches(type); });
      add([=](RowsCase& c) { return c.NormedLeftMatches(type); });
      add([=](RowsCase& c) { return c.GatedLeftMatches(type); });
      if (type != DType::kBF16) add([=](RowsCase& c) { return c.CodesMatch(type); });
    }
  }
  return cases;
}
const VerificationRegistration kElementwise(
    {"elementwise", {"elementwise"}, ElementwiseCases, {80, 89, 90, 120}});

}  // namespace
}  // namespace nibble::cuda::elementwise
