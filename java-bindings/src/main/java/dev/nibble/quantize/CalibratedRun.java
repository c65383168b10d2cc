// SPDX-License-Identifier: Apache-2.0
package dev.nibble.quantize;

import dev.nibble.io.CheckpointNames;
import dev.nibble.io.DataType;
import dev.nibble.io.ModelSource;
import dev.nibble.io.SafetensorsWriter;
import dev.nibble.io.TensorInfo;
import dev.nibble.io.TensorStore;
import dev.nibble.model.LlamaConfig;
import dev.nibble.tensor.Context;
import dev.nibble.tensor.Tensor;
import java.io.IOException;
import java.lang.foreign.Arena;
import java.lang.foreign.MemorySegment;
import java.lang.foreign.ValueLayout;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.List;
import java.util.Map;

/** One run of {@link PostTrainingQuantizer} with calibration: block by block, through a journal. */
final class CalibratedRun {
  private static final String CACHE = "cache";
  private static final String KEY_SCALES = "key_scales";

  private final ModelSource in;
  private final Recipe recipe;
  private final Calibration calibration;
  private final Context context;
  private final PostTrainingQuantizer.Listener listener;
  private final LlamaConfig config;
  private final WorkEstimate work;

  CalibratedRun(ModelSource in, Recipe recipe, Calibration calibration, Context context,
      PostTrainingQuantizer.Listener listener) {
    this.in = in;
    this.recipe = recipe;
    this.calibration = calibration;
    this.context = context;
    this.listener = listener;
    this.config = LlamaConfig.read(in);
    this.work = new WorkEstimate(config, recipe, calibration.tokens());
  }

  void run(Path out) throws IOException {
    var configBytes = Quantizer.quantizedConfig(in, recipe.scheme());
    CalibrationCheck.check(calibration, config);
    Files.createDirectories(out.getParent());
    try (var store = in.tensors();
        var journal = Journal.open(out, RunKey.of(in, store, recipe, calibration))) {
      if (journal.replaced()) {
        listener.restarted();
      }
      quantizeLayers(store, journal);
      OutputDirectory.make(in, out, temporary -> {
        assemble(store, journal, temporary.resolve(CheckpointNames.WEIGHTS));
        Files.write(temporary.resolve(CheckpointNames.CONFIG), configBytes);
      });
      journal.delete();
    }
    listener.progress("", work.total(), work.total());
  }

  // ---- blocks -------------------------------------------------------------------------------

  private void quantizeLayers(TensorStore store, Journal journal) {
    int first = journal.finished(config.layers());
    if (first > 0) {
      listener.resumed(first, config.layers());
    }
    if (first == config.layers()) {
      return;
    }
    boolean twoStreams = recipe.compensation() == Compensation.GPTQ;
    listener.progress("embedding", 0, work.total());
    try (var states = first > 0
            ? newStates() : LayerWeights.embed(store, context, config, calibration);
        var quantizedStates = twoStreams ? newStates() : null;
        var quantizer = new LayerQuantizer(context, config, recipe, calibration)) {
      if (first > 0) {
        journal.readStates(first, states, quantizedStates);
      } else if (twoStreams) {
        MemorySegment.copy(states.segment(), 0, quantizedStates.segment(), 0, states.byteSize());
      }
      for (int layer = first; layer < config.layers(); layer++) {
        quantizeLayer(store, journal, quantizer, layer, states, quantizedStates);
        journal.writeStates(layer + 1, states, quantizedStates);
      }
    }
  }

  private Tensor newStates() {
    return Tensor.allocate(DataType.F32, calibration.tokens(), config.hiddenSize());
  }

  private void quantizeLayer(TensorStore store, Journal journal, LayerQuantizer quantizer,
      int layer, Tensor states, Tensor quantizedStates) {
    listener.progress("layer " + layer + ": reading", work.done(layer, ""), work.total());
    try (var weights = LayerWeights.read(store, config, layer, context);
        var writer = SafetensorsWriter.create(
            journal.layer(layer), layerEntries(weights), Map.of())) {
      var cache = quantizer.quantize(weights, states, quantizedStates,
          step -> listener.progress(
              "layer " + layer + ": " + step, work.done(layer, step), work.total()),
          (name, quantized) -> CanonicalParts.write(writer, name, quantized));
      weights.vectors().forEach((name, vector) -> writer.write(name, vector.segment()));
      boolean scaled = cache.keyScales() != null;
      var ones = new float[config.kvSize()];
      Arrays.fill(ones, 1);
      write(writer, CACHE,
          new float[] {cache.keyFactor(), cache.valueFactor(), scaled ? 1 : 0});
      write(writer, KEY_SCALES, scaled ? cache.keyScales() : ones);
      writer.commit();
    }
  }

