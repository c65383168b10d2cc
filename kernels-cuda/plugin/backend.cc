// SPDX-License-Identifier: Apache-2.0
#include "kernels-cuda/plugin/backend.h"

#include "kernels-cuda/plugin/context.h"

const nibble::cuda::Backend* nibble_cuda_backend() {
  using namespace nibble::cuda;
  static const Backend table = [] {
    Backend t = {};
    t.struct_size = sizeof(Backend);
    t.version = kBackendVersion;
    t.library_version = NIBBLE_VERSION;
    AddContextFunctions(&t);
    AddMatrixFunctions(&t);
    AddOperatorFunctions(&t);
    AddAttentionFunctions(&t);
    AddGraphFunctions(&t);
    return t;
  }();
  return &table;
}
