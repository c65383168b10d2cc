// SPDX-License-Identifier: Apache-2.0
//
// Products, lookup, elementwise operators and the choice of a token: operands brought to the
// device, the kernels of the families, results brought back.
#include <algorithm>

#include "kernels-cuda/plugin/matrix.h"

namespace nibble::cuda {
namespace {

using elementwise::Norm;
using elementwise::Rows;

constexpr unsigned kThreads = 256;
constexpr int64_t kMostBlocks = 65535;

unsigned Blocks(int64_t count) {
  return static_cast<unsigned>(std::min(std::max<int64_t>(count, 1), kMostBlocks));
}

Status BringNorm(Operands& operands, const BackendNorm& norm, Norm* out) {
  Rows weight;
  NIBBLE_CUDA_RETURN_IF_FAILED(operands.In(norm.weight, &weight));
  *out = {weight.values, norm.epsilon};
  return Status();
}

// norm(x) as the left operand of a product. F32 without a norm is used where it lies.
Status BringLeft(Operands& operands, DType activation, const BackendView& x,
                 const BackendNorm& norm, GemmLeft* left) {
  Rows rows;
  Norm n;
  NIBBLE_CUDA_RETURN_IF_FAILED(operands.In(x, &rows));
  NIBBLE_CUDA_RETURN_IF_FAILED(BringNorm(operands, norm, &n));
  if (activation == DType::kF32 && n.weight == 0) {
    *left = {activation, x.rows, x.cols, rows.values, rows.stride, 0};
    return Status();
  }
  DevicePtr memory = 0;
  NIBBLE_CUDA_RETURN_IF_FAILED(
      operands.Take(elementwise::LeftBytes(activation, x.rows, x.cols), &memory));
  *left = elementwise::LayOutLeft(activation, x.rows, x.cols, memory);
  return elementwise::MakeLeft(operands.device(), rows, n, *left);
}

Status TakeScratch(Operands& operands, const BackendMatrix& m, int64_t rows, Scratch* scratch) {
  scratch->bytes =
      m.family->scratch_bytes(operands.device(), m.format, m.rows, m.cols, rows);
  return operands.Take(scratch->bytes, &scratch->memory);
}

// The output, which may be the residual's memory, in which case its content is brought along.
Status BringOutput(Operands& operands, const BackendProjection& p, Rows* residual, Rows* output) {
  const bool in_place = p.residual.data != nullptr && p.residual.data == p.output.data;
  if (in_place) {
    NIBBLE_CUDA_RETURN_IF_FAILED(operands.InOut(p.output, output));
    *residual = *output;
    return Status();
  }
  NIBBLE_CUDA_RETURN_IF_FAILED(operands.In(p.residual, residual));
  return operands.Out(p.output, output);
}

nb_status MatMul(BackendContext* context, DType activation, const BackendView* x,
                 const BackendNorm* norm, const BackendProjection* projections, int32_t count,
                 BackendError* error) {
  return Enter(error, [&] {
    Operands operands(*context);
    GemmLeft left;
    NIBBLE_CUDA_RETURN_IF_FAILED(BringLeft(operands, activation, *x, *norm, &left));
    for (int32_t i = 0; i < count; ++i) {
      const BackendProjection& p = projections[i];
      const BackendMatrix& m = *p.matrix;
      Rows bias, residual, output;
      Scratch scratch{};
      NIBBLE_CUDA_RETURN_IF_FAILED(operands.In(p.bias, &bias));
      NIBBLE_CUDA_RETURN_IF_FAILED(BringOutput(operands, p, &residual, &output));
      NIBBLE_CUDA_RETURN_IF_FAILED(TakeScratch(operands, m, x->rows, &scratch));
      const GemmResult result{DType::kF32, output.values, output.stride,   bias.values,
                              0,           residual.values, residual.stride};
      NIBBLE_CUDA_RETURN_IF_FAILED(
          m.family->run(operands.device(), m.weights(), left, result, scratch));
    }
    return operands.Finish();
  });
}

nb_status SwiGluMatMul(BackendContext* context, DType activation, const BackendView* x,
                       const BackendNorm* norm, const BackendMatrix* gate,
                       const BackendView* gate_bias, const BackendMatrix* up,
                       const BackendView* up_bias, const BackendView* output,
                       BackendError* error) {
  return Enter(error, [&] {
    Operands operands(*context);
    GemmLeft left;
    Rows gb, ub, y;
    Scratch scratch{};
    NIBBLE_CUDA_RETURN_IF_FAILED(BringLeft(operands, activation, *x, *norm, &left));
    NIBBLE_CUDA_RETURN_IF_FAILED(operands.In(*gate_bias, &gb));
    NIBBLE_CUDA_RETURN_IF_FAILED(operands.In(*up_bias, &ub));
    NIBBLE_CUDA_RETURN_IF_FAILED(operands.Out(*output, &y));
    NIBBLE_CUDA_RETURN_IF_FAILED(TakeScratch(operands, *gate, x->rows, &scratch));
    const GemmResult result{DType::kF32, y.values, y.stride, gb.values, ub.values, 0, 0};
    NIBBLE_CUDA_RETURN_IF_FAILED(gate->family->run_swiglu(operands.device(), gate->weights(),
                                                          up->weights(), left, result, scratch));
    return operands.Finish();
  });
}

// Ids in ordinary memory have been checked by the caller.
nb_status Embedding(BackendContext* context, const BackendMatrix* table, const BackendView* ids,
                    const BackendView* output, BackendError* error) {
  return Enter(error, [&] {
    Operands operands(*context);
    Device& device = operands.device();
    Rows i, y;
    NIBBLE_CUDA_RETURN_IF_FAILED(operands.In(*ids, &i));
    NIBBLE_CUDA_RETURN_IF_FAILED(operands.Out(*output, &y));
    const int64_t count = ids->cols;
    const auto rows = static_cast<int32_t>(table->rows);
    DevicePtr safe = i.values;
    if (ids->on_device) {
      NIBBLE_CUDA_RETURN_IF_FAILED(operands.Take(4 * count, &safe));
      NIBBLE_CUDA_RETURN_IF_FAILED(
          LaunchKernel(device, {"embedding_ids", "clamp_ids"},
                       {Blocks(DivUp(count, kThreads)), 1, 1, kThreads}, i.values, safe, count,
                       rows));
    }
    NIBBLE_CUDA_RETURN_IF_FAILED(table->family->dequantize_rows(device, table->weights(), safe, 0,
                                                                count, y.values, y.stride));
    if (ids->on_device) {
      NIBBLE_CUDA_RETURN_IF_FAILED(LaunchKernel(device, {"embedding_ids", "poison_rows"},
                                                {Blocks(count), 1, 1, kThreads}, i.values, count,
                                                rows, y.values, y.stride, table->cols));
    }
    return operands.Finish();
  });
}

nb_status RmsNorm(BackendContext* context, const BackendView* x, const BackendNorm* norm,
                  const BackendView* output, BackendError* error) {
  return Enter(error, [&] {
    Operands operands(*context);
    Rows rows, y;
    Norm n;
    NIBBLE_CUDA_RETURN_IF_FAILED(operands.In(*x, &rows));
    NIBBLE_CUDA_RETURN_IF_FAILED(BringNorm(operands, *norm, &n));
    NIBBLE_CUDA_RETURN_IF_FAILED(operands.Out(*output, &y));
    NIBBLE_CUDA_RETURN_IF_FAILED(
        elementwise::RmsNorm(operands.device(), rows, n, x->rows, x->cols, y));
    return operands.Finish();
  });
}

using BinaryKernel = Status (*)(Device&, Rows, Rows, int64_t, int64_t, Rows);

nb_status Binary(BackendContext* context, const BackendView* a, const BackendView* b,
                 const BackendView* output, BinaryKernel kernel, BackendError* error) {
  return Enter(error, [&] {
    Operands operands(*context);
    Rows ra, rb, y;
    NIBBLE_CUDA_RETURN_IF_FAILED(operands.In(*a, &ra));
    NIBBLE_CUDA_RETURN_IF_FAILED(operands.In(*b, &rb));
    NIBBLE_CUDA_RETURN_IF_FAILED(operands.Out(*output, &y));
    NIBBLE_CUDA_RETURN_IF_FAILED(kernel(operands.device(), ra, rb, a->rows, a->cols, y));
    return operands.Finish();
  });
}

nb_status SwiGlu(BackendContext* context, const BackendView* gate, const BackendView* up,
                 const BackendView* output, BackendError* error) {
  return Binary(context, gate, up, output, elementwise::SwiGlu, error);
}

nb_status Add(BackendContext* context, const BackendView* a, const BackendView* b,
              const BackendView* output, BackendError* error) {
  return Binary(context, a, b, output, elementwise::Add, error);
}

nb_status QuantizeActivations(BackendContext* context, DType type, const BackendView* x,
                              const BackendNorm* norm, const BackendView* codes,
                              const BackendView* scales, BackendError* error) {
  return Enter(error, [&] {
    Operands operands(*context);
    Rows rows, c, s;
    Norm n;
    NIBBLE_CUDA_RETURN_IF_FAILED(operands.In(*x, &rows));
    NIBBLE_CUDA_RETURN_IF_FAILED(BringNorm(operands, *norm, &n));
    NIBBLE_CUDA_RETURN_IF_FAILED(operands.Out(*codes, &c));
    NIBBLE_CUDA_RETURN_IF_FAILED(operands.Out(*scales, &s));
    NIBBLE_CUDA_RETURN_IF_FAILED(
        elementwise::QuantizeActivations(operands.device(), type, rows, n, x->rows, x->cols,
                                         c.values, c.stride, s.values));
    return operands.Finish();
  });
}

nb_status Argmax(BackendContext* context, const BackendView* logits, const BackendView* ids,
                 BackendError* error) {
  return Enter(error, [&] {
    Operands operands(*context);
    Rows rows, i;
    NIBBLE_CUDA_RETURN_IF_FAILED(operands.In(*logits, &rows));
    NIBBLE_CUDA_RETURN_IF_FAILED(operands.Out(*ids, &i));
    NIBBLE_CUDA_RETURN_IF_FAILED(
        elementwise::Argmax(operands.device(), rows, logits->rows, logits->cols, i.values));
    return operands.Finish();
  });
}

nb_status Sample(BackendContext* context, const BackendView* logits, const SampleOptions* options,
                 const BackendView* uniforms, const BackendView* ids, BackendError* error) {
  return Enter(error, [&] {
    Operands operands(*context);
    Rows rows, u, i;
    Scratch scratch{0, elementwise::SampleScratchBytes(logits->rows, logits->cols)};
    NIBBLE_CUDA_RETURN_IF_FAILED(operands.In(*logits, &rows));
    NIBBLE_CUDA_RETURN_IF_FAILED(operands.In(*uniforms, &u));
    NIBBLE_CUDA_RETURN_IF_FAILED(operands.Out(*ids, &i));
    NIBBLE_CUDA_RETURN_IF_FAILED(operands.Take(scratch.bytes, &scratch.memory));
    NIBBLE_CUDA_RETURN_IF_FAILED(elementwise::Sample(operands.device(), rows, logits->rows,
                                                     logits->cols, *options, u.values, i.values,
                                                     scratch));
    return operands.Finish();
  });
}

nb_status Penalize(BackendContext* context, const BackendView* logits, const BackendView* tokens,
                   float penalty, BackendError* error) {
  return Enter(error, [&] {
    Operands operands(*context);
    Rows row, t;
    NIBBLE_CUDA_RETURN_IF_FAILED(operands.InOut(*logits, &row));
    NIBBLE_CUDA_RETURN_IF_FAILED(operands.In(*tokens, &t));
    NIBBLE_CUDA_RETURN_IF_FAILED(elementwise::Penalize(
        operands.device(), row.values, logits->cols, t.values, tokens->cols, penalty));
    return operands.Finish();
  });
}

}  // namespace

void AddOperatorFunctions(Backend* table) {
  table->matmul = MatMul;
  table->swiglu_matmul = SwiGluMatMul;
  table->embedding = Embedding;
  table->rms_norm = RmsNorm;
  table->swiglu = SwiGlu;
  table->add = Add;
  table->quantize_activations = QuantizeActivations;
  table->argmax = Argmax;
  table->sample = Sample;
  table->penalize = Penalize;
}

}  // namespace nibble::cuda
