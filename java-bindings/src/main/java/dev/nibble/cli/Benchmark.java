// SPDX-License-Identifier: Apache-2.0
package dev.nibble.cli;

import dev.nibble.model.LlamaModel;
import dev.nibble.model.Session;
import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.Arrays;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Locale;
import java.util.Map;
import java.util.SplittableRandom;
import java.util.function.IntConsumer;

/**
 * Timings of a model.
 *
 * @param prefill tokens a second
 * @param decode tokens a second
 * @param bandwidth of reading memory with the model's threads, GB/s (1e9 bytes)
 * @param share bytes read while decoding a second, over the bandwidth measured in the same run
 * @param bytesPerToken weights, keys and values that decoding a token reads, on average
 * @param sizes tokens of prefill, decode and context
 */
record Benchmark(Spread prefill, Spread decode, Spread bandwidth, Spread share, long bytesPerToken,
    int[] sizes) {

  private static final long MIN_BUFFER = 256L << 20;
  private static final long MAX_BUFFER = 2L << 30;
  private static final int BANDWIDTH_PASSES = 3;

  /** What several runs gave, sorted. */
  record Spread(double[] sorted) {

    Spread {
      Arrays.sort(sorted);
    }

    double median() {
      int middle = sorted.length / 2;
      return sorted.length % 2 == 1 ? sorted[middle] : (sorted[middle - 1] + sorted[middle]) / 2;
    }

    double min() {
      return sorted[0];
    }

    double max() {
      return sorted[sorted.length - 1];
    }

    String range() {
      return String.format(Locale.ROOT, "%.1f to %.1f", min(), max());
    }
  }

  /** Runs once to warm up, then {@code runs} times; {@code done} hears how many are behind. */
  static Benchmark run(LlamaModel model, int prefill, int decode, int context, int runs,
      IntConsumer done) {
    var prefillRates = new double[runs];
    var decodeRates = new double[runs];
    var bandwidths = new double[runs];
    var shares = new double[runs];
    // The middle of the decoded tokens stands for all: the cache grows by one each time.
    long bytes = model.decodeBytesPerToken(context + decode / 2);
    long buffer = bandwidthBuffer();
    var random = new SplittableRandom(1);
    int vocabulary = model.config().vocabSize();
    try (var session = model.newSession(context + Math.max(prefill, decode))) {
      if (context > 0) {
        session.forward(tokens(random, context, vocabulary));
      }
      var prompt = tokens(random, prefill, vocabulary);
      var next = tokens(random, decode, vocabulary);
      for (int run = -1; run < runs; run++) {
        done.accept(run + 1);
        double prefillRate = prefill / seconds(session, context, () -> session.forward(prompt));
        double decodeRate = decode / seconds(session, context, () -> {
          for (int token : next) {
            session.forward(token);
          }
        });
        double bandwidth = model.context().measureReadBandwidth(buffer, BANDWIDTH_PASSES);
        if (run >= 0) {
          prefillRates[run] = prefillRate;
          decodeRates[run] = decodeRate;
          bandwidths[run] = bandwidth / 1e9;
          shares[run] = decodeRate * bytes / bandwidth;
        }
      }
    }
    return new Benchmark(new Spread(prefillRates), new Spread(decodeRates), new Spread(bandwidths),
        new Spread(shares), bytes, new int[] {prefill, decode, context, runs});
  }

  private static double seconds(Session session, int context, Runnable work) {
    session.rewind(context);
    long begin = System.nanoTime();
    work.run();
    return (System.nanoTime() - begin) / 1e9;
  }

  private static int[] tokens(SplittableRandom random, int count, int vocabulary) {
    return random.ints(count, 0, vocabulary).toArray();
  }

  /** Four times the last-level cache, so that the measurement reads memory. */
  private static long bandwidthBuffer() {
    long cache = 0;
    try {
      var file = Path.of("/sys/devices/system/cpu/cpu0/cache/index3/size");
      var size = Files.readString(file).strip();
      long unit = size.endsWith("K") ? 1 << 10 : size.endsWith("M") ? 1 << 20 : 1;
      cache = unit * Long.parseLong(unit == 1 ? size : size.substring(0, size.length() - 1));
    } catch (IOException | NumberFormatException e) {
      // The system does not tell; the least buffer is large enough for most.
    }
    return Math.clamp(4 * cache, MIN_BUFFER, MAX_BUFFER);
  }

  /** For JSON: medians under plain names, least and largest beside them. */
  Map<String, Object> toMap() {
    var map = new LinkedHashMap<String, Object>();
    put(map, "prefill_tokens_per_s", prefill);
    put(map, "decode_tokens_per_s", decode);
    map.put("decode_bytes_per_token", bytesPerToken);
    put(map, "read_bandwidth_gb_per_s", bandwidth);
    put(map, "decode_share_of_read_bandwidth", share);
    map.put("prefill_tokens", sizes[0]);
    map.put("decode_tokens", sizes[1]);
    map.put("context_tokens", sizes[2]);
    map.put("runs", sizes[3]);
    return map;
  }

  private static void put(Map<String, Object> map, String name, Spread spread) {
    map.put(name, spread.median());
    map.put(name + "_range", List.of(spread.min(), spread.max()));
  }
}
