// SPDX-License-Identifier: Apache-2.0
package dev.nibble.cli;

import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.List;
import java.util.Set;

/**
 * The processor, as the operating system describes it.
 *
 * @param cpu its name, or the architecture where the system does not tell
 * @param features the instruction sets that matter to the kernels, in the system's spelling
 */
record Machine(String cpu, List<String> features) {

  private static final Set<String> RELEVANT = Set.of(
      "sse2", "ssse3", "sse4_1", "sse4_2", "avx", "avx2", "fma", "f16c", "avx_vnni",
      "avx_vnni_int8", "avx512f", "avx512bw", "avx512vl", "avx512dq", "avx512cd", "avx512vbmi",
      "avx512_vbmi2", "avx512_vnni", "avx512_bitalg", "avx512_vpopcntdq", "avx512_bf16",
      "avx512_fp16", "amx_tile", "amx_int8", "amx_bf16", "gfni", "vaes", "vpclmulqdq",
      "asimd", "asimdhp", "asimddp", "sve", "sve2", "i8mm", "bf16", "svei8mm", "svebf16", "sme");

  static Machine detect() {
    var name = System.getProperty("os.arch");
    var features = new ArrayList<String>();
    try (var lines = Files.newBufferedReader(Path.of("/proc/cpuinfo"))) {
      for (var line = lines.readLine(); line != null && !line.isEmpty(); line = lines.readLine()) {
        int colon = line.indexOf(':');
        if (colon < 0) {
          continue;
        }
        var value = line.substring(colon + 1).strip();
        switch (line.substring(0, colon).strip()) {
          case "model name" -> name = value;
          case "flags", "Features" -> {
            for (var flag : value.split(" ")) {
              if (RELEVANT.contains(flag)) {
                features.add(flag);
              }
            }
          }
          default -> { }
        }
      }
    } catch (IOException e) {
      // Not Linux: the architecture has to do.
    }
    return new Machine(name, features);
  }
}
