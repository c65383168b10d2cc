// SPDX-License-Identifier: Apache-2.0
package dev.nibble.bench;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;

import dev.nibble.InvalidArgumentException;
import dev.nibble.quantize.ActivationType;
import dev.nibble.quantize.CodeType;
import dev.nibble.quantize.WeightFormat;
import java.nio.file.Path;
import java.util.List;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.CsvSource;

class ShapeListTest {

  private static final String KERNEL =
      "kernel a8i_w4 code i4 scale e4m3 group 128 activation i8";
  private static final String MATRIX = "matrix m q 32 64";

  @Test
  void readsTheListOfTheRepository() {
    var list = ShapeList.read(Path.of(System.getProperty("nibble.bench.shapes")));
    assertThat(list.rows()).containsExactly(1, 2, 4, 8, 16, 32, 128, 512);
    assertThat(list.matrices()).hasSize(24);
    assertThat(list.matrix("llama-3-8b down")).isEqualTo(new ShapeList.Matrix(4096, 14336));
    var kernel = list.kernel("a8i_w4");
    assertThat(kernel.format()).isEqualTo(WeightFormat.W4);
    assertThat(kernel.activations()).isEqualTo(ActivationType.A8I);
    assertThat(list.kernel("a16_w6e3m2").format().code()).isEqualTo(CodeType.E3M2);
    assertThatThrownBy(() -> list.kernel("none"))
        .isInstanceOf(InvalidArgumentException.class)
        .hasMessageStartingWith("kernel: \"none\" given, expected one of a8f_w4, a8i_w4, ");
  }

  @ParameterizedTest
  @CsvSource(delimiter = '|', value = {
    "rows 0            | list:1: rows: \"0\" given, expected 1 to 2147483647",
    "rows x            | list:1: rows: \"x\" given, expected 1 to 2147483647",
    "rows 9999999999   | list:1: rows: \"9999999999\" given, expected 1 to 2147483647",
    "row 1             | list:1: \"row\" given, expected rows, keys, contexts, kernel, scheme,",
    "kernel a code     | list:1: the line ends after \"code\"",
    "kernel a kode i4  | list:1: \"kode\" given, expected \"code\"",
    "kernel a code i5  | list:1: code: \"i5\" given, expected a type of nibble.h",
    "matrix m q 1      | list:1: the line ends after \"1\"",
    "matrix m q 32 64  | list:3: \"m q\" is there already",
  })
  void errorsNameTheLine(String first, String message) {
    assertThatThrownBy(() -> ShapeList.parse(List.of(first, KERNEL, MATRIX), "list"))
        .isInstanceOf(InvalidArgumentException.class)
        .hasMessageStartingWith(message);
  }

  @Test
  void everyPartIsNeeded() {
    assertThat(ShapeList.parse(List.of("rows 1", KERNEL, MATRIX), "list").rows())
        .containsExactly(1);
    assertThatThrownBy(() -> ShapeList.parse(List.of(KERNEL, MATRIX), "list"))
        .hasMessage("list: has no line \"rows\"");
    assertThatThrownBy(() -> ShapeList.read(Path.of("/nonexistent/list")))
        .hasMessageStartingWith("/nonexistent/list: cannot be read");
  }
}
