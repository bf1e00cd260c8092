// worker/cuda/cuda_engine.h: one epoch's plans on a GPU, several in flight. The engine thread reads
// a plan, writes its inputs to pinned memory and queues copies and launches; it never waits for the
// device. The collector thread waits for each step's event in order, turns the device's draws into
// a result and writes it. A token that one step draws feeds the next on the device. Threads: Run is
// the engine thread and starts and joins the collector.
#pragma once

#include <cuda_runtime_api.h>

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "cluster/plan.h"
#include "common/clock.h"
#include "common/inbox.h"
#include "common/status.h"
#include "kernels/cuda/rows/block_ops.h"
#include "kernels/cuda/sampler/sampler.h"
#include "worker/cuda/cuda_decoder.h"
#include "worker/cuda/graph_cache.h"
#include "worker/cuda/step_builder.h"
#include "worker/engine/backend.h"
#include "worker/engine/epoch.h"
#include "worker/engine/slots.h"
#include "worker/progress.h"

namespace fathom::worker {

// Steps that may be queued or await their result (one more than the scheduler plans ahead), and the
// one before, whose events are still compared with.
inline constexpr int kCudaStepsInFlight = 4;

// A step's pinned memory and events; used again when its result was written.
struct StepBuffers {
  std::byte* input = nullptr;
  std::byte* seats = nullptr;  // What admits send to the device.
  kernels::cuda::SampleOut* outputs = nullptr;
  int32_t* diagnosis = nullptr;  // With --diagnose-numerics, [rows].
  cudaEvent_t begin = nullptr;
  cudaEvent_t end = nullptr;
};

// All of it outlives the engine.
struct CudaEngineParts {
  const RankModel* model = nullptr;
  const CudaMemoryPlan* plan = nullptr;
  const DeviceArenas* arenas = nullptr;
  CudaDecoder* decoder = nullptr;
  GraphCache* graphs = nullptr;
  std::vector<StepBuffers>* buffers = nullptr;  // kCudaStepsInFlight
  int64_t seats_bytes = 0;
  cudaStream_t stream = nullptr;
  const Clock* clock = nullptr;
  Progress* progress = nullptr;
  bool use_graphs = true;
  bool diagnose = false;
  std::string non_finite_hint;  // Of this model and type: the likely cause, and the way out.
};

class CudaEngine {
 public:
  CudaEngine(const CudaEngineParts& parts, const Seat& seat);

  // As Backend::RunEpoch.
  absl::Status Run(const Epoch& epoch, StepChannel& channel, const std::atomic<bool>& stop,
                   const StepObserver& observer);

 private:
  struct Pending {
    int buffer = 0;
    StepPlan plan;
    BuiltStep step;
    StepStream stream;
  };

  absl::Status Submit(Pending pending);
  absl::Status ApplyDeltas(const StepPlan& plan, const StepBuffers& buffers);
  absl::Status CopyBlocks(const StepPlan& plan);
  void ZeroBlocksOf(const Slot& slot);
  absl::Status UploadSeat(const Admit& admit, const StepBuffers& buffers, int64_t* used);
  absl::Status Stage(const void* data, int64_t bytes, void* device, const StepBuffers& buffers,
                     int64_t* used);
  void Collect(const Epoch& epoch, StepChannel& channel, const StepObserver& observer);
  StepResult ResultOf(const Pending& pending, const StepBuffers& buffers);
  void RowOf(const Pending& pending, const PlannedRow& planned, const StepBuffers& buffers,
             ResultRow* row);
  std::string DetailOf(const PlannedRow& planned, const StepBuffers& buffers, RowFault fault) const;
  void Entered();
  void Left();

  const CudaEngineParts parts_;
  const Seat seat_;
  Slots slots_;
  StepBuilder builder_;
  const kernels::cuda::BlockOpsArgs block_ops_;
  const kernels::cuda::LaunchContext context_;
  StepId next_step_{0};
  Inbox<int> free_;                         // Buffers that no step uses.
  Inbox<Pending> pending_;                  // Engine to collector.
  std::vector<std::atomic<bool>> faulted_;  // [slots + 1]: by the collector, read when released.
  std::mutex phase_mutex_;                  // Guards in_flight_ and the phase that follows from it.
  int in_flight_ = 0;
};

}  // namespace fathom::worker
