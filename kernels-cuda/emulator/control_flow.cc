// SPDX-License-Identifier: Apache-2.0
#include "kernels-cuda/emulator/control_flow.h"

#include <algorithm>
#include <vector>

namespace nibble::cuda::emulator {

namespace {

// The kinds of control flow, in Instruction::option.
enum Flow : uint8_t { kBranch = 1, kIndexed, kCall, kReturn, kExit };

struct Control {
  Flow flow;
  std::string label;                // of a branch; the callee of a call
  std::vector<std::string> labels;  // of brx
  std::vector<int32_t> targets;
  bool uniform = false;
  struct Copy {
    int64_t from, to, bytes;
  };
  std::vector<Copy> arguments;
};

void Diverge(Warp& warp, int32_t target, uint32_t taken, const Instruction& instruction) {
  const uint32_t other = warp.active & ~taken;
  const int32_t meet = instruction.reconvergence;
  const int32_t next = warp.pc;
  if (meet != warp.reconvergence) {
    // The lanes go on together from where both sides arrive. Where there is no such place (a side
    // ends), the sides go their own ways.
    warp.stack.push_back(
        {meet >= 0 ? meet : next, warp.reconvergence, meet >= 0 ? warp.active : 0, warp.frame});
    warp.frame = false;
  }
  // Either side may go first: no program may count on one.
  const bool taken_first = (warp.random() & 1) != 0;
  const int32_t first = taken_first ? target : next;
  const int32_t second = taken_first ? next : target;
  const uint32_t first_mask = taken_first ? taken : other;
  const uint32_t second_mask = taken_first ? other : taken;
  const bool frame = warp.frame;
  if (second != meet || meet < 0) warp.stack.push_back({second, meet, second_mask, frame});
  warp.pc = first;
  warp.reconvergence = meet;
  warp.active = first_mask;
}

void RunBranch(Warp& warp, const Instruction& instruction, uint32_t mask) {
  if (mask == warp.active) {
    warp.pc = instruction.target;
    return;
  }
  Diverge(warp, instruction.target, mask, instruction);
}

void RunUniformBranch(Warp& warp, const Instruction& instruction, uint32_t mask) {
  if (mask != warp.active) {
    warp.block->Fail(warp, &instruction, -1, "bra.uni, but its lanes differ");
  }
  warp.pc = instruction.target;
}

void RunIndexed(Warp& warp, const Instruction& instruction, uint32_t mask) {
  const Control& control = *static_cast<const Control*>(instruction.extra);
  const uint32_t* index = warp.Reg<uint32_t>(instruction.a);
  const int lane = __builtin_ctz(mask);
  uint32_t same = 0;
  for (int l = 0; l < kLanes; ++l) {
    if ((mask >> l & 1) != 0 && index[l] == index[lane]) same |= 1u << l;
  }
  if (index[lane] >= control.targets.size()) {
    warp.block->Fail(warp, &instruction, lane,
                     "index " + std::to_string(index[lane]) + " of " +
                         std::to_string(control.targets.size()) + " branch targets");
  }
  const int32_t target = control.targets[index[lane]];
  if (same == warp.active) {
    warp.pc = target;
    return;
  }
  // The others run this instruction again.
  --warp.pc;
  Diverge(warp, target, same, instruction);
}

void CopyLocal(Warp& warp, uint32_t mask, const std::vector<Control::Copy>& copies) {
  const int64_t size = static_cast<int64_t>(warp.local.size()) / kLanes;
  for (int l = 0; l < kLanes; ++l) {
    if ((mask >> l & 1) == 0) continue;
    uint8_t* lane = warp.local.data() + l * size;
    for (const Control::Copy& copy : copies)
      std::memmove(lane + copy.to, lane + copy.from, copy.bytes);
  }
}

void RunCall(Warp& warp, const Instruction& instruction, uint32_t mask) {
  const Control& control = *static_cast<const Control*>(instruction.extra);
  CopyLocal(warp, mask, control.arguments);
  // All lanes, also those that do not call, go on together from where the call returns to.
  warp.stack.push_back({warp.pc, warp.reconvergence, warp.active, warp.frame});
  warp.active = mask;
  warp.pc = instruction.target;
  warp.reconvergence = -1;
  warp.frame = true;
}

// Lanes that return wait for the others of the same call.
void RunReturn(Warp& warp, const Instruction&, uint32_t mask) {
  bool in_call = warp.frame;
  size_t base = warp.stack.size();
  while (!in_call && base > 0) in_call = warp.stack[--base].call_frame;
  if (!in_call) {
    warp.ExitLanes(mask);
    return;
  }
  warp.active &= ~mask;
  for (size_t i = warp.frame ? warp.stack.size() : base; i < warp.stack.size(); ++i)
    warp.stack[i].mask &= ~mask;
  if (warp.active == 0) warp.Pop();
}

void RunExit(Warp& warp, const Instruction&, uint32_t mask) { warp.ExitLanes(mask); }

void RunTrap(Warp& warp, const Instruction& instruction, uint32_t mask) {
  warp.block->Fail(warp, &instruction, __builtin_ctz(mask), "trap");
}

void RunNothing(Warp&, const Instruction&, uint32_t) {}

Control* MakeControl(Decoder& decoder, Instruction* instruction, Flow flow) {
  Control* control = decoder.Extra<Control>();
  control->flow = flow;
  instruction->option = flow;
  instruction->extra = control;
  return control;
}

}  // namespace

Instruction ReturnInstruction(int line) {
  Instruction instruction;
  instruction.run = RunReturn;
  instruction.option = kReturn;
  instruction.line = line;
  return instruction;
}

bool DecodeControlFlow(Decoder& decoder, const Statement& statement, Instruction* instruction) {
  const std::string& name = statement.opcode[0];
  Modifiers modifiers(statement);
  if (name == "bra") {
    Control* control = MakeControl(decoder, instruction, kBranch);
    control->uniform = modifiers.Take("uni");
    modifiers.Finish();
    control->label = decoder.operand(0).name;
    instruction->run = control->uniform && instruction->guard >= 0 ? RunUniformBranch : RunBranch;
    return true;
  }
  if (name == "brx") {
    if (!modifiers.Take("idx")) modifiers.Unknown();
    modifiers.Take("uni");
    modifiers.Finish();
    Control* control = MakeControl(decoder, instruction, kIndexed);
    instruction->a = decoder.Source(0, 32);
    const auto list = decoder.function().label_lists.find(decoder.operand(1).name);
    if (list == decoder.function().label_lists.end())
      decoder.Fail("'" + decoder.operand(1).name + "' is no list of branch targets");
    control->labels = list->second;
    instruction->run = RunIndexed;
    return true;
  }
  if (name == "call") {
    modifiers.Take("uni");
    modifiers.Finish();
    Control* control = MakeControl(decoder, instruction, kCall);
    size_t i = 0;
    std::vector<Operand> results, arguments;
    if (decoder.operand(0).kind == Operand::Kind::kVector) results = decoder.operand(i++).parts;
    control->label = decoder.operand(i++).name;
    if (i < decoder.count()) arguments = decoder.operand(i).parts;
    decoder.BindCall(control->label, results, arguments,
                     [control](int64_t from, int64_t to, int64_t bytes) {
                       control->arguments.push_back({from, to, bytes});
                     });
    instruction->run = RunCall;
    return true;
  }
  if (name == "ret") {
    modifiers.Take("uni");
    modifiers.Finish();
    instruction->option = kReturn;
    instruction->run = RunReturn;
    return true;
  }
  if (name == "exit") {
    modifiers.Finish();
    instruction->option = kExit;
    instruction->run = RunExit;
    return true;
  }
  if (name == "trap" || name == "brkpt") {
    instruction->option = kExit;
    instruction->run = RunTrap;
    return true;
  }
  if (name == "nanosleep" || name == "pmevent" || name == "setmaxnreg" ||
      name == "griddepcontrol" || name == kNothing) {
    instruction->run = RunNothing;
    return true;
  }
  return false;
}

void ResolveCall(Instruction* instruction, const std::map<std::string, int32_t>& entry_points) {
  if (instruction->option != kCall || instruction->run != RunCall) return;
  instruction->target = entry_points.at(static_cast<const Control*>(instruction->extra)->label);
}

void ConnectBranches(const Function& function, size_t begin, Program* program) {
  std::vector<Instruction>& code = program->code;
  const int count = static_cast<int>(code.size() - begin);
  const auto find = [&](const std::string& label, int line) {
    const auto found = function.labels.find(label);
    if (found == function.labels.end())
      throw PtxError(line, "label '" + label + "' is not defined");
    return static_cast<int>(found->second);
  };
  const auto is_flow = [&](const Instruction& i, Flow flow) {
    switch (flow) {
      case kBranch:
        return i.run == RunBranch || i.run == RunUniformBranch;
      case kIndexed:
        return i.run == RunIndexed;
      case kReturn:
        return i.run == RunReturn;
      case kExit:
        return i.run == RunExit || i.run == RunTrap;
      default:
        return false;
    }
  };
  // Successors, one node an instruction; node `count` is the end. A return leads there; an exit
  // or trap leads nowhere, since its lanes need not meet anyone.
  std::vector<std::vector<int>> successors(count + 1);
  bool returns = false;
  for (int i = 0; i < count; ++i) {
    Instruction& instruction = code[begin + i];
    const bool guarded = instruction.guard >= 0;
    if (is_flow(instruction, kBranch)) {
      const int target =
          find(static_cast<const Control*>(instruction.extra)->label, instruction.line);
      instruction.target = static_cast<int32_t>(begin) + target;
      successors[i].push_back(target);
      if (guarded) successors[i].push_back(i + 1);
    } else if (is_flow(instruction, kIndexed)) {
      Control* control = static_cast<Control*>(const_cast<void*>(instruction.extra));
      for (const std::string& label : control->labels) {
        const int target = find(label, instruction.line);
        control->targets.push_back(static_cast<int32_t>(begin) + target);
        successors[i].push_back(target);
      }
      if (guarded) successors[i].push_back(i + 1);
    } else if (is_flow(instruction, kReturn)) {
      if (guarded) {
        successors[i].push_back(i + 1);
      } else if (i + 1 < count || !returns) {
        successors[i].push_back(count);
        returns = true;
      }
    } else if (is_flow(instruction, kExit)) {
      if (guarded) successors[i].push_back(i + 1);
    } else {
      successors[i].push_back(i + 1);
    }
  }
  // Post-dominators (Cooper, Harvey and Kennedy): depth-first order from the end over the
  // reversed edges, then intersection until nothing changes.
  std::vector<std::vector<int>> predecessors(count + 1);
  for (int i = 0; i <= count; ++i) {
    for (int s : successors[i]) predecessors[s].push_back(i);
  }
  std::vector<int> order, number(count + 1, -1), state(count + 1, 0);
  std::vector<std::pair<int, size_t>> walk{{count, 0}};
  state[count] = 1;
  while (!walk.empty()) {
    auto& [node, next] = walk.back();
    if (next < predecessors[node].size()) {
      const int p = predecessors[node][next++];
      if (state[p] == 0) {
        state[p] = 1;
        walk.push_back({p, 0});
      }
    } else {
      number[node] = static_cast<int>(order.size());
      order.push_back(node);
      walk.pop_back();
    }
  }
  std::vector<int> dominator(count + 1, -1);
  dominator[count] = count;
  for (bool changed = true; changed;) {
    changed = false;
    for (size_t k = order.size(); k-- > 0;) {
      const int node = order[k];
      if (node == count) continue;
      int best = -1;
      for (int s : successors[node]) {
        if (dominator[s] < 0) continue;
        if (best < 0) {
          best = s;
          continue;
        }
        int x = s, y = best;
        while (x != y) {
          while (number[x] < number[y]) x = dominator[x];
          while (number[y] < number[x]) y = dominator[y];
        }
        best = x;
      }
      if (best != dominator[node]) {
        dominator[node] = best;
        changed = true;
      }
    }
  }
  for (int i = 0; i < count; ++i) {
    Instruction& instruction = code[begin + i];
    if (!is_flow(instruction, kBranch) && !is_flow(instruction, kIndexed)) continue;
    const int meet = dominator[i];
    instruction.reconvergence = meet < 0 || meet == count ? -1 : static_cast<int32_t>(begin) + meet;
  }
}

}  // namespace nibble::cuda::emulator
