// SPDX-License-Identifier: Apache-2.0
//
// Hopper's wgmma: products of a warpgroup (warps 4i .. 4i + 3), of which warp w has rows
// 16 (w % 4) .. + 15 of A and D.
//
//   D [64][N] = A [64][K] B [K][N] (+ D)     K: 32 bytes of elements
//   D       per 8 columns what mma.m16n8k has, one after the other: register 4j + 2h + c of lane
//           4g + t is row 8h + g, column 8j + 2t + c
//   A       in registers as mma.m16n8k has it, or in shared memory
//   B       in shared memory, K along the rows, which are B's columns (SharedMatrix)
//
// A product happens when its warp waits for its group, and no earlier: registers and shared memory
// are read then. Until then its registers are out of bounds for every other instruction, and its
// bytes of shared memory must not be written.

#include <cstdlib>

#include "kernels-cuda/emulator/decoder.h"
#include "kernels-cuda/emulator/lanes.h"
#include "kernels-cuda/emulator/matrix_elements.h"

namespace nibble::cuda::emulator {

namespace {

constexpr int kRowBytes = 32;  // of K that one instruction takes
constexpr int kWordBytes = 16;
constexpr uint32_t kNoLane = kLanes;  // an access that belongs to all lanes

// Of A and D.
int FirstRow(const Warp& warp) { return warp.index % kWarpgroupWarps * kM; }

// ---- operands ----------------------------------------------------------------------------------

SharedMatrix ReadDescriptor(Warp& warp, const Instruction& instruction, uint64_t descriptor,
                            int rows) {
  const Block& block = *warp.block;
  constexpr uint64_t kUnused = 0x3FF1'C000'C000'C000u;
  const auto field = [&](int bit) {
    return static_cast<uint32_t>(descriptor >> bit & 0x3FFF) * 16;
  };
  static constexpr uint32_t kPattern[] = {16, 128, 64, 32};
  const SharedMatrix matrix{field(0), field(16), field(32), kPattern[descriptor >> 62]};
  const auto fail = [&](const std::string& what) {
    char text[32];
    std::snprintf(text, sizeof(text), "0x%016llx", static_cast<unsigned long long>(descriptor));
    block.Fail(warp, &instruction, -1, "matrix descriptor " + std::string(text) + ": " + what);
  };
  if ((descriptor & kUnused) != 0) fail("bits that have no meaning are set");
  if ((descriptor >> 49 & 7) != 0) fail("the emulator does not know base offsets");
  const uint32_t pattern = 8 * matrix.row_bytes;
  if (matrix.row_bytes != 16) {
    const std::string boundary = " a boundary of " + std::to_string(pattern) + " bytes";
    // Eight rows begin at the boundary; from there, the start may have moved along K.
    if (matrix.start % pattern >= matrix.row_bytes) {
      fail("the first row does not begin at" + boundary);
    }
    if (matrix.start % matrix.row_bytes + kRowBytes > matrix.row_bytes) {
      fail("K leaves the swizzled rows of " + std::to_string(matrix.row_bytes) + " bytes");
    }
    if (rows > 8 && matrix.stride % pattern != 0) {
      fail("a stride of " + std::to_string(matrix.stride) + " bytes puts rows off" + boundary);
    }
  }
  return matrix;
}

// Runs visit(offset in shared memory) for each word of the matrix, which it checks.
template <class Visit>
void ForEachWord(Warp& warp, const Instruction& instruction, const SharedMatrix& matrix, int first,
                 int rows, const Visit& visit) {
  for (int row = first; row < first + rows; ++row) {
    for (uint32_t word = 0; word < 2; ++word) {
      visit(SharedOffset(warp, instruction, -1, matrix.At(static_cast<uint32_t>(row), word),
                         kWordBytes));
    }
  }
}

void BeginReading(Warp& warp, const Instruction& instruction, const SharedMatrix& matrix,
                  int first, int rows) {
  Block& block = *warp.block;
  ForEachWord(warp, instruction, matrix, first, rows, [&](uint32_t offset) {
    if (!block.checked) return;
    const std::string problem =
        block.shadow.BeginAsyncRead(warp, kNoLane, instruction.line, offset, kWordBytes);
    if (!problem.empty()) block.Fail(warp, &instruction, -1, problem);
  });
}

// Eight rows as floats, kK apart.
template <int kK>
void LoadRows(Warp& warp, const Instruction& instruction, const SharedMatrix& matrix, int first,
              Element e, float* to) {
  Block& block = *warp.block;
  for (uint32_t word = 0; word < 2; ++word) {
    uint32_t tile[kLanes];
    for (int row = 0; row < 8; ++row) {
      const uint32_t offset = matrix.At(static_cast<uint32_t>(first + row), word) -
                              static_cast<uint32_t>(kSharedBase);
      if (block.checked) {
        const std::string problem =
            block.shadow.EndAsyncRead(warp, instruction.line, offset, kWordBytes);
        if (!problem.empty()) block.Fail(warp, &instruction, -1, problem);
      }
      std::memcpy(&tile[row * 4], block.shared.data() + offset, kWordBytes);
    }
    Unpack(e, tile, to + static_cast<int>(word) * kK / 2, kK);
  }
}

// ---- products ----------------------------------------------------------------------------------

template <int kK>
void Multiply(Warp& warp, const WarpgroupProduct& product) {
  const Instruction& instruction = *product.instruction;
  const WarpgroupShape& shape = ShapeOf(instruction);
  const bool truncated =
      IsEight(shape.a) &&
      warp.block->launch->options.fp8_accumulation == Accumulation::kTruncated;
  alignas(64) float a[kM * kK], rows[kN * kK], b[kK * kN], sums[kM * kN];
  for (int r = 0; r < 4; ++r) {
    float* to = a + 8 * (r % 2) * kK + kK / 2 * (r / 2);
    if (shape.a_in_registers) {
      Unpack(shape.a, warp.Reg<uint32_t>(instruction.list[shape.accumulators() + r]), to, kK);
    } else if (r < 2) {
      LoadRows<kK>(warp, instruction, product.a, FirstRow(warp) + 8 * r, shape.a, to);
    }
  }
  if (shape.negate) {
    for (float& x : a) x = -x;
  }
  for (int first = 0; first < shape.n; first += kN) {
    LoadRows<kK>(warp, instruction, product.b, first, shape.b, rows);
    for (int n = 0; n < kN; ++n) {
      for (int k = 0; k < kK; ++k) b[k * kN + n] = rows[n * kK + k];
    }
    float* d[4];
    for (int r = 0; r < 4; ++r) d[r] = warp.Reg<float>(instruction.list[first / 2 + r]);
    for (int r = 0; r < 4; ++r) {
      for (int l = 0; l < kLanes; ++l)
        sums[8 * (r / 2) * kN + 2 * l + r % 2] = product.accumulate ? d[r][l] : 0;
    }
    if (truncated) {
      for (int m = 0; m < kM; ++m) {
        for (int n = 0; n < kN; ++n)
          sums[m * kN + n] = SumTruncated(a + m * kK, b + n, kK, sums[m * kN + n]);
      }
    } else {
      MultiplyAdd<float, kK>(a, b, sums);
    }
    for (int r = 0; r < 4; ++r) {
      for (int l = 0; l < kLanes; ++l) d[r][l] = sums[8 * (r / 2) * kN + 2 * l + r % 2];
    }
  }
  for (const int32_t f : shape.fragments) --warp.fragments[f].under_way;
}

void RunProduct(Warp& warp, const Instruction& instruction, uint32_t mask) {
  RequireConverged(warp, instruction, mask, true);
  Block& block = *warp.block;
  const WarpgroupShape& shape = ShapeOf(instruction);
  const uint64_t* b = warp.Reg<uint64_t>(instruction.b);
  const uint64_t* a = shape.a_in_registers ? b : warp.Reg<uint64_t>(instruction.a);
  uint32_t scale = warp.Pred(instruction.c);
  if (instruction.mode != 0) scale = ~scale;
  for (int l = 1; l < kLanes; ++l) {
    if (a[l] != a[0] || b[l] != b[0])
      block.Fail(warp, &instruction, l, "the lanes disagree about the matrix descriptor");
  }
  if (scale != 0 && scale != kAllLanes)
    block.Fail(warp, &instruction, -1, "the lanes disagree about scale-d");
  Agree(warp, instruction, a[0], b[0], scale != 0);
  WarpgroupProduct product{&instruction, warp.product_group, {}, {}, scale != 0};
  product.b = ReadDescriptor(warp, instruction, b[0], shape.n);
  if (!shape.a_in_registers)
    product.a = ReadDescriptor(warp, instruction, a[0], kWarpgroupWarps * kM);
  for (size_t i = 0; i < shape.fragments.size(); ++i) {
    const FragmentUse::Role role = static_cast<int>(i) < shape.accumulators()
                                       ? FragmentUse::Role::kAccumulator
                                       : FragmentUse::Role::kLeft;
    CheckOrder(warp, instruction, shape.fragments[i], role);
    FragmentUse& use = warp.fragments[shape.fragments[i]];
    use.role = role;
    use.product = &instruction;
    ++use.under_way;
  }
  if (!shape.a_in_registers)
    BeginReading(warp, instruction, product.a, FirstRow(warp), kM);
  BeginReading(warp, instruction, product.b, 0, shape.n);
  warp.products.push_back(product);
}

void RunFence(Warp& warp, const Instruction& instruction, uint32_t mask) {
  RequireConverged(warp, instruction, mask, true);
  Agree(warp, instruction, 0, 0, false);
  for (FragmentUse& use : warp.fragments) {
    use.ordered = true;
    if (use.under_way == 0) use.role = FragmentUse::Role::kNone;
  }
}

void RunCommit(Warp& warp, const Instruction& instruction, uint32_t mask) {
  RequireConverged(warp, instruction, mask, true);
  Agree(warp, instruction, 0, 0, false);
  ++warp.product_group;
}

void RunWait(Warp& warp, const Instruction& instruction, uint32_t mask) {
  RequireConverged(warp, instruction, mask, true);
  // All but the newest groups, and nothing that is not committed.
  const uint64_t left = static_cast<uint64_t>(instruction.immediate);
  while (!warp.products.empty() && warp.products.front().group + left < warp.product_group) {
    const WarpgroupProduct product = warp.products.front();
    warp.products.pop_front();
    switch (ShapeOf(*product.instruction).k) {
      case 8:
        Multiply<8>(warp, product);
        break;
      case 16:
        Multiply<16>(warp, product);
        break;
      default:
        Multiply<32>(warp, product);
        break;
    }
  }
}

// ---- decoding ----------------------------------------------------------------------------------

int64_t Immediate(Decoder& decoder, size_t i) {
  if (decoder.operand(i).kind != Operand::Kind::kInteger)
    decoder.Fail("operand " + std::to_string(i + 1) + " must be a constant");
  return static_cast<int64_t>(decoder.operand(i).integer);
}

// 1, or -1 for negated elements.
bool Negates(Decoder& decoder, size_t i) {
  const int64_t scale = Immediate(decoder, i);
  if (scale != 1 && scale != -1)
    decoder.Fail("operand " + std::to_string(i + 1) + " must be 1 or -1");
  return scale == -1;
}

void DecodeProduct(Decoder& decoder, Modifiers& modifiers, Instruction* instruction) {
  const std::string& size = decoder.statement().opcode[4];
  WarpgroupShape* shape = decoder.Extra<WarpgroupShape>();
  char rest;
  if (std::sscanf(size.c_str(), "m64n%dk%d%c", &shape->n, &shape->k, &rest) != 2 ||
      shape->n < 8 || shape->n > 256 || shape->n % 8 != 0) {
    modifiers.Unknown("shape " + size);
  }
  modifiers.Take(size);
  const std::string d = modifiers.TakeType(), a = modifiers.TakeType(), b = modifiers.TakeType();
  modifiers.Finish();
  shape->name = size + "." + d;
  if (d != "f32") modifiers.Unknown("accumulator ." + d);
  const auto eight = [](Element e) { return e == Element::kE4M3 || e == Element::kE5M2; };
  if (!ElementOf(a, &shape->a) || !ElementOf(b, &shape->b) || IsInteger(shape->a) ||
      !(shape->a == shape->b || (eight(shape->a) && eight(shape->b))) ||
      (IsEight(shape->a) && !eight(shape->a)) || shape->k * WidthOf(shape->a) != 8 * kRowBytes) {
    modifiers.Unknown("shape " + size + " of ." + a + " and ." + b);
  }

  std::vector<int32_t> list = decoder.List(0, 32, true);
  if (static_cast<int>(list.size()) != shape->accumulators()) {
    decoder.Fail("the accumulator has " + std::to_string(list.size()) + " registers, not " +
                 std::to_string(shape->accumulators()));
  }
  shape->a_in_registers = decoder.operand(1).kind == Operand::Kind::kVector;
  if (shape->a_in_registers) {
    const std::vector<int32_t> left = decoder.List(1, 32, false);
    if (left.size() != 4)
      decoder.Fail("the left operand has " + std::to_string(left.size()) + " registers, not 4");
    list.insert(list.end(), left.begin(), left.end());
  } else {
    instruction->a = decoder.Source(1, 64);
  }
  for (size_t i = 0; i < list.size(); ++i) {
    shape->fragments.push_back(decoder.Fragment(list[i]));
    for (size_t j = 0; j < i && static_cast<int>(j) < shape->accumulators(); ++j) {
      if (list[i] == list[j]) decoder.Fail("a register of the accumulator is there twice");
    }
  }
  instruction->list = decoder.Keep(list);
  instruction->b = decoder.Source(2, 64);
  bool negated = false;
  instruction->c = decoder.SourcePredicate(decoder.operand(3), &negated);
  instruction->mode = negated;
  const bool negates_a = Negates(decoder, 4), negates_b = Negates(decoder, 5);
  shape->negate = negates_a != negates_b;
  // For 16-bit types, how shared matrices lie: one more operand for each.
  const size_t majors = WidthOf(shape->a) != 16 ? 0 : shape->a_in_registers ? 1 : 2;
  if (decoder.count() != 6 + majors)
    decoder.Fail(std::to_string(decoder.count()) + " operands, not " + std::to_string(6 + majors));
  for (size_t i = 6; i < 6 + majors; ++i) {
    if (Immediate(decoder, i) != 0)
      modifiers.Unknown("a matrix in shared memory that is not K-major");
  }
  instruction->extra = shape;
  instruction->run = RunProduct;
}

}  // namespace

bool DecodeWarpgroup(Decoder& decoder, Instruction* instruction) {
  const Statement& statement = decoder.statement();
  if (statement.opcode[0] != "wgmma") return false;
  Modifiers modifiers(statement);
  if (decoder.target() != "sm_90a") modifiers.Unknown("for ." + decoder.target() + ", not sm_90a");
  const std::string action =
      modifiers.TakeOf({"mma_async", "fence", "commit_group", "wait_group"});
  if (action.empty() || !modifiers.Take("sync") || !modifiers.Take("aligned")) modifiers.Unknown();
  if (action == "mma_async") {
    if (statement.opcode.size() < 5) modifiers.Unknown("no shape");
    DecodeProduct(decoder, modifiers, instruction);
    return true;
  }
  modifiers.Finish();
  if (action == "wait_group") {
    instruction->immediate = Immediate(decoder, 0);
    if (instruction->immediate < 0) decoder.Fail("a negative number of groups");
  }
  instruction->run = action == "fence"          ? RunFence
                     : action == "commit_group" ? RunCommit
                                                : RunWait;
  return true;
}

}  // namespace nibble::cuda::emulator
