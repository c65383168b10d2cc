// SPDX-License-Identifier: Apache-2.0
package dev.nibble.quantize;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;
import static org.assertj.core.api.Assertions.within;

import dev.nibble.InvalidArgumentException;
import dev.nibble.generate.Comparison;
import dev.nibble.io.ModelSource;
import dev.nibble.model.LlamaModel;
import dev.nibble.model.LoadOptions;
import dev.nibble.model.Models;
import java.nio.file.Path;
import java.util.List;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;

class OutlierModelTest {
  @TempDir Path directory;

  @Test
  void outliersChangeNothingInF32AndRuinRoundToNearest() {
    try (var source = ModelSource.embedded(); var original = Models.fable("f32")) {
      OutlierModel.write(source, directory);
      var tokens = original.tokenizer().orElseThrow().encode(Models.tales());
      var windows = Comparison.windows(tokens, 512);
      var options = LoadOptions.defaults();
      try (var same = LlamaModel.load(directory, options.withScheme("f32"));
          var plain = Models.fable("w4a8");
          var rounded = LlamaModel.load(directory, options.withScheme("w4a8"))) {
        var exact = compare(original, same, windows);
        assertThat(exact.meanKlDivergence()).isCloseTo(0, within(1e-9));
        assertThat(exact.topOneAgreement()).isEqualTo(1);
        double without = compare(original, plain, windows).meanNegativeLogLikelihood();
        double with = compare(original, rounded, windows).meanNegativeLogLikelihood();
        assertThat(without - exact.meanNegativeLogLikelihood()).isBetween(0.02, 0.08);
        assertThat(with - exact.meanNegativeLogLikelihood()).isGreaterThan(1);
      }
    }
  }

  private static Comparison compare(LlamaModel original, LlamaModel model, List<int[]> windows) {
    return Comparison.measure(original, model, windows, (what, done, total) -> { });
  }

  @Test
  void aFileIsNoDirectory() {
    try (var source = ModelSource.embedded()) {
      assertThatThrownBy(() -> OutlierModel.write(source, directory.resolve("missing")))
          .isInstanceOf(InvalidArgumentException.class)
          .hasMessageContainingAll("missing", "expected an empty directory");
    }
  }
}
