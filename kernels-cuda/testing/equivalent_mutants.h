// SPDX-License-Identifier: Apache-2.0
//
// Mutants that no test can see, each with the argument why.
#pragma once

namespace nibble::cuda {

struct EquivalentMutant {
  const char* module;
  const char* kernel;  // a part of its name
  const char* change;
  const char* line;  // without register numbers: see Normalized in mutate.h
  const char* reason;
};

inline constexpr EquivalentMutant kEquivalentMutants[] = {
    {"", "", "", "", ""},
};

}  // namespace nibble::cuda
