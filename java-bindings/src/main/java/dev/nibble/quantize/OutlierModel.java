// SPDX-License-Identifier: Apache-2.0
package dev.nibble.quantize;

import dev.nibble.InvalidArgumentException;
import dev.nibble.io.CheckpointNames;
import dev.nibble.io.DataType;
import dev.nibble.io.ModelSource;
import dev.nibble.io.SafetensorsWriter;
import dev.nibble.io.TensorInfo;
import dev.nibble.io.TensorStore;
import dev.nibble.model.LlamaConfig;
import java.io.IOException;
import java.lang.foreign.Arena;
import java.lang.foreign.MemorySegment;
import java.lang.foreign.ValueLayout;
import java.nio.ByteOrder;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.List;
import java.util.Map;
import java.util.SplittableRandom;

/**
 * Gives a small model the outliers that large LLaMAs have, without changing what it computes: a
 * test of quantizers.
 *
 * <p>In each layer, and for each of its two norms, {@value #ACTIVATION_CHANNELS} channels of the
 * norm's weight grow by {@value #ACTIVATION_FACTOR}, and the same columns of the projections that
 * read it shrink by as much. In each key head {@value #KEY_PAIRS} pairs (i, i + d/2) of the key
 * projection's rows grow by {@value #KEY_FACTOR}, and the rows of the query heads that meet them
 * shrink; both halves of a pair alike, so that the rotation between them commutes. All factors are
 * powers of two: in F32 every product and every sum is scaled exactly or not at all, so that
 * the logits are the same bits wherever the order of additions is. Which channels is drawn from a
 * fixed seed.
 */
public final class OutlierModel {
  /** Channels of each norm that become outliers. */
  public static final int ACTIVATION_CHANNELS = 4;
  /** How much larger they become. */
  public static final float ACTIVATION_FACTOR = 64;
  /** Pairs of channels of each key head that become outliers. */
  public static final int KEY_PAIRS = 2;
  /** How much larger they become. */
  public static final float KEY_FACTOR = 32;

  private static final long SEED = 20_505_20839L;
  private static final ValueLayout.OfShort SHORT =
      ValueLayout.JAVA_SHORT.withOrder(ByteOrder.LITTLE_ENDIAN);
  private static final ValueLayout.OfInt INT =
      ValueLayout.JAVA_INT.withOrder(ByteOrder.LITTLE_ENDIAN);
  private static final List<String> COPIED =
      List.of(CheckpointNames.CONFIG, CheckpointNames.TOKENIZER);

  private final LlamaConfig config;

  private OutlierModel(LlamaConfig config) {
    this.config = config;
  }

  /**
   * Writes the model with outliers, in F32.
   *
   * @param in a model with weights in F32, F16 or BF16; not closed
   * @param out an empty directory
   * @throws InvalidArgumentException if out is no directory
   * @throws dev.nibble.ModelFormatException if the model is not valid
   */
  public static void write(ModelSource in, Path out) {
    if (!Files.isDirectory(out)) {
      throw new InvalidArgumentException(out + ": expected an empty directory");
    }
    var outliers = new OutlierModel(LlamaConfig.read(in));
    try (var store = in.tensors()) {
      outliers.writeTensors(store, out.resolve(CheckpointNames.WEIGHTS));
      for (var file : COPIED) {
        if (in.has(file)) {
          Files.write(out.resolve(file), in.read(file));
        }
      }
    } catch (IOException e) {
      throw OutputDirectory.unwritable(out, e);
    }
  }

  private void writeTensors(TensorStore store, Path file) {
    var entries = new ArrayList<SafetensorsWriter.Entry>();
    for (var name : store.names()) {
      entries.add(new SafetensorsWriter.Entry(name, DataType.F32, store.info(name).shape()));
    }
    try (var writer = SafetensorsWriter.create(file, entries, Map.of("format", "pt"));
        var arena = Arena.ofConfined()) {
      for (var name : store.names()) {
        var info = store.info(name);
        var values = read(store, info);
        scale(name, values);
        var bytes = arena.allocate(4L * values.length, 64);
        for (int i = 0; i < values.length; i++) {
          bytes.setAtIndex(INT, i, Float.floatToRawIntBits(values[i]));
        }
        writer.write(name, bytes);
      }
      writer.commit();
    }
  }

