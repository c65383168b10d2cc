// SPDX-License-Identifier: Apache-2.0
package dev.nibble.model;

import dev.nibble.io.ModelSource;
import dev.nibble.io.TensorStore;
import java.io.IOException;
import java.io.UncheckedIOException;
import java.lang.foreign.Arena;
import java.lang.foreign.MemorySegment;
import java.lang.foreign.ValueLayout;
import java.net.URISyntaxException;
import java.nio.charset.StandardCharsets;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.List;

/** The models and expected results in the test resources. */
public final class Models {
  private Models() {}

  /** Reference logits made with Hugging Face transformers. */
  record Expected(int[] tokens, float[] logits) {}

  /** A directory or file of the test resources. */
  static Path resource(String name) {
    try {
      return Path.of(Models.class.getResource("/" + name).toURI());
    } catch (URISyntaxException e) {
      throw new AssertionError(e);
    }
  }

  static Expected expected(String directory) {
    try (var store = TensorStore.open(resource(directory + "/expected.safetensors"));
        var arena = Arena.ofConfined()) {
      var ids = arena.allocate(store.info("input_ids").byteLength(), 8);
      store.read("input_ids", ids);
      var logits = arena.allocate(store.info("logits").byteLength(), 8);
      store.read("logits", logits);
      return new Expected(
          ids.toArray(ValueLayout.JAVA_INT), logits.toArray(ValueLayout.JAVA_FLOAT));
    }
  }

  /** The embedded model in a scheme. */
  public static LlamaModel fable(String scheme) {
    try (var source = ModelSource.embedded()) {
      return LlamaModel.load(source, LoadOptions.defaults().withScheme(scheme));
    }
  }

  /** The original tales that the embedded model is scored on. */
  public static String tales() {
    try (var in = Models.class.getResourceAsStream("/dev/nibble/texts/tales.txt")) {
      return new String(in.readAllBytes(), StandardCharsets.UTF_8);
    } catch (IOException e) {
      throw new UncheckedIOException(e);
    }
  }

  /** Logits of every token, appended in chunks of at most chunk tokens. */
  static List<float[]> logits(Session session, int[] tokens, int chunk) {
    var rows = new ArrayList<float[]>();
    for (int start = 0; start < tokens.length; start += chunk) {
      var part =
          Arrays.copyOfRange(tokens, start, Math.min(start + chunk, tokens.length));
      session.forwardAll(part, (i, logits) -> rows.add(toArray(logits)));
    }
    return rows;
  }

  static float[] toArray(MemorySegment logits) {
    return logits.toArray(ValueLayout.JAVA_FLOAT);
  }

  /** The largest absolute difference of two rows of logits. */
  static double difference(float[] actual, float[] expected) {
    return difference(actual, expected, 0);
  }

  static double difference(float[] actual, float[] expected, int offset) {
    double largest = 0;
    for (int i = 0; i < actual.length; i++) {
      double difference = Math.abs((double) actual[i] - expected[offset + i]);
      // Not Math.max alone: a NaN must count as infinitely far.
      largest = Double.isNaN(difference) ? Double.POSITIVE_INFINITY : Math.max(largest, difference);
    }
    return largest;
  }
}
