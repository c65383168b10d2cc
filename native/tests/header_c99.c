/* SPDX-License-Identifier: Apache-2.0
 *
 * Compiled as strict C99 by header_c99_test.cc: nibble.h must be plain C, and its structs laid
 * out as documented for a 64-bit machine. */
#include "nibble/nibble.h"
#include "nibble/nibble.h" /* twice: the include guard works */

#include <stddef.h>

#define CHECK(name, condition) typedef char check_##name[(condition) ? 1 : -1]

CHECK(tensor_size, sizeof(nb_tensor) == 96);
CHECK(tensor_dtype, offsetof(nb_tensor, dtype) == 8);
CHECK(tensor_shape, offsetof(nb_tensor, shape) == 16);
CHECK(tensor_strides, offsetof(nb_tensor, strides) == 48);
CHECK(tensor_data, offsetof(nb_tensor, data) == 80);
CHECK(tensor_bytes, offsetof(nb_tensor, byte_length) == 88);
CHECK(format_size, sizeof(nb_weight_format) == 24);
CHECK(info_size, sizeof(nb_matrix_info) == 56);
CHECK(options_size, sizeof(nb_kv_cache_options) == 56);
CHECK(projection_size, sizeof(nb_projection) == 32);
CHECK(sequence_size, sizeof(nb_sequence) == 24);
CHECK(sample_size, sizeof(nb_sample_options) == 24);
CHECK(status_size, sizeof(nb_status) == 4);
CHECK(dtype_size, sizeof(nb_dtype) == 4);

/* Every function can be called from C. */
int main(void) {
  nb_tensor t = {0};
  nb_weight_format f = {sizeof(nb_weight_format), NB_I4, NB_E4M3, 128};
  nb_matrix_info info = {0};
  nb_kv_cache_options options = {0};
  nb_projection projection = {0};
  nb_sequence sequence = {0};
  nb_context *context = 0;
  nb_matrix *matrix = 0;
  nb_kv_cache *cache = 0;
  nb_graph *graph = 0;
  nb_sample_options sampling = {sizeof(nb_sample_options), 1.0f, 0, 1.0f, 0.0f};
  void *memory = 0;
  double rate = 0;
  float value = 0;
  char text[8];
  int64_t n = nb_abi_version() + nb_available_threads() + nb_context_threads(context) +
              nb_kv_cache_length(cache, 0) + nb_kv_cache_bytes(cache);
  const char *s[3];
  s[0] = nb_version(), s[1] = nb_last_error(), s[2] = nb_simd_target();
  (void)s;
  nb_simd_targets(text, (int64_t)sizeof(text));
  nb_device_status("cpu");
  nb_context_create("cpu", 1, &context);
  nb_measure_read_bandwidth(context, 1 << 20, 1, &rate);
  nb_encode(NB_I8, &value, 1, text, 1);
  nb_decode(NB_I8, text, 1, &value, 1);
  nb_weight_sizes(&f, 1, 1, &n, 0, 0, 0);
  nb_quantize(context, &f, &t, &t, 0, &t, &t);
  nb_matrix_pack(context, &f, 1, 1, &t, 0, &t, &t, &matrix);
  nb_matrix_quantize(context, &f, &t, &matrix);
  nb_matrix_unpack(context, matrix, &t, 0, &t, &t);
  nb_matrix_dequantize(context, matrix, &t);
  nb_matrix_get_info(matrix, &info);
  nb_matmul(context, NB_E4M3, &t, 0, 1e-5f, &projection, 1);
  nb_swiglu_matmul(context, NB_E4M3, &t, 0, 1e-5f, matrix, 0, matrix, 0, &t);
  nb_embedding(context, matrix, &t, &t);
  nb_rms_norm(context, &t, &t, 1e-5f, &t);
  nb_swiglu(context, &t, &t, &t);
  nb_add(context, &t, &t, &t);
  nb_quantize_activations(context, NB_I8, &t, 0, 0, &t, &t);
  nb_kv_cache_create(context, &options, &cache);
  nb_rope_angles(context, &t, &sequence, 1, &t);
  nb_rope_append(context, 0, &t, &t, &t, &t, &sequence, 1);
  nb_attention(context, 0, &t, 1.0f, &sequence, 1, &t);
  nb_device_describe("cpu", text, (int64_t)sizeof(text));
  nb_cuda_open("");
  nb_cuda_targets(text, (int64_t)sizeof(text));
  nb_memory_allocate(context, 1, &memory);
  nb_memory_copy(context, memory, text, 1);
  nb_memory_free(memory);
  nb_synchronize(context);
  nb_argmax(context, &t, &t);
  nb_sample(context, &t, &sampling, &t, &t);
  nb_penalize(context, &t, &t, 1.0f);
  nb_graph_begin(context, 0);
  nb_graph_end(context, &graph);
  nb_graph_launch(context, graph, &sequence, 1);
  nb_graph_destroy(graph);
  nb_kv_cache_destroy(cache);
  nb_matrix_destroy(matrix);
  nb_context_destroy(context);
  return n == 0;
}
