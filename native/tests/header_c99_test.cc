// SPDX-License-Identifier: Apache-2.0
//
// nibble.h as strict C99: header_c99.c, beside this file, must compile without a warning.
#include <gtest/gtest.h>

#include <cstdlib>
#include <string>

namespace nibble {
namespace {

TEST(Header, IsStrictC99) {
  const std::string file = __FILE__;  // .../native/tests/header_c99_test.cc
  const size_t slash = file.rfind('/');
  const std::string folder = slash == std::string::npos ? "." : file.substr(0, slash);
  const char* set = std::getenv("CC");
  const std::string compiler = set != nullptr && set[0] != '\0' ? set : "cc";
  if (std::system((compiler + " --version > /dev/null 2>&1").c_str()) != 0) {
    GTEST_SKIP() << "no C compiler: set CC";
  }
  const std::string command = compiler + " -std=c99 -pedantic-errors -Wall -Wextra -Werror " +
                              "-fsyntax-only -I'" + folder + "/../include' '" + folder +
                              "/header_c99.c'";
  EXPECT_EQ(std::system(command.c_str()), 0) << command;
}

}  // namespace
}  // namespace nibble
