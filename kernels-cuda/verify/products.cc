// SPDX-License-Identifier: Apache-2.0
//
// Products: every kernel of the shape list, over the matrices of its models, from one row to a
// prompt.
#include <algorithm>
#include <memory>
#include <random>
#include <set>
#include <thread>

#include "kernels-cuda/elementwise/elementwise.h"
#include "kernels-cuda/plugin/families.h"
#include "kernels-cuda/verify/cublas.h"
#include "kernels-cuda/verify/verify.h"

namespace nibble::cuda::verify {
namespace {

// Device memory with an owner.
class Memory {
 public:
  explicit Memory(Device& device) : device_(device) {}
  ~Memory() { device_.Free(address_); }
  Memory(const Memory&) = delete;
  Memory& operator=(const Memory&) = delete;
  Status Allocate(int64_t bytes) { return device_.Allocate(bytes, &address_); }
  DevicePtr get() const { return address_; }

 private:
  Device& device_;
  DevicePtr address_ = 0;
};

// Enough copies that a launch finds nothing of its own in the L2 cache, within an eighth of the
// device's memory; at most 256.
int64_t Copies(const Device& device, int64_t bytes) {
  const DeviceProperties& p = device.properties();
  const int64_t wanted = DivUp(2 * p.l2_bytes, std::max<int64_t>(bytes, 1)) + 1;
  const int64_t fitting = p.memory_bytes / 8 / std::max<int64_t>(bytes, 1);
  return std::clamp<int64_t>(std::min(wanted, fitting), 1, 256);
}

// Random codes with scales of 1 or so, packed by all threads.
std::vector<uint8_t> PackRandom(const GemmFamily& family, const WeightFormat& format, int64_t n,
                                int64_t k) {
  std::mt19937 random(1);
  const auto rows = static_cast<size_t>(n);
  std::vector<uint8_t> codes(rows * static_cast<size_t>(format.CodeRowBytes(k)));
  std::vector<uint8_t> high(rows * static_cast<size_t>(format.HighRowBytes(k)));
  for (uint8_t& b : codes) b = static_cast<uint8_t>(random());
  for (uint8_t& b : high) b = static_cast<uint8_t>(random());
  // The top exponent bits of floats stay 0: no NaN, no infinity.
  const int bytes = format.code == DType::kF32                                      ? 4
                    : format.code == DType::kBF16 || format.code == DType::kF16     ? 2
                    : format.code == DType::kE4M3 || format.code == DType::kE5M2    ? 1
                                                                                    : 0;
  for (size_t i = static_cast<size_t>(bytes) - 1; bytes > 0 && i < codes.size(); i += bytes) {
    codes[i] &= 0xBF;
  }
  // 1 in every scale type, written element by element.
  const int64_t count = n * format.Groups(k);
  std::vector<uint8_t> scales;
  for (int64_t i = 0; i < count; ++i) {
    const auto append = [&](std::initializer_list<uint8_t> one) {
      scales.insert(scales.end(), one);
    };
    switch (format.scale) {
      case DType::kE4M3: append({0x38}); break;
      case DType::kPow2: append({0x00}); break;
      case DType::kF16: append({0x00, 0x3C}); break;
      case DType::kBF16: append({0x80, 0x3F}); break;
      default: append({0x00, 0x00, 0x80, 0x3F}); break;
    }
  }
  std::vector<float> factors(static_cast<size_t>(format.FactorCount(n)), 1.0f);
  CanonicalWeights weights;
  weights.codes = codes.data();
  weights.codes_high = high.empty() ? nullptr : high.data();
  weights.scales = scales.empty() ? nullptr : scales.data();
  weights.factors = factors.empty() ? nullptr : factors.data();

  std::vector<uint8_t> packed(static_cast<size_t>(family.packed_bytes(format, n, k)));
  const int64_t blocks = family.row_blocks(n);
  const int64_t threads = std::max(1u, std::thread::hardware_concurrency());
  std::vector<std::thread> workers;
  for (int64_t t = 0; t < threads; ++t) {
    workers.emplace_back([&, t] {
      for (int64_t b = t; b < blocks; b += threads) {
        family.pack(format, n, k, weights, b, packed.data());
      }
    });
  }
  for (std::thread& worker : workers) worker.join();
  return packed;
}

// One matrix of one format with room for rows_most rows of activations.
class Product {
 public:
  Product(Device& device, const bench::Kernel& kernel, int64_t n, int64_t k)
      : device_(device),
        activation_(static_cast<DType>(kernel.activation)),
        n_(n),
        k_(k),
        weights_(device),
        left_(device),
        x_(device),
        y_(device),
        scratch_(device) {
    format_.code = static_cast<DType>(kernel.format.code_type);
    format_.scale = static_cast<DType>(kernel.format.scale_type);
    format_.group_size = kernel.format.group_size;
  }

