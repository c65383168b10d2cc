// SPDX-License-Identifier: Apache-2.0
package dev.nibble.bench;

import java.util.LinkedHashMap;
import java.util.List;
import java.util.Locale;
import java.util.Map;

/** One page with everything in it: tables, pictures, and the results as JSON. */
final class HtmlReport {
  private static final String STYLE = """
      body { font: 15px/1.5 system-ui, sans-serif; max-width: 70rem; margin: 2rem auto;
             padding: 0 1rem; color: #1a1a1a; background: #fff; }
      h1 { font-size: 1.6rem; } h2 { font-size: 1.2rem; margin-top: 2.2rem; }
      table { border-collapse: collapse; margin: 0.8rem 0; }
      th, td { padding: 0.2rem 0.7rem; border-bottom: 1px solid #ddd; text-align: right; }
      th:first-child, td:first-child { text-align: left; }
      tr.memory td:last-child { color: #00507d; } tr.arithmetic td:last-child { color: #a34700; }
      figure { margin: 1rem 0; } svg { max-width: 100%; height: auto; }
      .wide { overflow-x: auto; } details { margin: 0.6rem 0; }
      """;

  private final StringBuilder out = new StringBuilder();

  private HtmlReport() {}

  /**
   * The page.
   *
   * @param environment names and values of the machine and versions
   * @param plots SVG documents by title
   * @param json all results, a JSON document
   */
  static String page(Map<String, Object> environment, NativeResults results,
      List<JavaAgainstNative> java, List<JmhRun.Result> jmh, Map<String, String> plots,
      String json) {
    var page = new HtmlReport();
    page.write(environment, results, java, jmh, plots, json);
    return page.out.toString();
  }

