// SPDX-License-Identifier: Apache-2.0
//
// Memory from nb_memory_allocate: what of it exists, and where a tensor lies.
#pragma once

#include "native/src/context.h"

namespace nibble::abi {

// Where `bytes` bytes at address lie.
struct Place {
  bool allocated = false;    // within one piece of memory from nb_memory_allocate
  bool crosses_end = false;  // they begin in one and go on behind it
  int device = kCpu;         // whose memory it is
};
Place PlaceOf(const void* address, int64_t bytes);

// A tensor as its call knows it.
struct PlacedView {
  Arg arg;
  View* view;
};

// Checks that each view lies in ordinary memory or in memory of the context's device, and while
// the context records, in memory from nb_memory_allocate; fills in View::on_device. The context
// is held.
nb_status CheckPlaces(const nb_context* context, std::initializer_list<PlacedView> views);

// Fails where a tensor of weights lies in a device's memory.
nb_status CheckOrdinary(std::initializer_list<PlacedView> views);

}  // namespace nibble::abi
