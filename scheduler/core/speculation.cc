#include "scheduler/core/speculation.h"

#include <algorithm>
#include <bit>

namespace fathom::scheduler {
namespace {

// Drafts must be better by this factor to be taken up, and worse by it to be given up between two
// probes, so that noise changes no mode.
constexpr double kGainMargin = 1.03;

}  // namespace

size_t Speculation::BatchOf(int32_t rows) {
  const auto above = static_cast<uint32_t>(std::max(rows, 1) - 1);
  return std::min<size_t>(static_cast<size_t>(std::bit_width(above)), kBatches - 1);
}

int32_t Speculation::Grant(int32_t rows) const {
  if (draft_max_ == 0 || rows < 1) return 0;
  return batches_[BatchOf(rows)].drafts_now() ? draft_max_ : 0;
}

double Speculation::Gain(int32_t rows) const { return batches_[BatchOf(rows)].Gain(); }

void Speculation::Learn(const DecodeStep& step) {
  if (draft_max_ == 0 || step.rows < 1) return;
  Batch& batch = batches_[BatchOf(step.rows)];
  // Steps of the other mode were planned before the mode changed. In a mode with drafts a step may
  // have none because no block or row was left; such a step shows nothing.
  if (step.drafts != batch.drafts_now()) return;
  if (batch.steps_skipped < kSkippedSteps) {
    ++batch.steps_skipped;
    return;
  }
  (step.drafts ? batch.drafts : batch.plain).Add(step);
  if (--batch.steps_left == 0) return batch.Decide();
  // A text that repeats nothing any more is noticed before the next probe.
  const double gain = batch.Gain();
  if (!batch.probes && batch.uses_drafts && gain > 0 && gain * kGainMargin < 1 &&
      batch.drafts.steps >= static_cast<int32_t>(kWindow)) {
    batch.uses_drafts = false;
    batch.interval = kIntervalMin;
    batch.Begin(false, batch.interval);
  }
}

void Speculation::Batch::Begin(bool probe, int32_t steps) {
  probes = probe;
  steps_left = steps;
  steps_skipped = 0;
  if (probe) (drafts_now() ? drafts : plain).Clear();
}

void Speculation::Batch::Decide() {
  if (!probes) return Begin(true, kProbeSteps);
  const bool better = Gain() > (uses_drafts ? 1.0 : kGainMargin);
  interval = better == uses_drafts ? std::min(2 * interval, kIntervalMax) : kIntervalMin;
  uses_drafts = better;
  Begin(false, interval);
}

double Speculation::Batch::Gain() const {
  if (plain.steps == 0 || drafts.steps == 0) return 0;
  return plain.UsOfToken() / drafts.UsOfToken();
}

void Speculation::Window::Add(const DecodeStep& step) {
  const size_t at = static_cast<size_t>(steps++) % kWindow;
  us[at] = std::max<int64_t>(step.us, 1);
  tokens[at] = static_cast<double>(step.tokens) / step.rows;
}

double Speculation::Window::UsOfToken() const {
  const size_t count = std::min(static_cast<size_t>(steps), kWindow);
  std::array<int64_t, kWindow> sorted = us;
  std::nth_element(sorted.begin(), sorted.begin() + count / 2, sorted.begin() + count);
  double sum = 0;
  for (size_t i = 0; i < count; ++i) sum += tokens[i];
  return static_cast<double>(sorted[count / 2]) * static_cast<double>(count) / std::max(sum, 1e-9);
}

}  // namespace fathom::scheduler
