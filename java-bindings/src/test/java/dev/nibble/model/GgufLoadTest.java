// SPDX-License-Identifier: Apache-2.0
package dev.nibble.model;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;

import dev.nibble.ModelFormatException;
import dev.nibble.UnsupportedException;
import dev.nibble.io.GgufBytes;
import dev.nibble.io.ModelSource;
import dev.nibble.quantize.ActivationType;
import dev.nibble.quantize.CodeType;
import dev.nibble.quantize.KvType;
import dev.nibble.quantize.Quantizer;
import dev.nibble.quantize.ScaleType;
import dev.nibble.quantize.Scheme;
import dev.nibble.quantize.WeightFormat;
import dev.nibble.tensor.Context;
import dev.nibble.tensor.PackedMatrix;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.Random;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.CsvSource;
import org.junit.jupiter.params.provider.ValueSource;

/** GGUF files: values bit for bit where that can be, and logits of the dequantized model. */
class GgufLoadTest {
  /** The bound that the project sets itself for a whole F32 model. */
  private static final double TOLERANCE = 2e-4;
  private static final int TOKENS = 24;

  @TempDir Path directory;
  private final ArrayList<String> warnings = new ArrayList<>();

  private LoadOptions options() {
    return LoadOptions.defaults().withWarnings(warnings::add);
  }

  /** The file's own weights, and nothing else rounded. */
  static Scheme exact(ModelSource source) {
    return LlamaModel.storedScheme(source).withActivations(ActivationType.F32)
        .withCache(KvType.F32);
  }

  private LlamaModel loadExact(Path file) {
    try (var source = ModelSource.directory(file)) {
      return LlamaModel.load(source, options().withScheme(exact(source)));
    }
  }

  /** tolerance: of logits up to 4, more of larger ones in proportion. */
  static void assertLogits(LlamaModel model, TinyModel tiny, double tolerance) {
    var tokens = new Random(7).ints(TOKENS, 0, tiny.vocabulary).toArray();
    var expected = tiny.reference().logits(tokens);
    try (var session = model.newSession()) {
      var rows = Models.logits(session, tokens, TOKENS);
      for (int t = 0; t < TOKENS; t++) {
        for (int i = 0; i < tiny.vocabulary; i++) {
          // Written so that a NaN fails.
          assertThat(Math.abs(rows.get(t)[i] - expected[t][i])
              <= tolerance * Math.max(1, Math.abs(expected[t][i]) / 4))
              .as("token %d, logit %d: %s, expected %s", t, i, rows.get(t)[i], expected[t][i])
              .isTrue();
        }
      }
    }
  }

  /** Where activations or weights are rounded: logits correlate with the reference's. */
  static void assertNear(LlamaModel model, TinyModel tiny) {
    var tokens = new Random(7).ints(TOKENS, 0, tiny.vocabulary).toArray();
    var expected = tiny.reference().logits(tokens);
    double dot = 0;
    double a = 0;
    double b = 0;
    try (var session = model.newSession()) {
      var rows = Models.logits(session, tokens, TOKENS);
      for (int t = 0; t < TOKENS; t++) {
        for (int i = 0; i < tiny.vocabulary; i++) {
          dot += rows.get(t)[i] * expected[t][i];
          a += rows.get(t)[i] * rows.get(t)[i];
          b += expected[t][i] * expected[t][i];
        }
      }
    }
    assertThat(dot / Math.sqrt(a * b)).isGreaterThan(0.9);
  }

  /** Compares a matrix with what its file holds, bit for bit. */
  static void assertExact(LlamaModel model, PackedMatrix matrix, TinyModel.Weight weight) {
    try (var values = model.context().dequantize(matrix)) {
      var actual = values.toFloats();
      var expected = weight.values();
      for (int i = 0; i < expected.length; i++) {
        if (actual[i] != (float) expected[i]) {
          assertThat(actual[i]).as("weight %d", i).isEqualTo((float) expected[i]);
        }
      }
    }
  }

  static void assertAllExact(LlamaModel model, TinyModel tiny) {
    var weights = model.weights();
    assertExact(model, weights.embedding, tiny.weights.get("model.embed_tokens.weight"));
    for (int i = 0; i < tiny.layers; i++) {
      var layer = weights.layers.get(i);
      var p = "model.layers." + i + ".";
      assertExact(model, layer.q().matrix(), tiny.weights.get(p + "self_attn.q_proj.weight"));
      assertExact(model, layer.k().matrix(), tiny.weights.get(p + "self_attn.k_proj.weight"));
      assertExact(model, layer.v().matrix(), tiny.weights.get(p + "self_attn.v_proj.weight"));
      assertExact(model, layer.o().matrix(), tiny.weights.get(p + "self_attn.o_proj.weight"));
      assertExact(model, layer.gate().matrix(), tiny.weights.get(p + "mlp.gate_proj.weight"));
      assertExact(model, layer.up().matrix(), tiny.weights.get(p + "mlp.up_proj.weight"));
      assertExact(model, layer.down().matrix(), tiny.weights.get(p + "mlp.down_proj.weight"));
    }
  }

