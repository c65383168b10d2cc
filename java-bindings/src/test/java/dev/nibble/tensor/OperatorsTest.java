// SPDX-License-Identifier: Apache-2.0
package dev.nibble.tensor;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;
import static org.assertj.core.api.Assertions.within;

import dev.nibble.ClosedException;
import dev.nibble.InvalidArgumentException;
import dev.nibble.UnsupportedException;
import dev.nibble.io.DataType;
import dev.nibble.quantize.ActivationType;
import dev.nibble.quantize.CodeType;
import dev.nibble.quantize.KvType;
import dev.nibble.quantize.ScaleType;
import dev.nibble.quantize.WeightFormat;
import java.lang.foreign.ValueLayout;
import java.util.ArrayList;
import java.util.Random;
import java.util.concurrent.ConcurrentLinkedQueue;
import org.junit.jupiter.api.AfterAll;
import org.junit.jupiter.api.BeforeAll;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.MethodSource;

/** Each operator of the facade on small operands, and how it refuses bad ones. */
class OperatorsTest {
  private static Context context;
  private final Random random = new Random(11);

  @BeforeAll
  static void open() {
    context = Context.create("cpu", 2);
  }

  @AfterAll
  static void close() {
    context.close();
  }

  private float[] floats(int count) {
    var values = new float[count];
    for (int i = 0; i < count; i++) {
      values[i] = random.nextFloat(-1, 1);
    }
    return values;
  }

  static Iterable<WeightFormat> formats() {
    var formats = new ArrayList<WeightFormat>();
    for (var code : CodeType.values()) {
      formats.add(WeightFormat.of(code));
    }
    for (var scale : ScaleType.values()) {
      if (scale != ScaleType.NONE) {
        formats.add(new WeightFormat(CodeType.I4, scale, 32));
      }
    }
    formats.add(new WeightFormat(CodeType.E2M3, ScaleType.F16, 16));
    return formats;
  }

  @ParameterizedTest
  @MethodSource("formats")
  void packAndUnpackAreInverse(WeightFormat format) {
    int rows = 21;
    int cols = 172;
    try (var weights = Tensor.of(floats(rows * cols), rows, cols);
        var quantized = context.quantize(weights, format);
        var packed = context.pack(quantized);
        var direct = context.pack(weights, format);
        var back = context.unpack(packed);
        var backDirect = context.unpack(direct)) {
      assertThat(packed.rows()).isEqualTo(rows);
      assertThat(packed.cols()).isEqualTo(cols);
      assertThat(packed.format()).isEqualTo(format);
      assertThat(packed.packedBytes()).isPositive();
      for (var other : new QuantizedWeights[] {back, backDirect}) {
        assertThat(other.codes().mismatch(quantized.codes())).isEqualTo(-1);
        assertThat(other.codesHigh().mismatch(quantized.codesHigh())).isEqualTo(-1);
        assertThat(other.scales().mismatch(quantized.scales())).isEqualTo(-1);
        assertThat(other.factors().mismatch(quantized.factors())).isEqualTo(-1);
      }
    }
  }

  /** The product against the dequantized weights: no activation rounding, F32 sums of K terms. */
  @ParameterizedTest
  @MethodSource("formats")
  void productEqualsThatOfTheDequantizedWeights(WeightFormat format) {
    int m = 5;
    int n = 19;
    int k = 172;
    try (var x = Tensor.of(floats(m * k), m, k);
        var weights = Tensor.of(floats(n * k), n, k);
        var packed = context.pack(weights, format);
        var dequantized = context.dequantize(packed);
        var y = context.matmul(ActivationType.F32, x, packed)) {
      var a = x.toFloats();
      var w = dequantized.toFloats();
      var actual = y.toFloats();
      for (int i = 0; i < m; i++) {
        for (int j = 0; j < n; j++) {
          double sum = 0;
          double magnitude = 0;
          for (int c = 0; c < k; c++) {
            sum += (double) a[i * k + c] * w[j * k + c];
            magnitude += Math.abs((double) a[i * k + c] * w[j * k + c]);
          }
          // K + 4 roundings of 2^-24 each, on at most the sum of magnitudes.
          assertThat((double) actual[i * n + j])
              .isCloseTo(sum, within(magnitude * (k + 4) * 0x1p-24));
        }
      }
    }
  }

