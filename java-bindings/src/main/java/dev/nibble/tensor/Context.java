// SPDX-License-Identifier: Apache-2.0
package dev.nibble.tensor;

import dev.nibble.InvalidArgumentException;
import dev.nibble.ffi.nb_weight_format;
import dev.nibble.ffi.nibble_h;
import dev.nibble.io.DataType;
import dev.nibble.quantize.ActivationType;
import dev.nibble.quantize.WeightFormat;
import java.lang.foreign.Arena;
import java.lang.foreign.MemorySegment;
import java.lang.foreign.ValueLayout;
import java.nio.file.Path;
import java.util.function.ToIntFunction;

/**
 * A device and its worker threads: where operators run.
 *
 * <p>Operators come in two forms. A method such as {@link #matmul(ActivationType, Tensor,
 * PackedMatrix)} computes at once. A method such as {@link #bindMatMul} returns an {@link
 * Operation} that checks its operands once and then runs any number of times without allocating;
 * a forward pass is made of these.
 *
 * <p>Thread-safe: one call runs at a time, a second one waits its turn, first come, first served.
 * Different contexts run at once. {@link #close} waits for running calls; closing twice is
 * harmless, use after close throws {@link dev.nibble.ClosedException}. Matrices and caches made
 * here may outlive the context.
 */
public final class Context implements AutoCloseable {
  private static final String CPU = "cpu";

  private final MemorySegment handle;
  private final int threads;
  private final String device;
  private final Leases leases = new Leases("the context");
  private Operation.Operands recorded; // what a graph in the making reaches, or null

  private Context(MemorySegment handle, String device) {
    this.handle = handle;
    this.device = device;
    this.threads = nibble_h.nb_context_threads(handle);
  }

  /** A context on the CPU with as many threads as this process may use. */
  public static Context create() {
    return create(CPU, 0);
  }

  /**
   * A context on device.
   *
   * @param device {@code cpu}, or {@code cuda:N} for an NVIDIA GPU
   * @param threads 1 to 1024, or 0 for as many as this process may use; on a GPU they quantize
   *     and pack weights
   * @throws dev.nibble.UnsupportedException if the device cannot be used, with the reason
   */
  public static Context create(String device, int threads) {
    NativeLibrary.load();
    NativeLibrary.prepareDevice(device);
    try (var arena = Arena.ofConfined()) {
      var name = arena.allocateFrom(device);
      return new Context(
          make(arena, out -> nibble_h.nb_context_create(name, threads, out)), device);
    }
  }

  /** The number of threads that work for this context. */
  public int threads() {
    return threads;
  }

  /** The device, as it was named to {@link #create(String, int)}. */
  public String device() {
    return device;
  }

  /** Whether this is the CPU, whose memory is ordinary memory. */
  public boolean isCpu() {
    return device.equals(CPU);
  }

  /**
   * Measures how fast this context's threads together read memory, in bytes a second; on a GPU,
   * how fast a kernel that copies reads and writes the GPU's memory.
   *
   * @param bufferBytes at least 1 MiB, and four times the last-level cache to measure memory
   * @param repeats 1 to 1000 passes, of which the best counts
   */
  public double measureReadBandwidth(long bufferBytes, int repeats) {
    try (var call = new Call()) {
      var result = call.arena.allocate(ValueLayout.JAVA_DOUBLE);
      Status.check(nibble_h.nb_measure_read_bandwidth(handle, bufferBytes, repeats, result));
      return result.get(ValueLayout.JAVA_DOUBLE, 0);
    }
  }

  // ---- memory -----------------------------------------------------------------------------

  /**
   * An empty arena in the memory that this context's device reaches fastest: operators use tensors
   * there in place, without copying.
   *
   * @param what the arena as messages call it, for example {@code the session}
   */
  public TensorArena newArena(String what) {
    return new TensorArena(what, isCpu() ? null : this);
  }

  /**
   * Copies the first rows of a tensor to those of another, between ordinary memory and this
   * context's device or within either; in order with the context's operators. Allocates nothing.
   *
   * @param from and to: of one type and one size of a row
   */
  public void copy(Tensor from, Tensor to, long rows) {
    if (from.type() != to.type() || from.rowBytes() != to.rowBytes()) {
      throw new InvalidArgumentException(
          "to: " + to + " given, expected the type and rows of from, " + from);
    }
    Operation.checkRows(0, rows, Math.min(from.dim(0), to.dim(0)), "from or to");
    copyBytes(from, to, rows * from.rowBytes());
  }

