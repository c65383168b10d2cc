// SPDX-License-Identifier: Apache-2.0
//
// Fuzz target: sequences of ABI calls with arguments that are mostly right and sometimes
// wrong in any field, over small real memory. What must hold, whatever the bytes:
//
//   - no crash, no sanitizer report, no exception, no hang;
//   - a status of the enumeration; on a failure one line of message that names the function;
//   - NB_INVALID_ARGUMENT and NB_UNSUPPORTED leave all memory and all output handles alone.
//
// With clang: build the library's sources, this file and -fsanitize=fuzzer,address,undefined.
// Without: abi_fuzz_test.cc in native/tests runs it on random inputs, and fuzz_main.cc makes a
// program that runs it on files.
#include <unistd.h>

#include <cstdio>
#include <cstdlib>
#include <map>
#include <string>

#include "native/fuzz/fuzz_input.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size);

namespace nibble::fuzz {

// How often each function was called, and how often it succeeded: a target whose calls are
// all refused at the door tests nothing behind it.
struct Calls {
  int64_t all = 0;
  int64_t good = 0;
};

inline std::map<std::string, Calls>& Statistics() {
  static std::map<std::string, Calls> statistics;
  return statistics;
}

namespace {

void Require(bool condition, const char* what) {
  if (condition) return;
  std::fprintf(stderr, "fuzz_abi: %s; last error: %s\n", what, nb_last_error());
  std::abort();
}

constexpr int kSlots = 4;

// A file that no directory lists, for records of matrices.
class UnlistedFile {
 public:
  UnlistedFile() {
    std::FILE* file = std::tmpfile();
    Require(file != nullptr, "no temporary file");
    number_ = fileno(file);
    path_ = "/proc/self/fd/" + std::to_string(number_);
  }
  const char* path() const { return path_.c_str(); }
  void Flip(int64_t at, uint8_t bits) const {
    uint8_t byte = 0;
    Require(pread(number_, &byte, 1, at) == 1, "a record could not be read");
    byte ^= bits;
    Require(pwrite(number_, &byte, 1, at) == 1, "a record could not be damaged");
  }

 private:
  int number_;
  std::string path_;
};

class Machine {
 public:
  Machine(nb_context* context, const uint8_t* data, size_t size)
      : context_(context), in_(data, size) {}
  ~Machine() {
    for (nb_matrix* m : matrices_) nb_matrix_destroy(m);
    for (nb_kv_cache* c : caches_) nb_kv_cache_destroy(c);
  }

  void Run() {
    for (int i = 0; i < 3; ++i) {  // most calls want a matrix or a cache
      Tensors tensors(&in_);
      MakeMatrix(&tensors);
      MakeCache(&tensors);
    }
    for (int step = 0; step < 40 && !in_.empty(); ++step) {
      Tensors tensors(&in_);
      Step(&tensors);
    }
  }

 private:
  nb_context* Context() { return in_.OneIn(100) ? nullptr : context_; }

  void After(nb_status status, const char* function, const Tensors& tensors,
             bool uses_files = false) {
    Require(status >= NB_OK && status <= NB_INTERNAL, "a status out of the enumeration");
    Require(status != NB_INTERNAL, "an internal error");
    Require(status != NB_DEVICE_ERROR || uses_files, "a device's error");
    Calls& calls = Statistics()[function];
    ++calls.all;
    calls.good += status == NB_OK;
    if (status == NB_OK) return;
    const std::string message = nb_last_error();
    Require(message.rfind(std::string(function) + ": ", 0) == 0, "a message without its function");
    Require(message.find('\n') == std::string::npos, "a message of two lines");
    if (status != NB_OUT_OF_MEMORY) Require(tensors.Unchanged(), "a refused call wrote memory");
  }

  void Step(Tensors* t) {
    switch (in_.Below(23)) {
      case 0:
      case 1: return MakeMatrix(t);
      case 2: return Pack(t);
      case 3: return Quantize(t);
      case 4: return ReadMatrix(t);
      case 5:
      case 6: return MatMul(t);
      case 7: return SwiGluMatMul(t);
      case 8: return Embedding(t);
      case 9: return Elementwise(t);
      case 10: return QuantizeActivations(t);
      case 11: return MakeCache(t);
      case 12:
      case 13: return Append(t);
      case 14: return Attend(t);
      case 15: return ChooseToken(t);
      case 16: return Record();
      case 17: return ColumnSums(t);
      case 18: return QuantizeCalibrated(t);
      case 19: return KeyScales(t);
      case 20: return KeepInFile(t);
      case 21: return Memory(t);
      default: return Library(t);
    }
  }

