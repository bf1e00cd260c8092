#include "worker/cuda/pinned_memory.h"

#include <cuda_runtime_api.h>

#include "worker/cuda/cuda_check.h"

namespace fathom::worker {

absl::StatusOr<std::unique_ptr<PinnedMemory>> PinnedMemory::Allocate(int64_t bytes,
                                                                     const char* flag) {
  void* data = nullptr;
  const cudaError_t error =
      cudaHostAlloc(&data, static_cast<size_t>(bytes), cudaHostAllocPortable | cudaHostAllocMapped);
  if (error == cudaErrorMemoryAllocation) {
    FATHOM_CUDA(cudaGetLastError() == error ? cudaSuccess : error);
    return Exhausted(
        "{}: this machine did not give {} bytes of pinned memory; lower {}, or raise the limit of "
        "locked memory and of the control group",
        flag, bytes, flag);
  }
  FATHOM_CUDA(error);
  return std::unique_ptr<PinnedMemory>(new PinnedMemory(data));
}

PinnedMemory::~PinnedMemory() { cudaFreeHost(data_); }

}  // namespace fathom::worker
