// SPDX-License-Identifier: Apache-2.0
//
// Hopper's own kernel (tiled_wgmma.cuh) has run in the emulator alone, which takes from the manual
// how matrices lie in shared memory, what is swizzled there and who must fence what. Whoever
// misreads that misreads it in the kernel and in the emulator alike, and this is the one kernel
// that depends on it. A device is therefore given a trial before the kernel's first use: one
// block's product of small integers, whose sums are exact in every kernel and in FP8 accumulators
// that keep 13 bits, must come out with the same bits as from the 16-bit kernel, which does not
// depend on it. Where it does not, that kernel goes on serving.
#include <cstring>
#include <map>
#include <mutex>
#include <tuple>
#include <vector>

#include "kernels-cpu/numerics/formats.h"
#include "kernels-cuda/gemm_i4f8/kernel_table.h"
#include "kernels-cuda/gemm_i4f8/plan.h"

namespace nibble::cuda::gemm_i4f8 {
namespace {

// One block of 128 x 128; six steps use every stage of the ring again.
constexpr int64_t kSize = 128, kColumns = 384;

// Memory of the trial, freed at its end.
class Memory {
 public:
  Memory(Device& device, int64_t bytes) : device_(device) {
    status_ = device.Allocate(bytes, &address_);
  }
  Memory(Device& device, const std::vector<uint8_t>& bytes)
      : Memory(device, static_cast<int64_t>(bytes.size())) {
    if (status_.ok()) status_ = device.CopyIn(address_, bytes.data(), int64_t(bytes.size()));
  }
  ~Memory() { device_.Free(address_); }
  Memory(const Memory&) = delete;
  Memory& operator=(const Memory&) = delete;
  DevicePtr address() const { return address_; }
  const Status& status() const { return status_; }

 private:
  Device& device_;
  DevicePtr address_ = 0;
  Status status_;
};

}  // namespace

// Sums stay exact: |q| <= 8 and |x| <= 8 make at most 64 * 64 = 2^12 a unit of 64 columns, whose
// terms end 12 bits below that; scales are 1 or 2, and the whole is below 2^16.
Status TryWarpgroups(Device& device, int unit, bool* same) {
  const WeightFormat format{DType::kI4, DType::kPow2, unit};
  std::vector<uint8_t> codes(kSize * kColumns / 2), scales(kSize * kColumns / unit);
  std::vector<uint8_t> left(kSize * kColumns);
  std::vector<float> factors(kSize, 1.0f);
  uint32_t state = 1;
  const auto next = [&state](uint32_t below) {  // Numerical Recipes' generator, upper bits
    state = state * 1664525u + 1013904223u;
    return (state >> 16) % below;
  };
  for (uint8_t& c : codes) c = static_cast<uint8_t>(next(256));
  for (uint8_t& s : scales) s = static_cast<uint8_t>(next(2));
  for (uint8_t& x : left) x = EncodeE4M3(static_cast<float>(next(17)) - 8);
  std::vector<uint8_t> packed(static_cast<size_t>(PackedBytes(format, kSize, kColumns)));
  for (int64_t b = 0; b < RowBlocks(kSize); ++b) {
    Pack(format, kSize, kColumns, {codes.data(), nullptr, scales.data(), factors.data()}, b,
         packed.data());
  }

  const Memory weights(device, packed), values(device, left);
  std::vector<uint8_t> results[2];
  for (const bool warpgroup : {false, true}) {
    std::vector<uint8_t>& result = results[warpgroup];
    result.assign(kSize * kSize * 4, 0xFF);
    const Memory output(device, result);
    for (const Memory* m : {&weights, &values, &output}) {
      NIBBLE_CUDA_RETURN_IF_FAILED(m->status());
    }
    Plan plan{128, 1};
    plan.warpgroup = warpgroup;
    NIBBLE_CUDA_RETURN_IF_FAILED(RunPlanned(
        device, plan, {format, kSize, kColumns, weights.address()}, nullptr,
        {DType::kE4M3, kSize, kColumns, values.address(), kColumns, 0},
        {DType::kF32, output.address(), kSize, 0, 0, 0, 0}, {0, 0}));
    NIBBLE_CUDA_RETURN_IF_FAILED(
        device.CopyOut(result.data(), output.address(), int64_t(result.size())));
  }
  *same = results[0] == results[1];
  return Status();
}

bool UsesWarpgroups(Device& device, int unit) {
  if (device.properties().sm != 90 || unit == 16) return false;
  static std::mutex mutex;
  static std::map<std::tuple<const Driver*, int, int>, bool> known;
  const std::lock_guard<std::mutex> lock(mutex);
  const auto key = std::make_tuple(&device.driver(), device.ordinal(), unit);
  const auto found = known.find(key);
  if (found != known.end()) return found->second;
  if (!device.Has(WarpgroupKernel(unit))) return known[key] = false;
  if (device.recording()) return false;  // no time for a trial
  bool same = false;
  // What fails for a passing reason, such as memory, may be tried again.
  if (!TryWarpgroups(device, unit, &same).ok()) return false;
  return known[key] = same;
}

}  // namespace nibble::cuda::gemm_i4f8
