// SPDX-License-Identifier: Apache-2.0
package dev.nibble.quantize;

import dev.nibble.io.CheckpointNames;
import dev.nibble.io.DataType;
import dev.nibble.io.SafetensorsWriter;
import dev.nibble.tensor.QuantizedWeights;
import java.lang.foreign.MemorySegment;
import java.util.ArrayList;
import java.util.List;

/** The tensors that a matrix becomes in a quantized file: {@link CheckpointNames} names them. */
final class CanonicalParts {

  private CanonicalParts() {}

  /** What the file declares for the matrix of that name, [rows, cols] in format. */
  static List<SafetensorsWriter.Entry> entries(
      String name, WeightFormat format, long rows, long cols) {
    var entries = new ArrayList<SafetensorsWriter.Entry>();
    var code = format.code();
    if (!code.isQuantized()) {
      entries.add(new SafetensorsWriter.Entry(name, DataType.valueOf(code.name()), rows, cols));
      return entries;
    }
    entries.add(new SafetensorsWriter.Entry(
        CheckpointNames.codes(name), DataType.U8, rows, code.codeBytes(cols)));
    if (code.highBytes(cols) > 0) {
      entries.add(new SafetensorsWriter.Entry(
          CheckpointNames.codesHigh(name), DataType.U8, rows, code.highBytes(cols)));
    }
    entries.add(new SafetensorsWriter.Entry(
        CheckpointNames.scales(name), format.scale().dataType(), rows, format.groups(cols)));
    if (format.factorCount(rows) > 0) {
      entries.add(new SafetensorsWriter.Entry(
          CheckpointNames.factors(name), DataType.F32, format.factorCount(rows)));
    }
    return entries;
  }

  /** Writes all that {@link #entries} declares. */
  static void write(SafetensorsWriter writer, String name, QuantizedWeights quantized) {
    if (!quantized.format().code().isQuantized()) {
      writer.write(name, quantized.codes());
      return;
    }
    writer.write(CheckpointNames.codes(name), quantized.codes());
    writePart(writer, CheckpointNames.codesHigh(name), quantized.codesHigh());
    writePart(writer, CheckpointNames.scales(name), quantized.scales());
    writePart(writer, CheckpointNames.factors(name), quantized.factors());
  }

  private static void writePart(SafetensorsWriter writer, String name, MemorySegment part) {
    if (part.byteSize() > 0) {
      writer.write(name, part);
    }
  }
}
