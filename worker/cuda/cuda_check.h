// worker/cuda/cuda_check.h: any CUDA error ends the worker with exit 70 and one line that names the
// call, its file and the step in work; the cluster goes on without it. Thread: any.
#pragma once

#include <cuda_runtime_api.h>

#include <cstdint>

namespace fathom::worker {

// The step that messages name from now on.
void SetCudaStep(uint64_t step);

[[noreturn]] void CudaFailed(cudaError_t error, const char* call, const char* file, int line);

}  // namespace fathom::worker

#define FATHOM_CUDA(call)                                                       \
  do {                                                                          \
    if (const cudaError_t fathom_error = (call); fathom_error != cudaSuccess) { \
      ::fathom::worker::CudaFailed(fathom_error, #call, __FILE__, __LINE__);    \
    }                                                                           \
  } while (false)
