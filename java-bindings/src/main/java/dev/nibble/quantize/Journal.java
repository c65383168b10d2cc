// SPDX-License-Identifier: Apache-2.0
package dev.nibble.quantize;

import dev.nibble.InvalidArgumentException;
import dev.nibble.NibbleException;
import dev.nibble.io.DataType;
import dev.nibble.io.SafetensorsWriter;
import dev.nibble.io.TensorStore;
import dev.nibble.tensor.Tensor;
import java.io.IOException;
import java.nio.channels.FileChannel;
import java.nio.channels.OverlappingFileLockException;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.nio.file.StandardOpenOption;
import java.util.ArrayList;
import java.util.List;
import java.util.Map;

/**
 * What a quantizer has finished, kept in a directory beside its target, so that an interrupted run
 * goes on where it was:
 *
 * <pre>
 *   .NAME.quantizing/
 *     lock                     held while a run works here
 *     key                      a digest of the model, the recipe and the calibration
 *     layer-00003.safetensors  everything of a finished block
 *     states-00004.safetensors what goes into the next one
 * </pre>
 *
 * <p>Each file appears by rename once it is on the disk, so that what is there is whole. The states
 * are bit for bit those of memory: a run that goes on writes the same bytes as one that was never
 * interrupted. A journal with another key is deleted.
 */
final class Journal implements AutoCloseable {
  private static final String KEY = "key";
  private static final String LOCK = "lock";
  private static final String STATES = "states";
  private static final String QUANTIZED_STATES = "quantized_states";

  private final Path directory;
  private final FileChannel lock;
  private boolean replaced;

  private Journal(Path directory, FileChannel lock) {
    this.directory = directory;
    this.lock = lock;
  }

  /**
   * Opens the journal of a target, or starts one.
   *
   * @param out the target, absolute
   * @param key of this run
   * @throws InvalidArgumentException if another run works on the same target
   */
  static Journal open(Path out, String key) {
    var directory = out.resolveSibling("." + out.getFileName() + ".quantizing");
    try {
      Files.createDirectories(directory);
      var journal = new Journal(directory, lock(directory.resolve(LOCK), out));
      var found = journal.key();
      if (!key.equals(found)) {
        journal.replaced = found != null;
        journal.clear();
        Files.writeString(directory.resolve(KEY), key, StandardCharsets.UTF_8);
      }
      return journal;
    } catch (IOException e) {
      throw OutputDirectory.unwritable(directory, e);
    }
  }

  private static FileChannel lock(Path file, Path out) throws IOException {
    var channel =
        FileChannel.open(file, StandardOpenOption.CREATE, StandardOpenOption.WRITE);
    boolean free = false;
    try {
      free = channel.tryLock() != null;
    } catch (OverlappingFileLockException e) {
      // A run of this process.
    } finally {
      if (!free) {
        channel.close();
      }
    }
    if (!free) {
      throw new InvalidArgumentException(out + ": another run is making it");
    }
    return channel;
  }

  private void clear() throws IOException {
    try (var files = Files.newDirectoryStream(directory)) {
      for (var file : files) {
        if (!file.endsWith(LOCK)) {
          Files.delete(file);
        }
      }
    }
  }

  /** Whether a journal of another model, recipe or calibration was there and is gone. */
  boolean replaced() {
    return replaced;
  }

  private String key() throws IOException {
    var file = directory.resolve(KEY);
    return Files.isRegularFile(file) ? Files.readString(file, StandardCharsets.UTF_8) : null;
  }

  /** The file of a finished block. */
  Path layer(int layer) {
    return directory.resolve(String.format("layer-%05d.safetensors", layer));
  }

  private Path states(int layer) {
    return directory.resolve(String.format("states-%05d.safetensors", layer));
  }

  /** How many blocks need not be done again, of so many. */
  int finished(int layers) {
    int done = 0;
    while (done < layers && Files.exists(layer(done))) {
      done++;
    }
    while (done > 0 && !Files.exists(states(done))) {
      done--;
    }
    return done;
  }

  /** Keeps what goes into a block; what went into the one before is not needed any more. */
  void writeStates(int layer, Tensor states, Tensor quantizedStates) {
    var entries = new ArrayList<SafetensorsWriter.Entry>();
    entries.add(new SafetensorsWriter.Entry(STATES, DataType.F32, states.shape()));
    if (quantizedStates != null) {
      entries.add(new SafetensorsWriter.Entry(
          QUANTIZED_STATES, DataType.F32, quantizedStates.shape()));
    }
    try (var writer = SafetensorsWriter.create(states(layer), entries, Map.of())) {
      writer.write(STATES, states.segment());
      if (quantizedStates != null) {
        writer.write(QUANTIZED_STATES, quantizedStates.segment());
      }
      writer.commit();
    }
    try {
      Files.deleteIfExists(states(layer - 1));
    } catch (IOException e) {
      throw new NibbleException(states(layer - 1) + ": cannot be deleted: " + e, e);
    }
  }

  /** Reads what {@link #writeStates} wrote. */
  void readStates(int layer, Tensor states, Tensor quantizedStates) {
    try (var store = TensorStore.open(states(layer))) {
      store.read(STATES, states.segment());
      if (quantizedStates != null) {
        store.read(QUANTIZED_STATES, quantizedStates.segment());
      }
    }
  }

  /** Opens the files of all blocks; the caller closes them. */
  List<TensorStore> openLayers(int layers) {
    var stores = new ArrayList<TensorStore>();
    boolean complete = false;
    try {
      for (int i = 0; i < layers; i++) {
        stores.add(TensorStore.open(layer(i)));
      }
      complete = true;
      return stores;
    } finally {
      if (!complete) {
        stores.forEach(TensorStore::close);
      }
    }
  }

  /** Deletes the journal. */
  void delete() {
    OutputDirectory.deleteAll(directory);
  }

  /** Lets others work on the target; what is finished stays. */
  @Override
  public void close() {
    try {
      lock.close();
    } catch (IOException e) {
      // The lock ends with the process at the latest.
    }
  }
}
