// SPDX-License-Identifier: Apache-2.0
//
// Weights: sizes, quantization, packing and back.
#include <memory>
#include <string>

#include "kernels-cpu/memory/buffer.h"
#include "kernels-cpu/numerics/quantize.h"
#include "native/src/memory.h"
#include "native/src/packed_file.h"
#include "native/src/weights.h"

namespace {

using namespace nibble;
using namespace nibble::abi;

struct Sizes {
  int64_t codes, codes_high, scales, factors;  // bytes; factors: elements
};

Sizes SizesOf(const WeightFormat& format, int64_t rows, int64_t cols) {
  return {rows * format.CodeRowBytes(cols), rows * format.HighRowBytes(cols),
          rows * format.Groups(cols) * format.ScaleBytes(), format.FactorCount(rows)};
}

// weights: F32, F16 or BF16, [N, K], with its sizes free.
nb_status CheckWeights(const char* function, const nb_tensor* weights, View* view) {
  const uint32_t types = DTypeBit(NB_F32) | DTypeBit(NB_F16) | DTypeBit(NB_BF16);
  const Arg arg{function, "weights"};
  NIBBLE_RETURN_IF_FAILED(
      CheckTensor(arg, weights, {types, 2, {kAnySize, kAnySize}, {"N", "K"}}, view));
  return CheckOrdinary({{arg, view}});
}

std::unique_ptr<nb_matrix> NewMatrix(const nb_context* context, const nb_weight_format& format,
                                     const WeightFormat& kernels, int64_t rows, int64_t cols) {
  auto made = std::make_unique<nb_matrix>();
  made->format = format;
  made->kernels = kernels;
  made->rows = rows;
  made->cols = cols;
  made->device = context->device;
  made->backend = context->backend;
  return made;
}

// The canonical form of a matrix in memory of its own, on its way to or from a device.
class CanonicalCopy {
 public:
  CanonicalCopy(const WeightFormat& format, int64_t rows, int64_t cols)
      : sizes_(SizesOf(format, rows, cols)),
        codes_(static_cast<size_t>(sizes_.codes)),
        high_(static_cast<size_t>(sizes_.codes_high)),
        scales_(static_cast<size_t>(sizes_.scales)),
        factors_(static_cast<size_t>(sizes_.factors) * sizeof(float)) {}

  CanonicalWeights weights() const {
    return {codes_.data(), high_.data(), scales_.data(), factors_.as<float>()};
  }

