// SPDX-License-Identifier: Apache-2.0
package dev.nibble.quantize;

import dev.nibble.InvalidArgumentException;
import dev.nibble.io.ModelSource;
import dev.nibble.model.LlamaConfig;
import dev.nibble.model.ProgressListener;
import dev.nibble.tensor.Context;
import java.util.ArrayList;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Locale;
import java.util.Map;

/**
 * Chooses the format of every projection, within a budget of bits a weight, so that the model
 * loses least.
 *
 * <p>The recipe ({@link #recipe}) spends bits where they are counted: on weights. Weights of 4 bits
 * are rounded as {@code fireq+gptq} does; activations and the key/value cache are those of {@code
 * zeroquant-fp6}, A16 and KV8, so that what a budget loses can be held against 6 bits for every
 * weight. A 4-bit cache by itself costs the built-in model more than 5-bit weights do; it, and FP8
 * activations, are there for the asking, with FireQ's scaling of keys then.
 *
 * <p>How much a format costs each projection is measured: as KL divergence from the model in F32 on
 * calibration tokens, with one block in memory at a time ({@code Sensitivity} says how). Gate and
 * up are one item, since one kernel multiplies with both. With few bits the measurements put {@code
 * down_proj} first, as the scaling law for quantization-aware training (arXiv 2505.14302) finds for
 * FC2. That errors of different projections add up is an assumption; what is exact is the choice:
 * no other one within the budget has a smaller sum of the measured costs.
 */
public final class MixedPrecision {
  /** What there is to choose from. */
  public static final List<WeightFormat> FORMATS =
      List.of(WeightFormat.W4, WeightFormat.W6, WeightFormat.of(CodeType.E2M3), WeightFormat.W8);

  /** Tokens on which costs are measured, if not told otherwise. */
  public static final int DEFAULT_TOKENS = 1024;

  /**
   * One or two projections that have a format together, and what each format costs.
   *
   * @param tensors names of their weights
   * @param rows of each
   * @param cols of each
   * @param bytes of codes, scales and factors, in each of {@link #FORMATS}, or the first of them
   * @param losses the KL divergence that each format causes, in nats a token; never negative
   */
  public record Item(
      List<String> tensors, long rows, long cols, long[] bytes, double[] losses) {
    /** How many weights they have together. */
    public long weights() {
      return tensors.size() * rows * cols;
    }

    /** For people: {@code layers.0.mlp.down_proj}. */
    public String label() {
      var first = tensors.getFirst().replace("model.", "").replace(".weight", "");
      return tensors.size() == 1 ? first : first.replace("gate_proj", "gate_proj, up_proj");
    }
  }

  /**
   * A choice: for each item the index of its format in {@link #FORMATS}.
   *
   * @param bitsPerWeight 8 times the bytes over the number of weights
   * @param loss the sum of the costs
   */
  public record Plan(List<Item> items, int[] choice, double bitsPerWeight, double loss) {

    /** The formats by tensor, for {@link Scheme#withExceptions}. */
    public Map<String, WeightFormat> formats() {
      var formats = new LinkedHashMap<String, WeightFormat>();
      for (int i = 0; i < choice.length; i++) {
        for (var tensor : items.get(i).tensors()) {
          formats.put(tensor, FORMATS.get(choice[i]));
        }
      }
      return formats;
    }

    /** What was measured and chosen, a line for each item. */
    public String table() {
      var text = new StringBuilder(String.format("%-44s %10s", "projection", "weights"));
      for (var format : FORMATS) {
        text.append(String.format(" %9s", "KL " + format.code().option()));
      }
      text.append(String.format("  chosen%n"));
      for (int i = 0; i < choice.length; i++) {
        var item = items.get(i);
        text.append(String.format("%-44s %10d", item.label(), item.weights()));
        for (double loss : item.losses()) {
          text.append(String.format(Locale.ROOT, " %9.5f", loss));
        }
        text.append(String.format("  %s%n", FORMATS.get(choice[i]).code().option()));
      }
      return text.append(String.format(Locale.ROOT, "%.3f bits a weight, sum of KL %.5f%n",
          bitsPerWeight, loss)).toString();
    }
  }

  private MixedPrecision() {}

  /** What the formats are chosen for: fireq+gptq's weights, with A16 and KV8. */
  public static Recipe recipe() {
    var fireq = Recipe.of("fireq+gptq");
    return recipe(fireq.scheme().withActivations(ActivationType.A16).withCache(KvType.KV8));
  }

  /**
   * The same with other formats.
   *
   * @param scheme with W4 projections; a 4-bit cache gets FireQ's scaling of keys
   */
  public static Recipe recipe(Scheme scheme) {
    var fireq = Recipe.of("fireq+gptq");
    boolean kv4 = scheme.cache() == KvType.KV4;
    return fireq.withPreRopeScaling(kv4).withCacheFactors(kv4)
        .withPostRopeChannels(kv4 ? fireq.postRopeChannels() : 0).withScheme(scheme);
  }

