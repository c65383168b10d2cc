// SPDX-License-Identifier: Apache-2.0
//
// Floating-point arithmetic in F32, F64, F16, BF16 and their pairs. Sums, products and fused
// multiply-adds are correctly rounded, as on the device; the .approx instructions deviate from
// the true value by up to what the manual allows, in a way that depends on the operand alone.

#include <cfenv>
#include <cmath>

#include "kernels-cuda/emulator/decoder.h"
#include "kernels-cuda/emulator/lanes.h"
#include "kernels-cuda/emulator/small_floats.h"

namespace nibble::cuda::emulator {

namespace {

// ---- F32 and F64 ------------------------------------------------------------------------------

float Flush(float x) {  // .ftz: subnormal operands and results become zeros of their sign
  const uint32_t bits = Bits<uint32_t>(x);
  return (bits & 0x7F800000u) == 0 ? Bits<float>(bits & 0x80000000u) : x;
}
// A device's NaN is always this one.
constexpr uint32_t kNanBits = 0x7FFFFFFFu;
float Canonical(float x) { return x != x ? Bits<float>(kNanBits) : x; }
double Canonical(double x) { return x != x ? Bits<double>(uint64_t{0xFFF8000000000000u}) : x; }
float Saturate(float x) { return !(x > 0) ? 0.0f : x > 1 ? 1.0f : x; }

template <bool kFlush>
float In(float x) {
  return kFlush ? Flush(x) : x;
}

template <bool kFlush, bool kSaturate>
float Out(float x) {
  if (kFlush) x = Flush(x);
  return kSaturate ? Saturate(x) : Canonical(x);
}

struct AddOp {
  template <class T>
  static T Run(T a, T b) {
    return a + b;
  }
};
struct SubtractOp {
  template <class T>
  static T Run(T a, T b) {
    return a - b;
  }
};
struct MultiplyOp {
  template <class T>
  static T Run(T a, T b) {
    return a * b;
  }
};
struct FusedOp {
  template <class T>
  static T Run(T a, T b, T c) {
    return std::fma(a, b, c);
  }
};
struct DivideOp {
  template <class T>
  static T Run(T a, T b) {
    return a / b;
  }
};
struct SquareRootOp {
  template <class T>
  static T Run(T a) {
    return std::sqrt(a);
  }
};
struct ReciprocalOp {
  template <class T>
  static T Run(T a) {
    return T(1) / a;
  }
};

template <class Op, bool kFlush, bool kSaturate>
struct Float1 {
  static float Run(float a) { return Out<kFlush, kSaturate>(Op::Run(In<kFlush>(a))); }
};
template <class Op, bool kFlush, bool kSaturate>
struct Float2 {
  static float Run(float a, float b) {
    return Out<kFlush, kSaturate>(Op::Run(In<kFlush>(a), In<kFlush>(b)));
  }
};
template <class Op, bool kFlush, bool kSaturate>
struct Float3 {
  static float Run(float a, float b, float c) {
    return Out<kFlush, kSaturate>(Op::Run(In<kFlush>(a), In<kFlush>(b), In<kFlush>(c)));
  }
};
template <class Op>
struct Double1 {
  static double Run(double a) { return Canonical(Op::Run(a)); }
};
template <class Op>
struct Double2 {
  static double Run(double a, double b) { return Canonical(Op::Run(a, b)); }
};
template <class Op>
struct Double3 {
  static double Run(double a, double b, double c) { return Canonical(Op::Run(a, b, c)); }
};

template <class Op>
Handler Unary32(bool flush, bool saturate) {
  using F = float;
  return flush ? (saturate ? RunUnary<Float1<Op, true, true>, F, F>
                           : RunUnary<Float1<Op, true, false>, F, F>)
               : (saturate ? RunUnary<Float1<Op, false, true>, F, F>
                           : RunUnary<Float1<Op, false, false>, F, F>);
}
template <class Op>
Handler Binary32(bool flush, bool saturate) {
  using F = float;
  return flush ? (saturate ? RunBinary<Float2<Op, true, true>, F, F>
                           : RunBinary<Float2<Op, true, false>, F, F>)
               : (saturate ? RunBinary<Float2<Op, false, true>, F, F>
                           : RunBinary<Float2<Op, false, false>, F, F>);
}
template <class Op>
Handler Ternary32(bool flush, bool saturate) {
  using F = float;
  return flush ? (saturate ? RunTernary<Float3<Op, true, true>, F, F>
                           : RunTernary<Float3<Op, true, false>, F, F>)
               : (saturate ? RunTernary<Float3<Op, false, true>, F, F>
                           : RunTernary<Float3<Op, false, false>, F, F>);
}

// Directed rounding (.rz, .rm, .rp): the host's rounding mode, behind volatile operands that keep
// the compiler from moving the arithmetic out of it. immediate: the mode; option: the operation.
enum Directed : uint8_t {
  kDirectedAdd,
  kDirectedSubtract,
  kDirectedMultiply,
  kDirectedFused,
  kDirectedDivide,
  kDirectedRoot,
  kDirectedReciprocal
};

template <class T>
T RunDirectedOne(int operation, T a, T b, T c) {
  volatile T x = a, y = b, z = c;
  volatile T r = 0;
  switch (operation) {
    case kDirectedAdd:
      r = x + y;
      break;
    case kDirectedSubtract:
      r = x - y;
      break;
    case kDirectedMultiply:
      r = x * y;
      break;
    case kDirectedFused:
      r = std::fma(static_cast<T>(x), static_cast<T>(y), static_cast<T>(z));
      break;
    case kDirectedDivide:
      r = x / y;
      break;
    case kDirectedRoot:
      r = std::sqrt(static_cast<T>(x));
      break;
    default:
      r = T(1) / x;
      break;
  }
  return r;
}

template <class T>
void RunDirected(Warp& warp, const Instruction& instruction, uint32_t mask) {
  const int old = std::fegetround();
  T* d = warp.Reg<T>(instruction.d);
  const T* a = warp.Reg<T>(instruction.a);
  const T* b = warp.Reg<T>(instruction.b >= 0 ? instruction.b : instruction.a);
  const T* c = warp.Reg<T>(instruction.c >= 0 ? instruction.c : instruction.a);
  const bool flush = (instruction.mode & 1) != 0, saturate = (instruction.mode & 2) != 0;
  std::fesetround(static_cast<int>(instruction.immediate));
  for (int l = 0; l < kLanes; ++l) {
    if ((mask >> l & 1) == 0) continue;
    T x = a[l], y = b[l], z = c[l];
    if constexpr (sizeof(T) == 4) {
      if (flush) x = Flush(x), y = Flush(y), z = Flush(z);
    }
    T r = RunDirectedOne<T>(instruction.option, x, y, z);
    if constexpr (sizeof(T) == 4) {
      if (flush) r = Flush(r);
      if (saturate) r = Saturate(r);
    }
    d[l] = Canonical(r);
  }
  std::fesetround(old);
}

// ---- min and max ------------------------------------------------------------------------------

// The number where one operand is a NaN; -0 below +0.
template <bool kMax, bool kNan, class T>
T Extreme(T a, T b) {
  if (a != a || b != b) {
    if (kNan || (a != a && b != b)) return std::numeric_limits<T>::quiet_NaN();
    return a != a ? b : a;
  }
  if (a == b) return std::signbit(a) == kMax ? b : a;
  return (a < b) == kMax ? b : a;
}
template <bool kMax, bool kNan, bool kAbs>
struct ExtremeOp {
  template <class T>
  static T Run(T a, T b) {
    const T r = Extreme<kMax, kNan>(kAbs ? std::fabs(a) : a, kAbs ? std::fabs(b) : b);
    return kAbs ? std::copysign(r, std::signbit(a) != std::signbit(b) ? T(-1) : T(1)) : r;
  }
};
template <bool kMax, bool kNan>
struct ExtremeOp3 {
  template <class T>
  static T Run(T a, T b, T c) {
    return Extreme<kMax, kNan>(Extreme<kMax, kNan>(a, b), c);
  }
};
struct NegateOp {
  static float Run(float a) { return -a; }
};
struct AbsoluteOp {
  static float Run(float a) { return std::fabs(a); }
};
// neg and abs keep a NaN's bits.
template <bool kFlush>
struct NegateBits {
  static float Run(float a) { return Bits<float>(Bits<uint32_t>(In<kFlush>(a)) ^ 0x80000000u); }
};
template <bool kFlush>
struct AbsoluteBits {
  static float Run(float a) { return Bits<float>(Bits<uint32_t>(In<kFlush>(a)) & 0x7FFFFFFFu); }
};
struct NegateDouble {
  static double Run(double a) { return -a; }
};
struct AbsoluteDouble {
  static double Run(double a) { return std::fabs(a); }
};
struct CopySign32 {
  static uint32_t Run(uint32_t a, uint32_t b) { return (b & 0x7FFFFFFFu) | (a & 0x80000000u); }
};
struct CopySign64 {
  static uint64_t Run(uint64_t a, uint64_t b) {
    return (b & ~(uint64_t{1} << 63)) | (a & uint64_t{1} << 63);
  }
};

// ---- approximations ---------------------------------------------------------------------------

// A number in [-1, 1] that depends on the operand's bits alone.
double Wobble(float a) {
  uint32_t x = Bits<uint32_t>(a) * 0x9E3779B1u;
  x ^= x >> 15;
  x *= 0x85EBCA77u;
  x ^= x >> 13;
  return static_cast<int32_t>(x) * 0x1p-31;
}
// exact moved by up to bound times itself, but exact where it is a power of two, which hardware
// gets right.
float Near(double exact, double bound, float operand) {
  if (!std::isfinite(exact) || exact == 0) return static_cast<float>(exact);
  int exponent;
  if (std::fabs(std::frexp(exact, &exponent)) == 0.5) return static_cast<float>(exact);
  return static_cast<float>(exact * (1 + bound * Wobble(operand)));
}
// Absolute error, for logarithm and the circular functions.
float NearAbsolute(double exact, double bound, float operand) {
  if (!std::isfinite(exact) || exact == 0) return static_cast<float>(exact);
  return static_cast<float>(exact + bound * Wobble(operand));
}
struct ExponentialOp {
  static float Run(float a) { return Near(std::exp2(static_cast<double>(a)), 0x1p-23, a); }
};
struct LogarithmOp {
  static float Run(float a) {
    const double exact = std::log2(static_cast<double>(a));
    return std::fabs(exact) == std::floor(std::fabs(exact)) ? static_cast<float>(exact)
           : a > 0.5f && a < 2.0f                           ? NearAbsolute(exact, 0x1p-23, a)
                                                            : Near(exact, 0x1p-23, a);
  }
};
struct ReciprocalApproxOp {
  static float Run(float a) { return Near(1.0 / a, 0x1p-24, a); }
};
struct RootApproxOp {
  static float Run(float a) { return Near(std::sqrt(static_cast<double>(a)), 0x1p-23, a); }
};
struct RootReciprocalOp {
  static float Run(float a) {
    return a == 0 ? std::copysign(std::numeric_limits<float>::infinity(), a)
                  : Near(1.0 / std::sqrt(static_cast<double>(a)), 0x1p-23, a);
  }
};
struct SineOp {
  static float Run(float a) { return NearAbsolute(std::sin(static_cast<double>(a)), 0x1p-21, a); }
};
struct CosineOp {
  static float Run(float a) {
    return a == 0 ? 1.0f : NearAbsolute(std::cos(static_cast<double>(a)), 0x1p-21, a);
  }
};
struct TangentHOp {
  static float Run(float a) { return Near(std::tanh(static_cast<double>(a)), 0x1p-11, a); }
};
// div.approx and div.full: within 2 units in the last place; quotients by more than 2^126 may
// be flushed to zero by div.approx.
struct DivideApproxOp {
  static float Run(float a, float b) {
    if (std::fabs(b) > 0x1p126f && std::isfinite(b))
      return std::isinf(a) ? std::numeric_limits<float>::quiet_NaN()
                           : std::copysign(0.0f, a * (b > 0 ? 1 : -1));
    return Near(static_cast<double>(a) / b, 0x1p-23, a);
  }
};
struct DivideFullOp {
  static float Run(float a, float b) { return Near(static_cast<double>(a) / b, 0x1p-23, a); }
};
struct RootReciprocalDouble {
  static double Run(double a) { return 1.0 / std::sqrt(a); }
};

// ---- 16 bits ----------------------------------------------------------------------------------

// a + b with the last bit set where the sum is not exact ("to odd"), so that rounding it again to
// fewer bits rounds the true sum.
double AddToOdd(double a, double b) {
  const double sum = a + b;
  if (!std::isfinite(sum)) return sum;
  const double back = sum - a;
  const double error = (a - (sum - back)) + (b - back);
  uint64_t bits = Bits<uint64_t>(sum);
  if (error != 0 && (bits & 1) == 0) {
    bits += (error > 0) == (sum > 0) ? 1 : -1;
    return Bits<double>(bits);
  }
  return sum;
}

struct Half {
  static float Get(uint16_t h) { return HalfToFloat(h); }
  static uint16_t Put(float f) { return FloatToHalf(f); }
  static uint16_t PutDouble(double d) {
    return static_cast<uint16_t>(EncodeSmall(kF16, d, Rounding::kNearestEven, false));
  }
  static constexpr uint16_t kSubnormal = 0x7C00;
};
struct Brain {
  static float Get(uint16_t h) { return BrainToFloat(h); }
  static uint16_t Put(float f) { return FloatToBrain(f); }
  static uint16_t PutDouble(double d) {
    return static_cast<uint16_t>(EncodeSmall(kBF16, d, Rounding::kNearestEven, false));
  }
  static constexpr uint16_t kSubnormal = 0x7F80;
};
template <class F, bool kFlush>
uint16_t FlushSmall(uint16_t h) {
  return kFlush && (h & F::kSubnormal) == 0 ? h & 0x8000 : h;
}
// mode: 0 as it is, 1 saturated to [0, 1], 2 negative to 0 (relu).
template <class F, int kMode>
uint16_t Bound(uint16_t h) {
  if (kMode == 0) return h;
  const float f = F::Get(h);
  if (kMode == 1) return f != f ? 0 : f > 1 ? F::Put(1.0f) : f > 0 ? h : 0;
  return f != f ? h : f > 0 ? h : 0;
}
// One operation on two numbers in F32 and one rounding: exact, since F32 has more than twice
// the bits (for BF16 and F16 alike).
template <class F, class Op, bool kFlush, int kMode>
struct Small2 {
  static uint16_t Run(uint16_t a, uint16_t b) {
    const float r = Op::Run(F::Get(FlushSmall<F, kFlush>(a)), F::Get(FlushSmall<F, kFlush>(b)));
    return Bound<F, kMode>(FlushSmall<F, kFlush>(F::Put(r)));
  }
};
template <class F, bool kFlush, int kMode>
struct SmallFused {
  static uint16_t Run(uint16_t a, uint16_t b, uint16_t c) {
    const double product =
        static_cast<double>(F::Get(FlushSmall<F, kFlush>(a))) * F::Get(FlushSmall<F, kFlush>(b));
    return Bound<F, kMode>(
        FlushSmall<F, kFlush>(F::PutDouble(AddToOdd(product, F::Get(FlushSmall<F, kFlush>(c))))));
  }
};
template <class F, class Op>
struct Small1 {
  static uint16_t Run(uint16_t a) { return F::Put(Op::Run(F::Get(a))); }
};
struct SmallNegate {
  static uint16_t Run(uint16_t a) { return a ^ 0x8000; }
};
struct SmallAbsolute {
  static uint16_t Run(uint16_t a) { return a & 0x7FFF; }
};
struct HalfExponential {
  static float Run(float a) { return Near(std::exp2(static_cast<double>(a)), 0x1p-12, a); }
};
// The pairs apply the same to both halves.
template <class Op>
struct Pair1 {
  static uint32_t Run(uint32_t a) {
    return Op::Run(static_cast<uint16_t>(a)) |
           static_cast<uint32_t>(Op::Run(static_cast<uint16_t>(a >> 16))) << 16;
  }
};
template <class Op>
struct Pair2 {
  static uint32_t Run(uint32_t a, uint32_t b) {
    return Op::Run(static_cast<uint16_t>(a), static_cast<uint16_t>(b)) |
           static_cast<uint32_t>(
               Op::Run(static_cast<uint16_t>(a >> 16), static_cast<uint16_t>(b >> 16)))
               << 16;
  }
};
template <class Op>
struct Pair3 {
  static uint32_t Run(uint32_t a, uint32_t b, uint32_t c) {
    return Op::Run(static_cast<uint16_t>(a), static_cast<uint16_t>(b), static_cast<uint16_t>(c)) |
           static_cast<uint32_t>(Op::Run(static_cast<uint16_t>(a >> 16),
                                         static_cast<uint16_t>(b >> 16),
                                         static_cast<uint16_t>(c >> 16)))
               << 16;
  }
};
template <class Op>
Handler SmallUnary(bool pair) {
  return pair ? RunUnary<Pair1<Op>, uint32_t, uint32_t> : RunUnary<Op, uint16_t, uint16_t>;
}
template <class Op>
Handler SmallBinary(bool pair) {
  return pair ? RunBinary<Pair2<Op>, uint32_t, uint32_t> : RunBinary<Op, uint16_t, uint16_t>;
}
template <class Op>
Handler SmallTernary(bool pair) {
  return pair ? RunTernary<Pair3<Op>, uint32_t, uint32_t> : RunTernary<Op, uint16_t, uint16_t>;
}
template <class F, class Op>
Handler SmallBinaryOf(bool pair, bool flush, int mode) {
  if (flush)
    return mode == 0   ? SmallBinary<Small2<F, Op, true, 0>>(pair)
           : mode == 1 ? SmallBinary<Small2<F, Op, true, 1>>(pair)
                       : nullptr;
  return mode == 0   ? SmallBinary<Small2<F, Op, false, 0>>(pair)
         : mode == 1 ? SmallBinary<Small2<F, Op, false, 1>>(pair)
                     : nullptr;
}
template <class F>
Handler SmallFusedOf(bool pair, bool flush, int mode) {
  if (flush)
    return mode == 0   ? SmallTernary<SmallFused<F, true, 0>>(pair)
           : mode == 1 ? SmallTernary<SmallFused<F, true, 1>>(pair)
                       : SmallTernary<SmallFused<F, true, 2>>(pair);
  return mode == 0   ? SmallTernary<SmallFused<F, false, 0>>(pair)
         : mode == 1 ? SmallTernary<SmallFused<F, false, 1>>(pair)
                     : SmallTernary<SmallFused<F, false, 2>>(pair);
}
template <class F>
Handler SmallExtreme(bool maximum, bool nan, bool pair) {
  return maximum ? (nan ? SmallBinary<Small2<F, ExtremeOp<true, true, false>, false, 0>>(pair)
                        : SmallBinary<Small2<F, ExtremeOp<true, false, false>, false, 0>>(pair))
                 : (nan ? SmallBinary<Small2<F, ExtremeOp<false, true, false>, false, 0>>(pair)
                        : SmallBinary<Small2<F, ExtremeOp<false, false, false>, false, 0>>(pair));
}

struct Shape {
  std::string name, type, rounding;
  bool flush, saturate, relu, approx;
};

// Sets d, a, b, c for as many operands as there are.
void Operands(Decoder& decoder, Instruction* instruction, int bits) {
  instruction->d = decoder.Destination(0, bits);
  instruction->a = decoder.Source(1, bits);
  if (decoder.count() > 2) instruction->b = decoder.Source(2, bits);
  if (decoder.count() > 3) instruction->c = decoder.Source(3, bits);
}

template <class F>
Handler PickSmall(const Shape& s, bool nan, bool pair) {
  const int mode = s.saturate ? 1 : s.relu ? 2 : 0;
  if (s.name == "add") return SmallBinaryOf<F, AddOp>(pair, s.flush, mode);
  if (s.name == "sub") return SmallBinaryOf<F, SubtractOp>(pair, s.flush, mode);
  if (s.name == "mul") return SmallBinaryOf<F, MultiplyOp>(pair, s.flush, mode);
  if (s.name == "fma") return SmallFusedOf<F>(pair, s.flush, mode);
  if (mode != 0) return nullptr;
  if (s.name == "min" || s.name == "max") return SmallExtreme<F>(s.name == "max", nan, pair);
  if (s.name == "neg") return SmallUnary<SmallNegate>(pair);
  if (s.name == "abs") return SmallUnary<SmallAbsolute>(pair);
  if (s.name == "ex2") return SmallUnary<Small1<F, HalfExponential>>(pair);
  if (s.name == "tanh") return SmallUnary<Small1<F, TangentHOp>>(pair);
  return nullptr;
}

Handler PickDouble(const Shape& s) {
  using D = double;
  if (s.name == "add") return RunBinary<Double2<AddOp>, D, D>;
  if (s.name == "sub") return RunBinary<Double2<SubtractOp>, D, D>;
  if (s.name == "mul") return RunBinary<Double2<MultiplyOp>, D, D>;
  if (s.name == "div") return RunBinary<Double2<DivideOp>, D, D>;
  if (s.name == "fma" || s.name == "mad") return RunTernary<Double3<FusedOp>, D, D>;
  if (s.name == "min") return RunBinary<ExtremeOp<false, false, false>, D, D>;
  if (s.name == "max") return RunBinary<ExtremeOp<true, false, false>, D, D>;
  if (s.name == "neg") return RunUnary<NegateDouble, D, D>;
  if (s.name == "abs") return RunUnary<AbsoluteDouble, D, D>;
  if (s.name == "sqrt") return RunUnary<Double1<SquareRootOp>, D, D>;
  if (s.name == "rcp") return RunUnary<Double1<ReciprocalOp>, D, D>;
  if (s.name == "rsqrt") return RunUnary<Double1<RootReciprocalDouble>, D, D>;
  return nullptr;
}

Handler PickSingle(const Shape& s, bool nan, bool xorsign, size_t operands) {
  const std::string& name = s.name;
  if (s.approx) {
    if (name == "ex2") return Unary32<ExponentialOp>(s.flush, false);
    if (name == "lg2") return Unary32<LogarithmOp>(s.flush, false);
    if (name == "rcp") return Unary32<ReciprocalApproxOp>(s.flush, false);
    if (name == "sqrt") return Unary32<RootApproxOp>(s.flush, false);
    if (name == "rsqrt") return Unary32<RootReciprocalOp>(s.flush, false);
    if (name == "sin") return Unary32<SineOp>(s.flush, false);
    if (name == "cos") return Unary32<CosineOp>(s.flush, false);
    if (name == "tanh") return Unary32<TangentHOp>(false, false);
    if (name == "div") return Binary32<DivideApproxOp>(s.flush, false);
    return nullptr;
  }
  if (name == "add") return Binary32<AddOp>(s.flush, s.saturate);
  if (name == "sub") return Binary32<SubtractOp>(s.flush, s.saturate);
  if (name == "mul") return Binary32<MultiplyOp>(s.flush, s.saturate);
  if (name == "fma" || name == "mad") return Ternary32<FusedOp>(s.flush, s.saturate);
  if (name == "div")
    return s.rounding == "full" ? Binary32<DivideFullOp>(s.flush, false)
                                : Binary32<DivideOp>(s.flush, false);
  if (name == "sqrt") return Unary32<SquareRootOp>(s.flush, false);
  if (name == "rcp") return Unary32<ReciprocalOp>(s.flush, false);
  if (name == "neg")
    return s.flush ? RunUnary<NegateBits<true>, float, float>
                   : RunUnary<NegateBits<false>, float, float>;
  if (name == "abs")
    return s.flush ? RunUnary<AbsoluteBits<true>, float, float>
                   : RunUnary<AbsoluteBits<false>, float, float>;
  if (name == "min" || name == "max") {
    const bool maximum = name == "max";
    if (operands == 4) {
      return maximum ? (nan ? Ternary32<ExtremeOp3<true, true>>(s.flush, false)
                            : Ternary32<ExtremeOp3<true, false>>(s.flush, false))
                     : (nan ? Ternary32<ExtremeOp3<false, true>>(s.flush, false)
                            : Ternary32<ExtremeOp3<false, false>>(s.flush, false));
    }
    if (xorsign) {
      return maximum ? (nan ? Binary32<ExtremeOp<true, true, true>>(s.flush, false)
                            : Binary32<ExtremeOp<true, false, true>>(s.flush, false))
                     : (nan ? Binary32<ExtremeOp<false, true, true>>(s.flush, false)
                            : Binary32<ExtremeOp<false, false, true>>(s.flush, false));
    }
    return maximum ? (nan ? Binary32<ExtremeOp<true, true, false>>(s.flush, false)
                          : Binary32<ExtremeOp<true, false, false>>(s.flush, false))
                   : (nan ? Binary32<ExtremeOp<false, true, false>>(s.flush, false)
                          : Binary32<ExtremeOp<false, false, false>>(s.flush, false));
  }
  return nullptr;
}

int DirectedOperation(const std::string& name) {
  if (name == "add") return kDirectedAdd;
  if (name == "sub") return kDirectedSubtract;
  if (name == "mul") return kDirectedMultiply;
  if (name == "fma" || name == "mad") return kDirectedFused;
  if (name == "div") return kDirectedDivide;
  if (name == "sqrt") return kDirectedRoot;
  return name == "rcp" ? kDirectedReciprocal : -1;
}

}  // namespace

bool DecodeFloat(Decoder& decoder, Instruction* instruction) {
  const Statement& statement = decoder.statement();
  static const char* const kNames[] = {"add",   "sub", "mul", "fma",  "mad",      "div",  "sqrt",
                                       "rsqrt", "rcp", "neg", "abs",  "min",      "max",  "ex2",
                                       "lg2",   "sin", "cos", "tanh", "copysign", "testp"};
  Shape s;
  s.name = statement.opcode[0];
  bool known = false;
  for (const char* name : kNames) known = known || s.name == name;
  if (!known) return false;
  Modifiers modifiers(statement);
  s.type = modifiers.TakeType();
  const int bits = BitsOf(s.type);
  if (s.name == "testp") modifiers.Unknown();
  s.rounding = modifiers.TakeOf({"rn", "rz", "rm", "rp", "full"});
  s.flush = modifiers.Take("ftz");
  s.saturate = modifiers.Take("sat");
  s.relu = modifiers.Take("relu");
  s.approx = modifiers.Take("approx");
  const bool nan = modifiers.Take("NaN");
  const bool xorsign = modifiers.Take("xorsign") && modifiers.Take("abs");
  modifiers.Finish();
  Operands(decoder, instruction, bits);
  if (s.name == "copysign") {
    instruction->run = bits == 32 ? RunBinary<CopySign32, uint32_t, uint32_t>
                                  : RunBinary<CopySign64, uint64_t, uint64_t>;
    return true;
  }
  if (s.rounding == "rz" || s.rounding == "rm" || s.rounding == "rp") {
    const int operation = DirectedOperation(s.name);
    if (operation < 0 || (s.type != "f32" && s.type != "f64")) modifiers.Unknown("." + s.rounding);
    instruction->option = static_cast<uint8_t>(operation);
    instruction->mode = static_cast<uint8_t>((s.flush ? 1 : 0) | (s.saturate ? 2 : 0));
    instruction->immediate = s.rounding == "rz"   ? FE_TOWARDZERO
                             : s.rounding == "rm" ? FE_DOWNWARD
                                                  : FE_UPWARD;
    instruction->run = s.type == "f32" ? RunDirected<float> : RunDirected<double>;
    return true;
  }
  if (s.type == "f32") {
    instruction->run = PickSingle(s, nan, xorsign, decoder.count());
  } else if (s.type == "f64") {
    instruction->run = PickDouble(s);
  } else if (s.type == "f16" || s.type == "f16x2") {
    instruction->run = PickSmall<Half>(s, nan, s.type == "f16x2");
  } else if (s.type == "bf16" || s.type == "bf16x2") {
    instruction->run = PickSmall<Brain>(s, nan, s.type == "bf16x2");
  }
  if (instruction->run == nullptr) modifiers.Unknown("for .f" + std::to_string(bits));
  return true;
}

}  // namespace nibble::cuda::emulator
