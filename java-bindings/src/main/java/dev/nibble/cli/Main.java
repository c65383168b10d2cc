// SPDX-License-Identifier: Apache-2.0
package dev.nibble.cli;

import java.io.FileDescriptor;
import java.io.FileOutputStream;
import java.io.InputStream;
import java.io.PrintStream;
import java.nio.charset.StandardCharsets;
import picocli.CommandLine;
import picocli.CommandLine.Command;
import picocli.CommandLine.Option;

/**
 * The command line.
 *
 * <p>Exit codes: 0 for success, 2 for anything the user can put right (one line on stderr says
 * what), 1 for a failure of Nibble's own; 130 after Ctrl-C.
 */
@Command(
    name = "nibble",
    description = "Text from quantized LLaMA models, on the CPU or an NVIDIA GPU.",
    synopsisSubcommandLabel = "COMMAND",
    optionListHeading = "%nOptions:%n",
    commandListHeading = "%nCommands:%n",
    footer = {
      "",
      "\"nibble COMMAND --help\" lists a command's options. Without --model the built-in",
      "model is used, 4 million parameters trained on fairy tales:",
      "",
      "  nibble generate \"Once upon a time\"",
      "",
      "In the source tree, \"./nibble test\" runs all tests; \"--full\" adds the long sweeps."
    })
public final class Main {

  /** Success. */
  static final int OK = 0;
  /** Nibble's own failure. */
  static final int FAILURE = 1;
  /** Bad input: the user can put it right. */
  static final int USAGE = 2;

  @Option(names = {"-h", "--help"}, usageHelp = true, description = "Show this help and exit.")
  private boolean help;

  @Option(names = {"-V", "--version"}, description = "Print the version and exit.")
  private boolean version;

  private Main() {}

  /** Runs the command line and ends the JVM. */
  public static void main(String[] args) {
    // The standard streams have the locale's encoding; text here is UTF-8 whatever the locale.
    var out = new PrintStream(
        new FileOutputStream(FileDescriptor.out), false, StandardCharsets.UTF_8);
    var err = new PrintStream(
        new FileOutputStream(FileDescriptor.err), true, StandardCharsets.UTF_8);
    System.exit(run(Arguments.decode(args), new Streams(System.in, out, err)));
  }

  /**
   * Runs the command line in this JVM.
   *
   * @param args the arguments, the command's name first
   * @param in what the command reads as standard input, UTF-8
   * @param out where results go
   * @param err where messages go
   * @return the exit code
   */
  public static int run(String[] args, InputStream in, PrintStream out, PrintStream err) {
    return run(args, new Streams(in, out, err));
  }

  private static int run(String[] args, Streams streams) {
    var root = new Main();
    var line = new CommandLine(root);
    // Only the command that runs gets loaded: reading the annotations of all of them takes a
    // noticeable part of the time to the first token.
    var chosen = args.length == 0 ? null : command(args[0], streams);
    if (chosen != null) {
      line.addSubcommand(args[0], chosen);
    } else {
      for (var name : COMMANDS) {
        line.addSubcommand(name, command(name, streams));
      }
    }
    var errors = new Errors(streams.err(), args);
    line.setOut(streams.outWriter());
    line.setErr(streams.errWriter());
    line.setUsageHelpWidth(88);
    line.setUsageHelpAutoWidth(false);
    line.setParameterExceptionHandler(errors);
    line.setExecutionExceptionHandler(errors);
    line.setExecutionStrategy(result -> {
      if (result.hasSubcommand()) {
        return new CommandLine.RunLast().execute(result);
      }
      return CommandLine.printHelpIfRequested(result) ? OK : root.runAlone(streams, errors);
    });
    if (chosen == null && args.length > 0 && !args[0].startsWith("-")) {
      return errors.report("unknown command \"" + args[0] + "\", expected one of "
          + String.join(", ", COMMANDS) + " (see nibble --help)", null, USAGE);
    }
    try {
      int code = line.execute(args);
      streams.out().flush();
      return code;
    } catch (OutOfMemoryError e) {
      return errors.report("not enough memory: " + e.getMessage()
          + " (java's -Xmx option sets the limit of its heap)", e, USAGE);
    } catch (Error e) {
      return errors.report("internal error: " + e, e, FAILURE);
    }
  }

  private int runAlone(Streams streams, Errors errors) {
    if (version) {
      streams.out().println("nibble " + InfoCommand.version());
      return OK;
    }
    return errors.report("no command given, expected one of " + String.join(", ", COMMANDS)
        + " (see nibble --help)", null, USAGE);
  }

  private static final String[] COMMANDS =
      {"generate", "quantize", "eval", "perplexity", "logits", "bench", "info"};

  private static Object command(String name, Streams streams) {
    return switch (name) {
      case "generate" -> new GenerateCommand(streams);
      case "quantize" -> new QuantizeCommand(streams);
      case "eval" -> new EvalCommand(streams);
      case "perplexity" -> new PerplexityCommand(streams);
      case "logits" -> new LogitsCommand(streams);
      case "bench" -> new BenchCommand(streams);
      case "info" -> new InfoCommand(streams);
      default -> null;
    };
  }
}
