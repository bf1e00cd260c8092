#include "worker/comm/device_work.h"

#include <algorithm>

namespace fathom::worker {

void StepsOnDevice::Queue(StepId step, const CommCounts& counts) {
  const std::lock_guard lock(mutex_);
  steps_[queued_++ % kSteps] = {step, meetings_, counts};
  meetings_ += counts.meetings;
}

void StepsOnDevice::Clear() {
  const std::lock_guard lock(mutex_);
  queued_ = meetings_ = 0;
}

DeviceWork StepsOnDevice::WorkOf(const CommBegan& began, int32_t first_layer) const {
  const std::lock_guard lock(mutex_);
  DeviceWork now;
  now.work.activity = Activity::kOnDevice;
  if (queued_ == 0) return now;
  now.step = steps_[(queued_ - 1) % kSteps].step;
  if (began.kind == CommBegan::Kind::kMessage) now.work.activity = Activity::kStageMessage;
  if (began.kind != CommBegan::Kind::kReduce && began.kind != CommBegan::Kind::kGather) return now;
  // The device's number has 32 bits and is at most a few steps behind the host's.
  const auto behind = static_cast<int32_t>(static_cast<uint32_t>(meetings_) - began.meeting);
  now.collectives = meetings_ - static_cast<uint64_t>(static_cast<int64_t>(behind));
  const uint64_t oldest = queued_ > kSteps ? queued_ - kSteps : 0;
  for (uint64_t number = queued_; number-- > oldest;) {
    const Queued& queued = steps_[number % kSteps];
    const CommCounts& counts = queued.counts;
    if (now.collectives <= queued.before || now.collectives > queued.before + counts.meetings) {
      continue;
    }
    now.step = queued.step;
    const uint64_t meeting = now.collectives - queued.before - 1;  // In the step, from 0.
    const uint64_t of_reduces = counts.meetings - counts.gathers;
    if (meeting < of_reduces && counts.reduces > 0) {
      const uint64_t index = meeting / std::max<uint64_t>(1, of_reduces / counts.reduces);
      now.work = {index % 2 == 0 ? Activity::kAttention : Activity::kMlp,
                  first_layer + static_cast<int32_t>(index / 2), index + 1};
    } else {
      now.work = {Activity::kHead, -1, counts.reduces + meeting - of_reduces + 1};
    }
    return now;
  }
  return now;  // The device has begun a step that is still being queued.
}

}  // namespace fathom::worker
