// SPDX-License-Identifier: Apache-2.0
package dev.nibble.model;

import java.util.List;

/**
 * How rotary frequencies differ from plain RoPE (arXiv 2104.09864), as Hugging Face's {@code
 * rope_type} names it. The arithmetic is F32 step by step, as in Hugging Face transformers, so
 * that the frequencies agree to the bit or nearly.
 */
public sealed interface RopeScaling {

  /** Changes plain inverse frequencies in place. */
  void apply(float[] inverseFrequencies);

  /** {@code default}: plain RoPE. */
  record None() implements RopeScaling {
    @Override
    public void apply(float[] inverseFrequencies) {}
  }

  /**
   * {@code linear}: positions divided by factor.
   *
   * @param factor above 0
   */
  record Linear(float factor) implements RopeScaling {
    @Override
    public void apply(float[] inverseFrequencies) {
      for (int i = 0; i < inverseFrequencies.length; i++) {
        inverseFrequencies[i] /= factor;
      }
    }
  }

  /**
   * {@code llama3}: low frequencies are divided by factor, high ones kept, those between blended.
   *
   * @param factor above 0
   * @param lowFreqFactor wavelengths above originalContext / lowFreqFactor are scaled
   * @param highFreqFactor wavelengths below originalContext / highFreqFactor are kept; above
   *     lowFreqFactor
   * @param originalContext the context of pre-training, in tokens
   */
  record Llama3(float factor, float lowFreqFactor, float highFreqFactor, int originalContext)
      implements RopeScaling {
    @Override
    public void apply(float[] inverseFrequencies) {
      float lowWavelength = (float) ((double) originalContext / lowFreqFactor);
      float highWavelength = (float) ((double) originalContext / highFreqFactor);
      for (int i = 0; i < inverseFrequencies.length; i++) {
        float frequency = inverseFrequencies[i];
        float wavelength = (float) (2 * Math.PI) / frequency;
        if (wavelength > lowWavelength) {
          inverseFrequencies[i] = frequency / factor;
        } else if (wavelength >= highWavelength) {
          float smooth = (originalContext / wavelength - lowFreqFactor)
              / (float) ((double) highFreqFactor - lowFreqFactor);
          inverseFrequencies[i] = (1 - smooth) * frequency / factor + smooth * frequency;
        }
      }
    }
  }

  /**
   * {@code factors}: each frequency divided by a factor of its own, as GGUF files have them for
   * LLaMA 3. Nibble's own name; Hugging Face has none.
   *
   * @param factors headDim / 2 of them, above 0
   */
  record Factors(List<Float> factors) implements RopeScaling {
    /** Copies the list. */
    public Factors {
      factors = List.copyOf(factors);
    }

    @Override
    public void apply(float[] inverseFrequencies) {
      for (int i = 0; i < inverseFrequencies.length; i++) {
        inverseFrequencies[i] /= factors.get(i);
      }
    }
  }
}
