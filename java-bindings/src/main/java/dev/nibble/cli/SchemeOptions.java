// SPDX-License-Identifier: Apache-2.0
package dev.nibble.cli;

import dev.nibble.quantize.ActivationType;
import dev.nibble.quantize.CodeType;
import dev.nibble.quantize.KvType;
import dev.nibble.quantize.ScaleType;
import dev.nibble.quantize.Scheme;
import dev.nibble.quantize.WeightFormat;
import picocli.CommandLine.Option;

/** {@code --scheme} and its parts. */
final class SchemeOptions {

  @Option(names = "--scheme", paramLabel = "NAME", order = 20,
      description = "Number formats: f32, bf16, w4a8, w4a8i, w6a16, w6a8 or w8a8.")
  String scheme;

  @Option(names = "--weights", paramLabel = "TYPE", order = 21,
      description = "Override the projections' weights: w4, w6, w6e2m3, w8, w8e4m3, w8e5m2,"
          + " bf16, f16 or f32.")
  String weights;

  @Option(names = "--activations", paramLabel = "TYPE", order = 22,
      description = "Override the activations: f32, a16, a8f (FP8) or a8i (INT8).")
  String activations;

  @Option(names = "--kv", paramLabel = "TYPE", order = 23,
      description = "Override the key/value cache: f32, kv16, kv8 or kv4.")
  String kv;

  @Option(names = "--group-size", paramLabel = "N", order = 24,
      description = "Override how many weights share a scale: a multiple of 16, or 0 for a row.")
  Integer groupSize;

  @Option(names = "--scale-type", paramLabel = "TYPE", order = 25,
      description = "Override the scales' type: e4m3, pow2, f16, bf16 or f32.")
  String scaleType;

  /** Whether anything was asked for. */
  boolean given() {
    return scheme != null || weights != null || activations != null || kv != null
        || groupSize != null || scaleType != null;
  }

  /** The scheme asked for: the named one, or {@code base} where none is named, with overrides. */
  Scheme over(Scheme base) {
    return overrides(scheme == null ? base : Scheme.of(scheme));
  }

  /** A scheme with the overrides asked for. */
  Scheme overrides(Scheme start) {
    var format = start.projections();
    if (weights != null) {
      var code = CodeType.ofOption(weights);
      format = code == format.code() ? format : WeightFormat.of(code);
    }
    if (scaleType != null) {
      format = format.withScale(ScaleType.ofOption(scaleType));
    }
    if (groupSize != null) {
      format = format.withGroupSize(groupSize);
    }
    return Scheme.of(format,
        activations == null ? start.activations() : ActivationType.ofOption(activations),
        kv == null ? start.cache() : KvType.ofOption(kv),
        start.embedding()).withExceptions(start.exceptions());
  }
}
