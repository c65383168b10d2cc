// SPDX-License-Identifier: Apache-2.0
/**
 * Measurements of Nibble: JMH benchmarks of the Java side, the report over these and the native
 * benchmark's results, and the comparison with {@code llama-bench}.
 */
package dev.nibble.bench;
