// The functions of the CUDA backend in a build without CUDA.
#include "worker/cuda/cuda_backend.h"
#include "worker/cuda/cuda_probe.h"

namespace fathom::worker {
namespace {

absl::Status NoCuda() {
  return FailedPrecondition(
      "this build has no CUDA backend: configure it with -DFATHOM_CUDA=ON, or use --device cpu");
}

}  // namespace

absl::StatusOr<DeviceFacts> ProbeCudaDevice() { return NoCuda(); }

absl::StatusOr<std::unique_ptr<Device>> MakeCudaDevice(const CudaBackendOptions&) {
  return NoCuda();
}

}  // namespace fathom::worker
