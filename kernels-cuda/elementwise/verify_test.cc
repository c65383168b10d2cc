// SPDX-License-Identifier: Apache-2.0
//
// What the mutation suite runs on broken versions of this family's kernels.
#include <algorithm>
#include <cmath>
#include <cstring>

#include "kernels-cpu/elementwise/elementwise_reference.h"
#include "kernels-cpu/numerics/formats.h"
#include "kernels-cuda/attention/sequence.h"
#include "kernels-cuda/elementwise/elementwise.h"
#include "kernels-cuda/testing/verification.h"

namespace nibble::cuda::elementwise {
namespace {

// Memory that is freed at the end; 0 where the device failed.
class Block {
 public:
  Block(Device& device, const void* from, size_t bytes) : device_(device) {
    ok_ = device.Allocate(static_cast<int64_t>(bytes), &memory_).ok() &&
          (from == nullptr ? device.Fill(memory_, 0xA5, static_cast<int64_t>(bytes))
                           : device.CopyIn(memory_, from, static_cast<int64_t>(bytes)))
              .ok();
  }
  template <class T>
  Block(Device& device, const std::vector<T>& values)
      : Block(device, values.data(), values.size() * sizeof(T)) {}
  ~Block() { device_.Free(memory_); }
  Block(const Block&) = delete;
  Block& operator=(const Block&) = delete;

  DevicePtr get() const { return memory_; }
  template <class T>
  bool Read(std::vector<T>* values, size_t count, size_t offset = 0) const {
    values->resize(count);
    return ok_ && device_.CopyOut(values->data(), memory_ + offset,
                                  static_cast<int64_t>(count * sizeof(T))).ok();
  }

