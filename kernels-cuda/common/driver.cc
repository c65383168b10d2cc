// SPDX-License-Identifier: Apache-2.0
#include "kernels-cuda/common/driver.h"

#include <dlfcn.h>

#include <cstdlib>
#include <mutex>

namespace nibble::cuda {
namespace {

constexpr char kVariable[] = "NIBBLE_CUDA_DRIVER";

// Images of one major release of CUDA run on every driver of that release and on later ones.
constexpr int kOldestDriver = NIBBLE_CUDA_VERSION / 1000 * 1000;

// 12080 as "12.8".
std::string VersionText(int version) {
  return std::to_string(version / 1000) + "." + std::to_string(version % 1000 / 10);
}

Status Missing(const std::string& path) {
  const char* reason = dlerror();
  return Status(NB_UNSUPPORTED, "no CUDA driver: " + path + " cannot be opened (" +
                                    (reason == nullptr ? "unknown reason" : reason) + ")");
}

Status TooOld(const std::string& path, int version) {
  return Status(NB_UNSUPPORTED, "the CUDA driver " + path + " is too old: it is for CUDA " +
                                    VersionText(version) + ", but " + VersionText(kOldestDriver) +
                                    " or newer is needed");
}

}  // namespace

std::string DriverProblem(const Driver& driver, CUresult result) {
  const char *name = nullptr, *text = nullptr;
  if (driver.cuGetErrorName(result, &name) != CUDA_SUCCESS || name == nullptr) {
    return "CUDA error " + std::to_string(static_cast<int>(result));
  }
  std::string problem = name;
  if (driver.cuGetErrorString(result, &text) == CUDA_SUCCESS && text != nullptr) {
    problem += std::string(": ") + text;
  }
  return problem;
}

Status LoadDriver(const std::string& path, Driver* driver) {
  // Never closed, also where it turns out to be of no use: the driver starts threads.
  void* library = dlopen(path.c_str(), RTLD_NOW | RTLD_LOCAL);
  if (library == nullptr) return Missing(path);
  const auto find = [&](const char* name) { return dlsym(library, name); };
  Driver found;
  const char* absent = nullptr;
  // cuda.h may itself define a name as that of a later version, which an older driver lacks: then
  // the first version, whose parameters are the same for all functions here, does as well.
#define NIBBLE_CUDA_TEXT(name) #name
#define NIBBLE_CUDA_EXPANDED(name) NIBBLE_CUDA_TEXT(name)
#define NIBBLE_CUDA_FIND(name)                                                                  \
  found.name = reinterpret_cast<decltype(found.name)>(find(NIBBLE_CUDA_EXPANDED(name)));       \
  if (found.name == nullptr) found.name = reinterpret_cast<decltype(found.name)>(find(#name)); \
  if (found.name == nullptr && absent == nullptr) absent = #name;
  NIBBLE_CUDA_DRIVER_FUNCTIONS(NIBBLE_CUDA_FIND)
#undef NIBBLE_CUDA_FIND
#undef NIBBLE_CUDA_EXPANDED
#undef NIBBLE_CUDA_TEXT
  int version = 0;
  if (found.cuDriverGetVersion == nullptr || found.cuDriverGetVersion(&version) != CUDA_SUCCESS) {
    return Status(NB_UNSUPPORTED, path + " is no CUDA driver: it does not tell its version");
  }
  if (version < kOldestDriver) return TooOld(path, version);
  // Asked before the rest: a driver without a device is the more common reason.
  const bool names = found.cuGetErrorName != nullptr && found.cuGetErrorString != nullptr;
  const CUresult result =
      found.cuInit != nullptr && names ? found.cuInit(0) : CUDA_SUCCESS;
  if (result == CUDA_ERROR_NO_DEVICE) {
    return Status(NB_UNSUPPORTED, "the CUDA driver " + path + " finds no device");
  }
  if (result != CUDA_SUCCESS) {
    return Status(NB_UNSUPPORTED,
                  "the CUDA driver " + path + " cannot start: " + DriverProblem(found, result));
  }
  if (absent != nullptr) {
    return Status(NB_UNSUPPORTED, "the CUDA driver " + path + ", for CUDA " +
                                      VersionText(version) + ", has no function " + absent);
  }
  *driver = found;
  return Status();
}

Status OpenDriver(const Driver** driver) {
  static std::mutex mutex;
  static Driver* opened = nullptr;
  const std::lock_guard<std::mutex> lock(mutex);
  if (opened == nullptr) {
    const char* path = std::getenv(kVariable);
    Driver loaded;
    NIBBLE_CUDA_RETURN_IF_FAILED(
        LoadDriver(path != nullptr && path[0] != '\0' ? path : "libcuda.so.1", &loaded));
    opened = new Driver(loaded);
  }
  *driver = opened;
  return Status();
}

}  // namespace nibble::cuda
