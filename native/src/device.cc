// SPDX-License-Identifier: Apache-2.0
#include "native/src/device.h"

#include <dlfcn.h>
#include <unistd.h>

#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <mutex>

#include "kernels-cpu/threads/thread_pool.h"
#include "native/src/simd_target.h"

namespace nibble::abi {
namespace {

constexpr char kCudaPlugin[] = "libnibble_cuda.so";

// The plug-in, once it is open: for the rest of the process.
std::mutex plugin_mutex;
const cuda::Backend* plugin = nullptr;
std::string* plugin_path = nullptr;

// The plug-in stands beside this library. Only that one path is tried, never the search
// path: a file of that name elsewhere is not of this build.
std::string PathBesideThisLibrary() {
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

// plugin_mutex is held.
nb_status OpenPlugin(const char* function, const std::string& path) {
  if (access(path.c_str(), F_OK) != 0) {
    return Fail(NB_UNSUPPORTED, "%s: this build has no CUDA plug-in: there is no %s", function,
                path.c_str());
  }
  void* library = dlopen(path.c_str(), RTLD_NOW | RTLD_LOCAL);
  if (library == nullptr) {
    const char* reason = dlerror();
    return Fail(NB_UNSUPPORTED, "%s: the CUDA plug-in cannot be opened: %s", function,
                reason != nullptr ? reason : path.c_str());
  }
  const auto table =
      reinterpret_cast<const cuda::Backend* (*)()>(dlsym(library, cuda::kBackendSymbol));
  const cuda::Backend* found = table == nullptr ? nullptr : table();
  if (found == nullptr || found->struct_size != sizeof(cuda::Backend) ||
      found->version != cuda::kBackendVersion ||
      std::strcmp(found->library_version, nb_version()) != 0) {
    dlclose(library);
    return Fail(NB_UNSUPPORTED, "%s: %s is not the CUDA plug-in of libnibble %s", function,
                path.c_str(), nb_version());
  }
  plugin_path = new std::string(path);
  plugin = found;
  return NB_OK;
}

nb_status Copy(const char* function, const std::string& text, char* buffer,
               int64_t buffer_length) {
  const auto needed = static_cast<int64_t>(text.size()) + 1;
  if (buffer_length < needed) {
    return FailArg(NB_INVALID_ARGUMENT, {function, "buffer_length"},
                   "%lld but at least %lld was expected", static_cast<long long>(buffer_length),
                   static_cast<long long>(needed));
  }
  std::memcpy(buffer, text.c_str(), static_cast<size_t>(needed));
  return NB_OK;
}

}  // namespace

std::string DeviceName(int device) {
  return device == kCpu ? "cpu" : "cuda:" + std::to_string(device);
}

nb_status ParseDevice(const char* function, const char* name, int* device) {
  const Arg arg{function, "device"};
  NIBBLE_RETURN_IF_FAILED(CheckNotNull(arg, name));
  *device = kCpu;
  if (std::strcmp(name, "cpu") == 0) return NB_OK;
  // "cuda:" and 1 to 4 digits.
  if (std::strncmp(name, "cuda:", 5) == 0) {
    const char* digits = name + 5;
    const size_t count = std::strlen(digits);
    if (count >= 1 && count <= 4 && std::strspn(digits, "0123456789") == count) {
      *device = std::atoi(digits);
      return NB_OK;
    }
  }
  return FailArg(NB_INVALID_ARGUMENT, arg, "\"%.64s\" but \"cpu\" or \"cuda:N\" was expected",
                 name);
}

nb_status OpenCuda(const char* function, const cuda::Backend** backend) {
  const std::lock_guard<std::mutex> lock(plugin_mutex);
  if (plugin == nullptr) NIBBLE_RETURN_IF_FAILED(OpenPlugin(function, PathBesideThisLibrary()));
  *backend = plugin;
  return NB_OK;
}

nb_status CheckDevice(const char* function, int device, char* description,
                      int64_t description_bytes) {
  if (device == kCpu) {
    if (description == nullptr) return NB_OK;
    return Copy(function,
                std::string("SIMD target ") + SimdTargetInUse() + ", " +
                    std::to_string(AvailableThreads()) + " threads",
                description, description_bytes);
  }
  const std::string prefix =
      std::string(function) + ": device: \"" + DeviceName(device) + "\" cannot be used";
  const cuda::Backend* backend = nullptr;
  NIBBLE_RETURN_IF_FAILED(OpenCuda(prefix.c_str(), &backend));
  return CallCuda(prefix.c_str(), [&](cuda::BackendError* error) {
    return backend->device_status(device, description, description_bytes, error);
  });
}

}  // namespace nibble::abi

using namespace nibble;
using namespace nibble::abi;

nb_status nb_device_status(const char* device) {
  constexpr char kFunction[] = "nb_device_status";
  return Guard(kFunction, [&] {
    int number = kCpu;
    NIBBLE_RETURN_IF_FAILED(ParseDevice(kFunction, device, &number));
    return CheckDevice(kFunction, number, nullptr, 0);
  });
}

nb_status nb_device_describe(const char* device, char* buffer, int64_t buffer_length) {
  constexpr char kFunction[] = "nb_device_describe";
  return Guard(kFunction, [&] {
    int number = kCpu;
    NIBBLE_RETURN_IF_FAILED(ParseDevice(kFunction, device, &number));
    NIBBLE_RETURN_IF_FAILED(CheckNotNull({kFunction, "buffer"}, buffer));
    return CheckDevice(kFunction, number, buffer, buffer_length);
  });
}

nb_status nb_cuda_open(const char* path) {
  constexpr char kFunction[] = "nb_cuda_open";
  return Guard(kFunction, [&] {
    NIBBLE_RETURN_IF_FAILED(CheckNotNull({kFunction, "path"}, path));
    // Never the search path.
    const std::string file = std::strchr(path, '/') == nullptr ? std::string("./") + path : path;
    const std::lock_guard<std::mutex> lock(plugin_mutex);
    if (plugin == nullptr) return OpenPlugin(kFunction, file);
    if (*plugin_path == file) return NB_OK;
    return FailArg(NB_INVALID_ARGUMENT, {kFunction, "path"},
                   "\"%.512s\" but the plug-in is open already, from %s", path,
                   plugin_path->c_str());
  });
}

nb_status nb_cuda_targets(char* buffer, int64_t buffer_length) {
  constexpr char kFunction[] = "nb_cuda_targets";
  return Guard(kFunction, [&] {
    NIBBLE_RETURN_IF_FAILED(CheckNotNull({kFunction, "buffer"}, buffer));
    const cuda::Backend* backend = nullptr;
    NIBBLE_RETURN_IF_FAILED(OpenCuda(kFunction, &backend));
    return Copy(kFunction, backend->targets(), buffer, buffer_length);
  });
}
