// SPDX-License-Identifier: Apache-2.0
//
// Times every kernel on a device, over the shapes of bench/shapes.txt, against the memory and the
// tensor cores of the same device in the same run, and against cuBLAS where it is installed.
//
// A time is the device's own (events), the median over windows of many launches. Weights and
// caches are cold: a launch works on another copy than the ones before it, enough copies to fill
// the L2 cache twice, as in a model whose other layers come in between.
#pragma once

#include <functional>
#include <string>
#include <vector>

#include "bench/native/json.h"
#include "bench/native/shape_list.h"
#include "kernels-cpu/numerics/types.h"
#include "kernels-cuda/common/device.h"

namespace nibble::cuda::verify {

struct Options {
  std::vector<std::string> models;  // of the shape list
  double window_seconds = 2e-3;     // of launches between two events
  int windows = 9;                  // the median of which counts
  int64_t copy_bytes = 0;           // of the bandwidth measurement; 0: four times the L2 cache
  int matrix_steps = 4096;          // of the matrix-rate measurement
  std::function<void(const std::string&)> progress;  // hears a line now and then; may be empty
};

struct Timing {
  double median = 0, least = 0, most = 0;  // seconds a launch
  int launches = 0;
};

// What the device can do at best, as measured here.
struct Limits {
  double copy_bytes_per_second = 0;                    // read and written
  // Multiplications and additions a second: of tensor cores, and of fma on F32.
  double bf16_ops = 0, i8_ops = 0, e4m3_ops = 0, f32_ops = 0;
  // The rate that counts for activations of a type: E4M3's falls back to BF16's.
  double Ops(DType activation) const;
};

// Times launch(i), i counting up from 0.
Status Measure(Device& device, const Options& options,
               const std::function<Status(int64_t)>& launch, Timing* timing);

Status MeasureLimits(Device& device, const Options& options, Limits* limits);

// Each writes one array of results: "gemm", "attention", "elementwise".
Status TimeProducts(Device& device, const Options& options, const bench::ShapeList& shapes,
                    const Limits& limits, bench::Json* json);
Status TimeAttention(Device& device, const Options& options, const bench::ShapeList& shapes,
                     const Limits& limits, bench::Json* json);
Status TimeElementwise(Device& device, const Options& options, const bench::ShapeList& shapes,
                       const Limits& limits, bench::Json* json);

// Everything: one JSON object. notes: further fields, name and value.
Status MeasureAll(Device& device, const Options& options, const bench::ShapeList& shapes,
                  const std::vector<std::pair<std::string, std::string>>& notes,
                  std::string* json);

// For the fields that every result has.
void WriteTiming(const Timing& timing, bench::Json* json);

}  // namespace nibble::cuda::verify
