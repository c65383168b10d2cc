// SPDX-License-Identifier: Apache-2.0
#include "kernels-cuda/elementwise/elementwise.h"

#include <algorithm>

#include "kernels-cuda/elementwise/params.h"

namespace nibble::cuda::elementwise {
namespace {

constexpr char kModule[] = "elementwise";
constexpr int64_t kPaddedColumns = 128;   // as gemm_call.h says
constexpr int64_t kBoundary = 256;        // of what Device::Allocate gives
constexpr int64_t kLargestGrid = 2147483647;

template <class T>
T* As(DevicePtr memory) {
  return reinterpret_cast<T*>(memory);
}

int64_t ElementBytes(DType type) {
  return type == DType::kF32 ? 4 : type == DType::kBF16 ? 2 : 1;
}

bool HasScales(DType type) { return type == DType::kE4M3 || type == DType::kI8; }

// What a row is made of, as the kernels' names say it.
const char* RowKernel(DType type, const RowParams& params) {
  static constexpr const char* kNames[][3] = {
      {"rows_to_e4m3", "normed_rows_to_e4m3", "gated_rows_to_e4m3"},
      {"rows_to_i8", "normed_rows_to_i8", "gated_rows_to_i8"},
      {"rows_to_bf16", "normed_rows_to_bf16", "gated_rows_to_bf16"},
      {"rows_to_f32", "normed_rows_to_f32", "gated_rows_to_f32"}};
  const int source = params.up != nullptr ? 2 : params.norm_weight != nullptr ? 1 : 0;
  const int target =
      type == DType::kE4M3 ? 0 : type == DType::kI8 ? 1 : type == DType::kBF16 ? 2 : 3;
  return kNames[target][source];
}

// Whether four elements from a row's first, fifth, .. on stand on a boundary of their size.
bool OnBoundaries(const void* rows, int64_t stride, int64_t element_bytes) {
  return reinterpret_cast<uintptr_t>(rows) % (4 * element_bytes) == 0 && stride % 4 == 0;
}

RowParams ParamsOf(Rows x, Norm norm, int64_t cols) {
  RowParams p = {};
  p.x = As<const float>(x.values);
  p.x_stride = x.stride;
  p.norm_weight = As<const float>(norm.weight);
  p.norm_epsilon = norm.epsilon;
  p.cols = cols;
  p.padded_cols = cols;
  return p;
}

Status LaunchRows(Device& device, DType type, int64_t rows, RowParams params) {
  if (rows == 0 || params.cols == 0) return Status();
  params.whole = params.cols % 4 == 0 && OnBoundaries(params.x, params.x_stride, 4) &&
                 OnBoundaries(params.up, params.up_stride, 4) &&
                 OnBoundaries(params.norm_weight, 0, 4) &&
                 OnBoundaries(params.y, params.y_stride, ElementBytes(type));
  LaunchShape shape;
  shape.grid_x = static_cast<unsigned>(rows);
  shape.block_x = static_cast<unsigned>(RowThreads(params.cols));
  return LaunchKernel(device, {kModule, RowKernel(type, params)}, shape, params);
}

Status FillLeft(Device& device, const GemmLeft& left, RowParams params) {
  params.y = As<void>(left.values);
  params.y_stride = left.stride;
  params.padded_cols = left.type == DType::kF32 ? left.cols : RoundUp(left.cols, kPaddedColumns);
  params.scales = As<float>(left.scales);
  return LaunchRows(device, left.type, left.rows, params);
}

// Enough blocks to fill any device several times over; each takes several steps where there are
// more.
unsigned PairBlocks(const Device& device, int64_t steps) {
  const int64_t most = int64_t{32} * std::max(device.properties().multiprocessors, 1);
  return static_cast<unsigned>(std::clamp<int64_t>(DivUp(steps, kPairThreads), 1, most));
}

Status LaunchPair(Device& device, const char* kernel, Rows a, Rows b, int64_t rows, int64_t cols,
                  Rows y) {
  if (rows == 0 || cols == 0) return Status();
  PairParams params = {As<const float>(a.values), As<const float>(b.values),
                       As<float>(y.values),       a.stride,
                       b.stride,                  y.stride,
                       rows,                      cols,
                       0};
  params.whole = cols % 4 == 0 && OnBoundaries(params.a, a.stride, 4) &&
                 OnBoundaries(params.b, b.stride, 4) && OnBoundaries(params.y, y.stride, 4);
  LaunchShape shape;
  shape.grid_x = PairBlocks(device, rows * (params.whole != 0 ? cols / 4 : cols));
  shape.block_x = kPairThreads;
  return LaunchKernel(device, {kModule, kernel}, shape, params);
}

}  // namespace

Status RmsNorm(Device& device, Rows x, Norm norm, int64_t rows, int64_t cols, Rows y) {
  RowParams params = ParamsOf(x, norm, cols);
  params.y = As<void>(y.values);
  params.y_stride = y.stride;
  return LaunchRows(device, DType::kF32, rows, params);
}

Status SwiGlu(Device& device, Rows gate, Rows up, int64_t rows, int64_t cols, Rows y) {
  return LaunchPair(device, "swiglu_f32", gate, up, rows, cols, y);
}

Status Add(Device& device, Rows a, Rows b, int64_t rows, int64_t cols, Rows y) {
  return LaunchPair(device, "add_f32", a, b, rows, cols, y);
}

int64_t LeftStride(DType type, int64_t cols) {
  return RoundUp(cols, type == DType::kF32 ? 4 : kPaddedColumns);
}

int64_t LeftBytes(DType type, int64_t rows, int64_t cols) {
  const int64_t values = RoundUp(rows * LeftStride(type, cols) * ElementBytes(type), kBoundary);
  return values + (HasScales(type) ? RoundUp(rows * 4, kBoundary) : 0);
}

GemmLeft LayOutLeft(DType type, int64_t rows, int64_t cols, DevicePtr memory) {
  GemmLeft left = {};
  left.type = type;
  left.rows = rows;
  left.cols = cols;
  left.values = memory;
  left.stride = LeftStride(type, cols);
  if (HasScales(type)) left.scales = memory + RoundUp(rows * left.stride, kBoundary);
  return left;
}

Status MakeLeft(Device& device, Rows x, Norm norm, const GemmLeft& left) {
  return FillLeft(device, left, ParamsOf(x, norm, left.cols));
}

Status SwiGluLeft(Device& device, Rows gate, Rows up, const GemmLeft& left) {
  RowParams params = ParamsOf(gate, Norm(), left.cols);
  params.up = As<const float>(up.values);
  params.up_stride = up.stride;
  return FillLeft(device, left, params);
}

Status QuantizeActivations(Device& device, DType type, Rows x, Norm norm, int64_t rows,
                           int64_t cols, DevicePtr codes, int64_t codes_stride, DevicePtr scales) {
  if (cols == 0) return device.Fill(scales, 0, rows * 4);
  RowParams params = ParamsOf(x, norm, cols);
  params.y = As<void>(codes);
  params.y_stride = codes_stride;
  params.scales = As<float>(scales);
  return LaunchRows(device, type, rows, params);
}

Status RopeAngles(Device& device, DevicePtr inverse_frequencies, int64_t half,
                  DevicePtr sequences, int64_t count, int64_t rows, Rows angles) {
  if (rows == 0 || half == 0) return Status();
  LaunchShape shape;
  shape.grid_x = static_cast<unsigned>(rows);
  shape.block_x = kAngleThreads;
  return LaunchKernel(device, {kModule, "rope_angles"}, shape, inverse_frequencies, half,
                      sequences, count, angles.values, angles.stride);
}

Status Copy(Device& device, DevicePtr dst, DevicePtr src, int64_t bytes) {
  if (bytes == 0) return Status();
  const int64_t words = bytes / 16;
  LaunchShape shape;
  shape.grid_x = static_cast<unsigned>(std::min(DivUp(words, kPairThreads), kLargestGrid));
  shape.block_x = kPairThreads;
  return LaunchKernel(device, {kModule, "copy_words"}, shape, dst, src, words);
}

namespace {

// The best of the copies from one block to the other.
Status TimeCopies(Device& device, DevicePtr to, DevicePtr from, int64_t bytes, int repeats,
                  double* best) {
  NIBBLE_CUDA_RETURN_IF_FAILED(device.Fill(from, 1, bytes));
  for (int i = 0; i <= repeats; ++i) {
    double seconds = 0;
    NIBBLE_CUDA_RETURN_IF_FAILED(
        device.Time([&] { return Copy(device, to, from, bytes); }, &seconds));
    // The first touches the memory and wakes the clocks.
    if (i == 1 || (i > 1 && seconds < *best)) *best = seconds;
  }
  return Status();
}

}  // namespace

Status MeasureCopyBandwidth(Device& device, int64_t bytes, int repeats, double* bytes_per_second) {
  constexpr double kEventResolution = 5e-7;
  DevicePtr from = 0, to = 0;
  NIBBLE_CUDA_RETURN_IF_FAILED(device.Allocate(bytes, &from));
  Status status = device.Allocate(bytes, &to);
  double best = 0;
  if (status.ok()) status = TimeCopies(device, to, from, bytes, repeats, &best);
  device.Free(to);
  device.Free(from);
  *bytes_per_second = 2.0 * static_cast<double>(bytes) / std::max(best, kEventResolution);
  return status;
}

}  // namespace nibble::cuda::elementwise
