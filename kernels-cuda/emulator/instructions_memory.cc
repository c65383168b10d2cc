// SPDX-License-Identifier: Apache-2.0
//
// ld, st, prefetch and fences.

#include "kernels-cuda/emulator/decoder.h"
#include "kernels-cuda/emulator/lanes.h"

namespace nibble::cuda::emulator {

namespace {

// Memory elements of type M in a vector of n, registers of type R (M's value extended).
template <class M, class R>
void RunLoad(Warp& warp, const Instruction& instruction, uint32_t mask) {
  const int n = instruction.option;
  uint8_t* from[kLanes];
  Resolve(warp, instruction, mask, static_cast<int>(sizeof(M)) * n, Access::kRead, from);
  for (int v = 0; v < n; ++v) {
    R* d = warp.Reg<R>(instruction.list[v]);
    NIBBLE_EMULATOR_LANES(M value; std::memcpy(&value, from[l] + v * sizeof(M), sizeof(M));
                          d[l] = static_cast<R>(value))
  }
}

template <class M, class R>
void RunStore(Warp& warp, const Instruction& instruction, uint32_t mask) {
  const int n = instruction.option;
  uint8_t* to[kLanes];
  Resolve(warp, instruction, mask, static_cast<int>(sizeof(M)) * n, Access::kWrite, to);
  for (int v = 0; v < n; ++v) {
    const R* s = warp.Reg<R>(instruction.list[v]);
    NIBBLE_EMULATOR_LANES(const M value = static_cast<M>(s[l]);
                          std::memcpy(to[l] + v * sizeof(M), &value, sizeof(M)))
  }
}

// A kernel's parameters lie in one block that all lanes read.
template <class M, class R>
void RunLoadParameter(Warp& warp, const Instruction& instruction, uint32_t mask) {
  const int n = instruction.option;
  const uint8_t* block = warp.block->launch->parameters.data();
  uint64_t addresses[kLanes];
  Addresses(warp, instruction, addresses);
  for (int l = 0; l < kLanes; ++l) {
    if ((mask >> l & 1) == 0) continue;
    const uint64_t size = warp.block->launch->parameters.size();
    if (addresses[l] % (sizeof(M) * n) != 0 || addresses[l] > size ||
        sizeof(M) * n > size - addresses[l]) {
      warp.block->Fail(warp, &instruction, l, "parameter read outside the parameters");
    }
  }
  for (int v = 0; v < n; ++v) {
    R* d = warp.Reg<R>(instruction.list[v]);
    NIBBLE_EMULATOR_LANES(M value;
                          std::memcpy(&value, block + addresses[l] + v * sizeof(M), sizeof(M));
                          d[l] = static_cast<R>(value))
  }
}

template <class M, class R>
Handler Pick(bool store, bool parameter) {
  return store ? RunStore<M, R> : parameter ? RunLoadParameter<M, R> : RunLoad<M, R>;
}

template <class M>
Handler PickRegister(int bits, bool store, bool parameter) {
  switch (bits) {
    case 16:
      return Pick<M, uint16_t>(store, parameter);
    case 32:
      return Pick<M, uint32_t>(store, parameter);
    case 64:
      return Pick<M, uint64_t>(store, parameter);
    default:
      return nullptr;
  }
}

Handler PickType(const std::string& type, int bits, bool store, bool parameter) {
  const bool is_signed = type[0] == 's';
  switch (BitsOf(type)) {
    case 8:
      return is_signed ? PickRegister<int8_t>(bits, store, parameter)
                       : PickRegister<uint8_t>(bits, store, parameter);
    case 16:
      return is_signed ? PickRegister<int16_t>(bits, store, parameter)
                       : PickRegister<uint16_t>(bits, store, parameter);
    case 32:
      return is_signed ? PickRegister<int32_t>(bits, store, parameter)
                       : PickRegister<uint32_t>(bits, store, parameter);
    case 64:
      return PickRegister<uint64_t>(bits, store, parameter);
    default:
      return nullptr;
  }
}

// Where the launch's threads stand in an order, plain loops give it; a fence changes nothing, but
// for those between proxies.
void RunFence(Warp&, const Instruction&, uint32_t) {}

void RunPrefetch(Warp&, const Instruction&, uint32_t) {}

// Cache and ordering hints, none of which change a value.
void TakeHints(Modifiers* modifiers) {
  for (const char* hint : {"ca",
                           "cg",
                           "cs",
                           "lu",
                           "cv",
                           "wb",
                           "wt",
                           "nc",
                           "weak",
                           "relaxed",
                           "acquire",
                           "release",
                           "volatile",
                           "cta",
                           "gpu",
                           "sys",
                           "cluster",
                           "L1::evict_last",
                           "L1::evict_first",
                           "L1::no_allocate",
                           "L1::evict_normal",
                           "L1::evict_unchanged",
                           "L2::64B",
                           "L2::128B",
                           "L2::256B",
                           "L2::evict_last",
                           "L2::evict_first",
                           "L2::evict_normal"}) {
    modifiers->Take(hint);
  }
}

}  // namespace

uint8_t TakeSpace(Modifiers* modifiers) {
  const std::string space = modifiers->TakeOf({"global", "shared::cta", "shared", "local", "const",
                                               "param::entry", "param::func", "param"});
  if (space == "global") return static_cast<uint8_t>(StateSpace::kGlobal);
  if (space == "shared" || space == "shared::cta") return static_cast<uint8_t>(StateSpace::kShared);
  if (space == "local") return static_cast<uint8_t>(StateSpace::kLocal);
  if (space == "const") return static_cast<uint8_t>(StateSpace::kConst);
  if (!space.empty()) return static_cast<uint8_t>(StateSpace::kParam);
  return kGenericSpace;
}

bool DecodeMemory(Decoder& decoder, Instruction* instruction) {
  const Statement& statement = decoder.statement();
  const std::string& name = statement.opcode[0];
  Modifiers modifiers(statement);
  if (name == "membar" || name == "fence") {
    instruction->run = RunFence;
    if (modifiers.Take("proxy") && modifiers.Take("async")) {
      const std::string space = modifiers.TakeOf({"global", "shared::cta", "shared::cluster"});
      modifiers.Finish();
      if (space != "global") instruction->run = RunProxyFence;
    }
    return true;
  }
  if (name == "prefetch" || name == "prefetchu" || name == "applypriority" || name == "discard") {
    instruction->run = RunPrefetch;
    return true;
  }
  if (name != "ld" && name != "st" && name != "ldu") return false;
  const bool store = name == "st";
  instruction->space = TakeSpace(&modifiers);
  TakeHints(&modifiers);
  const std::string vector = modifiers.TakeOf({"v2", "v4", "v8"});
  const std::string type = modifiers.TakeType();
  modifiers.Finish();
  const int n = vector.empty() ? 1 : vector[1] - '0';
  const size_t value = store ? 1 : 0;
  const size_t address = store ? 0 : 1;
  // The register may be wider than the element; all of a vector's have one width.
  const Operand& values = decoder.operand(value);
  int bits = 0;
  const auto look = [&](const Operand& part) {
    if (part.kind == Operand::Kind::kName && decoder.RegisterBits(part.name) != 0)
      bits = decoder.RegisterBits(part.name);
  };
  if (values.kind == Operand::Kind::kVector) {
    for (const Operand& part : values.parts) look(part);
  } else {
    look(values);
  }
  if (bits == 0) bits = std::max(BitsOf(type), 16);
  if (bits < BitsOf(type)) decoder.Fail("a register narrower than the type");
  const std::vector<int32_t> list = decoder.List(value, bits, !store);
  if (static_cast<int>(list.size()) != n)
    decoder.Fail("a vector of " + std::to_string(list.size()) + " registers");
  instruction->list = decoder.Keep(list);
  instruction->option = static_cast<uint8_t>(n);
  bool parameter = false;
  const Operand& where = decoder.operand(address);
  const Decoder::Parameter* named =
      where.name.empty() ? nullptr : decoder.FindParameter(where.name);
  if (instruction->space == static_cast<uint8_t>(StateSpace::kParam)) {
    if (named != nullptr) {
      instruction->immediate = named->offset + static_cast<int64_t>(where.integer);
      instruction->mode = 0;
      parameter = named->in_launch;
      if (static_cast<int64_t>(where.integer) + n * BitsOf(type) / 8 > named->bytes)
        decoder.Fail("outside its parameter");
    } else {
      // Through a register: nvcc does so for arrays in a kernel's parameters.
      decoder.Address(address, instruction);
      parameter = true;
    }
    if (!parameter) instruction->space = static_cast<uint8_t>(StateSpace::kLocal);
    if (parameter && store) decoder.Fail("a kernel's parameters cannot be written");
  } else {
    decoder.Address(address, instruction);
  }
  instruction->run = PickType(type, bits, store, parameter);
  if (instruction->run == nullptr) modifiers.Unknown("type ." + type);
  return true;
}

}  // namespace nibble::cuda::emulator
