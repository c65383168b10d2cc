// SPDX-License-Identifier: Apache-2.0
package dev.nibble.model;

import dev.nibble.UnsupportedException;
import dev.nibble.io.CheckpointNames;
import dev.nibble.io.ForeignCheckpoint;
import dev.nibble.io.TensorStore;
import dev.nibble.quantize.CodeType;
import dev.nibble.quantize.Scheme;
import dev.nibble.quantize.WeightFormat;
import dev.nibble.tensor.Context;
import dev.nibble.tensor.PackedMatrix;
import java.util.LinkedHashMap;
import java.util.Map;

/**
 * Weights of a checkpoint that another project quantized. By default each matrix keeps its values:
 * in the codes it has where a format holds them exactly ({@link ForeignPacker}), in its own float
 * type where it is not quantized. Where another format is asked for, or none is exact, it is
 * quantized again, and what that cost is measured and said when all is loaded.
 *
 * <p>One matrix is in memory at a time: its bytes in the file and its codes (I8, one byte a
 * weight), or its values in F32 where it is quantized to a format that was asked for. For one
 * thread.
 */
final class ForeignWeights implements WeightSource {
  private final ForeignCheckpoint foreign;
  private final TensorStore store;
  private final Scheme scheme;
  private final boolean keep;
  private final CheckpointWeights floats;
  private final ForeignPacker packer;
  private final ProgressListener progress;
  private final Requantizations requantizations;
  private final Map<String, WeightFormat> formats = new LinkedHashMap<>();
  private final long totalBytes;
  private long foreignBytes;

  /**
   * Nothing is read yet; all arguments stay the caller's.
   *
   * @param scheme what the model is loaded in; where its weights are {@link WeightFormat#FOREIGN}
   *     each matrix keeps its values as far as it can
   * @param options for progress and warnings
   */
  ForeignWeights(ForeignCheckpoint foreign, TensorStore store, Context context, Scheme scheme,
      LoadOptions options) {
    this.foreign = foreign;
    this.store = store;
    this.scheme = scheme;
    this.keep = scheme.projections().equals(WeightFormat.FOREIGN)
        && scheme.embedding().equals(WeightFormat.FOREIGN) && scheme.exceptions().isEmpty();
    this.progress = options.progress();
    this.requantizations = new Requantizations(store.name(), options.warnings());
    this.packer = new ForeignPacker(context, requantizations);
    this.totalBytes = store.byteLength();
    this.floats = new CheckpointWeights(store, context, false,
        (what, done, total) -> progress.progress(what, done + foreignBytes, totalBytes));
  }

  @Override
  public PackedMatrix matrix(String name, int rows, int cols, WeightFormat format) {
    if (!foreign.has(store, name)) {
      return requireKernel(name, floats.matrix(name, rows, cols, floatFormat(name, format)));
    }
    progress.progress(name, floats.doneBytes() + foreignBytes, totalBytes);
    try (var matrix = foreign.open(store, name, rows, cols)) {
      foreignBytes += foreign.byteLength(store, name);
      var packed = keep ? packer.keep(matrix) : packer.pack(matrix, format);
      return requireKernel(name, packed);
    }
  }

  private WeightFormat floatFormat(String name, WeightFormat asked) {
    if (!keep || !store.has(name) || !store.info(name).dataType().isFloat()) {
      return asked; // what is missing or of a wrong type is refused there
    }
    return WeightFormat.of(CodeType.valueOf(store.info(name).dataType().name()));
  }

  /** The matrices of a file are of several formats, so the scheme alone does not tell. */
  private PackedMatrix requireKernel(String name, PackedMatrix matrix) {
    boolean head = CheckpointNames.isEmbeddingOrHead(name);
    if (!head && !scheme.activations().hasKernelFor(matrix.format().code())) {
      var format = matrix.format().describe();
      matrix.close();
      throw new UnsupportedException(store.name() + ": tensor \"" + name + "\" is loaded as "
          + format + ", for which there is no kernel with activations "
          + scheme.activations().id() + "; expected activations f32, a16 or a8f");
    }
    formats.put(name, matrix.format());
    return matrix;
  }

  /** Most projections' format, with exceptions, and the format of the output head. */
  @Override
  public Scheme loaded(Scheme asked) {
    var counts = new LinkedHashMap<WeightFormat, Integer>();
    var projections = new LinkedHashMap<>(formats);
    projections.keySet().removeIf(CheckpointNames::isEmbeddingOrHead);
    projections.values().forEach(format -> counts.merge(format, 1, Integer::sum));
    var most = counts.entrySet().stream().max(Map.Entry.comparingByValue()).orElseThrow().getKey();
    var head = formats.getOrDefault(
        CheckpointNames.HEAD, formats.get(CheckpointNames.EMBEDDING));
    return Scheme.of(most, asked.activations(), asked.cache(), head)
        .withExceptions(projections);
  }

  @Override
  public float[] vector(String name, int size) {
    return floats.vector(name, size);
  }

  @Override
  public void finish() {
    progress.progress("", totalBytes, totalBytes);
    requantizations.report();
  }

  @Override
  public void close() {
    floats.close();
  }
}