  @ParameterizedTest
  @CsvSource({"2, I4, F16, 32", "6, I8, F16, 32", "8, I8, F16, 32", "14, I8, F32, 16"})
  void blocksWithoutAnOffsetAreExact(int type, CodeType code, ScaleType scale, int group) {
    var tiny = ForeignFiles.tiny().draw(1);
    var file = ForeignFiles.write(
        directory.resolve("m.gguf"), ForeignFiles.file(tiny, name -> type, 5));
    try (var model = loadExact(file)) {
      var format = new WeightFormat(code, scale, group);
      assertThat(model.scheme().projections()).isEqualTo(format);
      assertThat(model.scheme().embedding()).isEqualTo(format);
      assertThat(model.scheme().exceptions()).isEmpty();
      assertAllExact(model, tiny);
      assertLogits(model, tiny, TOLERANCE);
    }
    assertThat(warnings).isEmpty();
  }

  @ParameterizedTest
  @CsvSource({"3, Q4_1", "7, Q5_1", "12, Q4_K", "13, Q5_K"})
  void blocksWithAnOffsetAreQuantizedAgainAndSaySo(int type, String title) {
    var tiny = ForeignFiles.tiny().draw(2);
    var file = ForeignFiles.write(
        directory.resolve("m.gguf"), ForeignFiles.file(tiny, name -> type, 5));
    try (var model = loadExact(file)) {
      assertThat(model.scheme().projections()).isEqualTo(WeightFormat.FOREIGN);
      // A bit more than half a step of amax / 127 at worst; on the whole less than rounding gives.
      var name = "model.layers.1.mlp.down_proj.weight";
      var expected = tiny.weights.get(name).values();
      try (var values =
          model.context().dequantize(model.weights().layers.get(1).down().matrix())) {
        var actual = values.toFloats();
        double square = 0;
        double sum = 0;
        for (int i = 0; i < expected.length; i += 32) {
          double largest = 0;
          for (int j = i; j < i + 32; j++) {
            largest = Math.max(largest, Math.abs(expected[j]));
          }
          for (int j = i; j < i + 32; j++) {
            double difference = Math.abs(actual[j] - expected[j]);
            assertThat(difference).isLessThanOrEqualTo(largest / 240);
            square += difference * difference;
            sum += expected[j] * expected[j];
          }
        }
        assertThat(Math.sqrt(square / sum)).isBetween(1e-5, 4e-3);
      }
      // The reference with the weights that were loaded: the rest of the model is exact.
      takeWeights(model, tiny);
      assertLogits(model, tiny, 2 * TOLERANCE); // offsets of Q4_K's groups make activations large
    }
    assertThat(warnings).hasSize(1);
    assertThat(warnings.getFirst()).contains("m.gguf", "15 matrices", title,
        "w8, f32 scales for groups of 32", "relative error 0.").doesNotContain("\n");
    double percent = Double.parseDouble(
        warnings.getFirst().replaceFirst(".* error ([0-9.]+) %", "$1"));
    assertThat(percent).isBetween(0.001, 0.4);
  }

  /** Replaces the weights of the reference by those of a model. */
  private static void takeWeights(LlamaModel model, TinyModel tiny) {
    var weights = model.weights();
    take(model, tiny, "model.embed_tokens.weight", weights.embedding);
    for (int i = 0; i < tiny.layers; i++) {
      var layer = weights.layers.get(i);
      var p = "model.layers." + i + ".";
      take(model, tiny, p + "self_attn.q_proj.weight", layer.q().matrix());
      take(model, tiny, p + "self_attn.k_proj.weight", layer.k().matrix());
      take(model, tiny, p + "self_attn.v_proj.weight", layer.v().matrix());
      take(model, tiny, p + "self_attn.o_proj.weight", layer.o().matrix());
      take(model, tiny, p + "mlp.gate_proj.weight", layer.gate().matrix());
      take(model, tiny, p + "mlp.up_proj.weight", layer.up().matrix());
      take(model, tiny, p + "mlp.down_proj.weight", layer.down().matrix());
    }
  }

