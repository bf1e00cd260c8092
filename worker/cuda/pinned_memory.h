// worker/cuda/pinned_memory.h: memory of the host that the GPU reads and writes itself; pinned, so
// it is taken at once and stays. Thread: the engine thread makes it; afterwards it is constant.
#pragma once

#include <cstdint>
#include <memory>

#include "common/status.h"

namespace fathom::worker {

class PinnedMemory {
 public:
  // RESOURCE_EXHAUSTED: the host has not so much memory; `flag` is the flag that asks for less.
  static absl::StatusOr<std::unique_ptr<PinnedMemory>> Allocate(int64_t bytes, const char* flag);
  ~PinnedMemory();
  PinnedMemory(const PinnedMemory&) = delete;
  PinnedMemory& operator=(const PinnedMemory&) = delete;

  void* data() const { return data_; }  // The address for the host and for the device.

 private:
  explicit PinnedMemory(void* data) : data_(data) {}
  void* const data_;
};

}  // namespace fathom::worker