  /** Copies the first bytes, which both must hold. */
  void copyBytes(Tensor from, Tensor to, long bytes) {
    leases.acquire();
    try {
      from.leases().acquire();
      try {
        to.leases().acquire();
        try {
          Status.check(nibble_h.nb_memory_copy(handle, to.data(), from.data(), bytes));
          if (recorded != null) {
            recorded.add(leases);
            recorded.add(from.leases());
            recorded.add(to.leases());
          }
        } finally {
          to.leases().release();
        }
      } finally {
        from.leases().release();
      }
    } finally {
      leases.release();
    }
  }

  /**
   * Waits for everything that this context has started.
   *
   * @throws dev.nibble.DeviceException if something of it failed
   */
  public void synchronize() {
    leases.acquire();
    try {
      Status.check(nibble_h.nb_synchronize(handle));
    } finally {
      leases.release();
    }
  }

  MemorySegment allocateMemory(long bytes) {
    try (var call = new Call()) {
      return make(call.arena, out -> nibble_h.nb_memory_allocate(handle, bytes, out));
    }
  }

  static void freeMemory(MemorySegment memory) {
    Status.check(nibble_h.nb_memory_free(memory));
  }

  // ---- weights ----------------------------------------------------------------------------

  /**
   * Quantizes weights by round-to-nearest, exactly as {@code nb_quantize} defines it, and packs
   * them for this context's kernels.
   *
   * @param weights F32, F16 or BF16 [N, K], finite
   * @throws dev.nibble.InvalidArgumentException naming the element that is NaN or infinite
   */
  public PackedMatrix pack(Tensor weights, WeightFormat format) {
    try (var call = new Call(weights.leases())) {
      var struct = call.describe(weights);
      var formatStruct = describe(call.arena, format);
      return new PackedMatrix(
          make(call.arena, out -> nibble_h.nb_matrix_quantize(handle, formatStruct, struct, out)),
          format);
    }
  }

  /**
   * Packs the canonical form. What is NaN or infinite is refused, and so are negative E4M3 scales;
   * scales of other types may have either sign.
   */
  public PackedMatrix pack(QuantizedWeights weights) {
    try (var call = new Call(weights.leases())) {
      var format = describe(call.arena, weights.format());
      var codes = weights.codesDescriptor(call.arena);
      var high = weights.codesHighDescriptor(call.arena);
      var scales = weights.scalesDescriptor(call.arena);
      var factors = weights.factorsDescriptor(call.arena);
      return new PackedMatrix(
          make(call.arena, out -> nibble_h.nb_matrix_pack(
              handle, format, weights.rows(), weights.cols(), codes, high, scales, factors, out)),
          weights.format());
    }
  }

  /**
   * Bytes of the record that {@link #writePacked} writes, a multiple of 4096.
   *
   * @throws InvalidArgumentException if rows or cols is out of range
   */
  public static long packedRecordBytes(WeightFormat format, long rows, long cols) {
    NativeLibrary.load();
    try (var arena = Arena.ofConfined()) {
      var bytes = arena.allocate(ValueLayout.JAVA_LONG);
      Status.check(
          nibble_h.nb_matrix_record_bytes(describe(arena, format), rows, cols, bytes));
      return bytes.get(ValueLayout.JAVA_LONG, 0);
    }
  }

  /**
   * Writes a matrix as it is packed, with checksums, so that {@link #readPacked} need not pack it
   * again; of use to this version of the library on this kind of machine only.
   *
   * @param file an existing file on the default file system
   * @param offset where in it the record begins; best a multiple of 4096
   * @throws dev.nibble.DeviceException if the system refuses, with its reason
   */
  public void writePacked(PackedMatrix matrix, Path file, long offset) {
    long bytes = packedRecordBytes(matrix.format(), matrix.rows(), matrix.cols());
    try (var call = new Call(matrix.leases())) {
      Status.check(nibble_h.nb_matrix_write(
          handle, matrix.handle(), NativePath.of(call.arena, file), offset, bytes));
    }
  }

  /**
   * Reads a matrix that {@link #writePacked} wrote, with all threads, and checks it.
   *
   * @throws InvalidArgumentException if the file holds anything but an undamaged record of such a
   *     matrix there, packed as this library on this machine would
   */
  public PackedMatrix readPacked(
      WeightFormat format, long rows, long cols, Path file, long offset) {
    long bytes = packedRecordBytes(format, rows, cols);
    try (var call = new Call()) {
      var formatStruct = describe(call.arena, format);
      var path = NativePath.of(call.arena, file);
      return new PackedMatrix(
          make(call.arena, out -> nibble_h.nb_matrix_read(
              handle, formatStruct, rows, cols, path, offset, bytes, out)),
          format);
    }
  }