  // ------------------------------------------------------------- weights --

  nb_weight_format Format() {
    nb_weight_format f = {sizeof(f), in_.Pick<int32_t>({NB_I4, NB_I4, NB_I8, NB_E4M3, NB_E5M2,
                                                        NB_E3M2, NB_E2M3, NB_F32, NB_F16, NB_BF16}),
                          NB_NONE, in_.Pick<int64_t>({0, 16, 32, 48, 128})};
    if (f.code_type > NB_BF16) {
      f.scale_type = f.code_type == NB_I4
                         ? in_.Pick<int32_t>({NB_E4M3, NB_POW2, NB_F32, NB_F16, NB_BF16})
                         : in_.Pick<int32_t>({NB_F32, NB_F16, NB_BF16});
    }
    if (!in_.OneIn(20)) return f;
    switch (in_.Below(4)) {
      case 0: f.struct_size = in_.Strange(); break;
      case 1: f.code_type = in_.Below(14) - 1; break;
      case 2: f.scale_type = in_.Below(14) - 1; break;
      default: f.group_size = in_.Strange();
    }
    return f;
  }

  int64_t Size() {
    return in_.OneIn(60) ? in_.Strange()
                         : in_.Pick<int64_t>({1, 2, 15, 16, 17, 31, 32, 33, 40, 48});
  }

  struct Sizes {
    int64_t codes = 0, high = 0, scales = 0, factors = 0;
  };
  // The canonical tensors of a matrix; NULL for absent parts, mostly.
  struct Parts {
    const nb_tensor *codes, *high, *scales, *factors;
  };
  Parts Canonical(const nb_weight_format& f, int64_t rows, int64_t cols, Tensors* t) {
    Sizes s;
    if (nb_weight_sizes(&f, rows, cols, &s.codes, &s.high, &s.scales, &s.factors) != NB_OK) {
      return {t->Make(NB_U8, 2, 2), nullptr, nullptr, nullptr};
    }
    const bool bytes = f.scale_type == NB_E4M3 || f.scale_type == NB_POW2;
    const int64_t e = f.scale_type == NB_F32 ? 4 : bytes ? 1 : 2;
    const auto part = [&](int32_t dtype, int64_t n, int64_t c) {
      return n > 0 || in_.OneIn(40) ? t->Make(dtype, c < 0 ? n : rows, c) : nullptr;
    };
    Parts p;
    p.codes = part(NB_U8, s.codes, s.codes / rows);
    p.high = part(NB_U8, s.high, s.high / rows);
    p.scales = part(f.scale_type, s.scales, s.scales / rows / e);
    p.factors = part(NB_F32, s.factors, -1);
    return p;
  }

  void Keep(nb_status status, nb_matrix* m) {
    Require((m != nullptr) == (status == NB_OK), "a handle that does not fit the status");
    if (m == nullptr) return;
    nb_matrix*& slot = matrices_[in_.Below(kSlots)];
    nb_matrix_destroy(slot);
    slot = m;
  }

  void MakeMatrix(Tensors* t) {
    const nb_weight_format f = Format();
    const auto dtype = in_.Pick<int32_t>({NB_F32, NB_F32, NB_F16, NB_BF16});
    const int64_t rows = Size(), cols = Size();
    const nb_tensor* w = t->Make(dtype, rows, cols);
    t->Remember();
    nb_matrix* m = reinterpret_cast<nb_matrix*>(&in_);
    const nb_status status = nb_matrix_quantize(Context(), &f, w, &m);
    After(status, "nb_matrix_quantize", *t);
    Require(t->Unchanged(), "an input was written");
    Keep(status, m);
  }

