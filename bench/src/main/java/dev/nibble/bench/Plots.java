// SPDX-License-Identifier: Apache-2.0
package dev.nibble.bench;

import dev.nibble.InternalException;
import java.awt.BasicStroke;
import java.awt.Color;
import java.awt.Font;
import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.Comparator;
import java.util.LinkedHashMap;
import java.util.LinkedHashSet;
import java.util.List;
import java.util.Map;
import org.knowm.xchart.BitmapEncoder;
import org.knowm.xchart.CategoryChart;
import org.knowm.xchart.CategoryChartBuilder;
import org.knowm.xchart.VectorGraphicsEncoder;
import org.knowm.xchart.XYChart;
import org.knowm.xchart.XYChartBuilder;
import org.knowm.xchart.XYSeries;
import org.knowm.xchart.internal.chartpart.Chart;
import org.knowm.xchart.style.AxesChartStyler;
import org.knowm.xchart.style.Styler.LegendPosition;
import org.knowm.xchart.style.markers.SeriesMarkers;

/** The report's pictures, each as PNG and as SVG. */
final class Plots {
  private static final int WIDTH = 960;
  private static final int HEIGHT = 520;
  private static final int PNG_DPI = 144;
  /** Colours that people with the common kinds of colour blindness tell apart (Okabe and Ito). */
  private static final Color[] COLORS = {
    new Color(0x0072B2), new Color(0xE69F00), new Color(0x009E73), new Color(0xD55E00),
    new Color(0xCC79A7), new Color(0x56B4E9), new Color(0xB8A800), new Color(0x000000),
    new Color(0x7F7F7F), new Color(0x8C564B), new Color(0x4B0082)};

  /** The pictures by file name without its ending, with what they show. */
  private final Map<String, String> made = new LinkedHashMap<>();
  private final Path directory;

  private Plots(Path directory) {
    this.directory = directory;
  }

  /**
   * Draws what the results allow.
   *
   * @return file names without their ending, each with a title
   */
  static Map<String, String> draw(NativeResults results, Path directory) {
    System.setProperty("java.awt.headless", "true");
    try {
      Files.createDirectories(directory);
      var plots = new Plots(directory);
      if (!results.gemm().isEmpty()) {
        plots.share(results);
        plots.roofline(results);
      }
      plots.contexts(results);
      plots.threads(results);
      return plots.made;
    } catch (IOException e) {
      throw new InternalException("the plots cannot be written: " + e.getMessage(), e);
    } catch (UnsatisfiedLinkError | NoClassDefFoundError e) {
      throw fonts(e);
    } catch (InternalError | RuntimeException e) {
      if (String.valueOf(e.getMessage()).contains("ontconfig")) {
        throw fonts(e);
      }
      throw e;
    }
  }

  /** A JDK without fonts fails in many ways; the remedy is one. */
  private static InternalException fonts(Throwable e) {
    return new InternalException("the plots need fonts: install the packages fontconfig and"
        + " fonts-dejavu-core (" + e.getMessage() + ")", e);
  }

  /** Of every kernel the share of the limit, on the largest matrix that is not a head. */
  private void share(NativeResults results) throws IOException {
    var shape = results.gemm().stream()
        .filter(g -> !g.matrices().stream().allMatch(m -> m.endsWith(" head")))
        .max(Comparator.comparingLong(g -> g.n() * g.k()))
        .orElse(results.gemm().getFirst());
    var points = results.gemm().stream()
        .filter(g -> g.n() == shape.n() && g.k() == shape.k()).toList();
    var kernels = new ArrayList<>(new LinkedHashSet<>(
        points.stream().map(g -> name(g.kernel())).toList()));
    var title = "Share of the limit, " + shape.n() + " x " + shape.k() + " ("
        + shape.matrices().getFirst() + ")";
    CategoryChart chart = new CategoryChartBuilder().width(WIDTH).height(HEIGHT).title(title)
        .xAxisTitle("kernel").yAxisTitle("share of the limit, %").build();
    style(chart.getStyler());
    chart.getStyler().setAvailableSpaceFill(0.85);
    chart.getStyler().setYAxisMin(0.0);
    chart.getStyler().setXAxisLabelRotation(kernels.size() > 6 ? 20 : 0);
    for (long rows : points.stream().map(NativeResults.Gemm::rows).distinct().sorted().toList()) {
      var values = new ArrayList<Double>();
      for (var kernel : kernels) {
        values.add(points.stream()
            .filter(g -> g.rows() == rows && name(g.kernel()).equals(kernel))
            .map(g -> 100 * g.share()).findFirst().orElse(null));
      }
      chart.addSeries(rows == 1 ? "1 row" : rows + " rows", kernels, values);
    }
    save(chart, "share-of-limit", title);
  }