 private:
  Sizes sizes_;
  Buffer codes_, high_, scales_, factors_;
};

// The context's threads, as the plug-in takes them.
cuda::BackendThreads ThreadsOf(nb_context* context) {
  return {[](void* pool, int64_t count, void (*body)(void*, int64_t), void* argument) {
            auto& threads = *static_cast<ThreadPool*>(pool);
            threads.Run([&](int thread) {
              const Range range = Share(count, thread, threads.threads());
              for (int64_t i = range.begin; i < range.end; ++i) body(argument, i);
            });
          },
          &context->workspace.pool()};
}

// Packs for the context's device; weights are checked.
nb_status PackFor(const char* function, nb_context* context, const CanonicalWeights& weights,
                  nb_matrix* made) {
  ThreadPool& pool = context->workspace.pool();
  if (context->cuda == nullptr) {
    made->packed = PackMatrix(pool, made->kernels, made->rows, made->cols, weights);
    return NB_OK;
  }
  const cuda::BackendThreads threads = ThreadsOf(context);
  return CallCuda(function, [&](cuda::BackendError* error) {
    return context->backend->matrix_pack(context->cuda, &made->kernels, made->rows, made->cols,
                                         &weights, &threads, &made->cuda, error);
  });
}

nb_status UnpackFrom(const char* function, nb_context* context, const nb_matrix& m,
                     const CanonicalWeights& out) {
  if (context->cuda == nullptr) {
    UnpackMatrix(context->workspace.pool(), m.packed, out);
    return NB_OK;
  }
  const cuda::BackendThreads threads = ThreadsOf(context);
  return CallCuda(function, [&](cuda::BackendError* error) {
    return context->backend->matrix_unpack(context->cuda, m.cuda, &out, &threads, error);
  });
}

nb_status Quantize(nb_context* context, const nb_weight_format* format, const nb_tensor* weights,
                   const nb_tensor* codes, const nb_tensor* codes_high, const nb_tensor* scales,
                   const nb_tensor* factors) {
  constexpr char kFunction[] = "nb_quantize";
  NIBBLE_RETURN_IF_FAILED(CheckContext(kFunction, context));
  View w;
  WeightFormat f;
  Canonical out;
  NIBBLE_RETURN_IF_FAILED(CheckWeights(kFunction, weights, &w));
  NIBBLE_RETURN_IF_FAILED(CheckFormat(kFunction, format, w.rows, w.cols, &f));
  NIBBLE_RETURN_IF_FAILED(CheckCanonicalTensors(kFunction, f, w.rows, w.cols, codes, codes_high,
                                                scales, factors, /*outputs=*/true, &out));
  NIBBLE_RETURN_IF_FAILED(CheckDisjoint({kFunction, "codes"}, out.codes, "weights", w));
  NIBBLE_RETURN_IF_FAILED(CheckDisjoint({kFunction, "codes_high"}, out.codes_high, "weights", w));
  NIBBLE_RETURN_IF_FAILED(CheckDisjoint({kFunction, "scales"}, out.scales, "weights", w));
  NIBBLE_RETURN_IF_FAILED(CheckDisjoint({kFunction, "factors"}, out.factors, "weights", w));
  const Turn turn(context->lock);
  NIBBLE_RETURN_IF_FAILED(CheckNotRecording(kFunction, context));
  const std::string problem =
      QuantizeWeights(context->workspace.pool(), f, static_cast<DType>(w.dtype), w.data, w.rows,
                      w.cols, w.stride, out.weights());
  if (problem.empty()) return NB_OK;
  return FailArg(NB_INVALID_ARGUMENT, {kFunction, "weights"}, "%s", problem.c_str());
}

nb_status Pack(nb_context* context, const nb_weight_format* format, int64_t rows, int64_t cols,
               const nb_tensor* codes, const nb_tensor* codes_high, const nb_tensor* scales,
               const nb_tensor* factors, nb_matrix** matrix) {
  constexpr char kFunction[] = "nb_matrix_pack";
  NIBBLE_RETURN_IF_FAILED(CheckNotNull({kFunction, "matrix"}, matrix));
  *matrix = nullptr;
  NIBBLE_RETURN_IF_FAILED(CheckContext(kFunction, context));
  WeightFormat f;
  Canonical in;
  NIBBLE_RETURN_IF_FAILED(CheckFormat(kFunction, format, rows, cols, &f));
  NIBBLE_RETURN_IF_FAILED(CheckCanonicalTensors(kFunction, f, rows, cols, codes, codes_high,
                                                scales, factors, /*outputs=*/false, &in));
  const Turn turn(context->lock);
  NIBBLE_RETURN_IF_FAILED(CheckNotRecording(kFunction, context));
  const std::string problem =
      CheckCanonical(context->workspace.pool(), f, rows, cols, in.weights());
  if (!problem.empty()) return Fail(NB_INVALID_ARGUMENT, "%s: %s", kFunction, problem.c_str());
  auto made = NewMatrix(context, *format, f, rows, cols);
  NIBBLE_RETURN_IF_FAILED(PackFor(kFunction, context, in.weights(), made.get()));
  *matrix = made.release();
  return NB_OK;
}

nb_status QuantizeAndPack(nb_context* context, const nb_weight_format* format,
                          const nb_tensor* weights, nb_matrix** matrix) {
  constexpr char kFunction[] = "nb_matrix_quantize";
  NIBBLE_RETURN_IF_FAILED(CheckNotNull({kFunction, "matrix"}, matrix));
  *matrix = nullptr;
  NIBBLE_RETURN_IF_FAILED(CheckContext(kFunction, context));
  View w;
  WeightFormat f;
  NIBBLE_RETURN_IF_FAILED(CheckWeights(kFunction, weights, &w));
  NIBBLE_RETURN_IF_FAILED(CheckFormat(kFunction, format, w.rows, w.cols, &f));
  const Turn turn(context->lock);
  NIBBLE_RETURN_IF_FAILED(CheckNotRecording(kFunction, context));
  ThreadPool& pool = context->workspace.pool();
  auto made = NewMatrix(context, *format, f, w.rows, w.cols);
  std::string problem;
  if (context->cuda == nullptr) {
    problem = QuantizeAndPackMatrix(pool, f, static_cast<DType>(w.dtype), w.data, w.rows, w.cols,
                                    w.stride, &made->packed);
  } else {
    const CanonicalCopy copy(f, w.rows, w.cols);
    problem = QuantizeWeights(pool, f, static_cast<DType>(w.dtype), w.data, w.rows, w.cols,
                              w.stride, copy.weights());
    if (problem.empty()) {
      NIBBLE_RETURN_IF_FAILED(PackFor(kFunction, context, copy.weights(), made.get()));
    }
  }
  if (!problem.empty()) {
    return FailArg(NB_INVALID_ARGUMENT, {kFunction, "weights"}, "%s", problem.c_str());
  }
  *matrix = made.release();
  return NB_OK;
}

nb_status Unpack(nb_context* context, const nb_matrix* matrix, const nb_tensor* codes,
                 const nb_tensor* codes_high, const nb_tensor* scales,
                 const nb_tensor* factors) {
  constexpr char kFunction[] = "nb_matrix_unpack";
  NIBBLE_RETURN_IF_FAILED(CheckContext(kFunction, context));
  NIBBLE_RETURN_IF_FAILED(CheckMatrix({kFunction, "matrix"}, matrix, context));
  const nb_matrix& m = *matrix;
  Canonical out;
  NIBBLE_RETURN_IF_FAILED(CheckCanonicalTensors(kFunction, m.kernels, m.rows, m.cols, codes,
                                                codes_high, scales, factors, /*outputs=*/true,
                                                &out));
  const Turn turn(context->lock);
  NIBBLE_RETURN_IF_FAILED(CheckNotRecording(kFunction, context));
  return UnpackFrom(kFunction, context, m, out.weights());
}

nb_status Dequantize(nb_context* context, const nb_matrix* matrix, const nb_tensor* output) {
  constexpr char kFunction[] = "nb_matrix_dequantize";
  NIBBLE_RETURN_IF_FAILED(CheckContext(kFunction, context));
  NIBBLE_RETURN_IF_FAILED(CheckMatrix({kFunction, "matrix"}, matrix, context));
  View y;
  NIBBLE_RETURN_IF_FAILED(CheckTensor({kFunction, "output"}, output,
                                      Output(F32Rows(matrix->rows, matrix->cols)), &y));
  NIBBLE_RETURN_IF_FAILED(CheckOrdinary({{{kFunction, "output"}, &y}}));
  const Turn turn(context->lock);
  NIBBLE_RETURN_IF_FAILED(CheckNotRecording(kFunction, context));
  if (context->cuda != nullptr) {
    const cuda::BackendView view = CudaView(y);
    return CallCuda(kFunction, [&](cuda::BackendError* error) {
      return context->backend->matrix_dequantize(context->cuda, matrix->cuda, &view, error);
    });
  }
  const PackedMatrix& m = matrix->packed;
  ThreadPool& pool = context->workspace.pool();
  pool.Run([&](int thread) {
    const Range range = Share(m.rows, thread, pool.threads());
    for (int64_t r = range.begin; r < range.end; ++r) DequantizeRow(m, r, y.f32() + r * y.stride);
  });
  return NB_OK;
}

// offset and record_bytes of the record of a matrix.
nb_status CheckRecord(const char* function, const WeightFormat& format, int64_t rows,
                      int64_t cols, int64_t offset, int64_t record_bytes) {
  const int64_t expected = RecordBytes(format, rows, cols);
  int64_t end = 0;
  if (offset < 0 || !CheckedAdd(offset, expected, &end)) {
    return FailArg(NB_INVALID_ARGUMENT, {function, "offset"},
                   "%lld but at least 0, and an end that fits in 63 bits, was expected",
                   static_cast<long long>(offset));
  }
  if (record_bytes == expected) return NB_OK;
  return FailArg(NB_INVALID_ARGUMENT, {function, "record_bytes"},
                 "%lld but %lld was expected for this matrix",
                 static_cast<long long>(record_bytes), static_cast<long long>(expected));
}

nb_status Write(nb_context* context, const nb_matrix* matrix, const char* path, int64_t offset,
                int64_t record_bytes) {
  constexpr char kFunction[] = "nb_matrix_write";
  NIBBLE_RETURN_IF_FAILED(CheckContext(kFunction, context));
  NIBBLE_RETURN_IF_FAILED(CheckMatrix({kFunction, "matrix"}, matrix, context));
  const nb_matrix& m = *matrix;
  NIBBLE_RETURN_IF_FAILED(CheckRecord(kFunction, m.kernels, m.rows, m.cols, offset, record_bytes));
  const Turn turn(context->lock);
  NIBBLE_RETURN_IF_FAILED(CheckNotRecording(kFunction, context));
  ThreadPool& pool = context->workspace.pool();
  if (context->cuda == nullptr) return WriteRecord(kFunction, pool, m.packed, path, offset);
  // A record is the same for every device: this machine's CPU layout.
  const CanonicalCopy copy(m.kernels, m.rows, m.cols);
  NIBBLE_RETURN_IF_FAILED(UnpackFrom(kFunction, context, m, copy.weights()));
  return WriteRecord(kFunction, pool, PackMatrix(pool, m.kernels, m.rows, m.cols, copy.weights()),
                     path, offset);
}

nb_status Read(nb_context* context, const nb_weight_format* format, int64_t rows, int64_t cols,
               const char* path, int64_t offset, int64_t record_bytes, nb_matrix** matrix) {
  constexpr char kFunction[] = "nb_matrix_read";
  NIBBLE_RETURN_IF_FAILED(CheckNotNull({kFunction, "matrix"}, matrix));
  *matrix = nullptr;
  NIBBLE_RETURN_IF_FAILED(CheckContext(kFunction, context));
  WeightFormat f;
  NIBBLE_RETURN_IF_FAILED(CheckFormat(kFunction, format, rows, cols, &f));
  NIBBLE_RETURN_IF_FAILED(CheckRecord(kFunction, f, rows, cols, offset, record_bytes));
  auto made = NewMatrix(context, *format, f, rows, cols);
  const Turn turn(context->lock);
  NIBBLE_RETURN_IF_FAILED(CheckNotRecording(kFunction, context));
  ThreadPool& pool = context->workspace.pool();
  NIBBLE_RETURN_IF_FAILED(
      ReadRecord(kFunction, pool, f, rows, cols, path, offset, &made->packed));
  if (context->cuda != nullptr) {
    const CanonicalCopy copy(f, rows, cols);
    UnpackMatrix(pool, made->packed, copy.weights());
    made->packed = PackedMatrix();
    NIBBLE_RETURN_IF_FAILED(PackFor(kFunction, context, copy.weights(), made.get()));
  }
  *matrix = made.release();
  return NB_OK;
}

}  // namespace

