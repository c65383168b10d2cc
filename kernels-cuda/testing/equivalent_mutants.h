// SPDX-License-Identifier: Apache-2.0
//
// Mutants that no test can see, each with the argument why, and bounds for those that are counted:
// see mutations_test.cc.
#pragma once

namespace nibble::cuda {

enum class Fate {
  kSame,       // leaves the same bytes, on all inputs that a kernel may be given
  kTolerated,  // leaves other bytes, all within the tolerance that the kernel is held to
};

struct EquivalentMutant {
  const char* module;  // a part of its name, as of the kernel's
  const char* kernel;
  const char* change;
  const char* line;  // without register numbers: see Normalized in mutate.h
  int places;        // such lines of one kernel that the argument is about, at most
  Fate fate;
  const char* reason;
};

inline constexpr EquivalentMutant kEquivalentMutants[] = {
    {"attention", "", "drop", "cp.async.wait_all;", 2, Fate::kSame,
     "The last stages that a warp asks for lie behind its keys and are empty groups; its loop has "
     "waited for all others."},
    {"gemm_dense", "", "drop", "cp.async.wait_all;", 2, Fate::kSame,
     "The last stages of the loop are empty groups, since nothing is loaded behind the last brick; "
     "it has waited for all others."},
    {"gemm_f6", "", "drop", "cp.async.wait_all;", 2, Fate::kSame, "As for gemm_dense."},
    {"attention", "bf16", "mask", "and.b32 %r, %r, -65536;", 72, Fate::kSame,
     "What is kept of a pair of values whose first is not finite. A row that sees the second sees "
     "the first, and is NaN or infinite whatever the second adds."},
    {"attention", "bf16", "mask", "and.b32 %r, %r, 2130738944;", 72, Fate::kSame,
     "A value that is not finite counts as 0.5 instead of 1; only whether a row sees any is asked."},
    {"", "", "mask", "and.b64 %rd, %rd, -4294967296;", 14, Fate::kSame,
     "The compiler's division of 64-bit numbers looks whether 32 bits hold both; the mutant takes "
     "numbers from 2^32 to 2^33 for such. What is divided here is numbers of blocks, rows, heads "
     "and keys, none of which a device's memory lets reach 2^32."},
};

// In percent: of the mutants that compute, those that do the same; of those that move data, those
// that are neither seen nor listed; of all, those that pass; of all mutants that there are, those
// of lines that no case runs.
struct ModuleBounds {
  const char* module;  // a part of its name; the first that fits counts
  double same, unseen, passed, unreached;
};

// What the cases come to, and some for other generations. These are gaps of the verifications, not
// arguments that nothing is wrong there. What they are, for the most part:
//
//   attention_prefill_bf16  values that are not finite are kept from finite ones register by
//                      register (FinitePair): of the code's copies for several blocks of keys not
//                      each meets such a value
//   attention_*_i4     scales that are NaN, of every key of a block in every group
//   attention          NaN and infinity in a query, at each of its elements; scales of keys that a
//                      row does not see; the second of several blocks of a stage
//   elementwise        whether an address stands on a boundary of 4, 8 or 16 bytes: either way
//                      is right; not reached: a norm in front of SwiGLU, which nobody asks for
//   gemm_*             NaN and infinity at the rounding to BF16 (a NaN may have any payload);
//                      positions of scale groups behind the last column; not reached: a residual
//                      in the kernels of pairs, which take none
//   strip_*            decoders of single rows, special codes; not reached: as gemm_*
inline constexpr ModuleBounds kBounds[] = {
    {"attention_decode_bf16", 48, 12, 8, 9},
    {"attention_decode_i4", 58, 48, 3, 25},
    {"attention_decode_i8", 53, 45, 6, 23},
    {"attention_f32", 44, 9, 3, 9},
    {"attention_merge", 54, 22, 13, 45},
    {"attention_prefill_bf16", 60, 34, 12, 15},
    {"attention_prefill_i4", 50, 22, 4, 19},
    {"attention_prefill_i8", 50, 16, 3, 16},
    {"elementwise", 60, 30, 2, 44},
    {"gemm_dense_a16", 25, 16, 3, 25},
    {"gemm_dense_a8f", 27, 18, 3, 30},
    {"gemm_dense_a8i", 27, 7, 3, 25},
    {"gemm_f6_a16", 22, 9, 2, 18},
    {"gemm_f6_a8f", 31, 12, 3, 23},
    {"gemm_f6_a8i", 23, 8, 2, 21},
    {"gemm_i4f8_few_bf16", 12, 6, 2, 8},
    {"gemm_i4f8_few_e4m3", 11, 5, 2, 8},
    {"gemm_i4f8_few_i8", 14, 5, 2, 8},
    {"gemm_i4f8_finish", 38, 16, 2, 26},
    {"gemm_i4f8_tiled_bf16", 13, 5, 2, 14},
    {"gemm_i4f8_tiled_e4m3", 12, 5, 2, 15},
    {"gemm_i4f8_tiled_i8", 11, 6, 2, 16},
    {"rope_append", 35, 20, 2, 34},
    {"sampling", 30, 10, 3, 10},
    {"strip_f32", 19, 12, 2, 12},
    {"strip_rows", 46, 42, 2, 50},
};

}  // namespace nibble::cuda
