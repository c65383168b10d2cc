// SPDX-License-Identifier: Apache-2.0
//
// Products, lookup and elementwise operators.
#include <cstring>

#include "kernels-cpu/elementwise/elementwise.h"
#include "kernels-cpu/gemm/gemm.h"
#include "native/src/context.h"
#include "native/src/weights.h"

namespace {

using namespace nibble;
using namespace nibble::abi;

// The left operand of a product, checked.
struct Input {
  View x, norm;
  GemmInput gemm;
};

nb_status CheckNorm(const char* function, const nb_tensor* weight, float epsilon, int64_t cols,
                    View* norm) {
  Expected vector = F32Vector(cols);
  NIBBLE_RETURN_IF_FAILED(CheckOptionalTensor({function, "norm_weight"}, weight, vector, norm));
  return weight == nullptr ? NB_OK : CheckEpsilon({function, "norm_epsilon"}, epsilon);
}

nb_status CheckInput(const char* function, int32_t activation, const nb_tensor* x,
                     const nb_tensor* norm_weight, float norm_epsilon, int64_t cols,
                     Input* input) {
  NIBBLE_RETURN_IF_FAILED(CheckTensor({function, "x"}, x, F32Rows(kAnySize, cols), &input->x));
  NIBBLE_RETURN_IF_FAILED(CheckNorm(function, norm_weight, norm_epsilon, cols, &input->norm));
  input->gemm = {static_cast<DType>(activation), input->x.f32(), input->x.rows, cols,
                 input->x.stride, input->norm.f32(), norm_epsilon};
  return NB_OK;
}

// That there is a kernel for matrix with activation; else the message says which there are.
nb_status CheckKernel(const char* function, int32_t activation, const Arg& matrix_arg,
                      const nb_matrix* matrix) {
  if (activation < NB_NONE || activation > NB_POW2) {
    return FailArg(NB_INVALID_ARGUMENT, {function, "activation"},
                   "%d but F32, BF16, E4M3 or I8 was expected", activation);
  }
  const DType code = matrix->packed.format.code;
  if (HasKernel(code, static_cast<DType>(activation))) return NB_OK;
  char kernels[64] = "";
  for (int32_t t = NB_F32; t <= NB_POW2; ++t) {
    if (!HasKernel(code, static_cast<DType>(t))) continue;
    if (kernels[0] != '\0') std::strncat(kernels, ", ", sizeof(kernels) - std::strlen(kernels) - 1);
    std::strncat(kernels, DTypeName(t), sizeof(kernels) - std::strlen(kernels) - 1);
  }
  return FailArg(NB_UNSUPPORTED, matrix_arg,
                 "%s codes with %s activations have no kernel; those with %s have one",
                 DTypeName(static_cast<int32_t>(code)), DTypeName(activation), kernels);
}

// ---------------------------------------------------------------- nb_matmul --

constexpr int kMaxProjections = 8;

struct Projection {
  View bias, residual, output;
};

nb_status CheckProjection(const char* function, int32_t index, int32_t activation,
                          const nb_projection* projections, const Input& input, Projection* out) {
  const Arg arg{function, "projections", index};
  const nb_projection& p = projections[index];
  NIBBLE_RETURN_IF_FAILED(CheckKernel(function, activation, arg.Field("matrix"), p.matrix));
  const PackedMatrix& m = p.matrix->packed;
  const int64_t rows = input.x.rows;
  NIBBLE_RETURN_IF_FAILED(
      CheckOptionalTensor(arg.Field("bias"), p.bias, F32Vector(m.rows), &out->bias));
  NIBBLE_RETURN_IF_FAILED(CheckOptionalTensor(arg.Field("residual"), p.residual,
                                              F32Rows(rows, m.rows, "N"), &out->residual));
  NIBBLE_RETURN_IF_FAILED(CheckTensor(arg.Field("output"), p.output,
                                      Output(F32Rows(rows, m.rows, "N")), &out->output));
  const Arg written = arg.Field("output");
  NIBBLE_RETURN_IF_FAILED(CheckDisjoint(written, out->output, "x", input.x));
  NIBBLE_RETURN_IF_FAILED(CheckDisjoint(written, out->output, "norm_weight", input.norm));
  return CheckDisjointOrSame(written, out->output, "its own residual", out->residual);
}

// No output may be what another projection reads or writes: they are computed side by side.
nb_status CheckOutputs(const char* function, const Projection* projections, int32_t count) {
  for (int32_t i = 0; i < count; ++i) {
    const Arg written{function, "projections", i, "output"};
    for (int32_t j = 0; j < count; ++j) {
      const View& output = projections[i].output;
      NIBBLE_RETURN_IF_FAILED(
          CheckDisjoint(written, output, "a projection's bias", projections[j].bias));
      if (i == j) continue;
      NIBBLE_RETURN_IF_FAILED(CheckDisjoint(written, output, "another projection's residual",
                                            projections[j].residual));
      NIBBLE_RETURN_IF_FAILED(
          CheckDisjoint(written, output, "another projection's output", projections[j].output));
    }
  }
  return NB_OK;
}

nb_status DoMatMul(nb_context* context, int32_t activation, const nb_tensor* x,
                   const nb_tensor* norm_weight, float norm_epsilon,
                   const nb_projection* projections, int32_t count) {
  constexpr char kFunction[] = "nb_matmul";
  NIBBLE_RETURN_IF_FAILED(CheckContext(kFunction, context));
  if (count < 1 || count > kMaxProjections) {
    return FailArg(NB_INVALID_ARGUMENT, {kFunction, "count"}, "%d but 1..%d was expected", count,
                   kMaxProjections);
  }
  NIBBLE_RETURN_IF_FAILED(CheckNotNull({kFunction, "projections"}, projections));
  for (int32_t i = 0; i < count; ++i) {
    const Arg arg{kFunction, "projections", i, "matrix"};
    NIBBLE_RETURN_IF_FAILED(CheckMatrix(arg, projections[i].matrix));
    const int64_t cols = projections[i].matrix->packed.cols;
    const int64_t expected = projections[0].matrix->packed.cols;
    if (cols != expected) {
      return FailArg(NB_INVALID_ARGUMENT, arg,
                     "%lld columns but %lld, as in projections[0].matrix, was expected",
                     static_cast<long long>(cols), static_cast<long long>(expected));
    }
  }
  Input input;
  NIBBLE_RETURN_IF_FAILED(CheckInput(kFunction, activation, x, norm_weight, norm_epsilon,
                                     projections[0].matrix->packed.cols, &input));
  Projection checked[kMaxProjections];
  GemmOutput outputs[kMaxProjections];
  for (int32_t i = 0; i < count; ++i) {
    Projection& p = checked[i];
    NIBBLE_RETURN_IF_FAILED(CheckProjection(kFunction, i, activation, projections, input, &p));
    outputs[i] = {&projections[i].matrix->packed, p.bias.f32(),   p.residual.f32(),
                  p.residual.stride,              p.output.f32(), p.output.stride};
  }
  NIBBLE_RETURN_IF_FAILED(CheckOutputs(kFunction, checked, count));
  if (input.x.rows == 0) return NB_OK;
  const Turn turn(context->lock);
  MatMul(context->workspace, input.gemm, outputs, count);
  return NB_OK;
}

// --------------------------------------------------------- nb_swiglu_matmul --

nb_status CheckSameShape(const char* function, const PackedMatrix& gate, const PackedMatrix& up) {
  if (gate.rows != up.rows || gate.cols != up.cols) {
    return FailArg(NB_INVALID_ARGUMENT, {function, "up"},
                   "shape [%lld, %lld] but [%lld, %lld], as of gate, was expected",
                   static_cast<long long>(up.rows), static_cast<long long>(up.cols),
                   static_cast<long long>(gate.rows), static_cast<long long>(gate.cols));
  }
  const WeightFormat &g = gate.format, &u = up.format;
  if (g.code == u.code && g.scale == u.scale && g.group_size == u.group_size) return NB_OK;
  return FailArg(NB_INVALID_ARGUMENT, {function, "up"},
                 "format %s, %s, groups of %lld but %s, %s, %lld, as of gate, was expected",
                 DTypeName(static_cast<int32_t>(u.code)), DTypeName(static_cast<int32_t>(u.scale)),
                 static_cast<long long>(u.Group(up.cols)),
                 DTypeName(static_cast<int32_t>(g.code)), DTypeName(static_cast<int32_t>(g.scale)),
                 static_cast<long long>(g.Group(gate.cols)));
}

nb_status DoSwiGluMatMul(nb_context* context, int32_t activation, const nb_tensor* x,
                         const nb_tensor* norm_weight, float norm_epsilon, const nb_matrix* gate,
                         const nb_tensor* gate_bias, const nb_matrix* up,
                         const nb_tensor* up_bias, const nb_tensor* output) {
  constexpr char kFunction[] = "nb_swiglu_matmul";
  NIBBLE_RETURN_IF_FAILED(CheckContext(kFunction, context));
  NIBBLE_RETURN_IF_FAILED(CheckMatrix({kFunction, "gate"}, gate));
  NIBBLE_RETURN_IF_FAILED(CheckMatrix({kFunction, "up"}, up));
  const PackedMatrix &g = gate->packed, &u = up->packed;
  NIBBLE_RETURN_IF_FAILED(CheckSameShape(kFunction, g, u));
  NIBBLE_RETURN_IF_FAILED(CheckKernel(kFunction, activation, {kFunction, "gate"}, gate));
  Input input;
  NIBBLE_RETURN_IF_FAILED(CheckInput(kFunction, activation, x, norm_weight, norm_epsilon, g.cols,
                                     &input));
  View gb, ub, y;
  NIBBLE_RETURN_IF_FAILED(
      CheckOptionalTensor({kFunction, "gate_bias"}, gate_bias, F32Vector(g.rows), &gb));
  NIBBLE_RETURN_IF_FAILED(
      CheckOptionalTensor({kFunction, "up_bias"}, up_bias, F32Vector(u.rows), &ub));
  const Arg written{kFunction, "output"};
  NIBBLE_RETURN_IF_FAILED(
      CheckTensor(written, output, Output(F32Rows(input.x.rows, g.rows, "N")), &y));
  NIBBLE_RETURN_IF_FAILED(CheckDisjoint(written, y, "x", input.x));
  NIBBLE_RETURN_IF_FAILED(CheckDisjoint(written, y, "norm_weight", input.norm));
  NIBBLE_RETURN_IF_FAILED(CheckDisjoint(written, y, "gate_bias", gb));
  NIBBLE_RETURN_IF_FAILED(CheckDisjoint(written, y, "up_bias", ub));
  if (input.x.rows == 0) return NB_OK;
  const GemmOutput gate_output{&g, gb.f32(), nullptr, 0, nullptr, 0};
  const GemmOutput up_output{&u, ub.f32(), nullptr, 0, y.f32(), y.stride};
  const Turn turn(context->lock);
  SwiGluMatMul(context->workspace, input.gemm, gate_output, up_output);
  return NB_OK;
}

// -------------------------------------------------------------- elementwise --

nb_status DoEmbedding(nb_context* context, const nb_matrix* table, const nb_tensor* ids,
                      const nb_tensor* output) {
  constexpr char kFunction[] = "nb_embedding";
  NIBBLE_RETURN_IF_FAILED(CheckContext(kFunction, context));
  NIBBLE_RETURN_IF_FAILED(CheckMatrix({kFunction, "table"}, table));
  const PackedMatrix& m = table->packed;
  View i, y;
  NIBBLE_RETURN_IF_FAILED(CheckTensor({kFunction, "ids"}, ids,
                                      {DTypeBit(NB_I32), 1, {kAnySize, 0}, {"M", ""}}, &i));
  NIBBLE_RETURN_IF_FAILED(
      CheckTensor({kFunction, "output"}, output, Output(F32Rows(i.cols, m.cols)), &y));
  NIBBLE_RETURN_IF_FAILED(CheckDisjoint({kFunction, "output"}, y, "ids", i));
  const auto* id = reinterpret_cast<const int32_t*>(i.data);
  for (int64_t r = 0; r < i.cols; ++r) {
    if (id[r] >= 0 && id[r] < m.rows) continue;
    return FailArg(NB_INVALID_ARGUMENT, {kFunction, "ids", r}, "%d but 0..%lld was expected",
                   id[r], static_cast<long long>(m.rows - 1));
  }
  if (y.empty()) return NB_OK;
  const Turn turn(context->lock);
  Embedding(context->workspace, m, id, i.cols, y.f32(), y.stride);
  return NB_OK;
}

nb_status DoRmsNorm(nb_context* context, const nb_tensor* x, const nb_tensor* weight,
                    float epsilon, const nb_tensor* output) {
  constexpr char kFunction[] = "nb_rms_norm";
  NIBBLE_RETURN_IF_FAILED(CheckContext(kFunction, context));
  View xv, w, y;
  NIBBLE_RETURN_IF_FAILED(CheckTensor({kFunction, "x"}, x, F32Rows(kAnySize, kAnySize), &xv));
  NIBBLE_RETURN_IF_FAILED(CheckTensor({kFunction, "weight"}, weight, F32Vector(xv.cols), &w));
  NIBBLE_RETURN_IF_FAILED(CheckEpsilon({kFunction, "epsilon"}, epsilon));
  const Arg written{kFunction, "output"};
  NIBBLE_RETURN_IF_FAILED(CheckTensor(written, output, Output(F32Rows(xv.rows, xv.cols)), &y));
  NIBBLE_RETURN_IF_FAILED(CheckDisjointOrSame(written, y, "x", xv));
  NIBBLE_RETURN_IF_FAILED(CheckDisjoint(written, y, "weight", w));
  if (y.empty()) return NB_OK;
  const Turn turn(context->lock);
  RmsNorm(context->workspace, xv.f32(), xv.stride, w.f32(), epsilon, xv.rows, xv.cols, y.f32(),
          y.stride);
  return NB_OK;
}

// output = f(a, b), elementwise: the checks that nb_swiglu and nb_add share.
template <class Operator>
nb_status DoBinary(const char* function, nb_context* context, const char* a_name,
                   const nb_tensor* a, const char* b_name, const nb_tensor* b,
                   const nb_tensor* output, const Operator& run) {
  NIBBLE_RETURN_IF_FAILED(CheckContext(function, context));
  View av, bv, y;
  NIBBLE_RETURN_IF_FAILED(
      CheckTensor({function, a_name}, a, F32Rows(kAnySize, kAnySize, "N"), &av));
  const Expected same = F32Rows(av.rows, av.cols, "N");
  NIBBLE_RETURN_IF_FAILED(CheckTensor({function, b_name}, b, same, &bv));
  const Arg written{function, "output"};
  NIBBLE_RETURN_IF_FAILED(CheckTensor(written, output, Output(same), &y));
  NIBBLE_RETURN_IF_FAILED(CheckDisjointOrSame(written, y, a_name, av));
  NIBBLE_RETURN_IF_FAILED(CheckDisjointOrSame(written, y, b_name, bv));
  if (y.empty()) return NB_OK;
  const Turn turn(context->lock);
  run(context->workspace, av.f32(), av.stride, bv.f32(), bv.stride, y.rows, y.cols, y.f32(),
      y.stride);
  return NB_OK;
}

nb_status DoQuantizeActivations(nb_context* context, int32_t type, const nb_tensor* x,
                                const nb_tensor* norm_weight, float norm_epsilon,
                                const nb_tensor* codes, const nb_tensor* scales) {
  constexpr char kFunction[] = "nb_quantize_activations";
  NIBBLE_RETURN_IF_FAILED(CheckContext(kFunction, context));
  if (type != NB_E4M3 && type != NB_I8) {
    return FailArg(NB_INVALID_ARGUMENT, {kFunction, "type"},
                   "%d (%s) but E4M3 or I8 was expected", type, DTypeName(type));
  }
  View xv, norm, c, s;
  NIBBLE_RETURN_IF_FAILED(CheckTensor({kFunction, "x"}, x, F32Rows(kAnySize, kAnySize), &xv));
  NIBBLE_RETURN_IF_FAILED(CheckNorm(kFunction, norm_weight, norm_epsilon, xv.cols, &norm));
  const Expected bytes{DTypeBit(NB_U8), 2, {xv.rows, xv.cols}, {"M", "K"}};
  NIBBLE_RETURN_IF_FAILED(CheckTensor({kFunction, "codes"}, codes, Output(bytes), &c));
  NIBBLE_RETURN_IF_FAILED(
      CheckTensor({kFunction, "scales"}, scales, Output(F32Vector(xv.rows)), &s));
  NIBBLE_RETURN_IF_FAILED(CheckDisjoint({kFunction, "codes"}, c, "x", xv));
  NIBBLE_RETURN_IF_FAILED(CheckDisjoint({kFunction, "codes"}, c, "norm_weight", norm));
  NIBBLE_RETURN_IF_FAILED(CheckDisjoint({kFunction, "scales"}, s, "x", xv));
  NIBBLE_RETURN_IF_FAILED(CheckDisjoint({kFunction, "scales"}, s, "norm_weight", norm));
  NIBBLE_RETURN_IF_FAILED(CheckDisjoint({kFunction, "scales"}, s, "codes", c));
  if (xv.cols == 0) {  // rows of nothing are rows of zeros
    for (int64_t r = 0; r < xv.rows; ++r) s.f32()[r] = 0;
    return NB_OK;
  }
  if (xv.rows == 0) return NB_OK;
  const Turn turn(context->lock);
  QuantizeActivations(context->workspace, static_cast<DType>(type), xv.f32(), xv.stride,
                      norm.f32(), norm_epsilon, xv.rows, xv.cols, c.data, c.stride, s.f32());
  return NB_OK;
}

}  // namespace