  std::string Unsupported() const {
    return FamilyOf(format_.code)
        .unsupported(format_, n_, k_, activation_, device_.properties().sm);
  }

  Status Prepare(int64_t rows_most) {
    const GemmFamily& family = FamilyOf(format_.code);
    const std::vector<uint8_t> packed = PackRandom(family, format_, n_, k_);
    bytes_ = static_cast<int64_t>(packed.size());
    stride_ = RoundUp(bytes_, 256);
    copies_ = Copies(device_, bytes_);
    NIBBLE_CUDA_RETURN_IF_FAILED(weights_.Allocate(stride_ * copies_));
    for (int64_t c = 0; c < copies_; ++c) {
      const DevicePtr to = weights_.get() + static_cast<DevicePtr>(c * stride_);
      NIBBLE_CUDA_RETURN_IF_FAILED(c == 0 ? device_.CopyIn(to, packed.data(), bytes_)
                                          : device_.CopyWithin(to, weights_.get(), bytes_));
    }
    scratch_bytes_ = 0;
    for (int64_t m = 1; m <= rows_most; ++m) {  // not monotone: splits depend on m
      scratch_bytes_ =
          std::max(scratch_bytes_, family.scratch_bytes(device_, format_, n_, k_, m));
    }
    NIBBLE_CUDA_RETURN_IF_FAILED(scratch_.Allocate(scratch_bytes_));
    NIBBLE_CUDA_RETURN_IF_FAILED(
        left_.Allocate(elementwise::LeftBytes(activation_, rows_most, k_)));
    NIBBLE_CUDA_RETURN_IF_FAILED(y_.Allocate(rows_most * n_ * 4));
    NIBBLE_CUDA_RETURN_IF_FAILED(x_.Allocate(rows_most * k_ * 4));
    std::mt19937 random(2);
    std::normal_distribution<float> normal;
    std::vector<float> x(static_cast<size_t>(rows_most * k_));
    for (float& v : x) v = normal(random);
    return device_.CopyIn(x_.get(), x.data(), static_cast<int64_t>(x.size() * 4));
  }

  // Without the quantizer of the activations, which is measured on its own.
  Status Time(const Options& options, int64_t m, Timing* timing) {
    const GemmLeft left = elementwise::LayOutLeft(activation_, m, k_, left_.get());
    NIBBLE_CUDA_RETURN_IF_FAILED(
        elementwise::MakeLeft(device_, {x_.get(), k_}, elementwise::Norm(), left));
    GemmResult result = {};
    result.type = DType::kF32;
    result.values = y_.get();
    result.stride = n_;
    const Scratch scratch = {scratch_.get(), scratch_bytes_};
    return Measure(
        device_, options,
        [&](int64_t i) {
          const DeviceWeights weights = {
              format_, n_, k_,
              weights_.get() + static_cast<DevicePtr>(i % copies_ * stride_)};
          return FamilyOf(format_.code).run(device_, weights, left, result, scratch);
        },
        timing);
  }

