// SPDX-License-Identifier: Apache-2.0
package dev.nibble.model;

import dev.nibble.InvalidArgumentException;
import java.nio.file.InvalidPathException;
import java.nio.file.Path;
import java.util.Objects;
import java.util.Optional;
import java.util.function.Consumer;

/**
 * Whether and where a loaded model's packed weights are kept, so that the next load reads them
 * instead of quantizing and packing again.
 *
 * <p>One file a model and its weight formats, about as large as the weights in memory. It holds the
 * identity of the model's files, so that a model that changed is packed again and the file
 * replaced; every byte is under a checksum, so that a damaged file costs a warning and the time to
 * pack again, never wrong weights. It is written beside its place and published by rename: any
 * number of processes may load, write and replace it at once. A file that cannot be written (no
 * room, no permission) is not an error: the model loads without. Files that nobody loaded for 30
 * days are deleted when another is written; all of them may be deleted at any time.
 *
 * <p>Immutable.
 */
public final class PackedCache {
  /** System property for {@link #automatic}: a directory, or {@code off}. */
  public static final String PROPERTY = "nibble.packed.cache";

  /** Environment variable for {@link #automatic}, where the property is not set. */
  public static final String VARIABLE = "NIBBLE_PACKED_CACHE";

  private static final String OFF = "off";
  static final Consumer<String> LOG =
      text -> System.getLogger("dev.nibble").log(System.Logger.Level.WARNING, text);

  private final Path directory;
  private final boolean asked;
  private final Consumer<String> warnings;

  private PackedCache(Path directory, boolean asked, Consumer<String> warnings) {
    this.directory = directory;
    this.asked = asked;
    this.warnings = warnings;
  }

  /** No cache. */
  public static PackedCache off() {
    return new PackedCache(null, true, LOG);
  }

  /**
   * Keeps every model in a directory, which is made when it is missing. What cannot be written is
   * warned of.
   */
  public static PackedCache in(Path directory) {
    return new PackedCache(Objects.requireNonNull(directory, "directory"), true, LOG);
  }

  /**
   * The default: keeps models of some size that are quantized while they load in {@code
   * $XDG_CACHE_HOME/nibble/packed}, or {@code ~/.cache/nibble/packed}. A model directory that is
   * quantized already loads about as fast by itself, and is not kept a second time. What cannot
   * be written is not warned of. The system property {@value #PROPERTY} or the environment
   * variable {@value #VARIABLE} names another directory, for every model, or says {@code off}.
   */
  public static PackedCache automatic() {
    var setting = System.getProperty(PROPERTY, System.getenv(VARIABLE));
    if (setting != null && !setting.isEmpty()) {
      return parse(setting);
    }
    return new PackedCache(defaultDirectory(), false, LOG);
  }

  /**
   * What an option's text means: {@code off}, or a directory.
   *
   * @throws InvalidArgumentException if it cannot be a path
   */
  public static PackedCache parse(String text) {
    if (text.equals(OFF)) {
      return off();
    }
    try {
      return in(Path.of(text));
    } catch (InvalidPathException e) {
      throw new InvalidArgumentException(
          "packed cache: \"" + text + "\" given, expected a directory or " + OFF, e);
    }
  }

  private static Path defaultDirectory() {
    var base = System.getenv("XDG_CACHE_HOME");
    try {
      // The specification: a relative path is to be ignored.
      if (base != null && Path.of(base).isAbsolute()) {
        return Path.of(base, "nibble", "packed");
      }
      var home = Path.of(System.getProperty("user.home", ""));
      return home.isAbsolute() ? home.resolve(Path.of(".cache", "nibble", "packed")) : null;
    } catch (InvalidPathException e) {
      return null;
    }
  }

  /** This cache with a listener for warnings, each one line; by default they are logged. */
  public PackedCache withWarnings(Consumer<String> warnings) {
    return new PackedCache(directory, asked, Objects.requireNonNull(warnings, "warnings"));
  }

  /** Where the files are; nothing if there is no cache. */
  public Optional<Path> directory() {
    return Optional.ofNullable(directory);
  }

  /** Whether someone chose it: then every model is kept, and what goes wrong is said. */
  boolean asked() {
    return asked;
  }

  void warn(String text) {
    warnings.accept(text);
  }
}