  /** Quantizes weights (F32, F16 or BF16 [N, K], finite) to the canonical form. */
  public QuantizedWeights quantize(Tensor weights, WeightFormat format) {
    Tensor.check("weights", weights, weights.type(), -1, -1);
    var result = QuantizedWeights.allocate(format, weights.dim(0), weights.dim(1));
    try (var call = new Call(weights.leases(), result.leases())) {
      Status.check(nibble_h.nb_quantize(handle, describe(call.arena, format),
          call.describe(weights), result.codesDescriptor(call.arena),
          result.codesHighDescriptor(call.arena), result.scalesDescriptor(call.arena),
          result.factorsDescriptor(call.arena)));
      return result;
    } catch (RuntimeException e) {
      result.close();
      throw e;
    }
  }

  /** The canonical form back from a packed matrix, bit for bit. */
  public QuantizedWeights unpack(PackedMatrix matrix) {
    var result = QuantizedWeights.allocate(matrix.format(), matrix.rows(), matrix.cols());
    try (var call = new Call(matrix.leases(), result.leases())) {
      Status.check(nibble_h.nb_matrix_unpack(handle, matrix.handle(),
          result.codesDescriptor(call.arena), result.codesHighDescriptor(call.arena),
          result.scalesDescriptor(call.arena), result.factorsDescriptor(call.arena)));
      return result;
    } catch (RuntimeException e) {
      result.close();
      throw e;
    }
  }

  /** The value of every weight, rounded once to F32: a new tensor [N, K]. */
  public Tensor dequantize(PackedMatrix matrix) {
    var output = Tensor.allocate(DataType.F32, matrix.rows(), matrix.cols());
    try (var call = new Call(matrix.leases(), output.leases())) {
      Status.check(
          nibble_h.nb_matrix_dequantize(handle, matrix.handle(), call.describe(output)));
      return output;
    } catch (RuntimeException e) {
      output.close();
      throw e;
    }
  }

  /** A new, empty cache. */
  public KvCache newKvCache(KvCache.Options options) {
    try (var call = new Call()) {
      var struct = options.toNative(call.arena);
      return new KvCache(
          make(call.arena, out -> nibble_h.nb_kv_cache_create(handle, struct, out)), options);
    }
  }

  // ---- bound operators ----------------------------------------------------------------------

  /**
   * Binds output = norm(x) * W^T + bias + residual for 1 to 8 projections of one K.
   *
   * @param activation what norm(x) is rounded to before the product
   * @param x F32 [rows, K]; the most rows of a run
   * @param norm RMSNorm first, or null
   */
  public MatMul bindMatMul(
      ActivationType activation, Tensor x, Norm norm, Projection... projections) {
    return new MatMul(this, activation, x, norm, projections);
  }

  /**
   * Binds output = silu(norm(x) * gate^T + gateBias) * (norm(x) * up^T + upBias).
   *
   * @param norm RMSNorm first, or null
   * @param gateBias F32 [N], or null; upBias likewise
   * @param output F32 [rows, N]; must not overlap x
   */
  public SwiGluMatMul bindSwiGluMatMul(ActivationType activation, Tensor x, Norm norm,
      PackedMatrix gate, Tensor gateBias, PackedMatrix up, Tensor upBias, Tensor output) {
    return new SwiGluMatMul(this, activation, x, norm, gate, gateBias, up, upBias, output);
  }

  /** Binds output = silu(gate) * up, elementwise; all F32 [rows, N]; output may be gate or up. */
  public SwiGlu bindSwiGlu(Tensor gate, Tensor up, Tensor output) {
    return new SwiGlu(this, gate, up, output);
  }

  /** Binds output[i] = row ids[i] of table; ids I32 [rows], output F32 [rows, K]. */
  public Embedding bindEmbedding(PackedMatrix table, Tensor ids, Tensor output) {
    return new Embedding(this, table, ids, output);
  }

  /** Binds the angles, F32 [rows, D], of inverseFrequencies, F32 [D/2]. */
  public RopeAngles bindRopeAngles(
      Tensor inverseFrequencies, SequenceBatch batch, Tensor angles) {
    return new RopeAngles(this, inverseFrequencies, batch, angles);
  }

