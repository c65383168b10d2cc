// SPDX-License-Identifier: Apache-2.0
package dev.nibble.quantize;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;

import dev.nibble.InvalidArgumentException;
import dev.nibble.ModelFormatException;
import dev.nibble.NibbleException;
import dev.nibble.UnsupportedException;
import dev.nibble.generate.Comparison;
import dev.nibble.io.CheckpointNames;
import dev.nibble.io.ModelSource;
import dev.nibble.io.TensorStore;
import dev.nibble.model.LlamaModel;
import dev.nibble.model.LoadOptions;
import dev.nibble.model.ProgressListener;
import dev.nibble.tensor.Context;
import java.io.IOException;
import java.io.RandomAccessFile;
import java.net.URISyntaxException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.List;
import java.util.Random;
import java.util.stream.Stream;
import org.junit.jupiter.api.AfterAll;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.MethodSource;
import org.junit.jupiter.params.provider.ValueSource;

class PostTrainingQuantizerTest {

  private static final Context CONTEXT = Context.create("cpu", 2);
  private static final String GOLDEN = "gqa-tied";

  @TempDir private Path directory;

  @AfterAll
  static void close() {
    CONTEXT.close();
  }

  private static Path golden(String name) {
    try {
      return Path.of(PostTrainingQuantizerTest.class.getResource("/golden/" + name).toURI());
    } catch (URISyntaxException e) {
      throw new AssertionError(e);
    }
  }

  private static Calibration calibration(long seed) {
    var random = new Random(seed);
    return Calibration.ofWindows(
        Stream.generate(() -> random.ints(24, 0, 320).toArray()).limit(5).toList());
  }

  private static void quantize(Path in, Path out, Recipe recipe, Calibration calibration,
      PostTrainingQuantizer.Listener listener) {
    try (var source = ModelSource.directory(in)) {
      PostTrainingQuantizer.quantize(source, out, recipe, calibration, CONTEXT, listener);
    }
  }

  private Path copyOfGolden() throws IOException {
    var copy = Files.createDirectory(directory.resolve("in"));
    for (var file : List.of("config.json", "model.safetensors")) {
      Files.copy(golden(GOLDEN).resolve(file), copy.resolve(file));
    }
    return copy;
  }

  private List<String> listing() throws IOException {
    try (var files = Files.list(directory)) {
      return files.map(file -> file.getFileName().toString()).sorted().toList();
    }
  }

  static Stream<String> recipes() {
    return Stream.concat(Recipe.names().stream().filter(name -> !name.equals("f32")),
        Stream.of("w4a8+gptq", "w4a8+awq", "llm-qat+gptq", "fireq-pow2+gptq", "w4a8i+awq"));
  }

  @ParameterizedTest
  @MethodSource("recipes")
  void everyRecipeWritesAModelThatLoads(String name) throws IOException {
    var recipe = Recipe.of(name);
    for (var model : List.of(GOLDEN, "mha-untied")) {
      var out = directory.resolve(model);
      var steps = new ArrayList<Long>();
      quantize(golden(model), out, recipe, calibration(1), (what, done, total) -> {
        assertThat(done).isLessThanOrEqualTo(total);
        steps.add(done);
      });
      assertThat(steps).isSorted().hasSizeGreaterThan(2);
      try (var loaded = LlamaModel.load(out, LoadOptions.defaults().withThreads(2));
          var session = loaded.newSession(8)) {
        assertThat(loaded.scheme()).isEqualTo(recipe.scheme());
        var logits = session.forward(new int[] {1, 5, 7});
        for (long i = 0; i < logits.byteSize(); i += 4) {
          assertThat(logits.get(java.lang.foreign.ValueLayout.JAVA_FLOAT, i)).isFinite();
        }
      }
    }
    assertThat(listing()).as("nothing else is left").containsExactly(GOLDEN, "mha-untied");
  }

  /** Stops a run at a step, as an interruption would. */
  private static final class Stop extends RuntimeException {
    private static final long serialVersionUID = 1;
  }

  private static PostTrainingQuantizer.Listener stopAt(String step) {
    return (what, done, total) -> {
      if (what.startsWith(step)) {
        throw new Stop();
      }
    };
  }

  /** Counts what a run was told about earlier ones. */
  private static final class Heard implements PostTrainingQuantizer.Listener {
    int resumed;
    int restarts;

    @Override
    public void progress(String what, long done, long total) {}

    @Override
    public void resumed(int layers, int total) {
      resumed = layers;
    }

    @Override
    public void restarted() {
      restarts++;
    }
  }