  void Pack(Tensors* t) {
    const nb_weight_format f = Format();
    const int64_t rows = Size(), cols = Size();
    const Parts p = Canonical(f, rows, cols, t);
    t->Remember();
    nb_matrix* m = reinterpret_cast<nb_matrix*>(&in_);
    const nb_status status =
        nb_matrix_pack(Context(), &f, rows, cols, p.codes, p.high, p.scales, p.factors, &m);
    After(status, "nb_matrix_pack", *t);
    Require(t->Unchanged(), "an input was written");
    Keep(status, m);
  }

  void Quantize(Tensors* t) {
    const nb_weight_format f = Format();
    const int64_t rows = Size(), cols = Size();
    const nb_tensor* w = t->Make(in_.Pick<int32_t>({NB_F32, NB_F16, NB_BF16}), rows, cols);
    const Parts p = Canonical(f, rows, cols, t);
    t->Remember();
    After(nb_quantize(Context(), &f, w, p.codes, p.high, p.scales, p.factors), "nb_quantize", *t);
  }

  // A slot, mostly one that is filled.
  template <class T>
  int Slot(T* const* slots) {
    const int first = in_.Below(kSlots);
    if (in_.OneIn(40)) return first;
    for (int i = 0; i < kSlots; ++i) {
      if (slots[(first + i) % kSlots] != nullptr) return (first + i) % kSlots;
    }
    return first;
  }

  nb_matrix* Matrix(nb_matrix_info* info) { return Matrix(Slot(matrices_), info); }
  nb_matrix* Matrix(int slot, nb_matrix_info* info) {
    nb_matrix* m = matrices_[slot];
    *info = {};
    info->struct_size = sizeof(*info);
    if (m == nullptr) {
      info->rows = info->cols = 7;  // NULL is passed on
    } else {
      Require(nb_matrix_get_info(m, info) == NB_OK, "no information about a matrix");
    }
    return m;
  }

  void ReadMatrix(Tensors* t) {
    nb_matrix_info info;
    nb_matrix* m = Matrix(&info);
    if (in_.OneIn(2)) {
      const nb_tensor* y = t->Make(NB_F32, info.rows, info.cols);
      t->Remember();
      After(nb_matrix_dequantize(Context(), m, y), "nb_matrix_dequantize", *t);
    } else {
      const Parts p = Canonical(info.format, info.rows, info.cols, t);
      t->Remember();
      After(nb_matrix_unpack(Context(), m, p.codes, p.high, p.scales, p.factors),
            "nb_matrix_unpack", *t);
    }
  }

  // A record that has been damaged must not become a matrix, or where the damage lies between its
  // parts, the same one.
  void KeepInFile(Tensors* t) {
    static const UnlistedFile file;
    nb_matrix_info info;
    nb_matrix* m = Matrix(&info);
    const nb_weight_format f = in_.OneIn(10) ? Format() : info.format;
    int64_t bytes = 0;
    After(nb_matrix_record_bytes(&f, info.rows, info.cols, &bytes), "nb_matrix_record_bytes", *t);
    const int64_t offset = in_.OneIn(20) ? in_.Strange() : in_.Pick<int64_t>({0, 4096, 12345});
    if (in_.OneIn(20)) bytes = in_.Strange();
    const char* path = in_.OneIn(40) ? "/nowhere/file" : file.path();
    const nb_status written = nb_matrix_write(Context(), m, path, offset, bytes);
    After(written, "nb_matrix_write", *t, true);
    const bool damaged = written == NB_OK && in_.OneIn(2);
    if (damaged) {
      const int64_t at = (int64_t{in_.Byte()} << 16 | in_.Byte() << 8 | in_.Byte()) % bytes;
      file.Flip(offset + at, static_cast<uint8_t>(1 << in_.Below(8)));
    }
    nb_matrix* made = reinterpret_cast<nb_matrix*>(&in_);
    const nb_status read =
        nb_matrix_read(Context(), &f, info.rows, info.cols, path, offset, bytes, &made);
    After(read, "nb_matrix_read", *t, true);
    if (damaged && read == NB_OK) {
      Require(Values(m, info) == Values(made, info), "damage was not noticed");
    }
    Keep(read, made);
  }

