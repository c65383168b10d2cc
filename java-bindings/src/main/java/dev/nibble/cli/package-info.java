// SPDX-License-Identifier: Apache-2.0

/** The command line: {@code nibble generate}, {@code quantize}, {@code perplexity}, ... */
package dev.nibble.cli;
