// SPDX-License-Identifier: Apache-2.0
package dev.nibble.model;

import dev.nibble.InvalidArgumentException;
import dev.nibble.UnsupportedException;
import dev.nibble.io.CheckpointNames;
import dev.nibble.io.ForeignCheckpoint;
import dev.nibble.io.Json;
import dev.nibble.io.ModelSource;
import dev.nibble.io.TensorStore;
import dev.nibble.io.Tokenizer;
import dev.nibble.quantize.QuantizationConfig;
import dev.nibble.quantize.Scheme;
import dev.nibble.quantize.WeightFormat;
import dev.nibble.tensor.Context;
import dev.nibble.tensor.KvCache;
import dev.nibble.tensor.Leases;
import java.nio.file.Path;
import java.util.Optional;

/**
 * A LLaMA model in memory: configuration, packed weights, tokenizer, and the device it runs on.
 *
 * <pre>{@code
 * try (var model = LlamaModel.load(Path.of("fable-4m"), LoadOptions.defaults());
 *     var session = model.newSession()) {
 *   session.generate("Once upon a time", Sampler.topP(0.9f, 0.8f, 42),
 *       text -> { System.out.print(text); return true; }, 200);
 * }
 * }</pre>
 *
 * <p>Immutable and thread-safe: any number of sessions may run on different threads; their
 * operations take turns on the model's worker threads. {@link #close} waits for operations that
 * run, then frees the weights; sessions that are still open throw {@link
 * dev.nibble.ClosedException} from then on and should be closed too. Closing twice is harmless.
 */
public final class LlamaModel implements AutoCloseable {
  /** Smaller checkpoints load in less time than it takes to think about a cache. */
  private static final long MIN_CACHED_BYTES = 128L << 20;

  private final String name;
  private final LlamaConfig config;
  private final Scheme scheme;
  private final LoadOptions options;
  private final Context context;
  private final ModelWeights weights;
  private final CacheScaling cacheScaling;
  private final Tokenizer tokenizer;
  private final Leases leases;

  private LlamaModel(String name, LlamaConfig config, Scheme scheme, LoadOptions options,
      Context context, ModelWeights weights, CacheScaling cacheScaling, Tokenizer tokenizer) {
    this.name = name;
    this.config = config;
    this.scheme = scheme;
    this.options = options;
    this.context = context;
    this.weights = weights;
    this.cacheScaling = cacheScaling;
    this.tokenizer = tokenizer;
    this.leases = new Leases("the model " + name);
  }

  /**
   * Loads a model directory in the Hugging Face layout, or a GGUF file, quantizing on the way.
   *
   * @throws dev.nibble.ModelFormatException naming the file, the tensor or field, and the value
   * @throws UnsupportedException if the model is of a kind that Nibble does not run
   */
  public static LlamaModel load(Path directory, LoadOptions options) {
    try (var source = ModelSource.directory(directory)) {
      return load(source, options);
    }
  }

  /** Loads the model that travels in the jar, {@code fable-4m}. */
  public static LlamaModel loadEmbedded(LoadOptions options) {
    try (var source = ModelSource.embedded()) {
      return load(source, options);
    }
  }

  /**
   * Loads a model; source stays the caller's and is not needed afterwards. A model without {@code
   * tokenizer.json} loads too, and has no {@link #tokenizer}.
   */
  public static LlamaModel load(ModelSource source, LoadOptions options) {
    // The native library, the files' headers and the tokenizer are independent of each other.
    try (var opening =
            new Background<>("open", () -> Context.create(options.device(), options.threads()));
        var tokenizing = new Background<>("tokenizer",
            () -> source.has(CheckpointNames.TOKENIZER) ? Tokenizer.load(source) : null)) {
      var config = LlamaConfig.read(source);
      var foreign = ForeignCheckpoint.of(source);
      var stored = storedScheme(source, foreign);
      var scheme = foreign != null && options.scheme() != null ? options.scheme()
          : chooseScheme(source, stored, options.scheme());
      Context context = null;
      ModelWeights weights = null;
      Tokenizer tokenizer = null;
      boolean complete = false;
      try (var store = source.tensors()) {
        var cache = foreign != null ? Optional.<PackedCacheFile>empty()
            : packedCache(source, store, scheme, stored != null, options);
        try (var file = cache.orElse(null)) {
          context = opening.take();
          try (var reader = foreign != null
              ? new ForeignWeights(foreign, store, context, scheme, options)
              : ownWeights(store, context, stored != null, file, options)) {
            weights = new ModelWeights(context, config, scheme, reader);
            reader.finish();
            scheme = reader.loaded(scheme);
          }
        }
        tokenizer = tokenizing.take();
        var model = new LlamaModel(source.name(), config, scheme, options, context, weights,
            CacheScaling.read(store, config), tokenizer);
        complete = true;
        return model;
      } finally {
        if (!complete) {
          closeAll(tokenizer, weights, context);
        }
      }
    }
  }

