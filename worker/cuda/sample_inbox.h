// worker/cuda/sample_inbox.h: the samples of the last stage, as the first stage of a pipeline on
// GPUs takes them: one message for each step with samples, in the order of the steps, enqueued
// without waiting on the host.
//
// If a comm has room for the messages of all steps in flight, a message is received when it is
// taken. Otherwise (NCCL, where a send and its receive meet) it is received on a stream of its own
// into one of several places, as soon as its step is submitted: the last stage may have to send it
// while no later step is planned. Thread: the engine thread.
#pragma once

#include <cuda_runtime_api.h>

#include <cstdint>
#include <deque>
#include <vector>

#include "kernels/cuda/base/launch.h"
#include "kernels/cuda/sampler/slot_samples.h"
#include "worker/comm/device_comm.h"
#include "worker/engine/device.h"

namespace fathom::worker {

class SampleInbox {
 public:
  struct Parts {
    int32_t stages = 1;
    kernels::cuda::SlotSample* places = nullptr;  // [bytes / place_bytes], stages + 1 or more.
    int64_t bytes = 0;
    int64_t place_bytes = 0;
    const uint32_t* slot_since = nullptr;  // The step that admitted the slot's sequence.
    int32_t* slot_tokens = nullptr;
    int32_t* slot_faults = nullptr;
    int32_t slots = 0;  // With slot 0.
  };
  explicit SampleInbox(const Parts& parts);
  ~SampleInbox();
  SampleInbox(const SampleInbox&) = delete;
  SampleInbox& operator=(const SampleInbox&) = delete;

  // Begins an epoch. `comm` lives until End, which waits for what was enqueued; REQUIRES for End:
  // Abort of the comm.
  void Begin(DeviceComm* comm);
  void End();

  // Takes the samples that `batch` needs, into the state of the slots, before its embedding.
  absl::Status Take(const StepBatch& batch, const kernels::cuda::LaunchContext& context);
  // Step `step` was enqueued and has so many rows with samples, in the last stage too.
  absl::Status Expect(StepId step, int32_t rows);

 private:
  struct Message {
    StepId step;
    int32_t rows = 0;
  };
  // A place of a message and when it may be read, and written again.
  struct Place {
    cudaEvent_t received = nullptr;
    cudaEvent_t taken = nullptr;
  };

  absl::Status Receive(cudaStream_t stream, uint64_t number, int32_t rows);
  kernels::cuda::SlotSample* At(uint64_t number) const;

  const Parts parts_;
  DeviceComm* comm_ = nullptr;
  bool receives_early_ = false;
  cudaStream_t stream_ = nullptr;  // Of early receives.
  std::vector<Place> places_;
  std::deque<Message> expected_;  // Not taken yet, in the order of the steps.
  uint64_t taken_ = 0;            // The number of the first one of them.
};

}  // namespace fathom::worker
