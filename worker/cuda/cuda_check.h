// worker/cuda/cuda_check.h: a CUDA error ends the worker with exit 70 and one line that names the
// call, its file and the current step. The other processes continue. Thread: any.
#pragma once

#include <cuda_runtime_api.h>

#include <cstdint>

namespace fathom::worker {

// Sets the step that later messages name.
void SetCudaStep(uint64_t step);

[[noreturn]] void CudaFailed(cudaError_t error, const char* call, const char* file, int line);

}  // namespace fathom::worker

#define FATHOM_CUDA(call)                                                       \
  do {                                                                          \
    if (const cudaError_t fathom_error = (call); fathom_error != cudaSuccess) { \
      ::fathom::worker::CudaFailed(fathom_error, #call, __FILE__, __LINE__);    \
    }                                                                           \
  } while (false)
