// SPDX-License-Identifier: Apache-2.0
package dev.nibble.quantize;

import dev.nibble.InvalidArgumentException;
import dev.nibble.NibbleException;
import dev.nibble.io.CheckpointNames;
import dev.nibble.io.ModelSource;
import java.io.IOException;
import java.nio.file.AccessDeniedException;
import java.nio.file.FileAlreadyExistsException;
import java.nio.file.FileSystemException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.nio.file.attribute.PosixFileAttributeView;
import java.util.List;

/**
 * A model directory in the making: written under a temporary name beside the target and published
 * by rename, so that the target is whole or not there, and an interrupted run leaves nothing.
 */
final class OutputDirectory {

  /** Files of a model that the quantized one takes over, where they exist. */
  private static final List<String> COPIED = List.of(CheckpointNames.TOKENIZER,
      "tokenizer_config.json", "special_tokens_map.json", "generation_config.json");

  /** Fills a directory. */
  @FunctionalInterface
  interface Body {
    void write(Path temporary) throws IOException;
  }

  private OutputDirectory() {}

  /**
   * Checks that out can be made.
   *
   * @throws InvalidArgumentException if it exists and is not an empty directory
   */
  static void requireFree(Path out) {
    if (!Files.exists(out)) {
      return;
    }
    if (!Files.isDirectory(out)) {
      throw new InvalidArgumentException(out + ": is a file, expected a directory to make");
    }
    try (var files = Files.newDirectoryStream(out)) {
      if (files.iterator().hasNext()) {
        throw new InvalidArgumentException(
            out + ": is not empty, expected a directory that does not exist yet");
      }
    } catch (IOException e) {
      throw new NibbleException(out + ": cannot be read: " + e, e);
    }
  }

  /** That a file or directory cannot be written, and the system's reason in words. */
  static NibbleException unwritable(Path path, IOException cause) {
    var reason = switch (cause) {
      case AccessDeniedException e -> "permission denied";
      case FileAlreadyExistsException e -> "already exists";
      case FileSystemException e when e.getReason() != null -> e.getReason();
      default -> String.valueOf(cause.getMessage());
    };
    return new NibbleException(path + ": cannot be written: " + reason, cause);
  }

  /**
   * Lets body fill a directory, adds the files that every copy of in has, and publishes it.
   *
   * @throws NibbleException if something cannot be written, naming it as if it were in out already
   */
  static void make(ModelSource in, Path out, Body body) throws IOException {
    Files.createDirectories(out.getParent());
    var temporary = Files.createTempDirectory(out.getParent(), "." + out.getFileName() + ".");
    // Ctrl-C ends the JVM without unwinding this thread.
    var cleaner = new Thread(() -> deleteAll(temporary));
    Runtime.getRuntime().addShutdownHook(cleaner);
    try {
      body.write(temporary);
      for (var file : COPIED) {
        if (in.has(file)) {
          Files.write(temporary.resolve(file), in.read(file));
        }
      }
      publish(temporary, out);
    } catch (NibbleException e) {
      if (e.getClass() != NibbleException.class || !e.getMessage().startsWith(temporary + "/")) {
        throw e;
      }
      throw new NibbleException(out + e.getMessage().substring(temporary.toString().length()), e);
    } finally {
      deleteAll(temporary);
      try {
        Runtime.getRuntime().removeShutdownHook(cleaner);
      } catch (IllegalStateException e) {
        // The JVM is going down, and the hook runs.
      }
    }
  }

  /** A temporary directory is for its owner alone; the result is as readable as any new one. */
  private static void publish(Path temporary, Path out) throws IOException {
    boolean existed = Files.exists(out);
    if (!existed) {
      Files.createDirectory(out);
    }
    // Not by the file store, which cannot be looked up in every container.
    var source = Files.getFileAttributeView(out, PosixFileAttributeView.class);
    var target = Files.getFileAttributeView(temporary, PosixFileAttributeView.class);
    if (source != null && target != null) {
      target.setPermissions(source.readAttributes().permissions());
    }
    Files.delete(out);
    Files.move(temporary, out);
  }

  /** Deletes a directory of files, as far as it is there. */
  static void deleteAll(Path directory) {
    try (var files = Files.newDirectoryStream(directory)) {
      for (var file : files) {
        Files.deleteIfExists(file);
      }
      Files.deleteIfExists(directory);
    } catch (IOException e) {
      // Already published, or already gone.
    }
  }
}
