/* SPDX-License-Identifier: Apache-2.0
 *
 * nibble.h: the C ABI of Nibble, kernels for low-bit LLM inference.
 *
 * Conventions that hold for every function here
 * ---------------------------------------------
 * Status.      A function that can fail returns nb_status. On anything but NB_OK,
 *              nb_last_error() gives the calling thread one line that names the
 *              argument, what was passed and what was expected. Nothing aborts,
 *              exits, prints or throws across this interface. A failed call leaves
 *              every output handle NULL; output tensors may be partly written only
 *              after NB_OUT_OF_MEMORY, NB_DEVICE_ERROR or NB_INTERNAL.
 * Ownership.   Handles made by *_create, *_pack, *_quantize and *_read belong to the
 *              caller, who passes each to its *_destroy once; destroying NULL is
 *              harmless. Nothing keeps a pointer to caller memory after the call
 *              returns. A matrix or a cache may outlive the context it was made with.
 * Threads.     One context serves one call at a time; a second concurrent call on
 *              the same context waits, first come, first served. Different contexts
 *              run at once. A matrix is immutable and may be used from any number
 *              of contexts at once. A KV cache must not be used by two calls at once.
 *              Destroying a handle while a call uses it is undefined.
 * Devices.     A context works on one device, "cpu" or "cuda:N". A matrix, a cache or a graph
 *              belongs to the device of the context that made it; with a context of another
 *              device it is NB_INVALID_ARGUMENT. The tensors of operators lie in ordinary
 *              memory, or in memory of the context's device (nb_memory_allocate), in any
 *              mixture; those of weights in ordinary memory. A call returns when its results
 *              in ordinary memory are there. On "cuda:N", calls whose tensors all lie in the
 *              device's memory return at once; the calls of one context run in order, and
 *              another context sees what they wrote after nb_synchronize. What goes wrong in
 *              a kernel is reported by this or a later call as NB_DEVICE_ERROR; then nothing
 *              on that device works any more in this process, and everything on "cpu" does.
 * Shapes.      Row-major, sizes in elements, innermost dimension last. "M" is the
 *              number of tokens (rows of activations), "K" the inputs and "N" the
 *              outputs of a projection, each 1 to 2^31 - 1. Zero rows are legal
 *              wherever M is free and do nothing.
 * Results.     The same build on the same machine gives the same bits for any number
 *              of threads.
 * Versions.    Structs that may grow begin with struct_size, which the caller sets to
 *              sizeof of the struct; another size than this version's is refused.
 *              nb_abi_version() grows by one when an existing declaration changes.
 */
#ifndef NIBBLE_NIBBLE_H_
#define NIBBLE_NIBBLE_H_

#include <stdint.h>

#if defined(_WIN32)
#define NB_API __declspec(dllexport)
#else
#define NB_API __attribute__((visibility("default")))
#endif

#define NB_ABI_VERSION 1
#define NB_MAX_RANK 4

