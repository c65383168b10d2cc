// SPDX-License-Identifier: Apache-2.0
//
// How a call of the C ABI fails: a status, and one line of text for the calling thread.
#pragma once

#include <new>
#include <system_error>

#include "nibble/nibble.h"

namespace nibble::abi {

// Longer messages are cut: a message is one line for a person, not a dump.
inline constexpr int kMaxMessage = 1024;

// Formats the calling thread's message (printf style, kept for nb_last_error) and returns
// status. Line breaks become blanks. Never throws, never allocates.
nb_status Fail(nb_status status, const char* format, ...) noexcept
    __attribute__((format(printf, 2, 3)));

// The calling thread's last message, "" if it has none.
const char* LastMessage() noexcept;

// Turns the exception in flight into a status and a message that begins with `function`.
// Call it inside a catch block only.
nb_status FailFromException(const char* function) noexcept;

// Runs body (which returns nb_status) so that nothing it throws crosses the ABI.
template <class Body>
nb_status Guard(const char* function, const Body& body) noexcept {
  try {
    return body();
  } catch (...) {
    return FailFromException(function);
  }
}

}  // namespace nibble::abi

// Leaves the enclosing function when a check did not return NB_OK.
#define NIBBLE_RETURN_IF_FAILED(expression)                      \
  do {                                                           \
    const nb_status nibble_status = (expression);                \
    if (nibble_status != NB_OK) return nibble_status;            \
  } while (false)