  /**
   * Binds the rotation of q in place and the append of k and v to layer.
   *
   * @param q F32 [rows, Hq*D]; k and v are F32 [rows, Hkv*D]
   * @param angles of {@link #bindRopeAngles}, or null for no rotation
   */
  public RopeAppend bindRopeAppend(
      int layer, Tensor q, Tensor k, Tensor v, Tensor angles, SequenceBatch batch) {
    return new RopeAppend(this, layer, q, k, v, angles, batch);
  }

  /** Binds output = softmax(scale * q k^T) v over layer; q and output F32 [rows, Hq*D], apart. */
  public Attention bindAttention(
      int layer, Tensor q, float scale, SequenceBatch batch, Tensor output) {
    return new Attention(this, layer, q, scale, batch, output);
  }

  /**
   * Binds ids[r] = the column of the largest of row r of logits, the first of equals; -1 - (the
   * first column that holds NaN or infinity) where there is one.
   *
   * @param logits F32 [rows, N]; ids is I32 [rows]
   */
  public Argmax bindArgmax(Tensor logits, Tensor ids) {
    return new Argmax(this, logits, ids);
  }

  /**
   * Binds ids[r] = a column of row r of logits, drawn by uniforms[r] from softmax(row /
   * temperature) after top-k, top-p and min-p, in this order; what {@link #bindArgmax} gives where
   * temperature is 0 or a logit is not a number. The same logits and uniforms give the same ids on
   * every device.
   *
   * @param logits F32 [rows, N], N up to 2^22
   * @param temperature 0 to 100
   * @param topK 0 for all
   * @param topP above 0, 1 for all
   * @param minP 0 for all
   * @param uniforms F64 [rows], each at least 0 and below 1
   * @param ids I32 [rows]
   */
  public Sample bindSample(Tensor logits, float temperature, int topK, float topP, float minP,
      Tensor uniforms, Tensor ids) {
    return new Sample(this, logits, temperature, topK, topP, minP, uniforms, ids);
  }

  /**
   * Binds the repeat penalty in place: logits of tokens are divided by penalty where positive and
   * multiplied by it elsewhere.
   *
   * @param logits F32 [N] or [1, N]
   * @param tokens I32, none twice; those outside 0 .. N-1 are passed over
   * @param penalty finite, above 0
   */
  public Penalize bindPenalize(Tensor logits, Tensor tokens, float penalty) {
    return new Penalize(this, logits, tokens, penalty);
  }

  // ---- graphs -------------------------------------------------------------------------------

  /**
   * Records the operations that calls runs, and the copies it makes on this context, without
   * running them; a {@link Graph} then runs them all at the cost of one. All tensors must be of
   * {@link #newArena} of this context. Nobody else may use the context meanwhile.
   *
   * @param maxTokens no launch will have a sequence that ends behind this many tokens
   * @param batch the sequences of all recorded operations that take any
   */
  public Graph record(long maxTokens, SequenceBatch batch, Runnable calls) {
    var operands = new Operation.Operands();
    operands.add(leases);
    operands.add(batch);
    var graph = MemorySegment.NULL;
    try (var call = new Call()) {
      Status.check(nibble_h.nb_graph_begin(handle, maxTokens));
      boolean complete = false;
      recorded = operands;
      try {
        calls.run();
        complete = true;
      } finally {
        recorded = null;
        if (complete) {
          graph = make(call.arena, out -> nibble_h.nb_graph_end(handle, out));
        } else {
          // What went wrong is on its way already.
          var out = call.arena.allocate(ValueLayout.ADDRESS);
          nibble_h.nb_graph_end(handle, out);
          nibble_h.nb_graph_destroy(out.get(ValueLayout.ADDRESS, 0));
        }
      }
    }
    return new Graph(this, operands, batch, graph);
  }

  /** What the graph in the making reaches; null when there is none. */
  Operation.Operands recorded() {
    return recorded;
  }

  // ---- operators at once ----------------------------------------------------------------------

  /** x * W^T with x rounded to activation: a new tensor [M, N]. x: F32 [M, K]. */
  public Tensor matmul(ActivationType activation, Tensor x, PackedMatrix matrix) {
    var output = Tensor.allocate(DataType.F32, x.dim(0), matrix.rows());
    try {
      bindMatMul(activation, x, null, new Projection(matrix, output)).run(x.dim(0));
      return output;
    } catch (RuntimeException e) {
      output.close();
      throw e;
    }
  }

