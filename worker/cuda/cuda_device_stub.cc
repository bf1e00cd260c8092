// The device of a build without CUDA.
#include "worker/cuda/cuda_device.h"

#include "common/status.h"

namespace fathom::worker {

absl::StatusOr<DeviceFacts> ProbeCudaDevice() {
  return FailedPrecondition(
      "this build has no CUDA backend: configure it with -DFATHOM_CUDA=ON, or use --device cpu");
}

}  // namespace fathom::worker
