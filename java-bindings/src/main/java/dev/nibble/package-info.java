// SPDX-License-Identifier: Apache-2.0
/**
 * The exceptions of Nibble. All are unchecked and extend {@link dev.nibble.NibbleException}; which
 * one is thrown tells whose turn it is: the caller's ({@link dev.nibble.InvalidArgumentException}),
 * the model file's ({@link dev.nibble.ModelFormatException}) or the machine's.
 */
package dev.nibble;