  private static void take(LlamaModel model, TinyModel tiny, String name, PackedMatrix matrix) {
    try (var values = model.context().dequantize(matrix)) {
      var floats = values.toFloats();
      var doubles = new double[floats.length];
      for (int i = 0; i < doubles.length; i++) {
        doubles[i] = floats[i];
      }
      tiny.weights.put(name, new TinyModel.Weight(tiny.weights.get(name).shape(), doubles));
    }
  }

  /** Every code with scales of both signs: four bits stay four bits. */
  @Test
  void fourBitsStayFourBits() {
    var tiny = ForeignFiles.tiny().draw(3);
    var gguf = ForeignFiles.file(tiny, name -> GgufBytes.F32, 1);
    var values = new double[256 * 512];
    var data = new byte[256 * 512 / 32 * 18];
    var random = new Random(3);
    for (int block = 0; block < values.length / 32; block++) {
      short d = Float.floatToFloat16((0.004f + 0.0001f * (block % 7)) * (block % 3 == 0 ? -1 : 1));
      data[18 * block] = (byte) d;
      data[18 * block + 1] = (byte) (d >> 8);
      for (int j = 0; j < 32; j++) {
        int q = random.nextInt(16);
        data[18 * block + 2 + j % 16] |= (byte) (j < 16 ? q : q << 4);
        values[32 * block + j] = Float.float16ToFloat(d) * (q - 8);
      }
    }
    tiny.weights.put("model.layers.0.mlp.down_proj.weight",
        new TinyModel.Weight(new int[] {256, 512}, values));
    gguf.removeTensor("blk.0.ffn_down.weight")
        .tensor("blk.0.ffn_down.weight", GgufBytes.Q4_0, data, 256, 512);
    try (var model = loadExact(ForeignFiles.write(directory.resolve("m.gguf"), gguf))) {
      assertThat(model.weights().layers.getFirst().down().matrix().format())
          .isEqualTo(new WeightFormat(CodeType.I4, ScaleType.F16, 32));
      assertThat(model.scheme().projections()).isEqualTo(WeightFormat.F32);
      assertThat(model.scheme().exceptions())
          .containsOnlyKeys("model.layers.0.mlp.down_proj.weight");
      assertAllExact(model, tiny);
      assertLogits(model, tiny, TOLERANCE);
    }
  }

  /** As in published files: types differ between matrices, also of one block, and of the head. */
  @Test
  void typesMayDifferWithinAFile() {
    var tiny = ForeignFiles.tiny();
    tiny.tied = false;
    tiny.attentionBias = true;
    tiny.mlpBias = true;
    tiny.draw(4);
    var gguf = ForeignFiles.file(tiny, name -> switch (
        name.replaceAll("(.*\\.)?([a-z_]+)\\.weight", "$2")) {
      case "embed_tokens" -> GgufBytes.F16;
      case "lm_head", "up_proj" -> GgufBytes.Q6_K;
      case "q_proj" -> GgufBytes.BF16;
      case "v_proj" -> GgufBytes.F32;
      default -> GgufBytes.Q8_0;
    }, 6);
    var file = ForeignFiles.write(directory.resolve("m.gguf"), gguf);
    try (var model = loadExact(file)) {
      assertThat(model.weights().embedding.format().code()).isEqualTo(CodeType.F16);
      assertThat(model.scheme().embedding())
          .isEqualTo(new WeightFormat(CodeType.I8, ScaleType.F32, 16));
      assertThat(model.scheme().formatOf("model.layers.1.self_attn.q_proj.weight"))
          .isEqualTo(WeightFormat.BF16);
      assertAllExact(model, tiny);
      assertLogits(model, tiny, TOLERANCE);
    }
    assertThat(warnings).isEmpty();
    assertThatThrownBy(() -> {
      try (var source = ModelSource.directory(file)) {
        LlamaModel.load(source, options().withScheme(
            LlamaModel.storedScheme(source).withActivations(ActivationType.A8I))).close();
      }
    }).isInstanceOf(UnsupportedException.class)
        .hasMessageContainingAll("q_proj.weight", "bf16", "a8i");
    // The default activations run on all of them.
    try (var model = LlamaModel.load(file, options())) {
      assertThat(model.scheme().activations()).isEqualTo(ActivationType.A8F);
      assertThat(model.scheme().cache()).isEqualTo(KvType.KV4);
      assertNear(model, tiny);
    }
  }

