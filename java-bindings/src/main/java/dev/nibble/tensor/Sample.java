// SPDX-License-Identifier: Apache-2.0
package dev.nibble.tensor;

import dev.nibble.ffi.nb_sample_options;
import dev.nibble.ffi.nibble_h;
import dev.nibble.io.DataType;
import java.lang.foreign.MemorySegment;

/** {@code nb_sample}: draws a token from each row. Made by {@link Context#bindSample}. */
public final class Sample extends Operation {
  private final long maxRows;
  private final MemorySegment logits;
  private final MemorySegment options;
  private final MemorySegment uniforms;
  private final MemorySegment ids;

  Sample(Context context, Tensor logits, float temperature, int topK, float topP, float minP,
      Tensor uniforms, Tensor ids) {
    var operands = new Operands();
    Tensor.check("logits", logits, DataType.F32, -1, -1);
    Tensor.check("uniforms", uniforms, DataType.F64, -1);
    Tensor.check("ids", ids, DataType.I32, -1);
    this.maxRows = Math.min(logits.dim(0), Math.min(uniforms.dim(0), ids.dim(0)));
    this.logits = operands.add(logits);
    this.uniforms = operands.add(uniforms);
    this.ids = operands.add(ids);
    var struct = nb_sample_options.allocate(operands.arena);
    nb_sample_options.struct_size(struct, nb_sample_options.sizeof());
    nb_sample_options.temperature(struct, temperature);
    nb_sample_options.top_k(struct, topK);
    nb_sample_options.top_p(struct, topP);
    nb_sample_options.min_p(struct, minP);
    this.options = struct;
    super("the sampling", context, operands);
  }

  /** Draws for the first rows. */
  public void run(long rows) {
    checkRows(0, rows, maxRows, "logits, uniforms or ids");
    begin();
    try {
      Descriptor.setRows(logits, rows);
      Descriptor.setRows(uniforms, rows);
      Descriptor.setRows(ids, rows);
      Status.check(nibble_h.nb_sample(handle, logits, options, uniforms, ids));
    } finally {
      end();
    }
  }
}
