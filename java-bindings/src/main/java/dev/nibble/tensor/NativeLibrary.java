// SPDX-License-Identifier: Apache-2.0
package dev.nibble.tensor;

import dev.nibble.DeviceException;
import dev.nibble.NibbleException;
import dev.nibble.UnsupportedException;
import dev.nibble.ffi.nibble_h;
import java.lang.foreign.Arena;
import java.nio.file.Path;
import java.util.List;
import java.util.Optional;

/**
 * Loads libnibble once a process, and tells about it.
 *
 * <p>The file named by the system property {@value #PATH_PROPERTY}, else by the environment
 * variable {@value #PATH_VARIABLE}, is loaded as it is. Without either, the library in the jar for
 * this system is unpacked into a private directory (mode 0700, under {@code java.io.tmpdir}), its
 * SHA-256 checked, loaded, and its file removed.
 *
 * <p>All methods load the library if need be and are thread-safe. They throw {@link
 * UnsupportedException} naming the property and the variable if there is no usable library.
 */
public final class NativeLibrary {
  /** The system property that names the library's file. */
  public static final String PATH_PROPERTY = "nibble.library.path";

  /** The environment variable that names the library's file. */
  public static final String PATH_VARIABLE = "NIBBLE_LIBRARY";

  private static final int LINE_BYTES = 1024; // more than any line needs

  private static volatile boolean loaded;
  private static NibbleException failure;
  private static String origin;
  private static boolean fromJar;
  private static boolean cudaPrepared;

  private NativeLibrary() {}

  /** Loads the library; later calls do nothing, or throw again what the first one threw. */
  public static void load() {
    if (!loaded) {
      loadOnce();
    }
  }

  /** Where the library came from: a path, or the jar entry it was unpacked from. */
  public static String origin() {
    load();
    return origin;
  }

  /** MAJOR.MINOR.PATCH of the library. */
  public static String version() {
    load();
    return nibble_h.nb_version().getString(0);
  }

  /** The version of the native interface. */
  public static int abiVersion() {
    load();
    return nibble_h.nb_abi_version();
  }

  /** The SIMD target in use, for example {@code AVX3_DL}. */
  public static String simdTarget() {
    load();
    return nibble_h.nb_simd_target().getString(0);
  }

  /** The SIMD targets that this build and this CPU can run, best first. */
  public static List<String> simdTargets() {
    load();
    try (var arena = Arena.ofConfined()) {
      var buffer = arena.allocate(1024);
      Status.check(nibble_h.nb_simd_targets(buffer, buffer.byteSize()));
      return List.of(buffer.getString(0).split(" "));
    }
  }

  /** The threads that this process may use: CPU affinity and cgroup quota considered. */
  public static int availableThreads() {
    load();
    return nibble_h.nb_available_threads();
  }

  /**
   * Loads the library and, for a CUDA device, has it open the plug-in of the jar. To be called
   * before a device's name is passed to the library.
   */
  static void prepareDevice(String device) {
    load();
    if (device.startsWith("cuda")) {
      openCudaPlugin();
    }
  }

  private static synchronized void openCudaPlugin() {
    // A library with a file of its own has the plug-in beside it.
    if (fromJar && !cudaPrepared) {
      BundledLibrary.openCudaPlugin();
      cudaPrepared = true;
    }
  }

  /** Why device ({@code cpu}, {@code cuda:0}) cannot be used; empty if it can. */
  public static Optional<String> deviceProblem(String device) {
    prepareDevice(device);
    try (var arena = Arena.ofConfined()) {
      Status.check(nibble_h.nb_device_status(arena.allocateFrom(device)));
      return Optional.empty();
    } catch (UnsupportedException | DeviceException e) {
      return Optional.of(e.getMessage());
    }
  }

  /**
   * The GPU generations that the CUDA plug-in has kernels for, for example {@code sm_89}; empty
   * where this build has no plug-in. Needs no driver.
   */
  public static List<String> cudaTargets() {
    load();
    try (var arena = Arena.ofConfined()) {
      prepareDevice("cuda:0");
      var buffer = arena.allocate(LINE_BYTES);
      Status.check(nibble_h.nb_cuda_targets(buffer, buffer.byteSize()));
      return List.of(buffer.getString(0).split(" "));
    } catch (UnsupportedException e) {
      return List.of();
    }
  }

  /**
   * One line about a device that can be used: its name and size.
   *
   * @throws UnsupportedException if it cannot be used, with the reason
   */
  public static String describeDevice(String device) {
    load();
    prepareDevice(device);
    try (var arena = Arena.ofConfined()) {
      var buffer = arena.allocate(LINE_BYTES);
      Status.check(
          nibble_h.nb_device_describe(arena.allocateFrom(device), buffer, buffer.byteSize()));
      return buffer.getString(0);
    }
  }

  private static synchronized void loadOnce() {
    if (loaded) {
      return;
    }
    if (failure != null) {
      throw failure;
    }
    try {
      String property = System.getProperty(PATH_PROPERTY);
      String variable = System.getenv(PATH_VARIABLE);
      if (property != null && !property.isEmpty()) {
        loadFile(Path.of(property), "system property " + PATH_PROPERTY);
      } else if (variable != null && !variable.isEmpty()) {
        loadFile(Path.of(variable), "environment variable " + PATH_VARIABLE);
      } else {
        origin = BundledLibrary.load();
        fromJar = true;
      }
      int version = nibble_h.nb_abi_version();
      if (version != nibble_h.NB_ABI_VERSION()) {
        throw new UnsupportedException(origin + ": its ABI version is " + version
            + ", but this Nibble needs " + nibble_h.NB_ABI_VERSION() + "; " + howToSet());
      }
      Status.warmUp();
      loaded = true;
    } catch (NibbleException e) {
      failure = e;
      throw e;
    } catch (UnsatisfiedLinkError | ExceptionInInitializerError | IllegalArgumentException e) {
      failure = new UnsupportedException("libnibble cannot be loaded: " + e.getMessage() + "; "
          + howToSet(), e);
      throw failure;
    }
  }

  private static void loadFile(Path file, String source) {
    var absolute = file.toAbsolutePath();
    if (!absolute.toFile().isFile()) {
      throw new UnsupportedException(source + ": " + absolute
          + " is not a file, expected the path of libnibble.so itself");
    }
    try {
      System.load(absolute.toString());
    } catch (UnsatisfiedLinkError e) {
      throw new UnsupportedException(source + ": " + e.getMessage(), e);
    }
    origin = absolute.toString();
  }

  static String howToSet() {
    return "set the system property " + PATH_PROPERTY + " or the environment variable "
        + PATH_VARIABLE + " to the path of libnibble.so";
  }
}
