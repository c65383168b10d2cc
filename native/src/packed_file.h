// SPDX-License-Identifier: Apache-2.0
//
// A packed matrix as a record in a file of the caller's.
//
//   | header | hashes | hash of both | 0 | factors | 0 | panels                    | 0 |
//   0                                  4 KiB * a     4 KiB * b                      length
//
//   header   what the matrix is and how it is packed (struct Header): every field follows
//            from format, rows and cols, so that reading compares it and believes nothing
//   hashes   U64: of the factors, then of each block of panels (hash.h)
//   factors, panels   the bytes of PackedMatrix
//
// Little-endian. The layout of the panels is known by what it does: the header holds the
// hash of a small matrix packed by this library on this machine, so that a record of
// another layout is refused without anyone having to count versions.
#pragma once

#include <cstdint>

#include "kernels-cpu/gemm/packed_matrix.h"
#include "native/src/status.h"

namespace nibble::abi {

// Bytes of the record of a matrix (checked by CheckFormat): a multiple of 4096.
int64_t RecordBytes(const WeightFormat& format, int64_t rows, int64_t cols);

// Writes the record of matrix at offset of an existing file, on all threads. A failed write
// leaves bytes there that no reader takes for a record.
nb_status WriteRecord(const char* function, ThreadPool& pool, const PackedMatrix& matrix,
                      const char* path, int64_t offset);

// Reads the record of a matrix of this format and shape, each thread the panels that it will
// work on, into fresh memory, and checks every hash while its block is in the cache. Throws
// std::bad_alloc.
nb_status ReadRecord(const char* function, ThreadPool& pool, const WeightFormat& format,
                     int64_t rows, int64_t cols, const char* path, int64_t offset,
                     PackedMatrix* matrix);

}  // namespace nibble::abi
