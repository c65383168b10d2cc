// SPDX-License-Identifier: Apache-2.0
//
// Products, lookup and elementwise operators.
#include <algorithm>
#include <array>
#include <cstring>
#include <limits>

#include "kernels-cpu/elementwise/elementwise.h"
#include "kernels-cpu/gemm/gemm.h"
#include "native/src/memory.h"
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

nb_status CheckInput(const char* function, const nb_context* context, int32_t activation,
                     const nb_tensor* x, const nb_tensor* norm_weight, float norm_epsilon,
                     int64_t cols, Input* input) {
  NIBBLE_RETURN_IF_FAILED(CheckTensor({function, "x"}, x, F32Rows(kAnySize, cols), &input->x));
  NIBBLE_RETURN_IF_FAILED(CheckNorm(function, norm_weight, norm_epsilon, cols, &input->norm));
  NIBBLE_RETURN_IF_FAILED(CheckPlaces(
      context, {{{function, "x"}, &input->x}, {{function, "norm_weight"}, &input->norm}}));
  input->gemm = {static_cast<DType>(activation), input->x.f32(), input->x.rows, cols,
                 input->x.stride, input->norm.f32(), norm_epsilon};
  return NB_OK;
}

// That there is a kernel for matrix with activation; else the message says which there are.
nb_status CheckKernel(const char* function, const nb_context* context, int32_t activation,
                      const Arg& matrix_arg, const nb_matrix* matrix) {
  if (activation < NB_NONE || activation > NB_POW2) {
    return FailArg(NB_INVALID_ARGUMENT, {function, "activation"},
                   "%d but F32, BF16, E4M3 or I8 was expected", activation);
  }
  if (context->cuda != nullptr) {
    cuda::BackendError error = {};
    const nb_status status = context->backend->matmul_status(
        context->cuda, matrix->cuda, static_cast<DType>(activation), &error);
    return status == NB_OK ? NB_OK : FailArg(status, matrix_arg, "%s", error.text);
  }
  const DType code = matrix->kernels.code;
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

nb_status CheckProjection(const char* function, const nb_context* context, int32_t index,
                          int32_t activation, const nb_projection* projections,
                          const Input& input, Projection* out) {
  const Arg arg{function, "projections", index};
  const nb_projection& p = projections[index];
  NIBBLE_RETURN_IF_FAILED(
      CheckKernel(function, context, activation, arg.Field("matrix"), p.matrix));
  const nb_matrix& m = *p.matrix;
  const int64_t rows = input.x.rows;
  NIBBLE_RETURN_IF_FAILED(
      CheckOptionalTensor(arg.Field("bias"), p.bias, F32Vector(m.rows), &out->bias));
  NIBBLE_RETURN_IF_FAILED(CheckOptionalTensor(arg.Field("residual"), p.residual,
                                              F32Rows(rows, m.rows, "N"), &out->residual));
  NIBBLE_RETURN_IF_FAILED(CheckTensor(arg.Field("output"), p.output,
                                      Output(F32Rows(rows, m.rows, "N")), &out->output));
  const Arg written = arg.Field("output");
  NIBBLE_RETURN_IF_FAILED(CheckPlaces(context, {{arg.Field("bias"), &out->bias},
                                                {arg.Field("residual"), &out->residual},
                                                {written, &out->output}}));
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
  static constexpr char kFunction[] = "nb_matmul";
  NIBBLE_RETURN_IF_FAILED(CheckContext(kFunction, context));
  if (count < 1 || count > kMaxProjections) {
    return FailArg(NB_INVALID_ARGUMENT, {kFunction, "count"}, "%d but 1..%d was expected", count,
                   kMaxProjections);
  }
  NIBBLE_RETURN_IF_FAILED(CheckNotNull({kFunction, "projections"}, projections));
  for (int32_t i = 0; i < count; ++i) {
    const Arg arg{kFunction, "projections", i, "matrix"};
    NIBBLE_RETURN_IF_FAILED(CheckMatrix(arg, projections[i].matrix, context));
    const int64_t cols = projections[i].matrix->cols;
    const int64_t expected = projections[0].matrix->cols;
    if (cols != expected) {
      return FailArg(NB_INVALID_ARGUMENT, arg,
                     "%lld columns but %lld, as in projections[0].matrix, was expected",
                     static_cast<long long>(cols), static_cast<long long>(expected));
    }
  }
  const Turn turn(context->lock);
  Input input;
  NIBBLE_RETURN_IF_FAILED(CheckInput(kFunction, context, activation, x, norm_weight, norm_epsilon,
                                     projections[0].matrix->cols, &input));
  std::array<Projection, kMaxProjections> checked;
  for (int32_t i = 0; i < count; ++i) {
    NIBBLE_RETURN_IF_FAILED(CheckProjection(kFunction, context, i, activation, projections, input,
                                            &checked[static_cast<size_t>(i)]));
  }
  NIBBLE_RETURN_IF_FAILED(CheckOutputs(kFunction, checked.data(), count));
  if (input.x.rows == 0) return NB_OK;
  if (context->cuda == nullptr) {
    std::array<GemmOutput, kMaxProjections> outputs;
    for (int32_t i = 0; i < count; ++i) {
      const Projection& p = checked[static_cast<size_t>(i)];
      outputs[static_cast<size_t>(i)] = {&projections[i].matrix->packed, p.bias.f32(),
                                         p.residual.f32(),               p.residual.stride,
                                         p.output.f32(),                 p.output.stride};
    }
    return Submit(context, [gemm = input.gemm, outputs, count](nb_context& c) {
      MatMul(c.workspace, gemm, outputs.data(), count);
      return NB_OK;
    });
  }
  std::array<cuda::BackendProjection, kMaxProjections> outputs;
  for (int32_t i = 0; i < count; ++i) {
    const Projection& p = checked[static_cast<size_t>(i)];
    outputs[static_cast<size_t>(i)] = {projections[i].matrix->cuda, CudaView(p.bias),
                                       CudaView(p.residual), CudaView(p.output)};
  }
  return Submit(context, [type = static_cast<DType>(activation), x = CudaView(input.x),
                          norm = CudaNorm(input.norm, norm_epsilon), outputs,
                          count](nb_context& c) {
    return CallCuda(kFunction, [&](cuda::BackendError* error) {
      return c.backend->matmul(c.cuda, type, &x, &norm, outputs.data(), count, error);
    });
  });
}

// --------------------------------------------------------- nb_swiglu_matmul --

nb_status CheckSameShape(const char* function, const nb_matrix& gate, const nb_matrix& up) {
  if (gate.rows != up.rows || gate.cols != up.cols) {
    return FailArg(NB_INVALID_ARGUMENT, {function, "up"},
                   "shape [%lld, %lld] but [%lld, %lld], as of gate, was expected",
                   static_cast<long long>(up.rows), static_cast<long long>(up.cols),
                   static_cast<long long>(gate.rows), static_cast<long long>(gate.cols));
  }
  const WeightFormat &g = gate.kernels, &u = up.kernels;
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
  static constexpr char kFunction[] = "nb_swiglu_matmul";
  NIBBLE_RETURN_IF_FAILED(CheckContext(kFunction, context));
  NIBBLE_RETURN_IF_FAILED(CheckMatrix({kFunction, "gate"}, gate, context));
  NIBBLE_RETURN_IF_FAILED(CheckMatrix({kFunction, "up"}, up, context));
  const nb_matrix &g = *gate, &u = *up;
  NIBBLE_RETURN_IF_FAILED(CheckSameShape(kFunction, g, u));
  NIBBLE_RETURN_IF_FAILED(CheckKernel(kFunction, context, activation, {kFunction, "gate"}, gate));
  const Turn turn(context->lock);
  Input input;
  NIBBLE_RETURN_IF_FAILED(CheckInput(kFunction, context, activation, x, norm_weight, norm_epsilon,
                                     g.cols, &input));
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
  NIBBLE_RETURN_IF_FAILED(CheckPlaces(context, {{{kFunction, "gate_bias"}, &gb},
                                                {{kFunction, "up_bias"}, &ub},
                                                {written, &y}}));
  if (input.x.rows == 0) return NB_OK;
  if (context->cuda == nullptr) {
    const GemmOutput gate_output{&g.packed, gb.f32(), nullptr, 0, nullptr, 0};
    const GemmOutput up_output{&u.packed, ub.f32(), nullptr, 0, y.f32(), y.stride};
    return Submit(context, [gemm = input.gemm, gate_output, up_output](nb_context& c) {
      SwiGluMatMul(c.workspace, gemm, gate_output, up_output);
      return NB_OK;
    });
  }
  return Submit(context, [type = static_cast<DType>(activation), x = CudaView(input.x),
                          norm = CudaNorm(input.norm, norm_epsilon), gate = g.cuda,
                          gb = CudaView(gb), up = u.cuda, ub = CudaView(ub),
                          y = CudaView(y)](nb_context& c) {
    return CallCuda(kFunction, [&](cuda::BackendError* error) {
      return c.backend->swiglu_matmul(c.cuda, type, &x, &norm, gate, &gb, up, &ub, &y, error);
    });
  });
}

// -------------------------------------------------------------- elementwise --

// Embedding where ids may be out of range: such rows become NaN.
void EmbeddingOfAnyIds(Workspace& workspace, const PackedMatrix& table, const int32_t* ids,
                       const View& y) {
  for (int64_t r = 0; r < y.rows; ++r) {
    float* row = y.f32() + r * y.stride;
    if (ids[r] >= 0 && ids[r] < table.rows) {
      Embedding(workspace, table, ids + r, 1, row, y.stride);
    } else {
      std::fill(row, row + y.cols, std::numeric_limits<float>::quiet_NaN());
    }
  }
}

nb_status DoEmbedding(nb_context* context, const nb_matrix* table, const nb_tensor* ids,
                      const nb_tensor* output) {
  static constexpr char kFunction[] = "nb_embedding";
  NIBBLE_RETURN_IF_FAILED(CheckContext(kFunction, context));
  NIBBLE_RETURN_IF_FAILED(CheckMatrix({kFunction, "table"}, table, context));
  const nb_matrix& m = *table;
  View i, y;
  const Arg ids_arg{kFunction, "ids"}, written{kFunction, "output"};
  NIBBLE_RETURN_IF_FAILED(
      CheckTensor(ids_arg, ids, {DTypeBit(NB_I32), 1, {kAnySize, 0}, {"M", ""}}, &i));
  NIBBLE_RETURN_IF_FAILED(CheckTensor(written, output, Output(F32Rows(i.cols, m.cols)), &y));
  NIBBLE_RETURN_IF_FAILED(CheckDisjoint(written, y, "ids", i));
  const Turn turn(context->lock);
  NIBBLE_RETURN_IF_FAILED(CheckPlaces(context, {{ids_arg, &i}, {written, &y}}));
  const auto* id = reinterpret_cast<const int32_t*>(i.data);
  // Those of a graph are not known yet, those on a device not to be read here.
  const bool known = context->recording == nullptr && !i.on_device;
  for (int64_t r = 0; known && r < i.cols; ++r) {
    if (id[r] >= 0 && id[r] < m.rows) continue;
    return FailArg(NB_INVALID_ARGUMENT, {kFunction, "ids", r}, "%d but 0..%lld was expected",
                   id[r], static_cast<long long>(m.rows - 1));
  }
  if (y.empty()) return NB_OK;
  if (context->cuda == nullptr) {
    return Submit(context, [known, id, y, count = i.cols, &packed = m.packed](nb_context& c) {
      if (known) {
        Embedding(c.workspace, packed, id, count, y.f32(), y.stride);
      } else {
        EmbeddingOfAnyIds(c.workspace, packed, id, y);
      }
      return NB_OK;
    });
  }
  return Submit(context, [table = m.cuda, ids = CudaView(i), y = CudaView(y)](nb_context& c) {
    return CallCuda(kFunction, [&](cuda::BackendError* error) {
      return c.backend->embedding(c.cuda, table, &ids, &y, error);
    });
  });
}

nb_status DoRmsNorm(nb_context* context, const nb_tensor* x, const nb_tensor* weight,
                    float epsilon, const nb_tensor* output) {
  static constexpr char kFunction[] = "nb_rms_norm";
  NIBBLE_RETURN_IF_FAILED(CheckContext(kFunction, context));
  View xv, w, y;
  NIBBLE_RETURN_IF_FAILED(CheckTensor({kFunction, "x"}, x, F32Rows(kAnySize, kAnySize), &xv));
  NIBBLE_RETURN_IF_FAILED(CheckTensor({kFunction, "weight"}, weight, F32Vector(xv.cols), &w));
  NIBBLE_RETURN_IF_FAILED(CheckEpsilon({kFunction, "epsilon"}, epsilon));
  const Arg written{kFunction, "output"};
  NIBBLE_RETURN_IF_FAILED(CheckTensor(written, output, Output(F32Rows(xv.rows, xv.cols)), &y));
  NIBBLE_RETURN_IF_FAILED(CheckDisjointOrSame(written, y, "x", xv));
  NIBBLE_RETURN_IF_FAILED(CheckDisjoint(written, y, "weight", w));
  const Turn turn(context->lock);
  NIBBLE_RETURN_IF_FAILED(CheckPlaces(
      context, {{{kFunction, "x"}, &xv}, {{kFunction, "weight"}, &w}, {written, &y}}));
  if (y.empty()) return NB_OK;
  if (context->cuda == nullptr) {
    return Submit(context, [=](nb_context& c) {
      RmsNorm(c.workspace, xv.f32(), xv.stride, w.f32(), epsilon, xv.rows, xv.cols, y.f32(),
              y.stride);
      return NB_OK;
    });
  }
  return Submit(context, [x = CudaView(xv), norm = CudaNorm(w, epsilon),
                          y = CudaView(y)](nb_context& c) {
    return CallCuda(kFunction, [&](cuda::BackendError* error) {
      return c.backend->rms_norm(c.cuda, &x, &norm, &y, error);
    });
  });
}

using CudaBinary = decltype(cuda::Backend::add);

// output = f(a, b), elementwise: what nb_swiglu and nb_add share.
template <class Operator>
nb_status DoBinary(const char* function, nb_context* context, const char* a_name,
                   const nb_tensor* a, const char* b_name, const nb_tensor* b,
                   const nb_tensor* output, const Operator& run,
                   CudaBinary cuda::Backend::*on_cuda) {
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
  const Turn turn(context->lock);
  NIBBLE_RETURN_IF_FAILED(CheckPlaces(
      context, {{{function, a_name}, &av}, {{function, b_name}, &bv}, {written, &y}}));
  if (y.empty()) return NB_OK;
  if (context->cuda == nullptr) {
    return Submit(context, [=](nb_context& c) {
      run(c.workspace, av.f32(), av.stride, bv.f32(), bv.stride, y.rows, y.cols, y.f32(),
          y.stride);
      return NB_OK;
    });
  }
  return Submit(context, [function, on_cuda, a = CudaView(av), b = CudaView(bv),
                          y = CudaView(y)](nb_context& c) {
    return CallCuda(function, [&](cuda::BackendError* error) {
      return (c.backend->*on_cuda)(c.cuda, &a, &b, &y, error);
    });
  });
}

nb_status DoQuantizeActivations(nb_context* context, int32_t type, const nb_tensor* x,
                                const nb_tensor* norm_weight, float norm_epsilon,
                                const nb_tensor* codes, const nb_tensor* scales) {
  static constexpr char kFunction[] = "nb_quantize_activations";
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
  const Turn turn(context->lock);
  NIBBLE_RETURN_IF_FAILED(CheckPlaces(context, {{{kFunction, "x"}, &xv},
                                                {{kFunction, "norm_weight"}, &norm},
                                                {{kFunction, "codes"}, &c},
                                                {{kFunction, "scales"}, &s}}));
  if (xv.rows == 0) return NB_OK;
  const auto to = static_cast<DType>(type);
  if (context->cuda == nullptr) {
    return Submit(context, [=](nb_context& ctx) {
      if (xv.cols == 0) {  // rows of nothing are rows of zeros
        std::fill(s.f32(), s.f32() + xv.rows, 0.0f);
      } else {
        QuantizeActivations(ctx.workspace, to, xv.f32(), xv.stride, norm.f32(), norm_epsilon,
                            xv.rows, xv.cols, c.data, c.stride, s.f32());
      }
      return NB_OK;
    });
  }
  return Submit(context, [to, x = CudaView(xv), n = CudaNorm(norm, norm_epsilon),
                          codes = CudaView(c), scales = CudaView(s)](nb_context& ctx) {
    return CallCuda(kFunction, [&](cuda::BackendError* error) {
      return ctx.backend->quantize_activations(ctx.cuda, to, &x, &n, &codes, &scales, error);
    });
  });
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
    return DoBinary("nb_swiglu", context, "gate", gate, "up", up, output, SwiGlu,
                    &cuda::Backend::swiglu);
  });
}

nb_status nb_add(nb_context* context, const nb_tensor* a, const nb_tensor* b,
                 const nb_tensor* output) {
  return Guard("nb_add", [&] {
    return DoBinary("nb_add", context, "a", a, "b", b, output, Add, &cuda::Backend::add);
  });
}

nb_status nb_quantize_activations(nb_context* context, int32_t type, const nb_tensor* x,
                                  const nb_tensor* norm_weight, float norm_epsilon,
                                  const nb_tensor* codes, const nb_tensor* scales) {
  return Guard("nb_quantize_activations", [&] {
    return DoQuantizeActivations(context, type, x, norm_weight, norm_epsilon, codes, scales);
  });
}