  /**
   * Measures what each format costs each projection.
   *
   * @param source the unquantized model; not closed
   * @param calibration the tokens; the first {@code maxTokens} of them, at least one window
   * @param threads as {@link dev.nibble.model.LoadOptions#withThreads}
   * @param progress hears how far the work is
   */
  public static List<Item> measure(ModelSource source, Calibration calibration, int maxTokens,
      int threads, ProgressListener progress) {
    var config = LlamaConfig.read(source);
    CalibrationCheck.check(calibration, config);
    var windows = new ArrayList<int[]>();
    for (int i = 0, tokens = 0; i < calibration.windows() && (i == 0
        || tokens + calibration.windowTokens() <= maxTokens); i++) {
      windows.add(calibration.window(i));
      tokens += calibration.windowTokens();
    }
    var items = items(config);
    try (var store = source.tensors(); var context = Context.create("cpu", threads)) {
      var losses = new Sensitivity(store, config, recipe(), Calibration.ofWindows(windows), context,
          progress).measure(FORMATS);
      int at = 0;
      for (var block : losses) {
        for (var item : block) {
          System.arraycopy(item, 0, items.get(at++).losses(), 0, item.length);
        }
      }
    }
    return items;
  }

  /** The items of a model, their costs still 0. */
  private static List<Item> items(LlamaConfig config) {
    var items = new ArrayList<Item>();
    for (int i = 0; i < config.layers(); i++) {
      for (var names : Sensitivity.ITEMS) {
        var name = names.getFirst();
        int hidden = config.hiddenSize();
        int inner = config.intermediateSize();
        items.add(switch (name) {
          case LayerWeights.Q -> item(i, config.querySize(), hidden, names);
          case LayerWeights.K, LayerWeights.V -> item(i, config.kvSize(), hidden, names);
          case LayerWeights.O -> item(i, hidden, config.querySize(), names);
          case LayerWeights.GATE -> item(i, inner, hidden, names);
          default -> item(i, hidden, inner, names);
        });
      }
    }
    return items;
  }

  private static Item item(int layer, long rows, long cols, List<String> names) {
    var bytes = new long[FORMATS.size()];
    for (int f = 0; f < bytes.length; f++) {
      bytes[f] = names.size() * FORMATS.get(f).bytes(rows, cols);
    }
    var tensors =
        names.stream().map(name -> LayerWeights.prefix(layer) + name + ".weight").toList();
    return new Item(tensors, rows, cols, bytes, new double[FORMATS.size()]);
  }

  /**
   * The cheapest choice within a budget, exactly.
   *
   * @param bitsPerWeight of all items together, codes and scales
   * @throws InvalidArgumentException if not even the smallest formats fit
   */
  public static Plan choose(List<Item> items, double bitsPerWeight) {
    long weights = items.stream().mapToLong(Item::weights).sum();
    long least = items.stream().mapToLong(item -> smallest(item.bytes())).sum();
    long budget = (long) Math.floor(bitsPerWeight * weights / 8);
    if (!(bitsPerWeight > 0) || budget < least) {
      throw new InvalidArgumentException(String.format(Locale.ROOT,
          "bits: %s a weight given, expected at least %.4f, which is every projection in its"
              + " smallest format", bitsPerWeight, 8.0 * least / weights));
    }
    // What the items behind the i-th take at least: prunes choices that cannot be completed.
    var rest = new long[items.size() + 1];
    for (int i = items.size() - 1; i >= 0; i--) {
      rest[i] = rest[i + 1] + smallest(items.get(i).bytes());
    }
    List<Partial> front = List.of(new Partial(0, 0, -1, null));
    for (int i = 0; i < items.size(); i++) {
      front = extend(front, items.get(i), budget - rest[i + 1]);
    }
    var best = front.getLast(); // the largest, and so the one with the smallest loss
    var choice = new int[items.size()];
    var at = best;
    for (int i = items.size() - 1; i >= 0; i--, at = at.before) {
      choice[i] = at.format;
    }
    return new Plan(items, choice, 8.0 * best.bytes / weights, best.loss);
  }

  /** A choice for the first items; format: of the last of them. */
  private record Partial(long bytes, double loss, int format, Partial before) {}

  /** All choices that no other one beats in both bytes and loss, by their bytes. */
  private static List<Partial> extend(List<Partial> front, Item item, long budget) {
    var all = new ArrayList<Partial>(front.size() * item.bytes().length);
    for (var partial : front) {
      for (int f = 0; f < item.bytes().length; f++) {
        long bytes = partial.bytes + item.bytes()[f];
        if (bytes <= budget) {
          all.add(new Partial(bytes, partial.loss + item.losses()[f], f, partial));
        }
      }
    }
    all.sort((a, b) -> a.bytes != b.bytes
        ? Long.compare(a.bytes, b.bytes) : Double.compare(a.loss, b.loss));
    var kept = new ArrayList<Partial>();
    for (var partial : all) {
      if (kept.isEmpty() || partial.loss < kept.getLast().loss) {
        kept.add(partial);
      }
    }
    return kept;
  }

  private static long smallest(long[] bytes) {
    long smallest = bytes[0];
    for (long b : bytes) {
      smallest = Math.min(smallest, b);
    }
    return smallest;
  }

  /** Bits that a scheme's projections take: 8 times their bytes over the number of weights. */
  public static double bitsPerWeight(LlamaConfig config, Scheme scheme) {
    long bytes = 0;
    long weights = 0;
    for (var item : items(config)) {
      for (var tensor : item.tensors()) {
        bytes += scheme.formatOf(tensor).bytes(item.rows(), item.cols());
      }
      weights += item.weights();
    }
    return 8.0 * bytes / weights;
  }
}
