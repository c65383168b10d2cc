// SPDX-License-Identifier: Apache-2.0
//
// Fetches the bytes of the coming step into the second-level cache while the current one is
// computed, in the order of their addresses:
//
//   step s being read          | keys and values of all its blocks                     |
//   step s + 1 being fetched   | with the scores -> | with the values -> | with the    |
//                              |                    |                    | scales      |
//
// One line is asked for with each line that is read: requests in bursts would fill the queue
// that the reads themselves need. The hardware fetches ahead as well, but it stops at each
// 4 KiB page, cannot see that the next head follows, and the order of reading (keys, then
// values, with gaps) is not one that it follows far. A step is tens of KiB: further than memory
// is away (some 150 ns), and a small part of a second-level cache.
#pragma once

#include <cstdint>

namespace nibble {

struct FetchAhead {
  const uint8_t* at;  // any address; nothing is fetched where it is not mapped

  inline __attribute__((always_inline)) void Line() {
    __builtin_prefetch(at, 0, 2);  // into the second-level cache
    at += 64;
  }
};

}  // namespace nibble
