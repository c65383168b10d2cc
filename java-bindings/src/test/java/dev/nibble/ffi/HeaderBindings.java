// SPDX-License-Identifier: Apache-2.0
package dev.nibble.ffi;

import java.io.IOException;
import java.lang.foreign.FunctionDescriptor;
import java.lang.foreign.MemoryLayout;
import java.lang.foreign.MemoryLayout.PathElement;
import java.lang.foreign.MemorySegment;
import java.lang.invoke.MethodType;
import java.lang.reflect.Method;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.Set;
import java.util.TreeSet;
import java.util.concurrent.TimeUnit;
import java.util.stream.Collectors;

/** Compares the text of a {@code nibble.h} with the bindings in this package. */
final class HeaderBindings {

  private HeaderBindings() {}

  /**
   * Everything in which the header and the bindings disagree, a line each; empty if nothing.
   * Constants, sizes and offsets are the C compiler's, from a program compiled in {@code work}.
   */
  static List<String> differences(String header, Path work)
      throws IOException, InterruptedException {
    var parsed = CHeader.parse(header);
    var values = compileAndRun(parsed, header, work);
    var differences = new ArrayList<String>();
    compareConstants(parsed, values, differences);
    compareFunctions(parsed, differences);
    compareStructs(parsed, values, differences);
    return differences;
  }

  private static void compareConstants(
      CHeader header, Map<String, Long> values, List<String> differences) {
    compareNames("constant", header.constants(), methodNames("NB_"), differences);
    for (var name : header.constants()) {
      var method = method(nibble_h.class, name);
      if (method != null) {
        var bound = ((Number) call(method)).longValue();
        compare("value of " + name, values.get(name), bound, differences);
      }
    }
  }

  private static void compareFunctions(CHeader header, List<String> differences) {
    compareNames("function", header.functions().keySet(), methodNames("nb_"), differences);
    header
        .functions()
        .forEach(
            (name, function) -> {
              var method = method(nibble_h.class, name);
              if (method == null) {
                return;
              }
              var expected =
                  MethodType.methodType(
                      carrier(function.returnType()),
                      function.parameterTypes().stream()
                          .<Class<?>>map(HeaderBindings::carrier)
                          .toList());
              var actual =
                  MethodType.methodType(method.getReturnType(), method.getParameterTypes());
              compare("type of " + name, expected, actual, differences);
              var descriptor =
                  (FunctionDescriptor) call(method(nibble_h.class, name + "$descriptor"));
              compare("descriptor of " + name, expected, descriptor.toMethodType(), differences);
            });
  }

  private static void compareStructs(
      CHeader header, Map<String, Long> values, List<String> differences) {
    header
        .structs()
        .forEach(
            (name, members) -> {
              Class<?> struct;
              try {
                struct = Class.forName(HeaderBindings.class.getPackageName() + "." + name);
              } catch (ClassNotFoundException e) {
                differences.add("struct " + name + " is not in the bindings");
                return;
              }
              var layout = (MemoryLayout) call(method(struct, "layout"));
              compare("size of " + name, values.get(name), layout.byteSize(), differences);
              var bound =
                  Arrays.stream(struct.getMethods())
                      .map(Method::getName)
                      .filter(method -> method.endsWith("$offset"))
                      .map(method -> method.substring(0, method.lastIndexOf('$')))
                      .collect(Collectors.toCollection(TreeSet::new));
              compareNames("member of " + name, Set.copyOf(members), bound, differences);
              for (var member : members) {
                if (bound.contains(member)) {
                  var path = name + "." + member;
                  var element = PathElement.groupElement(member);
                  compare("offset of " + path, values.get(path),
                      layout.byteOffset(element), differences);
                  compare("accessor's offset of " + path, values.get(path),
                      call(method(struct, member + "$offset")), differences);
                  compare("size of " + path, values.get(path + ".size"),
                      layout.select(element).byteSize(), differences);
                }
              }
            });
  }

  private static Class<?> carrier(String type) {
    if (type.endsWith("*")) {
      return MemorySegment.class;
    }
    return switch (type) {
      case "int32_t", "nb_status", "nb_dtype" -> int.class;
      case "int64_t" -> long.class;
      case "float" -> float.class;
      case "double" -> double.class;
      case "void" -> void.class;
      default -> throw new IllegalArgumentException("nibble.h: not a type of the ABI: " + type);
    };
  }

  /** Compiles and runs the header's layout program; the printed numbers by name. */
  private static Map<String, Long> compileAndRun(CHeader parsed, String header, Path work)
      throws IOException, InterruptedException {
    Files.writeString(work.resolve("header.h"), header);
    Files.writeString(work.resolve("layout.c"), parsed.layoutProgram("header.h"));
    var compiler = System.getenv().getOrDefault("CC", "cc");
    run(work, compiler, "-std=c99", "-o", "layout", "layout.c");
    var values = new HashMap<String, Long>();
    for (var line : run(work, work.resolve("layout").toString()).lines().toList()) {
      var words = line.split(" ");
      values.put(words[0], Long.valueOf(words[1]));
    }
    return values;
  }

  private static String run(Path directory, String... command)
      throws IOException, InterruptedException {
    var process =
        new ProcessBuilder(command)
            .directory(directory.toFile())
            .redirectErrorStream(true)
            .start();
    var output = new String(process.getInputStream().readAllBytes());
    if (!process.waitFor(60, TimeUnit.SECONDS) || process.exitValue() != 0) {
      throw new IOException(String.join(" ", command) + " failed:\n" + output);
    }
    return output;
  }

  /** The names of the header class's methods that begin with prefix, companions left out. */
  private static Set<String> methodNames(String prefix) {
    return Arrays.stream(nibble_h.class.getMethods())
        .map(Method::getName)
        .filter(name -> name.startsWith(prefix) && !name.contains("$"))
        .collect(Collectors.toCollection(TreeSet::new));
  }

  private static Method method(Class<?> type, String name) {
    return Arrays.stream(type.getMethods())
        .filter(method -> method.getName().equals(name))
        .findFirst()
        .orElse(null);
  }

  private static Object call(Method method, Object... arguments) {
    try {
      return method.invoke(null, arguments);
    } catch (ReflectiveOperationException e) {
      throw new AssertionError(method.toString(), e);
    }
  }

  private static void compareNames(
      String what, Set<String> header, Set<String> bound, List<String> differences) {
    for (var name : new TreeSet<>(header)) {
      if (!bound.contains(name)) {
        differences.add(what + " " + name + " is not in the bindings");
      }
    }
    for (var name : new TreeSet<>(bound)) {
      if (!header.contains(name)) {
        differences.add(what + " " + name + " is not in the header");
      }
    }
  }

  private static void compare(
      String what, Object header, Object bound, List<String> differences) {
    if (!header.equals(bound)) {
      differences.add(what + ": header " + header + ", bindings " + bound);
    }
  }
}
