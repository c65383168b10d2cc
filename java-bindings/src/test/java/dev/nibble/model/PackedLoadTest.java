// SPDX-License-Identifier: Apache-2.0
package dev.nibble.model;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;

import dev.nibble.ModelFormatException;
import dev.nibble.UnsupportedException;
import dev.nibble.io.ModelSource;
import dev.nibble.model.PackedFiles.Kind;
import dev.nibble.quantize.CodeType;
import dev.nibble.quantize.ScaleType;
import dev.nibble.quantize.Scheme;
import dev.nibble.quantize.WeightFormat;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.function.Consumer;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.CsvSource;
import org.junit.jupiter.params.provider.EnumSource;

/** Directories that compressed-tensors, AWQ and GPTQ quantized. */
class PackedLoadTest {
  private static final double TOLERANCE = 2e-4;

  @TempDir Path directory;
  private final ArrayList<String> warnings = new ArrayList<>();

  private LlamaModel load(Scheme scheme) {
    return LlamaModel.load(
        directory, LoadOptions.defaults().withWarnings(warnings::add).withScheme(scheme));
  }

  private LlamaModel loadExact() {
    try (var source = ModelSource.directory(directory)) {
      return load(GgufLoadTest.exact(source));
    }
  }

  private PackedFiles files(TinyModel tiny, Kind kind, Consumer<PackedFiles> knobs) {
    var files = new PackedFiles(tiny.draw(kind.ordinal() + 1), kind, 77);
    knobs.accept(files);
    files.make().write(directory);
    return files;
  }

  @ParameterizedTest
  @CsvSource({
    "COMPRESSED, 128, F16", "COMPRESSED, 128, BF16", "COMPRESSED, 32, F32", "COMPRESSED, -1, BF16",
    "AWQ, 128, F16", "AWQ, 64, F16", "AWQ, -1, F16",
    "GPTQ, 128, F16", "GPTQ, 32, BF16", "GPTQ, -1, F16", "GPTQ_V2, 128, F16"
  })
  void zeroPointsAreExactInEightBits(Kind kind, int group, String scale) {
    var tiny = ForeignFiles.tiny();
    files(tiny, kind, files -> {
      files.group = group;
      files.scaleType = scale;
    });
    try (var model = loadExact()) {
      assertThat(model.scheme().projections()).isEqualTo(
          new WeightFormat(CodeType.I8, ScaleType.valueOf(scale), group == -1 ? 0 : group));
      assertThat(model.scheme().exceptions()).isEmpty();
      assertThat(model.scheme().embedding()).isEqualTo(WeightFormat.F32);
      GgufLoadTest.assertAllExact(model, tiny);
      GgufLoadTest.assertLogits(model, tiny, TOLERANCE);
    }
    assertThat(warnings).isEmpty();
  }

  @ParameterizedTest
  @CsvSource({
    "COMPRESSED, 128, F16", "COMPRESSED, 128, BF16", "COMPRESSED, -1, F32", "AWQ, 128, F16",
    "GPTQ, 128, F16", "GPTQ_V2, -1, F16"
  })
  void symmetricCodesStayFourBits(Kind kind, int group, String scale) {
    var tiny = ForeignFiles.tiny();
    files(tiny, kind, files -> {
      files.group = group;
      files.symmetric = true;
      files.scaleType = scale;
    });
    try (var model = loadExact()) {
      assertThat(model.scheme().projections()).isEqualTo(
          new WeightFormat(CodeType.I4, ScaleType.valueOf(scale), group == -1 ? 0 : group));
      GgufLoadTest.assertAllExact(model, tiny);
      GgufLoadTest.assertLogits(model, tiny, TOLERANCE);
    }
    assertThat(warnings).isEmpty();
  }

  @Test
  void zeroPointsMayBeBytes() {
    var tiny = ForeignFiles.tiny();
    files(tiny, Kind.COMPRESSED, files -> files.zeroBytes = true);
    try (var model = loadExact()) {
      GgufLoadTest.assertAllExact(model, tiny);
    }
  }