 private:
  Device& device_;
  DevicePtr memory_ = 0;
  bool ok_;
};

// Values between -4 and 4 without a pattern that a wrong index would meet.
std::vector<float> Values(int64_t count, uint32_t seed) {
  std::vector<float> values(static_cast<size_t>(count));
  for (float& v : values) {
    seed = seed * 1664525u + 1013904223u;
    v = static_cast<float>(static_cast<int32_t>(seed)) * 0x1p-29f;
  }
  return values;
}

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
        if ((got[2 * i] | got[2 * i + 1] << 8) != EncodeBF16(x[i])) return false;
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
        up_(Values(rows * stride, 8)),
        w_(Values(cols, 9)),
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
    std::vector<float> gated, f32;
    const Block memory(device_, nullptr, static_cast<size_t>(LeftBytes(DType::kF32, rows_, cols_)));
    const GemmLeft left = LayOutLeft(DType::kF32, rows_, cols_, memory.get());
    if (!Gated(&gated) || !SwiGluLeft(device_, Of(dx_), Of(du_), left).ok() ||
        !memory.Read(&f32, static_cast<size_t>(rows_ * left.stride))) {
      return false;
    }
    for (int64_t r = 0; r < rows_; ++r) {
      if (std::memcmp(&f32[r * left.stride], &gated[r * stride_], cols_ * 4) != 0) return false;
    }
    return true;
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
  static std::vector<float> Inputs(int64_t rows, int64_t cols, int64_t stride) {
    std::vector<float> x = Values(rows * stride, 7);
    if (cols > 100) {  // saturation, infinity and a row of zeros among BF16's and the quantizers'
      x[3] = 3.4e38f;
      x[stride + 2] = INFINITY;
      std::fill_n(&x[2 * stride], cols, 0.0f);
      x[3 * stride + 1] = NAN;
      // Halfway between codes of E4M3 (also below its normal range), I8 and BF16, where the row's
      // scale is 1, or one F32 next to that.
      const float largest[] = {448, 448, 127, 3}, unit[] = {2, 0x1p-9f, 1, 0x1p-7f};
      const float base[] = {16, 0, 0, 1};
      for (int64_t t = 0; t < 4 && 5 + t < rows; ++t) {
        float* row = &x[(5 + t) * stride];
        for (int64_t i = 0; i < cols; ++i) {
          row[i] = base[t] + unit[t] * (static_cast<float>(i * 5 % (t == 2 ? 120 : 7)) + 0.5f);
          const int64_t kind = (i + i / 4) % 4;
          if (kind == 1) row[i] = std::nextafter(row[i], INFINITY);
          if (kind == 2) row[i] = std::nextafter(row[i], 0.0f);
          if (i % 8 >= 4) row[i] = -row[i];
        }
        row[cols / 2] = largest[t];
      }
    }
    return x;
  }
  bool Plain(int64_t row) const { return cols_ <= 100 || row > 3; }
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

// Widths: below a thread's four columns; chunks with a partial last one; rows of an odd stride, on
// no boundary; longer than the registers hold.
VerificationCases ElementwiseCases() {
  VerificationCases cases = {VerifyAngles, VerifyCopy};
  const int64_t shapes[][3] = {{2, 3, 3},      {2, 3, 4},     {9, 301, 303},     {9, 304, 304},
                               {5, 520, 520},  {5, 1501, 1501}, {5, 1500, 1500}, {5, 16396, 16396},
                               {5, 16397, 16399}};
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

bool SampleMatches(Device& device, const std::vector<float>& logits, int64_t rows, int64_t cols,
                   const SampleOptions& options) {
  const auto stride = static_cast<int64_t>(logits.size()) / rows;
  std::vector<double> uniforms(static_cast<size_t>(rows));
  constexpr double kUniforms[] = {0.61, 1 - 0x1p-53, 0.29, 0.03, 0.5, 0.87};
  for (size_t r = 0; r < uniforms.size(); ++r) uniforms[r] = kUniforms[r % 6];
  const int64_t bytes = SampleScratchBytes(rows, cols);
  const Block dl(device, logits), du(device, uniforms);
  const Block ids(device, nullptr, static_cast<size_t>(rows * 4));
  const Block scratch(device, nullptr, static_cast<size_t>(bytes));
  std::vector<int32_t> got;
  if (!Sample(device, {dl.get(), stride}, rows, cols, options, du.get(), ids.get(),
              {scratch.get(), bytes}).ok() ||
      !ids.Read(&got, static_cast<size_t>(rows))) {
    return false;
  }
  for (int64_t r = 0; r < rows; ++r) {
    if (got[r] != nibble::Sample(&logits[r * stride], cols, options, uniforms[r])) return false;
  }
  return true;
}

bool VerifyPenalize(Device& device) {
  std::vector<float> row = Values(600, 19), got;
  std::vector<int32_t> tokens;
  for (int32_t t = -2; t < 610; t += 2) tokens.push_back(t);
  const Block dl(device, row), dt(device, tokens);
  const auto count = static_cast<int64_t>(tokens.size());
  nibble::Penalize(row.data(), 600, tokens.data(), count, 1.7f);
  return Penalize(device, dl.get(), 600, dt.get(), count, 1.7f).ok() && dl.Read(&got, 600) &&
         got == row;
}

VerificationCases SamplingCases() {
  VerificationCases cases = {VerifyPenalize};
  const auto add = [&](const std::vector<float>& logits, int64_t rows, int64_t cols,
                       const SampleOptions& options) {
    cases.push_back(
        [=](Device& device) { return SampleMatches(device, logits, rows, cols, options); });
  };
  // Wide enough for every load that goes ahead (4 times 1024 threads). Neighbours differ, so that
  // a weight in another's place shows, and so many rows that it shows in a draw.
  constexpr int64_t kCols = 4200, kStride = 4201, kRows = 6;
  std::vector<float> logits = Values(kRows * kStride, 17);
  for (float& x : logits) x *= 2;
  logits[4 * kStride + 4099] = NAN;
  for (const SampleOptions& o :
       {SampleOptions{0, 0, 1, 0}, SampleOptions{1, 0, 1, 0}, SampleOptions{0.7f, 40, 1, 0},
        SampleOptions{1.3f, 0, 0.8f, 0}, SampleOptions{1, 900, 0.95f, 0.02f},
        SampleOptions{0.1f, 4100, 1, 0}, SampleOptions{0.5f, 3000, 1, 0},
        SampleOptions{5, 1, 1, 0},
        // Down to negative logits.
        SampleOptions{3, 3000, 0.99f, 0}, SampleOptions{20, 2100, 1, 0.001f},
        SampleOptions{50, 2900, 0.9f, 0}, SampleOptions{100, 0, 0.7f, 0},
        SampleOptions{2, 0, 0.37f, 0}, SampleOptions{0.6f, 0, 0.99f, 0}}) {
    add(logits, kRows, kCols, o);
  }
  // Ties, zeros of both signs, nothing but -infinity.
  std::vector<float> ties = Values(2 * 1500, 23), zeros(kCols, -1);
  for (float& x : ties) x = std::round(x * 4) / 2;
  for (int64_t i = 300; i < kCols; i += 400) zeros[i] = i % 800 == 300 ? -0.0f : 0.0f;
  for (int64_t first = 300; first < kCols; first += 400) {
    add(zeros, 1, kCols, {0, 0, 1, 0});
    zeros[first] = -1;
  }
  zeros[700] = zeros[3500] = 0.0f;
  zeros[1900] = -0.0f;
  add(zeros, 1, kCols, {1, 2, 1, 0});
  add(ties, 2, 1500, {1, 300, 0.9f, 0});
  add(std::vector<float>(2 * 40, -INFINITY), 2, 40, {1, 0, 1, 0});
  add(std::vector<float>(2 * 2200, -0.0f), 2, 2200, {1, 2000, 0.5f, 0});
  // Equal weights, targets exactly between two tokens: a sum that is off by one shows.
  const std::vector<float> equal(6 * 40, 0.5f);
  for (const SampleOptions& o : {SampleOptions{1, 0, 1, 0}, SampleOptions{1, 0, 0.5f, 0},
                                 SampleOptions{1, 30, 0.5f, 0}}) {
    add(equal, 6, 40, o);
  }
  // The last token of a selection is drawn, wherever it lies.
  for (const int32_t k : {500, 501, 1500, 1501, 2500, 2501, 3500, 3501}) {
    add(std::vector<float>(2 * kCols, 0.5f), 2, kCols, {1, k, 1, 0});
  }
  return cases;
}
const VerificationRegistration kSampling(
    {"sampling", {"sampling"}, SamplingCases, {80, 89, 90, 120}});

}  // namespace
}  // namespace nibble::cuda::elementwise
