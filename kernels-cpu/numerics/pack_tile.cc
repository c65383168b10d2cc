// SPDX-License-Identifier: Apache-2.0
//
// A tile's unit is a 32-bit word a lane, so packing is a transposition of words, with a
// fixed permutation of the bits inside each word for the types narrower than a byte:
//
//   canonical, row-major                    tile (tile.h)
//   row 0   | w0 | w1 | w2 | w3 | ...       step 0   | row 0: w0 | row 1: w0 | ... row 15 |
//   row 1   | w0 | w1 | w2 | w3 | ...       step 1   | row 0: w1 | row 1: w1 | ...        |
//   ...                                     ...
//
//   I8, FP8, 16 and 32 bits   a word is the row's next four bytes; I8 flips each sign bit
//                             (q + 128)
//   I4, low plane of FP6      nibbles k7..k0 of eight columns become k7 k3 k6 k2 k5 k1 k4 k0;
//                             I4 flips each top bit (q + 8)
//   high plane of FP6         a 4 x 4 transposition of pairs of bits: the pair of column
//                             4f + i moves from bit 8f + 2i to bit 8i + 2f
//
// Each permutation is two steps that exchange the fields of two bit positions of the field
// number (a "delta swap": x ^= t ^ (t << d) with t = (x ^ (x >> d)) & mask).
//
// Four rows of 16 bytes are one 4 x 4 transposition in 128-bit vectors on every target: it
// is two interleaves a vector, and at 16 bytes out of every 4 or so instructions the memory
// is the limit, not the vector's width. Nothing is computed, so nothing can round or
// overflow.
#include "kernels-cpu/numerics/pack_tile.h"

#include <algorithm>
#include <cstring>

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels-cpu/numerics/pack_tile.cc"
#include "hwy/foreach_target.h"  // IWYU pragma: keep
//
#include "hwy/highway.h"

