#include "worker/engine/step_trace.h"

#include <algorithm>
#include <utility>
#include <variant>

namespace fathom::worker {
namespace {

// How often Capture asks whether its client has gone away.
constexpr std::chrono::milliseconds kLookUp{100};

StepTrace TraceOf(const StepPlan& plan, const StepResult& result, const StepStream& stream) {
  StepTrace trace;
  trace.term = plan.term;
  trace.epoch = plan.epoch;
  trace.step = plan.step;
  trace.chunks = static_cast<int32_t>(plan.chunks.size());
  for (const Chunk& chunk : plan.chunks) {
    if (const auto* tokens = std::get_if<int32_t>(&chunk.work)) {
      ++trace.prompt_chunks;
      trace.prompt_tokens += *tokens;
    } else {
      ++trace.decode_rows;
    }
  }
  trace.graph = stream.graph;
  trace.wait_from_us = stream.read_at_us - stream.read_us;
  trace.read_at_us = stream.read_at_us;
  trace.submit_from_us = stream.submit_from_us;
  trace.submit_end_us = stream.submit_end_us;
  trace.device_from_us = stream.collected_at_us - result.timings.compute_us;
  trace.device_end_us = stream.collected_at_us;
  trace.ready_at_us = stream.ready_at_us;
  trace.written_at_us = stream.ready_at_us + stream.write_us;
  return trace;
}

}  // namespace

void StepRecorder::OnStep(const StepPlan& plan, const StepResult& result,
                          const StepStream& stream) {
  if (!on_.load(std::memory_order_relaxed)) return;
  const std::lock_guard lock(mutex_);
  if (steps_.size() >= wanted_) return;
  steps_.push_back(TraceOf(plan, result, stream));  // Capture has reserved the memory.
  if (steps_.size() < wanted_) return;
  on_.store(false, std::memory_order_relaxed);
  changed_.notify_all();
}

absl::StatusOr<std::vector<StepTrace>> StepRecorder::Capture(
    int32_t steps, std::chrono::milliseconds timeout, const std::function<bool()>& given_up) {
  if (steps < 1 || steps > kTraceStepsMax) {
    return Invalid("{} steps; a trace has 1 to {}", steps, kTraceStepsMax);
  }
  const auto deadline = std::chrono::steady_clock::now() + timeout;
  std::unique_lock lock(mutex_);
  if (wanted_ > 0) return Exhausted("another trace of this worker is under way; wait for its end");
  steps_.reserve(static_cast<size_t>(steps));
  wanted_ = static_cast<size_t>(steps);
  on_.store(true, std::memory_order_relaxed);
  while (steps_.size() < wanted_ && !closed_ && std::chrono::steady_clock::now() < deadline &&
         !given_up()) {
    changed_.wait_until(lock, std::min(deadline, std::chrono::steady_clock::now() + kLookUp));
  }
  on_.store(false, std::memory_order_relaxed);
  wanted_ = 0;
  if (closed_ && steps_.empty()) return Unavailable("the worker is ending");
  return std::exchange(steps_, {});
}

void StepRecorder::Close() {
  const std::lock_guard lock(mutex_);
  closed_ = true;
  changed_.notify_all();
}

}  // namespace fathom::worker
