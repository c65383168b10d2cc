// SPDX-License-Identifier: Apache-2.0
//
// A context's half on the device, and what the operators make of their operands there.
#pragma once

#include <cstring>
#include <memory>
#include <string>
#include <vector>

#include "kernels-cuda/attention/attention.h"
#include "kernels-cuda/elementwise/elementwise.h"
#include "kernels-cuda/plugin/arena.h"
#include "kernels-cuda/plugin/backend.h"

namespace nibble::cuda {

// The sequences of a batch in device memory, where the kernels read them.
struct DeviceBatch {
  SharedMemory memory;
  int64_t count = 0;                 // that fit
  std::vector<DeviceSequence> sent;  // what it holds, so that the layers of a step send it once
};

// A recording in progress: its scratch and its sequences are the graph's own.
struct Recording {
  Arena* arena;
  attention::SequenceBatch bounds;
};

}  // namespace nibble::cuda

struct nibble::cuda::BackendContext {
  std::shared_ptr<SharedDevice> shared;
  std::unique_ptr<Device> device;
  std::unique_ptr<Arena> arena;
  std::unique_ptr<DeviceBatch> batch;
  Recording* recording = nullptr;

  ~BackendContext();
};

struct nibble::cuda::BackendMemory {
  SharedMemory memory;
};

struct nibble::cuda::BackendCache {
  KvCacheShape shape;
  SharedMemory memory;
};

namespace nibble::cuda {

// The operands of one call: those in ordinary memory get a place on the device, where inputs are
// copied before and outputs are copied from after the kernels.
class Operands {
 public:
  explicit Operands(BackendContext& context);

  Device& device() { return *context_.device; }

  // *rows are the view's rows on the device, dense where they come from the host; {0, 0} for none.
  Status In(const BackendView& view, elementwise::Rows* rows);
  Status Out(const BackendView& view, elementwise::Rows* rows);
  Status InOut(const BackendView& view, elementwise::Rows* rows);

  // Memory for the length of the call.
  Status Take(int64_t bytes, DevicePtr* memory);

  // Brings the outputs to the host and waits, if there are any there.
  Status Finish();

 private:
  struct Pending {
    const BackendView* view;
    DevicePtr memory;
  };

  Arena& arena();

  BackendContext& context_;
  std::vector<Pending> pending_;  // outputs on the host
  std::vector<uint8_t> rows_;     // rows on their way
};

// Runs body, which returns Status, so that neither an exception nor a C++ type leaves the
// library.
template <class Body>
nb_status Enter(BackendError* error, const Body& body) noexcept {
  const auto fail = [&](nb_status code, const char* text) {
    std::strncpy(error->text, text, sizeof(error->text) - 1);
    error->text[sizeof(error->text) - 1] = '\0';
    return code;
  };
  try {
    const Status status = body();
    return status.ok() ? NB_OK : fail(status.code(), status.message().c_str());
  } catch (const std::bad_alloc&) {
    return fail(NB_OUT_OF_MEMORY, "the system has not enough free memory");
  } catch (const std::exception& e) {
    return fail(NB_INTERNAL, e.what());
  } catch (...) {
    return fail(NB_INTERNAL, "unexpected error of unknown type");
  }
}

// The functions of the table (backend.h), in the files that define them.
void AddContextFunctions(Backend* table);    // context.cc
void AddMatrixFunctions(Backend* table);     // matrix.cc
void AddOperatorFunctions(Backend* table);   // operators.cc
void AddAttentionFunctions(Backend* table);  // sequences.cc
void AddGraphFunctions(Backend* table);      // graph.cc

// Makes room for count sequences in batch.
Status ReserveBatch(const std::shared_ptr<SharedDevice>& shared, int64_t count,
                    DeviceBatch* batch);
// Puts sequences into batch, which has room for them, unless it holds them already.
Status SendSequences(Device& device, const BackendSequence* sequences, int32_t count,
                     DeviceBatch* batch);

}  // namespace nibble::cuda