  private List<SafetensorsWriter.Entry> layerEntries(LayerWeights weights) {
    var entries = new ArrayList<SafetensorsWriter.Entry>();
    for (var projection : LayerWeights.PROJECTIONS) {
      var name = weights.fileName(projection);
      var matrix = weights.matrix(projection);
      entries.addAll(CanonicalParts.entries(
          name, recipe.scheme().formatOf(name), matrix.dim(0), matrix.dim(1)));
    }
    weights.vectors().forEach((name, vector) ->
        entries.add(new SafetensorsWriter.Entry(name, DataType.F32, vector.shape())));
    entries.add(new SafetensorsWriter.Entry(CACHE, DataType.F32, 3));
    entries.add(new SafetensorsWriter.Entry(KEY_SCALES, DataType.F32, config.kvSize()));
    return entries;
  }

  private static void write(SafetensorsWriter writer, String name, float[] values) {
    try (var tensor = Tensor.of(values, values.length)) {
      writer.write(name, tensor.segment());
    }
  }

  // ---- the whole ----------------------------------------------------------------------------

  /** The blocks from the journal, the embedding and the head quantized, all else copied. */
  private void assemble(TensorStore store, Journal journal, Path file) {
    listener.progress("writing", work.done(config.layers(), ""), work.total());
    var plain = new Quantizer(in, recipe.scheme(), context, (tensor, done, total) -> {});
    var layers = journal.openLayers(config.layers());
    try {
      var entries = new ArrayList<SafetensorsWriter.Entry>();
      var rest = new ArrayList<TensorInfo>();
      for (var layer : layers) {
        for (var name : layer.names()) {
          var info = layer.info(name);
          if (belongs(name)) {
            entries.add(new SafetensorsWriter.Entry(name, info.dataType(), info.shape()));
          }
        }
      }
      var replaced = LayerWeights.names(config);
      for (var name : store.names()) {
        if (!replaced.contains(name)) {
          rest.add(store.info(name));
          plain.addEntries(store.info(name), entries);
        }
      }
      var cache = new ModelCache(layers);
      cache.addEntries(entries);
      var metadata = Map.of("format", "pt", "scheme", recipe.name());
      try (var writer = SafetensorsWriter.create(file, entries, metadata)) {
        for (var layer : layers) {
          for (var name : layer.names()) {
            if (belongs(name)) {
              copy(layer, name, writer);
            }
          }
        }
        for (var info : rest) {
          plain.write(store, info, writer);
        }
        cache.write(writer);
        writer.commit();
      }
    } finally {
      layers.forEach(TensorStore::close);
    }
  }

  private static boolean belongs(String name) {
    return !name.equals(CACHE) && !name.equals(KEY_SCALES);
  }

  private static void copy(TensorStore store, String name, SafetensorsWriter writer) {
    try (var arena = Arena.ofConfined()) {
      var bytes = arena.allocate(store.info(name).byteLength());
      store.read(name, bytes);
      writer.write(name, bytes);
    }
  }

  /** The cache's tensors of all blocks together; one that no block needs is left out. */
  private final class ModelCache {
    private final float[] keyFactors = new float[config.layers()];
    private final float[] valueFactors = new float[config.layers()];
    private final float[] keyScales = new float[config.layers() * config.kvSize()];
    private boolean factors = true;
    private boolean scaled;

    ModelCache(List<TensorStore> layers) {
      for (int i = 0; i < layers.size(); i++) {
        var cache = floats(layers.get(i), CACHE);
        keyFactors[i] = cache[0];
        valueFactors[i] = cache[1];
        factors &= cache[0] > 0 && cache[1] > 0;
        scaled |= cache[2] != 0;
        System.arraycopy(floats(layers.get(i), KEY_SCALES), 0, keyScales, i * config.kvSize(),
            config.kvSize());
      }
    }

    void addEntries(List<SafetensorsWriter.Entry> entries) {
      if (factors) {
        entries.add(new SafetensorsWriter.Entry(
            CheckpointNames.KEY_FACTORS, DataType.F32, config.layers()));
        entries.add(new SafetensorsWriter.Entry(
            CheckpointNames.VALUE_FACTORS, DataType.F32, config.layers()));
      }
      if (scaled) {
        entries.add(new SafetensorsWriter.Entry(CheckpointNames.KEY_SCALES, DataType.F32,
            config.layers(), config.kvHeads(), config.headDim()));
      }
    }

    void write(SafetensorsWriter writer) {
      if (factors) {
        CalibratedRun.write(writer, CheckpointNames.KEY_FACTORS, keyFactors);
        CalibratedRun.write(writer, CheckpointNames.VALUE_FACTORS, valueFactors);
      }
      if (scaled) {
        CalibratedRun.write(writer, CheckpointNames.KEY_SCALES, keyScales);
      }
    }
  }

  private static float[] floats(TensorStore store, String name) {
    try (var arena = Arena.ofConfined()) {
      var bytes = arena.allocate(store.info(name).byteLength(), Float.BYTES);
      store.read(name, bytes);
      return bytes.toArray(ValueLayout.JAVA_FLOAT);
    }
  }
}