  @ParameterizedTest
  @ValueSource(strings = {"fireq", "fireq+gptq"})
  void anInterruptedRunGoesOnAndGivesTheSameBytes(String name) throws IOException {
    var recipe = Recipe.of(name);
    var whole = directory.resolve("whole");
    quantize(golden(GOLDEN), whole, recipe, calibration(1), null);
    for (var step : List.of("layer 0: rounding", "layer 1: feed-forward", "writing")) {
      var out = directory.resolve("out");
      assertThatThrownBy(
          () -> quantize(golden(GOLDEN), out, recipe, calibration(1), stopAt(step)))
          .isInstanceOf(Stop.class);
      assertThat(out).doesNotExist();
      assertThat(listing()).contains(".out.quantizing");
      var heard = new Heard();
      quantize(golden(GOLDEN), out, recipe, calibration(1), heard);
      assertThat(heard.resumed).as(step).isEqualTo(switch (step) {
        case "layer 0: rounding" -> 0;
        case "layer 1: feed-forward" -> 1;
        default -> 3;
      });
      assertThat(heard.restarts).isZero();
      assertThat(out.resolve(CheckpointNames.WEIGHTS))
          .hasSameBinaryContentAs(whole.resolve(CheckpointNames.WEIGHTS));
      assertThat(out.resolve(CheckpointNames.CONFIG))
          .hasSameBinaryContentAs(whole.resolve(CheckpointNames.CONFIG));
      assertThat(listing()).containsExactly("out", "whole");
      deleteAll(out);
    }
  }

  /**
   * The same windows many times over: the same statistics, but enough tokens to fit matrices to what
   * the quantized layers before them make of these windows.
   */
  @Test
  void withManyTokensMatricesAreFittedToDriftedInputs() throws IOException {
    var recipe = Recipe.of("fireq+gptq");
    var windows = new ArrayList<int[]>();
    for (int i = 0; i < 5; i++) {
      windows.add(calibration(1).window(i));
    }
    var repeated = new ArrayList<int[]>();
    for (int i = 0; i < 60; i++) {
      repeated.addAll(windows);
    }
    var few = directory.resolve("few");
    var many = directory.resolve("many");
    quantize(golden(GOLDEN), few, recipe, Calibration.ofWindows(windows), null);
    quantize(golden(GOLDEN), many, recipe, Calibration.ofWindows(repeated), null);
    var options = LoadOptions.defaults().withThreads(2);
    try (var original = LlamaModel.load(golden(GOLDEN), options.withScheme("f32"));
        var rounded = LlamaModel.load(few, options); var fitted = LlamaModel.load(many, options)) {
      double without = Comparison.measure(original, rounded, windows, ProgressListener.NONE)
          .meanKlDivergence();
      assertThat(Comparison.measure(original, fitted, windows, ProgressListener.NONE)
          .meanKlDivergence()).isLessThan(0.8 * without);
    }
    var again = directory.resolve("again");
    assertThatThrownBy(() -> quantize(golden(GOLDEN), again, recipe,
        Calibration.ofWindows(repeated), stopAt("layer 1: rounding"))).isInstanceOf(Stop.class);
    quantize(golden(GOLDEN), again, recipe, Calibration.ofWindows(repeated), null);
    assertThat(again.resolve(CheckpointNames.WEIGHTS))
        .hasSameBinaryContentAs(many.resolve(CheckpointNames.WEIGHTS));
  }

  private static void deleteAll(Path path) throws IOException {
    try (var files = Files.list(path)) {
      for (var file : files.toList()) {
        Files.delete(file);
      }
    }
    Files.delete(path);
  }

  @Test
  void anInterruptedRunOfSomethingElseIsReplaced() throws IOException {
    var in = copyOfGolden();
    var out = directory.resolve("out");
    var fireq = Recipe.of("fireq");
    Runnable interrupt = () -> assertThatThrownBy(
        () -> quantize(in, out, fireq, calibration(1), stopAt("layer 1: rounding")))
        .isInstanceOf(Stop.class);

    interrupt.run();
    var heard = new Heard();
    quantize(in, out, fireq.withClipping(false), calibration(1), heard);
    assertThat(heard.restarts).as("another recipe").isEqualTo(1);
    deleteAll(out);

    interrupt.run();
    heard = new Heard();
    quantize(in, out, fireq, calibration(2), heard);
    assertThat(heard.restarts).as("another calibration").isEqualTo(1);
    deleteAll(out);

    interrupt.run();
    try (var file = new RandomAccessFile(in.resolve("model.safetensors").toFile(), "rw")) {
      file.seek(file.length() - 2);
      int last = file.read();
      file.seek(file.length() - 2);
      file.write(last ^ 1);
    }
    heard = new Heard();
    quantize(in, out, fireq, calibration(1), heard);
    assertThat(heard.restarts).as("another model").isEqualTo(1);
    assertThat(heard.resumed).isZero();
    assertThat(listing()).containsExactly("in", "out");
  }