  /**
   * A model with random weights, for measuring speed; it has no tokenizer. The same configuration,
   * scheme and seed give the same weights.
   */
  public static LlamaModel synthetic(LlamaConfig config, LoadOptions options, long seed) {
    var scheme = options.scheme() == null ? Scheme.defaultScheme() : options.scheme();
    var context = Context.create(options.device(), options.threads());
    boolean complete = false;
    try (var source = new SyntheticWeights(context, config, seed, options.progress())) {
      var weights = new ModelWeights(context, config, scheme, source);
      source.finish();
      complete = true;
      return new LlamaModel("synthetic", config, scheme, options, context, weights,
          CacheScaling.NONE, null);
    } finally {
      if (!complete) {
        context.close();
      }
    }
  }

  private static WeightSource ownWeights(TensorStore store, Context context, boolean quantized,
      PackedCacheFile file, LoadOptions options) {
    var checkpoint = new CheckpointWeights(store, context, quantized, options.progress());
    return file == null ? checkpoint : new CachedWeights(checkpoint, file, context);
  }

  /** The file of the packed cache for this model, if it is to have one. */
  private static Optional<PackedCacheFile> packedCache(ModelSource source, TensorStore store,
      Scheme scheme, boolean quantized, LoadOptions options) {
    var cache = options.packedCache();
    boolean worthwhile = cache.asked()
        || !quantized && scheme.projections().code().isQuantized()
            && store.byteLength() >= MIN_CACHED_BYTES;
    if (cache.directory().isEmpty() || source.directory().isEmpty() || !worthwhile) {
      return Optional.empty();
    }
    return store.fingerprint().map(fingerprint -> new PackedCacheFile(cache,
        source.directory().get(), source.read(CheckpointNames.CONFIG), fingerprint, scheme));
  }

  /**
   * The scheme that a model is stored in: null where it is not quantized. Where another project
   * quantized it (GGUF, compressed-tensors, AWQ, GPTQ) it is the default one with {@linkplain
   * WeightFormat#FOREIGN weights} that stand for what each matrix has: as long as a scheme asked
   * for has these weights too, every matrix keeps its values as far as a format can hold them, and
   * {@link #scheme} tells afterwards which formats those were.
   *
   * @throws UnsupportedException if it is quantized in a way that Nibble does not read
   */
  public static Scheme storedScheme(ModelSource source) {
    return storedScheme(source, ForeignCheckpoint.of(source));
  }

  private static Scheme storedScheme(ModelSource source, ForeignCheckpoint foreign) {
    if (foreign != null) {
      return Scheme.defaultScheme().withProjections(WeightFormat.FOREIGN)
          .withEmbedding(WeightFormat.FOREIGN);
    }
    var file = source.describe(CheckpointNames.CONFIG);
    return QuantizationConfig.parse(
        Json.parseObject(source.read(CheckpointNames.CONFIG), file), file);
  }

