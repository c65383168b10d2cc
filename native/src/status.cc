// SPDX-License-Identifier: Apache-2.0
#include "native/src/status.h"

#include <cstdarg>
#include <cstdio>
#include <exception>
#include <stdexcept>

namespace nibble::abi {
namespace {

// A plain array: it needs no construction, so it is safe in any thread at any time.
thread_local char t_message[kMaxMessage];

}  // namespace

nb_status Fail(nb_status status, const char* format, ...) noexcept {
  // Formatted aside first: an argument may be the current message itself.
  char text[kMaxMessage];
  va_list arguments;
  va_start(arguments, format);
  const int length = std::vsnprintf(text, sizeof(text), format, arguments);
  va_end(arguments);
  if (length < 0) text[0] = '\0';
  int i = 0;
  for (; text[i] != '\0'; ++i) {
    const char c = text[i];
    t_message[i] = (c == '\n' || c == '\r') ? ' ' : c;
  }
  t_message[i] = '\0';
  return status;
}

const char* LastMessage() noexcept { return t_message; }

nb_status FailFromException(const char* function) noexcept {
  try {
    throw;
  } catch (const std::bad_alloc&) {
    return Fail(NB_OUT_OF_MEMORY, "%s: the system has not enough free memory", function);
  } catch (const std::length_error&) {  // a container asked for more than can exist
    return Fail(NB_OUT_OF_MEMORY, "%s: the system has not enough free memory", function);
  } catch (const std::system_error& e) {  // threads, locks: a resource the system refused
    return Fail(NB_OUT_OF_MEMORY, "%s: the system refused a resource: %s", function, e.what());
  } catch (const std::exception& e) {
    return Fail(NB_INTERNAL, "%s: unexpected error: %s", function, e.what());
  } catch (...) {
    return Fail(NB_INTERNAL, "%s: unexpected error of unknown type", function);
  }
}

}  // namespace nibble::abi
