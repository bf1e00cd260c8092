#include "worker/cpu/stage_stream.h"

#include <cstddef>
#include <iterator>
#include <type_traits>

#include "common/check.h"

namespace fathom::worker {
namespace {

struct Header {
  uint64_t step = 0;
  uint64_t count = 0;  // Chunks or samples.
};
static_assert(std::is_trivially_copyable_v<Header> && std::is_trivially_copyable_v<SlotSample>);

template <class T>
std::span<const std::byte> ObjectBytes(const T& value) {
  return std::as_bytes(std::span(&value, 1));
}

}  // namespace

absl::Status StageStream::SendChunks(StepId step, std::span<const uint8_t> computed) {
  FATHOM_RETURN_IF_ERROR(comm_.Send(ObjectBytes(Header{step.value, computed.size()})));
  return comm_.Send(std::as_bytes(computed));
}

absl::Status StageStream::ReceiveChunks(StepId step, std::span<uint8_t> computed) {
  Header header;
  FATHOM_RETURN_IF_ERROR(comm_.Receive(std::as_writable_bytes(std::span(&header, 1))));
  if (header.step != step.value || header.count != computed.size()) {
    return Internal("stage {} is at step {} of {} chunks; the stage before it sent step {} of {}",
                    comm_.stage(), step.value, computed.size(), header.step, header.count);
  }
  return comm_.Receive(std::as_writable_bytes(computed));
}

absl::Status StageStream::SendRows(std::span<const float> hidden) {
  return comm_.Send(std::as_bytes(hidden));
}

absl::Status StageStream::ReceiveRows(std::span<float> hidden) {
  return comm_.Receive(std::as_writable_bytes(hidden));
}

absl::Status StageStream::SendSamples(StepId step, std::span<const SlotSample> samples) {
  FATHOM_CHECK(std::ssize(samples) <= slots_, "{} samples, {} slots", samples.size(), slots_);
  FATHOM_RETURN_IF_ERROR(comm_.Send(ObjectBytes(Header{step.value, samples.size()})));
  return comm_.Send(std::as_bytes(samples));
}

absl::StatusOr<std::span<const SlotSample>> StageStream::ReceiveSamples(StepId step) {
  Header header;
  FATHOM_RETURN_IF_ERROR(comm_.Receive(std::as_writable_bytes(std::span(&header, 1))));
  if (header.step != step.value || header.count > static_cast<uint64_t>(slots_)) {
    return Internal("the samples of step {} were to come; the last stage sent {} of step {}",
                    step.value, header.count, header.step);
  }
  samples_.resize(header.count);
  FATHOM_RETURN_IF_ERROR(comm_.Receive(std::as_writable_bytes(std::span(samples_))));
  for (const SlotSample& sample : samples_) {
    if (sample.slot.value < 1 || sample.slot.value > slots_) {
      return Internal("a sample of slot {}; this group has slots 1 to {}", sample.slot.value,
                      slots_);
    }
  }
  return samples_;
}

int64_t StageStream::SamplesBytes(int32_t slots) {
  return static_cast<int64_t>(sizeof(Header)) + slots * static_cast<int64_t>(sizeof(SlotSample));
}

}  // namespace fathom::worker
