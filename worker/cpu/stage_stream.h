// worker/cpu/stage_stream.h: what the stages of a group on the CPU tell each other about a step.
// Downwards, from each stage to the next: which chunks are computed, then the hidden values of the
// rows of each forward pass. Back, from the last stage to the first: the samples and faults of the
// step. Every step has one message of each kind on each link, in the order of the steps. Each
// message begins with its step, so a rank whose steps are not those of its neighbour ends the
// epoch. Thread: the engine thread. Errors: ABORTED from a link; INTERNAL: a message that does not
// belong to the step.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "cluster/plan.h"
#include "common/status.h"
#include "common/types.h"
#include "worker/comm/epoch_comm.h"

namespace fathom::worker {

// What the last stage knows of a slot after a step.
struct SlotSample {
  SlotId slot;
  TokenId token = 0;  // The sample; without a meaning if there is a fault or no sample.
  RowFault fault = RowFault::kNone;
  bool operator==(const SlotSample&) const = default;
};

class StageStream {
 public:
  // `comm` outlives it. No step has more samples than there are `slots`.
  StageStream(EpochComm* comm, int32_t slots) : comm_(*comm), slots_(slots) {}

  // `computed`: for each chunk of the batch, whether its rows are computed.
  absl::Status SendChunks(StepId step, std::span<const uint8_t> computed);
  absl::Status ReceiveChunks(StepId step, std::span<uint8_t> computed);

  absl::Status SendRows(std::span<const float> hidden);
  absl::Status ReceiveRows(std::span<float> hidden);

  absl::Status SendSamples(StepId step, std::span<const SlotSample> samples);
  // The result is valid until the next call.
  absl::StatusOr<std::span<const SlotSample>> ReceiveSamples(StepId step);

  // The longest SendSamples of a group of so many slots.
  static int64_t SamplesBytes(int32_t slots);

 private:
  EpochComm& comm_;
  const int32_t slots_;
  std::vector<SlotSample> samples_;
};

}  // namespace fathom::worker
