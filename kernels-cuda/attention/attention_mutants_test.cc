// SPDX-License-Identifier: Apache-2.0
//
// Of attention's kernels: mutants that no test can see, and bounds for those that are counted. What
// the counted ones are, for the most part:
//
//   attention_prefill_bf16  values that are not finite are kept from finite ones register by
//                      register (FinitePair): of the code's copies for several blocks of keys not
//                      each meets such a value
//   attention_*_i4     scales that are NaN, of every key of a block in every group
//   all                NaN and infinity in a query, at each of its elements; scales of keys that a
//                      row does not see; the second of several blocks of a stage
#include "kernels-cuda/testing/equivalent_mutants.h"

namespace nibble::cuda {
namespace {

const KnownMutantsRegistration kAttentionMutants({{
    {"attention", "", "drop", "cp.async.wait_all;", 2, Fate::kSame,
     "The last stages that a warp asks for lie behind its keys and are empty groups; its loop has "
     "waited for all others."},
    {"attention", "bf16", "mask", "and.b32 %r, %r, -65536;", 72, Fate::kSame,
     "What is kept of a pair of values whose first is not finite. A row that sees the second sees "
     "the first, and is NaN or infinite whatever the second adds."},
    {"attention", "bf16", "mask", "and.b32 %r, %r, 2130738944;", 72, Fate::kSame,
     "A value that is not finite counts as 0.5 instead of 1; only whether a row sees any is asked."},
}, {
    {"attention_decode_bf16", 48, 12, 8, 9},
    {"attention_decode_i4", 58, 48, 3, 25},
    {"attention_decode_i8", 53, 45, 6, 23},
    {"attention_f32", 44, 9, 3, 9},
    {"attention_merge", 54, 22, 13, 45},
    {"attention_prefill_bf16", 60, 34, 12, 15},
    {"attention_prefill_i4", 50, 22, 4, 19},
    {"attention_prefill_i8", 50, 16, 3, 16},
    {"rope_append", 35, 20, 2, 34},
}});

}  // namespace
}  // namespace nibble::cuda