HWY_BEFORE_NAMESPACE();
namespace nibble {
namespace HWY_NAMESPACE {
namespace {
namespace hn = hwy::HWY_NAMESPACE;

using D = hn::FixedTag<uint32_t, 4>;
using V = hn::Vec<D>;

constexpr int64_t kChunk = 16;       // bytes of a row that are transposed at a time
constexpr int64_t kChunkWords = 4;
constexpr int64_t kStep = 64;        // bytes: a word for each of the 16 lanes

template <int kDistance>
HWY_INLINE V DeltaSwap(V x, uint32_t mask) {
  const V t = hn::And(hn::Xor(x, hn::ShiftRight<kDistance>(x)), hn::Set(D(), mask));
  return hn::Xor(x, hn::Xor(t, hn::ShiftLeft<kDistance>(t)));
}

// The permutations of a word.
template <uint32_t kFlip>
struct Bytes {
  HWY_INLINE V operator()(V w) const {
    return kFlip == 0 ? w : hn::Xor(w, hn::Set(D(), kFlip));
  }
};
template <uint32_t kFlip>
struct Nibbles {
  HWY_INLINE V operator()(V w) const {
    w = DeltaSwap<4>(DeltaSwap<8>(w, 0x0000FF00u), 0x00F000F0u);
    return Bytes<kFlip>()(w);
  }
};
struct Pairs {
  HWY_INLINE V operator()(V w) const {
    return DeltaSwap<12>(DeltaSwap<6>(w, 0x00CC00CCu), 0x0000F0F0u);
  }
};

// Where word w of a row goes.
struct Consecutive {
  int64_t operator()(int64_t w) const { return w * kStep; }
};
struct SixBitLow {  // two of the three steps of 16 columns
  int64_t operator()(int64_t w) const { return (w / 2 * 3 + w % 2) * kStep; }
};
struct SixBitHigh {
  int64_t operator()(int64_t w) const { return (w * 3 + 2) * kStep; }
};

// Words w .. w + count - 1 (count up to 4) of all lanes; lane l's are at rows[l] + byte.
template <class Word, class Place>
HWY_INLINE void PackChunk(const uint8_t* const* rows, int64_t byte, const Word& word,
                          const Place& place, int64_t w, int64_t count, uint8_t* tile) {
  const D d;
  const hn::Repartition<uint64_t, D> d64;
  const hn::Repartition<uint8_t, D> d8;
  for (int64_t lane = 0; lane < kTileLanes; lane += 4) {
    const auto load = [&](int64_t i) HWY_ATTR {
      return word(hn::BitCast(d, hn::LoadU(d8, rows[lane + i] + byte)));
    };
    const V r0 = load(0), r1 = load(1), r2 = load(2), r3 = load(3);
    const auto low01 = hn::BitCast(d64, hn::InterleaveLower(d, r0, r1));
    const auto low23 = hn::BitCast(d64, hn::InterleaveLower(d, r2, r3));
    const auto high01 = hn::BitCast(d64, hn::InterleaveUpper(d, r0, r1));
    const auto high23 = hn::BitCast(d64, hn::InterleaveUpper(d, r2, r3));
    uint8_t* to = tile + lane * 4;
    const auto store = [&](int64_t i, auto v) HWY_ATTR {
      hn::StoreU(hn::BitCast(d8, v), d8, to + place(w + i));
    };
    store(0, hn::InterleaveLower(d64, low01, low23));
    if (count > 1) store(1, hn::InterleaveUpper(d64, low01, low23));
    if (count > 2) store(2, hn::InterleaveLower(d64, high01, high23));
    if (count > 3) store(3, hn::InterleaveUpper(d64, high01, high23));
  }
}

// One plane of kBits a code. A row's last chunk, short or with bits that belong to no
// column, goes through a copy padded with zeros, so that nothing outside the row is read.
template <int kBits, class Word, class Place>
void PackPlane(const uint8_t* const* rows, int64_t columns, const Word& word, const Place& place,
               uint8_t* tile) {
  const int64_t words = RoundUp(columns, kTileColumns) * kBits / 32;
  const int64_t whole_bytes = columns * kBits / 8, rest_bits = columns * kBits % 8;
  int64_t w = 0;
  for (; w * 4 + kChunk <= whole_bytes; w += kChunkWords) {
    PackChunk(rows, w * 4, word, place, w, kChunkWords, tile);
  }
  for (; w < words; w += kChunkWords) {
    alignas(16) uint8_t padded[kTileLanes][kChunk] = {};
    const uint8_t* lanes[kTileLanes];
    const int64_t bytes = std::clamp<int64_t>(whole_bytes - w * 4, 0, kChunk);
    const bool has_rest = rest_bits != 0 && bytes < kChunk && w * 4 <= whole_bytes;
    for (int64_t lane = 0; lane < kTileLanes; ++lane) {
      std::memcpy(padded[lane], rows[lane] + std::min(w * 4, whole_bytes),
                  static_cast<size_t>(bytes));
      if (has_rest) {
        padded[lane][bytes] = rows[lane][whole_bytes] & static_cast<uint8_t>((1 << rest_bits) - 1);
      }
      lanes[lane] = padded[lane];
    }
    PackChunk(lanes, 0, word, place, w, std::min(kChunkWords, words - w), tile);
  }
}

}  // namespace

void PackTileTarget(DType type, const uint8_t* const* codes, const uint8_t* const* high,
                    int64_t columns, uint8_t* tile) {
  switch (type) {
    case DType::kI4:
      return PackPlane<4>(codes, columns, Nibbles<0x88888888u>(), Consecutive(), tile);
    case DType::kE3M2:
    case DType::kE2M3:
      PackPlane<4>(codes, columns, Nibbles<0>(), SixBitLow(), tile);
      return PackPlane<2>(high, columns, Pairs(), SixBitHigh(), tile);
    case DType::kI8:
      return PackPlane<8>(codes, columns, Bytes<0x80808080u>(), Consecutive(), tile);
    case DType::kE4M3:
    case DType::kE5M2: return PackPlane<8>(codes, columns, Bytes<0>(), Consecutive(), tile);
    case DType::kF16:
    case DType::kBF16: return PackPlane<16>(codes, columns, Bytes<0>(), Consecutive(), tile);
    default: return PackPlane<32>(codes, columns, Bytes<0>(), Consecutive(), tile);
  }
}

}  // namespace HWY_NAMESPACE
}  // namespace nibble
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace nibble {

HWY_EXPORT(PackTileTarget);

void PackTile(DType type, const uint8_t* const codes[kTileLanes],
              const uint8_t* const high[kTileLanes], int64_t columns, uint8_t* tile) {
  HWY_DYNAMIC_DISPATCH(PackTileTarget)(type, codes, high, columns, tile);
}

}  // namespace nibble
#endif
