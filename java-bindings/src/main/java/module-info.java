// SPDX-License-Identifier: Apache-2.0
/**
 * Nibble: low-bit LLM inference for the JVM. Start with {@link dev.nibble.model.LlamaModel}.
 *
 * <p>Run with {@code --enable-native-access=dev.nibble} (on the class path: {@code ALL-UNNAMED}),
 * since the kernels are native code.
 */
module dev.nibble {
  requires ai.djl.tokenizers;
  requires com.fasterxml.jackson.core;
  requires info.picocli;
  requires me.tongfei.progressbar;
  requires org.jline.terminal;

  exports dev.nibble;
  exports dev.nibble.generate;
  exports dev.nibble.io;
  exports dev.nibble.model;
  exports dev.nibble.quantize;
  exports dev.nibble.tensor;

  opens dev.nibble.cli to info.picocli;
}