  /** output = x / sqrt(mean(x^2) + epsilon) * weight; x and output F32 [M, K], may be the same. */
  public void rmsNorm(Tensor x, Norm norm, Tensor output) {
    checkSame(x, output, "output");
    Tensor.check("norm.weight", norm.weight(), DataType.F32, x.dim(1));
    try (var call = new Call(x.leases(), norm.weight().leases(), output.leases())) {
      Status.check(nibble_h.nb_rms_norm(handle, call.describe(x), call.describe(norm.weight()),
          norm.epsilon(), call.describe(output)));
    }
  }

  /** output = silu(gate) * up, elementwise; all F32 [M, N]; output may be gate or up. */
  public void swiGlu(Tensor gate, Tensor up, Tensor output) {
    checkSame(gate, up, "up");
    checkSame(gate, output, "output");
    try (var call = new Call(gate.leases(), up.leases(), output.leases())) {
      Status.check(nibble_h.nb_swiglu(
          handle, call.describe(gate), call.describe(up), call.describe(output)));
    }
  }

  /** output = a + b, elementwise; all F32 [M, N]; output may be a or b. */
  public void add(Tensor a, Tensor b, Tensor output) {
    checkSame(a, b, "b");
    checkSame(a, output, "output");
    try (var call = new Call(a.leases(), b.leases(), output.leases())) {
      Status.check(
          nibble_h.nb_add(handle, call.describe(a), call.describe(b), call.describe(output)));
    }
  }

  /**
   * The activation quantizer of {@link MatMul} on its own.
   *
   * @param type A8F or A8I
   * @param x F32 [M, K]
   * @param norm RMSNorm first, or null
   * @param codes U8 [M, K], written
   * @param scales F32 [M], written
   */
  public void quantizeActivations(
      ActivationType type, Tensor x, Norm norm, Tensor codes, Tensor scales) {
    Tensor.check("x", x, DataType.F32, -1, -1);
    Tensor.check("codes", codes, DataType.U8, x.dim(0), x.dim(1));
    Tensor.check("scales", scales, DataType.F32, x.dim(0));
    var weight = norm == null ? null : norm.weight();
    var weightLeases = weight == null ? leases : weight.leases();
    try (var call = new Call(x.leases(), weightLeases, codes.leases(), scales.leases())) {
      Status.check(nibble_h.nb_quantize_activations(handle, type.nativeId(), call.describe(x),
          call.describe(weight), norm == null ? 0 : norm.epsilon(), call.describe(codes),
          call.describe(scales)));
    }
  }

  @Override
  public void close() {
    if (leases.close()) {
      Status.check(nibble_h.nb_context_destroy(handle));
    }
  }

  MemorySegment handle() {
    return handle;
  }

  Leases leases() {
    return leases;
  }

  private static void checkSame(Tensor first, Tensor other, String name) {
    Tensor.check("x", first, DataType.F32, -1, -1);
    Tensor.check(name, other, DataType.F32, first.dim(0), first.dim(1));
  }

  static MemorySegment describe(Arena arena, WeightFormat format) {
    var struct = nb_weight_format.allocate(arena);
    nb_weight_format.struct_size(struct, nb_weight_format.sizeof());
    nb_weight_format.code_type(struct, format.code().nativeId());
    nb_weight_format.scale_type(struct, format.scale().nativeId());
    nb_weight_format.group_size(struct, format.groupSize());
    return struct;
  }

  /** Calls a function that writes a handle, and returns the handle. */
  private static MemorySegment make(Arena arena, ToIntFunction<MemorySegment> create) {
    var out = arena.allocate(ValueLayout.ADDRESS);
    Status.check(create.applyAsInt(out));
    return out.get(ValueLayout.ADDRESS, 0);
  }

  /** One call: leases on this context and the operands, and memory for descriptors. */
  final class Call implements AutoCloseable {
    final Arena arena = Arena.ofConfined();
    private final Leases[] operands;
    private int taken;

    Call(Leases... operands) {
      this.operands = operands;
      boolean all = false;
      try {
        leases.acquire();
        taken = 1;
        for (var operand : operands) {
          operand.acquire();
          taken++;
        }
        all = true;
      } finally {
        if (!all) {
          close();
        }
      }
    }

    MemorySegment describe(Tensor tensor) {
      return Descriptor.of(arena, tensor);
    }

    @Override
    public void close() {
      for (int i = taken - 2; i >= 0; i--) {
        operands[i].release();
      }
      if (taken > 0) {
        leases.release();
      }
      arena.close();
    }
  }
}
