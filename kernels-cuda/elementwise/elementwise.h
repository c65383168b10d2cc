// SPDX-License-Identifier: Apache-2.0
//
// Row operators on the device: RMSNorm, activation quantizers, SwiGLU, residual add, rotation
// angles, the choice of a token, and a plain copy to measure memory by.
//
// All tensors are F32 in device memory unless a function says otherwise, rows `stride` elements
// apart (stride >= cols), on boundaries of 4 bytes; 16-byte loads are used where addresses and
// strides allow them. rows and cols from 0 (nothing happens) to 2^31 - 1. Calls start the work
// and return; they are ordered with all other work of the Device. Errors are those of
// Device::Launch; arguments are not checked here (the ABI does that).
//
// The same bits on every run and for every stride: the order of every sum depends on cols alone.
#pragma once

#include "kernels-cpu/elementwise/sample.h"
#include "kernels-cuda/common/gemm_call.h"

namespace nibble::cuda::elementwise {

// ------------------------------------------------------------------------------------- rows

struct Rows {  // F32 [rows][cols] on the device
  DevicePtr values;
  int64_t stride;  // elements
};

// An optional RMSNorm before a quantizer: x / sqrt(mean(x^2) + epsilon) * weight, in F32 as
// Hugging Face's LLaMA computes it (arXiv 1910.07467).
struct Norm {
  DevicePtr weight = 0;  // F32 [cols]; 0: no norm
  float epsilon = 0;     // finite and positive where there is a norm
};

// y = norm(x); y may be x's memory. norm.weight must not be 0.
Status RmsNorm(Device& device, Rows x, Norm norm, int64_t rows, int64_t cols, Rows y);

// y = silu(gate) * up, silu(x) = x / (1 + exp(-x)) (arXiv 2002.05202); y may be gate or up. The
// relative error is below 2^-20, the absolute one where silu underflows below 2^-120; finite
// inputs never give NaN.
Status SwiGlu(Device& device, Rows gate, Rows up, int64_t rows, int64_t cols, Rows y);

// y = a + b; y may be a or b.
Status Add(Device& device, Rows a, Rows b, int64_t rows, int64_t cols, Rows y);

// ------------------------------------------------------------------- left operands of products

// Elements from row to row of a left operand of type E4M3, I8 or BF16, padded as gemm_call.h
// says: cols rounded up to 128 columns (so that rows lie on boundaries of 128 bytes). F32: cols
// rounded up to 4.
int64_t LeftStride(DType type, int64_t cols);

// Bytes of a left operand's values and scales together (the scales behind the values).
int64_t LeftBytes(DType type, int64_t rows, int64_t cols);

// The operand that fills memory (LeftBytes bytes, on a boundary of 256).
GemmLeft LayOutLeft(DType type, int64_t rows, int64_t cols, DevicePtr memory);

// left = norm(x) rounded to left.type (E4M3, I8, BF16 or F32), padding and scales included.
// E4M3 and I8 as nb_quantize_activations defines them: scale amax/448 or amax/127 in F32, at
// least 2^-126; codes of x / scale, to nearest even. A row of zeros has codes 0 and scale 0, one
// with a NaN or an infinity codes 0 and a NaN scale. BF16 saturates to its largest finite value;
// infinity and NaN stay.
Status MakeLeft(Device& device, Rows x, Norm norm, const GemmLeft& left);

// left = silu(gate) * up rounded to left.type, as MakeLeft after SwiGlu, in one pass.
Status SwiGluLeft(Device& device, Rows gate, Rows up, const GemmLeft& left);

// nb_quantize_activations: codes [rows][cols] without padding, codes_stride bytes apart; scales
// F32 [rows]. type: E4M3 or I8.
Status QuantizeActivations(Device& device, DType type, Rows x, Norm norm, int64_t rows,
                           int64_t cols, DevicePtr codes, int64_t codes_stride, DevicePtr scales);

// ----------------------------------------------------------------------------------- rotation

// nb_rope_angles: sequences is an array of `count` DeviceSequence (attention/sequence.h) in device
// memory, of `rows` tokens or fewer together; inverse_frequencies F32 [half]. A token's row of
// angles [rows][2 half] gets the cosines, then the sines of float(position) *
// inverse_frequencies[i], the product taken in F32, cosine and sine in F64 and rounded once.
// Products up to 2^44 in magnitude; beyond, infinity and NaN included, both are NaN.
Status RopeAngles(Device& device, DevicePtr inverse_frequencies, int64_t half,
                  DevicePtr sequences, int64_t count, int64_t rows, Rows angles);

// ---------------------------------------------------------------------------- choosing a token
//
// The definition, tolerance-free, is that of kernels-cpu/elementwise/sample.h, which has the same
// functions for the CPU; both give the same id for the same logits, always.

// ids[r] (I32 on the device) = the column of row r's largest logit, the first of equals; where
// the row has a NaN or +infinity, -1 - (the first such column). rows, cols >= 1.
Status Argmax(Device& device, Rows logits, int64_t rows, int64_t cols, DevicePtr ids);

using nibble::SampleOptions;

// Bytes of scratch that Sample wants.
int64_t SampleScratchBytes(int64_t rows, int64_t cols);

// ids[r] (I32) = the token drawn from row r by uniforms[r] (F64 on the device, 0 <= u < 1); ids
// as Argmax's where a logit is NaN or +infinity. cols: 1 to
// kMaxSampleTokens.
Status Sample(Device& device, Rows logits, int64_t rows, int64_t cols,
              const SampleOptions& options, DevicePtr uniforms, DevicePtr ids,
              const Scratch& scratch);

// The repeat penalty (CTRL, arXiv 1909.05858) in place on one row of logits: logit / penalty
// where positive, logit * penalty elsewhere. tokens: I32 [count] on the device, each at most once
// (they are changed independently); those outside 0..cols-1 are passed over.
Status Penalize(Device& device, DevicePtr logits, int64_t cols, DevicePtr tokens, int64_t count,
                float penalty);

// ------------------------------------------------------------------------------------ bandwidth

// dst = src, by a kernel that moves 16 bytes a thread; bytes: a multiple of 16, both on boundaries
// of 16. What memory bandwidth means in this project's measurements: 2 * bytes / time.
Status Copy(Device& device, DevicePtr dst, DevicePtr src, int64_t bytes);

// The best of repeats (>= 1) timed copies of bytes (a multiple of 16; a few times the L2 cache to
// measure memory), read and written bytes a second.
Status MeasureCopyBandwidth(Device& device, int64_t bytes, int repeats, double* bytes_per_second);

}  // namespace nibble::cuda::elementwise
