// SPDX-License-Identifier: Apache-2.0
//
// The device layer over the emulated driver: which driver is refused and why, which image a GPU
// gets, and what memory, copies, launches and recordings do when the driver says no.
#include "kernels-cuda/common/device.h"

#include <gtest/gtest.h>

#include <cstdlib>
#include <cstring>
#include <string>
#include <vector>

#include "kernels-cuda/emulator/emulator.h"

namespace nibble::cuda {
namespace {

void ExpectStatus(const Status& status, nb_status code, std::initializer_list<const char*> parts) {
  EXPECT_EQ(status.code(), code) << status.message();
  for (const char* part : parts) {
    EXPECT_NE(status.message().find(part), std::string::npos)
        << "\"" << part << "\" is missing in: " << status.message();
  }
}

// ------------------------------------------------------------------ drivers --

TEST(CudaDriver, ReasonsWhyThereIsNone) {
  Driver driver;
  ExpectStatus(LoadDriver("/nowhere/libcuda.so.1", &driver), NB_UNSUPPORTED,
               {"no CUDA driver", "/nowhere/libcuda.so.1"});
  ExpectStatus(LoadDriver(NIBBLE_DRIVER_WITHOUT_VERSION, &driver), NB_UNSUPPORTED,
               {"is no CUDA driver"});
  ExpectStatus(LoadDriver(NIBBLE_DRIVER_TOO_OLD, &driver), NB_UNSUPPORTED,
               {"too old", "for CUDA 11.8", "or newer is needed"});
  ExpectStatus(LoadDriver(NIBBLE_DRIVER_WITHOUT_DEVICE, &driver), NB_UNSUPPORTED,
               {"finds no device"});
  ExpectStatus(LoadDriver(NIBBLE_DRIVER_MISMATCHED, &driver), NB_UNSUPPORTED,
               {"cannot start", "kernel and user mode versions differ"});
  ExpectStatus(LoadDriver(NIBBLE_DRIVER_INCOMPLETE, &driver), NB_UNSUPPORTED,
               {"has no function cuDeviceGetCount"});
  EXPECT_EQ(driver.cuInit, nullptr) << "a refused driver was handed out";
  ExpectStatus(LoadDriver(NIBBLE_EMULATED_CUDA_FILE, &driver), NB_OK, {});
  EXPECT_NE(driver.cuLaunchKernel, nullptr);
}

// ------------------------------------------------------------------- images --

TEST(CudaImages, EachGenerationGetsWhatItCanRun) {
  const char* module = "embedding_ids";
  int built = 0;
  for (size_t i = 0; i < kModuleImageCount; ++i) {
    built += std::strcmp(kModuleImages[i].name, module) == 0;
  }
  ASSERT_GT(built, 0);
  if (built < 4) GTEST_SKIP() << "NIBBLE_CUDA_TARGETS leaves generations out";
  struct Case {
    int sm, target;
    bool cubin;
  };
  for (const Case& c : {Case{80, 80, true}, Case{86, 80, true}, Case{87, 80, true},
                        Case{89, 89, true}, Case{90, 90, true}, Case{100, 89, false},
                        Case{103, 89, false}, Case{120, 120, true}, Case{121, 89, false}}) {
    EXPECT_EQ(KernelGeneration(c.sm), c.target);
    bool cubin = !c.cubin;
    const ModuleImage* image = ChooseImage(module, c.sm, &cubin);
    ASSERT_NE(image, nullptr) << c.sm;
    EXPECT_EQ(image->target, c.target) << c.sm;
    EXPECT_EQ(cubin, c.cubin) << c.sm;
    EXPECT_EQ(std::memcmp(image->cubin, "\177ELF", 4), 0);
    EXPECT_NE(std::strstr(image->ptx, ".entry"), nullptr);
  }
  bool cubin = false;
  EXPECT_EQ(ChooseImage(module, 75, &cubin), nullptr);
  EXPECT_EQ(ChooseImage("no_such_module", 89, &cubin), nullptr);
}

// ------------------------------------------------------------------ devices --

// A driver that behaves as the emulated one but for what a test replaces.
Driver TestDriver() { return emulator::EmulatedDriver(89); }

class CudaDevice : public ::testing::Test {
 protected:
  void SetUp() override { live_ = emulator::LiveObjects(), resources_ = Device::LiveResources(); }
  void TearDown() override {
    EXPECT_EQ(emulator::LiveObjects(), live_) << "left in the driver";
    EXPECT_EQ(Device::LiveResources(), resources_);
  }
  int64_t live_ = 0, resources_ = 0;
};

std::unique_ptr<Device> Open(const Driver& driver) {
  std::unique_ptr<Device> device;
  const Status status = Device::Open(driver, 0, &device);
  EXPECT_TRUE(status.ok()) << status.message();
  return device;
}

TEST_F(CudaDevice, TellsWhatItIs) {
  const Driver driver = TestDriver();
  const auto device = Open(driver);
  EXPECT_EQ(device->properties().capability, 89);
  EXPECT_EQ(device->properties().sm, 89);
  EXPECT_GT(device->properties().multiprocessors, 0);
  EXPECT_GE(device->properties().shared_bytes_per_block, 48 << 10);
  EXPECT_GT(device->properties().memory_bytes, 0);
  EXPECT_GT(device->properties().l2_bytes, 0);
  EXPECT_FALSE(device->properties().name.empty());
}

TEST_F(CudaDevice, WhichDevicesAreRefused) {
  Driver driver = TestDriver();
  std::unique_ptr<Device> device;
  ExpectStatus(Device::Open(driver, 1, &device), NB_UNSUPPORTED,
               {"cuda:1", "finds 1 device, cuda:0"});
  ExpectStatus(Device::Open(driver, -1, &device), NB_UNSUPPORTED, {"cuda:-1"});
  driver.cuDeviceGetCount = [](int* count) { return *count = 0, CUDA_SUCCESS; };
  ExpectStatus(Device::Open(driver, 0, &device), NB_UNSUPPORTED, {"finds no device"});
  driver = TestDriver();
  driver.cuDeviceGetAttribute = [](int* value, CUdevice_attribute a, CUdevice) {
    *value = a == CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR ? 7 : 5;
    return CUDA_SUCCESS;
  };
  ExpectStatus(Device::Open(driver, 0, &device), NB_UNSUPPORTED,
               {"compute capability 7.5", "8.0 or newer is needed"});
  driver = TestDriver();
  driver.cuDevicePrimaryCtxRetain = [](CUcontext*, CUdevice) { return CUDA_ERROR_OUT_OF_MEMORY; };
  ExpectStatus(Device::Open(driver, 0, &device), NB_OUT_OF_MEMORY, {"opening the device"});
  driver = TestDriver();
  driver.cuStreamCreate = [](CUstream*, unsigned) { return CUDA_ERROR_INVALID_VALUE; };
  ExpectStatus(Device::Open(driver, 0, &device), NB_DEVICE_ERROR,
               {"making a stream failed: CUDA_ERROR_INVALID_VALUE"});
  driver = TestDriver();
  driver.cuMemHostAlloc = [](void**, size_t, unsigned) { return CUDA_ERROR_OUT_OF_MEMORY; };
  ExpectStatus(Device::Open(driver, 0, &device), NB_OUT_OF_MEMORY, {"memory for copies"});
  EXPECT_EQ(device, nullptr);
}

TEST_F(CudaDevice, MemoryAndCopies) {
  const Driver driver = TestDriver();
  const auto device = Open(driver);
  DevicePtr none = 1, a = 0, b = 0;
  ASSERT_TRUE(device->Allocate(0, &none).ok());
  EXPECT_EQ(none, 0u);
  device->Free(0);
  // Sizes around those of the staging memory, several times, so that it wraps.
  for (const int64_t count : {1, 1000, 65536, 65537, 300000}) {
    std::vector<int32_t> values(static_cast<size_t>(count)), back(values.size());
    for (size_t i = 0; i < values.size(); ++i) values[i] = static_cast<int32_t>(i * 2654435761u);
    ASSERT_TRUE(device->Allocate(4 * count, &a).ok());
    ASSERT_TRUE(device->Allocate(4 * count, &b).ok());
    EXPECT_EQ(device->allocation_count(), 2);
    EXPECT_EQ(a % 256, 0u);
    for (int round = 0; round < 6; ++round) {
      std::vector<int32_t> source = values;
      ASSERT_TRUE(device->CopyIn(a, source.data(), 4 * count).ok());
      source.assign(source.size(), -1);  // may change once the call has returned
      ASSERT_TRUE(device->CopyWithin(b, a, 4 * count).ok());
      ASSERT_TRUE(device->CopyOut(back.data(), b, 4 * count).ok());
      ASSERT_EQ(back, values);
    }
    ASSERT_TRUE(device->Fill(a, 0x5A, 4 * count).ok());
    ASSERT_TRUE(device->CopyOut(back.data(), a, 4 * count).ok());
    EXPECT_EQ(back.back(), 0x5A5A5A5A);
    device->Free(a);
    device->Free(b);
  }
  EXPECT_EQ(device->allocation_count(), 0);
  ExpectStatus(device->Allocate(int64_t{1} << 50, &a), NB_OUT_OF_MEMORY,
               {"1125899906842624 bytes were asked for", "are free"});
  EXPECT_EQ(a, 0u);
  EXPECT_TRUE(device->health().ok()) << "too little memory is no reason to give up";
}

// clamp_ids (plugin/embedding_ids.cu): an id below 3 stays, another becomes 0.
Status Clamp(Device& device, DevicePtr ids, DevicePtr clamped, int64_t count) {
  const int32_t rows = 3;
  return LaunchKernel(device, {"embedding_ids", "clamp_ids"}, {1, 1, 1, 32}, ids, clamped, count,
                      rows);
}

TEST_F(CudaDevice, Launches) {
  const Driver driver = TestDriver();
  const auto device = Open(driver);
  DevicePtr a = 0;
  ASSERT_TRUE(device->Allocate(32, &a).ok());
  const std::vector<int32_t> ids = {0, 1, 2, 3, -1, 2, 1 << 30, 0};
  std::vector<int32_t> back(8);
  ASSERT_TRUE(device->CopyIn(a, ids.data(), 32).ok());
  ASSERT_TRUE(Clamp(*device, a, a, 8).ok());
  ASSERT_TRUE(device->CopyOut(back.data(), a, 32).ok());
  EXPECT_EQ(back, (std::vector<int32_t>{0, 1, 2, 0, 0, 2, 0, 0}));
  ExpectStatus(device->Launch({"embedding_ids", "no_such_kernel"}, {}, nullptr), NB_DEVICE_ERROR,
               {"finding kernel no_such_kernel", "CUDA_ERROR_NOT_FOUND"});
  ExpectStatus(device->Launch({"no_such_module", "kernel"}, {}, nullptr), NB_UNSUPPORTED,
               {"module no_such_module is not compiled for compute capability 8.9"});
  LaunchShape shape{1, 1, 1, 2048};
  int64_t count = 8;
  int32_t rows = 3;
  void* arguments[] = {&a, &a, &count, &rows};
  ExpectStatus(device->Launch({"embedding_ids", "clamp_ids"}, shape, arguments), NB_DEVICE_ERROR,
               {"launching kernel clamp_ids failed: CUDA_ERROR_INVALID_VALUE"});
  // Larger dynamic shared memory than a block has without asking: asked for, and granted.
  shape = {1, 1, 1, 32, 1, 1, 64 << 10};
  EXPECT_TRUE(device->Launch({"embedding_ids", "clamp_ids"}, shape, arguments).ok());
  EXPECT_TRUE(device->Synchronize().ok());
  EXPECT_TRUE(device->health().ok());
  device->Free(a);
}

void LoseTheDevice() {
  const Driver driver = TestDriver();
  {
    const auto device = Open(driver), other = Open(driver);
    DevicePtr a = 0;
    ASSERT_TRUE(device->Allocate(32, &a).ok());
    EXPECT_TRUE(Clamp(*device, a + 32, a, 8).ok()) << "reads past the end, but later";
    const Status status = device->Synchronize();
    ExpectStatus(status, NB_DEVICE_ERROR,
                 {"cuda:0: a kernel failed: CUDA_ERROR_LAUNCH_FAILED", "clamp_ids",
                  "cannot use the device any more"});
    int32_t x = 0;
    DevicePtr b = 0;
    for (const Status& later :
         {device->Synchronize(), device->CopyIn(a, &x, 4), device->CopyOut(&x, a, 4),
          device->Fill(a, 0, 4), device->CopyWithin(a, a + 16, 4), device->Allocate(4, &b),
          Clamp(*device, a, a, 8), device->BeginRecording(), device->LaunchGraph(nullptr)}) {
      EXPECT_EQ(later.code(), NB_DEVICE_ERROR);
      EXPECT_EQ(later.message(), status.message());
    }
    ExpectStatus(other->Synchronize(), NB_DEVICE_ERROR, {"cuda:0: "});
    device->Free(a);
  }
  // All owners gone, the GPU is usable again.
  const auto device = Open(driver);
  ASSERT_NE(device, nullptr);
  EXPECT_TRUE(device->Synchronize().ok());
}

// In a process of its own: the devices that other tests keep open would be lost with this one.
TEST_F(CudaDevice, AKernelsErrorStays) {
  ::testing::FLAGS_gtest_death_test_style = "threadsafe";
  EXPECT_EXIT(
      {
        LoseTheDevice();
        std::exit(::testing::Test::HasFailure() ? 1 : 0);
      },
      ::testing::ExitedWithCode(0), "");
}

TEST_F(CudaDevice, ALaunchThatFailsAtOnce) {
  Driver driver = TestDriver();
  driver.cuLaunchKernel = [](CUfunction, unsigned, unsigned, unsigned, unsigned, unsigned,
                             unsigned, unsigned, CUstream, void**,
                             void**) { return CUDA_ERROR_LAUNCH_OUT_OF_RESOURCES; };
  const auto device = Open(driver);
  ExpectStatus(Clamp(*device, 0, 0, 0), NB_DEVICE_ERROR, {"launching kernel clamp_ids failed"});
  EXPECT_TRUE(device->health().ok()) << "this one does not end the context";
}

TEST_F(CudaDevice, Recordings) {
  const Driver driver = TestDriver();
  const auto device = Open(driver);
  DevicePtr a = 0, b = 0;
  ASSERT_TRUE(device->Allocate(32, &a).ok());
  ASSERT_TRUE(device->Allocate(32, &b).ok());
  const std::vector<int32_t> ids = {0, 1, 2, 3, -1, 2, 1 << 30, 0};
  std::vector<int32_t> back(8);
  CUgraphExec graph = nullptr;
  ASSERT_TRUE(device->Fill(b, 0, 32).ok());
  ASSERT_TRUE(device->BeginRecording().ok());
  ExpectStatus(device->BeginRecording(), NB_UNSUPPORTED, {"another recording"});
  ASSERT_TRUE(Clamp(*device, a, a, 8).ok());
  ASSERT_TRUE(device->CopyWithin(b, a, 32).ok());
  ExpectStatus(device->CopyIn(a, ids.data(), 32), NB_UNSUPPORTED, {"a copy from the host"});
  ExpectStatus(device->CopyOut(back.data(), a, 32), NB_UNSUPPORTED, {"a copy to the host"});
  ExpectStatus(device->Synchronize(), NB_UNSUPPORTED, {"waiting"});
  ASSERT_TRUE(device->EndRecording(&graph).ok());
  ASSERT_TRUE(device->CopyOut(back.data(), b, 32).ok());
  EXPECT_EQ(back, std::vector<int32_t>(8)) << "ran while it was recorded";
  for (int i = 0; i < 2; ++i) {
    ASSERT_TRUE(device->CopyIn(a, ids.data(), 32).ok());
    ASSERT_TRUE(device->Fill(b, 0xFF, 32).ok());
    ASSERT_TRUE(device->LaunchGraph(graph).ok());
    ASSERT_TRUE(device->CopyOut(back.data(), b, 32).ok());
    EXPECT_EQ(back, (std::vector<int32_t>{0, 1, 2, 0, 0, 2, 0, 0}));
  }
  device->DestroyGraph(graph);
  device->DestroyGraph(nullptr);
  // Given up, and begun again.
  ASSERT_TRUE(device->BeginRecording().ok());
  device->AbandonRecording();
  ExpectStatus(device->EndRecording(&graph), NB_INVALID_ARGUMENT, {"nothing is being recorded"});
  EXPECT_TRUE(Clamp(*device, a, a, 8).ok());
  EXPECT_TRUE(device->Synchronize().ok());
  device->Free(a);
  device->Free(b);
}

}  // namespace
}  // namespace nibble::cuda
