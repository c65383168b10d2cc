// SPDX-License-Identifier: Apache-2.0
//
// Device names, whether each can be used, and the CUDA plug-in.
#pragma once

#include <string>

#include "kernels-cuda/plugin/backend.h"
#include "native/src/checks.h"

namespace nibble::abi {

// A device as a number: kCpu, or N for "cuda:N".
inline constexpr int kCpu = -1;

// "cpu" or "cuda:N", as messages spell it.
std::string DeviceName(int device);

// The number of a device's name; NB_INVALID_ARGUMENT for anything else.
nb_status ParseDevice(const char* function, const char* name, int* device);

// The table of the CUDA plug-in, which is opened if it is not yet; NB_UNSUPPORTED with the
// reason. Thread-safe.
nb_status OpenCuda(const char* function, const cuda::Backend** backend);

// NB_OK if device can be used, else NB_UNSUPPORTED (or what the device reported) with the reason.
// description: null, or where one line about it goes.
nb_status CheckDevice(const char* function, int device, char* description,
                      int64_t description_bytes);

// Turns what the plug-in reports into a status of the ABI: its line behind the function's name.
template <class Call>
nb_status CallCuda(const char* function, const Call& call) {
  cuda::BackendError error = {};
  const nb_status status = call(&error);
  return status == NB_OK ? NB_OK : Fail(status, "%s: %s", function, error.text);
}

}  // namespace nibble::abi
