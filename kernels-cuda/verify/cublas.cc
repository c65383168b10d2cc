// SPDX-License-Identifier: Apache-2.0
//
// The prototypes and constants are those of cublas_v2.h and cublasLt.h, which need not be
// installed to build this.
#include "kernels-cuda/verify/cublas.h"

#include <dlfcn.h>

#include <cstddef>
#include <initializer_list>

namespace nibble::cuda::verify {
namespace {

constexpr int kF32 = 0, kF16 = 2, kBF16 = 14, kE4M3 = 28;  // cudaDataType
constexpr int kNotTransposed = 0, kTransposed = 1;
constexpr int kComputeF32 = 68;
constexpr int kDefaultAlgorithm = -1;
constexpr int kTransposeA = 3, kTransposeB = 4;  // cublasLtMatmulDescAttributes_t
constexpr int kMaxWorkspace = 1;                 // cublasLtMatmulPreferenceAttributes_t
constexpr int64_t kWorkspaceBytes = int64_t{64} << 20;

struct Heuristic {  // cublasLtMatmulHeuristicResult_t
  uint64_t algorithm[8];
  size_t workspace;
  int state;
  float waves;
  int reserved[4];
};

void* OpenLibrary(const char* name) {
  for (const char* suffix : {".so.13", ".so.12", ".so"}) {
    void* library = dlopen((std::string(name) + suffix).c_str(), RTLD_NOW | RTLD_LOCAL);
    if (library != nullptr) return library;
  }
  return nullptr;
}

Status Checked(int result, const char* what) {
  if (result == 0) return Status();
  return Status(NB_DEVICE_ERROR, std::string(what) + " failed: cuBLAS status " +
                                     std::to_string(result));
}

}  // namespace

struct Cublas::Functions {
  int (*create)(void**);
  int (*destroy)(void*);
  int (*set_stream)(void*, CUstream);
  int (*gemm)(void*, int, int, int, int, int, const void*, const void*, int, int, const void*,
              int, int, const void*, void*, int, int, int, int);
  int (*light_create)(void**);
  int (*light_destroy)(void*);
  int (*operation_create)(void**, int, int);
  int (*operation_destroy)(void*);
  int (*operation_set)(void*, int, const void*, size_t);
  int (*layout_create)(void**, int, uint64_t, uint64_t, int64_t);
  int (*layout_destroy)(void*);
  int (*preference_create)(void**);
  int (*preference_destroy)(void*);
  int (*preference_set)(void*, int, const void*, size_t);
  int (*heuristic)(void*, void*, void*, void*, void*, void*, void*, int, Heuristic*, int*);
  int (*multiply)(void*, void*, const void*, const void*, void*, const void*, void*, const void*,
                  const void*, void*, void*, void*, const void*, void*, size_t, CUstream);
};

Cublas::Cublas(Device& device) : device_(device), functions_(new Functions()) {
  void* cublas = OpenLibrary("libcublas");
  void* light = OpenLibrary("libcublasLt");
  if (cublas == nullptr || light == nullptr) {
    problem_ = "libcublas and libcublasLt of CUDA 12 or 13 are not both installed";
    return;
  }
  bool all = true;
  const auto find = [&](auto* function, void* library, const char* name) {
    void* symbol = dlsym(library, name);
    all = all && symbol != nullptr;
    *function = reinterpret_cast<std::remove_pointer_t<decltype(function)>>(symbol);
  };
  Functions& f = *functions_;
  find(&f.create, cublas, "cublasCreate_v2");
  find(&f.destroy, cublas, "cublasDestroy_v2");
  find(&f.set_stream, cublas, "cublasSetStream_v2");
  find(&f.gemm, cublas, "cublasGemmEx");
  find(&f.light_create, light, "cublasLtCreate");
  find(&f.light_destroy, light, "cublasLtDestroy");
  find(&f.operation_create, light, "cublasLtMatmulDescCreate");
  find(&f.operation_destroy, light, "cublasLtMatmulDescDestroy");
  find(&f.operation_set, light, "cublasLtMatmulDescSetAttribute");
  find(&f.layout_create, light, "cublasLtMatrixLayoutCreate");
  find(&f.layout_destroy, light, "cublasLtMatrixLayoutDestroy");
  find(&f.preference_create, light, "cublasLtMatmulPreferenceCreate");
  find(&f.preference_destroy, light, "cublasLtMatmulPreferenceDestroy");
  find(&f.preference_set, light, "cublasLtMatmulPreferenceSetAttribute");
  find(&f.heuristic, light, "cublasLtMatmulAlgoGetHeuristic");
  find(&f.multiply, light, "cublasLtMatmul");
  if (!all) {
    problem_ = "the cuBLAS that is installed lacks a function";
    return;
  }
  double seconds = 0;
  const Status status = device_.Time(
      [&] {
        NIBBLE_CUDA_RETURN_IF_FAILED(Checked(f.create(&handle_), "cublasCreate"));
        NIBBLE_CUDA_RETURN_IF_FAILED(
            Checked(f.set_stream(handle_, device_.stream()), "cublasSetStream"));
        NIBBLE_CUDA_RETURN_IF_FAILED(Checked(f.light_create(&light_), "cublasLtCreate"));
        return device_.Allocate(kWorkspaceBytes, &workspace_);
      },
      &seconds);
  if (!status.ok()) problem_ = status.message();
}

Cublas::~Cublas() {
  double seconds = 0;
  const Status ignored = device_.Time(
      [&] {
        ForgetShape();
        if (light_ != nullptr) functions_->light_destroy(light_);
        if (handle_ != nullptr) functions_->destroy(handle_);
        return Status();
      },
      &seconds);
  static_cast<void>(ignored);
  device_.Free(workspace_);
  delete functions_;
}

// cuBLAS counts columns first: the row-major product y = x w^T is y^T = w x^T in its terms.
Status Cublas::MultiplyF16(DevicePtr x, DevicePtr w, DevicePtr y, int64_t m, int64_t n,
                           int64_t k) {
  const float one = 1, zero = 0;
  const auto rows = static_cast<int>(m), columns = static_cast<int>(n),
             inner = static_cast<int>(k);
  return Checked(
      functions_->gemm(handle_, kTransposed, kNotTransposed, columns, rows, inner, &one,
                       reinterpret_cast<const void*>(w), kF16, inner,
                       reinterpret_cast<const void*>(x), kF16, inner, &zero,
                       reinterpret_cast<void*>(y), kF16, columns, kComputeF32, kDefaultAlgorithm),
      "cublasGemmEx");
}

void Cublas::ForgetShape() {
  for (void*& layout : layouts_) {
    if (layout != nullptr) functions_->layout_destroy(layout);
    layout = nullptr;
  }
  if (operation_ != nullptr) functions_->operation_destroy(operation_);
  operation_ = nullptr;
}

Status Cublas::PrepareE4M3(int64_t m, int64_t n, int64_t k) {
  ForgetShape();
  const Functions& f = *functions_;
  const auto um = static_cast<uint64_t>(m), un = static_cast<uint64_t>(n),
             uk = static_cast<uint64_t>(k);
  NIBBLE_CUDA_RETURN_IF_FAILED(
      Checked(f.operation_create(&operation_, kComputeF32, kF32), "cublasLtMatmulDescCreate"));
  const int a = kTransposed, b = kNotTransposed;
  NIBBLE_CUDA_RETURN_IF_FAILED(
      Checked(f.operation_set(operation_, kTransposeA, &a, sizeof(a)), "cublasLt"));
  NIBBLE_CUDA_RETURN_IF_FAILED(
      Checked(f.operation_set(operation_, kTransposeB, &b, sizeof(b)), "cublasLt"));
  NIBBLE_CUDA_RETURN_IF_FAILED(
      Checked(f.layout_create(&layouts_[0], kE4M3, uk, un, k), "cublasLtMatrixLayoutCreate"));
  NIBBLE_CUDA_RETURN_IF_FAILED(
      Checked(f.layout_create(&layouts_[1], kE4M3, uk, um, k), "cublasLtMatrixLayoutCreate"));
  NIBBLE_CUDA_RETURN_IF_FAILED(
      Checked(f.layout_create(&layouts_[2], kBF16, un, um, n), "cublasLtMatrixLayoutCreate"));
  void* preference = nullptr;
  NIBBLE_CUDA_RETURN_IF_FAILED(
      Checked(f.preference_create(&preference), "cublasLtMatmulPreferenceCreate"));
  const size_t most = kWorkspaceBytes;
  f.preference_set(preference, kMaxWorkspace, &most, sizeof(most));
  Heuristic best = {};
  int found = 0;
  const int result = f.heuristic(light_, operation_, layouts_[0], layouts_[1], layouts_[2],
                                 layouts_[2], preference, 1, &best, &found);
  f.preference_destroy(preference);
  if (result != 0 || found == 0) {
    return Status(NB_UNSUPPORTED, "cuBLAS has no FP8 product for this shape on this device");
  }
  for (int i = 0; i < 8; ++i) algorithm_[i] = best.algorithm[i];
  return Status();
}

Status Cublas::MultiplyE4M3(DevicePtr x, DevicePtr w, DevicePtr y) {
  const float one = 1, zero = 0;
  void* to = reinterpret_cast<void*>(y);
  return Checked(functions_->multiply(light_, operation_, &one, reinterpret_cast<const void*>(w),
                                      layouts_[0], reinterpret_cast<const void*>(x), layouts_[1],
                                      &zero, to, layouts_[2], to, layouts_[2], algorithm_,
                                      reinterpret_cast<void*>(workspace_), kWorkspaceBytes,
                                      device_.stream()),
                 "cublasLtMatmul");
}

}  // namespace nibble::cuda::verify
