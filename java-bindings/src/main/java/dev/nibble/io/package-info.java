// SPDX-License-Identifier: Apache-2.0

/**
 * Model files: safetensors in and out, JSON, tokenizers, and the names of the tensors. A file is
 * hostile until proved otherwise: sizes, offsets, shapes and counts are checked with
 * overflow-checked arithmetic before anything is allocated, and what is wrong is reported as one
 * line that names the file, the tensor, the field and the value ({@link
 * dev.nibble.ModelFormatException}).
 */
package dev.nibble.io;
