// SPDX-License-Identifier: Apache-2.0
//
// atom and red on global and shared memory. Blocks run on several host threads, so that these are
// real atomics of the host.

#include <algorithm>

#include "kernels-cuda/emulator/decoder.h"
#include "kernels-cuda/emulator/lanes.h"
#include "kernels-cuda/emulator/small_floats.h"

namespace nibble::cuda::emulator {

namespace {

struct Add {
  template <class T>
  static T Run(T old, T b, T) {
    return static_cast<T>(old + b);
  }
};
struct Minimum {
  template <class T>
  static T Run(T old, T b, T) {
    return b < old ? b : old;
  }
};
struct Maximum {
  template <class T>
  static T Run(T old, T b, T) {
    return b > old ? b : old;
  }
};
struct And {
  template <class T>
  static T Run(T old, T b, T) {
    return old & b;
  }
};
struct Or {
  template <class T>
  static T Run(T old, T b, T) {
    return old | b;
  }
};
struct Xor {
  template <class T>
  static T Run(T old, T b, T) {
    return old ^ b;
  }
};
struct Exchange {
  template <class T>
  static T Run(T, T b, T) {
    return b;
  }
};
struct CompareAndSwap {
  template <class T>
  static T Run(T old, T b, T c) {
    return old == b ? c : old;
  }
};
struct Increment {
  template <class T>
  static T Run(T old, T b, T) {
    return old >= b ? T(0) : static_cast<T>(old + 1);
  }
};
struct Decrement {
  template <class T>
  static T Run(T old, T b, T) {
    return old == 0 || old > b ? b : static_cast<T>(old - 1);
  }
};

// Stored type S, value type V of the same width.
template <class Op, class S, class V>
void RunAtomic(Warp& warp, const Instruction& instruction, uint32_t mask) {
  uint8_t* places[kLanes];
  Resolve(warp, instruction, mask, sizeof(S), Access::kAtomic, places);
  const S* b = warp.Reg<S>(instruction.b);
  const S* c = instruction.c >= 0 ? warp.Reg<S>(instruction.c) : b;
  S* d = instruction.d >= 0 ? warp.Reg<S>(instruction.d) : nullptr;
  S results[kLanes] = {};
  // The lanes' order is not defined: it starts anywhere.
  const int first = static_cast<int>(warp.random() % kLanes);
  for (int i = 0; i < kLanes; ++i) {
    const int l = (first + i) % kLanes;
    if ((mask >> l & 1) == 0) continue;
    S* place = reinterpret_cast<S*>(places[l]);
    S old = __atomic_load_n(place, __ATOMIC_RELAXED);
    S desired;
    do {
      desired = Bits<S>(Op::template Run<V>(Bits<V>(old), Bits<V>(b[l]), Bits<V>(c[l])));
    } while (!__atomic_compare_exchange_n(place, &old, desired, false, __ATOMIC_ACQ_REL,
                                          __ATOMIC_RELAXED));
    results[l] = old;
  }
  if (d != nullptr) {
    NIBBLE_EMULATOR_LANES(d[l] = results[l])
  }
}

struct AddHalfPair {
  template <class T>
  static T Run(T old, T b, T) {
    const auto one = [](uint32_t x, uint32_t y) {
      return FloatToHalf(HalfToFloat(static_cast<uint16_t>(x)) +
                         HalfToFloat(static_cast<uint16_t>(y)));
    };
    return one(old & 0xFFFF, b & 0xFFFF) | static_cast<uint32_t>(one(old >> 16, b >> 16)) << 16;
  }
};
struct AddBrainPair {
  template <class T>
  static T Run(T old, T b, T) {
    const auto one = [](uint32_t x, uint32_t y) {
      return FloatToBrain(BrainToFloat(static_cast<uint16_t>(x)) +
                          BrainToFloat(static_cast<uint16_t>(y)));
    };
    return one(old & 0xFFFF, b & 0xFFFF) | static_cast<uint32_t>(one(old >> 16, b >> 16)) << 16;
  }
};

template <class S, class V>
Handler PickInteger(const std::string& name) {
  if (name == "add") return RunAtomic<Add, S, V>;
  if (name == "min") return RunAtomic<Minimum, S, V>;
  if (name == "max") return RunAtomic<Maximum, S, V>;
  if (name == "and") return RunAtomic<And, S, V>;
  if (name == "or") return RunAtomic<Or, S, V>;
  if (name == "xor") return RunAtomic<Xor, S, V>;
  if (name == "exch") return RunAtomic<Exchange, S, V>;
  if (name == "cas") return RunAtomic<CompareAndSwap, S, V>;
  if (name == "inc") return RunAtomic<Increment, S, V>;
  if (name == "dec") return RunAtomic<Decrement, S, V>;
  return nullptr;
}

Handler Pick(const std::string& type, const std::string& name) {
  if (type == "f32") return name == "add" ? RunAtomic<Add, uint32_t, float> : nullptr;
  if (type == "f64") return name == "add" ? RunAtomic<Add, uint64_t, double> : nullptr;
  if (type == "f16x2") return name == "add" ? RunAtomic<AddHalfPair, uint32_t, uint32_t> : nullptr;
  if (type == "bf16x2")
    return name == "add" ? RunAtomic<AddBrainPair, uint32_t, uint32_t> : nullptr;
  if (type == "s32") return PickInteger<uint32_t, int32_t>(name);
  if (type == "s64") return PickInteger<uint64_t, int64_t>(name);
  if (type == "u32" || type == "b32") return PickInteger<uint32_t, uint32_t>(name);
  if (type == "u64" || type == "b64") return PickInteger<uint64_t, uint64_t>(name);
  if (type == "b16" && (name == "cas" || name == "exch"))
    return PickInteger<uint16_t, uint16_t>(name);
  return nullptr;
}

}  // namespace

bool DecodeAtomic(Decoder& decoder, Instruction* instruction) {
  const Statement& statement = decoder.statement();
  const std::string& name = statement.opcode[0];
  if (name != "atom" && name != "red") return false;
  Modifiers modifiers(statement);
  modifiers.TakeOf({"relaxed", "acquire", "release", "acq_rel"});
  modifiers.TakeOf({"cta", "gpu", "sys", "cluster"});
  instruction->space = TakeSpace(&modifiers);
  const std::string operation =
      modifiers.TakeOf({"add", "min", "max", "and", "or", "xor", "exch", "cas", "inc", "dec"});
  modifiers.Take("noftz");
  const std::string type = modifiers.TakeType();
  modifiers.Finish();
  const int bits = BitsOf(type);
  size_t i = 0;
  if (name == "atom") instruction->d = decoder.Destination(i++, bits);
  decoder.Address(i++, instruction);
  instruction->b = decoder.Source(i++, bits);
  if (operation == "cas") instruction->c = decoder.Source(i++, bits);
  instruction->run = Pick(type, operation);
  if (instruction->run == nullptr) modifiers.Unknown("." + operation + "." + type);
  return true;
}

}  // namespace nibble::cuda::emulator
