// SPDX-License-Identifier: Apache-2.0
//
// Handlers made from a function of one lane. The loops over 32 lanes are plain, so that the
// compiler turns them into vector code.
#pragma once

#include <cstdint>
#include <cstring>

#include "kernels-cuda/emulator/machine.h"

namespace nibble::cuda::emulator {

// The destination may be one of the sources, lane for lane, which is no dependence between lanes.
#define NIBBLE_EMULATOR_LANES(statement)                                 \
  if (mask == kAllLanes) {                                               \
    _Pragma("GCC ivdep") for (int l = 0; l < kLanes; ++l) { statement; } \
  } else {                                                               \
    for (int l = 0; l < kLanes; ++l) {                                   \
      if ((mask >> l & 1) != 0) {                                        \
        statement;                                                       \
      }                                                                  \
    }                                                                    \
  }

template <class Op, class D, class A>
void RunUnary(Warp& warp, const Instruction& instruction, uint32_t mask) {
  D* d = warp.Reg<D>(instruction.d);
  const A* a = warp.Reg<A>(instruction.a);
  NIBBLE_EMULATOR_LANES(d[l] = Op::Run(a[l]))
}

template <class Op, class D, class A, class B = A>
void RunBinary(Warp& warp, const Instruction& instruction, uint32_t mask) {
  D* d = warp.Reg<D>(instruction.d);
  const A* a = warp.Reg<A>(instruction.a);
  const B* b = warp.Reg<B>(instruction.b);
  NIBBLE_EMULATOR_LANES(d[l] = Op::Run(a[l], b[l]))
}

template <class Op, class D, class A, class B = A, class C = D>
void RunTernary(Warp& warp, const Instruction& instruction, uint32_t mask) {
  D* d = warp.Reg<D>(instruction.d);
  const A* a = warp.Reg<A>(instruction.a);
  const B* b = warp.Reg<B>(instruction.b);
  const C* c = warp.Reg<C>(instruction.c);
  NIBBLE_EMULATOR_LANES(d[l] = Op::Run(a[l], b[l], c[l]))
}

template <class To, class From>
To Bits(const From& from) {
  static_assert(sizeof(To) == sizeof(From), "same width");
  To to;
  std::memcpy(&to, &from, sizeof(to));
  return to;
}

}  // namespace nibble::cuda::emulator
