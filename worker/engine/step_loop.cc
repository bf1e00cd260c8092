#include "worker/engine/step_loop.h"

#include <condition_variable>
#include <cstdint>
#include <mutex>
#include <thread>
#include <utility>
#include <vector>

#include "worker/engine/engine.h"

namespace fathom::worker {
namespace {

class StepLoop {
 public:
  StepLoop(const Epoch& epoch, const StepLoopParts& parts)
      : epoch_(epoch),
        parts_(parts),
        engine_(parts.device, epoch.seat()),
        steps_(static_cast<size_t>(parts.device->steps_in_flight())) {}

  absl::Status Run() {
    std::thread collector;
    if (pipelined()) {
      collector = std::thread([this] {
        while (WaitForSubmitted()) CollectAndWrite();
      });
    }
    const absl::Status ended = ReadAndSubmit();
    Change([this] { closed_ = true; });
    if (collector.joinable()) collector.join();
    parts_.device->Drain();
    parts_.progress->phase.store(Phase::kIdle);
    if (epoch_.aborted()) return epoch_.status();
    return written_.ok() ? ended : written_;
  }

 private:
  struct Step {
    StepPlan plan;
    SubmittedStep submitted;
    StepStream stream;
  };

  absl::Status ReadAndSubmit();
  void CollectAndWrite();

  Step& WaitForRoom() {
    std::unique_lock lock(mutex_);
    changed_.wait(lock, [this] { return begun_ - collected_ < steps_.size(); });
    parts_.progress->phase.store(Phase::kStepping);
    return StepAt(begun_++);
  }
  bool WaitForSubmitted() {
    std::unique_lock lock(mutex_);
    changed_.wait(lock, [this] { return closed_ || submitted_ > collected_; });
    return submitted_ > collected_;
  }
  template <class Work>
  void Change(Work work) {
    {
      const std::lock_guard lock(mutex_);
      work();
    }
    changed_.notify_one();  // At most one thread waits, since there is room or there are steps.
  }
  bool pipelined() const { return steps_.size() > 1; }
  Step& StepAt(uint64_t number) { return steps_[number % steps_.size()]; }

  const Epoch& epoch_;
  const StepLoopParts& parts_;
  Engine engine_;
  std::vector<Step> steps_;          // Step k of the epoch is at k % size while it is in flight.
  absl::Status written_;             // Set by the thread that collects; read after it has ended.
  std::atomic<bool> writing_{true};  // False: no more results are written.
  std::mutex mutex_;  // Guards the members below and the phase, which depends on them.
  std::condition_variable changed_;
  uint64_t begun_ = 0;
  uint64_t submitted_ = 0;
  uint64_t collected_ = 0;
  bool closed_ = false;  // No more steps are submitted.
};

absl::Status StepLoop::ReadAndSubmit() {
  const Clock& clock = *parts_.clock;
  while (!parts_.stop->load() && writing_.load()) {
    const TimeUs begin = clock.Now();
    FATHOM_ASSIGN_OR_RETURN(StepPlan plan, parts_.channel->Read());
    const TimeUs read_at = clock.Now();
    Step& step = WaitForRoom();
    step.plan = std::move(plan);
    step.stream = {
        .read_at_us = read_at, .submit_from_us = clock.Now(), .read_us = read_at - begin};
    parts_.progress->BeginStep(step.plan.step,
                               pipelined() ? Activity::kOnDevice : Activity::kPreparing);
    FATHOM_RETURN_IF_ERROR(engine_.Submit(step.plan, &step.submitted));
    step.stream.submit_end_us = clock.Now();
    Change([this] { ++submitted_; });
    if (!pipelined()) CollectAndWrite();
  }
  return absl::OkStatus();
}

void StepLoop::CollectAndWrite() {
  const Clock& clock = *parts_.clock;
  Step& step = StepAt(collected_);  // Only this thread changes collected_.
  StepStream& stream = step.stream;
  StepResult result = engine_.Collect(step.submitted, &stream);
  parts_.progress->word.fetch_add(1);
  // The device computed inside of Submit.
  if (!pipelined()) stream.submit_end_us = stream.collected_at_us - result.timings.compute_us;
  stream.ready_at_us = clock.Now();
  result.timings.read_to_write_us = stream.ready_at_us - stream.read_at_us;
  if (writing_.load()) {
    written_ = epoch_.aborted() ? epoch_.status() : parts_.channel->Write(result);
    writing_.store(written_.ok());
  }
  stream.write_us = clock.Now() - stream.ready_at_us;
  if (writing_.load() && parts_.observer) parts_.observer(step.plan, result, stream);
  Change([this] {
    if (++collected_ == begun_) parts_.progress->phase.store(Phase::kIdle);
  });
}

}  // namespace

absl::Status RunEpoch(const Epoch& epoch, const StepLoopParts& parts) {
  return StepLoop(epoch, parts).Run();
}

}  // namespace fathom::worker
