// SPDX-License-Identifier: Apache-2.0
//
// PTX instructions that CUDA C++ has no name for, one function each. Fragments are as the PTX
// manual numbers them: `group` = lane / 4 and `member` = lane % 4 of the 32 lanes of a warp.
//
//   m16n8k16 (16-bit)  a[0] (row group,     columns 2 member, +1)   b[0] (k 2 member, +1; n group)
//                      a[1] (row group + 8, the same)               b[1] (k + 8)
//                      a[2], a[3] as a[0], a[1], columns + 8
//   m16n8k32 (8-bit)   a[0] (row group,     columns 4 member..+3)   b[0] (k 4 member..+3; n group)
//                      a[1] (row group + 8, the same)               b[1] (k + 16)
//                      a[2], a[3] as a[0], a[1], columns + 16
//   both               c[0], c[1] (row group, n 2 member, +1); c[2], c[3] (row group + 8, the same)
//
// The element with the lower index stands in the lower bits of a register.
#pragma once

#include <cstdint>

// FP8 tensor cores reached by mma.sync: Ada and Blackwell. Hopper has them behind wgmma only;
// there the instruction is expanded into some 18 others.
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 890 && __CUDA_ARCH__ != 900
#define NIBBLE_FP8_MMA 1
#else
#define NIBBLE_FP8_MMA 0
#endif

// Operands of six bits: sm_120a.
#if defined(__CUDA_ARCH_FEAT_SM120_ALL)
#define NIBBLE_F8F6F4_MMA 1
#else
#define NIBBLE_F8F6F4_MMA 0
#endif

// Conversions between FP8 and F16 or F32 in one instruction.
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 890
#define NIBBLE_FP8_CVT 1
#else
#define NIBBLE_FP8_CVT 0
#endif

namespace nibble::cuda {

inline constexpr int kWarpLanes = 32;
inline constexpr unsigned kAllLanes = 0xFFFFFFFFu;

// ---------------------------------------------------------------------------- tensor cores

// c += a * b of F16, m16n8k16, summed in F32.
__device__ __forceinline__ void MmaF16(float (&c)[4], const uint32_t (&a)[4],
                                       const uint32_t (&b)[2]) {
  asm volatile(
      "mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, "
      "{%0,%1,%2,%3};"
      : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}

// c += a * b of BF16, m16n8k16, summed in F32.
__device__ __forceinline__ void MmaBF16(float (&c)[4], const uint32_t (&a)[4],
                                        const uint32_t (&b)[2]) {
  asm volatile(
      "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, "
      "{%8,%9}, {%0,%1,%2,%3};"
      : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}

// c += a * b of I8, m16n8k32, exact in S32 while no sum leaves it (K below 131,072 always fits).
__device__ __forceinline__ void MmaI8(int32_t (&c)[4], const uint32_t (&a)[4],
                                      const uint32_t (&b)[2]) {
  asm volatile(
      "mma.sync.aligned.m16n8k32.row.col.s32.s8.s8.s32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, "
      "{%0,%1,%2,%3};"
      : "+r"(c[0]), "+r"(c[1]), "+r"(c[2]), "+r"(c[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}

#if NIBBLE_FP8_MMA
// c += a * b of E4M3, m16n8k32; products are exact, and the sum within one instruction keeps
// fewer bits than F32 on hardware (Ada: 13 fraction bits below the largest term's exponent).
__device__ __forceinline__ void MmaE4M3(float (&c)[4], const uint32_t (&a)[4],
                                        const uint32_t (&b)[2]) {
  asm volatile(
      "mma.sync.aligned.m16n8k32.row.col.f32.e4m3.e4m3.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, "
      "{%8,%9}, {%0,%1,%2,%3};"
      : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}
#endif

#if NIBBLE_F8F6F4_MMA
// c += a * b, m16n8k32, operands of the types named (A, then B); a six-bit code stands in the
// low bits of its byte, whose two high bits must be zero.
#define NIBBLE_MMA_F8F6F4(Name, types)                                                           \
  __device__ __forceinline__ void Name(float (&c)[4], const uint32_t (&a)[4],                    \
                                       const uint32_t (&b)[2]) {                                 \
    asm volatile("mma.sync.aligned.m16n8k32.row.col.kind::f8f6f4.f32." types                     \
                 ".f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"                    \
                 : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])                                \
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));            \
  }
NIBBLE_MMA_F8F6F4(MmaE3M2E4M3, "e3m2.e4m3")
NIBBLE_MMA_F8F6F4(MmaE4M3E3M2, "e4m3.e3m2")
NIBBLE_MMA_F8F6F4(MmaE2M3E4M3, "e2m3.e4m3")
NIBBLE_MMA_F8F6F4(MmaE4M3E2M3, "e4m3.e2m3")
NIBBLE_MMA_F8F6F4(MmaE4M3E4M3, "e4m3.e4m3")
#undef NIBBLE_MMA_F8F6F4
#endif

// --------------------------------------------------------------------------- shared memory

// The 32-bit address of shared memory that ldmatrix and cp.async take.
__device__ __forceinline__ uint32_t SharedAddress(const void* shared) {
  return static_cast<uint32_t>(__cvta_generic_to_shared(shared));
}

// One 8 x 8 matrix of 16-bit elements (lanes 0..7 pass the addresses of its 16-byte rows): lane l
// receives elements 2 (l % 4) and + 1 of row l / 4.
__device__ __forceinline__ void LoadMatrix1(uint32_t& r, uint32_t address) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x1.shared.b16 {%0}, [%1];"
               : "=r"(r)
               : "r"(address)
               : "memory");
}

// Two such matrices, rows from lanes 0..15.
__device__ __forceinline__ void LoadMatrix2(uint32_t (&r)[2], uint32_t address) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x2.shared.b16 {%0,%1}, [%2];"
               : "=r"(r[0]), "=r"(r[1])
               : "r"(address)
               : "memory");
}

