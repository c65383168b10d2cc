// SPDX-License-Identifier: Apache-2.0
//
// From device addresses to host pointers, with every check on the way.

#include <algorithm>

#include "kernels-cuda/emulator/machine.h"

namespace nibble::cuda::emulator {

namespace {

std::string Hex(uint64_t value) {
  char text[32];
  std::snprintf(text, sizeof(text), "0x%llx", static_cast<unsigned long long>(value));
  return text;
}

const char* Verb(Access access) {
  return access == Access::kRead    ? "read of "
         : access == Access::kWrite ? "write of "
                                    : "atomic of ";
}

uint8_t* ResolveGlobal(Warp& warp, const Instruction& instruction, int lane, uint64_t address,
                       int bytes, Access access) {
  const Allocation* hit = nullptr;
  for (const Allocation* cached : warp.cached) {
    if (cached != nullptr && address - cached->address < cached->bytes &&
        static_cast<uint64_t>(bytes) <= cached->bytes - (address - cached->address)) {
      hit = cached;
    }
  }
  if (hit == nullptr) {
    const DeviceMemory& memory = *warp.block->launch->memory;
    hit = memory.Find(address, bytes);
    if (hit == nullptr) {
      warp.block->Fail(warp, &instruction, lane, Verb(access) + memory.Explain(address, bytes));
    }
    warp.cached[1] = warp.cached[0];
    warp.cached[0] = hit;
  }
  if (hit->read_only && access != Access::kRead) {
    warp.block->Fail(warp, &instruction, lane, "write to constant memory at " + Hex(address));
  }
  if (access != Access::kRead) warp.block->launch->memory->NoteWritten(*hit);
  if (instruction.space == static_cast<uint8_t>(StateSpace::kConst) && !hit->read_only) {
    warp.block->Fail(warp, &instruction, lane,
                     "ld.const of an address that is not constant memory");
  }
  return hit->data + (address - hit->address);
}

uint8_t* ResolveLocal(Warp& warp, const Instruction& instruction, int lane, uint64_t address,
                      int bytes, Access access) {
  const uint64_t size = warp.local.size() / kLanes;
  if (address > size || static_cast<uint64_t>(bytes) > size - address) {
    warp.block->Fail(warp, &instruction, lane,
                     Verb(access) + std::to_string(bytes) + " bytes at local address " +
                         Hex(address) + " of " + std::to_string(size));
  }
  return warp.local.data() + lane * size + address;
}

}  // namespace

uint32_t SharedOffset(Warp& warp, const Instruction& instruction, int lane, uint64_t address,
                      int bytes) {
  const uint64_t offset = address - kSharedBase;
  const uint64_t size = warp.block->shared.size();
  if (address % bytes != 0) {
    warp.block->Fail(warp, &instruction, lane,
                     "shared address " + Hex(address) + " is not on a boundary of " +
                         std::to_string(bytes) + " bytes");
  }
  if (address < kSharedBase || offset > size || static_cast<uint64_t>(bytes) > size - offset) {
    warp.block->Fail(warp, &instruction, lane,
                     std::to_string(bytes) + " bytes at offset " +
                         std::to_string(static_cast<int64_t>(offset)) + " of " +
                         std::to_string(size) + " bytes of shared memory");
  }
  return static_cast<uint32_t>(offset);
}

void Addresses(Warp& warp, const Instruction& instruction, uint64_t* addresses) {
  // mode: 0 the address is the immediate alone, 32 or 64: bits of the register
  const uint64_t offset = static_cast<uint64_t>(instruction.immediate);
  if (instruction.mode == 64) {
    const uint64_t* base = warp.Reg<uint64_t>(instruction.a);
    for (int l = 0; l < kLanes; ++l) addresses[l] = base[l] + offset;
  } else if (instruction.mode == 32) {
    const uint32_t* base = warp.Reg<uint32_t>(instruction.a);
    for (int l = 0; l < kLanes; ++l) addresses[l] = static_cast<uint32_t>(base[l] + offset);
  } else {
    std::fill_n(addresses, kLanes, offset);
  }
}

void Resolve(Warp& warp, const Instruction& instruction, uint32_t mask, int bytes, Access access,
             uint8_t** pointers) {
  uint64_t addresses[kLanes];
  Addresses(warp, instruction, addresses);
  Block& block = *warp.block;
  const SharedShadow::Kind kind = access == Access::kRead    ? SharedShadow::Kind::kRead
                                  : access == Access::kWrite ? SharedShadow::Kind::kWrite
                                                             : SharedShadow::Kind::kAtomic;
  for (int lane = 0; lane < kLanes; ++lane) {
    if ((mask >> lane & 1) == 0) continue;
    uint64_t address = addresses[lane];
    uint8_t space = instruction.space;
    if (space == kGenericSpace) {
      if (address - kSharedWindow < kWindowBytes) {
        space = static_cast<uint8_t>(StateSpace::kShared);
        address -= kSharedWindow;
      } else if (address - kLocalWindow < kWindowBytes) {
        space = static_cast<uint8_t>(StateSpace::kLocal);
        address -= kLocalWindow;
      }
    }
    if (space == static_cast<uint8_t>(StateSpace::kShared)) {
      const uint32_t offset = SharedOffset(warp, instruction, lane, address, bytes);
      if (block.checked) {
        const std::string race =
            block.shadow.Touch(warp, lane, instruction.line, offset, bytes, kind);
        if (!race.empty()) block.Fail(warp, &instruction, lane, race);
      }
      pointers[lane] = block.shared.data() + offset;
      continue;
    }
    if (address % bytes != 0) {
      block.Fail(warp, &instruction, lane,
                 "address " + Hex(address) + " is not on a boundary of " + std::to_string(bytes) +
                     " bytes");
    }
    pointers[lane] = space == static_cast<uint8_t>(StateSpace::kLocal)
                         ? ResolveLocal(warp, instruction, lane, address, bytes, access)
                         : ResolveGlobal(warp, instruction, lane, address, bytes, access);
  }
}

}  // namespace nibble::cuda::emulator