  int64_t weight_bytes() const { return bytes_; }
  // What one product must move at least.
  int64_t Bytes(int64_t m) const {
    const int64_t element = activation_ == DType::kF32 ? 4 : activation_ == DType::kBF16 ? 2 : 1;
    return bytes_ + m * k_ * element + m * n_ * 4;
  }

 private:
  Device& device_;
  WeightFormat format_;
  DType activation_;
  int64_t n_, k_;
  Memory weights_, left_, x_, y_, scratch_;
  int64_t bytes_ = 0, stride_ = 0, copies_ = 1, scratch_bytes_ = 0;
};

// cuBLAS on the same shapes: F16, and E4M3 with rows rounded up to 16.
class Peer {
 public:
  Peer(Device& device, Cublas& cublas, int64_t n, int64_t k)
      : device_(device), cublas_(cublas), n_(n), k_(k), weights_(device), x_(device),
        y_(device) {}

  Status Prepare(int64_t rows_most) {
    copies_ = Copies(device_, 2 * n_ * k_);
    const int64_t rows = RoundUp(rows_most, 16);
    NIBBLE_CUDA_RETURN_IF_FAILED(weights_.Allocate(copies_ * 2 * n_ * k_));
    NIBBLE_CUDA_RETURN_IF_FAILED(device_.Fill(weights_.get(), 0x18, copies_ * 2 * n_ * k_));
    NIBBLE_CUDA_RETURN_IF_FAILED(x_.Allocate(rows * k_ * 2));
    NIBBLE_CUDA_RETURN_IF_FAILED(device_.Fill(x_.get(), 0x18, rows * k_ * 2));
    return y_.Allocate(rows * n_ * 2);
  }

  Status TimeF16(const Options& options, int64_t m, Timing* timing) {
    return Measure(
        device_, options,
        [&](int64_t i) {
          return cublas_.MultiplyF16(
              x_.get(), weights_.get() + static_cast<DevicePtr>(i % copies_ * 2 * n_ * k_),
              y_.get(), m, n_, k_);
        },
        timing);
  }

  Status TimeE4M3(const Options& options, int64_t m, Timing* timing) {
    if (n_ % 16 != 0 || k_ % 16 != 0) return Status(NB_UNSUPPORTED, "");
    double seconds = 0;
    NIBBLE_CUDA_RETURN_IF_FAILED(device_.Time(
        [&] { return cublas_.PrepareE4M3(RoundUp(m, 16), n_, k_); }, &seconds));
    return Measure(
        device_, options,
        [&](int64_t i) {
          return cublas_.MultiplyE4M3(
              x_.get(), weights_.get() + static_cast<DevicePtr>(i % (2 * copies_) * n_ * k_),
              y_.get());
        },
        timing);
  }

