// SPDX-License-Identifier: Apache-2.0
package dev.nibble.cli;

import dev.nibble.InternalException;
import dev.nibble.NibbleException;
import java.io.PrintStream;
import java.util.List;
import picocli.CommandLine;
import picocli.CommandLine.IExecutionExceptionHandler;
import picocli.CommandLine.IParameterExceptionHandler;
import picocli.CommandLine.ParameterException;
import picocli.CommandLine.ParseResult;

/** Turns whatever went wrong into one line on stderr and an exit code. */
final class Errors implements IParameterExceptionHandler, IExecutionExceptionHandler {

  private final PrintStream err;
  private final boolean debug;

  Errors(PrintStream err, String[] args) {
    this.err = err;
    this.debug = List.of(args).contains("--debug");
  }

  @Override
  public int handleParseException(ParameterException e, String[] args) {
    var command = e.getCommandLine().getCommandSpec().qualifiedName();
    return report(e.getMessage() + " (see " + command + " --help)", e, Main.USAGE);
  }

  @Override
  public int handleExecutionException(Exception e, CommandLine line, ParseResult result) {
    if (e instanceof NibbleException && !(e instanceof InternalException)) {
      return report(e.getMessage(), e, Main.USAGE);
    }
    return report("internal error: " + e + (debug ? "" : " (--debug shows where)"), e,
        Main.FAILURE);
  }

  /** Prints the line, and with --debug the stack trace of {@code cause}; returns {@code code}. */
  int report(String message, Throwable cause, int code) {
    var line = new StringBuilder("nibble: ");
    for (char c : String.valueOf(message).strip().toCharArray()) {
      line.append(c == '\n' || c == '\r' || c == '\t' ? ' ' : Character.isISOControl(c) ? '?' : c);
    }
    err.println(line);
    if (debug && cause != null) {
      cause.printStackTrace(err);
    }
    err.flush();
    return code;
  }
}
