// SPDX-License-Identifier: Apache-2.0
package dev.nibble.bench;

import static org.assertj.core.api.Assertions.assertThat;

import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.HashSet;
import javax.imageio.ImageIO;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;

class PlotsTest {

  // The first series' colours, as SVG writes them.
  private static final String FIRST = "rgb(0,114,178)";
  private static final String SECOND = "rgb(230,159,0)";
  private static final String THIRD = "rgb(0,158,115)";

  @Test
  void drawsEveryPictureTwice(@TempDir Path directory) throws IOException {
    var made = Plots.draw(TestFiles.nativeResults(), directory);
    assertThat(made.keySet())
        .containsExactly("share-of-limit", "roofline", "tokens-by-context", "threads");
    for (var name : made.keySet()) {
      var image = ImageIO.read(directory.resolve(name + ".png").toFile());
      assertThat(image.getWidth()).isGreaterThan(900);
      var colors = new HashSet<Integer>();
      for (int y = 0; y < image.getHeight(); y += 3) {
        for (int x = 0; x < image.getWidth(); x += 3) {
          colors.add(image.getRGB(x, y));
        }
      }
      // An empty chart has white, grid lines and the shades of text.
      assertThat(colors).as(name).hasSizeGreaterThan(20);
      assertThat(svg(directory, name)).contains("<svg").contains("</svg>");
    }
    // Text is drawn as outlines in SVG; the series have their colours.
    assertThat(svg(directory, "share-of-limit")).contains(FIRST).contains(SECOND)
        .doesNotContain(THIRD); // two row counts
    assertThat(svg(directory, "roofline")).contains(FIRST).contains(SECOND).contains(THIRD);
    assertThat(svg(directory, "tokens-by-context")).contains(FIRST).contains(SECOND)
        .doesNotContain(THIRD); // two schemes
    assertThat(svg(directory, "threads")).contains(THIRD); // two schemes in two phases
  }

  private static String svg(Path directory, String name) throws IOException {
    return Files.readString(directory.resolve(name + ".svg"));
  }
}