  // The bits of a matrix in F32.
  std::vector<uint32_t> Values(const nb_matrix* m, const nb_matrix_info& info) {
    std::vector<uint32_t> bits(static_cast<size_t>(info.rows * info.cols));
    nb_tensor y = {};
    y.struct_size = sizeof(y);
    y.data = bits.data();
    y.byte_length = static_cast<int64_t>(bits.size() * 4);
    y.dtype = NB_F32;
    y.rank = 2;
    y.shape[0] = info.rows;
    y.shape[1] = y.strides[0] = info.cols;
    y.strides[1] = 1;
    Require(nb_matrix_dequantize(context_, m, &y) == NB_OK, "a matrix could not be read");
    return bits;
  }

  // --------------------------------------------------------- calibration --

  void ColumnSums(Tensors* t) {
    const int64_t rows = Rows(), cols = Size();
    const int which = in_.Below(5);
    if (which >= 3) return Drift(t, which == 3, rows, cols);
    const nb_tensor* x = t->Make(NB_F32, rows, cols);
    const nb_tensor* a = t->Make(NB_F32, which == 2 ? rows : cols, which == 1 ? cols : -1,
                                 which != 1);
    const nb_tensor* b = t->Make(NB_F32, cols, -1, true);
    t->Remember();
    switch (which) {
      case 0:
        return After(nb_channel_statistics(Context(), x, a, b), "nb_channel_statistics", *t);
      case 1: return After(nb_second_moments(Context(), x, a), "nb_second_moments", *t);
      default: return After(nb_scale_matrix(Context(), x, a, b), "nb_scale_matrix", *t);
    }
  }

  void Drift(Tensors* t, bool moments_alone, int64_t rows, int64_t cols) {
    const nb_tensor* x = t->Make(NB_F32, rows, cols);
    const nb_tensor* y = t->Make(NB_F32, moments_alone ? rows : cols, cols);
    const nb_tensor* cross = t->Make(NB_F32, cols, cols);
    if (!moments_alone) SetToMoments(y, cols, t);
    t->Remember();
    if (moments_alone) {
      After(nb_cross_moments(Context(), x, y, cross), "nb_cross_moments", *t);
    } else {
      After(nb_correct_drift(Context(), x, y, cross, in_.Float()), "nb_correct_drift", *t);
    }
  }

  // Makes [cols, cols] what random numbers hardly are: the moments of something.
  void SetToMoments(const nb_tensor* moments, int64_t cols, Tensors* t) {
    if (moments == nullptr || moments->data == nullptr || cols <= 0 || cols >= 64 ||
        moments->byte_length != cols * cols * 4 || in_.OneIn(8)) {
      return;
    }
    std::memset(moments->data, 0, static_cast<size_t>(moments->byte_length));
    nb_second_moments(context_, t->Make(NB_F32, 2 * cols, cols), moments);
  }

  void QuantizeCalibrated(Tensors* t) {
    nb_weight_format f = Format();
    for (int i = 0; i < 4 && f.scale_type == NB_NONE; ++i) f = Format();  // quantized, mostly
    const int64_t rows = Size(), cols = Size();
    nb_calibration_options o = {sizeof(o), f.code_type == NB_I4 && in_.OneIn(2), in_.OneIn(2),
                                0.01f, 0};
    if (in_.OneIn(10)) o.clipping = in_.Below(4) - 1;
    if (in_.OneIn(20)) o.struct_size = in_.Strange();
    if (in_.OneIn(10)) o.damping = in_.Float();
    if (f.scale_type == NB_E4M3 ? in_.OneIn(2) : in_.OneIn(20)) o.factor = in_.Float();
    const nb_tensor* w = t->Make(NB_F32, rows, cols);
    const nb_tensor* importance = t->Make(NB_F32, cols, -1, true);
    const nb_tensor* moments = in_.OneIn(2) ? t->Make(NB_F32, cols, cols) : nullptr;
    if (moments != nullptr) SetToMoments(moments, cols, t);
    const Parts p = Canonical(f, rows, cols, t);
    t->Remember();
    After(nb_quantize_calibrated(Context(), &f, &o, w, importance, moments, p.codes, p.high,
                                 p.scales, p.factors),
          "nb_quantize_calibrated", *t);
  }

  // ----------------------------------------------------------- operators --