// Four such matrices, rows from lanes 0..31.
__device__ __forceinline__ void LoadMatrix4(uint32_t (&r)[4], uint32_t address) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0,%1,%2,%3}, [%4];"
               : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
               : "r"(address)
               : "memory");
}

// One 8 x 8 matrix transposed: lane l receives elements l / 4 of rows 2 (l % 4) and + 1.
__device__ __forceinline__ void LoadMatrixTransposed1(uint32_t& r, uint32_t address) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x1.trans.shared.b16 {%0}, [%1];"
               : "=r"(r)
               : "r"(address)
               : "memory");
}

// Two matrices, each transposed.
__device__ __forceinline__ void LoadMatrixTransposed2(uint32_t (&r)[2], uint32_t address) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x2.trans.shared.b16 {%0,%1}, [%2];"
               : "=r"(r[0]), "=r"(r[1])
               : "r"(address)
               : "memory");
}

// Four matrices, each transposed.
__device__ __forceinline__ void LoadMatrixTransposed4(uint32_t (&r)[4], uint32_t address) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0,%1,%2,%3}, [%4];"
               : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
               : "r"(address)
               : "memory");
}

// Starts a copy of 16 bytes to shared memory past the L1 cache; of the source only the first
// `bytes` (0 to 16) are read, and zeros take the place of the rest.
__device__ __forceinline__ void CopyAsync16(uint32_t shared, const void* global, int bytes = 16) {
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;"
               :
               : "r"(shared), "l"(__cvta_generic_to_global(global)), "r"(bytes)
               : "memory");
}

// The same for 8 bytes, through the L1 cache.
__device__ __forceinline__ void CopyAsync8(uint32_t shared, const void* global, int bytes = 8) {
  asm volatile("cp.async.ca.shared.global [%0], [%1], 8, %2;"
               :
               : "r"(shared), "l"(__cvta_generic_to_global(global)), "r"(bytes)
               : "memory");
}

// The same for 4 bytes.
__device__ __forceinline__ void CopyAsync4(uint32_t shared, const void* global, int bytes = 4) {
  asm volatile("cp.async.ca.shared.global [%0], [%1], 4, %2;"
               :
               : "r"(shared), "l"(__cvta_generic_to_global(global)), "r"(bytes)
               : "memory");
}

// Closes a group: the copies that this thread started since the last one.
__device__ __forceinline__ void CopyAsyncCommit() {
  asm volatile("cp.async.commit_group;" ::: "memory");
}

// Waits until at most kPending of this thread's newest groups are under way; other threads see
// the bytes after a barrier.
template <int kPending>
__device__ __forceinline__ void CopyAsyncWait() {
  asm volatile("cp.async.wait_group %0;" ::"n"(kPending) : "memory");
}

// Waits for all of this thread's copies, committed or not.
__device__ __forceinline__ void CopyAsyncWaitAll() {
  asm volatile("cp.async.wait_all;" ::: "memory");
}

