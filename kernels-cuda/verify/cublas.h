// SPDX-License-Identifier: Apache-2.0
//
// cuBLAS as a peer, opened at run time: libcublas and libcublasLt of CUDA 12 or 13, wherever the
// system's loader finds them. All calls must be made where the device's context is current, that
// is within Device::Time.
#pragma once

#include <string>

#include "kernels-cuda/common/device.h"

namespace nibble::cuda::verify {

class Cublas {
 public:
  explicit Cublas(Device& device);
  ~Cublas();
  Cublas(const Cublas&) = delete;
  Cublas& operator=(const Cublas&) = delete;

  // "" where it can be used, else why not.
  const std::string& problem() const { return problem_; }

  // y [m][n] = x [m][k] * w [n][k]^T, all of F16, summed in F32.
  Status MultiplyF16(DevicePtr x, DevicePtr w, DevicePtr y, int64_t m, int64_t n, int64_t k);

  // The same of E4M3 to BF16. cuBLAS wants m, n and k to be multiples of 16. Prepare chooses the
  // algorithm for a shape; Multiply uses the one chosen last. NB_UNSUPPORTED where there is none.
  Status PrepareE4M3(int64_t m, int64_t n, int64_t k);
  Status MultiplyE4M3(DevicePtr x, DevicePtr w, DevicePtr y);

 private:
  struct Functions;
  void ForgetShape();

  Device& device_;
  std::string problem_;
  Functions* functions_;
  void* handle_ = nullptr;
  void* light_ = nullptr;  // cuBLASLt's
  void* operation_ = nullptr;
  void* layouts_[3] = {};
  uint64_t algorithm_[8] = {};
  DevicePtr workspace_ = 0;
};

}  // namespace nibble::cuda::verify