nb_status nb_matmul(nb_context* context, int32_t activation, const nb_tensor* x,
                    const nb_tensor* norm_weight, float norm_epsilon,
                    const nb_projection* projections, int32_t count) {
  return Guard("nb_matmul", [&] {
    return DoMatMul(context, activation, x, norm_weight, norm_epsilon, projections, count);
  });
}

nb_status nb_swiglu_matmul(nb_context* context, int32_t activation, const nb_tensor* x,
                           const nb_tensor* norm_weight, float norm_epsilon,
                           const nb_matrix* gate, const nb_tensor* gate_bias,
                           const nb_matrix* up, const nb_tensor* up_bias,
                           const nb_tensor* output) {
  return Guard("nb_swiglu_matmul", [&] {
    return DoSwiGluMatMul(context, activation, x, norm_weight, norm_epsilon, gate, gate_bias, up,
                          up_bias, output);
  });
}

nb_status nb_embedding(nb_context* context, const nb_matrix* table, const nb_tensor* ids,
                       const nb_tensor* output) {
  return Guard("nb_embedding", [&] { return DoEmbedding(context, table, ids, output); });
}

nb_status nb_rms_norm(nb_context* context, const nb_tensor* x, const nb_tensor* weight,
                      float epsilon, const nb_tensor* output) {
  return Guard("nb_rms_norm", [&] { return DoRmsNorm(context, x, weight, epsilon, output); });
}

nb_status nb_swiglu(nb_context* context, const nb_tensor* gate, const nb_tensor* up,
                    const nb_tensor* output) {
  return Guard("nb_swiglu", [&] {
    return DoBinary("nb_swiglu", context, "gate", gate, "up", up, output, SwiGlu);
  });
}

nb_status nb_add(nb_context* context, const nb_tensor* a, const nb_tensor* b,
                 const nb_tensor* output) {
  return Guard("nb_add",
               [&] { return DoBinary("nb_add", context, "a", a, "b", b, output, Add); });
}

nb_status nb_quantize_activations(nb_context* context, int32_t type, const nb_tensor* x,
                                  const nb_tensor* norm_weight, float norm_epsilon,
                                  const nb_tensor* codes, const nb_tensor* scales) {
  return Guard("nb_quantize_activations", [&] {
    return DoQuantizeActivations(context, type, x, norm_weight, norm_epsilon, codes, scales);
  });
}
