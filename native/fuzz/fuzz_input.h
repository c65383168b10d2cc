// SPDX-License-Identifier: Apache-2.0
//
// Decisions and memory for a fuzz target, taken from the bytes of one input.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <limits>
#include <memory>
#include <vector>

#include "nibble/nibble.h"

namespace nibble::fuzz {

// Reads decisions from the front of the input; zeros once it is used up.
class Input {
 public:
  Input(const uint8_t* data, size_t size) : data_(data), size_(size) {}

  bool empty() const { return size_ == 0; }
  uint8_t Byte() {
    if (size_ == 0) return 0;
    --size_;
    return *data_++;
  }
  // 0..n-1, n <= 256.
  int Below(int n) { return Byte() % n; }
  // True about once in n.
  bool OneIn(int n) { return Byte() % n == n - 1; }
  template <class T>
  T Pick(std::initializer_list<T> list) {
    return list.begin()[Below(static_cast<int>(list.size()))];
  }
  float Float() {
    switch (Below(24)) {
      case 0: return 0;
      case 1: return std::numeric_limits<float>::infinity();
      case 2: return std::numeric_limits<float>::quiet_NaN();
      case 3: return -1;
      default: return 1e-5f * static_cast<float>(1 + Byte());
    }
  }
  // What breaks arithmetic that is not careful.
  int64_t Strange() {
    constexpr int64_t kMax = std::numeric_limits<int64_t>::max();
    return Pick<int64_t>({0, -1, 1, 2, 3, 15, 17, 255, 4096, 65535, int64_t{1} << 31,
                          (int64_t{1} << 31) - 1, int64_t{1} << 32, int64_t{1} << 59,
                          int64_t{1} << 60, int64_t{1} << 61, int64_t{1} << 62, kMax, kMax - 1,
                          -kMax, -kMax - 1});
  }

 private:
  const uint8_t* data_;
  size_t size_;
};

// Tensors whose memory is real and exactly as long as they say, unless they say less: what
// reads or writes past the end is found by AddressSanitizer. Remembers all bytes, to see
// whether a refused call has written any.
class Tensors {
 public:
  static constexpr int64_t kMaxBytes = 1 << 16;

  explicit Tensors(Input* in) : in_(in) {}

  // A tensor that mostly is as asked (cols < 0: a vector of rows); sometimes spoiled, or NULL
  // (often, where that is legal).
  const nb_tensor* Make(int32_t dtype, int64_t rows, int64_t cols, bool optional = false) {
    if (in_->OneIn(optional ? 3 : 64)) return nullptr;
    auto owned = std::make_unique<nb_tensor>();
    nb_tensor& t = *owned;
    t = {};
    t.struct_size = sizeof(nb_tensor);
    t.dtype = dtype;
    t.rank = cols < 0 ? 1 : 2;
    t.shape[0] = rows;
    if (cols >= 0) t.shape[1] = cols;
    t.strides[t.rank - 1] = 1;
    if (t.rank == 2) {
      t.strides[0] = cols;
      if (cols < kMaxBytes && in_->OneIn(4)) t.strides[0] += in_->Below(5);
    }
    const bool spoiled = in_->OneIn(24);
    if (spoiled) Spoil(&t);
    Attach(&t);
    if (spoiled && in_->OneIn(2)) SpoilMemory(&t);
    tensors_.push_back(std::move(owned));
    return tensors_.back().get();
  }

  void Remember() {
    for (Block& b : blocks_) b.before.assign(b.bytes.get(), b.bytes.get() + b.size);
  }
  bool Unchanged() const {
    for (const Block& b : blocks_) {
      if (b.size > 0 && std::memcmp(b.before.data(), b.bytes.get(), b.size) != 0) return false;
    }
    return true;
  }

 private:
  struct Block {
    std::unique_ptr<uint8_t[]> bytes;
    size_t size;
    std::vector<uint8_t> before;
  };

  static int64_t ElementBytes(int32_t dtype) {
    if (dtype == NB_F64) return 8;
    if (dtype == NB_F32 || dtype == NB_I32) return 4;
    return dtype == NB_F16 || dtype == NB_BF16 ? 2 : 1;
  }

