// SPDX-License-Identifier: Apache-2.0
#include "native/src/device.h"

#include <dlfcn.h>

#include <cstring>
#include <string>

#include "native/src/checks.h"

namespace nibble::abi {
namespace {

constexpr char kCudaPlugin[] = "libnibble_cuda.so";

// "cuda:" and 1 to 4 digits.
bool IsCudaName(const char* device) {
  if (std::strncmp(device, "cuda:", 5) != 0) return false;
  const char* digits = device + 5;
  const size_t count = std::strlen(digits);
  return count >= 1 && count <= 4 && std::strspn(digits, "0123456789") == count;
}

// The plug-in stands beside this library. Only that one path is tried, never the search
// path: a file of that name elsewhere is not of this build.
std::string PluginPath() {
  Dl_info info;
  if (dladdr(reinterpret_cast<const void*>(&nb_abi_version), &info) == 0 ||
      info.dli_fname == nullptr) {
    return kCudaPlugin;
  }
  const std::string self = info.dli_fname;
  const size_t slash = self.rfind('/');
  return slash == std::string::npos ? std::string("./") + kCudaPlugin
                                    : self.substr(0, slash + 1) + kCudaPlugin;
}

nb_status CudaUnavailable(const char* function, const char* device) {
  const std::string path = PluginPath();
  void* plugin = dlopen(path.c_str(), RTLD_NOW | RTLD_LOCAL);
  if (plugin == nullptr) {
    const char* reason = dlerror();
    return Fail(NB_UNSUPPORTED,
                "%s: device: \"%s\" cannot be used: the CUDA plug-in could not be opened: %s",
                function, device, reason != nullptr ? reason : path.c_str());
  }
  dlclose(plugin);
  return Fail(NB_UNSUPPORTED,
              "%s: device: \"%s\" cannot be used: %s was found, but libnibble %s runs on "
              "\"cpu\" only",
              function, device, path.c_str(), nb_version());
}

}  // namespace

nb_status CheckDevice(const char* function, const char* device) {
  const Arg arg{function, "device"};
  NIBBLE_RETURN_IF_FAILED(CheckNotNull(arg, device));
  if (std::strcmp(device, "cpu") == 0) return NB_OK;
  if (IsCudaName(device)) return CudaUnavailable(function, device);
  return FailArg(NB_INVALID_ARGUMENT, arg, "\"%.64s\" but \"cpu\" or \"cuda:N\" was expected",
                 device);
}

}  // namespace nibble::abi
