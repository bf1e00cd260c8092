// worker/cuda/cuda_device.h: a GPU as a device of the engine (worker/engine/device.h), with several
// steps in flight. Submit writes the inputs of a step to pinned memory and queues copies and
// launches. It waits for the GPU only if a row is guided: for the step before the row's, whose
// token decides the mask. Collect waits for the event of a step and reads its
// outputs. A token that a step samples is the input of the next step on the GPU, without the host.
// The messages between stages are in the stream, too, and in the graphs of decode steps; of those,
// only what the first stage takes before a step is queued one by one.
// Errors: a CUDA error ends the process with exit 70. Thread: as in worker/engine/device.h. Submit
// and Collect share only the buffers of a step; the engine sees to it that Submit does not use them
// before Collect has returned.
#pragma once

#include <cuda_runtime_api.h>

#include <cstddef>
#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "kernels/cuda/linear/cublas_lt.h"
#include "kernels/cuda/rows/block_ops.h"
#include "kernels/cuda/sampler/sampler.h"
#include "worker/comm/device_work.h"
#include "worker/cuda/connect_ranks.h"
#include "worker/cuda/cuda_backend.h"
#include "worker/cuda/cuda_decoder.h"
#include "worker/cuda/device_arenas.h"
#include "worker/cuda/device_weights.h"
#include "worker/cuda/graph_cache.h"
#include "worker/cuda/pinned_memory.h"
#include "worker/cuda/sample_inbox.h"
#include "worker/cuda/step_builder.h"
#include "worker/engine/device.h"
#include "worker/progress.h"

namespace fathom::worker {

// What a rank has loaded. MakeCudaDevice (worker/cuda/cuda_backend.h) sets the members in their
// order.
struct CudaRank {
  explicit CudaRank(const CudaBackendOptions& wanted);
  ~CudaRank();
  CudaRank(const CudaRank&) = delete;
  CudaRank& operator=(const CudaRank&) = delete;

  const CudaBackendOptions options;
  EpochComm comm;
  cudaStream_t stream = nullptr;
  std::unique_ptr<DeviceArenas> arenas;
  std::unique_ptr<PinnedMemory> swap_space;  // Null: none.
  DeviceWeights weights;
  std::unique_ptr<kernels::cuda::CublasLt> cublas;
  std::unique_ptr<CudaDecoder> decoder;
  GraphCache graphs;
};

class CudaDevice final : public Device, private DeviceProbe {
 public:
  // REQUIRES: all members of `rank` are set.
  explicit CudaDevice(std::unique_ptr<CudaRank> rank);
  ~CudaDevice() override;

  // One step more than the scheduler plans ahead, so that Submit never waits for a result.
  Proposer* proposer() override { return rank_->options.proposer; }
  const GrammarEngine* grammars() const override { return rank_->options.grammars; }
  // The sampler draws all rows of a step at once, each with what its slot had seen before the step.
  bool drafts_penalized() const override { return false; }
  int steps_in_flight() const override { return static_cast<int>(buffers_.size()) - 1; }
  EpochComm* comm() override { return &rank_->comm; }
  bool connects_itself() const override { return place().tp > 1 || place().stages > 1; }
  absl::Status Join(GroupLink& group) override;
  void Leave() override;
  absl::Status Submit(const StepBatch& batch) override;
  StepOutputs Collect() override;
  std::string NonFiniteDetail(int32_t first, int32_t count) const override;
  void Drain() override;

 private:
  // The pinned memory and the events of a step. There is one set more than steps in flight, because
  // the idle time before a step is measured from the end event of the previous step.
  struct StepBuffers {
    std::byte* input = nullptr;
    std::byte* admits = nullptr;  // What admits copy to the device.
    uint32_t* masks = nullptr;    // Of the guided rows, in their order.
    kernels::cuda::SampleOut* outputs = nullptr;
    int32_t* diagnosis = nullptr;  // With --diagnose-numerics, [rows].
    cudaEvent_t begin = nullptr;
    cudaEvent_t end = nullptr;
    cudaEvent_t swap_begin = nullptr;  // Recorded only if the step swaps.
    cudaEvent_t swap_end = nullptr;
    bool swaps = false;
    BuiltStep step;
  };
  StepBuffers& BuffersOf(uint64_t number) { return buffers_[number % buffers_.size()]; }

  absl::Status CheckAlike(GroupLink& group) const;
  // Any thread, while the rank is in a group.
  DeviceWork Read() const override;
  CommCounts EnqueuedCollectives() const;  // Of the layers.
  // Notes the collectives of a queued step; `before`: those before it.
  void NoteCollectives(StepId id, const BuiltStep& step, const CommCounts& before);

  // Each queues a part of a step.
  void CopyBlocks(std::span<const BlockCopy> copies, StepBuffers* buffers);
  void ZeroBlocks(std::span<const BlockId> blocks);
  absl::Status Admit(StepId step, const AdmitWork& admit, const StepBuffers& buffers,
                     int64_t* used);
  // The parameters of the sampler.
  absl::Status BeginSlot(const AdmitWork& admit, const StepBuffers& buffers, int64_t* used);
  // Copies `bytes` bytes at `data` to `device`, through the pinned memory of the step from `used`
  // on.
  absl::Status Stage(const void* data, int64_t bytes, void* device, const StepBuffers& buffers,
                     int64_t* used);
  absl::Status Compute(const StepBatch& batch, const StepBuffers& buffers);
  void CopyMasks(const StepBatch& batch, const StepBuffers& buffers);
  void AllocatePinned(StepBuffers* buffers) const;

  const RankPlace& place() const { return rank_->options.model.place; }

  const std::unique_ptr<CudaRank> rank_;
  RankComms comms_;  // Of the epoch; none with one rank.
  StepsOnDevice on_device_;
  // The collectives of a step of each shape that may have a graph; a replayed graph enqueues none.
  std::map<CudaStepShape, CommCounts> collectives_;
  std::unique_ptr<SampleInbox> inbox_;  // In the first of several stages.
  const int64_t admit_bytes_;           // Size of StepBuffers::admits.
  StepBuilder builder_;
  const kernels::cuda::BlockOpsArgs block_ops_;
  const kernels::cuda::LaunchContext context_;
  std::vector<StepBuffers> buffers_;  // Step k is at k % size.
  uint64_t submitted_ = 0;            // Steps since the start of the process. Engine thread.
  // The thread that collects:
  uint64_t collected_ = 0;
  bool measured_ = false;  // Whether the previous step was of the same epoch.
  int64_t waited_us_ = 0;  // Of the epoch's comms, at the previous step.
  std::vector<RowOutput> row_outputs_;
};

}  // namespace fathom::worker