  int32_t Activation() {
    return in_.OneIn(30) ? in_.Below(15) - 1
                         : in_.Pick<int32_t>({NB_F32, NB_BF16, NB_E4M3, NB_I8});
  }
  int64_t Rows() { return in_.Pick<int64_t>({0, 1, 1, 2, 3, 5, 13}); }

  void MatMul(Tensors* t) {
    const int64_t rows = Rows();
    nb_projection projections[9] = {};
    const int count = in_.OneIn(30) ? in_.Below(11) - 1 : 1 + in_.Below(3);
    int64_t cols = 7;
    const int slot = Slot(matrices_);
    for (int i = 0; i < count && i < 9; ++i) {
      nb_matrix_info info;
      projections[i].matrix = in_.OneIn(8) ? Matrix(&info) : Matrix(slot, &info);
      cols = info.cols;
      projections[i].bias = t->Make(NB_F32, info.rows, -1, true);
      projections[i].residual = t->Make(NB_F32, rows, info.rows, true);
      projections[i].output = in_.OneIn(8) && projections[i].residual != nullptr
                                  ? projections[i].residual
                                  : t->Make(NB_F32, rows, info.rows);
    }
    const nb_tensor* x = t->Make(NB_F32, rows, cols);
    const nb_tensor* norm = t->Make(NB_F32, cols, -1, true);
    const int32_t activation = Activation();
    t->Remember();
    After(nb_matmul(Context(), activation, x, norm, in_.Float(),
                    in_.OneIn(100) ? nullptr : projections, count),
          "nb_matmul", *t);
  }

  void SwiGluMatMul(Tensors* t) {
    const int64_t rows = Rows();
    nb_matrix_info info;
    nb_matrix* gate = Matrix(&info);
    nb_matrix* up = in_.OneIn(8) ? matrices_[in_.Below(kSlots)] : gate;
    const nb_tensor* x = t->Make(NB_F32, rows, info.cols);
    const nb_tensor* norm = t->Make(NB_F32, info.cols, -1, true);
    const nb_tensor* gate_bias = t->Make(NB_F32, info.rows, -1, true);
    const nb_tensor* up_bias = t->Make(NB_F32, info.rows, -1, true);
    const nb_tensor* y = t->Make(NB_F32, rows, info.rows);
    const int32_t activation = Activation();
    t->Remember();
    After(nb_swiglu_matmul(Context(), activation, x, norm, in_.Float(), gate, gate_bias, up,
                           up_bias, y),
          "nb_swiglu_matmul", *t);
  }

  void Embedding(Tensors* t) {
    const int64_t rows = Rows();
    nb_matrix_info info;
    nb_matrix* table = Matrix(&info);
    const nb_tensor* ids = t->Make(NB_I32, rows, -1);
    const nb_tensor* y = t->Make(NB_F32, rows, info.cols);
    t->Remember();
    After(nb_embedding(Context(), table, ids, y), "nb_embedding", *t);
  }

  void Elementwise(Tensors* t) {
    const int64_t rows = Rows(), cols = in_.Below(40);
    const int which = in_.Below(3);
    const nb_tensor* a = t->Make(NB_F32, rows, cols);
    const nb_tensor* b = which == 0 ? t->Make(NB_F32, cols, -1) : t->Make(NB_F32, rows, cols);
    const nb_tensor* y = in_.OneIn(3) ? a : t->Make(NB_F32, rows, cols);
    t->Remember();
    if (which == 0) {
      After(nb_rms_norm(Context(), a, b, in_.Float(), y), "nb_rms_norm", *t);
    } else if (which == 1) {
      After(nb_swiglu(Context(), a, b, y), "nb_swiglu", *t);
    } else {
      After(nb_add(Context(), a, b, y), "nb_add", *t);
    }
  }

  void QuantizeActivations(Tensors* t) {
    const int64_t rows = Rows(), cols = in_.Below(40);
    const nb_tensor* x = t->Make(NB_F32, rows, cols);
    const nb_tensor* norm = t->Make(NB_F32, cols, -1, true);
    const nb_tensor* codes = t->Make(NB_U8, rows, cols);
    const nb_tensor* scales = t->Make(NB_F32, rows, -1);
    const int32_t type = in_.OneIn(20) ? in_.Below(14) : in_.Pick<int32_t>({NB_E4M3, NB_I8});
    t->Remember();
    After(nb_quantize_activations(Context(), type, x, norm, in_.Float(), codes, scales),
          "nb_quantize_activations", *t);
  }

