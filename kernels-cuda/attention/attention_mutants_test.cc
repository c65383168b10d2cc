// SPDX-License-Identifier: Apache-2.0
//
// Of attention's kernels: mutants that no test can see, and bounds for those that are counted.
#include "kernels-cuda/testing/equivalent_mutants.h"

namespace nibble::cuda {
namespace {

const KnownMutantsRegistration kAttentionMutants({{
    {"attention", "", "drop", "cp.async.wait_all;", 2, Fate::kSame,
     "The last stages that a warp asks for lie behind its keys and are empty groups; its loop has "
     "waited for all others."},
    {"attention_decode_bf16", "", "offset", "ld.shared.v4.u32 {%r, %r, %r, %r}, [%r];", 1, Fate::kSame,
     "AnyNonFinite: reads, instead of a row's first word, the one behind the row, which nobody writes. "
     "The emulator has NaN there, so that every block is taken key by key, which is right for all."},
}, {
    {"attention_decode_bf16", 40, 2, 0.5, 5},
    {"attention_decode_i4", 40, 2, 0.5, 8},
    {"attention_decode_i8", 45, 2, 0.5, 8},
    {"attention_f32", 30, 2, 0, 5},
    {"attention_merge", 50, 12, 0, 45},
    {"attention_prefill_bf16", 45, 3, 0.5, 8},
    {"attention_prefill_i4", 50, 8, 0.5, 12},
    {"attention_prefill_i8", 45, 6, 0.5, 8},
    {"rope_append", 30, 12, 0, 12},
}});

}  // namespace
}  // namespace nibble::cuda
