// SPDX-License-Identifier: Apache-2.0
/**
 * LLaMA models: configuration, weights, sessions and the forward pass. Start with {@link
 * dev.nibble.model.LlamaModel}; to see how a token is computed, read {@link
 * dev.nibble.model.Session}.
 */
package dev.nibble.model;
