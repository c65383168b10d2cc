// SPDX-License-Identifier: Apache-2.0
package dev.nibble.io;

import dev.nibble.ClosedException;
import dev.nibble.InvalidArgumentException;
import dev.nibble.NibbleException;
import java.io.IOException;
import java.lang.foreign.MemorySegment;
import java.lang.foreign.ValueLayout;
import java.nio.ByteBuffer;
import java.nio.ByteOrder;
import java.nio.channels.FileChannel;
import java.nio.file.Files;
import java.nio.file.Path;
import java.nio.file.StandardCopyOption;
import java.nio.file.StandardOpenOption;
import java.util.Arrays;
import java.util.HashSet;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.Set;

/**
 * Writes a safetensors file tensor by tensor.
 *
 * <p>What the file will hold is declared first, since its header stands at the front; the data
 * follows in any order. Everything goes to a temporary file beside the target, and {@link #commit}
 * publishes it by rename, so that the target is either whole or not there. Closing without a
 * commit leaves nothing behind. For one thread.
 */
public final class SafetensorsWriter implements AutoCloseable {

  /**
   * A tensor to be written.
   *
   * @param name its name; {@code __metadata__} is not allowed
   * @param dataType the type of its elements
   * @param shape its dimensions, outermost first
   */
  public record Entry(String name, DataType dataType, long... shape) {

    /** Bytes of the data: the product of the shape times the size of an element. */
    public long byteLength() {
      long bytes = dataType.bytes();
      for (long size : shape) {
        if (size < 0) {
          throw new InvalidArgumentException(
              "tensor " + Problem.quote(name) + ": dimension " + size + " is negative");
        }
        bytes = Math.multiplyExact(bytes, size);
      }
      return bytes;
    }
  }

  /** Writes the data of one tensor into the file by other means. */
  @FunctionalInterface
  public interface DataWriter {
    /** Writes byteLength bytes at offset of file, which exists. */
    void write(Path file, long offset, long byteLength);
  }

  private record Place(long offset, long byteLength) {}

  private static final int ALIGNMENT = 8;

  private final Path target;
  private final Path temporary;
  private final FileChannel channel;
  private final Map<String, Place> places = new LinkedHashMap<>();
  private final Set<String> missing = new HashSet<>();
  private boolean open = true;

  private SafetensorsWriter(
      Path target, List<Entry> entries, Map<String, String> metadata, int alignment)
      throws IOException {
    this.target = target;
    var header = header(entries, metadata, alignment);
    long dataStart = 8L + header.length;
    long offset = dataStart;
    for (var entry : entries) {
      places.put(entry.name, new Place(offset, entry.byteLength()));
      missing.add(entry.name);
      offset = Math.addExact(offset, entry.byteLength());
    }
    this.temporary = target.resolveSibling(
        "." + target.getFileName() + "." + Long.toUnsignedString(System.nanoTime(), 36) + ".tmp");
    this.channel =
        FileChannel.open(temporary, StandardOpenOption.WRITE, StandardOpenOption.CREATE_NEW);
    try {
      var length = ByteBuffer.allocate(8).order(ByteOrder.LITTLE_ENDIAN).putLong(0, header.length);
      writeFully(length, 0);
      writeFully(ByteBuffer.wrap(header), 8);
    } catch (IOException e) {
      close();
      throw e;
    }
  }

  /**
   * Starts a file.
   *
   * @param target the file to be; an existing one is replaced on commit
   * @param entries its tensors, in the order in which their data will lie
   * @param metadata text for the header's {@code __metadata__}
   * @throws InvalidArgumentException if a name repeats or is {@code __metadata__}
   * @throws NibbleException if the file cannot be written
   */
  public static SafetensorsWriter create(Path target, List<Entry> entries,
      Map<String, String> metadata) {
    return create(target, entries, metadata, ALIGNMENT);
  }

  /**
   * The same with the data at a multiple of alignment bytes in the file.
   *
   * @param alignment a multiple of 8
   */
  public static SafetensorsWriter create(Path target, List<Entry> entries,
      Map<String, String> metadata, int alignment) {
    if (alignment < ALIGNMENT || alignment % ALIGNMENT != 0) {
      throw new InvalidArgumentException(
          "alignment: " + alignment + " given, expected a multiple of " + ALIGNMENT);
    }
    try {
      return new SafetensorsWriter(target, entries, metadata, alignment);
    } catch (IOException e) {
      throw failure(target, e);
    }
  }

