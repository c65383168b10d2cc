// SPDX-License-Identifier: Apache-2.0
#include "kernels-cuda/emulator/small_floats.h"

#include <array>

namespace nibble::cuda::emulator {

namespace {
std::array<float, 256> MakeTable(const SmallFormat& format) {
  std::array<float, 256> table{};
  const uint32_t codes = 1u << format.bits();
  for (uint32_t i = 0; i < 256; ++i) table[i] = static_cast<float>(DecodeSmall(format, i % codes));
  return table;
}
}  // namespace

const float* SmallTable(const SmallFormat& format) {
  static const std::array<float, 256> kTables[] = {
      MakeTable(kE4M3), MakeTable(kE5M2), MakeTable(kE3M2), MakeTable(kE2M3), MakeTable(kE2M1)};
  switch (format.exponent_bits) {
    case 4:
      return kTables[0].data();
    case 5:
      return kTables[1].data();
    case 3:
      return kTables[2].data();
    default:
      return format.mantissa_bits == 3 ? kTables[3].data() : kTables[4].data();
  }
}

}  // namespace nibble::cuda::emulator
