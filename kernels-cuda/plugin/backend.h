// SPDX-License-Identifier: Apache-2.0
//
// What libnibble.so asks of libnibble_cuda.so: one table of functions behind one exported symbol,
// nibble_cuda_backend. Both libraries come from one build and check that (version and library
// version); the types are plain data, no exception crosses, and every function that can fail
// writes one line that says why to *error (without the name of the ABI's function, which
// libnibble puts in front).
//
// libnibble has checked the arguments: shapes, positions, formats, overlaps, and that what is
// `on_device` lies within memory of the context's device. A context serves one call at a time;
// matrices, caches and memory may be used by all contexts of their device, as nibble.h says.
#pragma once

#include <cstdint>

#include "kernels-cpu/attention/kv_cache.h"
#include "kernels-cpu/elementwise/sample.h"
#include "kernels-cpu/numerics/types.h"
#include "native/include/nibble/nibble.h"

namespace nibble::cuda {

inline constexpr int32_t kBackendVersion = 1;
inline constexpr char kBackendSymbol[] = "nibble_cuda_backend";

struct BackendError {
  char text[960];
};

// Opaque: a context's half on the device, memory, packed weights, a cache's memory, a recorded
// graph.
struct BackendContext;
struct BackendMemory;
struct BackendMatrix;
struct BackendCache;
struct BackendGraph;

// Rows of elements in ordinary memory or on the device; data null: none. A vector is one row.
struct BackendView {
  void* data;
  int64_t rows, cols;
  int64_t stride;         // elements from row to row
  int64_t element_bytes;
  bool on_device;
};

struct BackendNorm {
  BackendView weight;  // F32 [cols], or none
  float epsilon;
};

struct BackendProjection {
  const BackendMatrix* matrix;
  BackendView bias, residual, output;
};

struct BackendSequence {
  const BackendCache* cache;  // null where only positions matter
  int64_t start, rows;
};

// Calls body(argument, i) for each i below count, on several threads. body does not throw.
struct BackendThreads {
  void (*run)(void* pool, int64_t count, void (*body)(void* argument, int64_t i), void* argument);
  void* pool;
};

struct Backend {
  int64_t struct_size;
  int32_t version;              // kBackendVersion
  const char* library_version;  // nb_version() of the build

  // ------------------------------------------------------------------- device --
  const char* (*targets)();  // "sm_80 sm_89"; lives as long as the library
  // Opens the device once and closes it; writes its line to description, if not null.
  nb_status (*device_status)(int ordinal, char* description, int64_t description_bytes,
                             BackendError* error);
  nb_status (*context_open)(int ordinal, BackendContext** context, BackendError* error);
  void (*context_close)(BackendContext* context);
  nb_status (*synchronize)(BackendContext* context, BackendError* error);
  nb_status (*measure_bandwidth)(BackendContext* context, int64_t buffer_bytes, int32_t repeats,
                                 double* bytes_per_second, BackendError* error);
  // Allocations and other things of the driver that this process holds: 0 when all is closed.
  int64_t (*live_resources)();

  // ------------------------------------------------------------------- memory --
  nb_status (*memory_allocate)(BackendContext* context, int64_t bytes, BackendMemory** memory,
                               void** address, BackendError* error);
  void (*memory_free)(BackendMemory* memory);  // may come after the context's end
  nb_status (*memory_copy)(BackendContext* context, void* destination, bool destination_on_device,
                           const void* source, bool source_on_device, int64_t bytes,
                           BackendError* error);

  // ------------------------------------------------------------------ weights --
  // NB_OK, or NB_UNSUPPORTED with the reason: whether a product of this kind has a kernel.
  nb_status (*matmul_status)(BackendContext* context, const BackendMatrix* matrix,
                             DType activation, BackendError* error);
  nb_status (*matrix_pack)(BackendContext* context, const WeightFormat* format, int64_t rows,
                           int64_t cols, const CanonicalWeights* weights,
                           const BackendThreads* threads, BackendMatrix** matrix,
                           BackendError* error);
  nb_status (*matrix_unpack)(BackendContext* context, const BackendMatrix* matrix,
                             const CanonicalWeights* weights, const BackendThreads* threads,
                             BackendError* error);
  nb_status (*matrix_dequantize)(BackendContext* context, const BackendMatrix* matrix,
                                 const BackendView* output, BackendError* error);
  int64_t (*matrix_bytes)(const BackendMatrix* matrix);
  void (*matrix_destroy)(BackendMatrix* matrix);