  /** Rows that are no multiple of 8, rows of codes that end inside a word, a short last group. */
  @ParameterizedTest
  @EnumSource(value = Kind.class, names = {"COMPRESSED", "GPTQ", "GPTQ_V2"})
  void oddSizes(Kind kind) {
    var tiny = new TinyModel();
    tiny.hidden = 172;
    tiny.intermediate = 90;
    tiny.headDim = 18;
    files(tiny, kind, files -> files.group = 48);
    try (var model = loadExact()) {
      GgufLoadTest.assertAllExact(model, tiny);
      GgufLoadTest.assertLogits(model, tiny, TOLERANCE);
    }
    assertThat(warnings).isEmpty();
  }

  @ParameterizedTest
  @EnumSource(value = Kind.class, names = {"COMPRESSED", "GPTQ", "GPTQ_V2"})
  void anActivationOrderIsQuantizedAgain(Kind kind) {
    var tiny = ForeignFiles.tiny();
    files(tiny, kind, files -> files.activationOrder = true);
    try (var model = loadExact()) {
      assertThat(model.scheme().projections()).isEqualTo(WeightFormat.FOREIGN);
      assertNear(model, tiny);
    }
    // The 14 projections have rows of 256 and 512 columns, all in groups of 128.
    assertThat(warnings).hasSize(1);
    assertThat(warnings.getFirst()).contains("14 matrices", "in groups of 128 in activation order",
        "relative error 0.");
    double percent = Double.parseDouble(
        warnings.getFirst().replaceFirst(".* error ([0-9.]+) %", "$1"));
    assertThat(percent).isBetween(0.1, 0.5);
    warnings.clear();
    // What the columns are: exact where nothing is rounded.
    try (var model = load(Scheme.of("f32"))) {
      GgufLoadTest.assertAllExact(model, tiny);
      GgufLoadTest.assertLogits(model, tiny, TOLERANCE);
    }
    assertThat(warnings).isEmpty();
  }

  private static void assertNear(LlamaModel model, TinyModel tiny) {
    var matrix = model.weights().layers.getFirst().down().matrix();
    var expected = tiny.weights.get("model.layers.0.mlp.down_proj.weight").values();
    try (var values = model.context().dequantize(matrix)) {
      var actual = values.toFloats();
      double square = 0;
      double sum = 0;
      for (int i = 0; i < expected.length; i++) {
        square += (actual[i] - expected[i]) * (actual[i] - expected[i]);
        sum += expected[i] * expected[i];
      }
      assertThat(Math.sqrt(square / sum)).isBetween(1e-4, 5e-3);
    }
  }

  @Test
  void groupsWithoutAKernelAreQuantizedAgain() {
    var tiny = ForeignFiles.tiny();
    files(tiny, Kind.GPTQ, files -> files.group = 8);
    try (var model = loadExact()) {
      assertThat(model.scheme().projections()).isEqualTo(WeightFormat.FOREIGN);
    }
    assertThat(warnings).hasSize(1);
  }

  @Test
  void theDefaultsAndOtherFormats() {
    var tiny = ForeignFiles.tiny();
    files(tiny, Kind.GPTQ, files -> { });
    try (var model = load(null)) {
      assertThat(model.scheme().activations()).isEqualTo(Scheme.defaultScheme().activations());
      assertThat(model.scheme().cache()).isEqualTo(Scheme.defaultScheme().cache());
      GgufLoadTest.assertNear(model, tiny);
    }
    assertThat(warnings).isEmpty();
    try (var model = load(Scheme.of("w4a8"))) {
      assertThat(model.scheme()).isEqualTo(Scheme.of("w4a8"));
      GgufLoadTest.assertNear(model, tiny);
    }
    assertThat(warnings).hasSize(1);
    assertThat(warnings.getFirst()).contains("GPTQ INT4 in groups of 128 to w4, e4m3 scales");
  }

  /** Gate and up of different formats are no single operation. */
  @Test
  void gateAndUpMayDiffer() {
    var tiny = ForeignFiles.tiny();
    tiny.mlpBias = true;
    var files = new PackedFiles(tiny.draw(3), Kind.GPTQ, 5).make();
    var name = "model.layers.1.mlp.up_proj";
    for (var part : new String[] {".qweight", ".qzeros", ".scales", ".g_idx"}) {
      files.tensors.remove(name + part);
    }
    var data = new byte[512 * 256 * 2];
    var values = tiny.weights.get(name + ".weight").values();
    for (int i = 0; i < values.length; i++) {
      short half = Float.floatToFloat16((float) values[i]);
      values[i] = Float.float16ToFloat(half);
      data[2 * i] = (byte) half;
      data[2 * i + 1] = (byte) (half >> 8);
    }
    files.tensors.put(
        name + ".weight", new PackedFiles.Stored("F16", new long[] {512, 256}, data));
    files.write(directory);
    try (var model = loadExact()) {
      assertThat(model.scheme().exceptions()).containsOnlyKeys(name + ".weight");
      GgufLoadTest.assertAllExact(model, tiny);
      GgufLoadTest.assertLogits(model, tiny, TOLERANCE);
    }
  }

