// SPDX-License-Identifier: Apache-2.0
package dev.nibble.io;

import dev.nibble.ModelFormatException;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.LinkedHashMap;
import java.util.Map;

/**
 * A GGUF file as a model: its metadata as {@code config.json} and {@code tokenizer.json}, its
 * tensors under Hugging Face's names with the rows of Q and K in Hugging Face's order. Tensors of
 * blocks are bytes, a row of the matrix a row of blocks; {@link ForeignCheckpoint} reads them.
 */
final class GgufSource extends ModelSource {
  private final Path path;
  private final String file;
  private final byte[] config;
  private final boolean hasTokenizer;
  private final Map<String, GgufType> blockTypes = new LinkedHashMap<>();

  /**
   * Opens a file, and checks all but its tokenizer.
   *
   * @throws ModelFormatException naming the file, the key or tensor, and the value
   */
  GgufSource(Path path) {
    this.path = path;
    try (var source = ByteSource.file(path)) {
      file = source.name();
      var header = GgufHeader.read(source);
      config = Json.write(GgufConfig.of(header, source));
      hasTokenizer = GgufTokenizer.isIn(header.metadata());
      for (var tensor : header.tensors().values()) {
        var name = GgufNames.huggingFace(tensor.name());
        if (name != null && !tensor.type().isFloat()) {
          blockTypes.put(name, tensor.type());
        }
      }
    }
  }

  /** Whether path is a GGUF file, by its name or its first bytes. */
  static boolean isAt(Path path) {
    if (path.toString().endsWith(".gguf")) {
      return true;
    }
    try (var source = ByteSource.file(path)) {
      return GgufHeader.isGguf(source);
    } catch (ModelFormatException e) {
      return false; // not readable: the caller says so
    }
  }

  /** The types of the tensors that are not floats, by Hugging Face's names. */
  Map<String, GgufType> blockTypes() {
    return blockTypes;
  }

  @Override
  public String name() {
    return file;
  }

  @Override
  public String describe(String part) {
    return file + " (metadata as " + part + ")";
  }

  @Override
  public boolean has(String part) {
    return part.equals(CheckpointNames.CONFIG)
        || part.equals(CheckpointNames.TOKENIZER) && hasTokenizer;
  }

  @Override
  public byte[] read(String part) {
    if (part.equals(CheckpointNames.CONFIG)) {
      return config.clone();
    }
    if (!has(part)) {
      throw Problem.in(describe(part), "no such file");
    }
    try (var source = ByteSource.file(path)) {
      return GgufTokenizer.json(GgufHeader.read(source).metadata(), file);
    }
  }

  @Override
  public TensorStore tensors() {
    var source = ByteSource.file(path);
    try {
      var header = GgufHeader.read(source);
      int headDim = GgufConfig.headDim(header);
      var tensors = new ArrayList<TensorStore.Placed>();
      for (var tensor : header.tensors().values()) {
        var name = GgufNames.huggingFace(tensor.name());
        if (name != null) {
          tensors.add(place(tensor, name, headDim));
        }
      }
      return TensorStore.of(source, tensors);
    } catch (Throwable e) {
      source.close();
      throw e;
    }
  }

  private TensorStore.Placed place(GgufHeader.Tensor tensor, String name, int headDim) {
    var type = tensor.type();
    int rank = tensor.shape().size();
    var shape = tensor.shape().stream().mapToLong(Long::longValue).toArray();
    if (!type.isFloat()) {
      shape[rank - 1] = tensor.rowBytes();
    }
    var info = new TensorInfo(
        name, type.dataType(), shape, file, tensor.offset(), tensor.byteLength());
    if (!GgufNames.isPermuted(tensor.name())) {
      return new TensorStore.Placed(info, 0, 0);
    }
    if (shape[0] % headDim != 0 || rank > 2) {
      throw Problem.inTensor(file, tensor.name(), "shape " + tensor.shape()
          + ", expected rows for heads of " + headDim);
    }
    long rowBytes = tensor.byteLength() / shape[0];
    if (rowBytes > Integer.MAX_VALUE / headDim) {
      throw Problem.inTensor(file, tensor.name(), "rows of " + rowBytes
          + " bytes, expected at most " + Integer.MAX_VALUE / headDim);
    }
    return new TensorStore.Placed(info, headDim, rowBytes);
  }
}
