// SPDX-License-Identifier: Apache-2.0
package dev.nibble.bench;

import static org.assertj.core.api.Assertions.assertThat;

import dev.nibble.io.Json;
import java.nio.charset.StandardCharsets;
import java.util.List;
import java.util.Map;
import org.junit.jupiter.api.Test;

class HtmlReportTest {

  private static final String SVG = """
      <?xml version="1.0" encoding="UTF-8" standalone="no"?>
      <!DOCTYPE svg PUBLIC "-//W3C//DTD SVG 1.0//EN"
        "http://www.w3.org/TR/2001/REC-SVG-20010904/DTD/svg10.dtd">
      <svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" \
      width="10"><clipPath id="clip1"/><text clip-path="url(#clip1)">hello</text></svg>""";

  private static String page() {
    var results = TestFiles.nativeResults();
    var json = new String(
        Json.write(Map.of("a", "</script><b>", "native", results.json())), StandardCharsets.UTF_8);
    return HtmlReport.page(Map.of("cpu", "Some <CPU> & more"), results, List.of(), List.of(
        new JmhRun.Result("CallBenchmark.downcall", Map.of(), 3.25, Double.NaN, "ns/op", 0)),
        Map.of("A picture", SVG), json);
  }

  @Test
  void needsNothingFromElsewhere() {
    var page = page();
    assertThat(page).doesNotContain("http:").doesNotContain("https:").doesNotContain("src=")
        .doesNotContain("href=").doesNotContain("@import");
    assertThat(page.replace("url(#", "")).doesNotContain("url(");
  }

  @Test
  void picturesKeepTheirNamesApart() {
    assertThat(HtmlReport.inline(SVG, "a-")).isEqualTo("<svg width=\"10\">"
        + "<clipPath id=\"a-clip1\"/><text clip-path=\"url(#a-clip1)\">hello</text></svg>");
    assertThat(page()).contains(HtmlReport.inline(SVG, "plot0-"))
        .contains("aria-label=\"A picture\"");
  }

  @Test
  void showsResultsAndEscapesThem() {
    var page = page();
    assertThat(page).contains("Some &lt;CPU&gt; &amp; more")
        .contains("gemm_f32_a8i_w4").contains("CallBenchmark.downcall").contains("3.25 ns/op")
        .contains("attention_kv_bf16").contains("This is a smoke run")
        .contains("gemm_f32_a8i_e5m2: ");
  }

  @Test
  void carriesTheJsonUnharmed() {
    var page = page();
    int begin = page.indexOf("id=\"results\">") + "id=\"results\">".length();
    var text = page.substring(begin, page.indexOf("</script>", begin));
    var back = Json.parseObject(text.strip().getBytes(StandardCharsets.UTF_8), "page");
    assertThat(back.get("a")).isEqualTo("</script><b>");
    assertThat(back.get("native")).isEqualTo(TestFiles.nativeResults().json());
  }

  @Test
  void numbersHaveThreeDigits() {
    assertThat(HtmlReport.number(1234.5)).isEqualTo("1235");
    assertThat(HtmlReport.number(12.34)).isEqualTo("12.3");
    assertThat(HtmlReport.number(0.123)).isEqualTo("0.12");
    assertThat(HtmlReport.number(0)).isEqualTo("0.00");
  }
}