  @ParameterizedTest
  @CsvSource(delimiter = '|', quoteCharacter = '`', value = {
    "GPTQ       | \"bits\": 4       | \"bits\": 3        | config.bits is 3, expected 4",
    "AWQ        | \"gemm\"          | \"gemv\"           | quantization_config.version is \"gemv\"",
    "GPTQ_V2    | \"gptq_v2\"       | \"marlin\"         | checkpoint_format is \"marlin\"",
    "COMPRESSED | pack-quantized    | int-quantized      | format is \"int-quantized\"",
    "COMPRESSED | \"num_bits\": 4   | \"num_bits\": 8    | weights.num_bits is 8, expected 4",
    "COMPRESSED | \"type\": \"int\" | \"type\": \"float\" | weights.type is \"float\"",
    "COMPRESSED | \"group\"         | \"tensor\"         | weights.strategy is \"tensor\""
  })
  void otherKindsAreNamed(Kind kind, String found, String replacement, String message)
      throws Exception {
    var tiny = ForeignFiles.tiny();
    var files = files(tiny, kind, knobs -> { });
    Files.writeString(directory.resolve("config.json"),
        files.config().replace(found, replacement));
    assertThatThrownBy(() -> load(null)).isInstanceOf(UnsupportedException.class)
        .hasMessageContainingAll("config.json", message).hasMessageNotContaining("\n");
  }

  @Test
  void partsThatDoNotFitAreNamed() {
    var name = "model.layers.1.self_attn.o_proj";
    refused(Kind.GPTQ, f -> f.tensors.remove(name + ".qzeros"), "o_proj.qzeros", "missing");
    refused(Kind.AWQ, f -> f.tensors.put(name + ".qweight",
        new PackedFiles.Stored("I32", new long[] {256, 31}, new byte[256 * 31 * 4])),
        "o_proj.qweight", "[256, 31]", "[256, 32]");
    refused(Kind.GPTQ, f -> f.tensors.put(name + ".qweight",
        new PackedFiles.Stored("F32", new long[] {32, 256}, new byte[32 * 256 * 4])),
        "o_proj.qweight", "F32", "I32");
    refused(Kind.GPTQ, f -> f.tensors.get(name + ".g_idx").data()[3] = 1,
        "o_proj.g_idx", "element 0 is", "expected 0 to 1");
    refused(Kind.AWQ, f -> f.tensors.put(name + ".scales",
        new PackedFiles.Stored("F16", new long[] {3, 256}, new byte[3 * 256 * 2])),
        "o_proj.scales", "[3, 256]", "groups of 128 need 2");
    refused(Kind.COMPRESSED, f -> f.tensors.get(name + ".weight_shape").data()[0] = 1,
        "o_proj.weight_shape", "[257, 256]");
    refused(Kind.GPTQ, f -> {
      f.tensors.get(name + ".scales").data()[0] = 0;
      f.tensors.get(name + ".scales").data()[1] = (byte) 0x7E;
    }, "o_proj.weight", "row 0, group 0", "NaN");
    refused(Kind.COMPRESSED, f -> {
      var zeros = new byte[256 * 2];
      zeros[5] = 8;
      f.tensors.put(name + ".weight_zero_point",
          new PackedFiles.Stored("I8", new long[] {256, 2}, zeros));
    }, "o_proj.weight", "row 2, group 1", "8, expected -8 to 7");
  }

  private void refused(Kind kind, Consumer<PackedFiles> damage, String... parts) {
    var files = new PackedFiles(ForeignFiles.tiny().draw(1), kind, 77).make();
    damage.accept(files);
    files.write(directory);
    assertThatThrownBy(() -> load(null)).isInstanceOf(ModelFormatException.class)
        .hasMessageContainingAll(parts).hasMessageContaining("model.safetensors")
        .hasMessageNotContaining("\n");
  }
}
