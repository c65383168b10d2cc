// SPDX-License-Identifier: Apache-2.0
#include "kernels-cuda/testing/emulated_device.h"

#include <cstdio>
#include <cstdlib>
#include <map>
#include <memory>

namespace nibble::cuda {

namespace {

// The GPU that NIBBLE_TEST_DEVICE names, or null.
Device* RealDevice() {
  static Device* const device = []() -> Device* {
    const char* ordinal = std::getenv("NIBBLE_TEST_DEVICE");
    if (ordinal == nullptr || ordinal[0] == 0) return nullptr;
    const Driver* driver = nullptr;
    std::unique_ptr<Device> opened;
    Status status = OpenDriver(&driver);
    if (status.ok()) status = Device::Open(*driver, std::atoi(ordinal), &opened);
    if (!status.ok()) {
      std::fprintf(stderr, "NIBBLE_TEST_DEVICE: %s\n", status.message().c_str());
      std::abort();  // a test cannot go on without
    }
    std::printf("on %s\n", opened->properties().name.c_str());
    return opened.release();
  }();
  return device;
}

}  // namespace

Device& EmulatedDevice(int sm) {
  if (RealDevice() != nullptr) return *RealDevice();
  static auto* devices = new std::map<int, std::unique_ptr<Device>>;
  std::unique_ptr<Device>& device = (*devices)[sm];
  if (device != nullptr && (!device->health().ok() || emulator::IsLost(sm))) device.reset();
  if (device == nullptr) {
    const Status status = Device::Open(emulator::EmulatedDriver(sm), 0, &device);
    if (!status.ok()) {
      std::fprintf(stderr, "no emulated device: %s\n", status.message().c_str());
      std::abort();  // a test cannot go on without
    }
  }
  return *device;
}

std::vector<int> Generations() {
  if (RealDevice() != nullptr) {
    // Of the compiled targets the newest that is not newer than the GPU.
    int target = kEmulatedGenerations[0];
    for (const int sm : kEmulatedGenerations) {
      if (sm <= RealDevice()->properties().sm) target = sm;
    }
    return {target};
  }
  const char* only = std::getenv("NIBBLE_TEST_SM");
  if (only != nullptr && only[0] != 0) return {std::atoi(only)};
  return std::vector<int>(std::begin(kEmulatedGenerations), std::end(kEmulatedGenerations));
}

uint64_t TestSeed() {
  static const uint64_t kSeed = [] {
    const char* text = std::getenv("NIBBLE_TEST_SEED");
    const uint64_t seed =
        text != nullptr && text[0] != 0 ? std::strtoull(text, nullptr, 0) : 20250601;
    std::printf("NIBBLE_TEST_SEED=%llu NIBBLE_EMULATOR_SEED=%llu\n",
                static_cast<unsigned long long>(seed),
                static_cast<unsigned long long>(emulator::GetOptions().seed));
    return seed;
  }();
  return kSeed;
}

::testing::AssertionResult Succeeded(const Status& status) {
  if (status.ok()) return ::testing::AssertionSuccess();
  return ::testing::AssertionFailure() << status.message();
}

}  // namespace nibble::cuda
