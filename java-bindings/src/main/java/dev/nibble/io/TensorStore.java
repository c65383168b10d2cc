// SPDX-License-Identifier: Apache-2.0
package dev.nibble.io;

import dev.nibble.ClosedException;
import dev.nibble.InvalidArgumentException;
import dev.nibble.ModelFormatException;
import java.lang.foreign.MemorySegment;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.Collections;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.Optional;
import java.util.Set;

/**
 * Named tensors in one safetensors file or in several.
 *
 * <p>Opening reads and checks all headers; {@link #read} then brings one tensor at a time into
 * memory of the caller's, with plain reads, never through a mapping. Any number of threads may
 * read at once. Closing while another thread reads makes that read fail with an exception.
 */
public final class TensorStore implements AutoCloseable {

  /** headRows, rowBytes: of rows that {@link RowOrder} puts in order; 0 for those that are. */
  private record Entry(TensorInfo info, ByteSource source, int headRows, long rowBytes) {
    Entry(TensorInfo info, ByteSource source) {
      this(info, source, 0, 0);
    }
  }

  /** A tensor of a source without a header of safetensors; headRows, rowBytes as in Entry. */
  record Placed(TensorInfo info, int headRows, long rowBytes) {}

  private final String name;
  private final Map<String, Entry> entries;
  private final List<ByteSource> sources;
  private volatile boolean closed;

  private TensorStore(String name, Map<String, Entry> entries, List<ByteSource> sources) {
    this.name = name;
    this.entries = entries;
    this.sources = sources;
  }

  /**
   * Opens one safetensors file.
   *
   * @throws ModelFormatException naming the file, the tensor, the field and the value
   */
  public static TensorStore open(Path file) {
    return of(ByteSource.file(file));
  }

  /**
   * Opens a safetensors file that is in memory already; the bytes are not copied.
   *
   * @param name what to call it in messages
   * @throws ModelFormatException naming the tensor, the field and the value
   */
  public static TensorStore of(String name, byte[] bytes) {
    return of(new ByteSource.Memory(name, MemorySegment.ofArray(bytes)));
  }

  /** A store of one source, which it owns, also when this fails. */
  static TensorStore of(ByteSource source) {
    try {
      var entries = new LinkedHashMap<String, Entry>();
      for (var info : SafetensorsHeader.read(source).values()) {
        entries.put(info.name(), new Entry(info, source));
      }
      return new TensorStore(source.name(), entries, List.of(source));
    } catch (Throwable e) {
      source.close();
      throw e;
    }
  }

  /**
   * A store of several sources, which it owns, also when this fails.
   *
   * @param index the file that says which tensor is where, for messages
   * @param shardOf the shard's name for each tensor
   * @param shards the sources by shard name, each open already
   */
  static TensorStore of(String index, Map<String, String> shardOf, Map<String, ByteSource> shards) {
    var sources = List.copyOf(shards.values());
    try {
      var headers = new LinkedHashMap<String, Map<String, TensorInfo>>();
      shards.forEach((shard, source) -> headers.put(shard, SafetensorsHeader.read(source)));
      var entries = LinkedHashMap.<String, Entry>newLinkedHashMap(shardOf.size());
      shardOf.forEach((tensor, shard) -> {
        var info = headers.get(shard).get(tensor);
        if (info == null) {
          throw Problem.inTensor(index, tensor,
              "weight_map names " + Problem.quote(shard) + ", which has no such tensor");
        }
        entries.put(tensor, new Entry(info, shards.get(shard)));
      });
      return new TensorStore(index, entries, sources);
    } catch (Throwable e) {
      sources.forEach(ByteSource::close);
      throw e;
    }
  }

  /** A store of tensors of one source, which it owns; their places are checked already. */
  static TensorStore of(ByteSource source, List<Placed> tensors) {
    var entries = new LinkedHashMap<String, Entry>();
    for (var tensor : tensors) {
      entries.put(tensor.info().name(),
          new Entry(tensor.info(), source, tensor.headRows(), tensor.rowBytes()));
    }
    return new TensorStore(source.name(), entries, List.of(source));
  }

  /** Where the tensors come from, for messages. */
  public String name() {
    return name;
  }

  /** The names of all tensors, in the order of the file or the index. */
  public Set<String> names() {
    return Collections.unmodifiableSet(entries.keySet());
  }

  /** Whether there is a tensor of that name. */
  public boolean has(String tensor) {
    return entries.containsKey(tensor);
  }

  /** Bytes of all tensors together. */
  public long byteLength() {
    long total = 0;
    for (var entry : entries.values()) {
      total = Math.addExact(total, entry.info.byteLength());
    }
    return total;
  }

  /**
   * Type, shape and size of a tensor.
   *
   * @throws ModelFormatException if there is none of that name
   */
  public TensorInfo info(String tensor) {
    return entry(tensor).info;
  }

  /**
   * Reads a tensor: little-endian elements, row-major.
   *
   * @param destination exactly {@link TensorInfo#byteLength} bytes, of any kind and alignment
   * @throws ModelFormatException if there is no such tensor, or its file ends short by now
   * @throws InvalidArgumentException if the destination has another size
   * @throws ClosedException after {@link #close}
   */
  public void read(String tensor, MemorySegment destination) {
    if (closed) {
      throw new ClosedException(name + ": the tensor store is closed");
    }
    var entry = entry(tensor);
    if (destination.byteSize() != entry.info.byteLength()) {
      throw new InvalidArgumentException("destination: " + destination.byteSize()
          + " bytes given, but tensor " + Problem.quote(tensor) + " has "
          + entry.info.byteLength());
    }
    if (entry.headRows == 0) {
      entry.source.read(entry.info.offset(), destination);
    } else {
      RowOrder.read(
          entry.source, entry.info.offset(), entry.headRows, entry.rowBytes, destination);
    }
  }

  /**
   * A digest of 32 bytes that changes when any of the files does, or nothing when the tensors are
   * not in files. It reads little of each: identity, times, the header, and samples of the data.
   *
   * @throws ModelFormatException if a file cannot be read
   */
  public Optional<byte[]> fingerprint() {
    var files = new ArrayList<ByteSource.File>();
    for (var source : sources) {
      if (!(source instanceof ByteSource.File file)) {
        return Optional.empty();
      }
      files.add(file);
    }
    return Optional.of(
        Fingerprint.of(entries.values().stream().map(Entry::info).toList(), files));
  }

  private Entry entry(String tensor) {
    var entry = entries.get(tensor);
    if (entry == null) {
      throw Problem.inTensor(name, tensor, "missing");
    }
    return entry;
  }

  /** Closes the files; a second call does nothing. */
  @Override
  public void close() {
    closed = true;
    sources.forEach(ByteSource::close);
  }
}
