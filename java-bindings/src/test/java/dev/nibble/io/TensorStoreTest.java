// SPDX-License-Identifier: Apache-2.0
package dev.nibble.io;

import static dev.nibble.io.SafetensorsBytes.entry;
import static dev.nibble.io.SafetensorsBytes.file;
import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;

import dev.nibble.ClosedException;
import dev.nibble.InvalidArgumentException;
import dev.nibble.ModelFormatException;
import java.io.IOException;
import java.io.RandomAccessFile;
import java.lang.foreign.Arena;
import java.lang.foreign.MemorySegment;
import java.lang.foreign.ValueLayout;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.stream.Stream;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.Arguments;
import org.junit.jupiter.params.provider.MethodSource;

class TensorStoreTest {

  @TempDir private Path directory;

  @Test
  void validFileIsRead() throws IOException {
    var path = SafetensorsBytes.write(directory.resolve("x.safetensors"), SafetensorsBytes.valid());
    try (var store = TensorStore.open(path); var arena = Arena.ofConfined()) {
      assertThat(store.names()).containsExactly("a", "b", "empty");
      assertThat(store.has("a")).isTrue();
      assertThat(store.has("__metadata__")).isFalse();
      var a = store.info("a");
      assertThat(a.dataType()).isEqualTo(DataType.F32);
      assertThat(a.shape()).containsExactly(2, 3);
      assertThat(a.byteLength()).isEqualTo(24);
      assertThat(a.elements()).isEqualTo(6);
      assertThat(a.file()).endsWith("x.safetensors");

      var off = arena.allocate(5).asSlice(1, 4); // any alignment
      store.read("b", off);
      assertThat(off.toArray(ValueLayout.JAVA_BYTE)).containsExactly(24, 25, 26, 27);
      var heap = MemorySegment.ofArray(new byte[24]);
      store.read("a", heap);
      assertThat(heap.get(ValueLayout.JAVA_BYTE, 23)).isEqualTo((byte) 23);
      var floats = MemorySegment.ofArray(new int[6]);
      store.read("a", floats);
      assertThat(floats.get(ValueLayout.JAVA_BYTE, 23)).isEqualTo((byte) 23);
      store.read("empty", MemorySegment.ofArray(new byte[0]));
    }
  }

  @Test
  void tensorsMayLieInAnyOrder() {
    var bytes = file("{" + entry("late", "U8", "[2]", "[2,4]") + ","
        + entry("early", "U8", "[2]", "[0,2]") + "}", 4);
    try (var store = TensorStore.of("x", bytes)) {
      var segment = MemorySegment.ofArray(new byte[2]);
      store.read("late", segment);
      assertThat(segment.toArray(ValueLayout.JAVA_BYTE)).containsExactly(2, 3);
    }
  }

  @Test
  void aFileWithoutTensorsIsLegal() {
    try (var store = TensorStore.of("x", file("{}", 0))) {
      assertThat(store.names()).isEmpty();
    }
  }

