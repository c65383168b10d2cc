// SPDX-License-Identifier: Apache-2.0
#include "native/src/memory.h"

#include <atomic>
#include <cstring>
#include <map>
#include <mutex>
#include <shared_mutex>

#include "kernels-cpu/memory/buffer.h"

namespace nibble::abi {
namespace {

constexpr int64_t kMaxBytes = int64_t{1} << 62;

// One piece of memory; its destructor frees it.
struct Piece {
  int64_t bytes = 0;
  int device = kCpu;
  Buffer buffer;  // of the CPU's
  const cuda::Backend* backend = nullptr;
  cuda::BackendMemory* memory = nullptr;  // of a CUDA device's

  Piece() = default;
  Piece(Piece&& other) noexcept { *this = std::move(other); }
  Piece& operator=(Piece&& other) noexcept {
    std::swap(bytes, other.bytes);
    std::swap(device, other.device);
    std::swap(buffer, other.buffer);
    std::swap(backend, other.backend);
    std::swap(memory, other.memory);
    return *this;
  }
  ~Piece() {
    if (memory != nullptr) backend->memory_free(memory);
  }
};

// By address. Never destroyed: memory may be freed while static objects are.
struct Table {
  std::shared_mutex mutex;
  std::map<uintptr_t, Piece> pieces;
  std::atomic<int64_t> on_devices{0};  // pieces that are not the CPU's
};
Table& TheTable() {
  static auto* table = new Table;
  return *table;
}

nb_status FailPlace(const Arg& arg, const View& view, int device, int expected) {
  return FailArg(NB_INVALID_ARGUMENT, arg,
                 "data is at 0x%llx, in memory of %s, but memory of %s was expected",
                 static_cast<unsigned long long>(reinterpret_cast<uintptr_t>(view.data)),
                 DeviceName(device).c_str(), DeviceName(expected).c_str());
}

// Bytes from the first element to behind the last; CheckTensor has shown that they fit.
int64_t Extent(const View& v) {
  return v.empty() ? 0 : ((v.rows - 1) * v.stride + v.cols) * v.element_bytes;
}

nb_status Allocate(nb_context* context, int64_t bytes, void** memory) {
  static constexpr char kFunction[] = "nb_memory_allocate";
  NIBBLE_RETURN_IF_FAILED(CheckNotNull({kFunction, "memory"}, memory));
  *memory = nullptr;
  NIBBLE_RETURN_IF_FAILED(CheckContext(kFunction, context));
  if (bytes < 0 || bytes > kMaxBytes) {
    return FailArg(NB_INVALID_ARGUMENT, {kFunction, "bytes"}, "%lld but 0..2^62 was expected",
                   static_cast<long long>(bytes));
  }
  const Turn turn(context->lock);
  NIBBLE_RETURN_IF_FAILED(CheckNotRecording(kFunction, context));
  if (bytes == 0) return NB_OK;
  Piece piece;
  piece.bytes = bytes;
  piece.device = context->device;
  void* address = nullptr;
  if (context->cuda != nullptr) {
    piece.backend = context->backend;
    NIBBLE_RETURN_IF_FAILED(CallCuda(kFunction, [&](cuda::BackendError* error) {
      return context->backend->memory_allocate(context->cuda, bytes, &piece.memory, &address,
                                               error);
    }));
  } else {
    piece.buffer = Buffer(static_cast<size_t>(bytes));
    address = piece.buffer.data();
  }
  Table& table = TheTable();
  const std::unique_lock<std::shared_mutex> lock(table.mutex);
  const bool on_device = piece.device != kCpu;
  table.pieces.emplace(reinterpret_cast<uintptr_t>(address), std::move(piece));
  if (on_device) ++table.on_devices;
  *memory = address;
  return NB_OK;
}

nb_status Free(void* memory) {
  static constexpr char kFunction[] = "nb_memory_free";
  if (memory == nullptr) return NB_OK;
  Piece freed;  // outside the lock: it may wait for a device
  Table& table = TheTable();
  const std::unique_lock<std::shared_mutex> lock(table.mutex);
  const auto found = table.pieces.find(reinterpret_cast<uintptr_t>(memory));
  if (found == table.pieces.end()) {
    return FailArg(NB_INVALID_ARGUMENT, {kFunction, "memory"},
                   "%p but an address from nb_memory_allocate, not freed yet, was expected",
                   memory);
  }
  freed = std::move(found->second);
  table.pieces.erase(found);
  if (freed.device != kCpu) --table.on_devices;
  return NB_OK;
}

// A piece of memory as the view of a row of bytes.
View Bytes(const void* data, int64_t bytes) {
  View view;
  view.data = static_cast<uint8_t*>(const_cast<void*>(data));
  view.rows = 1;
  view.cols = view.stride = bytes;
  view.element_bytes = 1;
  view.dtype = NB_U8;
  return view;
}

nb_status Copy(nb_context* context, void* destination, const void* source, int64_t bytes) {
  static constexpr char kFunction[] = "nb_memory_copy";
  NIBBLE_RETURN_IF_FAILED(CheckContext(kFunction, context));
  if (bytes < 0 || bytes > kMaxBytes) {
    return FailArg(NB_INVALID_ARGUMENT, {kFunction, "bytes"}, "%lld but 0..2^62 was expected",
                   static_cast<long long>(bytes));
  }
  if (bytes == 0) return NB_OK;
  const Arg to_arg{kFunction, "destination"}, from_arg{kFunction, "source"};
  NIBBLE_RETURN_IF_FAILED(CheckNotNull(to_arg, destination));
  NIBBLE_RETURN_IF_FAILED(CheckNotNull(from_arg, source));
  View to = Bytes(destination, bytes), from = Bytes(source, bytes);
  for (const View& view : {to, from}) {
    if (reinterpret_cast<uintptr_t>(view.data) > UINTPTR_MAX - static_cast<uint64_t>(bytes)) {
      return FailArg(NB_INVALID_ARGUMENT, {kFunction, "bytes"}, "%lld pass the end of memory",
                     static_cast<long long>(bytes));
    }
  }
  NIBBLE_RETURN_IF_FAILED(CheckDisjoint(to_arg, to, "source", from));
  const Turn turn(context->lock);
  NIBBLE_RETURN_IF_FAILED(CheckPlaces(context, {{to_arg, &to}, {from_arg, &from}}));
  if (context->cuda == nullptr) {
    return Submit(context, [=](nb_context&) {
      std::memcpy(destination, source, static_cast<size_t>(bytes));
      return NB_OK;
    });
  }
  return Submit(context, [=](nb_context& c) {
    return CallCuda(kFunction, [&](cuda::BackendError* error) {
      return c.backend->memory_copy(c.cuda, destination, to.on_device, source, from.on_device,
                                    bytes, error);
    });
  });
}

}  // namespace

Place PlaceOf(const void* address, int64_t bytes) {
  Table& table = TheTable();
  const std::shared_lock<std::shared_mutex> lock(table.mutex);
  const auto at = reinterpret_cast<uintptr_t>(address);
  auto next = table.pieces.upper_bound(at);
  if (next == table.pieces.begin()) return {};
  --next;
  const uintptr_t offset = at - next->first;
  const auto length = static_cast<uintptr_t>(next->second.bytes);
  if (offset >= length) return {};
  return {true, static_cast<uintptr_t>(bytes) > length - offset, next->second.device};
}

nb_status CheckPlaces(const nb_context* context, std::initializer_list<PlacedView> views) {
  const bool recording = context->recording != nullptr;
  if (!recording && TheTable().on_devices.load(std::memory_order_relaxed) == 0) return NB_OK;
  for (const PlacedView& p : views) {
    View& view = *p.view;
    if (view.empty() || view.data == nullptr) continue;
    const Place place = PlaceOf(view.data, Extent(view));
    if (place.allocated && place.device != context->device && place.device != kCpu) {
      return FailPlace(p.arg, view, place.device, context->device);
    }
    if (place.allocated && place.crosses_end && place.device != kCpu) {
      return FailArg(NB_INVALID_ARGUMENT, p.arg,
                     "data and byte_length pass the end of its memory on %s",
                     DeviceName(place.device).c_str());
    }
    if (recording && (!place.allocated || place.crosses_end || place.device != context->device)) {
      return FailArg(NB_INVALID_ARGUMENT, p.arg,
                     "in ordinary memory, but calls of a graph need memory from "
                     "nb_memory_allocate on %s",
                     DeviceName(context->device).c_str());
    }
    view.on_device = place.allocated && place.device != kCpu;
  }
  return NB_OK;
}

nb_status CheckOrdinary(std::initializer_list<PlacedView> views) {
  if (TheTable().on_devices.load(std::memory_order_relaxed) == 0) return NB_OK;
  for (const PlacedView& p : views) {
    if (p.view->empty() || p.view->data == nullptr) continue;
    const Place place = PlaceOf(p.view->data, Extent(*p.view));
    if (place.allocated && place.device != kCpu) {
      return FailArg(NB_INVALID_ARGUMENT, p.arg,
                     "in memory of %s, but ordinary memory was expected",
                     DeviceName(place.device).c_str());
    }
  }
  return NB_OK;
}

}  // namespace nibble::abi

using namespace nibble::abi;

nb_status nb_memory_allocate(nb_context* context, int64_t bytes, void** memory) {
  return Guard("nb_memory_allocate", [&] { return Allocate(context, bytes, memory); });
}

nb_status nb_memory_free(void* memory) {
  return Guard("nb_memory_free", [&] { return Free(memory); });
}

nb_status nb_memory_copy(nb_context* context, void* destination, const void* source,
                         int64_t bytes) {
  return Guard("nb_memory_copy", [&] { return Copy(context, destination, source, bytes); });
}
