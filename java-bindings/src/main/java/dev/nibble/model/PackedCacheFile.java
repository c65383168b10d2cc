// SPDX-License-Identifier: Apache-2.0
package dev.nibble.model;

import dev.nibble.ModelFormatException;
import dev.nibble.NibbleException;
import dev.nibble.io.DataType;
import dev.nibble.io.SafetensorsWriter;
import dev.nibble.io.TensorStore;
import dev.nibble.quantize.Scheme;
import dev.nibble.quantize.WeightFormat;
import dev.nibble.tensor.Context;
import dev.nibble.tensor.PackedMatrix;
import java.io.IOException;
import java.lang.foreign.MemorySegment;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.nio.file.attribute.FileTime;
import java.security.MessageDigest;
import java.security.NoSuchAlgorithmException;
import java.time.Duration;
import java.time.Instant;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.HexFormat;
import java.util.Map;
import java.util.regex.Pattern;

/**
 * The packed weights of one model in one set of formats, as a safetensors file: a U8 tensor for
 * each matrix, which is a record of {@code nb_matrix_write}, and the key.
 *
 * <pre>
 *   NAME-0123456789abcdef-KEY.packed
 *        |                |
 *        |                the model's content: configuration, files, formats
 *        the model's place: directory and formats; files of one place replace each other
 * </pre>
 *
 * <p>The key stands in the name too, so that a name only ever has one content: a reader that opens
 * the name again for each matrix cannot meet another model's weights there, whoever writes or
 * deletes meanwhile. For one thread.
 */
final class PackedCacheFile implements AutoCloseable {
  private static final String SUFFIX = ".packed";
  private static final String KEY = "nibble.key";
  private static final int PAGE = 4096;
  private static final int MAX_NAME = 40;
  private static final int PLACE_BYTES = 8;
  private static final int KEY_BYTES = 16;
  /** Part of the key: to be changed when this class writes something else. */
  private static final String VERSION = "1";
  private static final Duration UNUSED = Duration.ofDays(30);
  private static final Duration ABANDONED = Duration.ofDays(1);
  /** Our files, and those that a writer left behind when it was killed. */
  private static final Pattern OURS = Pattern.compile(
      "[A-Za-z0-9._-]{0,40}-[0-9a-f]{16}-[0-9a-f]{32}\\.packed");
  private static final Pattern TEMPORARY = Pattern.compile(
      "\\.[A-Za-z0-9._-]{0,40}-[0-9a-f]{16}-[0-9a-f]{32}\\.packed\\.[0-9a-z]+\\.tmp");

  private final PackedCache cache;
  private final Path file;
  private final String place;
  private final byte[] key;
  private TensorStore store; // null: nothing to read
  private boolean warned;

  /**
   * The file of a model, opened for reading if it is there.
   *
   * @param model the model's directory
   * @param config the bytes of its configuration
   * @param fingerprint of its tensors
   */
  PackedCacheFile(
      PackedCache cache, Path model, byte[] config, byte[] fingerprint, Scheme scheme) {
    this.cache = cache;
    var formats = scheme.projections() + " " + scheme.embedding()
        + (scheme.exceptions().isEmpty() ? "" : " " + scheme.exceptions());
    place = HexFormat.of().formatHex(
        digest(realPath(model).toString().getBytes(StandardCharsets.UTF_8), text(formats)),
        0, PLACE_BYTES);
    key = digest(text(VERSION), text(formats), config, fingerprint);
    var name = String.valueOf(model.toAbsolutePath().normalize().getFileName())
        .replaceAll("[^A-Za-z0-9._-]", "_");
    file = cache.directory().orElseThrow().resolve(name.substring(0, Math.min(MAX_NAME,
        name.length())) + "-" + place + "-" + HexFormat.of().formatHex(key, 0, KEY_BYTES) + SUFFIX);
    if (Files.exists(file)) {
      open();
    }
  }

  private void open() {
    try {
      store = TensorStore.open(file);
      var found = new byte[key.length];
      store.read(KEY, MemorySegment.ofArray(found));
      if (!Arrays.equals(found, key)) {
        throw new ModelFormatException(file + ": its key is another model's");
      }
      touch();
    } catch (NibbleException e) {
      warnUnusable(e);
      close();
    }
  }

  /** Marks the file as used; a file system that cannot will have it written again some day. */
  private void touch() {
    try {
      Files.setLastModifiedTime(file, FileTime.from(Instant.now()));
    } catch (IOException e) {
      // Read-only: nobody will delete it either.
    }
  }

