// SPDX-License-Identifier: Apache-2.0
//
// The native benchmark's command line, apart from main() so that tests can call it.
#pragma once

#include <iosfwd>
#include <string>
#include <vector>

namespace nibble::bench {

// Runs; results go to out as one JSON object, messages to err. Returns the exit code: 0, or 2
// after one line on err that says what was wrong.
int RunCommandLine(const std::vector<std::string>& arguments, std::ostream& out,
                   std::ostream& err);

}  // namespace nibble::bench
