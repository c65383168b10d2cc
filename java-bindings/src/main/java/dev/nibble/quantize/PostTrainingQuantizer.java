// SPDX-License-Identifier: Apache-2.0
package dev.nibble.quantize;

import dev.nibble.InvalidArgumentException;
import dev.nibble.io.ModelSource;
import dev.nibble.tensor.Context;
import java.io.IOException;
import java.nio.file.Path;

/**
 * Quantizes a model by a {@link Recipe}: looks at the activations of a calibration text, layer by
 * layer, and writes a quantized directory as {@link Quantizer} does. Loading it needs nothing but
 * {@code LlamaModel.load}.
 *
 * <p>One layer is in memory at a time, in F32, beside the states of all calibration tokens between
 * two layers. What is finished is kept in a directory beside the target, {@code
 * .NAME.quantizing}: a run that is interrupted, or fails, goes on from there when it is started
 * again, and gives the same bytes as one that was not. The target appears whole or not at all.
 */
public final class PostTrainingQuantizer {

  /** Hears how far the work is, on the calling thread. */
  @FunctionalInterface
  public interface Listener {
    /** Hears nothing. */
    Listener NONE = (what, done, total) -> {};

    /**
     * Called before each step and once at the end, when done equals total.
     *
     * @param what the step about to start, for people; empty at the end
     * @param done how much work is behind
     * @param total how much there is, in the same unit, which is proportional to time
     */
    void progress(String what, long done, long total);

    /**
     * Called once, at the start, if an earlier run was interrupted and goes on.
     *
     * @param layers how many layers are already done
     * @param total how many there are
     */
    default void resumed(int layers, int total) {}

    /**
     * Called once, at the start, if an interrupted run was found beside the target, but of another
     * model, recipe or calibration: it is deleted, and this run begins at the beginning.
     */
    default void restarted() {}
  }

  private PostTrainingQuantizer() {}

  /**
   * Checks that a target can be made, as {@link #quantize} does first: for callers with long work
   * before.
   *
   * @throws InvalidArgumentException if it exists and is not an empty directory
   */
  public static void requireFree(Path out) {
    OutputDirectory.requireFree(out);
  }

  /**
   * Quantizes a model.
   *
   * @param in the unquantized model, weights in F32, F16 or BF16; not closed
   * @param out the directory to make; it must not exist, or be empty
   * @param calibration what the activations are measured on; may be null where the recipe needs
   *     none
   * @param context does the arithmetic, on the CPU; not closed
   * @param listener hears how far the work is; may be null
   * @throws dev.nibble.ModelFormatException if the model is not valid, for example holds a NaN
   * @throws dev.nibble.UnsupportedException if the model is quantized already, or of a kind that
   *     Nibble does not run
   * @throws InvalidArgumentException if {@code out} exists and is not an empty directory, or the
   *     calibration is missing or does not fit the model
   * @throws dev.nibble.NibbleException if the result cannot be written; what is done is kept for
   *     another run
   */
  public static void quantize(ModelSource in, Path out, Recipe recipe, Calibration calibration,
      Context context, Listener listener) {
    var heard = listener == null ? Listener.NONE : listener;
    if (!recipe.needsCalibration()) {
      Quantizer.quantize(in, out, recipe.scheme(), context, heard::progress);
      return;
    }
    if (calibration == null) {
      throw new InvalidArgumentException("recipe " + recipe.name() + ": needs a calibration");
    }
    OutputDirectory.requireFree(out);
    try {
      new CalibratedRun(in, recipe, calibration, context, heard)
          .run(out.toAbsolutePath().normalize());
    } catch (IOException e) {
      throw OutputDirectory.unwritable(out, e);
    }
  }
}