  /** Content, and what the message must say: file, tensor, field, value. */
  static Stream<Arguments> malformed() {
    var huge = "[9223372036854775807,2]";
    return Stream.of(
        Arguments.of("empty", new byte[0], new String[] {"is empty"}),
        Arguments.of("seven bytes", new byte[7], new String[] {"7 bytes", "at least 8"}),
        Arguments.of("header beyond the file", file(1000, "{}".getBytes(), 0),
            new String[] {"header length 1000", "2 bytes"}),
        Arguments.of("header length with the top bit set", file(-2, "{}".getBytes(), 0),
            new String[] {"header length 18446744073709551614"}),
        Arguments.of("header longer than the limit", file(new byte[Json.MAX_BYTES + 1], 0),
            new String[] {"header length 16777217", "at most 16777216"}),
        Arguments.of("header not UTF-8", file(new byte[] {'{', '"', (byte) 0xC3, '"', '}'}, 0),
            new String[] {"header", "UTF-8"}),
        Arguments.of("header in UTF-16", file("{}".getBytes(StandardCharsets.UTF_16LE), 0),
            new String[] {"header", "not JSON"}),
        Arguments.of("header not JSON", file("{\"a\":", 0), new String[] {"header", "not JSON"}),
        Arguments.of("header empty", file("", 0), new String[] {"header", "empty"}),
        Arguments.of("header an array", file("[]", 0),
            new String[] {"header", "an array", "expected an object"}),
        Arguments.of("text after the header", file("{} {}", 0),
            new String[] {"header", "more text"}),
        Arguments.of("duplicate name", file("{" + entry("a", "U8", "[2]", "[0,2]") + ","
            + entry("a", "U8", "[2]", "[2,4]") + "}", 4), new String[] {"Duplicate", "'a'"}),
        Arguments.of("duplicate field", file("{\"a\":{\"dtype\":\"U8\",\"dtype\":\"U8\"}}", 0),
            new String[] {"Duplicate", "'dtype'"}),
        Arguments.of("entry not an object", file("{\"a\":3}", 0),
            new String[] {"\"a\"", "an integer", "an object"}),
        Arguments.of("metadata not an object", file("{\"__metadata__\":[]}", 0),
            new String[] {"__metadata__", "an array"}),
        Arguments.of("metadata not text", file("{\"__metadata__\":{\"k\":1}}", 0),
            new String[] {"__metadata__", "\"k\"", "an integer"}),
        Arguments.of("dtype unknown", file("{" + entry("a", "F128", "[1]", "[0,16]") + "}", 16),
            new String[] {"\"a\"", "dtype", "\"F128\"", "BF16"}),
        Arguments.of("dtype missing",
            file("{\"a\":{\"shape\":[1],\"data_offsets\":[0,1]}}", 1),
            new String[] {"\"a\"", "dtype", "null"}),
        Arguments.of("dtype a number",
            file("{\"a\":{\"dtype\":8,\"shape\":[1],\"data_offsets\":[0,1]}}", 1),
            new String[] {"\"a\"", "dtype", "8"}),
        Arguments.of("shape missing",
            file("{\"a\":{\"dtype\":\"U8\",\"data_offsets\":[0,1]}}", 1),
            new String[] {"\"a\"", "shape", "missing"}),
        Arguments.of("shape an object", file("{" + entry("a", "U8", "{}", "[0,1]") + "}", 1),
            new String[] {"\"a\"", "shape", "an object"}),
        Arguments.of("shape times type overflows",
            file("{" + entry("a", "F32", huge, "[0,8]") + "}", 8),
            new String[] {"\"a\"", "shape", "9223372036854775807", "64 bits"}),
        Arguments.of("shape times type wraps to the length",
            file("{" + entry("a", "U8", "[4294967296,4294967296]", "[0,0]") + "}", 0),
            new String[] {"\"a\"", "shape", "4294967296", "64 bits"}),
        Arguments.of("dimension negative",
            file("{" + entry("a", "U8", "[-4,-2]", "[0,8]") + "}", 8),
            new String[] {"\"a\"", "shape", "-4"}),
        Arguments.of("dimension beyond 64 bits",
            file("{" + entry("a", "U8", "[18446744073709551617]", "[0,1]") + "}", 1),
            new String[] {"\"a\"", "shape", "18446744073709551617"}),
        Arguments.of("dimension fractional",
            file("{" + entry("a", "U8", "[2.0]", "[0,2]") + "}", 2),
            new String[] {"\"a\"", "shape", "2.0"}),
        Arguments.of("dimension with an exponent",
            file("{" + entry("a", "U8", "[1e400]", "[0,2]") + "}", 2),
            new String[] {"header", "1e400"}),
        Arguments.of("dimension a text", file("{" + entry("a", "U8", "[\"2\"]", "[0,2]") + "}", 2),
            new String[] {"\"a\"", "shape", "\"2\""}),
        Arguments.of("too many dimensions",
            file("{" + entry("a", "U8", "[1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1]", "[0,1]") + "}", 1),
            new String[] {"\"a\"", "shape", "17 dimensions"}),
        Arguments.of("offsets missing",
            file("{\"a\":{\"dtype\":\"U8\",\"shape\":[1]}}", 1),
            new String[] {"\"a\"", "data_offsets", "missing"}),
        Arguments.of("one offset", file("{" + entry("a", "U8", "[1]", "[0]") + "}", 1),
            new String[] {"\"a\"", "data_offsets", "[0]", "two"}),
        Arguments.of("offsets reversed", file("{" + entry("a", "U8", "[2]", "[2,0]") + "}", 2),
            new String[] {"\"a\"", "data_offsets", "[2, 0]", "after"}),
        Arguments.of("offset negative", file("{" + entry("a", "U8", "[2]", "[-2,0]") + "}", 2),
            new String[] {"\"a\"", "data_offsets", "-2"}),
        Arguments.of("offsets beyond the file",
            file("{" + entry("a", "U8", "[100]", "[0,100]") + "}", 99),
            new String[] {"\"a\"", "data_offsets", "[0, 100]", "99"}),
        Arguments.of("offsets at the end of 64 bits", file("{" + entry("a", "U8", "[1]",
            "[9223372036854775806,9223372036854775807]") + "}", 2),
            new String[] {"\"a\"", "data_offsets", "9223372036854775807"}),
        Arguments.of("length is not shape times size",
            file("{" + entry("a", "F16", "[3]", "[0,8]") + "}", 8),
            new String[] {"\"a\"", "data_offsets", "8 bytes", "[3]", "needs 6"}),
        Arguments.of("overlap", file("{" + entry("a", "U8", "[4]", "[0,4]") + ","
            + entry("b", "U8", "[4]", "[2,6]") + "}", 6),
            new String[] {"\"b\"", "begin at 2", "ends at 4"}),
        Arguments.of("the same bytes twice", file("{" + entry("a", "U8", "[4]", "[0,4]") + ","
            + entry("b", "U8", "[4]", "[0,4]") + "}", 4),
            new String[] {"\"b\"", "begin at 0", "ends at 4"}),
        Arguments.of("hole at the start", file("{" + entry("a", "U8", "[2]", "[2,4]") + "}", 4),
            new String[] {"\"a\"", "begin at 2", "hole", "0"}),
        Arguments.of("hole between", file("{" + entry("a", "U8", "[2]", "[0,2]") + ","
            + entry("b", "U8", "[2]", "[3,5]") + "}", 5), new String[] {"\"b\"", "hole", "2"}),
        Arguments.of("hole at the end", file("{" + entry("a", "U8", "[2]", "[0,2]") + "}", 3),
            new String[] {"end at byte 2", "expected 3"}),
        Arguments.of("nesting too deep",
            file("{\"a\":" + "[".repeat(2000) + "]".repeat(2000) + "}", 0),
            new String[] {"header", "depth"}));
  }

