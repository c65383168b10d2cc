// SPDX-License-Identifier: Apache-2.0
package dev.nibble.io;

import dev.nibble.ModelFormatException;
import java.io.IOException;
import java.lang.foreign.MemorySegment;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.Optional;

/**
 * The files of one model: a directory in the Hugging Face layout, a GGUF file, or the default model
 * inside the jar. Immutable and safe for use from any thread.
 */
public abstract sealed class ModelSource implements AutoCloseable
    permits ModelSource.Directory, ModelSource.Embedded, GgufSource {

  /** Largest file that {@link #read} takes: 64 MiB. */
  public static final long MAX_FILE_BYTES = 64L << 20;

  private static final String EMBEDDED = "fable-4m";

  ModelSource() {}

  /**
   * The model at {@code path}: a directory, of which nothing but its existence is checked yet, or
   * a GGUF file, of which everything but the tokenizer is.
   *
   * @throws ModelFormatException if there is no such directory or file, or it is not a model
   * @throws dev.nibble.UnsupportedException for a GGUF file of another architecture, or with types
   *     that Nibble does not read
   */
  public static ModelSource directory(Path path) {
    return Files.isRegularFile(path) && GgufSource.isAt(path)
        ? new GgufSource(path) : new Directory(path);
  }

  /** The same as {@link #directory}. */
  public static ModelSource open(Path path) {
    return directory(path);
  }

  /**
   * The default model, a LLaMA of 4.2 million parameters trained on fairy tales. It is read
   * straight from the jar into memory; nothing is unpacked.
   */
  public static ModelSource embedded() {
    return new Embedded();
  }

  /** What to call the model in messages: the directory's path, or {@code fable-4m}. */
  public abstract String name();

  /** Whether the model has a file of that name. */
  public abstract boolean has(String file);

  /**
   * The bytes of a small file, such as {@code config.json}.
   *
   * @throws ModelFormatException if it is missing, not a regular file, or larger than {@link
   *     #MAX_FILE_BYTES}
   */
  public abstract byte[] read(String file);

  /**
   * Opens the tensors: {@code model.safetensors}, or what {@code model.safetensors.index.json}
   * names. The caller closes the store.
   *
   * @throws ModelFormatException naming the file, the tensor, the field and the value
   */
  public abstract TensorStore tensors();

  /** The directory of the model, if it is one. */
  public Optional<Path> directory() {
    return Optional.empty();
  }

  /** The name of a file for messages: the model's name and the file's. */
  public abstract String describe(String file);

  /** Releases what the source holds: nothing, today. A second call does nothing. */
  @Override
  public void close() {}

  static final class Directory extends ModelSource {
    private final Path path;

    Directory(Path path) {
      this.path = path;
      if (!Files.isDirectory(path)) {
        throw Problem.in(name(), Files.exists(path)
            ? "is a file, expected a model directory with config.json and model.safetensors"
            : "no such model directory");
      }
    }

    @Override
    public String name() {
      return Problem.printable(path.toString());
    }

    @Override
    public Optional<Path> directory() {
      return Optional.of(path);
    }

    @Override
    public String describe(String file) {
      return Problem.printable(path.resolve(file).toString());
    }

    @Override
    public boolean has(String file) {
      return Files.exists(path.resolve(file));
    }

    @Override
    public byte[] read(String file) {
      try (var source = ByteSource.file(path.resolve(file))) {
        if (source.size() > MAX_FILE_BYTES) {
          throw Problem.in(source.name(),
              source.size() + " bytes, expected at most " + MAX_FILE_BYTES);
        }
        var bytes = new byte[(int) source.size()];
        source.read(0, MemorySegment.ofArray(bytes));
        return bytes;
      }
    }

    @Override
    public TensorStore tensors() {
      if (has(CheckpointNames.WEIGHTS)) {
        return TensorStore.open(path.resolve(CheckpointNames.WEIGHTS));
      }
      if (has(CheckpointNames.WEIGHTS_INDEX)) {
        return ShardIndex.open(path, read(CheckpointNames.WEIGHTS_INDEX));
      }
      throw Problem.in(name(), "has neither " + CheckpointNames.WEIGHTS + " nor "
          + CheckpointNames.WEIGHTS_INDEX);
    }
  }

  static final class Embedded extends ModelSource {
    private static final String FOLDER = "/dev/nibble/models/" + EMBEDDED + "/";

    @Override
    public String name() {
      return EMBEDDED;
    }

    @Override
    public String describe(String file) {
      return EMBEDDED + "/" + file + " (in the jar)";
    }

    @Override
    public boolean has(String file) {
      return ModelSource.class.getResource(FOLDER + file) != null;
    }

    @Override
    public byte[] read(String file) {
      var resource = ModelSource.class.getResource(FOLDER + file);
      if (resource == null) {
        throw Problem.in(describe(file), "no such file");
      }
      try {
        var connection = resource.openConnection();
        try (var stream = connection.getInputStream()) {
          int size = connection.getContentLength();
          if (size < 0) {
            return stream.readAllBytes();
          }
          // With the size known, the bytes are copied once.
          var bytes = new byte[size];
          stream.readNBytes(bytes, 0, size);
          return bytes;
        }
      } catch (IOException e) {
        throw Problem.reading(describe(file), e);
      }
    }

    @Override
    public TensorStore tensors() {
      return TensorStore.of(describe(CheckpointNames.WEIGHTS), read(CheckpointNames.WEIGHTS));
    }
  }
}
