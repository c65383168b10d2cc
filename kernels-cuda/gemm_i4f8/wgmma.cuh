// SPDX-License-Identifier: Apache-2.0
//
// Hopper's warpgroup products on E4M3, one function an instruction (sm_90a).
//
//   D [64][64] += A [64][32] * B [32][64]     four warps; warp i has rows 16 i .. 16 i + 15
//
// A comes from registers and D stays there: a warp's share of both is what mma.m16n8k32 has, D as
// its C fragments of columns 8 j .. 8 j + 7 one after the other (d[4 j + c]). B comes from shared
// memory, 64 rows (columns of B) of 64 bytes, of which the instruction takes 32 in a row; the
// rows' 16-byte words are swizzled over 64 bytes: word w of row r stands at w ^ (r / 2 % 4).
#pragma once

#include <cstdint>

namespace nibble::cuda::gemm_i4f8 {

// Makes the compiler have these values in these registers here. Without it, it is free to write
// them just before the product that takes them, past the fence that has to come after.
template <int kCount>
__device__ __forceinline__ void HoldRegisters(float (&d)[kCount]) {
#pragma unroll
  for (int i = 0; i < kCount; ++i) asm volatile("" : "+f"(d[i])::"memory");
}
template <int kCount>
__device__ __forceinline__ void HoldRegisters(uint32_t (&a)[kCount]) {
#pragma unroll
  for (int i = 0; i < kCount; ++i) asm volatile("" : "+r"(a[i])::"memory");
}

// After the last access to registers of A or D, and before a product that has them; also where
// that product does not read its accumulators (PTX manual, wgmma.fence). HoldRegisters comes first.
__device__ __forceinline__ void WarpgroupFence() {
  asm volatile("wgmma.fence.sync.aligned;" ::: "memory");
}

__device__ __forceinline__ void WarpgroupCommit() {
  asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory");
}

// Until all committed products are done; their registers may be used then. They are operands, so
// that no use moves ahead of the wait.
__device__ __forceinline__ void WarpgroupWait(float (&d0)[32], float (&d1)[32]) {
  asm volatile("wgmma.wait_group.sync.aligned 0;" ::: "memory");
  HoldRegisters(d0);
  HoldRegisters(d1);
}

// Orders this thread's ordinary writes to shared memory before later warpgroup products read it
// (beside a barrier, where other threads issue those).
__device__ __forceinline__ void FenceSharedForWarpgroup() {
  asm volatile("fence.proxy.async.shared::cta;" ::: "memory");
}

// The descriptor of B whose first row starts at this shared address (its tile at a multiple of
// 512): PTX manual, "Matrix descriptor format". Bits 0..13 the address, 16..29 the distance of
// columns (unused for a swizzled row), 32..45 that of 8 rows, all in 16 bytes; bits 62..63 the
// swizzle, 2 for 64 bytes.
__device__ __forceinline__ uint64_t DescribeB(uint32_t address) {
  constexpr uint64_t kEightRows = 8 * 64 / 16, kSwizzle64 = 2;
  return static_cast<uint64_t>((address & 0x3FFFFu) >> 4) | uint64_t{1} << 16 | kEightRows << 32 |
         kSwizzle64 << 62;
}

// d = a * b + (accumulate ? d : 0), begun; products of E4M3 are exact, and the sum within one
// instruction keeps fewer bits than F32.
__device__ __forceinline__ void WarpgroupMultiply(float (&d)[32], const uint32_t (&a)[4],
                                                  uint64_t b, bool accumulate) {
  asm volatile(
      "{\n\t.reg .pred accumulate;\n\t"
      "setp.ne.b32 accumulate, %37, 0;\n\t"
      "wgmma.mma_async.sync.aligned.m64n64k32.f32.e4m3.e4m3 "
      "{%0,%1,%2,%3,%4,%5,%6,%7,%8,%9,%10,%11,%12,%13,%14,%15,"
      "%16,%17,%18,%19,%20,%21,%22,%23,%24,%25,%26,%27,%28,%29,%30,%31}, "
      "{%32,%33,%34,%35}, %36, accumulate, 1, 1;\n\t}"
      : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3]), "+f"(d[4]), "+f"(d[5]), "+f"(d[6]),
        "+f"(d[7]), "+f"(d[8]), "+f"(d[9]), "+f"(d[10]), "+f"(d[11]), "+f"(d[12]), "+f"(d[13]),
        "+f"(d[14]), "+f"(d[15]), "+f"(d[16]), "+f"(d[17]), "+f"(d[18]), "+f"(d[19]),
        "+f"(d[20]), "+f"(d[21]), "+f"(d[22]), "+f"(d[23]), "+f"(d[24]), "+f"(d[25]),
        "+f"(d[26]), "+f"(d[27]), "+f"(d[28]), "+f"(d[29]), "+f"(d[30]), "+f"(d[31])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b),
        "r"(static_cast<int32_t>(accumulate)));
}

}  // namespace nibble::cuda::gemm_i4f8
