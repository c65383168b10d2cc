// SPDX-License-Identifier: Apache-2.0
#include <map>

#include "bench/native/random_weights.h"
#include "bench/native/sections.h"

namespace nibble::bench {
namespace {

constexpr int64_t kFewRows = 8;  // rows of a head without --full

struct Shape {
  int64_t n, k;
  std::vector<std::string> matrices;  // "model name", all that have this shape
  bool head_only;                     // every one of them is a head
  bool first_model;
};

// The distinct shapes of the models asked for, in the list's order.
std::vector<Shape> DistinctShapes(const ShapeList& list, const Options& options) {
  std::vector<Shape> shapes;
  std::map<std::pair<int64_t, int64_t>, size_t> known;
  for (const Model& model : list.models) {
    if (!Options::Wants(options.models, model.name)) continue;
    for (const Matrix& m : model.matrices) {
      const auto [at, is_new] = known.try_emplace({m.n, m.k}, shapes.size());
      if (is_new) shapes.push_back({m.n, m.k, {}, true, false});
      Shape& shape = shapes[at->second];
      shape.matrices.push_back(model.name + " " + m.name);
      shape.head_only = shape.head_only && m.name == "head";
      shape.first_model = shape.first_model || &model == &list.models.front();
    }
  }
  return shapes;
}

// The choice that sections.h describes.
bool Wanted(const Run& run, const Kernel& kernel, const Shape& shape) {
  if (!Options::Wants(run.options.kernels, kernel.name)) return false;
  if (run.options.full || !run.options.kernels.empty()) return true;
  bool projects = false, is_head = false;
  for (const Scheme& scheme : run.list.schemes) {
    projects = projects || scheme.projections == &kernel;
    is_head = is_head || scheme.head == &kernel;
  }
  return shape.head_only ? is_head : projects || shape.first_model;
}

void WriteResult(Json& json, const Kernel& kernel, const Shape& shape, int64_t rows,
                 int64_t packed_bytes, int64_t copies, const Timing& timing, const Rates& rates) {
  const double operations = 2.0 * rows * shape.n * shape.k;
  const double bytes = static_cast<double>(packed_bytes);
  const Bound bound = rates.Limit(bytes, operations, kernel.activation);
  json.BeginObject()
      .Field("kernel", "gemm_f32_" + kernel.name)
      .Field("n", shape.n)
      .Field("k", shape.k)
      .Field("rows", rows);
  json.Key("matrices").BeginArray();
  for (const std::string& name : shape.matrices) json.Value(name);
  json.EndArray().Field("packed_bytes", packed_bytes).Field("copies", copies);
  timing.Write(json);
  json.Field("gb_per_s", bytes / timing.median / 1e9)
      .Field("gops", operations / timing.median / 1e9)
      .Field("read_limit_gb_per_s", rates.read / 1e9)
      .Field("arithmetic_limit_gops", rates.Arithmetic(kernel.activation) / 1e9)
      .Field("bound", bound.memory ? "memory" : "arithmetic")
      .Field("share_of_limit", bound.limit_seconds / timing.median)
      .EndObject();
}

void RunPair(Run& run, Json& json, nb_context* context, const Kernel& kernel,
             const Shape& shape) {
  const RandomMatrix weights(kernel.format, shape.n, shape.k);
  std::vector<MatrixPtr> copies;
  copies.push_back(weights.Pack(context));
  const int64_t packed = PackedBytes(copies[0].get());
  // Each call reads the copy that was used longest ago; together they exceed the caches.
  while (static_cast<int64_t>(copies.size()) * packed < run.options.cold_bytes()) {
    copies.push_back(weights.Pack(context));
  }
  size_t next = 0;
  for (const int64_t rows : run.list.rows) {
    if (!Options::Wants(run.options.rows, rows)) continue;
    if (shape.head_only && rows > kFewRows && !run.options.full && run.options.rows.empty()) {
      continue;
    }
    const std::vector<float> x = RandomValues(rows * shape.k, 1);
    std::vector<float> y(rows * shape.n);
    const nb_tensor in = F32(x.data(), rows, shape.k), out = F32(y.data(), rows, shape.n);
    const auto call = [&] {
      const nb_projection projection = {copies[next++ % copies.size()].get(), nullptr, nullptr,
                                        &out};
      Check(nb_matmul(context, kernel.activation, &in, nullptr, 0, &projection, 1));
    };
    Timing timing;
    try {
      timing = Measure(run.options.effort(3, 0.08), call);
    } catch (const Unsupported& e) {
      run.skipped.push_back("gemm_f32_" + kernel.name + ": " + e.what());
      return;
    }
    const Rates rates = run.limits.Now();
    WriteResult(json, kernel, shape, rows, packed, static_cast<int64_t>(copies.size()), timing,
                rates);
  }
}

}  // namespace

void RunGemm(Run& run, Json& json) {
  const ContextPtr context = NewContext(run.options.threads);
  json.BeginArray();
  for (const Shape& shape : DistinctShapes(run.list, run.options)) {
    for (const Kernel& kernel : run.list.kernels) {
      if (!Wanted(run, kernel, shape)) continue;
      run.progress("gemm_f32_" + kernel.name + " " + std::to_string(shape.n) + " x " +
                   std::to_string(shape.k));
      RunPair(run, json, context.get(), kernel, shape);
    }
  }
  json.EndArray();
}

}  // namespace nibble::bench
