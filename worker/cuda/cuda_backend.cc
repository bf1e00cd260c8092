#include "worker/cuda/cuda_backend.h"

#include <cuda_runtime_api.h>

#include <vector>

#include "common/log.h"
#include "kernels/cuda/linear/cublas_lt.h"
#include "modeling/layout/cuda_step_layout.h"
#include "worker/cuda/cuda_check.h"
#include "worker/cuda/cuda_decoder.h"
#include "worker/cuda/cuda_engine.h"
#include "worker/cuda/device_arenas.h"
#include "worker/cuda/device_weights.h"
#include "worker/cuda/graph_cache.h"

namespace fathom::worker {
namespace {

// Bytes that the admits of one plan may send to the device: every slot's parameters, and the ids of
// a plan (kAdmitIdsMax), which only penalties need there.
int64_t SeatsBytes(const DeviceArenas& arenas, const EngineLimits& limits) {
  constexpr int64_t kPadding = 16 * 5;
  return (int64_t{limits.slots} + 1) * (int64_t{sizeof(kernels::cuda::SamplerSlot)} + kPadding) +
         arenas.Bytes("bias_ids") + arenas.Bytes("bias_values") + arenas.Bytes("end_ids") +
         int64_t{kAdmitIdsMax} * int64_t{sizeof(int32_t)};
}

class CudaBackend final : public Backend {
 public:
  explicit CudaBackend(const CudaBackendOptions& options)
      : options_(options),
        comm_(options.model.place.tp_rank, options.model.place.tp, options.clock, options.progress),
        graphs_(options.plan.Bytes("graphs"), options.graphs_grew) {}

  ~CudaBackend() override {
    for (StepBuffers& buffers : buffers_) {
      for (void* pinned :
           {static_cast<void*>(buffers.input), static_cast<void*>(buffers.seats),
            static_cast<void*>(buffers.outputs), static_cast<void*>(buffers.diagnosis)}) {
        cudaFreeHost(pinned);
      }
      cudaEventDestroy(buffers.begin);
      cudaEventDestroy(buffers.end);
    }
    if (stream_ != nullptr) cudaStreamDestroy(stream_);
  }

  absl::Status Load() {
    FATHOM_CUDA(cudaStreamCreateWithFlags(&stream_, cudaStreamNonBlocking));
    FATHOM_RETURN_IF_ERROR(Phase("arenas", [&]() -> absl::Status {
      FATHOM_ASSIGN_OR_RETURN(arenas_, DeviceArenas::Allocate(options_.plan));
      return absl::OkStatus();
    }));
    FATHOM_RETURN_IF_ERROR(Phase("weights", [&]() -> absl::Status {
      LoadReport report;
      FATHOM_ASSIGN_OR_RETURN(
          weights_,
          LoadDeviceWeights(options_.model, *options_.checkpoint, options_.dtype,
                            arenas_->Buffer<void>("weights"), arenas_->Bytes("weights"), &report));
      LogInfo("{} bytes of weights on the device in {} us", report.bytes, report.total_us);
      return absl::OkStatus();
    }));
    return Phase("engine", [&] { return Prepare(); });
  }

  EpochComm* comm() override { return &comm_; }

  absl::Status RunEpoch(const Epoch& epoch, StepChannel& channel, const std::atomic<bool>& stop,
                        const StepObserver& observer) override {
    CudaEngineParts parts;
    parts.model = &options_.model;
    parts.plan = &options_.plan;
    parts.arenas = arenas_.get();
    parts.decoder = decoder_.get();
    parts.graphs = &graphs_;
    parts.buffers = &buffers_;
    parts.seats_bytes = seats_bytes_;
    parts.stream = stream_;
    parts.clock = options_.clock;
    parts.progress = options_.progress;
    parts.use_graphs = options_.use_graphs;
    parts.diagnose = options_.diagnose;
    parts.non_finite_hint = NonFiniteHint();
    CudaEngine engine(parts, epoch.seat());
    absl::Status ended = engine.Run(epoch, channel, stop, observer);
    LogInfo("{} graphs of {} bytes", graphs_.graphs(), graphs_.bytes());
    return ended;
  }