  @Test
  void twoRunsDoNotMakeTheSameTarget() throws IOException {
    var out = directory.resolve("out");
    var fireq = Recipe.of("fireq");
    quantize(golden(GOLDEN), out, fireq, calibration(1), (what, done, total) -> {
      if (what.equals("layer 1: rounding")) {
        assertThatThrownBy(() -> quantize(golden(GOLDEN), out, fireq, calibration(2), null))
            .isInstanceOf(InvalidArgumentException.class)
            .hasMessage(out + ": another run is making it");
      }
    });
    assertThat(listing()).containsExactly("out");
  }

  @Test
  void theCacheOfTheModelIsInItsFile() throws IOException {
    var out = directory.resolve("out");
    quantize(golden(GOLDEN), out, Recipe.of("fireq"), calibration(1), null);
    try (var store = TensorStore.open(out.resolve(CheckpointNames.WEIGHTS))) {
      assertThat(store.info(CheckpointNames.KEY_FACTORS).shape()).containsExactly(3);
      assertThat(store.info(CheckpointNames.VALUE_FACTORS).shape()).containsExactly(3);
    }
    deleteAll(out);
    quantize(golden(GOLDEN), out, Recipe.of("fireq").withCacheFactors(false)
        .withPostRopeChannels(0), calibration(1), null);
    try (var store = TensorStore.open(out.resolve(CheckpointNames.WEIGHTS))) {
      assertThat(store.has(CheckpointNames.KEY_FACTORS)).isFalse();
      assertThat(store.has(CheckpointNames.KEY_SCALES)).isFalse();
    }
  }

  @Test
  void badInputIsRefusedAndNothingIsLeft() throws IOException {
    var in = copyOfGolden();
    var out = directory.resolve("out");
    var fireq = Recipe.of("fireq");
    assertThatThrownBy(() -> quantize(in, out, fireq, null, null))
        .isInstanceOf(InvalidArgumentException.class).hasMessageContaining("fireq")
        .hasMessageContaining("calibration");
    assertThatThrownBy(
        () -> quantize(in, out, fireq, Calibration.ofWindows(List.of(new int[] {1, 320})), null))
        .isInstanceOf(InvalidArgumentException.class)
        .hasMessageContaining("window 0 has token 320, expected 0 to 319");
    assertThatThrownBy(
        () -> quantize(in, out, fireq, Calibration.ofWindows(List.of(new int[100_000])), null))
        .isInstanceOf(InvalidArgumentException.class).hasMessageContaining("windows of 100000");
    assertThat(listing()).containsExactly("in");

    Files.writeString(Files.createDirectory(directory.resolve("full")).resolve("file"), "");
    assertThatThrownBy(
        () -> quantize(in, directory.resolve("full"), fireq, calibration(1), null))
        .isInstanceOf(InvalidArgumentException.class).hasMessageContaining("not empty");

    var done = directory.resolve("done");
    quantize(in, done, fireq, calibration(1), null);
    assertThatThrownBy(() -> quantize(done, out, fireq, calibration(1), null))
        .isInstanceOf(UnsupportedException.class).hasMessageContaining("quantized already");
    assertThat(listing()).containsExactly("done", "full", "in");
  }

  @Test
  void aWeightThatIsNotANumberIsNamedAndTheRunCanGoOnWithAGoodFile() throws IOException {
    var in = copyOfGolden();
    var file = in.resolve("model.safetensors");
    long offset;
    try (var store = TensorStore.open(file)) {
      offset = store.info("model.layers.1.mlp.up_proj.weight").offset();
    }
    var good = Files.readAllBytes(file);
    var bad = good.clone();
    for (int i = 0; i < 4; i++) {
      bad[(int) offset + i] = (byte) 0xFF; // a NaN in BF16 and in F32
    }
    Files.write(file, bad);
    var out = directory.resolve("out");
    assertThatThrownBy(() -> quantize(in, out, Recipe.of("fireq"), calibration(1), null))
        .isInstanceOf(ModelFormatException.class)
        .hasMessageContaining("model.layers.1.mlp.up_proj.weight").hasMessageContaining("NaN");
    assertThat(out).doesNotExist();
    Files.write(file, good);
    quantize(in, out, Recipe.of("fireq"), calibration(1), null);
    assertThat(listing()).containsExactly("in", "out");
  }

  @Test
  void whatCannotBeWrittenIsNamed() throws IOException {
    Files.writeString(directory.resolve(".out.quantizing"), "in the way");
    assertThatThrownBy(() -> quantize(
        golden(GOLDEN), directory.resolve("out"), Recipe.of("fireq"), calibration(1), null))
        .isInstanceOf(NibbleException.class).hasMessageContaining(".out.quantizing")
        .hasMessageContaining("cannot be written");
  }
}
