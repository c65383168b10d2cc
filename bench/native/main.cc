// SPDX-License-Identifier: Apache-2.0
#include <iostream>

#include "bench/native/command_line.h"

int main(int argc, char** argv) {
  return nibble::bench::RunCommandLine({argv + 1, argv + argc}, std::cout, std::cerr);
}
