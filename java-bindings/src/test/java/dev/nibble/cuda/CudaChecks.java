// SPDX-License-Identifier: Apache-2.0
package dev.nibble.cuda;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;
import static org.assertj.core.api.Assertions.within;

import dev.nibble.InvalidArgumentException;
import dev.nibble.UnsupportedException;
import dev.nibble.cli.Main;
import dev.nibble.generate.Perplexity;
import dev.nibble.generate.Sampler;
import dev.nibble.generate.SamplerOptions;
import dev.nibble.io.DataType;
import dev.nibble.io.ModelSource;
import dev.nibble.model.LlamaModel;
import dev.nibble.model.LoadOptions;
import dev.nibble.model.Models;
import dev.nibble.model.Session;
import dev.nibble.model.TokenSampler;
import dev.nibble.tensor.Context;
import dev.nibble.tensor.NativeLibrary;
import dev.nibble.tensor.Tensor;
import java.io.ByteArrayInputStream;
import java.io.ByteArrayOutputStream;
import java.io.IOException;
import java.io.PrintStream;
import java.lang.foreign.MemorySegment;
import java.lang.foreign.ValueLayout;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.List;

/**
 * Checks of the CUDA half through the public interface, the CPU as the reference: the program that
 * {@link CudaProcess} runs. Ends with status 0, or with a stack trace.
 */
public final class CudaChecks {
  private static final String DEVICE = "cuda:0";
  private static final String PROMPT = "Once upon a time there was a king";

  /** The bounds that the project sets itself: of logits in F32, of nats a token elsewhere. */
  private static final double LOGITS = 2e-4;
  private static final double LOSS = 0.002;

  /** Chance exceeds so many once in 16,000 comparisons. */
  private static final double STANDARD_ERRORS = 4;

  /**
   * Of the KL divergence that a scheme itself has from F32, and in nats. Kernels round what their
   * types allow (probabilities to 16 bits, say); activations' codes then fall on the other side of
   * a boundary here and there. Two independent roundings of one model are as far apart as both are
   * from the exact one together, and no device may be farther from another.
   */
  private static final double SHARE_OF_DIVERGENCE = 2;
  private static final double DIVERGENCE = 0.02;

  private CudaChecks() {}

  /** Runs the check named by the first word. */
  public static void main(String[] words) throws IOException {
    switch (words[0]) {
      case "forward" -> forward(words[1], Integer.parseInt(words[2]));
      case "decode" -> decode(words[1]);
      case "generate" -> generate(words[1]);
      case "sessions" -> sessions(words[1]);
      case "tensors" -> tensors();
      case "commands" -> commands();
      default -> throw new AssertionError(words[0]);
    }
  }

  private static LlamaModel load(String device, String scheme) {
    try (var source = ModelSource.embedded()) {
      return LlamaModel.load(source, LoadOptions.device(device).withScheme(scheme));
    }
  }

  /** The first tokens of the tales that the model is scored on. */
  private static int[] tokens(LlamaModel model, int count) {
    return Arrays.copyOf(model.tokenizer().orElseThrow().encode(Models.tales()), count);
  }

  private static List<float[]> logits(Session session, int[] tokens) {
    var rows = new ArrayList<float[]>();
    session.forwardAll(tokens, (i, row) -> rows.add(row.toArray(ValueLayout.JAVA_FLOAT)));
    return rows;
  }

  /**
   * One pass over a text: logits in F32; elsewhere the loss, to its bound beside the standard
   * error of the difference, since the tokens are few, and the divergence.
   */
  private static void forward(String scheme, int count) {
    List<float[]> exact;
    try (var cpu = load("cpu", "f32"); var session = cpu.newSession(count)) {
      exact = logits(session, tokens(cpu, count));
    }
    try (var cpu = load("cpu", scheme); var gpu = load(DEVICE, scheme);
        var reference = cpu.newSession(count); var session = gpu.newSession(count)) {
      var tokens = tokens(cpu, count);
      var expected = logits(reference, tokens);
      var actual = logits(session, tokens);
      double largest = 0;
      double divergence = 0;
      double ofScheme = 0;
      var rises = new double[count - 1];
      for (int i = 0; i < count; i++) {
        largest = Math.max(largest, difference(actual.get(i), expected.get(i)));
        divergence += divergence(expected.get(i), actual.get(i)) / count;
        ofScheme += divergence(exact.get(i), expected.get(i)) / count;
        if (i + 1 < count) {
          rises[i] = nats(actual.get(i), tokens[i + 1]) - nats(expected.get(i), tokens[i + 1]);
        }
      }
      double rise = Arrays.stream(rises).average().orElseThrow();
      double variance =
          Arrays.stream(rises).map(r -> (r - rise) * (r - rise)).sum() / (count - 2);
      double error = Math.sqrt(variance / (count - 1));
      System.out.printf("%-6s %d tokens: largest difference %.2e, loss %+.5f (s.e. %.5f),"
          + " divergence %.2e (the scheme's own %.2e)%n",
          scheme, count, largest, rise, error, divergence, ofScheme);
      if (scheme.equals("f32")) {
        assertThat(largest).isLessThanOrEqualTo(LOGITS);
        assertThat(rise).isCloseTo(0, within(LOSS));
      } else {
        assertThat(rise).isCloseTo(0, within(LOSS + STANDARD_ERRORS * error));
        assertThat(divergence).isBetween(
            -1e-9, Math.min(DIVERGENCE, SHARE_OF_DIVERGENCE * ofScheme));
      }
    }
  }