nb_status nb_weight_sizes(const nb_weight_format* format, int64_t rows, int64_t cols,
                          int64_t* code_bytes, int64_t* high_bytes, int64_t* scale_bytes,
                          int64_t* factor_count) {
  return Guard("nb_weight_sizes", [&] {
    WeightFormat f;
    NIBBLE_RETURN_IF_FAILED(CheckFormat("nb_weight_sizes", format, rows, cols, &f));
    const Sizes sizes = SizesOf(f, rows, cols);
    if (code_bytes != nullptr) *code_bytes = sizes.codes;
    if (high_bytes != nullptr) *high_bytes = sizes.codes_high;
    if (scale_bytes != nullptr) *scale_bytes = sizes.scales;
    if (factor_count != nullptr) *factor_count = sizes.factors;
    return NB_OK;
  });
}

nb_status nb_quantize(nb_context* context, const nb_weight_format* format,
                      const nb_tensor* weights, const nb_tensor* codes,
                      const nb_tensor* codes_high, const nb_tensor* scales,
                      const nb_tensor* factors) {
  return Guard("nb_quantize", [&] {
    return Quantize(context, format, weights, codes, codes_high, scales, factors);
  });
}

nb_status nb_matrix_pack(nb_context* context, const nb_weight_format* format, int64_t rows,
                         int64_t cols, const nb_tensor* codes, const nb_tensor* codes_high,
                         const nb_tensor* scales, const nb_tensor* factors, nb_matrix** matrix) {
  return Guard("nb_matrix_pack", [&] {
    return Pack(context, format, rows, cols, codes, codes_high, scales, factors, matrix);
  });
}

