// worker/cuda/device_arenas.h: all device memory of a rank, allocated once at start from the memory
// plan (modeling/layout/cuda_memory_plan.h): one allocation for each arena, which contains its
// buffers. Thread: the engine thread makes it; afterwards it is constant.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "common/status.h"
#include "modeling/layout/cuda_memory_plan.h"

namespace fathom::worker {

class DeviceArenas {
 public:
  // RESOURCE_EXHAUSTED: names the arena that did not fit and the free memory of the device. All
  // arenas except the weights are zeroed.
  static absl::StatusOr<std::unique_ptr<DeviceArenas>> Allocate(const CudaMemoryPlan& plan);
  ~DeviceArenas();
  DeviceArenas(const DeviceArenas&) = delete;
  DeviceArenas& operator=(const DeviceArenas&) = delete;

  // REQUIRES: the plan has a buffer of this name.
  template <class T>
  T* Buffer(std::string_view name) const {
    return static_cast<T*>(Find(name).data);
  }
  // nullptr: the plan has no such buffer.
  template <class T>
  T* BufferIfAny(std::string_view name) const {
    const auto it = buffers_.find(name);
    return it == buffers_.end() ? nullptr : static_cast<T*>(it->second.data);
  }
  int64_t Bytes(std::string_view name) const { return Find(name).bytes; }

 private:
  struct Place {
    void* data = nullptr;
    int64_t bytes = 0;
  };
  DeviceArenas() = default;
  const Place& Find(std::string_view name) const;

  std::vector<void*> allocations_;
  std::map<std::string, Place, std::less<>> buffers_;
};

}  // namespace fathom::worker
