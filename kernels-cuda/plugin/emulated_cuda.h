// SPDX-License-Identifier: Apache-2.0
//
// For tests: the C ABI over the plug-in over the emulated driver, as an application would have it
// with NIBBLE_CUDA_DRIVER set.
#pragma once

#include <dlfcn.h>

#include <cstdlib>
#include <string>

#include "kernels-cuda/plugin/backend.h"
#include "native/tests/abi_test.h"

namespace nibble {

inline const cuda::Backend* PluginTable() {
  static const cuda::Backend* table = [] {
    void* library = dlopen(NIBBLE_CUDA_LIBRARY_FILE, RTLD_NOW | RTLD_LOCAL);
    EXPECT_NE(library, nullptr) << dlerror();
    return reinterpret_cast<const cuda::Backend* (*)()>(dlsym(library, cuda::kBackendSymbol))();
  }();
  return table;
}

class EmulatedCuda : public ::testing::Test {
 protected:
  void SetUp() override {
    // Random inputs, but the same ones in each run: which codes activations round to must not
    // differ from run to run.
    setenv("NIBBLE_TEST_SEED", "20250601", 0);
    setenv("NIBBLE_CUDA_DRIVER", NIBBLE_EMULATED_CUDA_FILE, 1);
    UseGeneration(89);
    ASSERT_EQ(nb_cuda_open(NIBBLE_CUDA_LIBRARY_FILE), NB_OK) << nb_last_error();
    ASSERT_EQ(PluginTable()->live_resources(), 0) << "an earlier test left something";
  }
  void TearDown() override {
    unsetenv("NIBBLE_EMULATED_MEMORY");
    EXPECT_EQ(PluginTable()->live_resources(), 0) << "left on the device";
  }

  // For contexts made while nothing is open.
  static void UseGeneration(int sm) {
    setenv("NIBBLE_EMULATED_SM", std::to_string(sm).c_str(), 1);
  }

  static ContextPtr CudaContext(int32_t threads = 1) {
    nb_context* context = nullptr;
    EXPECT_EQ(nb_context_create("cuda:0", threads, &context), NB_OK) << nb_last_error();
    return ContextPtr(context);
  }
};

}  // namespace nibble