  /** Token by token, each step a graph, across the size for which the first graph is made. */
  private static void decode(String scheme) {
    try (var model = load(DEVICE, scheme); var session = model.newSession(300)) {
      var tokens = tokens(model, 262);
      var whole = logits(session, tokens);
      session.rewind(3);
      for (int i = 3; i < 10; i++) {
        var row = session.forward(tokens[i]).toArray(ValueLayout.JAVA_FLOAT);
        assertThat(difference(row, whole.get(i))).as("token %d", i).isLessThanOrEqualTo(LOGITS);
      }
      session.forward(Arrays.copyOfRange(tokens, 10, 254));
      for (int i = 254; i < 262; i++) {
        var row = session.forward(tokens[i]).toArray(ValueLayout.JAVA_FLOAT);
        assertThat(difference(row, whole.get(i))).as("token %d", i).isLessThanOrEqualTo(LOGITS);
      }
    }
  }

  /** The same tokens whether the logits come to Java or the device chooses. */
  private static void generate(String scheme) {
    try (var model = load(DEVICE, scheme); var session = model.newSession(80)) {
      var settings = List.of(
          Sampler.builder().temperature(0).options(),
          Sampler.builder().topP(0.9f).temperature(0.8f).seed(42).options(),
          Sampler.builder().topK(20).minP(0.02f).repeatPenalty(1.3f).repeatWindow(6).seed(5)
              .options());
      for (SamplerOptions options : settings) {
        var inJava = new ArrayList<Integer>();
        var onDevice = new ArrayList<Integer>();
        var chosen = text(session, new InJava(new Sampler(options), inJava));
        var text = text(session, new Recording(new Sampler(options), onDevice));
        System.out.println(text);
        assertThat(text).isEqualTo(chosen);
        assertThat(onDevice).as("%s", options).isEqualTo(inJava).hasSizeGreaterThan(12);
      }
    }
  }

  private static String text(Session session, TokenSampler sampler) {
    var text = new StringBuilder();
    session.generate(PROMPT, sampler, piece -> {
      text.append(piece);
      return true;
    }, 8);
    return text.toString();
  }

  /** A sampler that a device cannot stand in for. */
  private record InJava(Sampler sampler, List<Integer> tokens) implements TokenSampler {
    @Override
    public void observe(int token) {
      tokens.add(token);
      sampler.observe(token);
    }

    @Override
    public int choose(MemorySegment logits) {
      return sampler.choose(logits);
    }
  }

  /** A sampler whose choice is the device's. */
  private record Recording(Sampler sampler, List<Integer> tokens)
      implements dev.nibble.model.DeviceSampler {
    @Override
    public void observe(int token) {
      tokens.add(token);
      sampler.observe(token);
    }

    @Override
    public int choose(MemorySegment logits) {
      throw new AssertionError("the logits came to Java");
    }

    @Override
    public dev.nibble.model.SampleSettings settings() {
      return sampler.settings();
    }

    @Override
    public double nextUniform() {
      return sampler.nextUniform();
    }

    @Override
    public int recent(int[] recent) {
      return sampler.recent(recent);
    }
  }

  /** Two sessions in turn give what each gives alone; closing one leaves the other working. */
  private static void sessions(String scheme) {
    try (var model = load(DEVICE, scheme); var other = model.newSession(16)) {
      var tokens = tokens(model, 16);
      float[] alone;
      try (var session = model.newSession(16)) {
        session.forward(Arrays.copyOf(tokens, 6));
        other.forward(Arrays.copyOfRange(tokens, 6, 16));
        alone = session.forward(tokens[6]).toArray(ValueLayout.JAVA_FLOAT);
      }
      other.reset();
      other.forward(Arrays.copyOf(tokens, 6));
      assertThat(other.forward(tokens[6]).toArray(ValueLayout.JAVA_FLOAT))
          .containsExactly(alone);
    }
  }