 private:
  template <class Work>
  absl::Status Phase(const char* name, Work work) {
    const TimeUs begin = options_.clock->Now();
    absl::Status status = work();
    if (options_.phase) options_.phase(name, options_.clock->Now() - begin);
    return status;
  }

  std::string NonFiniteHint() const {
    if (options_.dtype != kernels::DType::kF16 ||
        options_.checkpoint->stored_type() == StoredType::kF16) {
      return {};
    }
    return fmt::format(
        "The checkpoint is {} and this worker computes in half, whose largest value is 65504: an "
        "overflow is likely; use --dtype bfloat16. ",
        StoredTypeName(options_.checkpoint->stored_type()));
  }

  absl::Status Prepare() {
    cudaDeviceProp properties = {};
    int device = 0;
    FATHOM_CUDA(cudaGetDevice(&device));
    FATHOM_CUDA(cudaGetDeviceProperties(&properties, device));
    std::string why;
    // Canonical algorithms need no workspace.
    cublas_ = kernels::cuda::CublasLt::Create(nullptr, 0, &why);
    if (cublas_ == nullptr) LogWarn("no cuBLASLt, our own products do everything: {}", why);
    CudaDecoderParts parts;
    parts.model = &options_.model;
    parts.plan = &options_.plan;
    parts.arenas = arenas_.get();
    parts.weights = &weights_;
    parts.cublas = cublas_.get();
    parts.sm = properties.major * 10 + properties.minor;
    parts.sms = properties.multiProcessorCount;
    parts.shared_bytes = static_cast<int>(properties.sharedMemPerBlockOptin);
    parts.diagnose = options_.diagnose;
    decoder_ = std::make_unique<CudaDecoder>(parts);
    AllocatePinned();
    return absl::OkStatus();
  }

  void AllocatePinned() {
    const EngineLimits& limits = options_.plan.limits;
    seats_bytes_ = SeatsBytes(*arenas_, limits);
    const auto input_bytes = static_cast<size_t>(arenas_->Bytes("step_inputs"));
    const auto output_bytes = static_cast<size_t>(arenas_->Bytes("step_outputs"));
    const auto rows = static_cast<size_t>(limits.step_tokens);
    buffers_.resize(kCudaStepsInFlight);
    for (StepBuffers& buffers : buffers_) {
      FATHOM_CUDA(cudaMallocHost(reinterpret_cast<void**>(&buffers.input), input_bytes));
      FATHOM_CUDA(cudaMallocHost(reinterpret_cast<void**>(&buffers.seats),
                                 static_cast<size_t>(seats_bytes_)));
      FATHOM_CUDA(cudaMallocHost(reinterpret_cast<void**>(&buffers.outputs), output_bytes));
      if (options_.diagnose) {
        FATHOM_CUDA(
            cudaMallocHost(reinterpret_cast<void**>(&buffers.diagnosis), rows * sizeof(int32_t)));
      }
      FATHOM_CUDA(cudaEventCreate(&buffers.begin));
      FATHOM_CUDA(cudaEventCreate(&buffers.end));
    }
  }

  const CudaBackendOptions options_;
  EpochComm comm_;
  cudaStream_t stream_ = nullptr;
  std::unique_ptr<DeviceArenas> arenas_;
  DeviceWeights weights_;
  std::unique_ptr<kernels::cuda::CublasLt> cublas_;
  std::unique_ptr<CudaDecoder> decoder_;
  GraphCache graphs_;
  std::vector<StepBuffers> buffers_;
  int64_t seats_bytes_ = 0;
};

}  // namespace

absl::StatusOr<std::unique_ptr<Backend>> MakeCudaBackend(const CudaBackendOptions& options) {
  auto backend = std::make_unique<CudaBackend>(options);
  FATHOM_RETURN_IF_ERROR(backend->Load());
  return backend;
}

}  // namespace fathom::worker