  @Test
  void boundProductTakesNormBiasResidualAndRows() {
    int k = 32;
    int n = 16;
    try (var x = Tensor.of(floats(4 * k), 4, k);
        var weight = Tensor.of(floats(k), k);
        var bias = Tensor.of(floats(n), n);
        var residual = Tensor.of(floats(4 * n), 4, n);
        var output = Tensor.allocate(DataType.F32, 4, n);
        var w = Tensor.of(floats(n * k), n, k);
        var matrix = context.pack(w, WeightFormat.F32)) {
      var op = context.bindMatMul(ActivationType.F32, x, new Norm(weight, 1e-5f),
          new Projection(matrix, bias, residual, output));
      op.run(2, 2);
      var y = output.toFloats();
      for (int row = 0; row < 2; row++) {
        double squares = 0;
        for (int c = 0; c < k; c++) {
          squares += Math.pow(x.toFloats()[(row + 2) * k + c], 2);
        }
        for (int j = 0; j < n; j++) {
          double sum = bias.toFloats()[j] + residual.toFloats()[row * n + j];
          for (int c = 0; c < k; c++) {
            sum += x.toFloats()[(row + 2) * k + c] / Math.sqrt(squares / k + 1e-5)
                * weight.toFloats()[c] * w.toFloats()[j * k + c];
          }
          assertThat((double) y[row * n + j]).isCloseTo(sum, within(1e-5));
        }
      }
      assertThat(output.rows(2, 2).toFloats()).containsOnly(0f);
      op.run(0);
      assertThatThrownBy(() -> op.run(5)).isInstanceOf(InvalidArgumentException.class);
      assertThatThrownBy(() -> op.run(3, 2)).isInstanceOf(InvalidArgumentException.class);
      assertThatThrownBy(() -> op.run(-1)).isInstanceOf(InvalidArgumentException.class);
    }
  }

  @Test
  void elementwiseOperators() {
    try (var a = Tensor.of(new float[] {1, -2, 3, -4}, 2, 2);
        var b = Tensor.of(new float[] {10, 20, 30, 40}, 2, 2);
        var ones = Tensor.of(new float[] {1, 2}, 2);
        var y = Tensor.allocate(DataType.F32, 2, 2);
        var codes = Tensor.allocate(DataType.U8, 2, 2);
        var scales = Tensor.allocate(DataType.F32, 2)) {
      context.add(a, b, y);
      assertThat(y.toFloats()).containsExactly(11, 18, 33, 36);
      context.swiGlu(a, b, y);
      assertThat(y.toFloats()[0]).isCloseTo((float) (10 / (1 + Math.exp(-1))), within(1e-5f));
      assertThat(y.toFloats()[3]).isCloseTo((float) (-160 / (1 + Math.exp(4))), within(1e-5f));
      context.rmsNorm(a, new Norm(ones, 1e-9f), y);
      assertThat(y.toFloats()[1])
          .isCloseTo((float) (-4 / Math.sqrt(2.5)), within(1e-6f));
      context.quantizeActivations(ActivationType.A8I, a, null, codes, scales);
      assertThat(codes.segment().toArray(ValueLayout.JAVA_BYTE))
          .containsExactly(64, -127, 95, -127);
      assertThat(scales.toFloats()).containsExactly(2 / 127f, 4 / 127f);
    }
  }

  @Test
  void attentionOfOneTokenIsItsValue() {
    var options = new KvCache.Options(KvType.F32, 2, 1, 16, 8);
    try (var cache = context.newKvCache(options);
        var q = Tensor.of(floats(32), 1, 32);
        var k = Tensor.of(floats(16), 1, 16);
        var v = Tensor.of(floats(16), 1, 16);
        var frequencies = Tensor.of(floats(8), 8);
        var angles = Tensor.allocate(DataType.F32, 1, 16);
        var output = Tensor.allocate(DataType.F32, 1, 32)) {
      assertThat(cache.bytes()).isPositive();
      var batch = new SequenceBatch(cache);
      batch.set(0, 0, 1);
      context.bindRopeAngles(frequencies, batch, angles).run();
      assertThat(angles.toFloats()).startsWith(1, 1, 1).endsWith(0, 0, 0); // position 0
      context.bindRopeAppend(1, q, k, v, angles, batch).run();
      assertThat(cache.length(0)).isZero();
      assertThat(cache.length(1)).isEqualTo(1);
      context.bindAttention(1, q, 0.25f, batch, output).run();
      var y = output.toFloats();
      for (int i = 0; i < 32; i++) {
        assertThat(y[i]).isCloseTo(v.toFloats()[i % 16], within(1e-6f));
      }
      assertThatThrownBy(() -> context.bindAttention(2, q, 1, batch, output))
          .isInstanceOf(InvalidArgumentException.class).hasMessageContaining("layer");
      assertThatThrownBy(() -> batch.set(0, 8, 1)).isInstanceOf(InvalidArgumentException.class)
          .hasMessageContaining("holds 8");
    }
  }

