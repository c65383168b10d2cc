// SPDX-License-Identifier: Apache-2.0
package dev.nibble.model;

import java.io.ByteArrayOutputStream;
import java.io.IOException;
import java.io.UncheckedIOException;
import java.nio.ByteBuffer;
import java.nio.ByteOrder;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.Arrays;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.Random;
import java.util.StringJoiner;

/**
 * Writes a {@link TinyModel} as compressed-tensors, AWQ and GPTQ do: random codes q, zero points z
 * and scales s take the place of its projections, whose values become (q - z) s. Written from the
 * formats' definitions, apart from the library's reader.
 */
final class PackedFiles {
  enum Kind { COMPRESSED, AWQ, GPTQ, GPTQ_V2 }

  /** A tensor as it goes into a file. */
  record Stored(String dtype, long[] shape, byte[] data) {}

  final Map<String, Stored> tensors = new LinkedHashMap<>();
  private final TinyModel tiny;
  private final Kind kind;
  private final Random random;
  int group = 128;
  /** Whether all zero points are 8. */
  boolean symmetric;
  /** Whether columns are dealt to groups at random. */
  boolean activationOrder;
  /** Zero points as signed bytes, as compressed-tensors once wrote them. */
  boolean zeroBytes;
  /** Of the scales: F16, BF16 or F32. */
  String scaleType = "F16";

  PackedFiles(TinyModel tiny, Kind kind, long seed) {
    this.tiny = tiny;
    this.kind = kind;
    this.random = new Random(seed);
  }

  /** Makes all tensors, and sets the weights of the model. */
  PackedFiles make() {
    for (var name : List.copyOf(tiny.weights.keySet())) {
      var weight = tiny.weights.get(name);
      if (name.contains("_proj.weight")) {
        projection(name.replace(".weight", ""), weight.shape()[0], weight.shape()[1]);
      } else {
        tensors.put(name, floats("F32", weight.values(), weight.shape()));
      }
    }
    return this;
  }

  private void projection(String module, int n, int k) {
    int size = group == -1 ? k : group;
    int groups = (k + size - 1) / size;
    var q = new int[n][k];
    var z = new int[n][groups];
    var s = new double[n][groups];
    var groupOf = new int[k];
    for (int i = 0; i < k; i++) {
      groupOf[i] = i / size;
    }
    if (activationOrder) {
      for (int i = k - 1; i > 0; i--) {
        int j = random.nextInt(i + 1);
        int swap = groupOf[i];
        groupOf[i] = groupOf[j];
        groupOf[j] = swap;
      }
    }
    var values = new double[n * k];
    for (int row = 0; row < n; row++) {
      for (int g = 0; g < groups; g++) {
        // The first version of GPTQ's format can hold zeros of 1 to 16, the others 0 to 15.
        z[row][g] = symmetric ? 8 : random.nextInt(16) + (kind == Kind.GPTQ ? 1 : 0);
        s[row][g] = rounded(0.2 / Math.sqrt(k) * (0.5 + random.nextDouble()));
      }
      for (int i = 0; i < k; i++) {
        q[row][i] = random.nextInt(16);
        values[row * k + i] = (q[row][i] - z[row][groupOf[i]]) * s[row][groupOf[i]];
      }
    }
    tiny.weights.put(module + ".weight", new TinyModel.Weight(new int[] {n, k}, values));
    switch (kind) {
      case COMPRESSED -> compressed(module, q, z, s, groupOf);
      case AWQ -> awq(module, q, z, s);
      default -> gptq(module, q, z, s, groupOf);
    }
  }

  private double rounded(double value) {
    return switch (scaleType) {
      case "F16" -> Float.float16ToFloat(Float.floatToFloat16((float) value));
      case "BF16" -> Float.intBitsToFloat(Float.floatToIntBits((float) value) & 0xFFFF0000);
      default -> (float) value;
    };
  }

  private void compressed(String module, int[][] q, int[][] z, double[][] s, int[] groupOf) {
    int n = q.length;
    int k = q[0].length;
    int groups = z[0].length;
    int words = (k + 7) / 8;
    var packed = new int[n * words];
    for (int row = 0; row < n; row++) {
      for (int i = 0; i < k; i++) {
        packed[row * words + i / 8] |= q[row][i] << 4 * (i % 8);
      }
    }
    tensors.put(module + ".weight_packed", ints(packed, n, words));
    var shape = ByteBuffer.allocate(16).order(ByteOrder.LITTLE_ENDIAN).putLong(n).putLong(k);
    tensors.put(module + ".weight_shape", new Stored("I64", new long[] {2}, shape.array()));
    tensors.put(module + ".weight_scale", floats(scaleType, flat(s), n, groups));
    if (zeroBytes) {
      var bytes = new byte[n * groups];
      for (int i = 0; i < bytes.length; i++) {
        bytes[i] = (byte) (z[i / groups][i % groups] - 8);
      }
      tensors.put(module + ".weight_zero_point",
          new Stored("I8", new long[] {n, groups}, bytes));
    } else if (!symmetric) {
      var zeros = new int[(n + 7) / 8 * groups];
      for (int row = 0; row < n; row++) {
        for (int g = 0; g < groups; g++) {
          zeros[row / 8 * groups + g] |= z[row][g] << 4 * (row % 8);
        }
      }
      tensors.put(module + ".weight_zero_point", ints(zeros, (n + 7) / 8, groups));
    }
    if (activationOrder) {
      tensors.put(module + ".weight_g_idx", ints(groupOf, groupOf.length));
    }
  }

