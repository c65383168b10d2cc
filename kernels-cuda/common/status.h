// SPDX-License-Identifier: Apache-2.0
//
// What a call on the device came to: nothing here throws for what a device can do wrong.
#pragma once

#include <string>
#include <utility>

#include "native/include/nibble/nibble.h"

namespace nibble::cuda {

// NB_OK, or what went wrong with one line that says so.
class [[nodiscard]] Status {
 public:
  Status() = default;  // NB_OK
  Status(nb_status code, std::string message) : code_(code), message_(std::move(message)) {}

  bool ok() const { return code_ == NB_OK; }
  nb_status code() const { return code_; }
  const std::string& message() const { return message_; }

 private:
  nb_status code_ = NB_OK;
  std::string message_;
};

// Leaves the calling function with the status of expression, unless that is NB_OK.
#define NIBBLE_CUDA_RETURN_IF_FAILED(expression)                      \
  do {                                                                \
    ::nibble::cuda::Status nibble_cuda_status = (expression);         \
    if (!nibble_cuda_status.ok()) return nibble_cuda_status;          \
  } while (0)

}  // namespace nibble::cuda
