// SPDX-License-Identifier: Apache-2.0
package dev.nibble.io;

import dev.nibble.ModelFormatException;
import java.io.IOException;
import java.lang.foreign.MemorySegment;
import java.nio.ByteBuffer;
import java.nio.channels.FileChannel;
import java.nio.file.Files;
import java.nio.file.Path;
import java.nio.file.StandardOpenOption;
import java.util.ArrayList;
import java.util.Queue;
import java.util.concurrent.ConcurrentLinkedQueue;

/**
 * Bytes at positions: of a file, or already in memory. A file is read, never mapped: when someone
 * truncates a mapped file, the process dies of SIGBUS, while a read ends short and can be reported.
 * Reads are positional, so that any number of threads may read at once.
 */
sealed interface ByteSource extends AutoCloseable {

  /** Where the bytes come from, for messages. */
  String name();

  /** Number of bytes when the source was opened. */
  long size();

  /**
   * Fills {@code destination} with the bytes from {@code position} on.
   *
   * @throws ModelFormatException if the source ends before that, or cannot be read
   */
  void read(long position, MemorySegment destination);

  @Override
  void close();

  /**
   * Opens a regular file; symbolic links are followed.
   *
   * @throws ModelFormatException if there is no such file, it is not a regular file, or it cannot
   *     be read
   */
  static ByteSource file(Path path) {
    var name = Problem.printable(path.toString());
    try {
      // Opening a FIFO would wait for a writer for ever.
      if (Files.exists(path) && !Files.isRegularFile(path)) {
        throw Problem.in(name, "is "
            + (Files.isDirectory(path) ? "a directory" : "not a regular file")
            + ", expected a file");
      }
      var channel = FileChannel.open(path, StandardOpenOption.READ);
      return new File(name, path, channel, channel.size());
    } catch (IOException e) {
      throw Problem.reading(name, e);
    }
  }

  /** A file, read with {@code pread}. */
  record File(String name, Path path, FileChannel channel, long size) implements ByteSource {

    /** One read into heap memory, which the JDK copies through a direct buffer of this size. */
    private static final int CHUNK = 1 << 20;
    private static final int DIRECT_CHUNK = 1 << 30;

    /** From this size on several threads read: one copies at a fraction of memory's speed. */
    private static final long PARALLEL = 16 << 20;
    private static final int MAX_THREADS = 4;

    @Override
    public void read(long position, MemorySegment destination) {
      int parts = Math.min(MAX_THREADS, Runtime.getRuntime().availableProcessors());
      long total = destination.byteSize();
      if (parts == 1 || total < PARALLEL || !isShared(destination)) {
        readAlone(position, destination);
        return;
      }
      var failures = new ConcurrentLinkedQueue<RuntimeException>();
      var threads = new ArrayList<Thread>();
      for (int i = 1; i < parts; i++) {
        int part = i;
        threads.add(Thread.ofPlatform().name("nibble-read-" + i).daemon()
            .start(() -> readPart(position, destination, part, parts, failures)));
      }
      readPart(position, destination, 0, parts, failures);
      boolean interrupted = false;
      for (var thread : threads) {
        while (thread.isAlive()) {
          try {
            thread.join();
          } catch (InterruptedException e) {
            interrupted = true;
          }
        }
      }
      if (interrupted) {
        Thread.currentThread().interrupt();
      }
      if (!failures.isEmpty()) {
        throw failures.peek();
      }
    }

    /** Whether other threads may write there: not into memory of a confined arena. */
    private static boolean isShared(MemorySegment destination) {
      return destination.isNative()
          && destination.isAccessibleBy(Thread.ofPlatform().unstarted(() -> {}));
    }

    private void readPart(long position, MemorySegment destination, int part, int parts,
        Queue<RuntimeException> failures) {
      long each = Math.ceilDiv(destination.byteSize(), parts);
      long begin = part * each;
      try {
        readAlone(position + begin,
            destination.asSlice(begin, Math.min(each, destination.byteSize() - begin)));
      } catch (RuntimeException e) {
        failures.add(e);
      }
    }

    private void readAlone(long position, MemorySegment destination) {
      long total = destination.byteSize();
      boolean direct = destination.isNative();
      // Only byte arrays and native memory can be seen as a buffer; other arrays get copies.
      var bounce = direct || destination.heapBase().orElse(null) instanceof byte[]
          ? null : MemorySegment.ofArray(new byte[(int) Math.min(CHUNK, total)]);
      for (long done = 0; done < total; ) {
        long count = Math.min(direct ? DIRECT_CHUNK : CHUNK, total - done);
        var part = destination.asSlice(done, count);
        if (bounce == null) {
          readChunk(position + done, part.asByteBuffer());
        } else {
          readChunk(position + done, bounce.asSlice(0, count).asByteBuffer());
          MemorySegment.copy(bounce, 0, part, 0, count);
        }
        done += count;
      }
    }

    private void readChunk(long position, ByteBuffer buffer) {
      try {
        while (buffer.hasRemaining()) {
          long at = position + buffer.position();
          if (channel.read(buffer, at) <= 0) {
            throw Problem.in(name, "ends at byte " + at + ", expected " + buffer.remaining()
                + " more (truncated while it was read?)");
          }
        }
      } catch (IOException e) {
        throw Problem.reading(name, e);
      }
    }

    @Override
    public void close() {
      try {
        channel.close();
      } catch (IOException e) {
        throw Problem.reading(name, e);
      }
    }
  }

  /** Bytes in memory. */
  record Memory(String name, MemorySegment bytes) implements ByteSource {

    @Override
    public long size() {
      return bytes.byteSize();
    }

    @Override
    public void read(long position, MemorySegment destination) {
      MemorySegment.copy(bytes, position, destination, 0, destination.byteSize());
    }

    @Override
    public void close() {}
  }
}