  /** Operations a second against operations a byte of weights: 1 to many rows, left to right. */
  private void roofline(NativeResults results) throws IOException {
    var title = "Roofline, " + results.threads() + " threads";
    XYChart chart = new XYChartBuilder().width(WIDTH).height(HEIGHT).title(title)
        .xAxisTitle("operations a byte of packed weights").yAxisTitle("Gop/s").build();
    style(chart.getStyler());
    chart.getStyler().setXAxisLogarithmic(true);
    chart.getStyler().setYAxisLogarithmic(true);
    var limit = results.limit();
    double most = results.gemm().stream().mapToDouble(Plots::intensity).max().orElseThrow();
    double least = results.gemm().stream().mapToDouble(Plots::intensity).min().orElseThrow();
    roof(chart, "byte dot products", least, most, limit.read(), limit.byteDot(), 9, 5);
    roof(chart, "F32", least, most, limit.read(), limit.fma(), 1, 0);
    if (limit.bf16() > 0) {
      roof(chart, "BF16 dot products", least, most, limit.read(), limit.bf16(), 3, 3);
    }
    int color = 0;
    for (var kernel : new LinkedHashSet<>(
        results.gemm().stream().map(NativeResults.Gemm::kernel).toList())) {
      var points = results.gemm().stream().filter(g -> g.kernel().equals(kernel)).toList();
      var series = chart.addSeries(name(kernel),
          points.stream().mapToDouble(Plots::intensity).toArray(),
          points.stream().mapToDouble(NativeResults.Gemm::gigaops).toArray());
      series.setXYSeriesRenderStyle(XYSeries.XYSeriesRenderStyle.Scatter);
      series.setMarker(SeriesMarkers.CIRCLE);
      series.setMarkerColor(COLORS[color++ % COLORS.length]);
    }
    save(chart, "roofline", title);
  }

  private static double intensity(NativeResults.Gemm g) {
    return 2.0 * g.rows() * g.n() * g.k() / g.bytes();
  }

  /** The last two: lengths of the line's dashes and of what is left out between them. */
  private static void roof(XYChart chart, String name, double least, double most, double read,
      double compute, float dash, float gap) {
    double ridge = Math.clamp(compute / read, least, most);
    var series = chart.addSeries("limit: " + name, new double[] {least, ridge, most},
        new double[] {Math.min(least * read, compute), Math.min(ridge * read, compute),
          Math.min(most * read, compute)});
    series.setMarker(SeriesMarkers.NONE);
    series.setLineColor(Color.GRAY);
    series.setLineStyle(new BasicStroke(1.5f, BasicStroke.CAP_BUTT, BasicStroke.JOIN_MITER, 10,
        gap > 0 ? new float[] {dash, gap} : null, 0));
  }

  /** Tokens a second of decode against the tokens in the cache. */
  private void contexts(NativeResults results) throws IOException {
    var decodes = results.models().stream().filter(m -> m.phase().equals("decode")).toList();
    if (decodes.isEmpty()) {
      return;
    }
    var title = "Decode behind a context, " + decodes.getFirst().model();
    XYChart chart = new XYChartBuilder().width(WIDTH).height(HEIGHT).title(title)
        .xAxisTitle("tokens in the cache").yAxisTitle("tokens/s").build();
    style(chart.getStyler());
    chart.getStyler().setYAxisMin(0.0);
    var first = decodes.getFirst().model();
    lines(chart, decodes.stream().filter(m -> m.model().equals(first)).toList(), "",
        NativeResults.Model::context);
    save(chart, "tokens-by-context", title);
  }

  /** Tokens a second against threads. */
  private void threads(NativeResults results) throws IOException {
    if (results.threadScaling().isEmpty()) {
      return;
    }
    var title = "Threads, " + results.threadScaling().getFirst().model();
    XYChart chart = new XYChartBuilder().width(WIDTH).height(HEIGHT).title(title)
        .xAxisTitle("threads").yAxisTitle("tokens/s").build();
    style(chart.getStyler());
    chart.getStyler().setYAxisLogarithmic(true);
    chart.getStyler().setXAxisDecimalPattern("0");
    chart.getStyler().setXAxisMaxLabelCount(Math.max(2, results.threads()));
    for (var phase : List.of("decode", "prefill")) {
      lines(chart, results.threadScaling().stream().filter(m -> m.phase().equals(phase)).toList(),
          " " + phase, NativeResults.Model::threads);
    }
    save(chart, "threads", title);
  }

  private static void lines(XYChart chart, List<NativeResults.Model> points, String suffix,
      java.util.function.ToLongFunction<NativeResults.Model> x) {
    for (var scheme : new LinkedHashSet<>(
        points.stream().map(NativeResults.Model::scheme).toList())) {
      var line = points.stream().filter(m -> m.scheme().equals(scheme))
          .sorted(Comparator.comparingLong(x)).toList();
      chart.addSeries(scheme + suffix, line.stream().mapToDouble(x::applyAsLong).toArray(),
              line.stream().mapToDouble(NativeResults.Model::tokensPerSecond).toArray())
          .setMarker(SeriesMarkers.CIRCLE);
    }
  }

  private static String name(String kernel) {
    return kernel.replaceFirst("^gemm_f32_", "");
  }

  private static void style(AxesChartStyler styler) {
    styler.setChartBackgroundColor(Color.WHITE);
    styler.setPlotBackgroundColor(Color.WHITE);
    styler.setPlotGridLinesColor(new Color(0xDDDDDD));
    styler.setLegendPosition(LegendPosition.OutsideE);
    styler.setLegendBorderColor(Color.WHITE);
    styler.setSeriesColors(COLORS);
    var font = new Font(Font.SANS_SERIF, Font.PLAIN, 12);
    styler.setBaseFont(font);
    styler.setLegendFont(font);
    styler.setAxisTickLabelsFont(font);
    styler.setAxisTitleFont(font);
    styler.setChartTitleFont(font.deriveFont(Font.BOLD, 14f));
  }

  private void save(Chart<?, ?> chart, String name, String title) throws IOException {
    var file = directory.resolve(name).toString();
    BitmapEncoder.saveBitmapWithDPI(chart, file, BitmapEncoder.BitmapFormat.PNG, PNG_DPI);
    VectorGraphicsEncoder.saveVectorGraphic(
        chart, file, VectorGraphicsEncoder.VectorGraphicsFormat.SVG);
    made.put(name, title);
  }
}
