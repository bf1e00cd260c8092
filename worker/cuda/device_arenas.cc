#include "worker/cuda/device_arenas.h"

#include <cuda_runtime_api.h>

#include "common/check.h"
#include "worker/cuda/cuda_check.h"

namespace fathom::worker {
namespace {

constexpr int64_t kAlignment = 256;

int64_t Aligned(int64_t bytes) { return (bytes + kAlignment - 1) / kAlignment * kAlignment; }

}  // namespace

absl::StatusOr<std::unique_ptr<DeviceArenas>> DeviceArenas::Allocate(const CudaMemoryPlan& plan) {
  std::unique_ptr<DeviceArenas> arenas(new DeviceArenas);
  for (const CudaArena& arena : plan.arenas) {
    if (!arena.ours) continue;
    int64_t bytes = 0;
    for (const CudaBuffer& buffer : plan.buffers) {
      if (buffer.arena == arena.name) bytes += Aligned(buffer.bytes);
    }
    if (bytes == 0) continue;
    void* data = nullptr;
    if (const cudaError_t error = cudaMalloc(&data, static_cast<size_t>(bytes));
        error == cudaErrorMemoryAllocation) {
      size_t free = 0, total = 0;
      FATHOM_CUDA(cudaGetLastError() == error ? cudaSuccess : error);
      FATHOM_CUDA(cudaMemGetInfo(&free, &total));
      return Exhausted(
          "the arena {} of {} bytes does not fit: the device has {} of {} bytes free; another "
          "process takes memory, or --gpu-memory-utilization is too high: lower it",
          arena.name, bytes, free, total);
    } else {
      FATHOM_CUDA(error);
    }
    arenas->allocations_.push_back(data);
    int64_t offset = 0;
    for (const CudaBuffer& buffer : plan.buffers) {
      if (buffer.arena != arena.name) continue;
      arenas->buffers_[buffer.name] = {static_cast<std::byte*>(data) + offset, buffer.bytes};
      offset += Aligned(buffer.bytes);
    }
    // State starts at zero. Memory that no sequence has written yet must not be read as NaN.
    if (arena.name != "weights") FATHOM_CUDA(cudaMemset(data, 0, static_cast<size_t>(bytes)));
  }
  FATHOM_CUDA(cudaDeviceSynchronize());
  return arenas;
}

DeviceArenas::~DeviceArenas() {
  for (void* data : allocations_) cudaFree(data);
}

const DeviceArenas::Place& DeviceArenas::Find(std::string_view name) const {
  const auto it = buffers_.find(name);
  FATHOM_CHECK(it != buffers_.end(), "no buffer {}", name);
  return it->second;
}

}  // namespace fathom::worker