  // ----------------------------------------------------------- attention --

  void MakeCache(Tensors* t) {
    nb_kv_cache_options o = {};
    o.struct_size = sizeof(o);
    o.type = in_.Pick<int32_t>({NB_I4, NB_I8, NB_BF16, NB_F32});
    o.layers = 2;
    o.kv_heads = 1 + in_.Below(2);
    o.head_dim = in_.Pick<int32_t>({16, 18, 32, 64});
    o.capacity = 1 + in_.Below(40);
    o.group_size = o.type == NB_I4 ? in_.Pick<int64_t>({0, 16, 32}) : 0;
    const float factors[2] = {0.5f, in_.OneIn(20) ? in_.Float() : 2.0f};
    if (o.type == NB_I4 && in_.OneIn(2)) o.key_factors = o.value_factors = factors;
    if (in_.OneIn(10)) {
      switch (in_.Below(6)) {
        case 0: o.struct_size = in_.Strange(); break;
        case 1: o.type = in_.Below(14); break;
        case 2:  // the factors must cover the layers
          o.layers = static_cast<int32_t>(in_.Strange());
          o.key_factors = o.value_factors = nullptr;
          break;
        case 3: o.kv_heads = static_cast<int32_t>(in_.Strange()); break;
        case 4: o.head_dim = static_cast<int32_t>(in_.Strange()); break;
        default: o.capacity = in_.Strange();
      }
    }
    nb_kv_cache* c = reinterpret_cast<nb_kv_cache*>(&o);
    const nb_status status = nb_kv_cache_create(Context(), &o, &c);
    After(status, "nb_kv_cache_create", *t);
    Require((c != nullptr) == (status == NB_OK), "a handle that does not fit the status");
    if (c == nullptr) return;
    const int slot = in_.Below(kSlots);
    nb_kv_cache_destroy(caches_[slot]);
    caches_[slot] = c;
    options_[slot] = o;
  }

  // Up to three sequences; *shape is what the first cache was made with.
  std::vector<nb_sequence> Batch(int32_t layer, bool attend, int64_t* rows,
                                 nb_kv_cache_options* shape) {
    std::vector<nb_sequence> batch;
    *rows = 0;
    *shape = {};
    shape->kv_heads = 1;
    shape->head_dim = 16;
    const int count = in_.OneIn(30) ? 0 : 1 + in_.Below(2);
    int slot = Slot(caches_);
    for (int i = 0; i < count; ++i) {
      if (i > 0) {  // another one of the same shape, or the batch stays small, mostly
        slot = in_.Below(kSlots);
        const bool fits = caches_[slot] != nullptr && caches_[slot] != batch[0].cache &&
                          options_[slot].type == shape->type &&
                          options_[slot].kv_heads == shape->kv_heads &&
                          options_[slot].head_dim == shape->head_dim;
        if (!fits && !in_.OneIn(20)) break;
      }
      nb_sequence s = {caches_[slot], 0, 0};
      if (i == 0 && s.cache != nullptr) *shape = options_[slot];
      const int64_t length = nb_kv_cache_length(s.cache, layer);
      const int held = length > 0 ? static_cast<int>(length % 256) : 0;
      s.start = in_.Below(held + 1);
      s.rows = attend ? held - s.start : in_.Below(6);
      if (in_.OneIn(30)) s.start = in_.Strange();
      if (in_.OneIn(30)) s.rows = in_.Strange();
      *rows = static_cast<int64_t>(static_cast<uint64_t>(*rows) + static_cast<uint64_t>(s.rows));
      batch.push_back(s);
    }
    return batch;
  }

  int32_t LayerNumber() {
    return in_.OneIn(30) ? static_cast<int32_t>(in_.Strange()) : in_.Below(2);
  }