  int64_t Number(int below) { return in_->OneIn(2) ? in_->Below(below) : in_->Strange(); }

  void Spoil(nb_tensor* t) {
    const int d = in_->Below(NB_MAX_RANK);
    switch (in_->Below(6)) {
      case 0: t->struct_size = in_->Strange(); break;
      case 1: t->dtype = static_cast<int32_t>(Number(14)); break;
      case 2: t->rank = static_cast<int32_t>(Number(6)); break;
      case 3: t->shape[d] = Number(50); break;
      case 4: t->strides[d] = Number(50); break;
      default: break;  // only the memory
    }
    // A huge number of equal rows is legal for an input and would only take long.
    if (t->strides[0] == 0 && t->shape[0] > 64) t->shape[0] = 64;
  }

  // The bytes that the shape needs, if they are few; or another tensor's memory.
  void Attach(nb_tensor* t) {
    // In F64, which cannot overflow here and is exact for all sizes that are kept.
    const bool matrix = t->rank == 2;
    const auto rows = static_cast<double>(matrix ? t->shape[0] : 1);
    const auto cols = static_cast<double>(matrix ? t->shape[1] : t->shape[0]);
    const double last_row = (rows - 1) * static_cast<double>(t->strides[0]);
    double needed = rows <= 0 || cols <= 0
                        ? 0
                        : (last_row + cols) * static_cast<double>(ElementBytes(t->dtype));
    if (needed < 0 || needed > static_cast<double>(kMaxBytes)) needed = in_->Below(256);
    if (!blocks_.empty() && in_->OneIn(20)) {
      const Block& b = blocks_[in_->Below(static_cast<int>(blocks_.size()))];
      t->data = b.bytes.get();
      t->byte_length = static_cast<int64_t>(b.size);
      return;
    }
    Block b;
    b.size = static_cast<size_t>(needed);
    b.bytes.reset(new uint8_t[b.size]);
    Fill(t->dtype, b.bytes.get(), b.size);
    t->data = b.bytes.get();
    t->byte_length = static_cast<int64_t>(b.size);
    blocks_.push_back(std::move(b));
  }

  // Small numbers mostly, so that calls go far; from a seed, as an input has few bytes.
  void Fill(int32_t dtype, uint8_t* to, size_t size) {
    const uint8_t kind = in_->Byte();
    uint32_t state = 0x9E3779B9u * (in_->Byte() + 1u);
    const auto next = [&] {
      state = state * 1664525u + 1013904223u;
      return state >> 8;
    };
    if (kind % 16 == 15) {  // any bits: NaN and infinity among them
      for (size_t i = 0; i < size; ++i) to[i] = static_cast<uint8_t>(next());
      return;
    }
    for (size_t i = 0; i + 4 <= size && dtype == NB_F32; i += 4) {
      const float v = static_cast<float>(next() % 2001) * 1e-3f - (kind % 2 ? 0.0f : 1.0f);
      std::memcpy(to + i, &v, 4);
    }
    for (size_t i = 0; i + 4 <= size && dtype == NB_I32; i += 4) {
      const auto v = static_cast<int32_t>(next() % (kind % 16 == 14 ? 100 : 8));
      std::memcpy(to + i, &v, 4);
    }
    if (dtype == NB_F32 || dtype == NB_I32) return;
    const bool halves = dtype == NB_F16 || dtype == NB_BF16;
    for (size_t i = 0; i < size; ++i) {
      to[i] = static_cast<uint8_t>(halves && i % 2 == 1 ? 0x3C : dtype == NB_POW2 ? next() % 6
                                                                                  : next() % 0x78);
    }
  }

  void SpoilMemory(nb_tensor* t) {
    switch (in_->Below(4)) {
      case 0: t->data = nullptr; break;
      case 1: t->byte_length = -1 - in_->Below(2); break;
      case 2:
        if (t->byte_length > 0) --t->byte_length;
        break;
      default:
        if (t->byte_length > 0) {
          t->data = static_cast<uint8_t*>(t->data) + 1;
          --t->byte_length;
        }
    }
  }

  Input* in_;
  std::vector<Block> blocks_;
  std::vector<std::unique_ptr<nb_tensor>> tensors_;
};

}  // namespace nibble::fuzz