nb_status nb_matrix_quantize(nb_context* context, const nb_weight_format* format,
                             const nb_tensor* weights, nb_matrix** matrix) {
  return Guard("nb_matrix_quantize",
               [&] { return QuantizeAndPack(context, format, weights, matrix); });
}

nb_status nb_matrix_unpack(nb_context* context, const nb_matrix* matrix, const nb_tensor* codes,
                           const nb_tensor* codes_high, const nb_tensor* scales,
                           const nb_tensor* factors) {
  return Guard("nb_matrix_unpack",
               [&] { return Unpack(context, matrix, codes, codes_high, scales, factors); });
}

nb_status nb_matrix_dequantize(nb_context* context, const nb_matrix* matrix,
                               const nb_tensor* output) {
  return Guard("nb_matrix_dequantize", [&] { return Dequantize(context, matrix, output); });
}

nb_status nb_matrix_record_bytes(const nb_weight_format* format, int64_t rows, int64_t cols,
                                 int64_t* bytes) {
  return Guard("nb_matrix_record_bytes", [&] {
    constexpr char kFunction[] = "nb_matrix_record_bytes";
    WeightFormat f;
    NIBBLE_RETURN_IF_FAILED(CheckNotNull({kFunction, "bytes"}, bytes));
    NIBBLE_RETURN_IF_FAILED(CheckFormat(kFunction, format, rows, cols, &f));
    *bytes = RecordBytes(f, rows, cols);
    return NB_OK;
  });
}

