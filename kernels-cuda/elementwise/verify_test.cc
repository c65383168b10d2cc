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

// Widths: below a thread's four columns; chunks with a partial last one; longer than the
// registers hold. The second has rows on no boundary.
bool VerifyRowsOf(Device& device, int64_t rows, int64_t cols, int64_t stride) {
  std::vector<float> x = Values(rows * stride, 7), up = Values(rows * stride, 8);
  const std::vector<float> w = Values(cols, 9);
  if (cols > 100) {  // saturation, infinity and a row of zeros among BF16's and the quantizers'
    x[3] = 3.4e38f;
    x[stride + 2] = INFINITY;
    std::fill_n(&x[2 * stride], cols, 0.0f);
    x[3 * stride + 1] = NAN;
  }
  const Block dx(device, x), du(device, up), dw(device, w), dn(device, x), ds(device, x);
  const Rows rx = {dx.get(), stride}, ru = {du.get(), stride};
  const Rows rn = {dn.get(), stride}, rs = {ds.get(), stride};
  const Norm norm = {dw.get(), 0.5f};
  if (!RmsNorm(device, rx, norm, rows, cols, rn).ok()) return false;
  if (!SwiGlu(device, rx, ru, rows, cols, rs).ok()) return false;
  std::vector<float> normed, gated;
  if (!dn.Read(&normed, x.size()) || !ds.Read(&gated, x.size())) return false;
  std::vector<double> expected(static_cast<size_t>(cols));
  for (int64_t r = 0; r < rows; ++r) {
    const bool plain = cols <= 100 || r > 3;
    RmsNormRowReference(&x[r * stride], w.data(), 0.5f, cols, expected.data());
    for (int64_t i = 0; plain && i < cols; ++i) {
      if (!Near(normed[r * stride + i], expected[i], 3e-6)) return false;
    }
    SwiGluRowReference(&x[r * stride], &up[r * stride], cols, expected.data());
    for (int64_t i = 0; plain && i < cols; ++i) {
      if (!Near(gated[r * stride + i], expected[i], 0x1p-20)) return false;
    }
  }
  for (const DType type : {DType::kE4M3, DType::kI8, DType::kBF16}) {
    const auto bytes = static_cast<size_t>(LeftBytes(type, rows, cols));
    const Block memory(device, nullptr, bytes);
    const GemmLeft left = LayOutLeft(type, rows, cols, memory.get());
    if (!MakeLeft(device, rx, Norm(), left).ok() || !LeftMatches(memory, left, x, stride)) {
      return false;
    }
    if (!MakeLeft(device, rx, norm, left).ok() || !LeftMatches(memory, left, normed, stride)) {
      return false;
    }
    if (!SwiGluLeft(device, rx, ru, left).ok() || !LeftMatches(memory, left, gated, stride)) {
      return false;
    }
    if (type == DType::kBF16) continue;
    // Without padding, rows of codes on no boundary.
    const Block codes(device, nullptr, static_cast<size_t>(rows * (cols + 1)));
    const Block scales(device, nullptr, static_cast<size_t>(rows * 4));
    if (!QuantizeActivations(device, type, rx, Norm(), rows, cols, codes.get(), cols + 1,
                             scales.get()).ok()) {
      return false;
    }
    std::vector<uint8_t> got, reference(static_cast<size_t>(cols));
    if (!codes.Read(&got, static_cast<size_t>(rows * (cols + 1)))) return false;
    for (int64_t r = 0; r < rows; ++r) {
      QuantizeRowReference(type, &x[r * stride], cols, reference.data());
      if (!std::equal(reference.begin(), reference.end(), &got[r * (cols + 1)])) return false;
      if (got[r * (cols + 1) + cols] != 0xA5) return false;
    }
  }
  // F32 operands and in-place sums.
  const Block memory(device, nullptr, static_cast<size_t>(LeftBytes(DType::kF32, rows, cols)));
  const GemmLeft left = LayOutLeft(DType::kF32, rows, cols, memory.get());
  if (!SwiGluLeft(device, rx, ru, left).ok() || !Add(device, rx, ru, rows, cols, rx).ok()) {
    return false;
  }
  std::vector<float> f32, sums;
  if (!memory.Read(&f32, static_cast<size_t>(rows * left.stride)) || !dx.Read(&sums, x.size())) {
    return false;
  }
  for (int64_t r = 0; r < rows; ++r) {
    if (std::memcmp(&f32[r * left.stride], &gated[r * stride], cols * 4) != 0) return false;
    for (int64_t i = 0; i < stride; ++i) {
      const float a = x[r * stride + i], b = i < cols ? up[r * stride + i] : 0.0f;
      const float sum = sums[r * stride + i];
      if (sum != a + b && !(std::isnan(sum) && std::isnan(a))) return false;
    }
  }
  return true;
}

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

bool VerifyElementwise(Device& device) {
  return VerifyRowsOf(device, 2, 3, 3) && VerifyRowsOf(device, 5, 301, 303) &&
         VerifyRowsOf(device, 5, 520, 520) && VerifyRowsOf(device, 5, 16396, 16396) &&
         VerifyAngles(device) && VerifyCopy(device);
}
const VerificationRegistration kElementwise(
    {"elementwise", {"elementwise"}, VerifyElementwise, {80, 89, 90, 120}});

bool SampleMatches(Device& device, const std::vector<float>& logits, int64_t rows, int64_t cols,
                   const SampleOptions& options) {
  const auto stride = static_cast<int64_t>(logits.size()) / rows;
  std::vector<double> uniforms(static_cast<size_t>(rows));
  for (size_t r = 0; r < uniforms.size(); ++r) {
    uniforms[r] = r == 0 ? 0.61 : 1 - 0x1p-53;
  }
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

bool VerifySampling(Device& device) {
  constexpr int64_t kCols = 1100, kStride = 1101, kRows = 3;
  std::vector<float> logits = Values(kRows * kStride, 17);
  for (float& x : logits) x = std::round(x * 8) / 2;  // ties, zeros of both signs
  logits[2 * kStride + 9] = NAN;
  const std::vector<float> nothing(2 * 40, -INFINITY), flat(2 * 2200, -0.0f);
  for (const SampleOptions& o :
       {SampleOptions{0, 0, 1, 0}, SampleOptions{1, 0, 1, 0}, SampleOptions{0.7f, 40, 1, 0},
        SampleOptions{1.3f, 0, 0.8f, 0}, SampleOptions{1, 900, 0.95f, 0.02f},
        SampleOptions{0.1f, 1000, 1, 0}, SampleOptions{5, 1, 1, 0}}) {
    if (!SampleMatches(device, logits, kRows, kCols, o)) return false;
  }
  if (!SampleMatches(device, nothing, 2, 40, {1, 0, 1, 0}) ||
      !SampleMatches(device, flat, 2, 2200, {1, 2000, 0.5f, 0})) {
    return false;
  }
  std::vector<float> row = Values(600, 19), got;
  std::vector<int32_t> tokens;
  for (int32_t t = -2; t < 610; t += 2) tokens.push_back(t);
  const Block dl(device, row), dt(device, tokens);
  const auto count = static_cast<int64_t>(tokens.size());
  nibble::Penalize(row.data(), 600, tokens.data(), count, 1.7f);
  return Penalize(device, dl.get(), 600, dt.get(), count, 1.7f).ok() && dl.Read(&got, 600) &&
         got == row;
}
const VerificationRegistration kSampling(
    {"sampling", {"sampling"}, VerifySampling, {80, 89, 90, 120}});

}  // namespace
}  // namespace nibble::cuda::elementwise