 private:
  Device& device_;
  Cublas& cublas_;
  int64_t n_, k_, copies_ = 1;
  Memory weights_, x_, y_;
};

void WriteProduct(const Timing& timing, int64_t n, int64_t k, int64_t m, int64_t bytes,
                  double limit_ops, const Limits& limits, bench::Json* json) {
  const double ops = 2.0 * static_cast<double>(n) * static_cast<double>(k) *
                     static_cast<double>(m);
  const double by_memory = static_cast<double>(bytes) / limits.copy_bytes_per_second;
  const double by_matrix = ops / limit_ops;
  WriteTiming(timing, json);
  json->Field("gb_per_s", static_cast<double>(bytes) / timing.median * 1e-9)
      .Field("tops", ops / timing.median * 1e-12)
      .Field("bound", by_memory > by_matrix ? "memory" : "matrix")
      .Field("share_of_limit", std::max(by_memory, by_matrix) / timing.median);
}

struct Shape {
  int64_t n, k;
  bool operator<(const Shape& other) const {
    return n != other.n ? n < other.n : k < other.k;
  }
};

// The distinct matrices of the models, with the names that have them.
std::vector<std::pair<Shape, std::vector<std::string>>> Shapes(const Options& options,
                                                               const bench::ShapeList& list) {
  std::vector<std::pair<Shape, std::vector<std::string>>> shapes;
  for (const std::string& name : options.models) {
    for (const bench::Matrix& matrix : list.model(name).matrices) {
      const Shape shape = {matrix.n, matrix.k};
      auto at = std::find_if(shapes.begin(), shapes.end(), [&](const auto& known) {
        return !(known.first < shape) && !(shape < known.first);
      });
      if (at == shapes.end()) at = shapes.insert(at, {shape, {}});
      at->second.push_back(name + " " + matrix.name);
    }
  }
  return shapes;
}

void WriteShape(const char* kernel, const Shape& shape, int64_t m,
                const std::vector<std::string>& names, bench::Json* json) {
  json->BeginObject()
      .Field("kernel", kernel)
      .Field("n", shape.n)
      .Field("k", shape.k)
      .Field("rows", m);
  json->Key("matrices").BeginArray();
  for (const std::string& name : names) json->Value(name);
  json->EndArray();
}

}  // namespace

Status TimeProducts(Device& device, const Options& options, const bench::ShapeList& list,
                    const Limits& limits, bench::Json* json) {
  const int64_t rows_most = *std::max_element(list.rows.begin(), list.rows.end());
  Cublas cublas(device);
  json->Field("cublas", cublas.problem().empty() ? "used" : "not used: " + cublas.problem());
  json->Key("gemm").BeginArray();
  for (const auto& [shape, names] : Shapes(options, list)) {
    for (const bench::Kernel& kernel : list.kernels) {
      Product product(device, kernel, shape.n, shape.k);
      if (!product.Unsupported().empty()) continue;
      const std::string name = "gemm_f32_" + kernel.name;
      if (options.progress) {
        options.progress(name + " " + std::to_string(shape.n) + " x " +
                         std::to_string(shape.k));
      }
      NIBBLE_CUDA_RETURN_IF_FAILED(product.Prepare(rows_most));
      for (const int64_t m : list.rows) {
        Timing timing;
        NIBBLE_CUDA_RETURN_IF_FAILED(product.Time(options, m, &timing));
        WriteShape(name.c_str(), shape, m, names, json);
        json->Field("packed_bytes", product.weight_bytes());
        WriteProduct(timing, shape.n, shape.k, m, product.Bytes(m),
                     limits.Ops(static_cast<DType>(kernel.activation)), limits, json);
        json->EndObject();
      }
    }
    if (!cublas.problem().empty()) continue;
    Peer peer(device, cublas, shape.n, shape.k);
    NIBBLE_CUDA_RETURN_IF_FAILED(peer.Prepare(rows_most));
    for (const int64_t m : list.rows) {
      Timing timing;
      NIBBLE_CUDA_RETURN_IF_FAILED(peer.TimeF16(options, m, &timing));
      WriteShape("cublas_f16", shape, m, names, json);
      WriteProduct(timing, shape.n, shape.k, m, 2 * (shape.n * shape.k + m * (shape.n + shape.k)),
                   limits.bf16_ops, limits, json);
      json->EndObject();
      const Status status = peer.TimeE4M3(options, m, &timing);
      if (status.code() == NB_UNSUPPORTED) continue;
      NIBBLE_CUDA_RETURN_IF_FAILED(status);
      WriteShape("cublas_e4m3", shape, m, names, json);
      WriteProduct(timing, shape.n, shape.k, m, shape.n * shape.k + m * (2 * shape.n + shape.k),
                   limits.Ops(DType::kE4M3), limits, json);
      json->EndObject();
    }
  }
  json->EndArray();
  return Status();
}

}  // namespace nibble::cuda::verify