  private static float[] read(TensorStore store, TensorInfo info) {
    if (!info.dataType().isFloat() || info.byteLength() > Integer.MAX_VALUE) {
      throw info.problem("dtype " + info.dataType().safetensorsName() + ", "
          + info.byteLength() + " bytes, expected F32, F16 or BF16 of less than 2 GB");
    }
    var bytes = MemorySegment.ofArray(new byte[(int) info.byteLength()]);
    store.read(info.name(), bytes);
    var values = new float[(int) (info.byteLength() / info.dataType().bytes())];
    for (int i = 0; i < values.length; i++) {
      values[i] = switch (info.dataType()) {
        case F16 -> Float.float16ToFloat(bytes.get(SHORT.withByteAlignment(1), 2L * i));
        case BF16 -> Float.intBitsToFloat(bytes.get(SHORT.withByteAlignment(1), 2L * i) << 16);
        default -> Float.intBitsToFloat(bytes.get(INT.withByteAlignment(1), 4L * i));
      };
    }
    return values;
  }

  private void scale(String name, float[] values) {
    if (!name.startsWith("model.layers.")) {
      return;
    }
    var rest = name.substring("model.layers.".length());
    int dot = rest.indexOf('.');
    int layer = Integer.parseInt(rest.substring(0, dot));
    var part = rest.substring(dot + 1);
    switch (part) {
      case "input_layernorm.weight" -> scaleNorm(values, layer, 0);
      case "post_attention_layernorm.weight" -> scaleNorm(values, layer, 1);
      case "mlp.gate_proj.weight", "mlp.up_proj.weight" -> scaleColumns(values, layer, 1);
      case "self_attn.v_proj.weight" -> scaleColumns(values, layer, 0);
      case "self_attn.q_proj.weight" -> {
        scaleColumns(values, layer, 0);
        scaleHeads(values, layer, config.heads() / config.kvHeads(), 1 / KEY_FACTOR);
      }
      case "self_attn.k_proj.weight" -> {
        scaleColumns(values, layer, 0);
        scaleHeads(values, layer, 1, KEY_FACTOR);
      }
      case "self_attn.q_proj.bias" ->
          scaleHeads(values, layer, config.heads() / config.kvHeads(), 1 / KEY_FACTOR);
      case "self_attn.k_proj.bias" -> scaleHeads(values, layer, 1, KEY_FACTOR);
      default -> { }
    }
  }

  private void scaleNorm(float[] weight, int layer, int norm) {
    for (int channel : draw(layer, norm, ACTIVATION_CHANNELS, config.hiddenSize())) {
      weight[channel] *= ACTIVATION_FACTOR;
    }
  }

  private void scaleColumns(float[] weight, int layer, int norm) {
    int cols = config.hiddenSize();
    for (int channel : draw(layer, norm, ACTIVATION_CHANNELS, cols)) {
      for (int i = channel; i < weight.length; i += cols) {
        weight[i] /= ACTIVATION_FACTOR;
      }
    }
  }

  /** Rows of a projection to heads, or elements of its bias; headsPerKey of them share a key. */
  private void scaleHeads(float[] values, int layer, int headsPerKey, float factor) {
    int dim = config.headDim();
    int cols = values.length / (config.kvHeads() * headsPerKey * dim);
    for (int kv = 0; kv < config.kvHeads(); kv++) {
      for (int i : draw(layer, 2 + kv, KEY_PAIRS, dim / 2)) {
        for (int head = kv * headsPerKey; head < (kv + 1) * headsPerKey; head++) {
          for (int row : new int[] {head * dim + i, head * dim + i + dim / 2}) {
            for (int c = 0; c < cols; c++) {
              values[row * cols + c] *= factor;
            }
          }
        }
      }
    }
  }

  /** count different numbers below limit, or all of them; the same for the same place. */
  private static int[] draw(int layer, int place, int count, int limit) {
    var random = new SplittableRandom(SEED + 1000L * layer + place);
    return random.ints(0, limit).distinct().limit(Math.min(count, limit)).toArray();
  }
}
