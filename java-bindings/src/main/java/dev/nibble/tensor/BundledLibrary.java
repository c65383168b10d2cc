// SPDX-License-Identifier: Apache-2.0
package dev.nibble.tensor;

import dev.nibble.UnsupportedException;
import dev.nibble.ffi.nibble_h;
import java.io.IOException;
import java.lang.foreign.Arena;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.nio.file.attribute.FileAttribute;
import java.nio.file.attribute.PosixFilePermissions;
import java.security.MessageDigest;
import java.security.NoSuchAlgorithmException;
import java.util.HexFormat;
import java.util.Locale;

/**
 * The libraries that travel in the jar: {@code META-INF/native/<os>-<arch>/libnibble.so} and, in a
 * build with CUDA, {@code libnibble_cuda.so}, each with its {@code .sha256} beside it.
 */
final class BundledLibrary {
  private static final String FILE = "libnibble.so";
  private static final String CUDA_FILE = "libnibble_cuda.so";

  /** Loads an unpacked library, whose file goes away afterwards. */
  private interface Loader {
    void load(Path file) throws IOException;
  }

  private BundledLibrary() {}

  /** Unpacks, checks and loads the library for this system; returns the name of its entry. */
  static String load() {
    String entry = entry(FILE);
    byte[] library = read(entry);
    byte[] expected = read(entry + ".sha256");
    if (library == null || expected == null) {
      throw new UnsupportedException("no native library for " + platform() + " in the jar ("
          + entry + (library == null ? "" : ".sha256") + " is missing); "
          + NativeLibrary.howToSet());
    }
    checkSum(entry, library, new String(expected, StandardCharsets.US_ASCII));
    unpackAndLoad(FILE, library, file -> System.load(file.toString()));
    return entry;
  }

  /**
   * Unpacks and checks the CUDA plug-in, and has libnibble open it. Where the jar has none,
   * nothing happens: libnibble itself then says so. It is larger than libnibble and of use to few,
   * hence apart and not before it is asked for.
   */
  static void openCudaPlugin() {
    String entry = entry(CUDA_FILE);
    byte[] library = read(entry);
    byte[] expected = read(entry + ".sha256");
    if (library == null || expected == null) {
      return;
    }
    checkSum(entry, library, new String(expected, StandardCharsets.US_ASCII));
    unpackAndLoad(CUDA_FILE, library, file -> {
      try (var arena = Arena.ofConfined()) {
        Status.check(nibble_h.nb_cuda_open(arena.allocateFrom(file.toString())));
      }
    });
  }

  private static String entry(String file) {
    return "META-INF/native/" + platform() + "/" + file;
  }

  /** This system as the build names it: {@code linux-x86_64}. */
  static String platform() {
    String os = System.getProperty("os.name").toLowerCase(Locale.ROOT);
    String arch = System.getProperty("os.arch").toLowerCase(Locale.ROOT);
    String osName = os.startsWith("mac") ? "darwin" : os.startsWith("win") ? "windows" : os;
    String archName = switch (arch) {
      case "amd64", "x86_64", "x64" -> "x86_64";
      case "arm64", "aarch64" -> "aarch64";
      default -> arch;
    };
    return osName + "-" + archName;
  }

  /** Compares the digest of library with the first word of a {@code sha256sum} line. */
  static void checkSum(String entry, byte[] library, String line) {
    String expected = line.strip().split("\\s+", 2)[0].toLowerCase(Locale.ROOT);
    String actual;
    try {
      actual = HexFormat.of().formatHex(MessageDigest.getInstance("SHA-256").digest(library));
    } catch (NoSuchAlgorithmException e) {
      throw new AssertionError("every Java platform has SHA-256", e);
    }
    if (!actual.equals(expected)) {
      throw new UnsupportedException(entry + ": SHA-256 is " + actual + ", but " + entry
          + ".sha256 says " + expected + "; the jar is damaged, or " + NativeLibrary.howToSet());
    }
  }

  private static void unpackAndLoad(String name, byte[] library, Loader loader) {
    try {
      Path directory = Files.createTempDirectory("nibble-", ownerOnly());
      Path file = directory.resolve(name);
      try {
        Files.write(file, library);
        loader.load(file);
      } finally {
        // A loaded library no longer needs its name on POSIX systems; elsewhere the JVM's exit
        // removes it.
        if (!file.toFile().delete()) {
          directory.toFile().deleteOnExit();
          file.toFile().deleteOnExit();
        } else if (!directory.toFile().delete()) {
          directory.toFile().deleteOnExit();
        }
      }
    } catch (IOException | UnsatisfiedLinkError e) {
      throw new UnsupportedException("the native library cannot be unpacked to and loaded from "
          + System.getProperty("java.io.tmpdir") + ": " + e.getMessage()
          + "; set -Djava.io.tmpdir to a directory where programs may run, or "
          + NativeLibrary.howToSet(), e);
    }
  }

  private static FileAttribute<?>[] ownerOnly() {
    boolean posix =
        Path.of("").getFileSystem().supportedFileAttributeViews().contains("posix");
    return posix
        ? new FileAttribute<?>[] {
          PosixFilePermissions.asFileAttribute(PosixFilePermissions.fromString("rwx------"))
        }
        : new FileAttribute<?>[0];
  }

  private static byte[] read(String entry) {
    try (var in = BundledLibrary.class.getClassLoader().getResourceAsStream(entry)) {
      return in == null ? null : in.readAllBytes();
    } catch (IOException e) {
      throw new UnsupportedException(entry + ": cannot be read from the jar: " + e.getMessage()
          + "; " + NativeLibrary.howToSet(), e);
    }
  }
}
