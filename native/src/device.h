// SPDX-License-Identifier: Apache-2.0
//
// Device names, and whether each can be used.
#pragma once

#include "native/src/status.h"

namespace nibble::abi {

// NB_OK for "cpu"; NB_UNSUPPORTED with the reason for "cuda:N"; else NB_INVALID_ARGUMENT.
nb_status CheckDevice(const char* function, const char* device);

}  // namespace nibble::abi
