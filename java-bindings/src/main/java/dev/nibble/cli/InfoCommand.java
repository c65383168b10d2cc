// SPDX-License-Identifier: Apache-2.0
package dev.nibble.cli;

import dev.nibble.io.Json;
import dev.nibble.tensor.NativeLibrary;
import java.nio.charset.StandardCharsets;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.concurrent.Callable;
import picocli.CommandLine.Command;
import picocli.CommandLine.Mixin;
import picocli.CommandLine.Option;

/** {@code nibble info}. */
@Command(name = "info", sortOptions = false,
    description = "Show the version, the CPU, the kernels chosen for it and the state of CUDA.")
final class InfoCommand implements Callable<Integer> {

  private static final String FIRST_DEVICE = "cuda:0";

  private final Streams streams;

  @Option(names = "--json", description = "Print JSON.")
  private boolean json;

  @Mixin
  private CommonOptions common;

  InfoCommand(Streams streams) {
    this.streams = streams;
  }

  /** The version of the jar where its manifest tells, else of the native library. */
  static String version() {
    var version = InfoCommand.class.getPackage().getImplementationVersion();
    return version != null ? version : NativeLibrary.version();
  }

  @Override
  public Integer call() {
    var machine = Machine.detect();
    var cuda = Cuda.detect();
    var out = streams.out();
    if (json) {
      var info = new LinkedHashMap<String, Object>();
      info.put("version", version());
      info.put("native_version", NativeLibrary.version());
      info.put("abi_version", NativeLibrary.abiVersion());
      info.put("library", NativeLibrary.origin());
      info.put("cpu", machine.cpu());
      info.put("cpu_features", machine.features());
      info.put("simd_target", NativeLibrary.simdTarget());
      info.put("simd_targets", NativeLibrary.simdTargets());
      info.put("threads", NativeLibrary.availableThreads());
      info.put("java_version", Runtime.version().toString());
      info.put("java_vm", System.getProperty("java.vm.name"));
      info.put("os", os());
      info.put("cuda", cuda.toMap());
      out.print(new String(Json.write(info), StandardCharsets.UTF_8));
      return Main.OK;
    }
    out.println("Nibble        " + version() + " (native library " + NativeLibrary.version()
        + ", ABI " + NativeLibrary.abiVersion() + ")");
    out.println("Library       " + NativeLibrary.origin());
    out.println("CPU           " + machine.cpu());
    out.println("CPU features  " + String.join(" ", machine.features()));
    out.println("SIMD target   " + NativeLibrary.simdTarget() + " (of "
        + String.join(" ", NativeLibrary.simdTargets()) + ")");
    out.println("Threads       " + NativeLibrary.availableThreads());
    out.println("Java          " + Runtime.version() + " (" + System.getProperty("java.vm.name")
        + ")");
    out.println("System        " + os());
    out.println("CUDA plug-in  " + cuda.plugin());
    out.println("CUDA          " + cuda.state());
    return Main.OK;
  }

  /**
   * The CUDA half.
   *
   * @param targets what the plug-in's kernels are compiled for; empty without a plug-in
   * @param problem why there is no device, or null; it says too why there is no plug-in
   * @param device the first device in words, or null
   */
  private record Cuda(List<String> targets, String problem, String device) {

    static Cuda detect() {
      var targets = NativeLibrary.cudaTargets();
      var problem = NativeLibrary.deviceProblem(FIRST_DEVICE).orElse(null);
      var device = problem == null ? NativeLibrary.describeDevice(FIRST_DEVICE) : null;
      return new Cuda(targets, problem, device);
    }

    String plugin() {
      return targets.isEmpty() ? "not built" : "built for " + String.join(" ", targets);
    }

    String state() {
      return problem == null ? "available: " + device : "not available: " + problem;
    }

    Map<String, Object> toMap() {
      var map = new LinkedHashMap<String, Object>();
      map.put("plugin", !targets.isEmpty());
      map.put("targets", targets);
      map.put("available", problem == null);
      map.put("reason", problem);
      map.put("device", device);
      return map;
    }
  }

  private static String os() {
    return System.getProperty("os.name") + " " + System.getProperty("os.version") + " "
        + System.getProperty("os.arch");
  }
}
