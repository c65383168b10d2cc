// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <ctime>

#include "kernels-cuda/elementwise/elementwise.h"
#include "kernels-cuda/verify/verify.h"

namespace nibble::cuda::verify {
namespace {

constexpr double kEventResolution = 5e-7;

// Operations a second of one matrix_rate kernel; ops_a_step: of a warp's instruction.
Status MatrixRate(Device& device, const Options& options, const char* kernel, double ops_a_step,
                  double* ops) {
  constexpr unsigned kThreads = 256;
  constexpr int kAccumulators = 8;
  const auto blocks = static_cast<unsigned>(4 * std::max(device.properties().multiprocessors, 1));
  DevicePtr to = 0;
  NIBBLE_CUDA_RETURN_IF_FAILED(device.Allocate(int64_t{4} * blocks * kThreads, &to));
  LaunchShape shape;
  shape.grid_x = blocks;
  shape.block_x = kThreads;
  const int steps = options.matrix_steps;
  Timing timing;
  const Status status = Measure(
      device, options,
      [&](int64_t) {
        return LaunchKernel(device, {"matrix_rate", kernel}, shape, steps, to);
      },
      &timing);
  device.Free(to);
  NIBBLE_CUDA_RETURN_IF_FAILED(status);
  *ops = ops_a_step * steps * kAccumulators * (kThreads / 32) * blocks / timing.least;
  return Status();
}

std::string Now() {
  const std::time_t now = std::time(nullptr);
  char text[32];
  std::strftime(text, sizeof(text), "%Y-%m-%dT%H:%M:%SZ", std::gmtime(&now));
  return text;
}

}  // namespace

double Limits::Ops(DType activation) const {
  if (activation == DType::kI8) return i8_ops;
  if (activation == DType::kF32) return f32_ops;
  return activation == DType::kE4M3 && e4m3_ops > 0 ? e4m3_ops : bf16_ops;
}

Status Measure(Device& device, const Options& options,
               const std::function<Status(int64_t)>& launch, Timing* timing) {
  int64_t index = 0;
  const auto window = [&](int64_t launches, double* seconds) {
    return device.Time(
        [&] {
          for (int64_t i = 0; i < launches; ++i) {
            NIBBLE_CUDA_RETURN_IF_FAILED(launch(index++));
          }
          return Status();
        },
        seconds);
  };
  double seconds = 0;
  NIBBLE_CUDA_RETURN_IF_FAILED(window(1, &seconds));  // loads the module
  NIBBLE_CUDA_RETURN_IF_FAILED(window(1, &seconds));
  const auto launches = static_cast<int64_t>(
      std::clamp(options.window_seconds / std::max(seconds, kEventResolution), 1.0, 1000.0));
  std::vector<double> each;
  for (int w = 0; w < options.windows; ++w) {
    NIBBLE_CUDA_RETURN_IF_FAILED(window(launches, &seconds));
    each.push_back(std::max(seconds, kEventResolution) / static_cast<double>(launches));
  }
  std::sort(each.begin(), each.end());
  *timing = {each[each.size() / 2], each.front(), each.back(),
             static_cast<int>(launches * options.windows)};
  return Status();
}

Status MeasureLimits(Device& device, const Options& options, Limits* limits) {
  constexpr int kRepeats = 20;
  constexpr int64_t kLeastCopy = int64_t{64} << 20;
  const int64_t bytes =
      options.copy_bytes != 0
          ? options.copy_bytes
          : std::max(kLeastCopy, RoundUp(4 * device.properties().l2_bytes, int64_t{16}));
  NIBBLE_CUDA_RETURN_IF_FAILED(elementwise::MeasureCopyBandwidth(
      device, bytes, kRepeats, &limits->copy_bytes_per_second));
  constexpr double kSixteenBits = 2.0 * 16 * 8 * 16, kEightBits = 2.0 * 16 * 8 * 32;
  NIBBLE_CUDA_RETURN_IF_FAILED(
      MatrixRate(device, options, "rate_bf16", kSixteenBits, &limits->bf16_ops));
  NIBBLE_CUDA_RETURN_IF_FAILED(
      MatrixRate(device, options, "rate_i8", kEightBits, &limits->i8_ops));
  // A warp's 32 fma.
  NIBBLE_CUDA_RETURN_IF_FAILED(
      MatrixRate(device, options, "rate_f32", 2.0 * 32, &limits->f32_ops));
  const int sm = device.properties().sm;
  if (sm == 89 || sm >= 120) {
    NIBBLE_CUDA_RETURN_IF_FAILED(
        MatrixRate(device, options, "rate_e4m3", kEightBits, &limits->e4m3_ops));
  }
  return Status();
}

void WriteTiming(const Timing& timing, bench::Json* json) {
  json->Field("launches", timing.launches)
      .Field("median_s", timing.median)
      .Field("min_s", timing.least)
      .Field("max_s", timing.most);
}

Status MeasureAll(Device& device, const Options& options, const bench::ShapeList& shapes,
                  const std::vector<std::pair<std::string, std::string>>& notes,
                  std::string* text) {
  const DeviceProperties& p = device.properties();
  int driver_version = 0;
  device.driver().cuDriverGetVersion(&driver_version);
  bench::Json json;
  json.BeginObject()
      .Field("schema", "nibble-gpu-verify-1")
      .Field("started", Now())
      .Field("device", p.name)
      .Field("compute_capability", std::to_string(p.sm / 10) + "." + std::to_string(p.sm % 10))
      .Field("multiprocessors", p.multiprocessors)
      .Field("memory_bytes", p.memory_bytes)
      .Field("l2_bytes", p.l2_bytes)
      .Field("driver_cuda_version", std::to_string(driver_version / 1000) + "." +
                                        std::to_string(driver_version % 1000 / 10));
  for (const auto& note : notes) json.Field(note.first, note.second);
  if (options.progress) options.progress("memory and tensor cores");
  Limits limits;
  NIBBLE_CUDA_RETURN_IF_FAILED(MeasureLimits(device, options, &limits));
  json.Field("copy_gb_per_s", limits.copy_bytes_per_second * 1e-9)
      .Field("bf16_mma_tops", limits.bf16_ops * 1e-12)
      .Field("i8_mma_tops", limits.i8_ops * 1e-12)
      .Field("e4m3_mma_tops", limits.e4m3_ops * 1e-12)
      .Field("f32_fma_tops", limits.f32_ops * 1e-12);
  NIBBLE_CUDA_RETURN_IF_FAILED(TimeProducts(device, options, shapes, limits, &json));
  NIBBLE_CUDA_RETURN_IF_FAILED(TimeAttention(device, options, shapes, limits, &json));
  NIBBLE_CUDA_RETURN_IF_FAILED(TimeElementwise(device, options, shapes, limits, &json));
  json.EndObject();
  *text = json.text() + "\n";
  return Status();
}

}  // namespace nibble::cuda::verify
