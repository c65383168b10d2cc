// SPDX-License-Identifier: Apache-2.0
package dev.nibble.io;

import java.io.IOException;
import java.lang.foreign.MemorySegment;
import java.nio.ByteBuffer;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.attribute.BasicFileAttributes;
import java.security.MessageDigest;
import java.security.NoSuchAlgorithmException;
import java.util.Collection;

/**
 * Tells whether files of tensors are still the ones they were, without reading them whole.
 *
 * <p>A digest over, of each file: size, time of the last modification, and on Unix device, inode
 * and the time of the last change of the inode, which no program can set; the header as parsed;
 * and {@value #SAMPLES} blocks of {@value #SAMPLE_BYTES} bytes spread evenly from the first byte
 * to the last. A file that is written to, replaced, restored or copied changes at least one time
 * or the inode, whatever the new bytes are; should a file system keep none of these truthfully,
 * another model of the same size still differs in the samples. What goes unnoticed is a change of
 * a few bytes between the samples on a file system that does not record changes.
 */
final class Fingerprint {
  private static final int SAMPLES = 64;
  private static final int SAMPLE_BYTES = 4096;

  private final MessageDigest digest;

  private Fingerprint() {
    try {
      digest = MessageDigest.getInstance("SHA-256");
    } catch (NoSuchAlgorithmException e) {
      throw new AssertionError("every Java platform has SHA-256", e);
    }
  }

  /**
   * The digest, 32 bytes.
   *
   * @throws dev.nibble.ModelFormatException if a file cannot be read
   */
  static byte[] of(Collection<TensorInfo> tensors, Collection<ByteSource.File> files) {
    var fingerprint = new Fingerprint();
    for (var tensor : tensors) {
      fingerprint.add(tensor + " " + tensor.file() + " " + tensor.offset());
    }
    for (var file : files) {
      fingerprint.add(file);
    }
    return fingerprint.digest.digest();
  }

  private void add(ByteSource.File file) {
    try {
      var attributes = Files.readAttributes(file.path(), BasicFileAttributes.class);
      add(file.size() + " " + attributes.size() + " " + attributes.lastModifiedTime() + " "
          + attributes.fileKey() + " " + inodeTime(file));
    } catch (IOException e) {
      throw Problem.reading(file.name(), e);
    }
    var block = new byte[(int) Math.min(SAMPLE_BYTES, file.size())];
    for (int i = 0; i < SAMPLES; i++) {
      long last = file.size() - block.length;
      file.read(last / (SAMPLES - 1) * i + last % (SAMPLES - 1) * i / (SAMPLES - 1),
          MemorySegment.ofArray(block));
      digest.update(block);
    }
  }

  private static String inodeTime(ByteSource.File file) {
    try {
      return String.valueOf(Files.getAttribute(file.path(), "unix:ctime"));
    } catch (IOException | UnsupportedOperationException | IllegalArgumentException e) {
      return "";
    }
  }

  private void add(String text) {
    var bytes = text.getBytes(StandardCharsets.UTF_8);
    // The length first, so that no two lists of texts run into the same bytes.
    digest.update(ByteBuffer.allocate(4).putInt(0, bytes.length));
    digest.update(bytes);
  }
}
