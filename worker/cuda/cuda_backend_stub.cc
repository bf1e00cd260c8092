// The CUDA backend of a build without CUDA.
#include "worker/cuda/cuda_backend.h"

namespace fathom::worker {

absl::StatusOr<std::unique_ptr<Backend>> MakeCudaBackend(const CudaBackendOptions&) {
  return FailedPrecondition(
      "this build has no CUDA backend: configure it with -DFATHOM_CUDA=ON, or use --device cpu");
}

}  // namespace fathom::worker
