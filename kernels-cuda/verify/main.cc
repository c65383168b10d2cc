// SPDX-License-Identifier: Apache-2.0
//
//   nibble_gpu_verify --shapes FILE --out FILE [--device N] [--model NAME]... [--note KEY=VALUE]...
//
// Exit status: 0, 1 for a failure on the device, 2 for a wrong word or no usable device.
#include <cstdio>
#include <cstdlib>
#include <exception>
#include <fstream>
#include <string>

#include "kernels-cuda/verify/verify.h"

namespace {

using nibble::cuda::Device;
using nibble::cuda::Driver;
using nibble::cuda::Status;

struct Words {
  std::string shapes, out;
  int device = 0;
  nibble::cuda::verify::Options options;
  std::vector<std::pair<std::string, std::string>> notes;
};

// "" or what is wrong.
std::string Parse(int count, char** text, Words* words) {
  for (int i = 1; i < count; i += 2) {
    const std::string name = text[i];
    if (i + 1 == count) return name + ": no value given";
    const std::string value = text[i + 1];
    if (name == "--shapes") {
      words->shapes = value;
    } else if (name == "--out") {
      words->out = value;
    } else if (name == "--device") {
      char* end = nullptr;
      words->device = static_cast<int>(std::strtol(value.c_str(), &end, 10));
      if (value.empty() || *end != '\0') return "--device: " + value + ", expected a number";
    } else if (name == "--model") {
      words->options.models.push_back(value);
    } else if (name == "--note") {
      const size_t equals = value.find('=');
      if (equals == std::string::npos) return "--note: " + value + ", expected KEY=VALUE";
      words->notes.emplace_back(value.substr(0, equals), value.substr(equals + 1));
    } else {
      return "unknown word " + name;
    }
  }
  if (words->shapes.empty() || words->out.empty()) return "--shapes and --out are needed";
  if (words->options.models.empty()) words->options.models = {"llama-2-7b", "llama-3-8b"};
  return "";
}

int Fail(int code, const std::string& message) {
  std::fprintf(stderr, "nibble_gpu_verify: %s\n", message.c_str());
  return code;
}

int Main(int count, char** text) {
  Words words;
  const std::string problem = Parse(count, text, &words);
  if (!problem.empty()) return Fail(2, problem);
  const nibble::bench::ShapeList shapes = nibble::bench::ReadShapes(words.shapes);
  const Driver* driver = nullptr;
  Status status = nibble::cuda::OpenDriver(&driver);
  if (!status.ok()) return Fail(2, status.message());
  std::unique_ptr<Device> device;
  status = Device::Open(*driver, words.device, &device);
  if (!status.ok()) return Fail(2, status.message());
  std::fprintf(stderr, "%s\n", device->properties().name.c_str());
  words.options.progress = [](const std::string& line) {
    std::fprintf(stderr, "  %s\n", line.c_str());
  };
  std::string json;
  status = nibble::cuda::verify::MeasureAll(*device, words.options, shapes, words.notes, &json);
  if (!status.ok()) return Fail(1, status.message());
  std::ofstream out(words.out, std::ios::binary);
  out << json;
  out.close();
  return out ? 0 : Fail(2, words.out + ": cannot be written");
}

}  // namespace

int main(int count, char** text) {
  try {
    return Main(count, text);
  } catch (const std::exception& e) {
    return Fail(2, e.what());
  }
}