  /** The matrix of that name, or null if it has to be packed; the first failure is warned of. */
  PackedMatrix read(Context context, String name, long rows, long cols, WeightFormat format) {
    if (store == null) {
      return null;
    }
    try {
      var info = store.info(name);
      long bytes = Context.packedRecordBytes(format, rows, cols);
      if (info.byteLength() != bytes) {
        throw info.problem(info.byteLength() + " bytes, expected " + bytes);
      }
      return context.readPacked(format, rows, cols, file, info.offset());
    } catch (NibbleException e) {
      warnUnusable(e);
      return null;
    }
  }

  private void warnUnusable(NibbleException e) {
    if (!warned) {
      warned = true;
      cache.warn("packed weights in the cache cannot be used, packing again: " + e.getMessage());
    }
  }

  /** Writes all matrices, by name, and publishes the file; a failure leaves nothing behind. */
  void write(Context context, Map<String, PackedMatrix> matrices) {
    try {
      var directory = file.getParent();
      Files.createDirectories(directory);
      var entries = new ArrayList<SafetensorsWriter.Entry>();
      long bytes = 0;
      for (var entry : matrices.entrySet()) {
        var matrix = entry.getValue();
        long record =
            Context.packedRecordBytes(matrix.format(), matrix.rows(), matrix.cols());
        entries.add(new SafetensorsWriter.Entry(entry.getKey(), DataType.U8, record));
        bytes += record;
      }
      // Last, since it is no multiple of a page.
      entries.add(new SafetensorsWriter.Entry(KEY, DataType.U8, key.length));
      long room = Files.getFileStore(directory).getUsableSpace();
      if (room / 2 < bytes) {
        // Half of what is left is the user's; an unknown size counts as no room.
        throw new NibbleException(directory + ": " + room + " bytes free, expected at least twice"
            + " the " + bytes + " of the packed weights");
      }
      try (var writer = SafetensorsWriter.create(file, entries, Map.of(), PAGE)) {
        for (var entry : matrices.entrySet()) {
          writer.write(entry.getKey(),
              (path, offset, length) -> context.writePacked(entry.getValue(), path, offset));
        }
        writer.write(KEY, MemorySegment.ofArray(key));
        // Checksums find what a crash of the machine may leave, so there is no need to wait.
        writer.commit(false);
      }
      deleteOthers(directory);
    } catch (IOException | NibbleException e) {
      if (cache.asked()) {
        cache.warn("packed weights are not kept in the cache: " + (e instanceof IOException
            ? file.getParent() + ": cannot be written: " + e : e.getMessage()));
      }
    }
  }

  /** Deletes what this file replaces, and what nobody used for long. */
  private void deleteOthers(Path directory) throws IOException {
    var now = Instant.now();
    try (var files = Files.newDirectoryStream(directory)) {
      for (var other : files) {
        var name = other.getFileName().toString();
        boolean ours = OURS.matcher(name).matches();
        if (other.equals(file) || !ours && !TEMPORARY.matcher(name).matches()) {
          continue;
        }
        try {
          var age = Duration.between(Files.getLastModifiedTime(other).toInstant(), now);
          if (age.compareTo(ours ? UNUSED : ABANDONED) > 0
              || ours && name.contains("-" + place + "-")) {
            Files.deleteIfExists(other);
          }
        } catch (IOException e) {
          // Deleted by somebody else, or not ours to delete.
        }
      }
    }
  }

  private static Path realPath(Path model) {
    try {
      return model.toRealPath();
    } catch (IOException e) {
      return model.toAbsolutePath().normalize();
    }
  }

  private static byte[] text(String text) {
    return text.getBytes(StandardCharsets.UTF_8);
  }

  /** The digest of the parts, each under a digest of its own, so that none runs into the next. */
  private static byte[] digest(byte[]... parts) {
    try {
      var whole = MessageDigest.getInstance("SHA-256");
      var part = MessageDigest.getInstance("SHA-256");
      for (var bytes : parts) {
        whole.update(part.digest(bytes));
      }
      return whole.digest();
    } catch (NoSuchAlgorithmException e) {
      throw new AssertionError("every Java platform has SHA-256", e);
    }
  }

  @Override
  public void close() {
    if (store != null) {
      store.close();
      store = null;
    }
  }
}
