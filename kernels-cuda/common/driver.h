// SPDX-License-Identifier: Apache-2.0
//
// The CUDA driver's functions, found at run time: a machine without a driver loads the plug-in
// all the same, and learns why there is no device.
#pragma once

#include <cuda.h>

#include "kernels-cuda/common/status.h"

namespace nibble::cuda {

// Every driver function that Nibble calls, by the exported name it is looked up under. The
// emulator (emulator/driver_api.cc) defines the same set.
#define NIBBLE_CUDA_DRIVER_FUNCTIONS(F)                                                      \
  F(cuInit) F(cuDriverGetVersion) F(cuGetErrorName) F(cuGetErrorString)                      \
  F(cuDeviceGetCount) F(cuDeviceGet) F(cuDeviceGetName) F(cuDeviceGetAttribute)              \
  F(cuDeviceTotalMem_v2) F(cuDevicePrimaryCtxRetain) F(cuDevicePrimaryCtxRelease_v2)         \
  F(cuCtxPushCurrent_v2) F(cuCtxPopCurrent_v2) F(cuMemGetInfo_v2)                            \
  F(cuModuleLoadData) F(cuModuleUnload) F(cuModuleGetFunction) F(cuFuncSetAttribute)         \
  F(cuFuncGetAttribute) F(cuMemAlloc_v2) F(cuMemFree_v2) F(cuMemHostAlloc) F(cuMemFreeHost)  \
  F(cuMemcpyHtoDAsync_v2) F(cuMemcpyDtoHAsync_v2) F(cuMemcpyDtoDAsync_v2)                    \
  F(cuMemsetD8Async) F(cuStreamCreate) F(cuStreamDestroy_v2) F(cuStreamSynchronize)          \
  F(cuLaunchKernel) F(cuStreamBeginCapture_v2) F(cuStreamEndCapture)                         \
  F(cuGraphInstantiateWithFlags) F(cuGraphLaunch) F(cuGraphDestroy) F(cuGraphExecDestroy)    \
  F(cuEventCreate) F(cuEventDestroy_v2) F(cuEventRecord) F(cuEventSynchronize)               \
  F(cuEventElapsedTime)

struct Driver {
#define NIBBLE_CUDA_DECLARE(name) decltype(&::name) name = nullptr;
  NIBBLE_CUDA_DRIVER_FUNCTIONS(NIBBLE_CUDA_DECLARE)
#undef NIBBLE_CUDA_DECLARE
};

// The driver of this machine (libcuda.so.1, or the library that the environment variable
// NIBBLE_CUDA_DRIVER names), opened once a process and never closed. NB_UNSUPPORTED with the
// reason where there is none, it is too old or it finds no device; the next call tries again.
// Thread-safe.
Status OpenDriver(const Driver** driver);

// The driver in the library at path (as dlopen takes it), initialized; *driver is left alone on
// failure.
Status LoadDriver(const std::string& path, Driver* driver);

// "CUDA_ERROR_NAME: what the driver says about it".
std::string DriverProblem(const Driver& driver, CUresult result);

}  // namespace nibble::cuda
