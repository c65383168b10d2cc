// SPDX-License-Identifier: Apache-2.0
package dev.nibble.bench;

import dev.nibble.ffi.nb_projection;
import dev.nibble.ffi.nb_tensor;
import dev.nibble.ffi.nb_weight_format;
import dev.nibble.ffi.nibble_h;
import dev.nibble.io.DataType;
import dev.nibble.quantize.ActivationType;
import dev.nibble.quantize.WeightFormat;
import dev.nibble.tensor.Context;
import dev.nibble.tensor.MatMul;
import dev.nibble.tensor.PackedMatrix;
import dev.nibble.tensor.Projection;
import dev.nibble.tensor.TensorArena;
import java.lang.foreign.Arena;
import java.lang.foreign.FunctionDescriptor;
import java.lang.foreign.Linker;
import java.lang.foreign.MemorySegment;
import java.lang.foreign.SymbolLookup;
import java.lang.foreign.ValueLayout;
import java.lang.invoke.MethodHandle;
import java.util.concurrent.TimeUnit;
import org.openjdk.jmh.annotations.Benchmark;
import org.openjdk.jmh.annotations.BenchmarkMode;
import org.openjdk.jmh.annotations.Mode;
import org.openjdk.jmh.annotations.OutputTimeUnit;
import org.openjdk.jmh.annotations.Scope;
import org.openjdk.jmh.annotations.Setup;
import org.openjdk.jmh.annotations.State;
import org.openjdk.jmh.annotations.TearDown;

/**
 * What a call costs before any work is done: the downcall itself, and the facade's checks and
 * leases around one. A product of zero rows is legal, is checked in full on both sides of the
 * interface, and computes nothing.
 */
@State(Scope.Thread)
@BenchmarkMode(Mode.AverageTime)
@OutputTimeUnit(TimeUnit.NANOSECONDS)
public class CallBenchmark {
  private static final int SIZE = 64;

  private final Arena memory = Arena.ofShared();
  private Context context;
  private TensorArena arena;
  private PackedMatrix matrix;
  private MatMul product;
  private MemorySegment nativeContext;
  private MemorySegment nativeMatrix;
  private MemorySegment x;
  private MemorySegment projection;

  /** A critical call of the same function; held as the bindings hold theirs, as a constant. */
  private static final class Critical {
    static final MethodHandle HANDLE = Linker.nativeLinker().downcallHandle(
        SymbolLookup.loaderLookup().find("nb_abi_version").orElseThrow(),
        FunctionDescriptor.of(ValueLayout.JAVA_INT), Linker.Option.critical(false));
  }

  /** Binds the same product twice: through the facade, and by hand. */
  @Setup
  public void prepare() {
    context = Context.create("cpu", 1);
    arena = new TensorArena();
    var input = arena.allocate(DataType.F32, 1, SIZE);
    var output = arena.allocate(DataType.F32, 1, SIZE);
    var weights = arena.allocate(DataType.F32, SIZE, SIZE);
    matrix = context.pack(weights, WeightFormat.F32);
    product = context.bindMatMul(ActivationType.F32, input, null, new Projection(matrix, output));

    var out = memory.allocate(ValueLayout.ADDRESS);
    check(nibble_h.nb_context_create(memory.allocateFrom("cpu"), 1, out));
    nativeContext = out.get(ValueLayout.ADDRESS, 0);
    var format = nb_weight_format.allocate(memory);
    nb_weight_format.struct_size(format, nb_weight_format.sizeof());
    nb_weight_format.code_type(format, nibble_h.NB_F32());
    nb_weight_format.scale_type(format, nibble_h.NB_NONE());
    check(nibble_h.nb_matrix_quantize(nativeContext, format, tensor(SIZE), out));
    nativeMatrix = out.get(ValueLayout.ADDRESS, 0);
    x = tensor(0);
    projection = nb_projection.allocate(memory);
    nb_projection.matrix(projection, nativeMatrix);
    nb_projection.output(projection, tensor(0));
  }

  /** The shortest function of the interface. */
  @Benchmark
  public int downcall() {
    return nibble_h.nb_abi_version();
  }

  /** The same without the thread's change of state, as short calls may be made. */
  @Benchmark
  public int criticalDowncall() throws Throwable {
    return (int) Critical.HANDLE.invokeExact();
  }

  /** nb_matmul of no rows: the downcall and the native checks. */
  @Benchmark
  public int nativeProductOfNoRows() {
    return nibble_h.nb_matmul(nativeContext, nibble_h.NB_F32(), x, MemorySegment.NULL, 0,
        projection, 1);
  }

  /** The same through the facade: checks and leases on top. */
  @Benchmark
  public void facadeProductOfNoRows() {
    product.run(0);
  }

  /** Frees everything. */
  @TearDown
  public void close() {
    nibble_h.nb_matrix_destroy(nativeMatrix);
    nibble_h.nb_context_destroy(nativeContext);
    matrix.close();
    arena.close();
    context.close();
    memory.close();
  }

  /** F32 [rows, SIZE], zeros. */
  private MemorySegment tensor(int rows) {
    var struct = nb_tensor.allocate(memory);
    long bytes = (long) rows * SIZE * Float.BYTES;
    nb_tensor.struct_size(struct, nb_tensor.sizeof());
    nb_tensor.dtype(struct, nibble_h.NB_F32());
    nb_tensor.rank(struct, 2);
    nb_tensor.shape(struct, 0, rows);
    nb_tensor.shape(struct, 1, SIZE);
    nb_tensor.strides(struct, 0, SIZE);
    nb_tensor.strides(struct, 1, 1);
    nb_tensor.data(struct, memory.allocate(Math.max(bytes, 64), 64));
    nb_tensor.byte_length(struct, bytes);
    return struct;
  }

  private static void check(int status) {
    if (status != nibble_h.NB_OK()) {
      throw new IllegalStateException(nibble_h.nb_last_error().getString(0));
    }
  }
}
