// SPDX-License-Identifier: Apache-2.0
//
// A 64-bit hash at about the speed of memory, to find damage in stored bytes. Eight chains
// run side by side, so that a 64-byte line costs sixteen multiplications and nothing waits
// for a multiplier's latency:
//
//   line     | w0 | w1 | ... | w7 |
//   chain i  x = rotl(x + wi * odd constant, 31) * odd constant
//
// The product before the rotation spreads a word's low bits, the one after it the high bits:
// with one of them alone, a few bits of a word would stay a few bits, and damage in the next
// line could undo them.
//
// Every step is a bijection of its chain, and the last mix of each chain's end: bytes that
// differ in one word only, or in one of eight columns of words only, always differ in the
// hash; others collide with a chance of about 2^-64. It does not withstand somebody who
// looks for a collision. Little-endian hosts only, as the files that it is stored in.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>

namespace nibble {

inline uint64_t HashBytes(const void* data, size_t bytes) {
  constexpr int kChains = 8;
  // Binary digits of square roots (5, 2 and 3), made odd: no pattern.
  constexpr uint64_t kFirst = 0x9E3779B97F4A7C15u, kSecond = 0x6A09E667F3BCC909u;
  constexpr uint64_t kThird = 0xBB67AE8584CAA73Bu;
  uint64_t chain[kChains];
  _Pragma("GCC unroll 8")
  for (int i = 0; i < kChains; ++i) chain[i] = kThird * (2 * i + 1);
  // Unrolled, so that the chains live in registers.
  const auto line = [&](const uint8_t* p) {
    _Pragma("GCC unroll 8")
    for (int i = 0; i < kChains; ++i) {
      uint64_t word;
      std::memcpy(&word, p + 8 * i, sizeof(word));
      const uint64_t x = chain[i] + word * kFirst;
      chain[i] = (x << 31 | x >> 33) * kSecond;
    }
  };
  const auto* p = static_cast<const uint8_t*>(data);
  size_t i = 0;
  for (; i + 64 <= bytes; i += 64) line(p + i);
  if (i < bytes) {
    uint8_t rest[64] = {};
    std::memcpy(rest, p + i, bytes - i);
    line(rest);
  }
  uint64_t h = bytes * kThird;  // a rest of zeros is not the same as no rest
  _Pragma("GCC unroll 8")
  for (int i = 0; i < kChains; ++i) {
    h = (h ^ chain[i]) * kFirst;
    h ^= h >> 29;
  }
  return h;
}

}  // namespace nibble