  void Append(Tensors* t) {
    const int32_t layer = LayerNumber();
    int64_t rows;
    nb_kv_cache_options o;
    const std::vector<nb_sequence> batch = Batch(layer, false, &rows, &o);
    const int64_t kv = int64_t{o.kv_heads} * o.head_dim;
    const auto count = static_cast<int32_t>(batch.size());
    const nb_tensor* angles = t->Make(NB_F32, rows, o.head_dim, true);
    if (in_.OneIn(3)) {
      const nb_tensor* f = t->Make(NB_F32, o.head_dim / 2, -1);
      t->Remember();
      After(nb_rope_angles(Context(), f, batch.data(), count, angles), "nb_rope_angles", *t);
    }
    const nb_tensor* q = t->Make(NB_F32, rows, kv * (1 + in_.Below(3)));
    const nb_tensor* k = t->Make(NB_F32, rows, kv);
    const nb_tensor* v = t->Make(NB_F32, rows, kv);
    t->Remember();
    After(nb_rope_append(Context(), layer, q, k, v, angles, batch.data(), count),
          "nb_rope_append", *t);
  }

  void Attend(Tensors* t) {
    const int32_t layer = LayerNumber();
    int64_t rows;
    nb_kv_cache_options o;
    const std::vector<nb_sequence> batch = Batch(layer, true, &rows, &o);
    const int64_t cols = int64_t{o.kv_heads} * o.head_dim * (1 + in_.Below(3));
    const nb_tensor* q = t->Make(NB_F32, rows, cols);
    const nb_tensor* y = t->Make(NB_F32, rows, cols);
    t->Remember();
    After(nb_attention(Context(), layer, q, in_.Float(), batch.data(),
                       static_cast<int32_t>(batch.size()), y),
          "nb_attention", *t);
  }

  void KeyScales(Tensors* t) {
    const int slot = Slot(caches_);
    const nb_kv_cache_options& o = options_[slot];
    const nb_tensor* scales = t->Make(NB_F32, o.kv_heads, o.head_dim, true);
    t->Remember();
    After(nb_kv_cache_set_key_scales(caches_[slot], LayerNumber(), scales),
          "nb_kv_cache_set_key_scales", *t);
  }

  // ----------------------------------------------------- tokens, graphs --

  void ChooseToken(Tensors* t) {
    const int64_t rows = Rows(), cols = in_.Below(40);
    const nb_tensor* logits = t->Make(NB_F32, rows, cols);
    const nb_tensor* ids = t->Make(NB_I32, rows, -1);
    const nb_tensor* uniforms = t->Make(NB_F64, rows, -1);
    const nb_tensor* row = t->Make(NB_F32, cols, -1);
    nb_sample_options o = {sizeof(o), in_.Float(), in_.Below(8), in_.Float(), in_.Float()};
    if (in_.OneIn(2)) o.temperature = 1, o.top_p = 0.9f, o.min_p = 0.1f;
    if (in_.OneIn(20)) o.struct_size = in_.Strange();
    t->Remember();
    switch (in_.Below(3)) {
      case 0: return After(nb_argmax(Context(), logits, ids), "nb_argmax", *t);
      case 1: return After(nb_sample(Context(), logits, &o, uniforms, ids), "nb_sample", *t);
      default: return After(nb_penalize(Context(), row, ids, in_.Float()), "nb_penalize", *t);
    }
  }

  // No tensor of this program lies in memory from nb_memory_allocate: all calls but empty ones
  // must be refused while a graph is recorded, and nothing is left to run.
  void Record() {
    const Tensors none(&in_);
    const nb_status begun = nb_graph_begin(context_, in_.OneIn(4) ? in_.Strange() : in_.Below(50));
    After(begun, "nb_graph_begin", none);
    if (begun != NB_OK || recording_) return;
    recording_ = true;
    for (int i = 0; i < 4 && !in_.empty(); ++i) {
      Tensors tensors(&in_);
      Step(&tensors);
    }
    recording_ = false;
    nb_graph* graph = nullptr;
    const nb_status ended = nb_graph_end(context_, in_.OneIn(8) ? nullptr : &graph);
    After(ended, "nb_graph_end", none);
    if (ended != NB_OK) return;
    const nb_sequence sequence = {nullptr, in_.Strange(), in_.Strange()};
    After(nb_graph_launch(Context(), graph, &sequence, static_cast<int32_t>(in_.Below(3) - 1)),
          "nb_graph_launch", none);
    Require(nb_graph_destroy(graph) == NB_OK, "a graph could not be destroyed");
  }

