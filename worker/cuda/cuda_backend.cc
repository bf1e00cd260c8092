#include "worker/cuda/cuda_backend.h"

#include <cuda_runtime_api.h>

#include <utility>

#include "common/log.h"
#include "worker/cuda/cuda_check.h"
#include "worker/cuda/cuda_device.h"

namespace fathom::worker {
namespace {

absl::Status LoadWeights(CudaRank* rank) {
  const CudaBackendOptions& options = rank->options;
  LoadReport report;
  FATHOM_ASSIGN_OR_RETURN(rank->weights,
                          LoadDeviceWeights(options.model, *options.checkpoint, options.dtype,
                                            rank->arenas->Buffer<void>("weights"),
                                            rank->arenas->Bytes("weights"), &report));
  LogInfo("{} bytes of weights on the device in {} us", report.bytes, report.total_us);
  return absl::OkStatus();
}

void MakeDecoder(CudaRank* rank) {
  cudaDeviceProp properties = {};
  int device = 0;
  FATHOM_CUDA(cudaGetDevice(&device));
  FATHOM_CUDA(cudaGetDeviceProperties(&properties, device));
  std::string why;
  // Canonical algorithms need no workspace.
  rank->cublas = kernels::cuda::CublasLt::Create(nullptr, 0, &why);
  if (rank->cublas == nullptr) LogWarn("no cuBLASLt, our own products do everything: {}", why);
  CudaDecoderParts parts;
  parts.model = &rank->options.model;
  parts.plan = &rank->options.plan;
  parts.arenas = rank->arenas.get();
  parts.weights = &rank->weights;
  parts.cublas = rank->cublas.get();
  parts.sm = properties.major * 10 + properties.minor;
  parts.sms = properties.multiProcessorCount;
  parts.shared_bytes = static_cast<int>(properties.sharedMemPerBlockOptin);
  parts.diagnose = rank->options.diagnose;
  rank->decoder = std::make_unique<CudaDecoder>(parts);
}

template <class Work>
absl::Status LoadPhase(const CudaBackendOptions& options, const char* name, Work work) {
  const TimeUs begin = options.clock->Now();
  absl::Status status = work();
  if (options.phase) options.phase(name, options.clock->Now() - begin);
  return status;
}

}  // namespace

absl::StatusOr<std::unique_ptr<Device>> MakeCudaDevice(const CudaBackendOptions& options) {
  auto rank = std::make_unique<CudaRank>(options);
  FATHOM_RETURN_IF_ERROR(LoadPhase(options, "arenas", [&]() -> absl::Status {
    FATHOM_ASSIGN_OR_RETURN(rank->arenas, DeviceArenas::Allocate(options.plan));
    return absl::OkStatus();
  }));
  if (options.plan.swap_bytes > 0) {
    FATHOM_RETURN_IF_ERROR(LoadPhase(options, "swap space", [&]() -> absl::Status {
      FATHOM_ASSIGN_OR_RETURN(rank->swap_space,
                              PinnedMemory::Allocate(options.plan.swap_bytes, "--swap-space"));
      return absl::OkStatus();
    }));
  }
  FATHOM_RETURN_IF_ERROR(LoadPhase(options, "weights", [&] { return LoadWeights(rank.get()); }));
  std::unique_ptr<Device> device;
  FATHOM_RETURN_IF_ERROR(LoadPhase(options, "engine", [&] {
    MakeDecoder(rank.get());
    device = std::make_unique<CudaDevice>(std::move(rank));
    return absl::OkStatus();
  }));
  return device;
}

}  // namespace fathom::worker
