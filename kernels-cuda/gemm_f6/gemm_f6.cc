// SPDX-License-Identifier: Apache-2.0
#include "kernels-cuda/gemm_f6/gemm_f6.h"

#include <algorithm>

#include "kernels-cuda/common/strip_matrix.h"

namespace nibble::cuda::gemm_f6 {
namespace {

#define NIBBLE_F6_KERNELS(code, left, module, name, wide) \
  {code, left, module, name "_decode", name "_decode_pair", name "_tiles", wide, \
   left == DType::kE4M3 ? StripProduct::kFP8 : StripProduct::k16Bits}

constexpr StripKernels kKernels[] = {
    NIBBLE_F6_KERNELS(DType::kE3M2, DType::kBF16, "gemm_f6_a16", "gemm_a16_w6e3m2",
                      "gemm_a16_w6e3m2_wide"),
    NIBBLE_F6_KERNELS(DType::kE2M3, DType::kBF16, "gemm_f6_a16", "gemm_a16_w6e2m3",
                      "gemm_a16_w6e2m3_wide"),
    NIBBLE_F6_KERNELS(DType::kE3M2, DType::kE4M3, "gemm_f6_a8f", "gemm_a8f_w6e3m2", nullptr),
    NIBBLE_F6_KERNELS(DType::kE2M3, DType::kE4M3, "gemm_f6_a8f", "gemm_a8f_w6e2m3", nullptr),
    NIBBLE_F6_KERNELS(DType::kE3M2, DType::kI8, "gemm_f6_a8i", "gemm_a8i_w6e3m2", nullptr),
    NIBBLE_F6_KERNELS(DType::kE2M3, DType::kI8, "gemm_f6_a8i", "gemm_a8i_w6e2m3", nullptr),
    {DType::kE3M2, DType::kF32, nullptr, nullptr, nullptr, nullptr, nullptr, StripProduct::k16Bits},
    {DType::kE2M3, DType::kF32, nullptr, nullptr, nullptr, nullptr, nullptr, StripProduct::k16Bits},
};
#undef NIBBLE_F6_KERNELS

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
  if (!IsSixBit(format.code)) return "six-bit kernels take E3M2 and E2M3 codes only";
  if (sm < 80) return "six-bit kernels need compute capability 8.0 or newer";
  if (Find(format.code, activation) == nullptr) {
    return "six-bit weights have kernels for F32, BF16, E4M3 and I8 activations only";
  }
  return "";
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

}  // namespace nibble::cuda::gemm_f6