  @Test
  void wrongOperandsAreNamedBeforeTheCall() {
    try (var x = Tensor.allocate(DataType.F32, 2, 31);
        var bytes = Tensor.allocate(DataType.U8, 2, 32);
        var output = Tensor.allocate(DataType.F32, 2, 8);
        var w = Tensor.of(floats(8 * 32), 8, 32);
        var matrix = context.pack(w, WeightFormat.F32)) {
      assertThatThrownBy(() -> context.matmul(ActivationType.F32, x, matrix))
          .isInstanceOf(InvalidArgumentException.class)
          .hasMessage("x: F32 [2, 31] given, expected F32 [any, 32]");
      assertThatThrownBy(() -> context.matmul(ActivationType.F32, bytes, matrix))
          .hasMessage("x: U8 [2, 32] given, expected F32 [any, 32]");
      assertThatThrownBy(() -> context.add(x, output, x))
          .isInstanceOf(InvalidArgumentException.class).hasMessageContaining("b:");
      assertThatThrownBy(() -> context.bindMatMul(ActivationType.F32, x, null))
          .isInstanceOf(InvalidArgumentException.class).hasMessageContaining("projections");
    }
  }

  @Test
  void nativeStatusBecomesATypedException() {
    try (var weights = Tensor.of(new float[] {1, Float.NaN, 3, 4}, 2, 2);
        var good = Tensor.of(floats(32), 2, 16);
        var e5m2 = context.pack(good, WeightFormat.of(CodeType.E5M2));
        var x = Tensor.of(floats(16), 1, 16)) {
      assertThatThrownBy(() -> context.quantize(weights, WeightFormat.W4))
          .isInstanceOf(InvalidArgumentException.class).hasMessageContaining("weights");
      assertThatThrownBy(() -> context.matmul(ActivationType.A8I, x, e5m2))
          .isInstanceOf(UnsupportedException.class).hasMessageNotContaining("\n");
      assertThatThrownBy(() -> Context.create("cuda:99", 1))
          .isInstanceOf(UnsupportedException.class).hasMessageContaining("cuda");
    }
  }

  /** Each virtual thread gets its own message, however many share the carrier threads. */
  @Test
  void virtualThreadsGetTheirOwnMessages() throws Exception {
    try (var table = Tensor.of(floats(10 * 16), 10, 16);
        var matrix = context.pack(table, WeightFormat.F32)) {
      var wrong = new ConcurrentLinkedQueue<String>();
      var threads = new ArrayList<Thread>();
      for (int i = 0; i < 64; i++) {
        int id = 1000 + i;
        threads.add(Thread.startVirtualThread(() -> {
          for (int repeat = 0; repeat < 50; repeat++) {
            try (var ids = Tensor.of(new int[] {id}, 1);
                var output = Tensor.allocate(DataType.F32, 1, 16)) {
              context.bindEmbedding(matrix, ids, output).run(1);
              wrong.add(id + ": no exception");
            } catch (InvalidArgumentException e) {
              if (!e.getMessage().contains(String.valueOf(id))) {
                wrong.add(id + ": " + e.getMessage());
              }
            }
            Thread.yield();
          }
        }));
      }
      for (var thread : threads) {
        thread.join();
      }
      assertThat(wrong).isEmpty();
    }
  }

  @Test
  void closedOperandsAreRefused() {
    var w = Tensor.of(floats(8 * 32), 8, 32);
    var matrix = context.pack(w, WeightFormat.F32);
    var x = Tensor.allocate(DataType.F32, 1, 32);
    var output = Tensor.allocate(DataType.F32, 1, 8);
    var op = context.bindMatMul(ActivationType.F32, x, null, new Projection(matrix, output));
    op.run(1);
    matrix.close();
    matrix.close();
    assertThatThrownBy(() -> op.run(1)).isInstanceOf(ClosedException.class)
        .hasMessage("the matrix is closed");
    w.close();
    assertThatThrownBy(() -> context.pack(w, WeightFormat.F32))
        .isInstanceOf(ClosedException.class);
    x.close();
    output.close();
    var closed = Context.create("cpu", 1);
    closed.close();
    closed.close();
    assertThatThrownBy(() -> closed.measureReadBandwidth(1 << 20, 1))
        .isInstanceOf(ClosedException.class).hasMessage("the context is closed");
  }

  @Test
  void bandwidthIsPlausible() {
    assertThat(context.measureReadBandwidth(8 << 20, 3)).isBetween(1e8, 1e13);
    assertThatThrownBy(() -> context.measureReadBandwidth(1, 3))
        .isInstanceOf(InvalidArgumentException.class);
    assertThat(context.threads()).isEqualTo(2);
    assertThat(context.device()).isEqualTo("cpu");
  }
}
