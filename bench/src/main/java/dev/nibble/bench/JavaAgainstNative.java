// SPDX-License-Identifier: Apache-2.0
package dev.nibble.bench;

import dev.nibble.model.LlamaModel;
import dev.nibble.model.LoadOptions;
import dev.nibble.model.Session;
import dev.nibble.model.SyntheticConfigs;
import java.lang.management.ManagementFactory;
import java.util.LinkedHashMap;
import java.util.Map;

/**
 * What Java costs: the same model decoded through {@link Session} and by the native benchmark's
 * own loop over the C interface, in turn within seconds of each other, and the bytes that Java
 * allocates meanwhile.
 *
 * @param java tokens a second
 * @param nativeLoop tokens a second
 * @param ratio of a round: Java's rate over that of the native loop right after it
 * @param allocatedBytes of the Java thread in the last round, all tokens together
 */
record JavaAgainstNative(String model, String scheme, int threads, int tokens, Spread java,
    Spread nativeLoop, Spread ratio, long allocatedBytes) {

  static JavaAgainstNative run(
      NativeBench bench, String model, String scheme, int threads, int tokens, int rounds) {
    var bean = (com.sun.management.ThreadMXBean) ManagementFactory.getThreadMXBean();
    var java = new Spread();
    var nativeLoop = new Spread();
    var ratio = new Spread();
    long allocated = 0;
    try (var decoder = bench.decoder(model, scheme, threads);
        var loaded = LlamaModel.synthetic(SyntheticConfigs.of(model),
            LoadOptions.defaults().withScheme(scheme).withThreads(threads), 1);
        var session = loaded.newSession(tokens)) {
      int vocabulary = loaded.config().vocabSize();
      // Round 0 warms both up, and lets the JVM compile.
      for (int round = 0; round <= rounds; round++) {
        long before = bean.getCurrentThreadAllocatedBytes();
        double ours = decode(session, tokens, vocabulary);
        allocated = bean.getCurrentThreadAllocatedBytes() - before;
        double theirs = decoder.decode(tokens);
        if (round > 0) {
          java.add(ours);
          nativeLoop.add(theirs);
          ratio.add(ours / theirs);
        }
      }
    }
    return new JavaAgainstNative(
        model, scheme, threads, tokens, java, nativeLoop, ratio, allocated);
  }

  private static double decode(Session session, int tokens, int vocabulary) {
    session.reset();
    long begin = System.nanoTime();
    for (int i = 0; i < tokens; i++) {
      session.forward((int) (i * 2_654_435_761L % vocabulary));
    }
    return tokens / ((System.nanoTime() - begin) / 1e9);
  }

  Map<String, Object> toMap() {
    var map = new LinkedHashMap<String, Object>();
    map.put("model", model);
    map.put("scheme", scheme);
    map.put("threads", threads);
    map.put("tokens", tokens);
    map.put("java_tokens_per_s", java.values());
    map.put("native_tokens_per_s", nativeLoop.values());
    map.put("java_over_native", ratio.values());
    map.put("java_over_native_median", ratio.median());
    map.put("java_allocated_bytes", allocatedBytes);
    return map;
  }
}
