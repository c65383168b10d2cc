// SPDX-License-Identifier: Apache-2.0
#include "bench/native/command_line.h"

#include <ctime>
#include <exception>
#include <fstream>
#include <iostream>
#include <sstream>

#include "bench/native/sections.h"

namespace nibble::bench {
namespace {

constexpr char kUsage[] =
    "nibble_bench: measures Nibble's kernels and the machine's limits in one process\n"
    "\n"
    "  --shapes FILE      what to measure (bench/shapes.txt)\n"
    "  --sections A,B     of gemm, attention, models, threads (default: all); the limits are\n"
    "                     always measured\n"
    "  --models A,B  --schemes A,B  --kernels A,B  --rows 1,512\n"
    "                     only these of the list (threads: by default the schemes w4a8, w4a8i)\n"
    "  --threads N        default: all this process may use\n"
    "  --full             everything in the list, not the choice for a run of minutes\n"
    "  --smoke            hardly any effort: shows that it works, measures nothing\n"
    "  --out FILE         JSON there instead of to standard output\n"
    "  --serve SCHEME     decode the first model (or --models) on request from standard input\n";

struct Arguments {
  std::string shapes, out, serve;
  std::set<std::string> sections;
  Options options;
  bool help = false;
};

std::vector<std::string> Split(const std::string& text) {
  std::vector<std::string> parts;
  std::istringstream in(text);
  for (std::string part; std::getline(in, part, ',');) parts.push_back(part);
  return parts;
}

int64_t Number(const std::string& option, const std::string& text, int64_t max) {
  const bool digits = !text.empty() && text.size() < 10 &&
                      text.find_first_not_of("0123456789") == std::string::npos;
  const int64_t value = digits ? std::stoll(text) : 0;
  if (value < 1 || value > max) {
    throw std::runtime_error(option + ": \"" + text + "\" given, expected 1 to " +
                             std::to_string(max));
  }
  return value;
}

Arguments Parse(const std::vector<std::string>& arguments) {
  static const std::set<std::string> kSections = {"gemm", "attention", "models", "threads"};
  Arguments parsed;
  parsed.options.threads = nb_available_threads();
  for (size_t i = 0; i < arguments.size(); ++i) {
    const std::string& option = arguments[i];
    const auto value = [&]() -> const std::string& {
      if (i + 1 == arguments.size()) throw std::runtime_error(option + ": expects a value");
      return arguments[++i];
    };
    const auto names = [&](std::set<std::string>& to) {
      for (const std::string& name : Split(value())) to.insert(name);
    };
    if (option == "--help" || option == "-h") {
      parsed.help = true;
    } else if (option == "--shapes") {
      parsed.shapes = value();
    } else if (option == "--sections") {
      names(parsed.sections);
      for (const std::string& s : parsed.sections) {
        if (kSections.count(s) == 0) {
          throw std::runtime_error("--sections: \"" + s +
                                   "\" given, expected gemm, attention, models or threads");
        }
      }
    } else if (option == "--models") {
      names(parsed.options.models);
    } else if (option == "--schemes") {
      names(parsed.options.schemes);
    } else if (option == "--kernels") {
      names(parsed.options.kernels);
    } else if (option == "--rows") {
      for (const std::string& n : Split(value())) {
        parsed.options.rows.insert(Number(option, n, int64_t{1} << 20));
      }
    } else if (option == "--threads") {
      parsed.options.threads = static_cast<int>(Number(option, value(), 1024));
    } else if (option == "--full") {
      parsed.options.full = true;
    } else if (option == "--smoke") {
      parsed.options.smoke = true;
    } else if (option == "--out") {
      parsed.out = value();
    } else if (option == "--serve") {
      parsed.serve = value();
    } else {
      throw std::runtime_error("\"" + option + "\": no such option (see --help)");
    }
  }
  if (!parsed.help && parsed.shapes.empty()) {
    throw std::runtime_error("--shapes: missing, expected the file bench/shapes.txt");
  }
  if (parsed.sections.empty()) parsed.sections = kSections;
  return parsed;
}

// Names that the list does not have are mistakes, not empty choices.
void CheckNames(const ShapeList& list, const Options& options) {
  for (const std::string& name : options.models) list.model(name);
  for (const std::string& name : options.schemes) list.scheme(name);
  for (const std::string& name : options.kernels) {
    bool found = false;
    for (const Kernel& kernel : list.kernels) found = found || kernel.name == name;
    if (!found) throw std::runtime_error("--kernels: \"" + name + "\" is not in the list");
  }
  for (const int64_t rows : options.rows) {
    bool found = false;
    for (const int64_t r : list.rows) found = found || r == rows;
    if (!found) {
      throw std::runtime_error("--rows: " + std::to_string(rows) + " is not in the list");
    }
  }
}

std::string Time() {
  const std::time_t now = std::time(nullptr);
  char text[32];
  std::strftime(text, sizeof text, "%Y-%m-%dT%H:%M:%SZ", std::gmtime(&now));
  return text;
}

void RunSections(const Arguments& arguments, const ShapeList& list, std::ostream& out,
                 std::ostream& err) {
  const double begin = Now();
  const std::string started = Time();
  const Options& options = arguments.options;
  const auto progress = [&](const std::string& what) {
    err << "[" << static_cast<int>(Now() - begin) << " s] " << what << std::endl;
  };
  progress("limits");
  Limits limits(options.threads, options.smoke), one(1, options.smoke);
  Run run{list, options, limits, {}, progress};
  Run threads = run;
  if (threads.options.schemes.empty()) threads.options.schemes = {"w4a8", "w4a8i"};
  const auto section = [&](Json& json, const char* key, const char* name,
                           void (*body)(Run&, Json&), Run& with) {
    json.Key(key);
    if (arguments.sections.count(name) > 0) {
      body(with, json);
    } else {
      json.BeginArray().EndArray();
    }
  };

  Json json;
  json.BeginObject()
      .Field("schema", "nibble-bench-native-1")
      .Field("started", started)
      .Field("version", nb_version())
      .Field("simd_target", nb_simd_target())
      .Field("threads", options.threads)
      .Field("last_level_cache_bytes", LastLevelCache())
      .Field("cold_bytes", options.cold_bytes())
      .Field("full", options.full)
      .Field("smoke", options.smoke);
  section(json, "gemm", "gemm", RunGemm, run);
  section(json, "attention", "attention", RunAttention, run);
  section(json, "models", "models", RunModels, run);
  section(json, "threads_scaling", "threads", RunThreads, threads);
  // Once more: a moment that was busy at the start must not lower the limit.
  one.Sweep();
  limits.Sweep();
  json.Key("limits").BeginArray();
  one.Write(json);
  if (options.threads > 1) limits.Write(json);
  json.EndArray().Key("skipped").BeginArray();
  for (const Run* r : {&run, &threads}) {
    for (const std::string& what : r->skipped) json.Value(what);
  }
  json.EndArray().Field("seconds", Now() - begin).EndObject();
  out << json.text() << "\n";
  if (!out.flush()) throw std::runtime_error("the results cannot be written");
}

}  // namespace

int RunCommandLine(const std::vector<std::string>& words, std::ostream& out, std::ostream& err) {
  try {
    const Arguments arguments = Parse(words);
    if (arguments.help) {
      out << kUsage;
      return 0;
    }
    const ShapeList list = ReadShapes(arguments.shapes);
    CheckNames(list, arguments.options);
    if (!arguments.serve.empty()) {
      const auto& models = arguments.options.models;
      const Model& model = models.empty() ? list.models.front() : list.model(*models.begin());
      ServeDecode(model, list.scheme(arguments.serve), arguments.options.threads);
    } else if (arguments.out.empty()) {
      RunSections(arguments, list, out, err);
    } else {
      std::ofstream file(arguments.out);
      if (!file) throw std::runtime_error("--out: " + arguments.out + " cannot be written");
      RunSections(arguments, list, file, err);
    }
    return 0;
  } catch (const std::exception& e) {
    err << "nibble_bench: " << e.what() << std::endl;
    return 2;
  }
}

}  // namespace nibble::bench