  private void write(Map<String, Object> environment, NativeResults results,
      List<JavaAgainstNative> java, List<JmhRun.Result> jmh, Map<String, String> plots,
      String json) {
    out.append("<!DOCTYPE html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">\n")
        .append("<title>Nibble: measured speed</title>\n<style>\n").append(STYLE)
        .append("</style></head><body>\n<h1>Nibble: measured speed</h1>\n");
    if (results.smoke()) {
      paragraph("This is a smoke run: it shows that everything works and measures nothing.");
    }
    pairs(environment);
    paragraph("Medians. A share of the limit compares with the least time that the machine's"
        + " measured rates of reading memory and of arithmetic allow, measured in the same"
        + " process next to the work. Operations count a multiply-add as two. Bytes are those of"
        + " the packed weights (or of keys and values); weights of up to 32 rows and caches come"
        + " from memory, not from the processor's caches.");
    limits(results);
    heading("Pictures");
    int number = 0;
    for (var plot : plots.entrySet()) {
      out.append("<figure role=\"img\" aria-label=\"")
          .append(escape(plot.getKey()).replace("\"", "&quot;")).append("\">\n")
          .append(inline(plot.getValue(), "plot" + number++ + "-")).append("</figure>\n");
    }
    models("Whole models", results.models());
    if (!java.isEmpty()) {
      javaCost(java);
    }
    gemm(results);
    attention(results);
    models("Threads", results.threadScaling());
    if (!jmh.isEmpty()) {
      calls(jmh);
    }
    if (!results.skipped().isEmpty()) {
      heading("Not measured");
      out.append("<ul>");
      results.skipped().stream().distinct()
          .forEach(s -> out.append("<li>").append(escape(s)).append("</li>"));
      out.append("</ul>\n");
    }
    heading("Everything, as JSON");
    // "<" cannot end the element early when it is written as an escape.
    out.append("<script type=\"application/json\" id=\"results\">\n")
        .append(json.replace("<", "\\u003c")).append("</script>\n")
        .append("<p>In this page's source, element <code>results</code>.</p>\n")
        .append("</body></html>\n");
  }

  private void limits(NativeResults results) {
    heading("The machine's limits");
    begin("threads", "read, GB/s", "byte dot products, Gop/s", "BF16 dot products, Gop/s",
        "F32, Gop/s", "best way of reading");
    for (var limit : results.limits()) {
      var best = limit.readKernels().getFirst();
      row("", limit.threads(), number(limit.read()), number(limit.byteDot()),
          limit.bf16() > 0 ? number(limit.bf16()) : "none", number(limit.fma()),
          best.streams() + " streams a thread, " + (best.prefetch() > 0
              ? best.prefetch() + " bytes ahead" : "no prefetch"));
    }
    end();
  }

  private void models(String title, List<NativeResults.Model> models) {
    if (models.isEmpty()) {
      return;
    }
    heading(title);
    begin("model", "scheme", "cache", "phase", "threads", "tokens", "behind", "tokens/s",
        "MB a pass", "share of the limit");
    for (var m : models) {
      row("", m.model(), m.scheme(), m.cache(), m.phase(), m.threads(), m.tokens(), m.context(),
          number(m.tokensPerSecond()), number(m.bytesPerPass() / 1e6), percent(m.share()));
    }
    end();
  }

  private void javaCost(List<JavaAgainstNative> all) {
    heading("What Java costs");
    paragraph("The same model decoded through dev.nibble.model.Session and by a C++ loop over the"
        + " C interface, in turn; the ratio is the median over the rounds' ratios.");
    begin("model, scheme", "tokens a round", "Java, tokens/s", "C++, tokens/s", "Java over C++",
        "bytes allocated");
    for (var j : all) {
      row("", j.model() + ", " + j.scheme(), j.tokens(), j.java(), j.nativeLoop(),
          String.format(Locale.ROOT, "%.3f", j.ratio().median()), j.allocatedBytes());
    }
    end();
  }

  private void gemm(NativeResults results) {
    heading("Products");
    paragraph("One table a shape: of each kernel the rate with so many rows, and its share of the"
        + " limit. Up to some rows memory is the limit, then arithmetic.");
    var shapes = new LinkedHashMap<String, List<NativeResults.Gemm>>();
    for (var g : results.gemm()) {
      shapes.computeIfAbsent(g.n() + " x " + g.k() + ": " + String.join(", ", g.matrices()),
          k -> new java.util.ArrayList<>()).add(g);
    }
    shapes.forEach((title, products) -> {
      out.append("<details><summary>").append(escape(title)).append("</summary>");
      begin("kernel", "rows", "time", "GB/s", "Gop/s", "limit", "share of the limit");
      for (var g : products) {
        row(g.memoryBound() ? "memory" : "arithmetic", g.kernel(), g.rows(), time(g.median()),
            number(g.gigabytes()), number(g.gigaops()),
            g.memoryBound() ? "memory" : "arithmetic", percent(g.share()));
      }
      end();
      out.append("</details>\n");
    });
  }

  private void attention(NativeResults results) {
    if (results.attention().isEmpty()) {
      return;
    }
    heading("Attention, one layer");
    begin("kernel", "model", "phase", "tokens", "time", "GB/s", "Gop/s", "limit",
        "share of the limit");
    for (var a : results.attention()) {
      row(a.memoryBound() ? "memory" : "arithmetic", a.kernel(), a.model(), a.phase(), a.tokens(),
          time(a.median()), number(a.gigabytes()), number(a.gigaops()),
          a.memoryBound() ? "memory" : "arithmetic", percent(a.share()));
    }
    end();
  }

  private void calls(List<JmhRun.Result> jmh) {
    heading("The Java side, by JMH");
    begin("benchmark", "parameters", "time", "± (99.9 %)", "allocated, bytes a call");
    for (var r : jmh) {
      row("", r.name(), r.parameters().toString(), number(r.score()) + " " + r.unit(),
          Double.isFinite(r.error()) ? number(r.error()) : "",
          Double.isFinite(r.allocated()) ? number(r.allocated()) : "");
    }
    end();
  }

  private void pairs(Map<String, Object> values) {
    out.append("<table>");
    values.forEach((name, value) -> out.append("<tr><td>").append(escape(name))
        .append("</td><td style=\"text-align:left\">").append(escape(String.valueOf(value)))
        .append("</td></tr>\n"));
    out.append("</table>\n");
  }

  private void heading(String text) {
    out.append("<h2>").append(escape(text)).append("</h2>\n");
  }

  private void paragraph(String text) {
    out.append("<p>").append(escape(text)).append("</p>\n");
  }

  private void begin(String... titles) {
    out.append("<div class=\"wide\"><table><tr>");
    for (var title : titles) {
      out.append("<th>").append(escape(title)).append("</th>");
    }
    out.append("</tr>\n");
  }

  private void row(String kind, Object... cells) {
    out.append(kind.isEmpty() ? "<tr>" : "<tr class=\"" + kind + "\">");
    for (var cell : cells) {
      out.append("<td>").append(escape(String.valueOf(cell))).append("</td>");
    }
    out.append("</tr>\n");
  }

  private void end() {
    out.append("</table></div>\n");
  }

  /**
   * An SVG document as an element of the page: without the XML declaration and document type, and
   * without the name spaces, which are URLs and mean nothing inside HTML. The names of its parts
   * get a prefix, since they must differ from those of the page's other pictures.
   */
  static String inline(String svg, String prefix) {
    return svg.substring(svg.indexOf("<svg"))
        .replaceAll("\\s+xmlns(:\\w+)?=\"[^\"]*\"", "")
        .replaceAll("\\bid=\"", "id=\"" + prefix)
        .replaceAll("url\\(#", "url(#" + prefix);
  }

  private static String escape(String text) {
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;");
  }

  /** Three significant digits. */
  static String number(double value) {
    double size = Math.abs(value);
    return String.format(Locale.ROOT, size >= 100 ? "%.0f" : size >= 10 ? "%.1f"
        : size >= 0.1 || size == 0 ? "%.2f" : "%.2g", value);
  }

  private static String percent(double share) {
    return String.format(Locale.ROOT, "%.0f %%", 100 * share);
  }

  private static String time(double seconds) {
    return seconds >= 1 ? number(seconds) + " s"
        : seconds >= 1e-3 ? number(1e3 * seconds) + " ms" : number(1e6 * seconds) + " µs";
  }
}
