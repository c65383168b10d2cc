/* SPDX-License-Identifier: Apache-2.0
 *
 * A C program that uses the installed Nibble: INT4 weights times FP8 activations, checked
 * against the definition of the product, computed here in double precision.
 */
#include <math.h>
#include <nibble/nibble.h>
#include <stdio.h>
#include <stdlib.h>

/* Odd sizes: the last group of 64 columns holds only 8. */
enum { M = 5, N = 19, K = 200, GROUP = 64, GROUPS = (K + GROUP - 1) / GROUP };

static uint8_t codes[N][K / 2];
static uint8_t scales[N][GROUPS]; /* E4M3 */
static float factor = 0.0078125f; /* of the whole matrix */
static float x[M][K];
static float y[M][N];

/* The same numbers everywhere: a linear congruential generator's upper bits. */
static uint32_t random_bits(void) {
  static uint32_t state = 12345;
  state = state * 1664525u + 1013904223u;
  return state >> 16;
}

/* The value of a positive E4M3 code. */
static double e4m3_value(int code) {
  int exponent = code >> 3, mantissa = code & 7;
  return exponent == 0 ? ldexp(mantissa, -9) : ldexp(8 + mantissa, exponent - 10);
}

/* Rounds to the nearest E4M3 value, ties to even, saturating at 448. */
static double round_to_e4m3(double value) {
  int exponent;
  double magnitude = fabs(value), step;
  frexp(magnitude, &exponent); /* magnitude = f * 2^exponent, 0.5 <= f < 1 */
  step = ldexp(1, (exponent < -5 ? -5 : exponent) - 4);
  magnitude = nearbyint(magnitude / step) * step;
  return copysign(magnitude > 448 ? 448 : magnitude, value);
}

static nb_tensor tensor(int32_t dtype, int64_t element, void *data, int64_t rows, int64_t cols) {
  nb_tensor t = {0};
  t.struct_size = sizeof t;
  t.dtype = dtype;
  t.rank = 2;
  t.shape[0] = rows;
  t.shape[1] = cols;
  t.strides[0] = cols;
  t.strides[1] = 1;
  t.data = data;
  t.byte_length = rows * cols * element;
  return t;
}

static void check(nb_status status, const char *call) {
  if (status != NB_OK) {
    fprintf(stderr, "%s: status %d: %s\n", call, (int)status, nb_last_error());
    exit(1);
  }
}

static void fill(void) {
  for (int n = 0; n < N; n++) {
    for (int b = 0; b < K / 2; b++) codes[n][b] = (uint8_t)random_bits();
    for (int g = 0; g < GROUPS; g++) scales[n][g] = (uint8_t)(8 + random_bits() % 96);
  }
  for (int m = 0; m < M; m++) {
    for (int k = 0; k < K; k++) x[m][k] = (float)random_bits() / 32768.0f - 1.0f;
  }
}

static void multiply(void) {
  nb_weight_format format = {sizeof format, NB_I4, NB_E4M3, GROUP};
  nb_tensor code_tensor = tensor(NB_U8, 1, codes, N, K / 2);
  nb_tensor scale_tensor = tensor(NB_E4M3, 1, scales, N, GROUPS);
  nb_tensor factor_tensor = tensor(NB_F32, 4, &factor, 1, 1);
  nb_tensor x_tensor = tensor(NB_F32, 4, x, M, K);
  nb_tensor y_tensor = tensor(NB_F32, 4, y, M, N);
  nb_context *context = NULL;
  nb_matrix *matrix = NULL;
  nb_projection projection = {0};

  factor_tensor.rank = 1; /* [1] */
  check(nb_context_create("cpu", 2, &context), "nb_context_create");
  check(nb_matrix_pack(context, &format, N, K, &code_tensor, NULL, &scale_tensor, &factor_tensor,
                       &matrix),
        "nb_matrix_pack");
  projection.matrix = matrix;
  projection.output = &y_tensor;
  check(nb_matmul(context, NB_E4M3, &x_tensor, NULL, 0, &projection, 1), "nb_matmul");
  check(nb_matrix_destroy(matrix), "nb_matrix_destroy");
  check(nb_context_destroy(context), "nb_context_destroy");
}

/* Every product of a weight and an activation is exact in F32. What rounds is the sum: fewer
 * than K additions, and three multiplications by scales, each at most 2^-24 relative to the sum
 * of the magnitudes. */
static int compare(void) {
  double worst = 0;
  for (int m = 0; m < M; m++) {
    float amax = 0, scale;
    for (int k = 0; k < K; k++) amax = fabsf(x[m][k]) > amax ? fabsf(x[m][k]) : amax;
    scale = amax / 448.0f;
    for (int n = 0; n < N; n++) {
      double sum = 0, magnitude = 0, tolerance, error;
      for (int k = 0; k < K; k++) {
        int q = codes[n][k / 2] >> (k % 2 * 4) & 15;
        double weight = (q >= 8 ? q - 16 : q) * e4m3_value(scales[n][k / GROUP]) * factor;
        float divided = x[m][k] / scale; /* in F32, as the quantizer is defined */
        double product = weight * round_to_e4m3(divided) * scale;
        sum += product;
        magnitude += fabs(product);
      }
      tolerance = magnitude * (K + 3) * ldexp(1, -24);
      error = fabs(y[m][n] - sum);
      if (!(error <= tolerance)) {
        fprintf(stderr, "y[%d][%d] = %.9g, expected %.9g within %.3g\n", m, n, y[m][n], sum,
                tolerance);
        return 1;
      }
      worst = error / tolerance > worst ? error / tolerance : worst;
    }
  }
  printf("nibble %s: INT4-FP8 product %dx%dx%d is right; worst error %.2g of the tolerance\n",
         nb_version(), M, N, K, worst);
  return 0;
}

int main(void) {
  if (nb_abi_version() != NB_ABI_VERSION) {
    fprintf(stderr, "header ABI %d, library ABI %d\n", NB_ABI_VERSION, (int)nb_abi_version());
    return 1;
  }
  fill();
  multiply();
  return compare();
}
