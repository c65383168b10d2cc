// SPDX-License-Identifier: Apache-2.0
#include "kernels-cuda/emulator/matrix_elements.h"

#include <algorithm>
#include <cmath>

#include "kernels-cuda/emulator/lanes.h"
#include "kernels-cuda/emulator/small_floats.h"

namespace nibble::cuda::emulator {

int WidthOf(Element e) {
  switch (e) {
    case Element::kF16:
    case Element::kBF16:
      return 16;
    case Element::kTF32:
      return 32;
    case Element::kS4:
    case Element::kU4:
      return 4;
    default:
      return 8;
  }
}

bool ElementOf(const std::string& type, Element* e) {
  static const struct {
    const char* name;
    Element element;
  } kAll[] = {{"f16", Element::kF16},   {"bf16", Element::kBF16}, {"tf32", Element::kTF32},
              {"e4m3", Element::kE4M3}, {"e5m2", Element::kE5M2}, {"e3m2", Element::kE3M2},
              {"e2m3", Element::kE2M3}, {"e2m1", Element::kE2M1}, {"s8", Element::kS8},
              {"u8", Element::kU8},     {"s4", Element::kS4},     {"u4", Element::kU4}};
  for (const auto& entry : kAll) {
    if (type == entry.name) {
      *e = entry.element;
      return true;
    }
  }
  return false;
}

namespace {

const float* TableOf(Element e) {
  switch (e) {
    case Element::kE4M3:
      return SmallTable(kE4M3);
    case Element::kE5M2:
      return SmallTable(kE5M2);
    case Element::kE3M2:
      return SmallTable(kE3M2);
    case Element::kE2M3:
      return SmallTable(kE2M3);
    default:
      return SmallTable(kE2M1);
  }
}

}  // namespace

void Unpack(Element e, const uint32_t* lanes, float* out, int stride) {
  switch (e) {
    case Element::kF16:
    case Element::kBF16: {
      uint16_t codes[64];
      std::memcpy(codes, lanes, sizeof(codes));
      float values[64];
      if (e == Element::kF16) {
        for (int i = 0; i < 64; ++i) values[i] = HalfToFloat(codes[i]);
      } else {
        for (int i = 0; i < 64; ++i) values[i] = BrainToFloat(codes[i]);
      }
      for (int row = 0; row < 8; ++row)
        std::memcpy(out + row * stride, values + 8 * row, 8 * sizeof(float));
      break;
    }
    case Element::kTF32:  // the unit does not read the low 13 bits
      for (int i = 0; i < 32; ++i) out[i / 4 * stride + i % 4] = Bits<float>(lanes[i] & ~0x1FFFu);
      break;
    default: {
      const float* table = TableOf(e);
      uint8_t codes[128];
      std::memcpy(codes, lanes, sizeof(codes));
      // Codes below 8 bits stand in the low bits of their byte (E2M1 in the middle four).
      const int shift = e == Element::kE2M1 ? 2 : 0;
      float values[128];
      for (int i = 0; i < 128; ++i) values[i] = table[codes[i] >> shift];
      for (int row = 0; row < 8; ++row) {
        std::memcpy(out + row * stride, values + 16 * row, 16 * sizeof(float));
      }
      break;
    }
  }
}

float SumTruncated(const float* a, const float* b, int k_count, float c) {
  double terms[65];
  int count = 0;
  terms[count++] = c;
  for (int k = 0; k < k_count; ++k) terms[count++] = static_cast<double>(a[k]) * b[k * kN];
  int top = -10000;
  double plain = 0;
  for (int i = 0; i < count; ++i) {
    plain += terms[i];
    if (terms[i] != 0 && std::isfinite(terms[i])) top = std::max(top, std::ilogb(terms[i]));
  }
  if (!std::isfinite(plain) || top == -10000) return static_cast<float>(plain);
  constexpr int kFractionBits = 13;
  double sum = 0;
  for (int i = 0; i < count; ++i) sum += std::trunc(std::ldexp(terms[i], kFractionBits - top));
  return static_cast<float>(std::ldexp(sum, top - kFractionBits));
}

}  // namespace nibble::cuda::emulator
