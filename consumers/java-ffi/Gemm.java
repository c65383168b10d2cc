// SPDX-License-Identifier: Apache-2.0

import dev.nibble.ffi.nb_projection;
import dev.nibble.ffi.nb_tensor;
import dev.nibble.ffi.nb_weight_format;
import dev.nibble.ffi.nibble_h;
import java.lang.foreign.Arena;
import java.lang.foreign.MemorySegment;
import java.lang.foreign.ValueLayout;
import java.util.Random;

/**
 * A Java program with nothing of Nibble but jextract's output and the shared library: INT4
 * weights times FP8 activations, checked against the definition in double precision.
 *
 * <p>Usage: {@code java --enable-native-access=ALL-UNNAMED Gemm /path/to/libnibble.so}
 */
public final class Gemm {

  // Odd sizes: the last group of 64 columns holds only 8.
  private static final int M = 3;
  private static final int N = 21;
  private static final int K = 200;
  private static final int GROUP = 64;
  private static final int GROUPS = Math.ceilDiv(K, GROUP);
  private static final float FACTOR = 0.0078125f;

  private final byte[] codes = new byte[N * K / 2];
  private final byte[] scales = new byte[N * GROUPS]; // E4M3
  private final float[] x = new float[M * K];

  private Gemm() {
    var random = new Random(7);
    random.nextBytes(codes);
    for (int i = 0; i < scales.length; i++) {
      scales[i] = (byte) random.nextInt(8, 104);
    }
    for (int i = 0; i < x.length; i++) {
      x[i] = random.nextFloat(-1, 1);
    }
  }

  public static void main(String[] args) {
    System.load(args[0]);
    if (nibble_h.nb_abi_version() != nibble_h.NB_ABI_VERSION()) {
      throw new IllegalStateException("another ABI: " + nibble_h.nb_abi_version());
    }
    var gemm = new Gemm();
    double worst = gemm.compare(gemm.multiply());
    System.out.printf(
        "nibble %s: INT4-FP8 product %dx%dx%d is right; worst error %.2g of the tolerance%n",
        nibble_h.nb_version().getString(0), M, N, K, worst);
  }

  private float[] multiply() {
    try (var arena = Arena.ofConfined()) {
      var format = nb_weight_format.allocate(arena);
      nb_weight_format.struct_size(format, nb_weight_format.sizeof());
      nb_weight_format.code_type(format, nibble_h.NB_I4());
      nb_weight_format.scale_type(format, nibble_h.NB_E4M3());
      nb_weight_format.group_size(format, GROUP);

      var code = arena.allocateFrom(ValueLayout.JAVA_BYTE, codes);
      var scale = arena.allocateFrom(ValueLayout.JAVA_BYTE, scales);
      var factor = arena.allocateFrom(ValueLayout.JAVA_FLOAT, FACTOR);
      var input = arena.allocateFrom(ValueLayout.JAVA_FLOAT, x);
      var output = arena.allocate(ValueLayout.JAVA_FLOAT, M * N);

      var context = arena.allocate(ValueLayout.ADDRESS);
      check(nibble_h.nb_context_create(arena.allocateFrom("cpu"), 2, context));
      var device = context.get(ValueLayout.ADDRESS, 0);

      var matrix = arena.allocate(ValueLayout.ADDRESS);
      check(nibble_h.nb_matrix_pack(device, format, N, K,
          tensor(arena, nibble_h.NB_U8(), code, N, K / 2), MemorySegment.NULL,
          tensor(arena, nibble_h.NB_E4M3(), scale, N, GROUPS),
          tensor(arena, nibble_h.NB_F32(), factor, 1), matrix));
      var weights = matrix.get(ValueLayout.ADDRESS, 0);

      var projection = nb_projection.allocate(arena);
      nb_projection.matrix(projection, weights);
      nb_projection.output(projection, tensor(arena, nibble_h.NB_F32(), output, M, N));
      check(nibble_h.nb_matmul(device, nibble_h.NB_E4M3(),
          tensor(arena, nibble_h.NB_F32(), input, M, K), MemorySegment.NULL, 0, projection, 1));

      check(nibble_h.nb_matrix_destroy(weights));
      check(nibble_h.nb_context_destroy(device));
      return output.toArray(ValueLayout.JAVA_FLOAT);
    }
  }

  private static MemorySegment tensor(Arena arena, int dtype, MemorySegment data, long... shape) {
    var tensor = nb_tensor.allocate(arena);
    nb_tensor.struct_size(tensor, nb_tensor.sizeof());
    nb_tensor.dtype(tensor, dtype);
    nb_tensor.rank(tensor, shape.length);
    long stride = 1;
    for (int i = shape.length - 1; i >= 0; i--) {
      nb_tensor.shape(tensor, i, shape[i]);
      nb_tensor.strides(tensor, i, stride);
      stride *= shape[i];
    }
    nb_tensor.data(tensor, data);
    nb_tensor.byte_length(tensor, data.byteSize());
    return tensor;
  }

  private static void check(int status) {
    if (status != nibble_h.NB_OK()) {
      throw new IllegalStateException(
          "status " + status + ": " + nibble_h.nb_last_error().getString(0));
    }
  }

  /**
   * The largest error as a share of the tolerance. Every product is exact in F32; what rounds is
   * fewer than K additions and three multiplications by scales, each by at most 2^-24 of the sum
   * of the magnitudes.
   */
  private double compare(float[] y) {
    double worst = 0;
    for (int m = 0; m < M; m++) {
      float amax = 0;
      for (int k = 0; k < K; k++) {
        amax = Math.max(amax, Math.abs(x[m * K + k]));
      }
      float scale = amax / 448f;
      for (int n = 0; n < N; n++) {
        double sum = 0;
        double magnitude = 0;
        for (int k = 0; k < K; k++) {
          int nibble = codes[(n * K + k) / 2] >> (k % 2 * 4) & 15;
          double weight =
              (nibble >= 8 ? nibble - 16 : nibble)
                  * e4m3Value(scales[n * GROUPS + k / GROUP])
                  * FACTOR;
          double product = weight * roundToE4m3(x[m * K + k] / scale) * scale;
          sum += product;
          magnitude += Math.abs(product);
        }
        double tolerance = magnitude * (K + 3) * 0x1p-24;
        double error = Math.abs(y[m * N + n] - sum);
        if (!(error <= tolerance)) {
          throw new IllegalStateException(
              "y[%d][%d] = %s, expected %s within %s".formatted(m, n, y[m * N + n], sum, tolerance));
        }
        worst = Math.max(worst, error / tolerance);
      }
    }
    return worst;
  }

  private static double e4m3Value(int code) {
    int exponent = code >> 3;
    int mantissa = code & 7;
    return exponent == 0 ? mantissa * 0x1p-9 : Math.scalb(8.0 + mantissa, exponent - 10);
  }

  /** The nearest E4M3 value, ties to even, saturating at 448. */
  private static double roundToE4m3(double value) {
    double step = Math.scalb(1.0, Math.max(Math.getExponent(value), -6) - 3);
    double rounded = Math.rint(value / step) * step;
    return Math.clamp(rounded, -448, 448);
  }
}
