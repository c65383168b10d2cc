// SPDX-License-Identifier: Apache-2.0
//
// The CUDA driver's functions over the emulator: contexts, modules, memory, streams and launches.
// Graphs and events are in driver_graph.cc.
//
// What differs from a real driver: a kernel's violation gives CUDA_ERROR_LAUNCH_FAILED whatever it
// was, and cuGetErrorString tells it in words. As on hardware the context is then lost: every
// later call gives the same error until all owners have released it.

#include "kernels-cuda/emulator/driver_api.h"

#include <algorithm>
#include <cstdlib>
#include <cstring>

#include "kernels-cuda/emulator/kept_images.h"

namespace nibble::cuda::emulator {

namespace {

std::map<int, CUcontext>& Contexts() {
  static auto* contexts = new std::map<int, CUcontext>;
  return *contexts;
}

std::vector<CUcontext>& Stack() {
  thread_local std::vector<CUcontext> stack;
  return stack;
}

std::set<std::pair<const uint8_t*, size_t>>& Pinned() {
  static auto* pinned = new std::set<std::pair<const uint8_t*, size_t>>;
  return *pinned;
}

bool IsPinned(const void* memory, size_t bytes) {
  const auto* begin = static_cast<const uint8_t*>(memory);
  for (const auto& range : Pinned()) {
    if (begin >= range.first && begin + bytes <= range.first + range.second) return true;
  }
  return false;
}

bool IsGeneration(CUdevice device) {
  const int sm = GenerationOf(device);
  return sm == 80 || sm == 89 || sm == 90 || sm == 120;
}

CUresult Refuse(CUresult result, const std::string& why) {
  SetMessage(result, why);
  return result;
}

// Places the module's variables in device memory.
CUresult PlaceVariables(CUcontext context, LoadedModule* loaded) {
  std::vector<std::pair<uint64_t, const Variable*>> placed;
  for (const Variable& variable : loaded->module->variables) {
    if (variable.space != StateSpace::kGlobal && variable.space != StateSpace::kConst) continue;
    if (variable.is_extern) {
      return Refuse(CUDA_ERROR_INVALID_PTX,
                    "variable " + variable.name + " is declared extern and defined nowhere");
    }
    const uint64_t bytes = std::max<uint64_t>(1, static_cast<uint64_t>(variable.bytes));
    const uint64_t address = context->memory.Allocate(bytes, "a module's variable", false);
    if (address == 0) return CUDA_ERROR_OUT_OF_MEMORY;
    loaded->allocations.push_back(address);
    loaded->globals[variable.name] = {variable.space, address, variable.bytes};
    placed.emplace_back(address, &variable);
  }
  for (const auto& [address, variable] : placed) {
    uint8_t* data = context->memory.Find(address, 1)->data;
    // Module variables without a value are zero, as the language has it.
    std::memset(data, 0, static_cast<size_t>(variable->bytes));
    std::memcpy(data, variable->data.data(), variable->data.size());
    for (const auto& [at, name] : variable->addresses) {
      const auto found = loaded->globals.find(name);
      if (found == loaded->globals.end())
        return Refuse(CUDA_ERROR_INVALID_PTX, "'" + name + "' is not known");
      std::memcpy(data + at, &found->second.address, 8);
    }
    if (variable->space == StateSpace::kConst) context->memory.SetReadOnly(address);
  }
  return CUDA_SUCCESS;
}

int ModuleTarget(const Module& module) {
  return std::atoi(module.target.c_str() + (module.target.rfind("sm_", 0) == 0 ? 3 : 0));
}

// PTX for a generation runs on later ones; for sm_90a and its like on that one alone.
CUresult CheckTarget(const Module& module, int sm) {
  const int target = ModuleTarget(module);
  const bool specific =
      !module.target.empty() && (module.target.back() == 'a' || module.target.back() == 'f');
  if (target <= 0 || target > sm || (specific && target != sm)) {
    return Refuse(CUDA_ERROR_NO_BINARY_FOR_GPU,
                  "PTX for " + module.target + " does not run on sm_" + std::to_string(sm));
  }
  return CUDA_SUCCESS;
}

CUresult CheckShape(const Program& program, int max_dynamic, int sm, const Dimensions& grid,
                    const Dimensions& block, unsigned shared) {
  const auto refuse = [&](const std::string& why) {
    return Refuse(CUDA_ERROR_INVALID_VALUE, "launch of " + program.name + ": " + why);
  };
  if (grid.Count() == 0 || block.Count() == 0) return refuse("a dimension is 0");
  if (grid.x > 0x7FFFFFFF || grid.y > 65535 || grid.z > 65535) {
    return refuse("a grid of " + std::to_string(grid.x) + " x " + std::to_string(grid.y) + " x " +
                  std::to_string(grid.z) + " blocks; y and z may be 65535 at most");
  }
  if (block.x > 1024 || block.y > 1024 || block.z > 64 || block.Count() > 1024)
    return refuse("more than 1024 threads in a block");
  if (program.max_threads > 0 && block.Count() > static_cast<uint64_t>(program.max_threads)) {
    return refuse(std::to_string(block.Count()) + " threads in a block, but it was compiled for " +
                  std::to_string(program.max_threads) + " at most (__launch_bounds__)");
  }
  const int* required = program.required_threads;
  if (required[0] > 0 && (block.x != static_cast<unsigned>(required[0]) ||
                          block.y != static_cast<unsigned>(required[1]) ||
                          block.z != static_cast<unsigned>(required[2]))) {
    return refuse("the block's shape is not the required one");
  }
  const int64_t total = program.static_shared_bytes + shared;
  if (total > SharedLimit(sm)) {
    return refuse(std::to_string(total) + " bytes of shared memory, but a block of sm_" +
                  std::to_string(sm) + " has " + std::to_string(SharedLimit(sm)));
  }
  if (total > kFreeSharedBytes && static_cast<int64_t>(shared) > max_dynamic) {
    return refuse(std::to_string(shared) + " bytes of dynamic shared memory, but only " +
                  std::to_string(max_dynamic) +
                  " have been asked for with CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES");
  }
  return CUDA_SUCCESS;
}

CUresult RunKernel(CUcontext context, const LoadedModule& module,
                   const std::shared_ptr<Program>& program, const Launch& prepared) {
  Launch launch = prepared;
  launch.program = program.get();
  launch.memory = &context->memory;
  launch.sm = context->sm;
  launch.options = NextLaunchOptions();
  try {
    RunRecorded(module.image, launch);
  } catch (const Violation& violation) {
    SetLastViolation(violation.what());
    SetMessage(CUDA_ERROR_LAUNCH_FAILED, std::string(violation.what()) + " [seed of the launch " +
                                             std::to_string(launch.options.seed) + "]");
    return context->lost = CUDA_ERROR_LAUNCH_FAILED;
  }
  return CUDA_SUCCESS;
}

// Host side of a copy: device memory, checked when the copy runs.
uint8_t* DeviceBytes(CUcontext context, CUdeviceptr address, size_t bytes, const char* what,
                     CUresult* result) {
  const Allocation* found = context->memory.Find(address, bytes);
  if (found == nullptr) {
    SetLastViolation(std::string(what) + ": " + context->memory.Explain(address, bytes));
    *result = context->lost = Refuse(CUDA_ERROR_ILLEGAL_ADDRESS, LastViolation());
    return nullptr;
  }
  return found->data + (address - found->address);
}

}  // namespace

CUcontext CurrentContext() { return Stack().empty() ? nullptr : Stack().back(); }

CUresult Flush(CUstream stream) {
  while (!stream->queue.empty()) {
    const Operation operation = std::move(stream->queue.front());
    stream->queue.pop_front();
    if (stream->context->lost != CUDA_SUCCESS) continue;
    operation();
  }
  return stream->context->lost;
}

CUresult Enqueue(CUstream stream, Operation operation) {
  CUcontext context = CurrentContext();
  if (context == nullptr) return CUDA_ERROR_INVALID_CONTEXT;
  if (context->lost != CUDA_SUCCESS) return context->lost;
  if (stream == nullptr) {
    // The null stream waits for the blocking ones and they for it.
    for (CUstream other : context->streams) {
      if (other->blocking) Flush(other);
    }
    const CUresult result = operation();
    return result;
  }
  if (stream->capturing) {
    stream->captured.push_back(std::move(operation));
  } else {
    stream->queue.push_back(std::move(operation));
  }
  return CUDA_SUCCESS;
}

CUresult BreakCapture(CUstream stream, const char* what) {
  stream->capture_broken = true;
  return Refuse(CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED,
                std::string(what) + " while its stream is being captured");
}

// Calls that a capture in progress forbids (all but a relaxed one).
bool CaptureForbids(CUcontext context) {
  for (CUstream stream : context->streams) {
    if (stream->capturing && stream->capture_mode != CU_STREAM_CAPTURE_MODE_RELAXED) return true;
  }
  return false;
}

bool IsLost(int sm, bool second_board) {
  const auto lock = Lock();
  const auto found = Contexts().find(sm + (second_board ? kSecondBoard : 0));
  return found != Contexts().end() && found->second->lost != CUDA_SUCCESS;
}

}  // namespace nibble::cuda::emulator

