// SPDX-License-Identifier: Apache-2.0
//
// Of attention's kernels: mutants that no test can see, and bounds for those that are counted. What
// the counted ones are, where moving data goes unseen or other bytes pass:
//
//   attention_prefill_*   scales of keys, and of groups of keys, that no row's result depends on in
//                         the cases; products of E4M3 with zeros in place of half of the keys
//   attention_decode_bf16 AnyNonFinite reading behind a row: the emulator has NaN there, and every
//                         block is then taken key by key, which is right for all
//   attention_decode_i8   whether the scale of a key that a row does not see counts for the
//                         largest (ScaleWeights): costs bits of weights, within the tolerance
#include "kernels-cuda/testing/equivalent_mutants.h"

namespace nibble::cuda {
namespace {

const KnownMutantsRegistration kAttentionMutants({{
    {"attention", "", "drop", "cp.async.wait_all;", 2, Fate::kSame,
     "The last stages that a warp asks for lie behind its keys and are empty groups; its loop has "
     "waited for all others."},
    {"attention_prefill", "", "mask", "and.b32 %r, %r, 31;", 16, Fate::kSame,
     "The lane's number, which is divided by 4, 8 or 16 next; or lane 0 of a loader's warp, beside "
     "which lane 1 then writes the same flag."},
    {"rope_append", "i4", "mask", "and.b32 %r, %r, 128;", 1, Fate::kSame,
     "The sign of a scale, which has none."},
    {"rope_append", "i4", "mask", "and.b32 %r, %r, 248;", 1, Fate::kSame,
     "The first element of a lane, eight a lane. Groups are multiples of 16 elements: it is in the "
     "group of the lane before, which writes the same scale."},
    {"rope_append", "", "mask", "and.b32 %r, %r, 124;", 1, Fate::kSame,
     "The first byte of a lane's four: odd lanes take that of the lane before. Rows are multiples "
     "of 16 bytes, so both lie in the row or behind it."},
}, {
    {"attention_decode_bf16", 21, 0.4, 0, 1},
    {"attention_decode_i4", 28, 0, 0.15, 1},
    {"attention_decode_i8", 30, 0, 0.7, 1},
    {"attention_f32", 27, 0.4, 0, 3},
    {"attention_merge", 57, 0, 0, 3},
    {"attention_prefill_bf16", 45, 3, 0.5, 9},
    {"attention_prefill_i4", 45, 10, 0.5, 12},
    {"attention_prefill_i8", 45, 4, 1, 8},
    {"rope_append", 15, 0, 0, 2},
}});

}  // namespace
}  // namespace nibble::cuda