  // ---------------------------------------------------------------- operators --
  nb_status (*matmul)(BackendContext* context, DType activation, const BackendView* x,
                      const BackendNorm* norm, const BackendProjection* projections,
                      int32_t count, BackendError* error);
  nb_status (*swiglu_matmul)(BackendContext* context, DType activation, const BackendView* x,
                             const BackendNorm* norm, const BackendMatrix* gate,
                             const BackendView* gate_bias, const BackendMatrix* up,
                             const BackendView* up_bias, const BackendView* output,
                             BackendError* error);
  nb_status (*embedding)(BackendContext* context, const BackendMatrix* table,
                         const BackendView* ids, const BackendView* output, BackendError* error);
  nb_status (*rms_norm)(BackendContext* context, const BackendView* x, const BackendNorm* norm,
                        const BackendView* output, BackendError* error);
  nb_status (*swiglu)(BackendContext* context, const BackendView* gate, const BackendView* up,
                      const BackendView* output, BackendError* error);
  nb_status (*add)(BackendContext* context, const BackendView* a, const BackendView* b,
                   const BackendView* output, BackendError* error);
  nb_status (*quantize_activations)(BackendContext* context, DType type, const BackendView* x,
                                    const BackendNorm* norm, const BackendView* codes,
                                    const BackendView* scales, BackendError* error);
  nb_status (*argmax)(BackendContext* context, const BackendView* logits, const BackendView* ids,
                      BackendError* error);
  nb_status (*sample)(BackendContext* context, const BackendView* logits,
                      const SampleOptions* options, const BackendView* uniforms,
                      const BackendView* ids, BackendError* error);
  nb_status (*penalize)(BackendContext* context, const BackendView* logits,
                        const BackendView* tokens, float penalty, BackendError* error);

  // ---------------------------------------------------------------- attention --
  nb_status (*cache_create)(BackendContext* context, const KvCacheShape* shape,
                            const float* key_factors, const float* value_factors,
                            BackendCache** cache, BackendError* error);
  int64_t (*cache_bytes)(const BackendCache* cache);
  void (*cache_destroy)(BackendCache* cache);
  nb_status (*rope_angles)(BackendContext* context, const BackendView* inverse_frequencies,
                           const BackendSequence* sequences, int32_t count,
                           const BackendView* angles, BackendError* error);
  nb_status (*rope_append)(BackendContext* context, int32_t layer, int64_t q_heads,
                           const BackendView* q, const BackendView* k, const BackendView* v,
                           const BackendView* angles, const BackendSequence* sequences,
                           int32_t count, BackendError* error);
  nb_status (*attention)(BackendContext* context, int32_t layer, int64_t q_heads,
                         const BackendView* q, float scale, const BackendSequence* sequences,
                         int32_t count, const BackendView* output, BackendError* error);

  // ------------------------------------------------------------------- graphs --
  // Records the calls that run(argument) makes on context; all their views are on the device,
  // and their sequences are these. max_tokens bounds start + rows of every launch.
  nb_status (*graph_record)(BackendContext* context, const BackendSequence* sequences,
                            int32_t count, int64_t max_tokens,
                            nb_status (*run)(void* argument, BackendError* error), void* argument,
                            BackendGraph** graph, BackendError* error);
  nb_status (*graph_launch)(BackendContext* context, const BackendGraph* graph,
                            const BackendSequence* sequences, int32_t count,
                            BackendError* error);
  void (*graph_destroy)(BackendGraph* graph);  // may come after the context's end
};

}  // namespace nibble::cuda

// The table; never null. Starts nothing: the driver is opened when a device is asked for.
extern "C" __attribute__((visibility("default"))) const nibble::cuda::Backend*
nibble_cuda_backend();
