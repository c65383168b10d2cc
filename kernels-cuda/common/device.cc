// SPDX-License-Identifier: Apache-2.0
#include "kernels-cuda/common/device.h"

#include <atomic>
#include <cstring>

namespace nibble::cuda {
namespace {

constexpr int kOldestGeneration = 80;
// Below this a block may always have dynamic shared memory; above it must be asked for.
constexpr unsigned kFreeShared = 48 << 10;
// Copies of up to a quarter of the staging memory go through it; larger ones wait.
constexpr int64_t kStagingBytes = 1 << 20;
constexpr int64_t kLargestStaged = kStagingBytes / 4;

std::atomic<int64_t> live_resources{0};

// Makes the context the calling thread's for as long as it lives, whatever was before.
class Current {
 public:
  Current(const Driver& driver, CUcontext context) : driver_(driver) {
    result_ = driver_.cuCtxPushCurrent_v2(context);
  }
  ~Current() {
    CUcontext popped;
    if (result_ == CUDA_SUCCESS) driver_.cuCtxPopCurrent_v2(&popped);
  }
  Current(const Current&) = delete;
  Current& operator=(const Current&) = delete;

 private:
  const Driver& driver_;
  CUresult result_;
};

// Results after which the context is lost for the rest of the process.
bool EndsContext(CUresult result) {
  switch (result) {
    case CUDA_ERROR_ECC_UNCORRECTABLE:
    case CUDA_ERROR_NVLINK_UNCORRECTABLE:
    case CUDA_ERROR_ILLEGAL_ADDRESS:
    case CUDA_ERROR_LAUNCH_TIMEOUT:
    case CUDA_ERROR_ASSERT:
    case CUDA_ERROR_HARDWARE_STACK_ERROR:
    case CUDA_ERROR_ILLEGAL_INSTRUCTION:
    case CUDA_ERROR_MISALIGNED_ADDRESS:
    case CUDA_ERROR_INVALID_ADDRESS_SPACE:
    case CUDA_ERROR_INVALID_PC:
    case CUDA_ERROR_LAUNCH_FAILED:
    case CUDA_ERROR_CONTEXT_IS_DESTROYED:
    case CUDA_ERROR_EXTERNAL_DEVICE:
    case CUDA_ERROR_UNKNOWN: return true;
    default: return false;
  }
}

// Results of cuModuleLoadData after which another image of the module may do.
bool ImageDoesNotFit(CUresult result) {
  switch (result) {
    case CUDA_ERROR_INVALID_IMAGE:
    case CUDA_ERROR_NO_BINARY_FOR_GPU:
    case CUDA_ERROR_INVALID_PTX:
    case CUDA_ERROR_UNSUPPORTED_PTX_VERSION:
    case CUDA_ERROR_INVALID_SOURCE: return true;
    default: return false;
  }
}

std::string Generation(int capability) {
  return std::to_string(capability / 10) + "." + std::to_string(capability % 10);
}

}  // namespace

int KernelGeneration(int capability) {
  if (capability == 90 || capability == 120) return capability;
  return capability >= 89 ? 89 : 80;
}

const ModuleImage* ChooseImage(const char* module, int capability, bool* cubin) {
  const ModuleImage* best = nullptr;
  for (size_t i = 0; i < kModuleImageCount; ++i) {
    const ModuleImage& image = kModuleImages[i];
    const bool fits = image.target < 90 ? image.target <= capability : image.target == capability;
    if (!fits || std::strcmp(image.name, module) != 0) continue;
    if (best == nullptr || image.target > best->target) best = &image;
  }
  // Machine code runs within a major generation, on the same minor one or a later.
  *cubin = best != nullptr && best->target / 10 == capability / 10;
  return best;
}

int64_t Device::LiveResources() { return live_resources.load(); }

Status Device::Check(CUresult result, const char* what, const char* of) {
  if (result == CUDA_SUCCESS) return Status();
  std::string message = "cuda:" + std::to_string(ordinal_) + ": " + what + of + " failed: " +
                        DriverProblem(driver_, result);
  if (EndsContext(result)) {
    message += "; this process cannot use the device any more";
    health_ = Status(NB_DEVICE_ERROR, message);
  }
  return Status(result == CUDA_ERROR_OUT_OF_MEMORY ? NB_OUT_OF_MEMORY : NB_DEVICE_ERROR, message);
}

Status Device::NotWhileRecording(const char* what) const {
  if (!recording_) return Status();
  return Status(NB_UNSUPPORTED, "cuda:" + std::to_string(ordinal_) + ": " + what +
                                    " cannot be part of a recording");
}

Status Device::Open(const Driver& driver, int ordinal, std::unique_ptr<Device>* device) {
  const std::string name = "cuda:" + std::to_string(ordinal);
  int count = 0;
  CUresult result = driver.cuDeviceGetCount(&count);
  if (result != CUDA_SUCCESS) {
    return Status(NB_DEVICE_ERROR,
                  name + ": counting devices failed: " + DriverProblem(driver, result));
  }
  if (count == 0) return Status(NB_UNSUPPORTED, name + ": the CUDA driver finds no device");
  if (ordinal < 0 || ordinal >= count) {
    return Status(NB_UNSUPPORTED, name + ": the CUDA driver finds " + std::to_string(count) +
                                      " device" + (count == 1 ? "" : "s") + ", cuda:0" +
                                      (count == 1 ? "" : " to cuda:" + std::to_string(count - 1)));
  }
  CUdevice handle;
  result = driver.cuDeviceGet(&handle, ordinal);
  if (result != CUDA_SUCCESS) {
    return Status(NB_DEVICE_ERROR, name + ": cannot be had: " + DriverProblem(driver, result));
  }
  std::unique_ptr<Device> d(new Device(driver, handle, ordinal));
  NIBBLE_CUDA_RETURN_IF_FAILED(d->ReadProperties());
  const int capability = d->properties_.capability;
  if (capability < kOldestGeneration) {
    return Status(NB_UNSUPPORTED, name + ": " + d->properties_.name +
                                      " is of compute capability " + Generation(capability) +
                                      ", but " + Generation(kOldestGeneration) +
                                      " or newer is needed");
  }
  NIBBLE_CUDA_RETURN_IF_FAILED(
      d->Check(driver.cuDevicePrimaryCtxRetain(&d->context_, handle), "opening the device"));
  ++live_resources;
  {
    const Current current(driver, d->context_);
    NIBBLE_CUDA_RETURN_IF_FAILED(d->Check(
        driver.cuStreamCreate(&d->stream_, CU_STREAM_NON_BLOCKING), "making a stream"));
    ++live_resources;
    void* staging = nullptr;
    NIBBLE_CUDA_RETURN_IF_FAILED(d->Check(
        driver.cuMemHostAlloc(&staging, kStagingBytes, 0), "allocating memory for copies"));
    ++live_resources;
    d->staging_ = static_cast<uint8_t*>(staging);
  }
  *device = std::move(d);
  return Status();
}

Status Device::ReadProperties() {
  char name[256] = "";
  size_t bytes = 0;
  int major = 0, minor = 0, l2 = 0;
  const auto attribute = [&](int* value, CUdevice_attribute what) {
    return Check(driver_.cuDeviceGetAttribute(value, what, device_), "asking for an attribute");
  };
  NIBBLE_CUDA_RETURN_IF_FAILED(
      Check(driver_.cuDeviceGetName(name, sizeof(name), device_), "asking for the name"));
  NIBBLE_CUDA_RETURN_IF_FAILED(
      Check(driver_.cuDeviceTotalMem_v2(&bytes, device_), "asking for the memory's size"));
  NIBBLE_CUDA_RETURN_IF_FAILED(attribute(&major, CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR));
  NIBBLE_CUDA_RETURN_IF_FAILED(attribute(&minor, CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR));
  NIBBLE_CUDA_RETURN_IF_FAILED(
      attribute(&properties_.multiprocessors, CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT));
  NIBBLE_CUDA_RETURN_IF_FAILED(
      attribute(&properties_.shared_bytes_per_block,
                CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_BLOCK_OPTIN));
  NIBBLE_CUDA_RETURN_IF_FAILED(attribute(&l2, CU_DEVICE_ATTRIBUTE_L2_CACHE_SIZE));
  properties_.name = name;
  properties_.capability = 10 * major + minor;
  properties_.sm = KernelGeneration(properties_.capability);
  properties_.memory_bytes = static_cast<int64_t>(bytes);
  properties_.l2_bytes = l2;
  return Status();
}

Device::~Device() {
  if (context_ == nullptr) return;
  {
    const Current current(driver_, context_);
    if (recording_) AbandonRecording();
    if (stream_ != nullptr) {
      driver_.cuStreamSynchronize(stream_);
      driver_.cuStreamDestroy_v2(stream_);
      --live_resources;
    }
    for (const auto& module : modules_) {
      driver_.cuModuleUnload(module.second);
      --live_resources;
    }
    if (staging_ != nullptr) {
      driver_.cuMemFreeHost(staging_);
      --live_resources;
    }
  }
  driver_.cuDevicePrimaryCtxRelease_v2(device_);
  --live_resources;
}

// ------------------------------------------------------------------- memory --

Status Device::Allocate(int64_t bytes, DevicePtr* memory) {
  *memory = 0;
  if (!health_.ok()) return health_;
  if (bytes == 0) return Status();
  const Current current(driver_, context_);
  const CUresult result = driver_.cuMemAlloc_v2(memory, static_cast<size_t>(bytes));
  if (result == CUDA_ERROR_OUT_OF_MEMORY) {
    *memory = 0;
    size_t free = 0, total = 0;
    driver_.cuMemGetInfo_v2(&free, &total);
    return Status(NB_OUT_OF_MEMORY,
                  "cuda:" + std::to_string(ordinal_) + ": " + std::to_string(bytes) +
                      " bytes were asked for, " + std::to_string(free) + " of " +
                      std::to_string(total) + " are free");
  }
  NIBBLE_CUDA_RETURN_IF_FAILED(Check(result, "an allocation"));
  ++allocations_;
  ++live_resources;
  return Status();
}

void Device::Free(DevicePtr memory) {
  if (memory == 0) return;
  const Current current(driver_, context_);
  // Work of this stream may still use it, and the driver waits for no stream of its own accord.
  if (!recording_) driver_.cuStreamSynchronize(stream_);
  driver_.cuMemFree_v2(memory);
  --allocations_;
  --live_resources;
}

Status Device::CopyIn(DevicePtr dst, const void* src, int64_t bytes) {
  if (!health_.ok()) return health_;
  NIBBLE_CUDA_RETURN_IF_FAILED(NotWhileRecording("a copy from the host"));
  if (bytes == 0) return Status();
  const Current current(driver_, context_);
  if (bytes <= kLargestStaged) {
    if (staged_ + bytes > kStagingBytes) NIBBLE_CUDA_RETURN_IF_FAILED(Synchronize());
    std::memcpy(staging_ + staged_, src, static_cast<size_t>(bytes));
    NIBBLE_CUDA_RETURN_IF_FAILED(
        Check(driver_.cuMemcpyHtoDAsync_v2(dst, staging_ + staged_, static_cast<size_t>(bytes),
                                           stream_),
              "a copy to the device"));
    staged_ += (bytes + 63) / 64 * 64;
    return Status();
  }
  NIBBLE_CUDA_RETURN_IF_FAILED(
      Check(driver_.cuMemcpyHtoDAsync_v2(dst, src, static_cast<size_t>(bytes), stream_),
            "a copy to the device"));
  return Synchronize();
}

Status Device::CopyOut(void* dst, DevicePtr src, int64_t bytes) {
  if (!health_.ok()) return health_;
  NIBBLE_CUDA_RETURN_IF_FAILED(NotWhileRecording("a copy to the host"));
  const Current current(driver_, context_);
  if (bytes > 0) {
    NIBBLE_CUDA_RETURN_IF_FAILED(
        Check(driver_.cuMemcpyDtoHAsync_v2(dst, src, static_cast<size_t>(bytes), stream_),
              "a copy from the device"));
  }
  return Synchronize();
}

Status Device::CopyWithin(DevicePtr dst, DevicePtr src, int64_t bytes) {
  if (!health_.ok()) return health_;
  if (bytes == 0) return Status();
  const Current current(driver_, context_);
  return Check(driver_.cuMemcpyDtoDAsync_v2(dst, src, static_cast<size_t>(bytes), stream_),
               "a copy within the device");
}

Status Device::Fill(DevicePtr dst, uint8_t value, int64_t bytes) {
  if (!health_.ok()) return health_;
  if (bytes == 0) return Status();
  const Current current(driver_, context_);
  return Check(driver_.cuMemsetD8Async(dst, value, static_cast<size_t>(bytes), stream_),
               "filling memory");
}

Status Device::Synchronize() {
  if (!health_.ok()) return health_;
  NIBBLE_CUDA_RETURN_IF_FAILED(NotWhileRecording("waiting"));
  const Current current(driver_, context_);
  NIBBLE_CUDA_RETURN_IF_FAILED(Check(driver_.cuStreamSynchronize(stream_), "a kernel"));
  staged_ = 0;
  return Status();
}

void Device::WaitForStream() const {
  const Current current(driver_, context_);
  driver_.cuStreamSynchronize(stream_);
}

// ----------------------------------------------------------------- launches --

Status Device::LoadModule(const char* name, CUmodule* module) {
  const auto known = modules_.find(name);
  if (known != modules_.end()) {
    *module = known->second;
    return Status();
  }
  bool cubin = false;
  const ModuleImage* image = ChooseImage(name, properties_.capability, &cubin);
  if (image == nullptr) {
    return Status(NB_UNSUPPORTED, "cuda:" + std::to_string(ordinal_) + ": module " + name +
                                      " is not compiled for compute capability " +
                                      Generation(properties_.capability));
  }
  CUresult result = CUDA_ERROR_INVALID_IMAGE;
  if (cubin) result = driver_.cuModuleLoadData(module, image->cubin);
  // The emulator runs PTX alone, and a driver may be newer than any machine code here.
  if (ImageDoesNotFit(result) && image->ptx != nullptr) {
    result = driver_.cuModuleLoadData(module, image->ptx);
  }
  NIBBLE_CUDA_RETURN_IF_FAILED(Check(result, "loading module ", name));
  ++live_resources;
  modules_[name] = *module;
  return Status();
}

Status Device::Find(const KernelId& kernel, Function** function) {
  const auto key = std::make_pair(kernel.module, kernel.name);
  const auto known = functions_.find(key);
  if (known != functions_.end()) {
    *function = &known->second;
    return Status();
  }
  CUmodule module;
  NIBBLE_CUDA_RETURN_IF_FAILED(LoadModule(kernel.module, &module));
  Function found;
  NIBBLE_CUDA_RETURN_IF_FAILED(
      Check(driver_.cuModuleGetFunction(&found.function, module, kernel.name), "finding kernel ",
            kernel.name));
  *function = &(functions_[key] = found);
  return Status();
}

bool Device::Has(const KernelId& kernel) {
  if (!health_.ok()) return false;
  const Current current(driver_, context_);
  Function* f = nullptr;
  return Find(kernel, &f).ok();
}

Status Device::Launch(const KernelId& kernel, const LaunchShape& shape, void** arguments) {
  if (!health_.ok()) return health_;
  const Current current(driver_, context_);
  Function* f = nullptr;
  NIBBLE_CUDA_RETURN_IF_FAILED(Find(kernel, &f));
  static_assert(kFreeShared == 48 << 10, "as Function starts");
  if (shape.dynamic_shared_bytes > f->shared_limit) {
    NIBBLE_CUDA_RETURN_IF_FAILED(
        Check(driver_.cuFuncSetAttribute(f->function,
                                         CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES,
                                         static_cast<int>(shape.dynamic_shared_bytes)),
              "asking for shared memory for kernel ", kernel.name));
    f->shared_limit = shape.dynamic_shared_bytes;
  }
  return Check(driver_.cuLaunchKernel(f->function, shape.grid_x, shape.grid_y, shape.grid_z,
                                      shape.block_x, shape.block_y, shape.block_z,
                                      shape.dynamic_shared_bytes, stream_, arguments, nullptr),
               "launching kernel ", kernel.name);
}

Status Device::Time(const std::function<Status()>& work, double* seconds) {
  if (!health_.ok()) return health_;
  NIBBLE_CUDA_RETURN_IF_FAILED(NotWhileRecording("a measurement"));
  const Current current(driver_, context_);
  CUevent begin = nullptr, end = nullptr;
  const auto measure = [&]() -> Status {
    float milliseconds = 0;
    NIBBLE_CUDA_RETURN_IF_FAILED(Check(driver_.cuEventCreate(&begin, 0), "making an event"));
    NIBBLE_CUDA_RETURN_IF_FAILED(Check(driver_.cuEventCreate(&end, 0), "making an event"));
    NIBBLE_CUDA_RETURN_IF_FAILED(Check(driver_.cuEventRecord(begin, stream_), "an event"));
    NIBBLE_CUDA_RETURN_IF_FAILED(work());
    NIBBLE_CUDA_RETURN_IF_FAILED(Check(driver_.cuEventRecord(end, stream_), "an event"));
    NIBBLE_CUDA_RETURN_IF_FAILED(Synchronize());
    NIBBLE_CUDA_RETURN_IF_FAILED(
        Check(driver_.cuEventElapsedTime(&milliseconds, begin, end), "timing"));
    *seconds = milliseconds * 1e-3;
    return Status();
  };
  const Status status = measure();
  if (begin != nullptr) driver_.cuEventDestroy_v2(begin);
  if (end != nullptr) driver_.cuEventDestroy_v2(end);
  return status;
}

// ------------------------------------------------------------------- graphs --

Status Device::BeginRecording() {
  if (!health_.ok()) return health_;
  NIBBLE_CUDA_RETURN_IF_FAILED(NotWhileRecording("another recording"));
  const Current current(driver_, context_);
  // Relaxed: a kernel may be launched for the first time, which loads its module, and scratch
  // memory may grow.
  NIBBLE_CUDA_RETURN_IF_FAILED(
      Check(driver_.cuStreamBeginCapture_v2(stream_, CU_STREAM_CAPTURE_MODE_RELAXED),
            "beginning to record"));
  recording_ = true;
  return Status();
}

Status Device::EndRecording(CUgraphExec* graph) {
  *graph = nullptr;
  if (!recording_) return Status(NB_INVALID_ARGUMENT, "nothing is being recorded");
  recording_ = false;
  const Current current(driver_, context_);
  CUgraph recorded = nullptr;
  NIBBLE_CUDA_RETURN_IF_FAILED(
      Check(driver_.cuStreamEndCapture(stream_, &recorded), "ending a recording"));
  const CUresult result = driver_.cuGraphInstantiateWithFlags(graph, recorded, 0);
  driver_.cuGraphDestroy(recorded);
  NIBBLE_CUDA_RETURN_IF_FAILED(Check(result, "making a graph"));
  ++live_resources;
  return Status();
}

void Device::AbandonRecording() {
  if (!recording_) return;
  recording_ = false;
  const Current current(driver_, context_);
  CUgraph recorded = nullptr;
  if (driver_.cuStreamEndCapture(stream_, &recorded) == CUDA_SUCCESS && recorded != nullptr) {
    driver_.cuGraphDestroy(recorded);
  }
}

Status Device::LaunchGraph(CUgraphExec graph) {
  if (!health_.ok()) return health_;
  NIBBLE_CUDA_RETURN_IF_FAILED(NotWhileRecording("a graph"));
  const Current current(driver_, context_);
  return Check(driver_.cuGraphLaunch(graph, stream_), "launching a graph");
}

void Device::DestroyGraph(CUgraphExec graph) {
  if (graph == nullptr) return;
  const Current current(driver_, context_);
  if (!recording_) driver_.cuStreamSynchronize(stream_);
  driver_.cuGraphExecDestroy(graph);
  --live_resources;
}

}  // namespace nibble::cuda
