// SPDX-License-Identifier: Apache-2.0
//
// One CUDA device: memory, copies, and launches of the kernels embedded in this library. All
// work is ordered: one stream a Device, so that a launch sees what every earlier one wrote.
// A Device serves one thread at a time. Several of one GPU live side by side: they share its
// primary context, so that memory of one is valid in the launches of another, but not the order
// of their work.
//
// What a kernel does wrong (a bad address, a trap) ends the GPU's context: every later call
// returns the same NB_DEVICE_ERROR, and nothing but freeing works on the Device any more.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <utility>

#include "kernels-cuda/common/driver.h"
#include "kernels-cuda/common/modules.h"

namespace nibble::cuda {

using DevicePtr = CUdeviceptr;  // 64 bits; 0 stands for "none"

struct DeviceProperties {
  std::string name;
  int capability = 0;  // 10 * major + minor of the compute capability: 80, 86, 89, 90, 120, ...
  int sm = 0;          // the generation of kernels that it runs: 80, 89, 90 or 120
  int multiprocessors = 0;
  int shared_bytes_per_block = 0;  // that one block may ask for
  int64_t memory_bytes = 0;
  int64_t l2_bytes = 0;
};

// A kernel: `name` (extern "C") of module `module`, which is the .cu file's name without suffix.
// Both are string literals: they are remembered by their address.
struct KernelId {
  const char* module;
  const char* name;
};

struct LaunchShape {
  unsigned grid_x = 1, grid_y = 1, grid_z = 1;
  unsigned block_x = 1, block_y = 1, block_z = 1;
  unsigned dynamic_shared_bytes = 0;  // more than 48 KiB is asked for as the driver wants it
};

class Device {
 public:
  // NB_UNSUPPORTED where ordinal does not exist or its generation has no kernels (below 80).
  static Status Open(const Driver& driver, int ordinal, std::unique_ptr<Device>* device);
  // Waits for the device's work; memory that is still allocated stays so.
  ~Device();
  Device(const Device&) = delete;
  Device& operator=(const Device&) = delete;

  const DeviceProperties& properties() const { return properties_; }
  const Driver& driver() const { return driver_; }
  CUstream stream() const { return stream_; }
  int ordinal() const { return ordinal_; }

  // bytes >= 0, on a boundary of 256 bytes; 0 bytes give 0. NB_OUT_OF_MEMORY says how many
  // were asked for and how many are free.
  Status Allocate(int64_t bytes, DevicePtr* memory);
  void Free(DevicePtr memory);  // 0 is harmless; waits for the device
  int64_t allocation_count() const { return allocations_; }  // not yet freed

  // On return src may change. dst and src must hold bytes.
  Status CopyIn(DevicePtr dst, const void* src, int64_t bytes);
  Status CopyOut(void* dst, DevicePtr src, int64_t bytes);  // waits for all earlier work
  Status CopyWithin(DevicePtr dst, DevicePtr src, int64_t bytes);
  Status Fill(DevicePtr dst, uint8_t value, int64_t bytes);
  Status Synchronize();  // waits, and reports what a kernel did wrong
  void WaitForStream() const;  // waits, and says nothing; any thread may call it

  // arguments: one pointer to each of the kernel's parameters. Returns at once.
  Status Launch(const KernelId& kernel, const LaunchShape& shape, void** arguments);

  // Whether the kernel can be launched here: an emulated device lacks those with instructions that
  // the emulator does not know.
  bool Has(const KernelId& kernel);

  // Runs work, which launches on this device, and waits. *seconds: what the device spent on it, by
  // events, which tell half microseconds apart.
  Status Time(const std::function<Status()>& work, double* seconds);

  // Between the two, launches, CopyWithin and Fill are recorded and not run; CopyIn, CopyOut and
  // Synchronize fail with NB_UNSUPPORTED; Allocate allocates at once. After any failure the
  // recording is of no use, but must be ended (or abandoned, which cannot fail) all the same.
  Status BeginRecording();
  Status EndRecording(CUgraphExec* graph);  // the caller's, for DestroyGraph
  void AbandonRecording();
  bool recording() const { return recording_; }
  Status LaunchGraph(CUgraphExec graph);  // returns at once, ordered like a launch
  void DestroyGraph(CUgraphExec graph);   // null is harmless

  // NB_OK, or what made this device unusable.
  const Status& health() const { return health_; }

  // Allocations, streams, modules, graphs and contexts that all Devices of this process hold at
  // the moment: 0 when all are closed and their memory freed.
  static int64_t LiveResources();

 private:
  struct Function {
    CUfunction function = nullptr;
    unsigned shared_limit = 48 << 10;  // that a launch may ask for so far
  };

  Device(const Driver& driver, CUdevice device, int ordinal)
      : driver_(driver), device_(device), ordinal_(ordinal) {}
  Status ReadProperties();
  Status Check(CUresult result, const char* what, const char* of = "");
  Status NotWhileRecording(const char* what) const;
  Status LoadModule(const char* name, CUmodule* module);
  Status Find(const KernelId& kernel, Function** function);

  const Driver& driver_;
  CUdevice device_;
  int ordinal_;
  CUcontext context_ = nullptr;
  CUstream stream_ = nullptr;
  DeviceProperties properties_;
  Status health_;
  int64_t allocations_ = 0;
  bool recording_ = false;
  uint8_t* staging_ = nullptr;  // pinned memory that CopyIn goes through
  int64_t staged_ = 0;          // bytes of it that the device may still read
  std::map<std::string, CUmodule> modules_;
  std::map<std::pair<const char*, const char*>, Function> functions_;
};

// device.Launch with the parameters as they are; each must have the exact type of the kernel's.
template <class... Parameters>
Status LaunchKernel(Device& device, const KernelId& kernel, const LaunchShape& shape,
                    Parameters... parameters) {
  void* arguments[] = {static_cast<void*>(&parameters)..., nullptr};
  return device.Launch(kernel, shape, arguments);
}

// The generation of kernels for a GPU of this compute capability (80 or above): 90 (sm_90a) and
// 120 (sm_120a) for these alone, whose own instructions no other generation has; else the latest
// of 80 and 89 that is not newer.
int KernelGeneration(int capability);

// The image of a module for a GPU of this compute capability. cubin says whether its machine code
// fits; else the driver must compile its PTX. Null where there is none.
const ModuleImage* ChooseImage(const char* module, int capability, bool* cubin);

}  // namespace nibble::cuda
