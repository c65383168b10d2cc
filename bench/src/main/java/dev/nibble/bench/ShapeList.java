// SPDX-License-Identifier: Apache-2.0
package dev.nibble.bench;

import dev.nibble.InvalidArgumentException;
import dev.nibble.quantize.ActivationType;
import dev.nibble.quantize.CodeType;
import dev.nibble.quantize.ScaleType;
import dev.nibble.quantize.WeightFormat;
import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;

/**
 * What {@code bench/shapes.txt} says about products: the list that the native benchmark reads too,
 * in the format that the file explains. Lines about whole models' structure are the native
 * benchmark's to check.
 *
 * @param rows activation rows
 * @param kernels by name
 * @param matrices by {@code "MODEL NAME"}
 */
public record ShapeList(
    List<Integer> rows, Map<String, Kernel> kernels, Map<String, Matrix> matrices) {

  private static final int MAX_SIZE = Integer.MAX_VALUE;

  /** Weights and activations of a product. */
  public record Kernel(WeightFormat format, ActivationType activations) {}

  /** {@code n} outputs, {@code k} inputs. */
  public record Matrix(int n, int k) {}

  /**
   * Reads a list.
   *
   * @throws InvalidArgumentException naming the file, the line and the word
   */
  public static ShapeList read(Path file) {
    try {
      return parse(Files.readAllLines(file), file.toString());
    } catch (IOException e) {
      throw new InvalidArgumentException(file + ": cannot be read: " + e.getMessage(), e);
    }
  }

  static ShapeList parse(List<String> lines, String name) {
    var rows = new ArrayList<Integer>();
    var kernels = new LinkedHashMap<String, Kernel>();
    var matrices = new LinkedHashMap<String, Matrix>();
    for (int i = 0; i < lines.size(); i++) {
      var text = lines.get(i).split("#", 2)[0].strip();
      if (text.isEmpty()) {
        continue;
      }
      var line = new Line(name + ":" + (i + 1) + ": ", text.split("\\s+"));
      switch (line.words[0]) {
        case "rows" -> {
          for (int w = 1; w < line.words.length; w++) {
            rows.add(line.number(w, "rows"));
          }
        }
        case "kernel" -> {
          var code = line.type(CodeType.values(), line.after(2, "code"), "code");
          var scale = line.type(ScaleType.values(), line.after(4, "scale"), "scale");
          int group = line.after(6, "group").equals("0") ? 0 : line.number(7, "group");
          var format = new WeightFormat(code, scale, group);
          line.put(kernels, line.word(1), new Kernel(format, line.activation()));
        }
        case "matrix" -> line.put(matrices, line.word(1) + " " + line.word(2),
            new Matrix(line.number(3, "N"), line.number(4, "K")));
        case "keys", "contexts", "scheme", "model" -> { }
        default -> throw line.error("\"" + line.words[0]
            + "\" given, expected rows, keys, contexts, kernel, scheme, model or matrix");
      }
    }
    for (var part : Map.of("rows", rows.isEmpty(), "kernel", kernels.isEmpty(),
        "matrix", matrices.isEmpty()).entrySet()) {
      if (part.getValue()) {
        throw new InvalidArgumentException(name + ": has no line \"" + part.getKey() + "\"");
      }
    }
    return new ShapeList(rows, kernels, matrices);
  }

  /** The kernel of that name. */
  public Kernel kernel(String name) {
    return find(kernels, name, "kernel");
  }

  /** The matrix of that {@code "MODEL NAME"}. */
  public Matrix matrix(String name) {
    return find(matrices, name, "matrix");
  }

  private static <T> T find(Map<String, T> map, String name, String what) {
    var found = map.get(name);
    if (found == null) {
      throw new InvalidArgumentException(what + ": \"" + name + "\" given, expected one of "
          + String.join(", ", map.keySet()));
    }
    return found;
  }

  /** One statement, for messages that name its place. */
  private record Line(String place, String[] words) {

    InvalidArgumentException error(String message) {
      return new InvalidArgumentException(place + message);
    }

    String word(int index) {
      if (index >= words.length) {
        throw error("the line ends after \"" + words[words.length - 1] + "\"");
      }
      return words[index];
    }

    /** The word behind {@code keyword}, which must be at {@code index}. */
    String after(int index, String keyword) {
      if (!word(index).equals(keyword)) {
        throw error("\"" + word(index) + "\" given, expected \"" + keyword + "\"");
      }
      return word(index + 1);
    }

    int number(int index, String what) {
      var word = word(index);
      try {
        int value = Integer.parseInt(word);
        if (value >= 1) {
          return value;
        }
      } catch (NumberFormatException e) {
        // refused below
      }
      throw error(what + ": \"" + word + "\" given, expected 1 to " + MAX_SIZE);
    }

    <E extends Enum<E>> E type(E[] values, String word, String what) {
      for (var value : values) {
        if (value.name().equalsIgnoreCase(word)) {
          return value;
        }
      }
      throw error(what + ": \"" + word + "\" given, expected a type of nibble.h");
    }

    ActivationType activation() {
      var word = after(8, "activation");
      return switch (word) {
        case "f32" -> ActivationType.F32;
        case "bf16" -> ActivationType.A16;
        case "e4m3" -> ActivationType.A8F;
        case "i8" -> ActivationType.A8I;
        default -> throw error(
            "activation: \"" + word + "\" given, expected f32, bf16, e4m3 or i8");
      };
    }

    <T> void put(Map<String, T> map, String name, T value) {
      if (map.putIfAbsent(name, value) != null) {
        throw error("\"" + name + "\" is there already");
      }
    }
  }
}