nb_status nb_matrix_write(nb_context* context, const nb_matrix* matrix, const char* path,
                          int64_t offset, int64_t record_bytes) {
  return Guard("nb_matrix_write",
               [&] { return Write(context, matrix, path, offset, record_bytes); });
}

nb_status nb_matrix_read(nb_context* context, const nb_weight_format* format, int64_t rows,
                         int64_t cols, const char* path, int64_t offset, int64_t record_bytes,
                         nb_matrix** matrix) {
  return Guard("nb_matrix_read", [&] {
    return Read(context, format, rows, cols, path, offset, record_bytes, matrix);
  });
}

nb_status nb_matrix_get_info(const nb_matrix* matrix, nb_matrix_info* info) {
  return Guard("nb_matrix_get_info", [&] {
    const Arg arg{"nb_matrix_get_info", "info"};
    NIBBLE_RETURN_IF_FAILED(CheckMatrix({"nb_matrix_get_info", "matrix"}, matrix));
    NIBBLE_RETURN_IF_FAILED(CheckNotNull(arg, info));
    NIBBLE_RETURN_IF_FAILED(CheckStructSize(arg, info->struct_size, sizeof(nb_matrix_info)));
    info->rows = matrix->rows;
    info->cols = matrix->cols;
    info->format = matrix->format;
    info->packed_bytes = matrix->cuda == nullptr ? matrix->packed.packed_bytes()
                                                 : matrix->backend->matrix_bytes(matrix->cuda);
    return NB_OK;
  });
}

nb_status nb_matrix_destroy(nb_matrix* matrix) {
  return Guard("nb_matrix_destroy", [&] {
    delete matrix;
    return NB_OK;
  });
}
