// SPDX-License-Identifier: Apache-2.0
//
// A main function for fuzz targets where there is no libFuzzer:
//
//   fuzz_abi FILE...            runs the target on each file
//   fuzz_abi --random N SEED    runs it on N random inputs; a failing one is number SEED + i
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <iterator>
#include <vector>

#include "native/fuzz/random_input.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size);

int main(int argc, char** argv) {
  if (argc == 4 && std::strcmp(argv[1], "--random") == 0) {
    const uint64_t count = std::strtoull(argv[2], nullptr, 10);
    const uint64_t seed = std::strtoull(argv[3], nullptr, 10);
    for (uint64_t i = 0; i < count; ++i) {
      const std::vector<uint8_t> input = nibble::fuzz::RandomInput(seed + i);
      std::fprintf(stderr, "\rinput %llu", static_cast<unsigned long long>(seed + i));
      LLVMFuzzerTestOneInput(input.data(), input.size());
    }
    std::fprintf(stderr, "\n");
    return 0;
  }
  if (argc < 2) {
    std::fprintf(stderr, "usage: %s FILE... | --random N SEED\n", argv[0]);
    return 2;
  }
  for (int i = 1; i < argc; ++i) {
    std::ifstream file(argv[i], std::ios::binary);
    if (!file) {
      std::fprintf(stderr, "%s: cannot be read\n", argv[i]);
      return 2;
    }
    const std::vector<char> bytes((std::istreambuf_iterator<char>(file)),
                                  std::istreambuf_iterator<char>());
    LLVMFuzzerTestOneInput(reinterpret_cast<const uint8_t*>(bytes.data()), bytes.size());
  }
  return 0;
}
