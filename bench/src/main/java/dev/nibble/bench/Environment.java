// SPDX-License-Identifier: Apache-2.0
package dev.nibble.bench;

import dev.nibble.tensor.NativeLibrary;
import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.time.ZoneOffset;
import java.time.ZonedDateTime;
import java.time.format.DateTimeFormatter;
import java.util.LinkedHashMap;
import java.util.Locale;
import java.util.Map;

/** The machine and the versions that a result belongs to. */
final class Environment {

  private Environment() {}

  /** Names and values, for people and for JSON. */
  static Map<String, Object> describe() {
    var map = new LinkedHashMap<String, Object>();
    map.put("date", ZonedDateTime.now(ZoneOffset.UTC).format(
        DateTimeFormatter.ofPattern("yyyy-MM-dd HH:mm 'UTC'", Locale.ROOT)));
    map.put("cpu", cpu());
    map.put("processors", Runtime.getRuntime().availableProcessors());
    map.put("threads", NativeLibrary.availableThreads());
    map.put("memory", memory());
    map.put("simd_target", NativeLibrary.simdTarget());
    map.put("nibble", NativeLibrary.version());
    map.put("abi", NativeLibrary.abiVersion());
    map.put("java", System.getProperty("java.vm.name") + " " + Runtime.version());
    map.put("system", System.getProperty("os.name") + " " + System.getProperty("os.version")
        + " " + System.getProperty("os.arch"));
    return map;
  }

  /** The processor's name, with what tells apart processors of one name. */
  static String cpu() {
    var fields = fields("/proc/cpuinfo");
    var name = fields.getOrDefault("model name", System.getProperty("os.arch"));
    var family = fields.get("cpu family");
    return family == null ? name : name + " (family " + family + ", model "
        + fields.getOrDefault("model", "?") + ", stepping " + fields.getOrDefault("stepping", "?")
        + ")";
  }

  private static String memory() {
    var total = fields("/proc/meminfo").getOrDefault("MemTotal", "0 kB").split(" ")[0];
    return String.format(Locale.ROOT, "%.1f GiB", Long.parseLong(total) / 1048576.0);
  }

  /** The "name : value" lines of a file of /proc up to its first empty line; none elsewhere. */
  private static Map<String, String> fields(String file) {
    var map = new LinkedHashMap<String, String>();
    try (var lines = Files.newBufferedReader(Path.of(file))) {
      for (var line = lines.readLine(); line != null && !line.isEmpty(); line = lines.readLine()) {
        int colon = line.indexOf(':');
        if (colon > 0) {
          map.put(line.substring(0, colon).strip(), line.substring(colon + 1).strip());
        }
      }
    } catch (IOException e) {
      // Not Linux: what the JVM knows has to do.
    }
    return map;
  }

  /** A name for a folder of results: the day, the processor, the threads. */
  static String resultName() {
    var cpu = fields("/proc/cpuinfo").getOrDefault("model name", System.getProperty("os.arch"))
        .replaceAll("\\((R|TM|r|tm)\\)", "").replaceAll("[^A-Za-z0-9]+", "-")
        .replaceAll("^-|-$", "").toLowerCase(Locale.ROOT);
    return ZonedDateTime.now(ZoneOffset.UTC).toLocalDate() + "-" + cpu + "-"
        + NativeLibrary.availableThreads() + "t";
  }
}
