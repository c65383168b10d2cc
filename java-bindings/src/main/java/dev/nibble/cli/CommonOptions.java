// SPDX-License-Identifier: Apache-2.0
package dev.nibble.cli;

import picocli.CommandLine.Option;

/** Options that every command has. */
final class CommonOptions {

  @Option(names = {"-h", "--help"}, usageHelp = true, order = 100,
      description = "Show this help and exit.")
  boolean help;

  @Option(names = "--debug", order = 101, description = "Print a stack trace with an error.")
  boolean debug;
}
