// SPDX-License-Identifier: Apache-2.0
//
// mma.sync, ldmatrix, stmatrix and movmatrix.
//
// With P elements in a register of 32 bits (matrix_elements.h):
//   A of m16n8k: register r = rows 8 (r % 2).., columns 4P (r / 2)..
//   B:           register r = columns n 0..7 as rows, k = 4P r..
//   C in 32 bits: registers 2h, 2h + 1 = row 8h + g, columns 2t, 2t + 1
//   C in F16:    register h = rows 8h.., columns 2t, 2t + 1

#include <algorithm>

#include "kernels-cuda/emulator/decoder.h"
#include "kernels-cuda/emulator/lanes.h"
#include "kernels-cuda/emulator/matrix_elements.h"
#include "kernels-cuda/emulator/small_floats.h"

namespace nibble::cuda::emulator {

namespace {

struct Shape {
  Element a, b;
  int k;
  bool half_accumulator = false, half_c = false;
  bool saturate = false;
  bool small = false;  // FP8 and below: their units accumulate in fewer bits
  int a_registers, b_registers;
};

void UnpackIntegers(Element e, const uint32_t* lanes, int32_t* out, int stride) {
  if (e == Element::kS8 || e == Element::kU8) {
    uint8_t codes[128];
    std::memcpy(codes, lanes, sizeof(codes));
    for (int i = 0; i < 128; ++i) {
      out[i / 16 * stride + i % 16] = e == Element::kS8 ? static_cast<int8_t>(codes[i]) : codes[i];
    }
    return;
  }
  for (int i = 0; i < 256; ++i) {
    const uint32_t code = lanes[i / 8] >> 4 * (i % 8) & 0xF;
    out[i / 32 * stride + i % 32] =
        e == Element::kS4 ? static_cast<int32_t>(code ^ 8) - 8 : static_cast<int32_t>(code);
  }
}

void RequireZeroPadding(Warp& warp, const Instruction& instruction, Element e,
                        const uint32_t* lanes) {
  const uint32_t padding = e == Element::kE3M2 || e == Element::kE2M3 ? 0xC0C0C0C0u
                           : e == Element::kE2M1                      ? 0xC3C3C3C3u
                                                                      : 0;
  for (int l = 0; l < kLanes; ++l) {
    if ((lanes[l] & padding) != 0) {
      warp.block->Fail(warp, &instruction, l, "bits beside a code below 8 bits are not zero");
    }
  }
}

template <int kK>
void RunFloat(Warp& warp, const Instruction& instruction, uint32_t mask) {
  RequireConverged(warp, instruction, mask, true);
  const Shape& shape = *static_cast<const Shape*>(instruction.extra);
  // list: d, a, b, c
  const int results = shape.half_accumulator ? 2 : 4;
  const int32_t* d = instruction.list;
  const int32_t* ra = d + results;
  const int32_t* rb = ra + shape.a_registers;
  const int32_t* rc = rb + shape.b_registers;
  alignas(64) float a[kM * kK], rows[kN * kK], b[kK * kN], sums[kM * kN];
  const int step = 128 / WidthOf(shape.a);  // columns of one register's tile
  for (int r = 0; r < shape.a_registers; ++r) {
    const uint32_t* lanes = warp.Reg<uint32_t>(ra[r]);
    if (shape.small) RequireZeroPadding(warp, instruction, shape.a, lanes);
    Unpack(shape.a, lanes, a + 8 * (r % 2) * kK + step * (r / 2), kK);
  }
  for (int r = 0; r < shape.b_registers; ++r) {
    const uint32_t* lanes = warp.Reg<uint32_t>(rb[r]);
    if (shape.small) RequireZeroPadding(warp, instruction, shape.b, lanes);
    Unpack(shape.b, lanes, rows + step * r, kK);
  }
  for (int n = 0; n < kN; ++n) {
    for (int k = 0; k < kK; ++k) b[k * kN + n] = rows[n * kK + k];
  }
  if (shape.half_c) {
    for (int h = 0; h < 2; ++h) {
      const uint32_t* lanes = warp.Reg<uint32_t>(rc[h]);
      for (int l = 0; l < kLanes; ++l) {
        sums[8 * h * kN + 2 * l] = HalfToFloat(static_cast<uint16_t>(lanes[l]));
        sums[8 * h * kN + 2 * l + 1] = HalfToFloat(static_cast<uint16_t>(lanes[l] >> 16));
      }
    }
  } else {
    for (int r = 0; r < 4; ++r) {
      const float* lanes = warp.Reg<float>(rc[r]);
      for (int l = 0; l < kLanes; ++l) sums[8 * (r / 2) * kN + 2 * l + r % 2] = lanes[l];
    }
  }
  if (shape.small && warp.block->launch->options.fp8_accumulation == Accumulation::kTruncated) {
    for (int m = 0; m < kM; ++m) {
      for (int n = 0; n < kN; ++n)
        sums[m * kN + n] = SumTruncated(a + m * kK, b + n, kK, sums[m * kN + n]);
    }
  } else {
    MultiplyAdd<float, kK>(a, b, sums);
  }
  if (shape.half_accumulator) {
    for (int h = 0; h < 2; ++h) {
      uint32_t* lanes = warp.Reg<uint32_t>(d[h]);
      for (int l = 0; l < kLanes; ++l) {
        lanes[l] = FloatToHalf(sums[8 * h * kN + 2 * l]) |
                   static_cast<uint32_t>(FloatToHalf(sums[8 * h * kN + 2 * l + 1])) << 16;
      }
    }
    return;
  }
  for (int r = 0; r < 4; ++r) {
    float* lanes = warp.Reg<float>(d[r]);
    for (int l = 0; l < kLanes; ++l) lanes[l] = sums[8 * (r / 2) * kN + 2 * l + r % 2];
  }
}

template <int kK>
void RunInteger(Warp& warp, const Instruction& instruction, uint32_t mask) {
  RequireConverged(warp, instruction, mask, true);
  const Shape& shape = *static_cast<const Shape*>(instruction.extra);
  const int32_t* d = instruction.list;
  const int32_t* ra = d + 4;
  const int32_t* rb = ra + shape.a_registers;
  const int32_t* rc = rb + shape.b_registers;
  alignas(64) int32_t a[kM * kK], rows[kN * kK], b[kK * kN], sums[kM * kN];
  const int step = 128 / WidthOf(shape.a);
  for (int r = 0; r < shape.a_registers; ++r)
    UnpackIntegers(shape.a, warp.Reg<uint32_t>(ra[r]), a + 8 * (r % 2) * kK + step * (r / 2), kK);
  for (int r = 0; r < shape.b_registers; ++r)
    UnpackIntegers(shape.b, warp.Reg<uint32_t>(rb[r]), rows + step * r, kK);
  for (int n = 0; n < kN; ++n) {
    for (int k = 0; k < kK; ++k) b[k * kN + n] = rows[n * kK + k];
  }
  // The products of one instruction fit in 32 bits; C is added in 64.
  std::fill_n(sums, kM * kN, 0);
  MultiplyAdd<int32_t, kK>(a, b, sums);
  for (int r = 0; r < 4; ++r) {
    const int32_t* c = warp.Reg<int32_t>(rc[r]);
    int32_t* lanes = warp.Reg<int32_t>(d[r]);
    for (int l = 0; l < kLanes; ++l) {
      const int64_t sum = static_cast<int64_t>(sums[8 * (r / 2) * kN + 2 * l + r % 2]) + c[l];
      lanes[l] = shape.saturate
                     ? static_cast<int32_t>(std::clamp<int64_t>(sum, INT32_MIN, INT32_MAX))
                     : static_cast<int32_t>(static_cast<uint32_t>(sum));
    }
  }
}

// ---- ldmatrix and stmatrix ----------------------------------------------------------------------

// option: number of 8 x 8 matrices; target: 1 if transposed. Lanes 8i .. 8i + 7 give the addresses
// of the 16-byte rows of matrix i.
template <bool kStore>
void RunMatrixMove(Warp& warp, const Instruction& instruction, uint32_t mask) {
  RequireConverged(warp, instruction, mask, true);
  Block& block = *warp.block;
  uint64_t addresses[kLanes];
  Addresses(warp, instruction, addresses);
  for (int i = 0; i < instruction.option; ++i) {
    uint32_t* lanes = warp.Reg<uint32_t>(instruction.list[i]);
    uint16_t tile[8][8];
    uint8_t* rows[8];
    for (int row = 0; row < 8; ++row) {
      const int lane = 8 * i + row;
      uint64_t address = addresses[lane];
      if (instruction.space == kGenericSpace) address -= kSharedWindow;
      const uint32_t offset = SharedOffset(warp, instruction, lane, address, 16);
      if (block.checked) {
        const std::string race = block.shadow.Touch(
            warp, lane, instruction.line, offset, 16,
            kStore ? SharedShadow::Kind::kWrite : SharedShadow::Kind::kCollectiveRead);
        if (!race.empty()) block.Fail(warp, &instruction, lane, race);
      }
      rows[row] = block.shared.data() + offset;
      if (!kStore) std::memcpy(tile[row], rows[row], 16);
    }
    const bool transposed = instruction.target != 0;
    for (int l = 0; l < kLanes; ++l) {
      const int r = l / 4, c = 2 * (l % 4);
      if (kStore) {
        const uint16_t low = static_cast<uint16_t>(lanes[l]),
                       high = static_cast<uint16_t>(lanes[l] >> 16);
        (transposed ? tile[c][r] : tile[r][c]) = low;
        (transposed ? tile[c + 1][r] : tile[r][c + 1]) = high;
      } else {
        const uint32_t low = transposed ? tile[c][r] : tile[r][c];
        const uint32_t high = transposed ? tile[c + 1][r] : tile[r][c + 1];
        lanes[l] = low | high << 16;
      }
    }
    if (kStore) {
      for (int row = 0; row < 8; ++row) std::memcpy(rows[row], tile[row], 16);
    }
  }
}

void RunTranspose(Warp& warp, const Instruction& instruction, uint32_t mask) {
  RequireConverged(warp, instruction, mask, true);
  uint16_t from[8][8], to[8][8];
  std::memcpy(from, warp.Reg<uint32_t>(instruction.a), sizeof(from));
  for (int r = 0; r < 8; ++r) {
    for (int c = 0; c < 8; ++c) to[c][r] = from[r][c];
  }
  std::memcpy(warp.Reg<uint32_t>(instruction.d), to, sizeof(to));
}

bool DecodeMma(Decoder& decoder, Instruction* instruction) {
  const Statement& statement = decoder.statement();
  Modifiers modifiers(statement);
  if (!modifiers.Take("sync") || !modifiers.Take("aligned") || !modifiers.Take("row") ||
      !modifiers.Take("col"))
    modifiers.Unknown();
  const std::string size =
      modifiers.TakeOf({"m16n8k4", "m16n8k8", "m16n8k16", "m16n8k32", "m16n8k64"});
  if (size.empty()) modifiers.Unknown();
  Shape* shape = decoder.Extra<Shape>();
  const bool f8f6f4 = modifiers.Take("kind::f8f6f4");
  shape->saturate = modifiers.Take("satfinite");
  const std::string d = modifiers.TakeType(), a = modifiers.TakeType(), b = modifiers.TakeType(),
                    c = modifiers.TakeType();
  modifiers.Finish();
  if (!ElementOf(a, &shape->a) || !ElementOf(b, &shape->b))
    modifiers.Unknown("types ." + a + " and ." + b);
  shape->k = std::atoi(size.c_str() + 6);
  const bool integer = IsInteger(shape->a);
  shape->small = IsEight(shape->a);
  const int width = WidthOf(shape->a);
  const bool six = shape->a == Element::kE3M2 || shape->a == Element::kE2M3 ||
                   shape->a == Element::kE2M1 || shape->b == Element::kE3M2 ||
                   shape->b == Element::kE2M3 || shape->b == Element::kE2M1;
  if (width != WidthOf(shape->b) || integer != IsInteger(shape->b) ||
      shape->small != IsEight(shape->b))
    modifiers.Unknown("types ." + a + " and ." + b);
  if (!shape->small && !integer && shape->a != shape->b)
    modifiers.Unknown("types ." + a + " and ." + b);
  if (six && !f8f6f4) modifiers.Unknown("." + a + " and ." + b + " need kind::f8f6f4");
  if (f8f6f4 && (!shape->small || shape->k != 32)) modifiers.Unknown("kind::f8f6f4");
  const int per_register = 128 / width;  // of k
  shape->a_registers = std::max(1, shape->k / per_register) * 2;
  shape->b_registers = shape->k / per_register;
  if (shape->b_registers != 1 && shape->b_registers != 2)
    modifiers.Unknown("shape " + size + " of ." + a);
  if (integer) {
    if (d != "s32" || c != "s32") modifiers.Unknown("accumulator ." + d);
  } else {
    if ((d != "f32" && d != "f16") || (c != "f32" && c != "f16") || (shape->saturate))
      modifiers.Unknown("accumulator ." + d);
    shape->half_accumulator = d == "f16";
    shape->half_c = c == "f16";
    if (shape->half_accumulator && (shape->a == Element::kBF16 || shape->a == Element::kTF32))
      modifiers.Unknown("accumulator .f16");
  }
  std::vector<int32_t> list = decoder.List(0, 32, true);
  const auto append = [&](size_t i, int expected) {
    const std::vector<int32_t> more = decoder.List(i, 32, false);
    if (static_cast<int>(more.size()) != expected)
      decoder.Fail("operand " + std::to_string(i + 1) + " has " + std::to_string(more.size()) +
                   " registers, not " + std::to_string(expected));
    list.insert(list.end(), more.begin(), more.end());
  };
  if (static_cast<int>(list.size()) != (shape->half_accumulator ? 2 : 4))
    decoder.Fail("the result has " + std::to_string(list.size()) + " registers");
  append(1, shape->a_registers);
  append(2, shape->b_registers);
  append(3, shape->half_c ? 2 : 4);
  instruction->list = decoder.Keep(list);
  instruction->extra = shape;
  switch (shape->k) {
    case 4:
      instruction->run = integer ? nullptr : RunFloat<4>;
      break;
    case 8:
      instruction->run = integer ? nullptr : RunFloat<8>;
      break;
    case 16:
      instruction->run = integer ? RunInteger<16> : RunFloat<16>;
      break;
    case 32:
      instruction->run = integer ? RunInteger<32> : RunFloat<32>;
      break;
    default:
      instruction->run = integer ? RunInteger<64> : nullptr;
      break;
  }
  if (instruction->run == nullptr) modifiers.Unknown("shape " + size + " of ." + a);
  return true;
}

}  // namespace

bool DecodeMatrix(Decoder& decoder, Instruction* instruction) {
  const Statement& statement = decoder.statement();
  const std::string& name = statement.opcode[0];
  if (name == "mma") return DecodeMma(decoder, instruction);
  if (name != "ldmatrix" && name != "stmatrix" && name != "movmatrix") return false;
  Modifiers modifiers(statement);
  if (!modifiers.Take("sync") || !modifiers.Take("aligned") || !modifiers.Take("m8n8"))
    modifiers.Unknown();
  const bool transposed = modifiers.Take("trans");
  if (!modifiers.Take("b16")) modifiers.Unknown("not .b16");
  if (name == "movmatrix") {
    if (!transposed) modifiers.Unknown();
    modifiers.Finish();
    instruction->d = decoder.Destination(0, 32);
    instruction->a = decoder.Source(1, 32);
    instruction->run = RunTranspose;
    return true;
  }
  const std::string count = modifiers.TakeOf({"x1", "x2", "x4"});
  if (count.empty()) modifiers.Unknown();
  instruction->space = TakeSpace(&modifiers);
  modifiers.Finish();
  if (instruction->space != kGenericSpace &&
      instruction->space != static_cast<uint8_t>(StateSpace::kShared))
    modifiers.Unknown();
  const bool store = name == "stmatrix";
  const std::vector<int32_t> list = decoder.List(store ? 1 : 0, 32, !store);
  instruction->option = static_cast<uint8_t>(count[1] - '0');
  if (list.size() != instruction->option)
    decoder.Fail("." + count + " with " + std::to_string(list.size()) + " registers");
  instruction->list = decoder.Keep(list);
  instruction->target = transposed;
  decoder.Address(store ? 0 : 1, instruction);
  instruction->run = store ? RunMatrixMove<true> : RunMatrixMove<false>;
  return true;
}

}  // namespace nibble::cuda::emulator