// A barrier of `threads` (a multiple of 32) of the block's threads: those that name `id` (1..15).
__device__ __forceinline__ void NamedBarrier(int id, int threads) {
  asm volatile("bar.sync %0, %1;" ::"r"(id), "r"(threads) : "memory");
}

// Arrives at a named barrier without waiting for it.
__device__ __forceinline__ void NamedBarrierArrive(int id, int threads) {
  asm volatile("bar.arrive %0, %1;" ::"r"(id), "r"(threads) : "memory");
}

// -------------------------------------------------------------------------------- registers

// Picks four of the eight bytes of b:a (a is bytes 0..3), one for each nibble of selector; bit 3
// of a nibble replicates that byte's top bit instead.
__device__ __forceinline__ uint32_t Permute(uint32_t a, uint32_t b, uint32_t selector) {
  uint32_t d;
  asm("prmt.b32 %0, %1, %2, %3;" : "=r"(d) : "r"(a), "r"(b), "r"(selector));
  return d;
}

// A boolean function of three words in one instruction; kTable is it applied to 0xF0, 0xCC, 0xAA.
template <int kTable>
__device__ __forceinline__ uint32_t Lop3(uint32_t a, uint32_t b, uint32_t c) {
  uint32_t d;
  asm("lop3.b32 %0, %1, %2, %3, %4;" : "=r"(d) : "r"(a), "r"(b), "r"(c), "n"(kTable));
  return d;
}

inline constexpr int kAndOr = (0xF0 & 0xCC) | 0xAA;  // a & b | c

// a * b + c on two F16, each rounded once.
__device__ __forceinline__ uint32_t FmaF16x2(uint32_t a, uint32_t b, uint32_t c) {
  uint32_t d;
  asm("fma.rn.f16x2 %0, %1, %2, %3;" : "=r"(d) : "r"(a), "r"(b), "r"(c));
  return d;
}

// a * b + c on two BF16, each rounded once.
__device__ __forceinline__ uint32_t FmaBF16x2(uint32_t a, uint32_t b, uint32_t c) {
  uint32_t d;
  asm("fma.rn.bf16x2 %0, %1, %2, %3;" : "=r"(d) : "r"(a), "r"(b), "r"(c));
  return d;
}

// 2^x within 2 ulp; 2^-inf is 0; a subnormal x counts as 0, a subnormal result becomes 0.
__device__ __forceinline__ float Exp2Approximate(float x) {
  float y;
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
  return y;
}

// ------------------------------------------------------------------------------ lanes of a warp
//
// Reductions over `kLanes` neighbouring lanes (a power of two), given to each of them. The order
// is the same on every run; all 32 lanes must take part.

template <int kLanes = kWarpLanes>
__device__ __forceinline__ float WarpSum(float x) {
#pragma unroll
  for (int offset = kLanes / 2; offset > 0; offset /= 2) {
    x += __shfl_xor_sync(kAllLanes, x, offset);
  }
  return x;
}

template <int kLanes = kWarpLanes>
__device__ __forceinline__ int32_t WarpSum(int32_t x) {
#pragma unroll
  for (int offset = kLanes / 2; offset > 0; offset /= 2) {
    x += __shfl_xor_sync(kAllLanes, x, offset);
  }
  return x;
}

// The largest; a NaN counts as absent unless all are.
template <int kLanes = kWarpLanes>
__device__ __forceinline__ float WarpMax(float x) {
#pragma unroll
  for (int offset = kLanes / 2; offset > 0; offset /= 2) {
    x = fmaxf(x, __shfl_xor_sync(kAllLanes, x, offset));
  }
  return x;
}

template <int kLanes = kWarpLanes>
__device__ __forceinline__ uint32_t WarpMax(uint32_t x) {
#pragma unroll
  for (int offset = kLanes / 2; offset > 0; offset /= 2) {
    x = max(x, __shfl_xor_sync(kAllLanes, x, offset));
  }
  return x;
}

// A float's magnitude as an integer: finite magnitudes order like their floats, infinity and NaN
// above all of them, so that one integer maximum finds amax and whether a row is finite.
__device__ __forceinline__ uint32_t MagnitudeBits(float x) {
  return __float_as_uint(x) & 0x7FFFFFFFu;
}

// The larger of largest and |x|; NaN if either is.
__device__ __forceinline__ float LargerMagnitude(float largest, float x) {
  float larger;
  asm("max.NaN.f32 %0, %1, %2;" : "=f"(larger) : "f"(largest), "f"(fabsf(x)));
  return larger;
}

}  // namespace nibble::cuda