  private static Scheme chooseScheme(ModelSource source, Scheme stored, Scheme asked) {
    if (asked == null) {
      return stored == null ? Scheme.defaultScheme() : stored;
    }
    if (stored != null) {
      checkStored(source, "weights", stored.projections(), asked.projections());
      checkStored(source, "embedding", stored.embedding(), asked.embedding());
      if (!asked.exceptions().isEmpty() && !asked.exceptions().equals(stored.exceptions())) {
        throw new InvalidArgumentException("scheme: formats for single projections asked for, but "
            + source.name() + " is already quantized, with others");
      }
      return asked.withExceptions(stored.exceptions());
    }
    return asked;
  }

  private static void checkStored(
      ModelSource source, String part, WeightFormat stored, WeightFormat asked) {
    if (!stored.equals(asked)) {
      throw new InvalidArgumentException("scheme: " + part + " " + asked.describe()
          + " asked for, but " + source.name() + " is already quantized to " + stored.describe());
    }
  }

  /** The model's name: its directory, {@code fable-4m}, or {@code synthetic}. */
  public String name() {
    return name;
  }

  /** The hyperparameters. */
  public LlamaConfig config() {
    return config;
  }

  /** The formats it was loaded in. */
  public Scheme scheme() {
    return scheme;
  }

  /** The tokenizer, if the model has one. It belongs to the model. */
  public Optional<Tokenizer> tokenizer() {
    return Optional.ofNullable(tokenizer);
  }

  /** The device and threads that the model runs on. They belong to the model. */
  public Context context() {
    return context;
  }

  /** The tokens of a session made by {@link #newSession()}. */
  public int defaultCapacity() {
    int most = options.maxContext() == 0 ? LoadOptions.DEFAULT_MAX_CONTEXT : options.maxContext();
    return Math.min(config.maxPositions(), most);
  }

  /** A session with room for {@link #defaultCapacity} tokens. */
  public Session newSession() {
    return newSession(defaultCapacity());
  }

  /**
   * A session with its own KV cache.
   *
   * @param capacity tokens it holds, 1 to the model's {@code max_position_embeddings}
   */
  public Session newSession(int capacity) {
    if (capacity < 1 || capacity > config.maxPositions()) {
      throw new InvalidArgumentException("capacity: " + capacity + " given, expected 1 to "
          + config.maxPositions() + ", the model's max_position_embeddings");
    }
    leases.acquire();
    try {
      return new Session(this, capacity);
    } finally {
      leases.release();
    }
  }

  /** An empty cache for a sequence of this model, where context computes; the caller closes it. */
  KvCache newCache(Context context, int capacity) {
    return cacheScaling.newCache(context, scheme.cache(), config, capacity);
  }

  /** Bytes of weights that decoding one token reads: all projections and the output head. */
  public long weightBytesPerToken() {
    return weights.bytesPerToken();
  }

  /** Bytes of keys and values that one token adds to a cache, in all layers. */
  public long cacheBytesPerToken() {
    long head = switch (scheme.cache()) {
      case F32 -> 4L * config.headDim();
      case KV16 -> 2L * config.headDim();
      case KV8 -> config.headDim() + 4L;
      case KV4 -> config.headDim() / 2 + 1L;
    };
    return 2 * head * config.kvHeads() * config.layers();
  }

  /**
   * Bytes that decoding one token reads when context tokens are in the cache: weights, keys and
   * values. Divided by the read bandwidth of the machine it is the least time a token can take.
   */
  public long decodeBytesPerToken(long context) {
    return weightBytesPerToken() + context * cacheBytesPerToken();
  }

  @Override
  public void close() {
    if (leases.close()) {
      closeAll(tokenizer, weights, context);
    }
  }

  ModelWeights weights() {
    return weights;
  }

  Leases leases() {
    return leases;
  }

  Tokenizer requireTokenizer() {
    if (tokenizer == null) {
      throw new UnsupportedException("the model " + name + " has no " + CheckpointNames.TOKENIZER
          + ", so it cannot read or write text; pass tokens");
    }
    return tokenizer;
  }

  private static void closeAll(Tokenizer tokenizer, ModelWeights weights, Context context) {
    if (tokenizer != null) {
      tokenizer.close();
    }
    if (weights != null) {
      weights.close();
    }
    if (context != null) {
      context.close();
    }
  }
}