  // A copy there and back.
  void Memory(Tensors* t) {
    if (recording_) return;  // a graph would keep addresses of memory that is freed here
    const int64_t bytes = in_.OneIn(8) ? in_.Strange() : in_.Below(200);
    void* memory = &in_;
    const nb_status status = nb_memory_allocate(Context(), bytes, &memory);
    After(status, "nb_memory_allocate", *t);
    Require((status == NB_OK && bytes > 0) == (memory != nullptr), "memory that does not fit");
    if (bytes <= 200 && memory != nullptr) {
      std::vector<uint8_t> there(static_cast<size_t>(bytes)), back(there);
      for (uint8_t& b : there) b = in_.Byte();
      const int64_t count = in_.OneIn(8) ? -1 - in_.Below(9) : in_.Below(static_cast<int>(bytes));
      const void* source = in_.OneIn(20) ? nullptr : there.data();
      const nb_status copied = nb_memory_copy(Context(), memory, source, count);
      After(copied, "nb_memory_copy", *t);
      if (copied == NB_OK) {
        After(nb_memory_copy(context_, back.data(), memory, count), "nb_memory_copy", *t);
        Require(count == 0 || std::memcmp(there.data(), back.data(),
                                          static_cast<size_t>(count)) == 0,
                "a copy differs");
      }
    }
    After(nb_synchronize(Context()), "nb_synchronize", *t);
    Require(nb_memory_free(memory) == NB_OK, "memory could not be freed");
  }

  // ------------------------------------------------------------- library --

  void Library(Tensors* t) {
    const int32_t dtype = in_.Below(14) - 1;
    float values[16] = {};
    for (float& v : values) v = in_.Float();
    uint8_t codes[32] = {};
    const int64_t count = in_.OneIn(8) ? in_.Strange() : in_.Below(17);
    // Both arrays hold at least 16: a count beyond that must come with a short code_bytes.
    const int64_t code_bytes = in_.Below(33);
    const bool in_range = count <= 16;
    if (in_range || code_bytes < count) {
      After(nb_encode(dtype, values, count, codes, code_bytes), "nb_encode", *t);
      After(nb_decode(dtype, codes, code_bytes, values, count), "nb_decode", *t);
    }
    char name[16] = "cpu";
    const int length = in_.OneIn(4) ? 3 : in_.Below(16);
    for (int i = 0; i < length && length != 3; ++i) {
      name[i] = in_.OneIn(8) ? static_cast<char>(1 + in_.Below(255)) : "cuda:0123"[in_.Below(9)];
    }
    name[length] = '\0';
    After(nb_device_status(name), "nb_device_status", *t);
    const nb_weight_format f = Format();
    After(nb_weight_sizes(&f, Size(), Size(), nullptr, nullptr, nullptr, nullptr),
          "nb_weight_sizes", *t);
    nb_kv_cache_length(caches_[in_.Below(kSlots)], static_cast<int32_t>(in_.Strange()));
    const int64_t text_length = in_.Below(64);
    std::vector<char> text(static_cast<size_t>(text_length) + 1);
    After(nb_device_describe(name, text.data(), in_.OneIn(4) ? -text_length : text_length),
          "nb_device_describe", *t);
    After(nb_simd_targets(text.data(), in_.OneIn(4) ? -text_length : text_length),
          "nb_simd_targets", *t);
  }

  nb_context* context_;
  Input in_;
  bool recording_ = false;
  nb_matrix* matrices_[kSlots] = {};
  nb_kv_cache* caches_[kSlots] = {};
  nb_kv_cache_options options_[kSlots] = {};
};

nb_context* SharedContext() {
  static nb_context* context = [] {
    nb_context* c = nullptr;
    Require(nb_context_create("cpu", 2, &c) == NB_OK, "no context");
    return c;
  }();
  return context;
}

}  // namespace
}  // namespace nibble::fuzz

int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  nibble::fuzz::Machine(nibble::fuzz::SharedContext(), data, size).Run();
  return 0;
}
