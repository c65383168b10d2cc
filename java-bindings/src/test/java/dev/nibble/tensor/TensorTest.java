// SPDX-License-Identifier: Apache-2.0
package dev.nibble.tensor;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;

import dev.nibble.ClosedException;
import dev.nibble.ConcurrentUseException;
import dev.nibble.InvalidArgumentException;
import dev.nibble.UnsupportedException;
import dev.nibble.io.DataType;
import java.lang.foreign.Arena;
import java.lang.foreign.MemorySegment;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.CompletionException;
import org.junit.jupiter.api.Test;

class TensorTest {
  @Test
  void newTensorsAreZeroAndAligned() {
    try (var tensor = Tensor.allocate(DataType.F32, 3, 5)) {
      assertThat(tensor.toFloats()).hasSize(15).containsOnly(0f);
      assertThat(tensor.segment().address() % 64).isZero();
      assertThat(tensor.shape()).containsExactly(3, 5);
      assertThat(tensor.size()).isEqualTo(15);
      assertThat(tensor.byteSize()).isEqualTo(60);
      assertThat(tensor).hasToString("F32 [3, 5]");
    }
  }

  @Test
  void rowsAreAViewWithinBounds() {
    try (var tensor = Tensor.of(new float[] {1, 2, 3, 4, 5, 6}, 3, 2)) {
      assertThat(tensor.rows(1, 2).toFloats()).containsExactly(3, 4, 5, 6);
      assertThat(tensor.rows(3, 0).toFloats()).isEmpty();
      tensor.rows(2, 1).copyFrom(new float[] {9});
      assertThat(tensor.toFloats()).containsExactly(1, 2, 3, 4, 9, 6);
      assertThatThrownBy(() -> tensor.rows(2, 2)).isInstanceOf(InvalidArgumentException.class);
      assertThatThrownBy(() -> tensor.rows(-1, 1)).isInstanceOf(InvalidArgumentException.class);
      assertThatThrownBy(() -> tensor.rows(1, Long.MAX_VALUE))
          .isInstanceOf(InvalidArgumentException.class);
      assertThatThrownBy(() -> tensor.copyFrom(new float[7]))
          .isInstanceOf(InvalidArgumentException.class).hasMessageContaining("7");
    }
  }

  @Test
  void illegalShapesAreRefused() {
    assertThatThrownBy(() -> Tensor.allocate(DataType.F32))
        .isInstanceOf(InvalidArgumentException.class);
    assertThatThrownBy(() -> Tensor.allocate(DataType.F32, 1, 1, 1, 1, 1))
        .isInstanceOf(InvalidArgumentException.class);
    assertThatThrownBy(() -> Tensor.allocate(DataType.F32, -1))
        .isInstanceOf(InvalidArgumentException.class);
    assertThatThrownBy(() -> Tensor.allocate(DataType.F32, 1L << 40, 1L << 40))
        .isInstanceOf(InvalidArgumentException.class).hasMessageContaining("overflows");
    assertThatThrownBy(() -> Tensor.of(new float[5], 2, 3))
        .isInstanceOf(InvalidArgumentException.class);
    assertThatThrownBy(() -> Tensor.allocate(DataType.BOOL, 1))
        .isInstanceOf(UnsupportedException.class).hasMessageContaining("BOOL");
  }

  @Test
  void borrowedMemoryIsChecked() {
    try (var arena = Arena.ofConfined()) {
      var segment = arena.allocate(64, 64);
      assertThat(Tensor.borrow(segment, DataType.F32, 4, 4).byteSize()).isEqualTo(64);
      assertThatThrownBy(() -> Tensor.borrow(segment, DataType.F32, 17))
          .isInstanceOf(InvalidArgumentException.class).hasMessageContaining("64 bytes");
      assertThatThrownBy(() -> Tensor.borrow(segment.asSlice(2), DataType.F32, 1))
          .isInstanceOf(InvalidArgumentException.class).hasMessageContaining("aligned");
      assertThatThrownBy(() -> Tensor.borrow(MemorySegment.ofArray(new float[4]), DataType.F32, 4))
          .isInstanceOf(InvalidArgumentException.class).hasMessageContaining("heap");
    }
  }

  @Test
  void borrowedMemoryIsNotUsedOnceItsOwnerClosedIt() {
    Tensor tensor;
    try (var context = Context.create("cpu", 1)) {
      try (var arena = Arena.ofConfined()) {
        tensor = Tensor.borrow(arena.allocate(64, 64), DataType.F32, 4, 4);
        context.add(tensor, tensor, tensor);
        assertThatThrownBy(
            () -> CompletableFuture.runAsync(() -> context.add(tensor, tensor, tensor)).join())
            .isInstanceOf(CompletionException.class)
            .hasCauseInstanceOf(ConcurrentUseException.class);
      }
      assertThatThrownBy(() -> context.add(tensor, tensor, tensor))
          .isInstanceOf(ClosedException.class);
    }
  }

  @Test
  void closedTensorsAreRefused() {
    var tensor = Tensor.allocate(DataType.F32, 2);
    tensor.close();
    tensor.close();
    assertThatThrownBy(tensor::toFloats).isInstanceOf(ClosedException.class);
    assertThatThrownBy(() -> tensor.copyFrom(new float[1])).isInstanceOf(ClosedException.class);
    var arena = new TensorArena("the scratch");
    var other = arena.allocate(DataType.F32, 2);
    other.close(); // owns nothing
    assertThat(other.toFloats()).hasSize(2);
    arena.close();
    assertThatThrownBy(other::toFloats).hasMessage("the scratch is closed");
    assertThatThrownBy(() -> arena.allocate(DataType.F32, 2)).isInstanceOf(ClosedException.class);
  }
}
