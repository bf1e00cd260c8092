#include "worker/cuda/cuda_probe.h"

#include <cuda_runtime_api.h>

#include <algorithm>

#include "common/status.h"
#include "worker/cuda/cuda_check.h"

namespace fathom::worker {
namespace {

constexpr int kComputeCapabilityMin = 80;
// The most memory that a context and the driver take; more than that belongs to another process.
constexpr int64_t kOwnBytesMax = int64_t{1} << 30;

std::string Version(int number) { return fmt::format("{}.{}", number / 1000, number % 1000 / 10); }

std::string UuidOf(const cudaUUID_t& uuid) {
  std::string text = "GPU-";
  for (int i = 0; i < 16; ++i) {
    if (i == 4 || i == 6 || i == 8 || i == 10) text += '-';
    text += fmt::format("{:02x}", static_cast<unsigned char>(uuid.bytes[i]));
  }
  return text;
}

absl::Status CheckDriver(DeviceFacts* facts) {
  FATHOM_CUDA(cudaRuntimeGetVersion(&facts->runtime_version));
  cudaDriverGetVersion(&facts->driver_version);
  if (facts->driver_version == 0) {
    return FailedPrecondition(
        "no NVIDIA driver was found (libcuda.so.1); install one for CUDA {} or later, or use "
        "--device cpu",
        Version(facts->runtime_version));
  }
  if (facts->driver_version / 1000 < facts->runtime_version / 1000) {
    return FailedPrecondition(
        "the NVIDIA driver is for CUDA {}, this build needs {}: update the driver (nvidia-smi "
        "shows it), or use --device cpu",
        Version(facts->driver_version), Version(facts->runtime_version));
  }
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<DeviceFacts> ProbeCudaDevice() {
  DeviceFacts facts;
  FATHOM_RETURN_IF_ERROR(CheckDriver(&facts));
  int count = 0;
  if (const cudaError_t error = cudaGetDeviceCount(&count); error != cudaSuccess || count == 0) {
    return FailedPrecondition(
        "the driver shows no GPU ({}); check nvidia-smi and CUDA_VISIBLE_DEVICES, or use --device "
        "cpu",
        error == cudaSuccess ? "0 devices" : cudaGetErrorString(error));
  }
  cudaDeviceProp properties = {};
  FATHOM_CUDA(cudaGetDeviceProperties(&properties, 0));
  facts.name = properties.name;
  facts.uuid = UuidOf(properties.uuid);
  facts.sm = properties.major * 10 + properties.minor;
  facts.sms = properties.multiProcessorCount;
  if (facts.sm < kComputeCapabilityMin) {
    return FailedPrecondition(
        "{} has compute capability {}.{}; this build's kernels need {}.{} or later: use --device "
        "cpu",
        facts.name, properties.major, properties.minor, kComputeCapabilityMin / 10,
        kComputeCapabilityMin % 10);
  }
  FATHOM_CUDA(cudaSetDevice(0));  // Creates the context of this process.
  size_t free = 0, total = 0;
  FATHOM_CUDA(cudaMemGetInfo(&free, &total));
  facts.capacity_bytes = static_cast<int64_t>(total);
  facts.taken_bytes = std::max<int64_t>(static_cast<int64_t>(total - free) - kOwnBytesMax, 0);
  return facts;
}

}  // namespace fathom::worker
