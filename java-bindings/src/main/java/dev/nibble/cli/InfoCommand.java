// SPDX-License-Identifier: Apache-2.0
package dev.nibble.cli;

import dev.nibble.io.Json;
import dev.nibble.tensor.NativeLibrary;
import java.nio.charset.StandardCharsets;
import java.util.LinkedHashMap;
import java.util.concurrent.Callable;
import picocli.CommandLine.Command;
import picocli.CommandLine.Mixin;
import picocli.CommandLine.Option;

/** {@code nibble info}. */
@Command(name = "info", sortOptions = false,
    description = "Show the version, the CPU, the kernels chosen for it and the state of CUDA.")
final class InfoCommand implements Callable<Integer> {

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
    var cudaProblem = NativeLibrary.deviceProblem("cuda:0");
    var out = streams.out();
    if (json) {
      var cuda = new LinkedHashMap<String, Object>();
      cuda.put("available", cudaProblem.isEmpty());
      cuda.put("reason", cudaProblem.orElse(null));
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
      info.put("cuda", cuda);
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
    out.println("CUDA          "
        + cudaProblem.map(reason -> "not available: " + reason).orElse("available"));
    return Main.OK;
  }

  private static String os() {
    return System.getProperty("os.name") + " " + System.getProperty("os.version") + " "
        + System.getProperty("os.arch");
  }
}
