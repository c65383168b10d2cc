// SPDX-License-Identifier: Apache-2.0
package dev.nibble.io;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;

import dev.nibble.ClosedException;
import dev.nibble.InvalidArgumentException;
import dev.nibble.NibbleException;
import java.io.IOException;
import java.lang.foreign.MemorySegment;
import java.lang.foreign.ValueLayout;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.List;
import java.util.Map;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;

class SafetensorsWriterTest {

  private static final List<SafetensorsWriter.Entry> ENTRIES = List.of(
      new SafetensorsWriter.Entry("first", DataType.F32, 2, 3),
      new SafetensorsWriter.Entry("second", DataType.U8, 5),
      new SafetensorsWriter.Entry("none", DataType.I64, 0),
      new SafetensorsWriter.Entry("scalar", DataType.E4M3));

  @TempDir private Path directory;

  private static MemorySegment bytes(int count, int start) {
    var bytes = new byte[count];
    for (int i = 0; i < count; i++) {
      bytes[i] = (byte) (start + i);
    }
    return MemorySegment.ofArray(bytes);
  }

  private List<String> files() throws IOException {
    try (var files = Files.list(directory)) {
      return files.map(file -> file.getFileName().toString()).toList();
    }
  }

  @Test
  void whatIsWrittenIsRead() throws IOException {
    var target = directory.resolve("x.safetensors");
    Files.writeString(target, "old");
    try (var writer = SafetensorsWriter.create(target, ENTRIES, Map.of("format", "pt"))) {
      writer.write("second", bytes(5, 100)); // in any order
      writer.write("first", MemorySegment.ofArray(new float[] {1, 2, 3, 4, 5, 6}));
      writer.write("none", bytes(0, 0));
      writer.write("scalar", bytes(1, 7));
      assertThat(target).content().isEqualTo("old");
      writer.commit();
    }
    assertThat(files()).containsExactly("x.safetensors");
    try (var store = TensorStore.open(target)) {
      assertThat(store.names()).containsExactly("first", "second", "none", "scalar");
      assertThat(store.info("first").shape()).containsExactly(2, 3);
      assertThat(store.info("first").offset() % 8).isZero();
      assertThat(store.info("scalar").shape()).isEmpty();
      assertThat(store.info("scalar").dataType()).isEqualTo(DataType.E4M3);
      var first = MemorySegment.ofArray(new float[6]);
      store.read("first", first);
      assertThat(first.toArray(ValueLayout.JAVA_FLOAT)).containsExactly(1, 2, 3, 4, 5, 6);
      var second = MemorySegment.ofArray(new byte[5]);
      store.read("second", second);
      assertThat(second.toArray(ValueLayout.JAVA_BYTE)).containsExactly(100, 101, 102, 103, 104);
    }
  }

  @Test
  void withoutCommitNothingIsLeft() throws IOException {
    var target = directory.resolve("x.safetensors");
    try (var writer = SafetensorsWriter.create(target, ENTRIES, Map.of())) {
      writer.write("second", bytes(5, 0));
      assertThatThrownBy(writer::commit).isInstanceOf(InvalidArgumentException.class)
          .hasMessageContaining("3 declared tensors were not written");
    }
    assertThat(files()).isEmpty();
  }

  @Test
  void misuseIsRefused() {
    var target = directory.resolve("x.safetensors");
    var writer = SafetensorsWriter.create(target, ENTRIES, Map.of());
    assertThatThrownBy(() -> writer.write("other", bytes(1, 0)))
        .isInstanceOf(InvalidArgumentException.class).hasMessageContaining("\"other\"");
    assertThatThrownBy(() -> writer.write("second", bytes(6, 0)))
        .isInstanceOf(InvalidArgumentException.class)
        .hasMessageContainingAll("\"second\"", "6 bytes", "5 declared");
    writer.write("second", bytes(5, 0));
    assertThatThrownBy(() -> writer.write("second", bytes(5, 0)))
        .isInstanceOf(InvalidArgumentException.class).hasMessageContaining("already written");
    writer.close();
    writer.close();
    assertThatThrownBy(() -> writer.write("first", bytes(24, 0)))
        .isInstanceOf(ClosedException.class);
    assertThatThrownBy(() -> SafetensorsWriter.create(target,
        List.of(ENTRIES.get(0), ENTRIES.get(0)), Map.of()))
        .isInstanceOf(InvalidArgumentException.class).hasMessageContaining("\"first\"");
    assertThatThrownBy(() -> SafetensorsWriter.create(target,
        List.of(new SafetensorsWriter.Entry("x", DataType.U8, -1)), Map.of()))
        .isInstanceOf(InvalidArgumentException.class).hasMessageContaining("-1");
  }

  @Test
  void aFolderThatIsMissingIsReported() {
    var target = directory.resolve("none").resolve("x.safetensors");
    assertThatThrownBy(() -> SafetensorsWriter.create(target, ENTRIES, Map.of()))
        .isInstanceOf(NibbleException.class)
        .hasMessageContainingAll("x.safetensors", "no such file");
  }
}
