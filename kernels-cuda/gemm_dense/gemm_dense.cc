// SPDX-License-Identifier: Apache-2.0
#include "kernels-cuda/gemm_dense/gemm_dense.h"

#include <algorithm>

#include "kernels-cuda/common/strip_matrix.h"

namespace nibble::cuda::gemm_dense {
namespace {

#define NIBBLE_DENSE_KERNELS(code, left, module, name, wide, product)            \
  {code, left, module, name "_decode", name "_decode_pair", name "_tiles", wide, \
   StripProduct::product}
#define NIBBLE_DENSE_F32(code) \
  {code, DType::kF32, nullptr, nullptr, nullptr, nullptr, nullptr, StripProduct::k16Bits}

constexpr char kA8i[] = "gemm_dense_a8i", kA16[] = "gemm_dense_a16", kA8f[] = "gemm_dense_a8f";

constexpr StripKernels kKernels[] = {
    NIBBLE_DENSE_KERNELS(DType::kI8, DType::kI8, kA8i, "gemm_a8i_w8i", "gemm_a8i_w8i_wide", kI8),
    NIBBLE_DENSE_KERNELS(DType::kI8, DType::kBF16, kA16, "gemm_a16_w8i", nullptr, k16Bits),
    NIBBLE_DENSE_KERNELS(DType::kE4M3, DType::kBF16, kA16, "gemm_a16_w8e4m3", nullptr, k16Bits),
    NIBBLE_DENSE_KERNELS(DType::kE5M2, DType::kBF16, kA16, "gemm_a16_w8e5m2", nullptr, k16Bits),
    NIBBLE_DENSE_KERNELS(DType::kBF16, DType::kBF16, kA16, "gemm_a16_bf16", "gemm_a16_bf16_wide",
                         k16Bits),
    NIBBLE_DENSE_KERNELS(DType::kF16, DType::kBF16, kA16, "gemm_a16_f16", nullptr, k16Bits),
    NIBBLE_DENSE_KERNELS(DType::kI8, DType::kE4M3, kA8f, "gemm_a8f_w8i", nullptr, k16Bits),
    NIBBLE_DENSE_KERNELS(DType::kE4M3, DType::kE4M3, kA8f, "gemm_a8f_w8e4m3", nullptr, kFP8),
    NIBBLE_DENSE_KERNELS(DType::kE5M2, DType::kE4M3, kA8f, "gemm_a8f_w8e5m2", nullptr, kFP8),
    NIBBLE_DENSE_KERNELS(DType::kBF16, DType::kE4M3, kA8f, "gemm_a8f_bf16", nullptr, k16Bits),
    NIBBLE_DENSE_KERNELS(DType::kF16, DType::kE4M3, kA8f, "gemm_a8f_f16", nullptr, k16Bits),
    NIBBLE_DENSE_F32(DType::kF32),
    NIBBLE_DENSE_F32(DType::kBF16),
    NIBBLE_DENSE_F32(DType::kF16),
    NIBBLE_DENSE_F32(DType::kI8),
    NIBBLE_DENSE_F32(DType::kE4M3),
    NIBBLE_DENSE_F32(DType::kE5M2),
};
#undef NIBBLE_DENSE_KERNELS
#undef NIBBLE_DENSE_F32

const StripKernels* Find(DType code, DType left) {
  for (const StripKernels& k : kKernels) {
    if (k.code == code && k.left == left) return &k;
  }
  return nullptr;
}

Status Launch(Device& device, const DeviceWeights& weights, const DeviceWeights* up,
              const GemmLeft& left, const GemmResult& result, const Scratch& scratch) {
  const StripKernels* kernels = Find(weights.format.code, left.type);
  if (kernels == nullptr) {
    return {NB_UNSUPPORTED, Unsupported(weights.format, weights.rows, weights.cols, left.type,
                                        device.properties().sm)};
  }
  return RunStrips(device, *kernels, weights, up, left, result, scratch);
}

}  // namespace

std::string Unsupported(const WeightFormat& format, int64_t, int64_t, DType activation, int sm) {
  if (format.code == DType::kI4 || IsSixBit(format.code)) {
    return "dense kernels take I8, E4M3, E5M2, BF16, F16 and F32 weights only";
  }
  if (sm < 80) return "dense kernels need compute capability 8.0 or newer";
  if (Find(format.code, activation) != nullptr) return "";
  if (format.code == DType::kF32) return "F32 weights have kernels for F32 activations only";
  if (format.code == DType::kI8) {
    return "I8 weights have kernels for F32, BF16, E4M3 and I8 activations only";
  }
  return "FP8, BF16 and F16 weights have kernels for F32, BF16 and E4M3 activations only";
}

int64_t PackedBytes(const WeightFormat& format, int64_t rows, int64_t cols) {
  return StripLayout(format, rows, cols).bytes();
}

int64_t RowBlocks(int64_t rows) { return DivUp(rows, kStripRows); }

void Pack(const WeightFormat& format, int64_t rows, int64_t cols, const CanonicalWeights& weights,
          int64_t block, uint8_t* packed) {
  PackStrip(format, rows, cols, weights, block, packed);
}

void Unpack(const WeightFormat& format, int64_t rows, int64_t cols, const uint8_t* packed,
            int64_t block, const CanonicalWeights& weights) {
  UnpackStrip(format, rows, cols, packed, block, weights);
}

int64_t ScratchBytes(const Device& device, const WeightFormat& format, int64_t rows, int64_t cols,
                     int64_t m) {
  int64_t bytes = 0;
  for (const StripKernels& k : kKernels) {
    if (k.code != format.code) continue;
    bytes = std::max(bytes, StripScratchBytes(device, k, format, rows, cols, m));
  }
  return bytes;
}

Status Run(Device& device, const DeviceWeights& weights, const GemmLeft& left,
           const GemmResult& result, const Scratch& scratch) {
  return Launch(device, weights, nullptr, left, result, scratch);
}

Status RunSwiGlu(Device& device, const DeviceWeights& gate, const DeviceWeights& up,
                 const GemmLeft& left, const GemmResult& result, const Scratch& scratch) {
  return Launch(device, gate, &up, left, result, scratch);
}

Status DequantizeRows(Device& device, const DeviceWeights& weights, DevicePtr ids, int64_t first,
                      int64_t count, DevicePtr output, int64_t output_stride) {
  return DequantizeStripRows(device, weights, ids, first, count, output, output_stride);
}

}  // namespace nibble::cuda::gemm_dense
