// SPDX-License-Identifier: Apache-2.0
package dev.nibble.quantize;

import dev.nibble.InvalidArgumentException;
import dev.nibble.ModelFormatException;
import dev.nibble.UnsupportedException;
import dev.nibble.io.CheckpointNames;
import dev.nibble.io.Json;
import dev.nibble.io.ModelSource;
import dev.nibble.io.SafetensorsWriter;
import dev.nibble.io.TensorInfo;
import dev.nibble.io.TensorStore;
import dev.nibble.tensor.Context;
import dev.nibble.tensor.QuantizedWeights;
import dev.nibble.tensor.Tensor;
import java.io.IOException;
import java.lang.foreign.Arena;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.List;
import java.util.Map;

/**
 * Writes a quantized copy of a model: a directory of the same shape, with {@code
 * quantization_config} in {@code config.json}, the matrices in the parts that {@link
 * CheckpointNames} describes, and everything else copied. Loading it gives bit for bit the logits
 * of quantizing the original on load with the same scheme.
 *
 * <p>One tensor is in memory at a time, with its quantized form. The directory is written under a
 * temporary name beside the target and published by rename, so that an interrupted run leaves
 * nothing at the target.
 */
public final class Quantizer {

  /** Hears how far the work is. */
  @FunctionalInterface
  public interface Listener {
    /**
     * Called before each tensor and once at the end, on the calling thread.
     *
     * @param tensor the tensor about to be quantized or copied; empty at the end
     * @param doneBytes bytes of source weights behind
     * @param totalBytes bytes of source weights altogether
     */
    void progress(String tensor, long doneBytes, long totalBytes);
  }

  private final ModelSource in;
  private final Scheme scheme;
  private final Context context;
  private final Listener listener;

  Quantizer(ModelSource in, Scheme scheme, Context context, Listener listener) {
    this.in = in;
    this.scheme = scheme;
    this.context = context;
    this.listener = listener;
  }

  /**
   * Quantizes a model.
   *
   * @param in the unquantized model, weights in F32, F16 or BF16; not closed
   * @param out the directory to make; it must not exist, or be empty
   * @param scheme the formats of the weights, and the activations and cache written down as the
   *     model's own
   * @param context does the arithmetic; not closed
   * @param listener hears how far the work is; may be null
   * @throws ModelFormatException if the model is not valid, for example holds a NaN
   * @throws UnsupportedException if the model is quantized already
   * @throws InvalidArgumentException if {@code out} exists and is not an empty directory
   * @throws dev.nibble.NibbleException if the result cannot be written
   */
  public static void quantize(ModelSource in, Path out, Scheme scheme, Context context,
      Listener listener) {
    OutputDirectory.requireFree(out);
    var quantizer = new Quantizer(in, scheme, context,
        listener == null ? (tensor, done, total) -> {} : listener);
    try {
      quantizer.run(out.toAbsolutePath().normalize());
    } catch (IOException e) {
      throw OutputDirectory.unwritable(out, e);
    }
  }

  private void run(Path out) throws IOException {
    var config = quantizedConfig(in, scheme);
    OutputDirectory.make(in, out, temporary -> {
      writeTensors(temporary.resolve(CheckpointNames.WEIGHTS));
      Files.write(temporary.resolve(CheckpointNames.CONFIG), config);
    });
  }

  /**
   * The {@code config.json} of a model quantized to scheme.
   *
   * @throws UnsupportedException if it is quantized already
   */
  static byte[] quantizedConfig(ModelSource in, Scheme scheme) {
    var configFile = in.describe(CheckpointNames.CONFIG);
    var config = Json.parseObject(in.read(CheckpointNames.CONFIG), configFile);
    if (CheckpointNames.isQuantized(config)) {
      throw new UnsupportedException(configFile + ": has " + CheckpointNames.QUANTIZATION_CONFIG
          + ", so the model is quantized already; expected F32, F16 or BF16 weights");
    }
    config.put(CheckpointNames.QUANTIZATION_CONFIG, QuantizationConfig.toMap(scheme));
    return Json.write(config);
  }

  private void writeTensors(Path file) {
    try (var store = in.tensors()) {
      var entries = new ArrayList<SafetensorsWriter.Entry>();
      long total = 0;
      for (var name : store.names()) {
        var info = store.info(name);
        addEntries(info, entries);
        total = Math.addExact(total, info.byteLength());
      }
      var metadata = Map.of("format", "pt", "scheme", scheme.name());
      try (var writer = SafetensorsWriter.create(file, entries, metadata)) {
        long done = 0;
        for (var name : store.names()) {
          listener.progress(name, done, total);
          write(store, store.info(name), writer);
          done += store.info(name).byteLength();
        }
        writer.commit();
        listener.progress("", total, total);
      }
    }
  }

  /** The format a tensor gets, or null where it is copied. */
  private WeightFormat formatOf(String tensor) {
    if (CheckpointNames.isProjection(tensor)) {
      return scheme.formatOf(tensor);
    }
    return CheckpointNames.isEmbeddingOrHead(tensor) ? scheme.embedding() : null;
  }

  /** Declares what a tensor of the model becomes. */
  void addEntries(TensorInfo info, List<SafetensorsWriter.Entry> entries) {
    var format = formatOf(info.name());
    if (format == null) {
      entries.add(new SafetensorsWriter.Entry(info.name(), info.dataType(), info.shape()));
      return;
    }
    if (info.rank() != 2 || info.dim(0) == 0 || info.dim(1) == 0) {
      throw info.problem("shape " + info.shapeText() + ", expected a matrix [rows, columns]");
    }
    if (!info.dataType().isFloat()) {
      throw info.problem("dtype " + info.dataType().safetensorsName()
          + ", expected F32, F16 or BF16");
    }
    entries.addAll(
        CanonicalParts.entries(info.name(), format, info.dim(0), info.dim(1)));
  }

  /** Writes what {@link #addEntries} declares. */
  void write(TensorStore store, TensorInfo info, SafetensorsWriter writer) {
    var format = formatOf(info.name());
    if (format == null) {
      try (var arena = Arena.ofConfined()) {
        var bytes = arena.allocate(info.byteLength());
        store.read(info.name(), bytes);
        writer.write(info.name(), bytes);
      }
      return;
    }
    try (var weights = Tensor.allocate(info.dataType(), info.shape())) {
      store.read(info.name(), weights.segment());
      try (var quantized = quantize(info, weights, format)) {
        CanonicalParts.write(writer, info.name(), quantized);
      }
    }
  }

  private QuantizedWeights quantize(TensorInfo info, Tensor weights, WeightFormat format) {
    try {
      return context.quantize(weights, format);
    } catch (InvalidArgumentException e) {
      // All that the quantizer refuses in weights of a legal shape and type is NaN and infinity.
      throw info.problem(e.getMessage());
    }
  }
}
