// SPDX-License-Identifier: Apache-2.0
//
// What the matrix instructions (mma and wgmma) share: types of elements, a register's tile, and the
// sums of products.
//
// Lane 4g + t holds of an 8-row tile the elements t * P .. t * P + P - 1 of row g, where P is the
// number of elements in 32 bits. So one register of all 32 lanes, read as an array of elements,
// *is* the 8 x 4P tile in row order, and so are eight rows of 16 bytes in memory.
#pragma once

#include <cstdint>
#include <cstring>
#include <string>

namespace nibble::cuda::emulator {

// Of one warp's product with eight columns.
inline constexpr int kM = 16, kN = 8;

enum class Element : uint8_t {
  kF16,
  kBF16,
  kTF32,
  kE4M3,
  kE5M2,
  kE3M2,
  kE2M3,
  kE2M1,
  kS8,
  kU8,
  kS4,
  kU4
};

int WidthOf(Element e);  // bits
// By the name of a type in PTX; false: no type of elements.
bool ElementOf(const std::string& type, Element* e);
inline bool IsInteger(Element e) { return e >= Element::kS8; }
inline bool IsEight(Element e) { return e >= Element::kE4M3 && e <= Element::kE2M1; }

// One register of all lanes to 8 rows of floats, `stride` apart.
void Unpack(Element e, const uint32_t* lanes, float* out, int stride);

// sums[m][n] += sum over k of a[m][k] b[k][n], one product at a time in order of k. A product of
// two numbers of at most 11 bits is exact in F32.
// Eight rows at a time, each a vector over n: their sums do not wait for one another.
template <class T, int kK>
void MultiplyAdd(const T* a, const T* b, T* sums) {
  typedef T Row __attribute__((vector_size(kN * sizeof(T))));
  constexpr int kRows = 8;
  for (int m = 0; m < kM; m += kRows) {
    Row sum[kRows];
    std::memcpy(sum, sums + m * kN, sizeof(sum));
    for (int k = 0; k < kK; ++k) {
      Row row;
      std::memcpy(&row, b + k * kN, sizeof(row));
      for (int r = 0; r < kRows; ++r) sum[r] += row * a[(m + r) * kK + k];
    }
    std::memcpy(sums + m * kN, sum, sizeof(sum));
  }
}

// All products of one instruction and the sum so far, aligned to the largest exponent and cut to
// 13 bits below it before they are added; the result is cut to F32 likewise.
float SumTruncated(const float* a, const float* b, int k_count, float c);

}  // namespace nibble::cuda::emulator