  private static void tensors() {
    assertThat(NativeLibrary.cudaTargets()).isNotEmpty().allMatch(name -> name.startsWith("sm_"));
    assertThat(NativeLibrary.deviceProblem(DEVICE)).isEmpty();
    assertThat(NativeLibrary.describeDevice(DEVICE)).isNotBlank();
    assertThatThrownBy(() -> Context.create("cuda:99", 1))
        .isInstanceOf(UnsupportedException.class).hasMessageContaining("cuda:99");
    try (var context = Context.create(DEVICE, 1); var cpu = Context.create();
        var arena = context.newArena("the test")) {
      var a = arena.allocate(DataType.F32, 3, 5);
      var b = arena.allocate(DataType.F32, 3, 5);
      var values = new float[15];
      for (int i = 0; i < values.length; i++) {
        values[i] = i - 7;
      }
      a.copyFrom(values);
      b.copyFrom(values);
      context.add(a, b, b);
      assertThat(b.toFloats()[4]).isEqualTo(-6);
      assertThat(b.rows(1, 1).toFloats()).containsExactly(-4, -2, 0, 2, 4);
      assertThat(a.onDevice()).isTrue();
      assertThatThrownBy(a::segment).isInstanceOf(UnsupportedException.class)
          .hasMessageContaining(DEVICE);
      // A tensor of the device is no operand of the CPU.
      assertThatThrownBy(() -> cpu.add(a, b, b)).isInstanceOf(InvalidArgumentException.class);
      // Ordinary memory serves as well, by copies.
      try (var host = Tensor.of(values, 3, 5)) {
        context.add(a, host, host);
        assertThat(host.toFloats()).containsExactly(
            -14, -12, -10, -8, -6, -4, -2, 0, 2, 4, 6, 8, 10, 12, 14);
      }
      // No GPU has that much.
      assertThatThrownBy(() -> arena.allocate(DataType.F32, 1L << 50))
          .isInstanceOf(dev.nibble.NativeMemoryException.class).hasMessageContaining("bytes");
      assertThat(context.measureReadBandwidth(1 << 20, 1)).isPositive();
      context.synchronize();
    }
  }

  private static void commands() throws IOException {
    var info = run("info");
    assertThat(info).contains("CUDA plug-in  built for sm_").contains("CUDA          available");
    assertThat(run("generate", PROMPT, "-n", "6", "--seed", "1", "--device", DEVICE)).isNotBlank();
    var text = Files.createTempFile("nibble", ".txt");
    var logits = Files.createTempFile("nibble", ".safetensors");
    try {
      Files.writeString(text, "The king went to the forest.");
      assertThat(run("perplexity", "--text", text.toString(), "--device", DEVICE, "--quiet"))
          .contains("perplexity");
      run("logits", "--tokens", "1,2,3", "--out", logits.toString(), "--device", DEVICE,
          "--quiet");
      assertThat(Files.size(logits)).isGreaterThan(1000);
    } finally {
      Files.delete(text);
      Files.delete(logits);
    }
  }

  private static String run(String... words) {
    var out = new ByteArrayOutputStream();
    var err = new ByteArrayOutputStream();
    int code = Main.run(words, new ByteArrayInputStream(new byte[0]),
        new PrintStream(out, false, StandardCharsets.UTF_8),
        new PrintStream(err, true, StandardCharsets.UTF_8));
    assertThat(code).as(err.toString(StandardCharsets.UTF_8)).isZero();
    return out.toString(StandardCharsets.UTF_8);
  }

  // ---- how far two rows of logits are apart ---------------------------------------------------

  private static double difference(float[] actual, float[] expected) {
    double largest = 0;
    for (int i = 0; i < actual.length; i++) {
      double difference = Math.abs((double) actual[i] - expected[i]);
      largest = Double.isNaN(difference) ? Double.POSITIVE_INFINITY : Math.max(largest, difference);
    }
    return largest;
  }

  private static double nats(float[] logits, int token) {
    return Perplexity.negativeLogLikelihood(MemorySegment.ofArray(logits), token);
  }

  /** Of softmax(actual) from softmax(expected). */
  private static double divergence(float[] expected, float[] actual) {
    double sum = 0;
    double a = logSumExp(actual);
    double e = logSumExp(expected);
    for (int i = 0; i < expected.length; i++) {
      sum += Math.exp(expected[i] - e) * ((expected[i] - e) - (actual[i] - a));
    }
    return sum;
  }

  private static double logSumExp(float[] logits) {
    double max = Double.NEGATIVE_INFINITY;
    for (float logit : logits) {
      max = Math.max(max, logit);
    }
    double sum = 0;
    for (float logit : logits) {
      sum += Math.exp(logit - max);
    }
    return max + Math.log(sum);
  }
}
