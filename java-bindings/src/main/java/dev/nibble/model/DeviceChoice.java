// SPDX-License-Identifier: Apache-2.0
package dev.nibble.model;

import dev.nibble.InternalException;
import dev.nibble.io.DataType;
import dev.nibble.tensor.Context;
import dev.nibble.tensor.Penalize;
import dev.nibble.tensor.Sample;
import dev.nibble.tensor.Tensor;
import dev.nibble.tensor.TensorArena;
import java.lang.foreign.MemorySegment;
import java.lang.foreign.ValueLayout;

/**
 * The choice of a token where the logits are, with the settings of one sampler. A choice takes
 * three steps: {@link #send} brings what the sampler knows to the device, {@link #run} penalizes
 * and samples there (and may be part of a graph), {@link #fetch} brings the token's id back.
 */
final class DeviceChoice {
  private static final int NOBODY = -1; // an id that no token has

  private final SampleSettings settings;
  private final Context context;
  private final Penalize penalize; // or null
  private final Sample sample;
  private final int[] recent;
  private final Tensor recentHost;
  private final Tensor recentDevice;
  private final Tensor uniformHost;
  private final Tensor uniformDevice;
  private final Tensor idHost;
  private final Tensor idDevice;
  private final MemorySegment uniform;
  private final MemorySegment id;
  private final MemorySegment penalized; // or null

  /**
   * Binds the operations.
   *
   * @param host an arena of ordinary memory, device one of context's
   * @param logits F32 [1, vocabulary] on the device
   * @param ids I32 on the device: row 0 receives the choice
   */
  DeviceChoice(Context context, SampleSettings settings, TensorArena host, TensorArena device,
      Tensor logits, Tensor ids) {
    this.context = context;
    this.settings = settings;
    uniformHost = host.allocate(DataType.F64, 1);
    uniformDevice = device.allocate(DataType.F64, 1);
    context.copy(uniformHost, uniformDevice, 1); // 0, for a temperature of 0
    idHost = host.allocate(DataType.I32, 1);
    idDevice = ids;
    uniform = uniformHost.segment();
    id = idHost.segment();
    if (settings.penalizes()) {
      recent = new int[settings.repeatWindow()];
      recentHost = host.allocate(DataType.I32, recent.length);
      recentDevice = device.allocate(DataType.I32, recent.length);
      penalized = recentHost.segment();
      penalize = context.bindPenalize(logits, recentDevice, settings.repeatPenalty());
    } else {
      recent = null;
      recentHost = null;
      recentDevice = null;
      penalized = null;
      penalize = null;
    }
    sample = context.bindSample(logits, settings.temperature(), settings.topK(), settings.topP(),
        settings.minP(), uniformDevice, ids);
  }

  /** Brings the sampler's next random number and its recent tokens to the device. */
  void send(DeviceSampler sampler) {
    if (settings.temperature() != 0) {
      uniform.set(ValueLayout.JAVA_DOUBLE, 0, sampler.nextUniform());
      context.copy(uniformHost, uniformDevice, 1);
    }
    if (penalize != null) {
      // The operation has a fixed number of tokens; ids outside the vocabulary are passed over.
      int count = sampler.recent(recent);
      for (int i = 0; i < recent.length; i++) {
        penalized.setAtIndex(ValueLayout.JAVA_INT, i, i < count ? recent[i] : NOBODY);
      }
      context.copy(recentHost, recentDevice, recent.length);
    }
  }

  /** Penalizes the logits and samples; overwrites row 0 of ids. */
  void run() {
    if (penalize != null) {
      penalize.run();
    }
    sample.run(1);
  }

  /** Waits for the choice. */
  int fetch() {
    context.copy(idDevice, idHost, 1);
    int token = id.get(ValueLayout.JAVA_INT, 0);
    if (token < 0) {
      throw new InternalException("logits[" + (-1 - token)
          + "] is NaN or infinite, expected a number: the model's arithmetic broke down");
    }
    return token;
  }
}
