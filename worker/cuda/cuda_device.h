// worker/cuda/cuda_device.h: a rank on one GPU behind the engine's interface
// (worker/engine/device.h), several steps in flight. Submit writes a step's inputs to pinned memory
// and queues copies and launches; it never waits for the device. Collect waits for a step's event
// and reads its draws. A token that one step draws feeds the next on the device. Errors: a CUDA
// error ends the process with exit 70. Thread: as device.h says; between Submit and Collect go the
// step's buffers and nothing else, and the engine says when they are free.
#pragma once

#include <cuda_runtime_api.h>

#include <array>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "kernels/cuda/linear/cublas_lt.h"
#include "kernels/cuda/rows/block_ops.h"
#include "kernels/cuda/sampler/sampler.h"
#include "worker/cuda/cuda_backend.h"
#include "worker/cuda/cuda_decoder.h"
#include "worker/cuda/device_arenas.h"
#include "worker/cuda/device_weights.h"
#include "worker/cuda/graph_cache.h"
#include "worker/cuda/step_builder.h"
#include "worker/engine/device.h"

namespace fathom::worker {

// Steps that may be queued or await their result: one more than the scheduler plans ahead.
inline constexpr int kCudaStepsInFlight = 3;

// What a rank has loaded.
struct CudaRank {
  explicit CudaRank(const CudaBackendOptions& wanted);
  ~CudaRank();
  CudaRank(const CudaRank&) = delete;
  CudaRank& operator=(const CudaRank&) = delete;

  const CudaBackendOptions options;
  EpochComm comm;
  cudaStream_t stream = nullptr;
  std::unique_ptr<DeviceArenas> arenas;
  DeviceWeights weights;
  std::unique_ptr<kernels::cuda::CublasLt> cublas;
  std::unique_ptr<CudaDecoder> decoder;
  GraphCache graphs;
};

class CudaDevice final : public Device {
 public:
  // REQUIRES: everything of the rank is loaded.
  explicit CudaDevice(std::unique_ptr<CudaRank> rank);
  ~CudaDevice() override;

  int steps_in_flight() const override { return kCudaStepsInFlight; }
  EpochComm* comm() override { return &rank_->comm; }
  absl::Status Submit(const StepBatch& batch) override;
  StepOutputs Collect() override;
  std::string NonFiniteDetail(int32_t first, int32_t count) const override;
  void Drain() override;

 private:
  // A step's pinned memory and events. One more than steps in flight: the idle time before a step
  // is measured from the end event of the step before.
  struct StepBuffers {
    std::byte* input = nullptr;
    std::byte* admits = nullptr;  // What admits send to the device.
    kernels::cuda::SampleOut* outputs = nullptr;
    int32_t* diagnosis = nullptr;  // With --diagnose-numerics, [rows].
    cudaEvent_t begin = nullptr;
    cudaEvent_t end = nullptr;
    BuiltStep step;
  };
  StepBuffers& BuffersOf(uint64_t number) { return buffers_[number % buffers_.size()]; }

  // Queue a part of a step.
  void CopyBlocks(std::span<const BlockCopy> copies);
  void ZeroBlocks(std::span<const BlockId> blocks);
  absl::Status Admit(const AdmitWork& admit, const StepBuffers& buffers, int64_t* used);
  absl::Status BeginSlot(const AdmitWork& admit, const StepBuffers& buffers, int64_t* used);
  // `bytes` bytes at `data` to `device`, through the step's pinned memory from `used` on.
  absl::Status Stage(const void* data, int64_t bytes, void* device, const StepBuffers& buffers,
                     int64_t* used);
  void Compute(const StepBuffers& buffers);
  void AllocatePinned(StepBuffers* buffers) const;

  const std::unique_ptr<CudaRank> rank_;
  const int64_t admit_bytes_;  // Of StepBuffers::admits.
  StepBuilder builder_;
  const kernels::cuda::BlockOpsArgs block_ops_;
  const kernels::cuda::LaunchContext context_;
  std::array<StepBuffers, kCudaStepsInFlight + 1> buffers_;  // Step number k at k % size.
  uint64_t submitted_ = 0;  // Steps since the start; by the engine thread.
  // By the collecting thread.
  uint64_t collected_ = 0;
  bool measured_ = false;  // The step before is of the same epoch.
  std::vector<RowOutput> row_outputs_;
};

}  // namespace fathom::worker
