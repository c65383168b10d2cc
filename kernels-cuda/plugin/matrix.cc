// SPDX-License-Identifier: Apache-2.0
//
// Weights: packed on the host by the threads of the context, and sent to the device.
#include "kernels-cuda/plugin/matrix.h"

#include <algorithm>

#include "kernels-cpu/memory/buffer.h"

namespace nibble::cuda {
namespace {

constexpr const char* kCodeNames[] = {"none", "F32",  "F16", "BF16", "E4M3", "E5M2", "E3M2",
                                      "E2M3", "I4",   "I8",  "I32",  "U8",   "POW2"};

// Rows of F32 brought to the host at once.
constexpr int64_t kDequantizedBytes = 64 << 20;

nb_status MatMulStatus(BackendContext* context, const BackendMatrix* matrix, DType activation,
                       BackendError* error) {
  return Enter(error, [&] {
    const std::string problem =
        matrix->family->unsupported(matrix->format, matrix->rows, matrix->cols, activation,
                                    context->device->properties().sm);
    if (problem.empty()) return Status();
    return Status(NB_UNSUPPORTED,
                  std::string(kCodeNames[static_cast<int>(matrix->format.code)]) +
                      " codes with " + kCodeNames[static_cast<int>(activation)] +
                      " activations on cuda:" + std::to_string(context->device->ordinal()) +
                      ": " + problem);
  });
}

// Calls body(i) for each i below count on the caller's threads.
template <class Body>
void ForEach(const BackendThreads& threads, int64_t count, const Body& body) {
  threads.run(
      threads.pool, count,
      [](void* b, int64_t i) { (*static_cast<const Body*>(b))(i); },
      const_cast<Body*>(&body));
}

nb_status MatrixPack(BackendContext* context, const WeightFormat* format, int64_t rows,
                     int64_t cols, const CanonicalWeights* weights,
                     const BackendThreads* threads, BackendMatrix** matrix, BackendError* error) {
  *matrix = nullptr;
  return Enter(error, [&] {
    const GemmFamily& family = FamilyOf(format->code);
    const int64_t bytes = family.packed_bytes(*format, rows, cols);
    // The device's memory first: there is less of it.
    auto made = std::make_unique<BackendMatrix>();
    made->family = &family;
    made->format = *format;
    made->rows = rows;
    made->cols = cols;
    NIBBLE_CUDA_RETURN_IF_FAILED(made->memory.Allocate(context->shared, bytes));
    Buffer packed(static_cast<size_t>(bytes));
    ForEach(*threads, family.row_blocks(rows), [&](int64_t block) {
      family.pack(*format, rows, cols, *weights, block, packed.data());
    });
    NIBBLE_CUDA_RETURN_IF_FAILED(
        context->shared->CopyIn(made->memory.address(), packed.data(), bytes));
    *matrix = made.release();
    return Status();
  });
}

nb_status MatrixUnpack(BackendContext* context, const BackendMatrix* matrix,
                       const CanonicalWeights* weights, const BackendThreads* threads,
                       BackendError* error) {
  return Enter(error, [&] {
    const BackendMatrix& m = *matrix;
    Buffer packed(static_cast<size_t>(m.memory.bytes()));
    NIBBLE_CUDA_RETURN_IF_FAILED(
        context->shared->CopyOut(packed.data(), m.memory.address(), m.memory.bytes()));
    ForEach(*threads, m.family->row_blocks(m.rows), [&](int64_t block) {
      m.family->unpack(m.format, m.rows, m.cols, packed.data(), block, *weights);
    });
    return Status();
  });
}

nb_status MatrixDequantize(BackendContext* context, const BackendMatrix* matrix,
                           const BackendView* output, BackendError* error) {
  return Enter(error, [&] {
    const BackendMatrix& m = *matrix;
    const int64_t at_once = std::max<int64_t>(1, kDequantizedBytes / (4 * m.cols));
    for (int64_t r = 0; r < m.rows; r += at_once) {
      BackendView part = *output;
      part.rows = std::min(at_once, m.rows - r);
      part.data = static_cast<uint8_t*>(output->data) + r * output->stride * 4;
      Operands operands(*context);
      elementwise::Rows y;
      NIBBLE_CUDA_RETURN_IF_FAILED(operands.Out(part, &y));
      NIBBLE_CUDA_RETURN_IF_FAILED(m.family->dequantize_rows(
          operands.device(), m.weights(), 0, r, part.rows, y.values, y.stride));
      NIBBLE_CUDA_RETURN_IF_FAILED(operands.Finish());
    }
    return Status();
  });
}

int64_t MatrixBytes(const BackendMatrix* matrix) { return matrix->memory.bytes(); }

void MatrixDestroy(BackendMatrix* matrix) { delete matrix; }

}  // namespace

void AddMatrixFunctions(Backend* table) {
  table->matmul_status = MatMulStatus;
  table->matrix_pack = MatrixPack;
  table->matrix_unpack = MatrixUnpack;
  table->matrix_dequantize = MatrixDequantize;
  table->matrix_bytes = MatrixBytes;
  table->matrix_destroy = MatrixDestroy;
}

}  // namespace nibble::cuda
