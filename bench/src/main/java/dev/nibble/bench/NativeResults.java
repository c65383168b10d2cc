// SPDX-License-Identifier: Apache-2.0
package dev.nibble.bench;

import dev.nibble.ModelFormatException;
import java.util.List;
import java.util.Map;

/**
 * The native benchmark's results, as {@code nibble_bench --out} writes them. Rates are in 1e9 a
 * second, times in seconds, shares of the limit 1 at the limit.
 *
 * @param json everything, for passing on
 */
record NativeResults(
    String started,
    String version,
    String simdTarget,
    int threads,
    long lastLevelCache,
    boolean full,
    boolean smoke,
    double seconds,
    List<Limit> limits,
    List<Gemm> gemm,
    List<Attention> attention,
    List<Model> models,
    List<Model> threadScaling,
    List<String> skipped,
    Map<String, Object> json) {

  static final String SCHEMA = "nibble-bench-native-1";

  /** The limits of a number of threads; bf16 is 0 where the target has no such instruction. */
  record Limit(int threads, double read, double byteDot, double bf16, double fma,
      List<ReadKernel> readKernels) {}

  /** A way of reading memory, and its rate. */
  record ReadKernel(long streams, long prefetch, double rate) {}

  /** A product. */
  record Gemm(String kernel, long n, long k, long rows, List<String> matrices, long bytes,
      double median, double min, double max, double gigabytes, double gigaops, boolean memoryBound,
      double share) {}

  /** Attention of one layer. */
  record Attention(String kernel, String phase, String model, long tokens, long bytes,
      double median, double gigabytes, double gigaops, boolean memoryBound, double share) {}

  /** A whole model. */
  record Model(String model, String scheme, String cache, String phase, long threads, long tokens,
      long context, double tokensPerSecond, double bytesPerPass, double share) {}

  /**
   * Reads them.
   *
   * @throws ModelFormatException naming the file and the field
   */
  static NativeResults parse(byte[] json, String file) {
    var top = Fields.parse(json, file);
    if (!top.text("schema").equals(SCHEMA)) {
      throw new ModelFormatException(file + ".schema: \"" + top.text("schema")
          + "\" given, expected \"" + SCHEMA + "\"");
    }
    var limits = top.objects("limits").stream().map(NativeResults::limit).toList();
    if (limits.isEmpty()) {
      throw new ModelFormatException(file + ".limits: is empty");
    }
    return new NativeResults(top.text("started"), top.text("version"), top.text("simd_target"),
        (int) top.integer("threads"), top.integer("last_level_cache_bytes"), top.flag("full"),
        top.flag("smoke"), top.positive("seconds"), limits,
        top.objects("gemm").stream().map(NativeResults::gemm).toList(),
        top.objects("attention").stream().map(NativeResults::attention).toList(),
        top.objects("models").stream().map(NativeResults::model).toList(),
        top.objects("threads_scaling").stream().map(NativeResults::model).toList(),
        top.texts("skipped"), top.map());
  }

  /** The limits of as many threads as the results are of. */
  Limit limit() {
    return limits.getLast();
  }

  private static Limit limit(Fields f) {
    return new Limit((int) f.integer("threads"), f.positive("read_gb_per_s"),
        f.positive("byte_dot_gops"), f.positiveOrNull("bf16_dot_gflops"),
        f.positive("f32_fma_gflops"),
        f.objects("read_kernels").stream()
            .map(r -> new ReadKernel(r.integer("streams"), r.integer("prefetch_bytes"),
                r.positive("gb_per_s")))
            .toList());
  }

  private static Gemm gemm(Fields f) {
    return new Gemm(f.text("kernel"), f.integer("n"), f.integer("k"), f.integer("rows"),
        f.texts("matrices"), f.integer("packed_bytes"), f.positive("median_s"),
        f.positive("min_s"), f.positive("max_s"), f.positive("gb_per_s"), f.positive("gops"),
        memoryBound(f), f.positive("share_of_limit"));
  }

  private static Attention attention(Fields f) {
    return new Attention(f.text("kernel"), f.text("phase"), f.text("model"), f.integer("tokens"),
        f.integer("cache_bytes"), f.positive("median_s"), f.positive("gb_per_s"),
        f.positive("gops"), memoryBound(f), f.positive("share_of_limit"));
  }

  private static Model model(Fields f) {
    return new Model(f.text("model"), f.text("scheme"), f.text("cache"), f.text("phase"),
        f.integer("threads"), f.integer("tokens"), f.integer("context"),
        f.positive("tokens_per_s"), f.positive("bytes_per_pass"), f.positive("share_of_limit"));
  }

  private static boolean memoryBound(Fields f) {
    return switch (f.text("bound")) {
      case "memory" -> true;
      case "arithmetic" -> false;
      default -> throw new ModelFormatException(f.where() + ".bound: \"" + f.text("bound")
          + "\" given, expected \"memory\" or \"arithmetic\"");
    };
  }
}
