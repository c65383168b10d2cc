// SPDX-License-Identifier: Apache-2.0

/**
 * Formats of quantized models: what a weight, an activation and a cache entry is, the named
 * {@linkplain dev.nibble.quantize.Scheme schemes}, how they stand in {@code config.json}, and the
 * quantizer that writes a quantized model directory.
 */
package dev.nibble.quantize;
