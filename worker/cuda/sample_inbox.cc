#include "worker/cuda/sample_inbox.h"

#include "common/check.h"
#include "modeling/layout/cuda_step_buffers.h"
#include "modeling/layout/cuda_step_layout.h"
#include "worker/cuda/cuda_check.h"
#include "worker/engine/samples_needed.h"

namespace fathom::worker {

using kernels::cuda::SlotSample;
static_assert(sizeof(SlotSample) == kSlotSampleBytes);

SampleInbox::SampleInbox(const Parts& parts)
    : parts_(parts), places_(static_cast<size_t>(parts.bytes / parts.place_bytes)) {
  FATHOM_CHECK(std::ssize(places_) >= StepsAhead(parts.stages), "{} places", places_.size());
  FATHOM_CUDA(cudaStreamCreateWithFlags(&stream_, cudaStreamNonBlocking));
  for (Place& place : places_) {
    FATHOM_CUDA(cudaEventCreateWithFlags(&place.received, cudaEventDisableTiming));
    FATHOM_CUDA(cudaEventCreateWithFlags(&place.taken, cudaEventDisableTiming));
  }
}

SampleInbox::~SampleInbox() {
  for (const Place& place : places_) {
    cudaEventDestroy(place.received);
    cudaEventDestroy(place.taken);
  }
  cudaStreamDestroy(stream_);
}

void SampleInbox::Begin(DeviceComm* comm) {
  comm_ = comm;
  receives_early_ = comm->messages_ahead() < StepsAhead(parts_.stages);
  expected_.clear();
}

void SampleInbox::End() {
  FATHOM_CUDA(cudaStreamSynchronize(stream_));
  comm_ = nullptr;
  expected_.clear();
}

SlotSample* SampleInbox::At(uint64_t number) const {
  const auto place = static_cast<int64_t>(number % places_.size());
  return parts_.places + place * (parts_.place_bytes / int64_t{sizeof(SlotSample)});
}

absl::Status SampleInbox::Receive(cudaStream_t stream, uint64_t number, int32_t rows) {
  const int64_t bytes = rows * int64_t{sizeof(SlotSample)};
  FATHOM_CHECK(bytes <= parts_.place_bytes, "{} samples", rows);
  return comm_->Recv({stream, false}, parts_.stages - 1, At(number), bytes);
}

absl::Status SampleInbox::Take(const StepBatch& batch,
                               const kernels::cuda::LaunchContext& context) {
  const StepId end = SamplesNeeded(batch, parts_.stages);
  for (; !expected_.empty() && expected_.front().step < end; expected_.pop_front(), ++taken_) {
    const Message& message = expected_.front();
    const Place& place = places_[taken_ % places_.size()];
    if (receives_early_) {
      FATHOM_CUDA(cudaStreamWaitEvent(context.stream, place.received));
    } else {
      FATHOM_RETURN_IF_ERROR(Receive(context.stream, taken_, message.rows));
    }
    FATHOM_CUDA(
        kernels::cuda::TakeSamples(context, {.samples = At(taken_),
                                             .step = static_cast<uint32_t>(message.step.value),
                                             .since = parts_.slot_since,
                                             .slot_tokens = parts_.slot_tokens,
                                             .slot_faults = parts_.slot_faults,
                                             .count = message.rows,
                                             .slots_count = parts_.slots}));
    if (receives_early_) FATHOM_CUDA(cudaEventRecord(place.taken, context.stream));
  }
  return absl::OkStatus();
}

absl::Status SampleInbox::Expect(StepId step, int32_t rows) {
  if (rows == 0) return absl::OkStatus();
  const uint64_t number = taken_ + expected_.size();
  // The scheduler plans no more steps ahead, and Take has taken those of all earlier ones.
  FATHOM_CHECK(expected_.size() < places_.size(), "{} messages of samples", expected_.size());
  expected_.push_back({step, rows});
  if (!receives_early_) return absl::OkStatus();
  const Place& place = places_[number % places_.size()];
  FATHOM_CUDA(cudaStreamWaitEvent(stream_, place.taken));
  FATHOM_RETURN_IF_ERROR(Receive(stream_, number, rows));
  FATHOM_CUDA(cudaEventRecord(place.received, stream_));
  return absl::OkStatus();
}

}  // namespace fathom::worker