using namespace nibble::cuda::emulator;  // the functions below are C's

extern "C" {

CUresult CUDAAPI cuInit(unsigned flags) {
  return flags == 0 ? CUDA_SUCCESS : CUDA_ERROR_INVALID_VALUE;
}

CUresult CUDAAPI cuDriverGetVersion(int* version) {
  *version = CUDA_VERSION;
  return CUDA_SUCCESS;
}

CUresult CUDAAPI cuGetErrorName(CUresult error, const char** text) {
  switch (error) {
#define NIBBLE_EMULATOR_NAME(name) \
  case name:                       \
    *text = #name;                 \
    return CUDA_SUCCESS;
    NIBBLE_EMULATOR_NAME(CUDA_SUCCESS)
    NIBBLE_EMULATOR_NAME(CUDA_ERROR_INVALID_VALUE)
    NIBBLE_EMULATOR_NAME(CUDA_ERROR_OUT_OF_MEMORY)
    NIBBLE_EMULATOR_NAME(CUDA_ERROR_NOT_INITIALIZED)
    NIBBLE_EMULATOR_NAME(CUDA_ERROR_NO_DEVICE)
    NIBBLE_EMULATOR_NAME(CUDA_ERROR_INVALID_DEVICE)
    NIBBLE_EMULATOR_NAME(CUDA_ERROR_INVALID_IMAGE)
    NIBBLE_EMULATOR_NAME(CUDA_ERROR_INVALID_CONTEXT)
    NIBBLE_EMULATOR_NAME(CUDA_ERROR_NO_BINARY_FOR_GPU)
    NIBBLE_EMULATOR_NAME(CUDA_ERROR_INVALID_PTX)
    NIBBLE_EMULATOR_NAME(CUDA_ERROR_INVALID_HANDLE)
    NIBBLE_EMULATOR_NAME(CUDA_ERROR_NOT_FOUND)
    NIBBLE_EMULATOR_NAME(CUDA_ERROR_NOT_READY)
    NIBBLE_EMULATOR_NAME(CUDA_ERROR_ILLEGAL_ADDRESS)
    NIBBLE_EMULATOR_NAME(CUDA_ERROR_LAUNCH_FAILED)
    NIBBLE_EMULATOR_NAME(CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED)
    NIBBLE_EMULATOR_NAME(CUDA_ERROR_STREAM_CAPTURE_INVALIDATED)
    NIBBLE_EMULATOR_NAME(CUDA_ERROR_ILLEGAL_STATE)
#undef NIBBLE_EMULATOR_NAME
    default:
      *text = nullptr;
      return CUDA_ERROR_INVALID_VALUE;
  }
}

CUresult CUDAAPI cuGetErrorString(CUresult error, const char** text) {
  const auto lock = Lock();
  *text = MessageOf(error);
  if (*text != nullptr) return CUDA_SUCCESS;
  return cuGetErrorName(error, text);
}

CUresult CUDAAPI cuDeviceGetCount(int* count) {
  *count = 1;
  return CUDA_SUCCESS;
}

// A device's handle is its generation.
CUresult CUDAAPI cuDeviceGet(CUdevice* device, int ordinal) {
  if (ordinal != 0) return CUDA_ERROR_INVALID_DEVICE;
  if (!IsGeneration(DefaultGeneration())) {
    return Refuse(CUDA_ERROR_INVALID_DEVICE, "NIBBLE_EMULATED_SM must be 80, 89, 90 or 120");
  }
  *device = DefaultGeneration();
  return CUDA_SUCCESS;
}

CUresult CUDAAPI cuDeviceGetName(char* name, int length, CUdevice device) {
  if (!IsGeneration(device)) return CUDA_ERROR_INVALID_DEVICE;
  const std::string text =
      "Nibble's emulated GPU (sm_" + std::to_string(GenerationOf(device)) + ")";
  std::snprintf(name, static_cast<size_t>(length), "%s", text.c_str());
  return CUDA_SUCCESS;
}

CUresult CUDAAPI cuDeviceGetAttribute(int* value, CUdevice_attribute attribute, CUdevice device) {
  if (!IsGeneration(device)) return CUDA_ERROR_INVALID_DEVICE;
  switch (attribute) {
    case CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR:
      *value = GenerationOf(device) / 10;
      break;
    case CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR:
      *value = GenerationOf(device) % 10;
      break;
    // Few, so that small test shapes reach grids below and above the number of multiprocessors.
    case CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT:
      *value = 8;
      break;
    case CU_DEVICE_ATTRIBUTE_WARP_SIZE:
      *value = kLanes;
      break;
    case CU_DEVICE_ATTRIBUTE_MAX_THREADS_PER_BLOCK:
      *value = 1024;
      break;
    case CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_BLOCK:
      *value = kFreeSharedBytes;
      break;
    case CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_BLOCK_OPTIN:
      *value = SharedLimit(GenerationOf(device));
      break;
    case CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_MULTIPROCESSOR:
      *value = SharedLimit(GenerationOf(device)) + 1024;
      break;
    case CU_DEVICE_ATTRIBUTE_L2_CACHE_SIZE:
      *value = 4 << 20;
      break;
    case CU_DEVICE_ATTRIBUTE_MAX_REGISTERS_PER_BLOCK:
      *value = 65536;
      break;
    case CU_DEVICE_ATTRIBUTE_CLOCK_RATE:
      *value = 1000000;
      break;
    case CU_DEVICE_ATTRIBUTE_MEMORY_CLOCK_RATE:
      *value = 1000000;
      break;
    case CU_DEVICE_ATTRIBUTE_GLOBAL_MEMORY_BUS_WIDTH:
      *value = 256;
      break;
    default:
      return Refuse(CUDA_ERROR_INVALID_VALUE,
                    "device attribute " + std::to_string(attribute) + " is not emulated");
  }
  return CUDA_SUCCESS;
}

CUresult CUDAAPI cuDeviceTotalMem_v2(size_t* bytes, CUdevice device) {
  const auto lock = Lock();
  if (!IsGeneration(device)) return CUDA_ERROR_INVALID_DEVICE;
  const auto found = Contexts().find(device);
  *bytes = found == Contexts().end() ? DeviceMemoryBytes() : found->second->memory.capacity();
  return CUDA_SUCCESS;
}

CUresult CUDAAPI cuDevicePrimaryCtxRetain(CUcontext* context, CUdevice device) {
  const auto lock = Lock();
  if (!IsGeneration(device)) return CUDA_ERROR_INVALID_DEVICE;
  CUcontext& known = Contexts()[device];
  if (known == nullptr) known = new CUctx_st(GenerationOf(device), DeviceMemoryBytes());
  ++known->owners;
  ++live_objects;
  *context = known;
  return CUDA_SUCCESS;
}

// The last owner's release ends the context and everything in it.
CUresult CUDAAPI cuDevicePrimaryCtxRelease_v2(CUdevice device) {
  const auto lock = Lock();
  const auto found = Contexts().find(device);
  if (found == Contexts().end()) return CUDA_ERROR_INVALID_CONTEXT;
  CUcontext context = found->second;
  --live_objects;
  if (--context->owners > 0) return CUDA_SUCCESS;
  for (CUstream stream : context->streams) delete stream, --live_objects;
  for (CUmodule module : context->modules) delete module, --live_objects;
  live_objects -= context->memory.count();
  Contexts().erase(found);
  delete context;
  return CUDA_SUCCESS;
}

CUresult CUDAAPI cuCtxPushCurrent_v2(CUcontext context) {
  if (context == nullptr) return CUDA_ERROR_INVALID_CONTEXT;
  Stack().push_back(context);
  return CUDA_SUCCESS;
}

CUresult CUDAAPI cuCtxPopCurrent_v2(CUcontext* context) {
  if (Stack().empty()) return CUDA_ERROR_INVALID_CONTEXT;
  if (context != nullptr) *context = Stack().back();
  Stack().pop_back();
  return CUDA_SUCCESS;
}

CUresult CUDAAPI cuMemGetInfo_v2(size_t* free, size_t* total) {
  const auto lock = Lock();
  CUcontext context = CurrentContext();
  if (context == nullptr) return CUDA_ERROR_INVALID_CONTEXT;
  *total = context->memory.capacity();
  *free = context->memory.capacity() - context->memory.used();
  return CUDA_SUCCESS;
}

CUresult CUDAAPI cuModuleLoadData(CUmodule* module, const void* image) {
  const auto lock = Lock();
  CUcontext context = CurrentContext();
  if (context == nullptr) return CUDA_ERROR_INVALID_CONTEXT;
  if (context->lost != CUDA_SUCCESS) return context->lost;
  const char* text = static_cast<const char*>(image);
  if (text == nullptr) return CUDA_ERROR_INVALID_VALUE;
  if (std::memcmp(text, "\177ELF", 4) == 0) {
    return Refuse(CUDA_ERROR_NO_BINARY_FOR_GPU, "the emulator runs PTX, not machine code");
  }
  auto loaded = std::make_shared<LoadedModule>();
  loaded->image = text;
  try {
    loaded->module = ParseImage(text);
  } catch (const PtxError& error) {
    return Refuse(CUDA_ERROR_INVALID_PTX, error.what());
  }
  CUresult result = CheckTarget(*loaded->module, context->sm);
  if (result == CUDA_SUCCESS) result = PlaceVariables(context, loaded.get());
  if (result != CUDA_SUCCESS) {
    for (uint64_t address : loaded->allocations) context->memory.FreeUncounted(address);
    return result;
  }
  *module = new CUmod_st{context, std::move(loaded), {}};
  context->modules.insert(*module);
  ++live_objects;
  return CUDA_SUCCESS;
}

CUresult CUDAAPI cuModuleUnload(CUmodule module) {
  const auto lock = Lock();
  if (module == nullptr || module->context->modules.erase(module) == 0)
    return CUDA_ERROR_INVALID_HANDLE;
  for (uint64_t address : module->loaded->allocations)
    module->context->memory.FreeUncounted(address);
  delete module;
  --live_objects;
  return CUDA_SUCCESS;
}

CUresult CUDAAPI cuModuleGetFunction(CUfunction* function, CUmodule module, const char* name) {
  const auto lock = Lock();
  std::unique_ptr<CUfunc_st>& known = module->functions[name];
  if (known == nullptr) {
    const Function* entry = nullptr;
    for (const Function& candidate : module->loaded->module->functions) {
      if (candidate.is_entry && candidate.has_body && candidate.name == name) entry = &candidate;
    }
    if (entry == nullptr) {
      module->functions.erase(name);
      return Refuse(CUDA_ERROR_NOT_FOUND, std::string("the module has no kernel ") + name);
    }
    auto made = std::make_unique<CUfunc_st>();
    try {
      made->loaded.program = DecodeKernel(*module->loaded, *entry);
    } catch (const PtxError& error) {
      module->functions.erase(name);
      return Refuse(CUDA_ERROR_INVALID_PTX, std::string("kernel ") + name + ": " + error.what());
    }
    if (made->loaded.program->static_shared_bytes > kFreeSharedBytes) {
      module->functions.erase(name);
      return Refuse(CUDA_ERROR_INVALID_PTX, std::string("kernel ") + name +
                                                " has more than 48 KiB of static shared memory");
    }
    made->loaded.module = module->loaded;
    known = std::move(made);
  }
  *function = known.get();
  return CUDA_SUCCESS;
}

CUresult CUDAAPI cuFuncSetAttribute(CUfunction function, CUfunction_attribute attribute,
                                    int value) {
  const auto lock = Lock();
  CUcontext context = CurrentContext();
  if (context == nullptr) return CUDA_ERROR_INVALID_CONTEXT;
  if (attribute == CU_FUNC_ATTRIBUTE_PREFERRED_SHARED_MEMORY_CARVEOUT) return CUDA_SUCCESS;
  if (attribute != CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES) return CUDA_ERROR_INVALID_VALUE;
  if (value < 0 ||
      value + function->loaded.program->static_shared_bytes > SharedLimit(context->sm)) {
    return Refuse(CUDA_ERROR_INVALID_VALUE,
                  std::to_string(value) + " bytes of dynamic shared memory, but a block of sm_" +
                      std::to_string(context->sm) + " has " +
                      std::to_string(SharedLimit(context->sm)));
  }
  function->loaded.max_dynamic_shared = value;
  return CUDA_SUCCESS;
}

CUresult CUDAAPI cuFuncGetAttribute(int* value, CUfunction_attribute attribute,
                                    CUfunction function) {
  const auto lock = Lock();
  const Program& program = *function->loaded.program;
  switch (attribute) {
    case CU_FUNC_ATTRIBUTE_SHARED_SIZE_BYTES:
      *value = static_cast<int>(program.static_shared_bytes);
      break;
    case CU_FUNC_ATTRIBUTE_LOCAL_SIZE_BYTES:
      *value = static_cast<int>(program.local_bytes);
      break;
    case CU_FUNC_ATTRIBUTE_MAX_THREADS_PER_BLOCK:
      *value = program.max_threads > 0 ? program.max_threads : 1024;
      break;
    case CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES:
      *value = function->loaded.max_dynamic_shared;
      break;
    case CU_FUNC_ATTRIBUTE_PTX_VERSION:
      *value = program.target;
      break;
    // There is no machine code to count registers in.
    case CU_FUNC_ATTRIBUTE_NUM_REGS:
      *value = 0;
      break;
    default:
      return CUDA_ERROR_INVALID_VALUE;
  }
  return CUDA_SUCCESS;
}

CUresult CUDAAPI cuMemAlloc_v2(CUdeviceptr* address, size_t bytes) {
  const auto lock = Lock();
  CUcontext context = CurrentContext();
  if (context == nullptr) return CUDA_ERROR_INVALID_CONTEXT;
  if (context->lost != CUDA_SUCCESS) return context->lost;
  if (CaptureForbids(context))
    return Refuse(CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED, "cuMemAlloc during a capture");
  if (bytes == 0) return CUDA_ERROR_INVALID_VALUE;
  const uint64_t made = context->memory.Allocate(bytes, "cuMemAlloc");
  if (made == 0) return CUDA_ERROR_OUT_OF_MEMORY;
  *address = made;
  ++live_objects;
  return CUDA_SUCCESS;
}

CUresult CUDAAPI cuMemFree_v2(CUdeviceptr address) {
  const auto lock = Lock();
  CUcontext context = CurrentContext();
  if (context == nullptr) return CUDA_ERROR_INVALID_CONTEXT;
  if (address == 0) return CUDA_SUCCESS;
  if (!context->memory.Free(address))
    return Refuse(CUDA_ERROR_INVALID_VALUE, "cuMemFree of an address that is not allocated");
  --live_objects;
  return context->lost;
}

CUresult CUDAAPI cuMemHostAlloc(void** memory, size_t bytes, unsigned) {
  const auto lock = Lock();
  if (CurrentContext() == nullptr) return CUDA_ERROR_INVALID_CONTEXT;
  *memory = std::aligned_alloc(4096, (std::max<size_t>(bytes, 1) + 4095) / 4096 * 4096);
  if (*memory == nullptr) return CUDA_ERROR_OUT_OF_MEMORY;
  Pinned().insert({static_cast<const uint8_t*>(*memory), bytes});
  ++live_objects;
  return CUDA_SUCCESS;
}

CUresult CUDAAPI cuMemFreeHost(void* memory) {
  const auto lock = Lock();
  for (auto it = Pinned().begin(); it != Pinned().end(); ++it) {
    if (it->first != memory) continue;
    Pinned().erase(it);
    std::free(memory);
    --live_objects;
    return CUDA_SUCCESS;
  }
  return CUDA_ERROR_INVALID_VALUE;
}

// From pageable memory the bytes are taken at once; from pinned memory when the copy runs.
CUresult CUDAAPI cuMemcpyHtoDAsync_v2(CUdeviceptr to, const void* from, size_t bytes,
                                      CUstream stream) {
  const auto lock = Lock();
  CUcontext context = CurrentContext();
  std::shared_ptr<std::vector<uint8_t>> staged;
  const bool capturing = stream != nullptr && stream->capturing;
  if (!capturing && !IsPinned(from, bytes)) {
    const auto* begin = static_cast<const uint8_t*>(from);
    staged = std::make_shared<std::vector<uint8_t>>(begin, begin + bytes);
  }
  return Enqueue(stream, [=] {
    CUresult result = CUDA_SUCCESS;
    uint8_t* bytes_there = DeviceBytes(context, to, bytes, "copy to the device", &result);
    if (bytes_there != nullptr)
      std::memcpy(bytes_there, staged != nullptr ? staged->data() : from, bytes);
    return result;
  });
}

// To pageable memory the call waits; to pinned memory it does not.
CUresult CUDAAPI cuMemcpyDtoHAsync_v2(void* to, CUdeviceptr from, size_t bytes, CUstream stream) {
  const auto lock = Lock();
  CUcontext context = CurrentContext();
  const CUresult queued = Enqueue(stream, [=] {
    CUresult result = CUDA_SUCCESS;
    const uint8_t* bytes_there = DeviceBytes(context, from, bytes, "copy from the device", &result);
    if (bytes_there != nullptr) std::memcpy(to, bytes_there, bytes);
    return result;
  });
  if (queued != CUDA_SUCCESS || stream == nullptr || stream->capturing || IsPinned(to, bytes))
    return queued;
  return Flush(stream);
}

CUresult CUDAAPI cuMemcpyDtoDAsync_v2(CUdeviceptr to, CUdeviceptr from, size_t bytes,
                                      CUstream stream) {
  const auto lock = Lock();
  CUcontext context = CurrentContext();
  return Enqueue(stream, [=] {
    CUresult result = CUDA_SUCCESS;
    uint8_t* there = DeviceBytes(context, to, bytes, "copy within the device", &result);
    if (there == nullptr) return result;
    const uint8_t* here = DeviceBytes(context, from, bytes, "copy within the device", &result);
    if (here == nullptr) return result;
    std::memmove(there, here, bytes);
    return result;
  });
}

CUresult CUDAAPI cuMemsetD8Async(CUdeviceptr to, unsigned char value, size_t bytes,
                                 CUstream stream) {
  const auto lock = Lock();
  CUcontext context = CurrentContext();
  return Enqueue(stream, [=] {
    CUresult result = CUDA_SUCCESS;
    uint8_t* there = DeviceBytes(context, to, bytes, "filling", &result);
    if (there != nullptr) std::memset(there, value, bytes);
    return result;
  });
}

CUresult CUDAAPI cuStreamCreate(CUstream* stream, unsigned flags) {
  const auto lock = Lock();
  CUcontext context = CurrentContext();
  if (context == nullptr) return CUDA_ERROR_INVALID_CONTEXT;
  if (context->lost != CUDA_SUCCESS) return context->lost;
  *stream = new CUstream_st{};
  (*stream)->context = context;
  (*stream)->blocking = (flags & CU_STREAM_NON_BLOCKING) == 0;
  context->streams.insert(*stream);
  ++live_objects;
  return CUDA_SUCCESS;
}

CUresult CUDAAPI cuStreamDestroy_v2(CUstream stream) {
  const auto lock = Lock();
  CUcontext context = CurrentContext();
  if (context == nullptr || context->streams.count(stream) == 0) return CUDA_ERROR_INVALID_HANDLE;
  Flush(stream);
  context->streams.erase(stream);
  delete stream;
  --live_objects;
  return CUDA_SUCCESS;
}

CUresult CUDAAPI cuStreamSynchronize(CUstream stream) {
  const auto lock = Lock();
  CUcontext context = CurrentContext();
  if (context == nullptr) return CUDA_ERROR_INVALID_CONTEXT;
  if (stream == nullptr) return context->lost;
  if (stream->capturing) return BreakCapture(stream, "cuStreamSynchronize");
  return Flush(stream);
}

CUresult CUDAAPI cuLaunchKernel(CUfunction function, unsigned grid_x, unsigned grid_y,
                                unsigned grid_z, unsigned block_x, unsigned block_y,
                                unsigned block_z, unsigned shared, CUstream stream,
                                void** parameters, void** extra) {
  const auto lock = Lock();
  CUcontext context = CurrentContext();
  if (context == nullptr) return CUDA_ERROR_INVALID_CONTEXT;
  if (context->lost != CUDA_SUCCESS) return context->lost;
  if (extra != nullptr)
    return Refuse(CUDA_ERROR_INVALID_VALUE, "the emulator takes parameters as pointers only");
  const std::shared_ptr<Program>& program = function->loaded.program;
  Launch launch;
  launch.grid = {grid_x, grid_y, grid_z};
  launch.block = {block_x, block_y, block_z};
  launch.dynamic_shared_bytes = shared;
  const CUresult fits = CheckShape(*program, function->loaded.max_dynamic_shared, context->sm,
                                   launch.grid, launch.block, shared);
  if (fits != CUDA_SUCCESS) return fits;
  launch.parameters.assign(static_cast<size_t>(program->parameter_bytes), 0xFF);
  for (size_t i = 0; i < program->parameters.size(); ++i) {
    const auto& [offset, bytes] = program->parameters[i];
    std::memcpy(launch.parameters.data() + offset, parameters[i], static_cast<size_t>(bytes));
  }
  return Enqueue(stream, [=, module = function->loaded.module] {
    return RunKernel(context, *module, program, launch);
  });
}

}  // extern "C"