#ifdef __cplusplus
extern "C" {
#endif

/* ------------------------------------------------------------------ types -- */

typedef enum nb_status {
  NB_OK = 0,
  NB_INVALID_ARGUMENT = 1, /* the caller's mistake: the message names the argument */
  NB_UNSUPPORTED = 2,      /* legal, but there is no kernel or device for it */
  NB_OUT_OF_MEMORY = 3,
  NB_DEVICE_ERROR = 4,
  NB_INTERNAL = 5
} nb_status;

/* Element, code and scale types. Encoding rounds to nearest, ties to even, and
 * saturates to the largest finite value. */
typedef enum nb_dtype {
  NB_NONE = 0,
  NB_F32 = 1,  /* IEEE 754 binary32 */
  NB_F16 = 2,  /* IEEE 754 binary16 */
  NB_BF16 = 3, /* upper half of binary32 */
  NB_E4M3 = 4, /* OCP FP8 E4M3 (FN): bias 7, max 448, no infinity, NaN 0x7F and 0xFF */
  NB_E5M2 = 5, /* OCP FP8 E5M2: bias 15, max 57344, IEEE-like */
  NB_E3M2 = 6, /* OCP MX FP6: bias 3, max 28, no infinity, no NaN */
  NB_E2M3 = 7, /* OCP MX FP6: bias 1, max 7.5, no infinity, no NaN */
  NB_I4 = 8,   /* two's complement, -8..7 */
  NB_I8 = 9,   /* two's complement */
  NB_I32 = 10,
  NB_U8 = 11,  /* bytes: packed codes */
  NB_POW2 = 12, /* scale only: one signed byte e stands for 2^e, -9 <= e <= 5 */
  NB_F64 = 13  /* IEEE 754 binary64: the random numbers of nb_sample only */
} nb_dtype;

/* A view of caller memory; never owns it. data must be aligned to the size of
 * dtype, byte_length must cover the last element. strides are in elements; the
 * innermost stride must be 1. */
typedef struct nb_tensor {
  int64_t struct_size;
  int32_t dtype; /* nb_dtype */
  int32_t rank;  /* 1..NB_MAX_RANK */
  int64_t shape[NB_MAX_RANK];
  int64_t strides[NB_MAX_RANK];
  void *data;
  int64_t byte_length;
} nb_tensor;

/* How the weights of a projection W [N rows][K cols] are stored.
 *
 *   code_type  codes [N][bytes]        codes_high          value of one weight
 *   I4         U8 [N][ceil(K/2)]       -                   q * scale * factor
 *   E3M2 E2M3  U8 [N][ceil(K/2)]       U8 [N][ceil(K/4)]   f6 * scale
 *   I8         U8 [N][K]               -                   q * scale
 *   E4M3 E5M2  U8 [N][K]               -                   f8 * scale
 *   BF16 F16   U8 [N][2K]              -                   itself
 *   F32        U8 [N][4K]              -                   itself
 *
 * I4: column k is in byte k/2, the low nibble for even k. Six bits: codes holds
 * code & 15 the same way, codes_high holds code >> 4 in byte k/4, bits 2*(k%4)
 * (the 4+2 planes of FP6-LLM). Unused bits are written as zero and ignored when read.
 * 16- and 32-bit elements are little-endian.
 *
 * scales is [N][ceil(K/group_size)] of scale_type; the last group may be short.
 * factors is F32: [1] for the whole matrix when an I4 matrix has E4M3 scales (FireQ,
 * arXiv 2505.20839), [N] when it has POW2 scales, otherwise absent (1). A part that a
 * format lacks is passed as NULL. */
typedef struct nb_weight_format {
  int64_t struct_size;
  int32_t code_type;  /* nb_dtype, as in the table */
  int32_t scale_type; /* I4: E4M3, POW2, F16, BF16, F32; I8, FP8, FP6: F16, BF16, F32;
                         16- and 32-bit floats: NB_NONE */
  int64_t group_size; /* columns that share a scale: a multiple of 16, or 0 for all K */
} nb_weight_format;

typedef struct nb_matrix_info {
  int64_t struct_size;
  int64_t rows; /* N */
  int64_t cols; /* K */
  nb_weight_format format;
  int64_t packed_bytes; /* what one pass over the matrix reads */
} nb_matrix_info;

typedef struct nb_kv_cache_options {
  int64_t struct_size;
  int32_t type;       /* NB_I4 (KV4), NB_I8 (KV8), NB_BF16 (KV16) or NB_F32 */
  int32_t layers;     /* 1..65536 */
  int32_t kv_heads;   /* 1..65536 */
  int32_t head_dim;   /* even, 16..256 */
  int64_t capacity;   /* tokens, 1..2^40 */
  int64_t group_size; /* NB_I4 only: elements of a head that share one E4M3 scale: a
                         multiple of 16 that divides head_dim, or 0 for the whole head */
  const float *key_factors;   /* NB_I4 only: a positive normal F32 per layer, or NULL for 1 */
  const float *value_factors; /* the same for values */
} nb_kv_cache_options;

typedef struct nb_context nb_context;   /* a device and its worker threads */
typedef struct nb_matrix nb_matrix;     /* packed, immutable weights of one projection */
typedef struct nb_kv_cache nb_kv_cache; /* keys and values of one sequence, all layers */
typedef struct nb_graph nb_graph;       /* a recorded list of calls, to be run again */

/* One projection of nb_matmul: output = norm(x) * matrix^T + bias + residual. */
typedef struct nb_projection {
  const nb_matrix *matrix;   /* [N, K] */
  const nb_tensor *bias;     /* F32 [N], or NULL */
  const nb_tensor *residual; /* F32 [M, N], or NULL; may be the same memory as output */
  const nb_tensor *output;   /* F32 [M, N]; must not overlap x */
} nb_projection;

/* rows consecutive tokens of one sequence, at positions start, start+1, ... The
 * tokens of a batch stand one sequence after the other in every [M, ...] tensor. */
typedef struct nb_sequence {
  nb_kv_cache *cache;
  int64_t start;
  int64_t rows;
} nb_sequence;

/* --------------------------------------------------------- library, device -- */

NB_API int32_t nb_abi_version(void);

/* "MAJOR.MINOR.PATCH"; static storage. */
NB_API const char *nb_version(void);

/* The calling thread's message for its last call that failed; "" if none did. Valid
 * until that thread's next call. */
NB_API const char *nb_last_error(void);

/* The SIMD target in use, e.g. "AVX3_DL", "AVX2", "NEON"; static storage. The
 * environment variable NIBBLE_SIMD_TARGET forces one that the CPU can run; an unknown
 * or unusable name is reported by nb_context_create. */
NB_API const char *nb_simd_target(void);

/* Writes the space-separated names of the SIMD targets that this build and this CPU
 * can run, best first, NUL-terminated; fails if buffer_length is too small. */
NB_API nb_status nb_simd_targets(char *buffer, int64_t buffer_length);

/* Threads this process may use: the smaller of its CPU affinity and its cgroup quota
 * rounded up; at least 1. */
NB_API int32_t nb_available_threads(void);

/* Whether device ("cpu", "cuda:0") can be used: NB_OK, or NB_UNSUPPORTED with the
 * reason in nb_last_error(). */
NB_API nb_status nb_device_status(const char *device);

/* Writes one line about device to buffer, NUL-terminated: of "cuda:N" its name, compute
 * capability, multiprocessors and memory. Fails as nb_device_status does, and if
 * buffer_length is too small; 512 is enough. */
NB_API nb_status nb_device_describe(const char *device, char *buffer, int64_t buffer_length);

/* Opens the CUDA plug-in, libnibble_cuda.so, at path. Without this call it is opened when it is
 * first needed, from beside libnibble; an application that unpacks it elsewhere says where,
 * before anything else asks for CUDA. NB_UNSUPPORTED with the reason if it cannot be opened,
 * NB_INVALID_ARGUMENT if another one already is. The file is not needed afterwards. */
NB_API nb_status nb_cuda_open(const char *path);

/* Writes the space-separated generations that the CUDA plug-in has kernels for, e.g.
 * "sm_80 sm_89 sm_90a sm_120a", NUL-terminated; needs no driver. NB_UNSUPPORTED if there is no
 * plug-in; fails if buffer_length is too small. */
NB_API nb_status nb_cuda_targets(char *buffer, int64_t buffer_length);

/* Makes a context on device ("cpu", "cuda:N") with its own worker threads, which on a CUDA
 * device serve the quantization and packing of weights. threads: 0 for
 * nb_available_threads(), else 1..1024, honoured as given. Fails as nb_device_status does. */
NB_API nb_status nb_context_create(const char *device, int32_t threads, nb_context **context);
NB_API nb_status nb_context_destroy(nb_context *context);
NB_API int32_t nb_context_threads(const nb_context *context); /* 0 for NULL */

/* Measures the rate at which this context's threads together read a buffer of
 * buffer_bytes (>= 1 MiB; at least four times the last-level cache to measure memory),
 * the best of repeats passes (1..1000). The limit against which decode is judged. On a CUDA
 * device: the bytes that a copying kernel reads and writes in a second, over two buffers that
 * have buffer_bytes together. */
NB_API nb_status nb_measure_read_bandwidth(nb_context *context, int64_t buffer_bytes,
                                           int32_t repeats, double *bytes_per_second);

/* ------------------------------------------------------------------ memory -- */

/* Allocates bytes (0 to 2^62; of 0 bytes *memory is NULL) that the context's device reaches
 * fastest, on a boundary of at least 256 bytes: on "cpu" ordinary memory, all zero; on "cuda:N"
 * memory of the device, undefined, which the caller must not dereference. Tensors in it are
 * used in place by every context of that device. *memory belongs to the caller, who passes it
 * to nb_memory_free once; it may outlive the context. */
NB_API nb_status nb_memory_allocate(nb_context *context, int64_t bytes, void **memory);

/* memory: from nb_memory_allocate, or NULL. Waits for the calls that use it. */
NB_API nb_status nb_memory_free(void *memory);

/* Copies bytes; each of destination and source is ordinary memory or memory of the context's
 * device; they must not overlap. In order with the context's other calls. Source may be
 * changed, and a destination in ordinary memory read, when the call has returned. */
NB_API nb_status nb_memory_copy(nb_context *context, void *destination, const void *source,
                                int64_t bytes);

/* Waits for everything that the context's calls have started. */
NB_API nb_status nb_synchronize(nb_context *context);

/* ---------------------------------------------------------------- numerics -- */

/* Encodes count F32 values into codes of dtype F16, BF16 (2 bytes each), E4M3, E5M2,
 * E3M2, E2M3, I4, I8 (one byte each, unused high bits 0; I4 and I8 round to nearest
 * even). NaN gives NaN where dtype has one, else NB_INVALID_ARGUMENT. */
NB_API nb_status nb_encode(int32_t dtype, const float *values, int64_t count, void *codes,
                           int64_t code_bytes);

/* The exact inverse: the value of each code, as F32. */
NB_API nb_status nb_decode(int32_t dtype, const void *codes, int64_t code_bytes, float *values,
                           int64_t count);

/* ----------------------------------------------------------------- weights -- */

/* Sizes of the canonical form of an [rows, cols] matrix, in bytes (factors: in F32
 * elements); absent parts are 0. Any output pointer may be NULL. */
NB_API nb_status nb_weight_sizes(const nb_weight_format *format, int64_t rows, int64_t cols,
                                 int64_t *code_bytes, int64_t *high_bytes, int64_t *scale_bytes,
                                 int64_t *factor_count);

/* Round-to-nearest quantization of weights (F32, F16 or BF16, [N, K]) to the canonical
 * form. For a group with largest magnitude amax the ideal scale is amax/7 (I4),
 * amax/127 (I8), amax/28 (E3M2), amax/7.5 (E2M3), amax/448 (E4M3), amax/57344 (E5M2),
 * in F32; it is rounded to scale_type (E4M3: after division by the matrix factor
 * max(ideal)/56; POW2: after division by the row factor max(ideal)/32, and rounded
 * up), never to 0 for a nonzero group. Each value is divided in F32 by the stored scale
 * and encoded. A group of zeros has codes 0 and scale 0 (POW2: -9). Factors of an
 * all-zero matrix or row are 0. NaN or infinity is NB_INVALID_ARGUMENT, naming the
 * element. Unquantized code types convert (to nearest even). codes_high, scales and
 * factors: NULL where the format has none. codes [N, bytes], rows contiguous. */
NB_API nb_status nb_quantize(nb_context *context, const nb_weight_format *format,
                             const nb_tensor *weights, const nb_tensor *codes,
                             const nb_tensor *codes_high, const nb_tensor *scales,
                             const nb_tensor *factors);

/* Packs the canonical form into the layout of this context's kernels. Codes and scales that are
 * NaN or infinite, E4M3 scales and factors that are negative (-0 too), and POW2 scales out of
 * their range are NB_INVALID_ARGUMENT. F16, BF16 and F32 scales may have either sign. */
NB_API nb_status nb_matrix_pack(nb_context *context, const nb_weight_format *format, int64_t rows,
                                int64_t cols, const nb_tensor *codes, const nb_tensor *codes_high,
                                const nb_tensor *scales, const nb_tensor *factors,
                                nb_matrix **matrix);

/* nb_quantize followed by nb_matrix_pack, without the canonical form in between. */
NB_API nb_status nb_matrix_quantize(nb_context *context, const nb_weight_format *format,
                                    const nb_tensor *weights, nb_matrix **matrix);

/* The canonical form back from a packed matrix, bit for bit. */
NB_API nb_status nb_matrix_unpack(nb_context *context, const nb_matrix *matrix,
                                  const nb_tensor *codes, const nb_tensor *codes_high,
                                  const nb_tensor *scales, const nb_tensor *factors);

/* The value of every weight, rounded once to F32. output: F32 [N, K]. */
NB_API nb_status nb_matrix_dequantize(nb_context *context, const nb_matrix *matrix,
                                      const nb_tensor *output);

/* A packed matrix as a record in a file, so that it need not be packed again. The file is the
 * caller's, and so is what else it holds. A record is of use to the library and the kind of
 * machine that wrote it: anything else in its place, damage included (every byte that is used is
 * under a checksum), is NB_INVALID_ARGUMENT and never a matrix, and the caller packs again.
 *
 * Writes to *bytes the size of the record of an [rows, cols] matrix, a multiple of 4096. */
NB_API nb_status nb_matrix_record_bytes(const nb_weight_format *format, int64_t rows,
                                        int64_t cols, int64_t *bytes);

/* Writes matrix as a record of record_bytes (nb_matrix_record_bytes) at offset (>= 0) of the
 * file at path (NUL-terminated), which must exist. Where the system refuses, a full disk
 * included: NB_DEVICE_ERROR with its reason. */
NB_API nb_status nb_matrix_write(nb_context *context, const nb_matrix *matrix, const char *path,
                                 int64_t offset, int64_t record_bytes);

/* Makes a matrix from the record of record_bytes at offset (>= 0) of the file at path. The file
 * is read by all threads, each the part that it will work on, and never mapped. For speed,
 * offset should be a multiple of 4096. */
NB_API nb_status nb_matrix_read(nb_context *context, const nb_weight_format *format, int64_t rows,
                                int64_t cols, const char *path, int64_t offset,
                                int64_t record_bytes, nb_matrix **matrix);

/* Fills info, whose struct_size the caller has set. */
NB_API nb_status nb_matrix_get_info(const nb_matrix *matrix, nb_matrix_info *info);
NB_API nb_status nb_matrix_destroy(nb_matrix *matrix);

/* --------------------------------------------------------------- operators -- */

/* For each of count projections (1..8, one K): output = norm(x) * W^T + bias + residual.
 *
 * activation: what norm(x) is rounded to before the product, with one F32 scale a token:
 *   NB_F32   nothing            NB_BF16  A16
 *   NB_E4M3  A8F, amax/448      NB_I8    A8I, amax/127
 * Kernels exist for every code type with F32, BF16 and E4M3, and for I4, I8 and E2M3 codes
 * with I8; anything else is NB_UNSUPPORTED. On CUDA devices: every code type but F32 with
 * BF16 and E4M3, every one but I4 with F32, and I4, I8, E3M2 and E2M3 codes with I8.
 * x: F32 [M, K]. norm_weight: F32 [K] for RMSNorm first (x / sqrt(mean(x^2) +
 * norm_epsilon) * weight, Zhang and Sennrich, arXiv 1910.07467; norm_epsilon finite and
 * positive), or NULL for none. */
NB_API nb_status nb_matmul(nb_context *context, int32_t activation, const nb_tensor *x,
                           const nb_tensor *norm_weight, float norm_epsilon,
                           const nb_projection *projections, int32_t count);

/* output = silu(norm(x) * gate^T + gate_bias) * (norm(x) * up^T + up_bias): the first half
 * of a LLaMA feed-forward block (SwiGLU, Shazeer, arXiv 2002.05202). gate and up: [N, K],
 * of one format; biases F32 [N] or NULL; output F32 [M, N]; must not overlap x. */
NB_API nb_status nb_swiglu_matmul(nb_context *context, int32_t activation, const nb_tensor *x,
                                  const nb_tensor *norm_weight, float norm_epsilon,
                                  const nb_matrix *gate, const nb_tensor *gate_bias,
                                  const nb_matrix *up, const nb_tensor *up_bias,
                                  const nb_tensor *output);

/* output[i] = the weights of row ids[i] of table [V, K]. ids: I32 [M], each in 0..V-1;
 * output: F32 [M, K]. Ids in a CUDA device's memory, and those of a graph, are not looked at
 * beforehand: one that is out of range gives a row of NaN. */
NB_API nb_status nb_embedding(nb_context *context, const nb_matrix *table, const nb_tensor *ids,
                              const nb_tensor *output);

/* output = RMSNorm(x), as in nb_matmul. x, output: F32 [M, K], may be the same memory. */
NB_API nb_status nb_rms_norm(nb_context *context, const nb_tensor *x, const nb_tensor *weight,
                             float epsilon, const nb_tensor *output);

/* output = silu(gate) * up, elementwise; F32 [M, N]; output may be gate or up. */
NB_API nb_status nb_swiglu(nb_context *context, const nb_tensor *gate, const nb_tensor *up,
                           const nb_tensor *output);

/* output = a + b, elementwise; F32 [M, N]; output may be a or b. */
NB_API nb_status nb_add(nb_context *context, const nb_tensor *a, const nb_tensor *b,
                        const nb_tensor *output);

/* The activation quantizer of nb_matmul on its own. type: NB_E4M3 or NB_I8. x: F32 [M, K];
 * norm_weight as in nb_matmul; codes: U8 [M, K]; scales: F32 [M]. A row of zeros has codes
 * 0 and scale 0. NaN or infinity in a row gives that row a NaN scale. */
NB_API nb_status nb_quantize_activations(nb_context *context, int32_t type, const nb_tensor *x,
                                         const nb_tensor *norm_weight, float norm_epsilon,
                                         const nb_tensor *codes, const nb_tensor *scales);

/* --------------------------------------------------------------- attention -- */

NB_API nb_status nb_kv_cache_create(nb_context *context, const nb_kv_cache_options *options,
                                    nb_kv_cache **cache);
NB_API nb_status nb_kv_cache_destroy(nb_kv_cache *cache);

/* Tokens held in layer (0-based); -1 for a NULL cache or a layer out of range. */
NB_API int64_t nb_kv_cache_length(const nb_kv_cache *cache, int32_t layer);

/* Bytes of memory the cache occupies; 0 for NULL. */
NB_API int64_t nb_kv_cache_bytes(const nb_kv_cache *cache);

/* Rotation angles of the tokens of a batch: for the token at position p and i < D/2,
 * angles[row][i] = cos(p * inverse_frequencies[i]), angles[row][D/2 + i] = sin(...), the
 * product taken in F32 as Hugging Face's LLaMA does. inverse_frequencies: F32 [D/2] (RoPE,
 * arXiv 2104.09864; scaled variants differ only here). angles: F32 [M, D]. Made once a
 * forward pass, used by every layer. Caches may be NULL here. */
NB_API nb_status nb_rope_angles(nb_context *context, const nb_tensor *inverse_frequencies,
                                const nb_sequence *sequences, int32_t count,
                                const nb_tensor *angles);

/* Rotates q in place and appends the rotated k, and v, to layer of each sequence's cache,
 * quantized to its type. Element i < D/2 of a head pairs with i + D/2. q: F32 [M, Hq*D];
 * k, v: F32 [M, Hkv*D], not changed; angles: from nb_rope_angles, or NULL for no rotation.
 * All caches have one shape and type. start may be at most the cache's length in layer:
 * a smaller one drops the tokens from start on; start + rows is at most its capacity. */
NB_API nb_status nb_rope_append(nb_context *context, int32_t layer, const nb_tensor *q,
                                const nb_tensor *k, const nb_tensor *v, const nb_tensor *angles,
                                const nb_sequence *sequences, int32_t count);

/* Causal attention: the token at position p attends to positions 0..p of its sequence, all
 * of which the cache's layer must hold. output = softmax(scale * q k^T) v per head, online
 * (FlashAttention, arXiv 2205.14135); query head h uses key/value head h / (Hq/Hkv). Against
 * KV4 and KV8 the query is first rounded to E4M3 with one scale (amax/448) per token and
 * head. q, output: F32 [M, Hq*D]; they must not overlap. */
NB_API nb_status nb_attention(nb_context *context, int32_t layer, const nb_tensor *q, float scale,
                              const nb_sequence *sequences, int32_t count,
                              const nb_tensor *output);

/* ------------------------------------------------------- choosing a token -- */

/* ids[r] = the column of the largest of row r of logits, the first of equals; where the row
 * has a NaN or +infinity, -1 - (the first such column). logits: F32 [M, N], N >= 1; ids:
 * I32 [M]. */
NB_API nb_status nb_argmax(nb_context *context, const nb_tensor *logits, const nb_tensor *ids);

typedef struct nb_sample_options {
  int64_t struct_size;
  float temperature; /* 0 (nb_argmax) to 100 */
  int32_t top_k;     /* keep the k likeliest; 0 for all */
  float top_p;       /* keep the likeliest that together have this probability: above 0 to 1 */
  float min_p;       /* drop what is less likely than this fraction of the likeliest: 0 to 1 */
} nb_sample_options;

/* ids[r] = a column of row r of logits, drawn from softmax(row / temperature) after the filters
 * top_k, top_p (nucleus sampling, arXiv 1904.09751) and min_p (arXiv 2407.01082), in this order,
 * by uniforms[r]; as nb_argmax where the row has a NaN or +infinity. The same logits and
 * uniforms give the same ids on every device. logits: F32 [M, N], N from 1 to 2^22; uniforms:
 * F64 [M], each at least 0 and below 1; ids: I32 [M]. */
NB_API nb_status nb_sample(nb_context *context, const nb_tensor *logits,
                           const nb_sample_options *options, const nb_tensor *uniforms,
                           const nb_tensor *ids);

/* The repeat penalty (CTRL, arXiv 1909.05858), in place: logits[t] becomes logits[t] / penalty
 * where it is positive and logits[t] * penalty elsewhere, for each t in tokens. logits: F32 [N];
 * tokens: I32 [count], no token twice, those outside 0..N-1 are passed over; penalty: finite
 * and positive. */
NB_API nb_status nb_penalize(nb_context *context, const nb_tensor *logits,
                             const nb_tensor *tokens, float penalty);

/* ------------------------------------------------------------------ graphs -- */

/* A step of decoding makes the same calls for every token; a graph makes them at the cost of
 * one (on CUDA devices a CUDA graph; on "cpu" the calls are simply made again).
 *
 * Between nb_graph_begin and nb_graph_end, calls of the operators, of attention, of choosing a
 * token and of nb_memory_copy on this context are checked and recorded, but not run. Their
 * tensors must lie in memory from nb_memory_allocate, of this context's device. Functions of the
 * other kinds fail with NB_INVALID_ARGUMENT; a call that fails is not recorded. All sequences of
 * a recording must be one batch: in each call the same caches with the same rows. What the
 * positions must respect is checked when the graph is launched, for all its calls, before any
 * of them runs.
 *
 * max_tokens: no launch will have a sequence with start + rows above this (1 to 2^40); 0 for
 * the smallest capacity of its caches. A CUDA graph is laid out for so many: one that is far
 * too large costs time. */
NB_API nb_status nb_graph_begin(nb_context *context, int64_t max_tokens);

/* Ends the recording, whatever it returns. The caller keeps the matrices, caches and memory of
 * its calls alive as long as the graph. */
NB_API nb_status nb_graph_end(nb_context *context, nb_graph **graph);

/* Makes the recorded calls, with the same bits as if they were made one by one, with sequences
 * in place of those recorded: the same count, caches and rows, other positions. context: the
 * one that recorded it. */
NB_API nb_status nb_graph_launch(nb_context *context, const nb_graph *graph,
                                 const nb_sequence *sequences, int32_t count);
NB_API nb_status nb_graph_destroy(nb_graph *graph);

/* ------------------------------------------------------------- calibration -- */

/* What a quantizer that looks at activations is made of. All on "cpu"; with a context of another
 * device NB_UNSUPPORTED. */

/* sums[k] += sum over rows of x[r][k]^2; maxima[k] = max(maxima[k], largest |x[r][k]|). x: F32
 * [M, K]; sums, maxima: F32 [K], either may be NULL. NaN in a column makes its sum NaN. */
NB_API nb_status nb_channel_statistics(nb_context *context, const nb_tensor *x,
                                       const nb_tensor *sums, const nb_tensor *maxima);

/* moments += x^T x, the second moments of the columns. x: F32 [M, K]; moments: F32 [K, K], rows
 * contiguous, symmetric before and after. */
NB_API nb_status nb_second_moments(nb_context *context, const nb_tensor *x,
                                   const nb_tensor *moments);

/* moments += x^T y, moments[i][j] the sum of x[r][i] * y[r][j]. x, y: F32 [M, K]; moments: F32
 * [K, K], rows contiguous. */
NB_API nb_status nb_cross_moments(nb_context *context, const nb_tensor *x, const nb_tensor *y,
                                  const nb_tensor *moments);

/* Weights for inputs x that stand where the unquantized model has y, since what comes before is
 * quantized already: W becomes the V with the smallest sum over the calibration tokens of
 * |W y - V x|^2 + d |W - V|^2 (the target of GPTAQ, arXiv 2504.02692). weights: F32 [N, K], finite,
 * changed in place; moments: F32 [K, K] of nb_second_moments of x; cross: F32 [K, K] of
 * nb_cross_moments of x and y; damping: d as a share of the mean of moments' diagonal, finite,
 * above 0. */
NB_API nb_status nb_correct_drift(nb_context *context, const nb_tensor *weights,
                                  const nb_tensor *moments, const nb_tensor *cross,
                                  float damping);

/* weights[n][k] *= row_factors[n] * col_factors[k], in place. weights: F32 [N, K]; row_factors:
 * F32 [N]; col_factors: F32 [K]; either may be NULL for ones. */
NB_API nb_status nb_scale_matrix(nb_context *context, const nb_tensor *weights,
                                 const nb_tensor *row_factors, const nb_tensor *col_factors);

typedef struct nb_calibration_options {
  int64_t struct_size;
  int32_t clipping;     /* 1: search each group's scale for the least error; code type I4 only */
  int32_t by_magnitude; /* 1: with moments, round the columns with the largest moments first */
  float damping;        /* with moments: this share of the mean of their diagonal is added to it;
                           finite, above 0 */
  float factor;         /* E4M3 scales: the matrix factor, finite, above 0; 0 for nb_quantize's */
} nb_calibration_options;

/* nb_quantize for weights whose inputs are known, for every quantized code type. Without clipping
 * and moments it is nb_quantize, to the bit, but for options->factor.
 *
 * Clipping: of the scales that can be stored, each group gets the one with the smallest
 * sum_k importance[k] * (w_k - code_k * scale)^2. importance: F32 [K], not negative: the second
 * moments of the inputs (nb_channel_statistics), or NULL for ones.
 *
 * moments: F32 [K, K] of nb_second_moments, or NULL. With them columns are rounded one by one and
 * make up for the errors of those before (GPTQ, arXiv 2210.17323), so that the sum over the
 * calibration tokens of |(W - Q) x|^2 is small; importance is not used then.
 *
 * weights: F32 [N, K], finite; codes, codes_high, scales, factors as in nb_quantize. */
NB_API nb_status nb_quantize_calibrated(nb_context *context, const nb_weight_format *format,
                                        const nb_calibration_options *options,
                                        const nb_tensor *weights, const nb_tensor *importance,
                                        const nb_tensor *moments, const nb_tensor *codes,
                                        const nb_tensor *codes_high, const nb_tensor *scales,
                                        const nb_tensor *factors);

/* Scales of the keys of a layer behind the rotation (FireQ's post-RoPE scaling, arXiv 2505.20839):
 * from now on nb_rope_append divides each element of a rotated key by its scale before it is
 * quantized, and multiplies the query's rotated elements by the scale of the key's element that
 * they meet, so that scores stay what they were and a channel with outliers no longer decides the
 * step of all others. scales: F32 [kv_heads, head_dim], positive, normal numbers; NULL for ones.
 * The layer must hold no tokens. Caches of a CUDA device: NB_UNSUPPORTED. */
NB_API nb_status nb_kv_cache_set_key_scales(nb_kv_cache *cache, int32_t layer,
                                            const nb_tensor *scales);

#ifdef __cplusplus
}
#endif

#endif /* NIBBLE_NIBBLE_H_ */