  private static byte[] header(
      List<Entry> entries, Map<String, String> metadata, int alignment) {
    var root = new LinkedHashMap<String, Object>();
    if (!metadata.isEmpty()) {
      root.put("__metadata__", metadata);
    }
    long offset = 0;
    for (var entry : entries) {
      long end = Math.addExact(offset, entry.byteLength());
      var fields = new LinkedHashMap<String, Object>();
      fields.put("dtype", entry.dataType.safetensorsName());
      fields.put("shape", Arrays.stream(entry.shape).boxed().toList());
      fields.put("data_offsets", List.of(offset, end));
      if (entry.name.equals("__metadata__") || root.put(entry.name, fields) != null) {
        throw new InvalidArgumentException("tensor " + Problem.quote(entry.name)
            + ": the name is reserved, or given twice");
      }
      offset = end;
    }
    var json = Json.write(root, false);
    // Spaces after the JSON align the data, as other writers of the format do.
    var padded = Arrays.copyOf(
        json, Math.ceilDiv(8 + json.length, alignment) * alignment - 8);
    Arrays.fill(padded, json.length, padded.length, (byte) ' ');
    return padded;
  }

  /**
   * Writes the data of one tensor.
   *
   * @param data little-endian elements, row-major; exactly the declared number of bytes
   * @throws InvalidArgumentException for a name that was not declared or is already written, or a
   *     wrong size
   * @throws NibbleException if the file cannot be written
   */
  public void write(String name, MemorySegment data) {
    var place = place(name);
    if (data.byteSize() != place.byteLength) {
      throw new InvalidArgumentException("tensor " + Problem.quote(name) + ": " + data.byteSize()
          + " bytes given, but " + place.byteLength + " declared");
    }
    try {
      long chunk = 1 << 20;
      for (long done = 0; done < place.byteLength; done += chunk) {
        var slice = data.asSlice(done, Math.min(chunk, place.byteLength - done));
        // Arrays other than byte[] cannot be seen as a buffer.
        var buffer = slice.isNative() ? slice.asByteBuffer()
            : ByteBuffer.wrap(slice.toArray(ValueLayout.JAVA_BYTE));
        writeFully(buffer, place.offset + done);
      }
    } catch (IOException e) {
      throw failure(target, e);
    }
    missing.remove(name);
  }

  /**
   * Lets data write the data of one tensor. What it throws passes through, and the tensor counts
   * as not written.
   *
   * @throws InvalidArgumentException for a name that was not declared or is already written
   */
  public void write(String name, DataWriter data) {
    var place = place(name);
    data.write(temporary, place.offset, place.byteLength);
    missing.remove(name);
  }

  private Place place(String name) {
    requireOpen();
    var place = places.get(name);
    if (place == null || !missing.contains(name)) {
      throw new InvalidArgumentException("tensor " + Problem.quote(name)
          + (place == null ? ": was not declared" : ": is already written"));
    }
    return place;
  }

  /**
   * Publishes the file under its name, once it is on the disk.
   *
   * @throws InvalidArgumentException if a declared tensor was not written
   * @throws NibbleException if the file cannot be written
   */
  public void commit() {
    commit(true);
  }

  /**
   * Publishes the file under its name.
   *
   * @param durable whether to wait until the data is on the disk; without, a crash of the machine
   *     may leave a file of that name with other bytes, which only a checksum can tell
   * @throws InvalidArgumentException if a declared tensor was not written
   * @throws NibbleException if the file cannot be written
   */
  public void commit(boolean durable) {
    requireOpen();
    if (!missing.isEmpty()) {
      throw new InvalidArgumentException(missing.size()
          + " declared tensors were not written, such as "
          + Problem.quote(missing.iterator().next()));
    }
    try {
      if (durable) {
        channel.force(true);
      }
      channel.close();
      Files.move(temporary, target, StandardCopyOption.ATOMIC_MOVE,
          StandardCopyOption.REPLACE_EXISTING);
      open = false;
    } catch (IOException e) {
      throw failure(target, e);
    }
  }

  private void writeFully(ByteBuffer buffer, long position) throws IOException {
    while (buffer.hasRemaining()) {
      position += channel.write(buffer, position);
    }
  }

  private void requireOpen() {
    if (!open) {
      throw new ClosedException(target + ": the writer is closed");
    }
  }

  private static NibbleException failure(Path target, IOException cause) {
    return new NibbleException(Problem.printable(target.toString()) + ": cannot be written: "
        + Problem.reason(cause), cause);
  }

  /** Deletes the temporary file, unless it was published. A second call does nothing. */
  @Override
  public void close() {
    if (!open) {
      return;
    }
    open = false;
    try {
      channel.close();
      Files.deleteIfExists(temporary);
    } catch (IOException e) {
      throw failure(target, e);
    }
  }
}