  private void awq(String module, int[][] q, int[][] z, double[][] s) {
    int n = q.length;
    int k = q[0].length;
    int groups = z[0].length;
    int[] order = {0, 2, 4, 6, 1, 3, 5, 7};
    var packed = new int[k * n / 8];
    var zeros = new int[groups * n / 8];
    for (int column = 0; column < n / 8; column++) {
      for (int i = 0; i < 8; i++) {
        int row = 8 * column + order[i];
        for (int j = 0; j < k; j++) {
          packed[j * (n / 8) + column] |= q[row][j] << 4 * i;
        }
        for (int g = 0; g < groups; g++) {
          zeros[g * (n / 8) + column] |= z[row][g] << 4 * i;
        }
      }
    }
    tensors.put(module + ".qweight", ints(packed, k, n / 8));
    tensors.put(module + ".qzeros", ints(zeros, groups, n / 8));
    tensors.put(module + ".scales", floats(scaleType, flat(transposed(s)), groups, n));
  }

  private void gptq(String module, int[][] q, int[][] z, double[][] s, int[] groupOf) {
    int n = q.length;
    int k = q[0].length;
    int groups = z[0].length;
    int words = (n + 7) / 8;
    var packed = new int[(k + 7) / 8 * n];
    var zeros = new int[groups * words];
    int less = kind == Kind.GPTQ ? 1 : 0;
    for (int row = 0; row < n; row++) {
      for (int i = 0; i < k; i++) {
        packed[i / 8 * n + row] |= q[row][i] << 4 * (i % 8);
      }
      for (int g = 0; g < groups; g++) {
        zeros[g * words + row / 8] |= (z[row][g] - less) << 4 * (row % 8);
      }
    }
    tensors.put(module + ".qweight", ints(packed, (k + 7) / 8, n));
    tensors.put(module + ".qzeros", ints(zeros, groups, words));
    tensors.put(module + ".scales", floats(scaleType, flat(transposed(s)), groups, n));
    tensors.put(module + ".g_idx", ints(groupOf, groupOf.length));
  }

  private static double[][] transposed(double[][] values) {
    var result = new double[values[0].length][values.length];
    for (int i = 0; i < values.length; i++) {
      for (int j = 0; j < values[0].length; j++) {
        result[j][i] = values[i][j];
      }
    }
    return result;
  }

  private static double[] flat(double[][] values) {
    return Arrays.stream(values).flatMapToDouble(Arrays::stream).toArray();
  }

  private static Stored ints(int[] values, long... shape) {
    var bytes = ByteBuffer.allocate(4 * values.length).order(ByteOrder.LITTLE_ENDIAN);
    bytes.asIntBuffer().put(values);
    return new Stored("I32", shape, bytes.array());
  }

  private static Stored floats(String dtype, double[] values, int... shape) {
    var bytes = ByteBuffer.allocate(values.length * (dtype.equals("F32") ? 4 : 2))
        .order(ByteOrder.LITTLE_ENDIAN);
    for (double value : values) {
      switch (dtype) {
        case "F16" -> bytes.putShort(Float.floatToFloat16((float) value));
        case "BF16" -> bytes.putShort((short) (Float.floatToRawIntBits((float) value) >>> 16));
        default -> bytes.putFloat((float) value);
      }
    }
    return new Stored(dtype, Arrays.stream(shape).asLongStream().toArray(), bytes.array());
  }

  /** The value of quantization_config. */
  String quantization() {
    return switch (kind) {
      case COMPRESSED -> """
          {"quant_method": "compressed-tensors", "format": "pack-quantized",
           "quantization_status": "compressed", "ignore": ["lm_head"], "kv_cache_scheme": null,
           "config_groups": {"group_0": {"targets": ["Linear"], "input_activations": null,
             "output_activations": null, "weights": {"num_bits": 4, "type": "int",
             "symmetric": %b, "strategy": "%s", "group_size": %s, "actorder": null}}}}"""
          .formatted(symmetric, group == -1 ? "channel" : "group", group == -1 ? "null" : group);
      case AWQ -> """
          {"quant_method": "awq", "bits": 4, "group_size": %d, "version": "gemm",
           "zero_point": true, "modules_to_not_convert": null}""".formatted(group);
      case GPTQ -> """
          {"quant_method": "gptq", "bits": 4, "group_size": %d, "desc_act": %b, "sym": %b,
           "true_sequential": true}""".formatted(group, activationOrder, symmetric);
      case GPTQ_V2 -> """
          {"quant_method": "gptq", "bits": 4, "group_size": %d, "desc_act": %b, "sym": %b,
           "checkpoint_format": "gptq_v2"}""".formatted(group, activationOrder, symmetric);
    };
  }

  /** The whole config.json. */
  String config() {
    return tiny.config().replaceFirst(
        "\\{", "{\"quantization_config\": " + quantization().replace("$", "\\$") + ", ");
  }

  byte[] safetensors() {
    var header = new StringJoiner(", ", "{", "}");
    var data = new ByteArrayOutputStream();
    tensors.forEach((name, tensor) -> {
      int begin = data.size();
      data.writeBytes(tensor.data);
      header.add("\"%s\": {\"dtype\": \"%s\", \"shape\": %s, \"data_offsets\": [%d, %d]}".formatted(
          name, tensor.dtype, Arrays.toString(tensor.shape), begin, data.size()));
    });
    var json = header.toString().getBytes(StandardCharsets.UTF_8);
    return ByteBuffer.allocate(8 + json.length + data.size()).order(ByteOrder.LITTLE_ENDIAN)
        .putLong(json.length).put(json).put(data.toByteArray()).array();
  }

  Path write(Path directory) {
    try {
      Files.createDirectories(directory);
      Files.writeString(directory.resolve("config.json"), config());
      Files.write(directory.resolve("model.safetensors"), safetensors());
      return directory;
    } catch (IOException e) {
      throw new UncheckedIOException(e);
    }
  }
}
