// SPDX-License-Identifier: Apache-2.0
//
// Host side of the strip layout (strip_layout.h): packing, and the launch of its kernels. A family
// adds the table of the kernels that it has.
#pragma once

#include <string>

#include "kernels-cuda/common/device.h"
#include "kernels-cuda/common/strip_arguments.h"
#include "kernels-cuda/common/strip_shapes.h"
#include "kernels-cuda/common/weights.h"

namespace nibble::cuda {

// Packs strip `strip` of canonical rows; writes all bytes of packed that belong to it. The exact
// inverse. Any number of threads may work on different strips.
void PackStrip(const WeightFormat& format, int64_t rows, int64_t cols,
               const CanonicalWeights& weights, int64_t strip, uint8_t* packed);
void UnpackStrip(const WeightFormat& format, int64_t rows, int64_t cols, const uint8_t* packed,
                 int64_t strip, const CanonicalWeights& weights);

// The kernels for weights of one code type and one type of activations. Names live for ever. For
// F32 activations there is one set for all codes (strip_f32.cu), and names are not read.
struct StripKernels {
  DType code, left;
  const char* module;
  const char* decode;
  const char* decode_pair;
  const char* tiles;
  const char* wide;  // null: there is none
  StripProduct product;  // kFP8: where the image has such instructions, else k16Bits
};

// Bytes of partial sums that RunStrips may want for up to m rows, a pair or not.
int64_t StripScratchBytes(const Device& device, const StripKernels& kernels,
                          const WeightFormat& format, int64_t rows, int64_t cols, int64_t m);

// result = left * weights^T + ..., or with up the SwiGLU pair. NB_INVALID_ARGUMENT where the
// operands do not belong together or scratch is too small.
Status RunStrips(Device& device, const StripKernels& kernels, const DeviceWeights& weights,
                 const DeviceWeights* up, const GemmLeft& left, const GemmResult& result,
                 const Scratch& scratch);

// Fills what every kernel of the layout wants to know, and checks the operands.
Status DescribeStrips(const DeviceWeights& weights, const DeviceWeights* up, const GemmLeft& left,
                      const GemmResult& result, StripArguments* arguments);

// As DequantizeRows in weights.h.
Status DequantizeStripRows(Device& device, const DeviceWeights& weights, DevicePtr ids,
                           int64_t first, int64_t count, DevicePtr output, int64_t output_stride);

}  // namespace nibble::cuda