  @ParameterizedTest(name = "{0}")
  @MethodSource("malformed")
  void malformedFileIsOneLineThatNamesTheProblem(String name, byte[] bytes, String[] parts) {
    var path = SafetensorsBytes.write(directory.resolve("bad.safetensors"), bytes);
    assertThatThrownBy(() -> TensorStore.open(path))
        .isExactlyInstanceOf(ModelFormatException.class)
        .message().contains("bad.safetensors").contains(parts).doesNotContain("\n")
        .hasSizeLessThan(600);
  }

  @Test
  void truncationAtEveryByteIsReported() {
    var valid = SafetensorsBytes.valid();
    for (int length = 0; length < valid.length; length++) {
      var cut = java.util.Arrays.copyOf(valid, length);
      assertThatThrownBy(() -> TensorStore.of("cut", cut))
          .as("cut to %d bytes", length).isInstanceOf(ModelFormatException.class);
    }
  }

  @Test
  void namesFromTheFileCannotWriteToTheTerminal() {
    var bytes = file("{\"\\u001b[2J\\u202e\\n\":3}", 0);
    assertThatThrownBy(() -> TensorStore.of("x", bytes)).isInstanceOf(ModelFormatException.class)
        .message().doesNotContain("\u001b").doesNotContain("\u202e").doesNotContain("\n");
  }

  @Test
  void missingFileAndDirectoryAreReported() throws IOException {
    assertThatThrownBy(() -> TensorStore.open(directory.resolve("none.safetensors")))
        .isInstanceOf(ModelFormatException.class)
        .hasMessageContainingAll("none.safetensors", "no such file");
    assertThatThrownBy(() -> TensorStore.open(directory)).isInstanceOf(ModelFormatException.class)
        .hasMessageContainingAll(directory.toString(), "is a directory");
  }

  @Test
  void truncationBetweenOpeningAndReadingIsReported() throws IOException {
    var path = SafetensorsBytes.write(directory.resolve("x.safetensors"), SafetensorsBytes.valid());
    try (var store = TensorStore.open(path)) {
      try (var file = new RandomAccessFile(path.toFile(), "rw")) {
        file.setLength(file.length() - 10);
      }
      assertThatThrownBy(() -> store.read("a", MemorySegment.ofArray(new byte[24])))
          .isInstanceOf(ModelFormatException.class)
          .hasMessageContainingAll("x.safetensors", "ends at byte", "expected 6 more");
    }
  }

  @Test
  void misuseIsReported() {
    var store = TensorStore.of("x", SafetensorsBytes.valid());
    assertThatThrownBy(() -> store.info("c")).isInstanceOf(ModelFormatException.class)
        .hasMessage("x: tensor \"c\": missing");
    assertThatThrownBy(() -> store.read("c", MemorySegment.NULL))
        .isInstanceOf(ModelFormatException.class).hasMessageContaining("\"c\"");
    assertThatThrownBy(() -> store.read("b", MemorySegment.ofArray(new byte[5])))
        .isInstanceOf(InvalidArgumentException.class)
        .hasMessageContainingAll("5 bytes", "\"b\"", "4");
    store.close();
    store.close();
    assertThatThrownBy(() -> store.read("b", MemorySegment.ofArray(new byte[4])))
        .isInstanceOf(ClosedException.class);
  }

  @Test
  void aSymbolicLinkToAFileIsFollowed() throws IOException {
    var path = SafetensorsBytes.write(directory.resolve("x"), SafetensorsBytes.valid());
    var link = Files.createSymbolicLink(directory.resolve("link.safetensors"), path);
    try (var store = TensorStore.open(link)) {
      assertThat(store.has("a")).isTrue();
    }
  }
}