  /** Nothing of blocks: as any unquantized directory. */
  @ParameterizedTest
  @ValueSource(ints = {GgufBytes.F32, GgufBytes.F16, GgufBytes.BF16})
  void floatFilesLoadLikeDirectories(int type) throws Exception {
    var tiny = ForeignFiles.tiny().draw(5);
    var gguf = ForeignFiles.file(tiny, name -> type, 7);
    var file = ForeignFiles.write(directory.resolve("m.gguf"), gguf);
    try (var model = LlamaModel.load(file, options().withScheme("f32"))) {
      assertAllExact(model, tiny);
      assertLogits(model, tiny, TOLERANCE);
    }
    try (var model = LlamaModel.load(file, options())) {
      assertThat(model.scheme()).isEqualTo(Scheme.of("w4a8"));
    }
    // The quantizer takes it too, and gives the same.
    var out = directory.resolve("out");
    try (var source = ModelSource.directory(file); var context = Context.create()) {
      Quantizer.quantize(source, out, Scheme.of("f32"), context, null);
    }
    try (var model = LlamaModel.load(out, options())) {
      assertAllExact(model, tiny);
    }
  }

  @Test
  void anotherFormatCanBeAskedFor() {
    var tiny = ForeignFiles.tiny().draw(6);
    var file = ForeignFiles.write(
        directory.resolve("m.gguf"), ForeignFiles.file(tiny, name -> GgufBytes.Q4_0, 8));
    try (var model = LlamaModel.load(file, options().withScheme("w4a8i"))) {
      assertThat(model.scheme()).isEqualTo(Scheme.of("w4a8i"));
      assertNear(model, tiny);
    }
    assertThat(warnings).hasSize(2); // projections and embedding
    assertThat(warnings).anySatisfy(text ->
        assertThat(text).contains("Q4_0 to w4, e4m3 scales for groups of 128"));
    warnings.clear();
    try (var model = LlamaModel.load(file, options().withScheme("f32"))) {
      assertAllExact(model, tiny);
      assertLogits(model, tiny, TOLERANCE);
    }
    assertThat(warnings).isEmpty();
  }

  @Test
  void ropeOfGguf() {
    var tiny = ForeignFiles.tiny();
    tiny.frequencies = new double[32];
    var factors = new double[32];
    for (int i = 0; i < 32; i++) {
      factors[i] = i < 10 ? 1 : i > 20 ? 8 : 1.5 + 0.4 * i;
      tiny.frequencies[i] = Math.pow(10_000, -2.0 * i / 64) / (float) factors[i];
    }
    tiny.draw(7);
    var gguf = ForeignFiles.file(tiny, name -> GgufBytes.Q8_0, 9)
        .tensor("rope_freqs.weight", GgufBytes.F32, GgufBytes.floatBytes(factors), 32);
    try (var model = loadExact(ForeignFiles.write(directory.resolve("m.gguf"), gguf))) {
      assertThat(model.config().ropeScaling()).isInstanceOf(RopeScaling.Factors.class);
      assertLogits(model, tiny, TOLERANCE);
    }
  }

  @Test
  void linearRopeOfGguf() {
    var tiny = ForeignFiles.tiny();
    tiny.frequencies = new double[32];
    for (int i = 0; i < 32; i++) {
      tiny.frequencies[i] = Math.pow(500_000, -2.0 * i / 64) / 4;
    }
    tiny.draw(8);
    var gguf = ForeignFiles.file(tiny, name -> GgufBytes.Q8_0, 10)
        .f32("llama.rope.freq_base", 500_000)
        .string("llama.rope.scaling.type", "linear").f32("llama.rope.scaling.factor", 4);
    try (var model = loadExact(ForeignFiles.write(directory.resolve("m.gguf"), gguf))) {
      assertLogits(model, tiny, TOLERANCE);
    }
  }

  @Test
  void scalesThatAreNotFiniteAreRefused() {
    for (int type : new int[] {GgufBytes.Q4_0, GgufBytes.Q4_1, GgufBytes.Q8_0, GgufBytes.Q4_K,
        GgufBytes.Q6_K}) {
      var tiny = ForeignFiles.tiny().draw(9);
      var bytes = ForeignFiles.file(tiny, name -> type, 11).bytes();
      // The last tensor but the norm is a down projection: its last block's d becomes infinite.
      int block = switch (type) {
        case GgufBytes.Q4_0 -> 18;
        case GgufBytes.Q4_1 -> 20;
        case GgufBytes.Q8_0 -> 34;
        case GgufBytes.Q4_K -> 144;
        default -> 210;
      };
      int end = bytes.length - 4 * tiny.hidden;
      int at = end - block + (type == GgufBytes.Q6_K ? 208 : 0);
      bytes[at] = 0;
      bytes[at + 1] = 0x7C;
      var file = directory.resolve("m" + type + ".gguf");
      assertThatThrownBy(() -> {
        Files.write(file, bytes);
        loadExact(file).close();
      }).isInstanceOf(ModelFormatException.class)
          .hasMessageContainingAll(".gguf", "model.layers.1.mlp.down_proj.weight", "finite");
    }
  }
}
