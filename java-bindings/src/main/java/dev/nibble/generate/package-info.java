// SPDX-License-Identifier: Apache-2.0
/**
 * From logits to text: {@link dev.nibble.generate.Sampler}, {@link dev.nibble.generate.Generator},
 * and how well a text is predicted: {@link dev.nibble.generate.Perplexity}.
 */
package dev.nibble.generate;
