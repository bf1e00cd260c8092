#include "worker/worker_metrics.h"

#include <algorithm>

#include <variant>

namespace fathom::worker {

WorkerMetrics::WorkerMetrics(Metrics* metrics)
    : steps_(metrics->AddCounter("steps_total", "Steps done")),
      rows_(
          metrics->AddCounter("step_rows_total", "Chunks in steps done: sequences that took part")),
      prompt_tokens_(
          metrics->AddCounter("prompt_tokens_total", "Tokens computed in prompt chunks")),
      generation_tokens_(
          metrics->AddCounter("generation_tokens_total", "Tokens computed in decode rows")),
      faults_(metrics->AddCounter(
          "row_faults_total", "Rows without a result for a fault of their own (answering rank)")),
      draft_rows_(
          metrics->AddCounter("draft_rows_total", "Decode rows with drafts (answering rank)")),
      draft_tokens_(
          metrics->AddCounter("draft_tokens_total", "Drafts that were checked (answering rank)")),
      accepted_draft_tokens_(metrics->AddCounter("accepted_draft_tokens_total",
                                                 "Drafts that were kept (answering rank)")),
      collectives_(metrics->AddCounter("collectives_total", "Collectives done")),
      collective_seconds_(metrics->AddCounter("collective_seconds_total", "Time in collectives")),
      read_seconds_(
          metrics->AddCounter("plan_read_seconds_total", "Waiting for plans and reading them")),
      write_seconds_(metrics->AddCounter("result_write_seconds_total", "Writing results")),
      device_busy_seconds_(metrics->AddCounter("device_busy_seconds_total",
                                               "Computing steps, by the device's own events")),
      device_idle_seconds_(metrics->AddCounter(
          "device_idle_seconds_total", "Between one step's end and the next one's begin there")),
      step_seconds_(metrics->AddHistogram("step_seconds", "Plan read to result ready",
                                          LatencyBucketsSeconds())),
      compute_seconds_(metrics->AddHistogram(
          "step_compute_seconds", "Forward pass and sampler of a step", LatencyBucketsSeconds())),
      step_median_(metrics->AddGauge("step_median_seconds",
                                     "Median of the last whole 128 steps, plan read to result")),
      metrics_(metrics),
      step_(metrics->AddGauge("step", "The step in work, or the last one")),
      layer_(metrics->AddGauge("step_layer",
                               "The model's layer in work, from 0; -1: in none, or unknown")),
      step_collectives_(
          metrics->AddGauge("step_collectives", "Collectives begun in the step in work")),
      group_(metrics->AddGauge("group", "The group whose steps this worker runs; -1: none")),
      rank_(metrics->AddGauge("rank", "Its rank in that group; -1: none")),
      epoch_(metrics->AddGauge("epoch", "Life of the group that this worker last took a step in")),
      registered_(metrics->AddGauge("schedulers_registered", "Schedulers that know this worker")),
      weights_bytes_(metrics->AddGauge("weights_bytes", "Packed weights in memory")),
      kv_cache_bytes_(metrics->AddGauge("kv_cache_bytes", "Size of the KV block pool")),
      graphs_bytes_(metrics->AddGauge(
          "graphs_bytes", "Device memory of captured CUDA graphs, of the arena \"graphs\"")) {}

void WorkerMetrics::OnStep(const StepPlan& plan, const StepResult& result,
                           const StepStream& stream) {
  read_seconds_.Add(static_cast<double>(stream.read_us) * 1e-6);
  write_seconds_.Add(static_cast<double>(stream.write_us) * 1e-6);
  device_busy_seconds_.Add(static_cast<double>(stream.device_us) * 1e-6);
  device_idle_seconds_.Add(static_cast<double>(stream.device_idle_us) * 1e-6);
  steps_.Add();
  rows_.Add(static_cast<double>(plan.chunks.size()));
  for (const Chunk& chunk : plan.chunks) {
    if (const auto* count = std::get_if<int32_t>(&chunk.work)) {
      prompt_tokens_.Add(*count);
    } else {
      generation_tokens_.Add();
    }
  }
  for (const ResultRow& row : result.rows) {
    if (row.fault != RowFault::kNone) faults_.Add();
    if (row.drafted == 0) continue;
    draft_rows_.Add();
    draft_tokens_.Add(row.drafted);
    accepted_draft_tokens_.Add(static_cast<double>(row.ids.size()) - 1);
  }
  if (plan.epoch.value != epoch_seen_ || result.collectives < collectives_seen_)
    collectives_seen_ = 0;
  epoch_seen_ = plan.epoch.value;
  collectives_.Add(static_cast<double>(result.collectives - collectives_seen_));
  collectives_seen_ = result.collectives;
  collective_seconds_.Add(static_cast<double>(result.timings.collective_us) * 1e-6);
  step_seconds_.Observe(static_cast<double>(result.timings.read_to_write_us) * 1e-6);
  compute_seconds_.Observe(static_cast<double>(result.timings.compute_us) * 1e-6);
  epoch_.Set(static_cast<double>(plan.epoch.value));
  AddToMedian(result.timings.read_to_write_us);
}

void WorkerMetrics::AddToMedian(int64_t step_us) {
  window_us_[window_next_++] = step_us;
  if (window_next_ < kWindow) return;
  window_next_ = 0;
  std::nth_element(window_us_.begin(), window_us_.begin() + kWindow / 2, window_us_.end());
  step_median_.Set(static_cast<double>(window_us_[kWindow / 2]) * 1e-6);
}

void WorkerMetrics::SetWork(const Progress& progress) {
  const bool stepping = progress.phase.load() == Phase::kStepping;
  const DeviceWork now = progress.Now();
  group_.Set(progress.group.load());
  rank_.Set(progress.rank.load());
  step_.Set(static_cast<double>(now.step.value));
  layer_.Set(stepping ? now.work.layer : -1);
  step_collectives_.Set(stepping ? static_cast<double>(now.work.step_collectives) : 0);
}

void WorkerMetrics::SetMemory(int64_t weights_bytes, int64_t kv_cache_bytes) {
  weights_bytes_.Set(static_cast<double>(weights_bytes));
  kv_cache_bytes_.Set(static_cast<double>(kv_cache_bytes));
}

void WorkerMetrics::SetArena(const std::string& name, int64_t bytes, bool on_gpu) {
  const auto set = [&](const char* metric, const char* help) {
    metrics_->AddGauge(metric, help, {{"arena", name}}).Set(static_cast<double>(bytes));
  };
  set("memory_bytes", "Memory of this rank, by part");
  if (on_gpu) set("gpu_memory_usage_bytes", "Memory of the GPU, by part; \"other\": not ours");
}

}  // namespace fathom::worker
