#include "scheduler/driver_metrics.h"

namespace fathom::scheduler {

DriverMetrics::DriverMetrics(Metrics* metrics) {
  const auto gauge = [&](const char* name, const char* help) {
    return metrics->AddGauge(name, help);
  };
  const auto total = [&](const char* name, const char* help) {
    return Total{metrics->AddCounter(name, help)};
  };
  blocks_used_ = gauge("blocks_used", "KV blocks held by sessions.");
  blocks_total_ = gauge("blocks_total", "KV blocks of the groups that take work.");
  requests_running_ = gauge("requests_running", "Sequences in a slot.");
  requests_waiting_ = gauge("requests_waiting", "Requests waiting for a slot or blocks.");
  sessions_ = gauge("sessions", "Session records held.");
  session_bytes_ = gauge("session_bytes", "Memory of the session records.");
  groups_ = gauge("groups", "Groups that take work.");
  workers_ = gauge("workers", "Workers connected.");
  rank_still_ =
      gauge("rank_still_seconds", "The longest time without progress of a rank inside a step.");
  routers_ = gauge("routers", "Routers connected.");
  term_ = gauge("term", "The term this scheduler leads.");
  steps_ = total("steps_total", "Steps done.");
  step_rows_ = total("step_rows_total", "Rows of the steps done.");
  prompt_tokens_ = total("prompt_tokens_total", "Prompt tokens computed.");
  generation_tokens_ = total("generation_tokens_total", "Tokens generated and accepted.");
  suspensions_ = total("suspensions_total", "Sessions suspended, for any cause.");
  preemptions_ = total("preemptions_total", "Sessions suspended for want of blocks.");
  dropped_ =
      total("tokens_dropped_total", "Tokens below a record's length, after a Close, or void.");
  kind_changes_ =
      total("kind_changes_total",
            "Answers that went on with another device kind or tensor parallelism of their model.");
  model_changes_ = total("model_changes_total",
                         "Answers that ended with MODEL_CHANGED: only other models were served.");
  finished_ = total("requests_finished_total", "Sequences that ended.");
  failed_ = total("requests_failed_total", "Sequences that failed.");
  refused_ = total("requests_refused_total", "Submits refused.");
  groups_formed_ = total("groups_formed_total", "Groups formed: one epoch each.");
  groups_lost_ = total("groups_lost_total", "Groups lost.");
  stale_ = total("stale_epoch_rejected_total", "Messages of another term, epoch or rank.");
  overflows_ = total("outbox_overflows_total", "Streams closed because their peer did not read.");
  unreadable_ = total("unreadable_messages_total", "Messages that could not be read.");
  recorded_ = total("events_recorded_total", "Events recorded by --record-events.");
  unrecorded_ = total("events_unrecorded_total",
                      "Events that a recording lacks, since its file could not be written.");
  rows_ = metrics->AddHistogram("step_rows", "Rows of a step.",
                                {1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024, 4096});
  step_seconds_ = metrics->AddHistogram("step_seconds", "From a plan's sending to its result.",
                                        LatencyBucketsSeconds());
}

void DriverMetrics::Total::Follow(uint64_t total) {
  if (total > shown) counter.Add(static_cast<double>(total - shown));
  shown = total;
}

void DriverMetrics::ObserveStep(size_t rows, int64_t step_us) {
  rows_.Observe(static_cast<double>(rows));
  step_seconds_.Observe(static_cast<double>(step_us) * 1e-6);
}

void DriverMetrics::UpdateRecording(uint64_t recorded, uint64_t unrecorded) {
  recorded_.Follow(recorded);
  unrecorded_.Follow(unrecorded);
}

void DriverMetrics::Update(const CoreStats& core, const WorkerGroupStats& groups,
                           const TransportStats& transport, TermId term, size_t routers) {
  blocks_used_.Set(core.blocks_used);
  blocks_total_.Set(core.blocks_total);
  requests_running_.Set(core.requests_running);
  requests_waiting_.Set(core.requests_waiting);
  sessions_.Set(core.sessions);
  session_bytes_.Set(static_cast<double>(core.session_bytes));
  groups_.Set(core.groups);
  workers_.Set(groups.workers);
  rank_still_.Set(static_cast<double>(groups.longest_still_us) * 1e-6);
  routers_.Set(static_cast<double>(routers));
  term_.Set(static_cast<double>(term.value));
  steps_.Follow(core.steps_total);
  step_rows_.Follow(core.step_rows_total);
  prompt_tokens_.Follow(core.prompt_tokens_total);
  generation_tokens_.Follow(core.generation_tokens_total);
  suspensions_.Follow(core.suspensions_total);
  preemptions_.Follow(core.preemptions_total);
  dropped_.Follow(core.tokens_dropped_total);
  kind_changes_.Follow(core.kind_changes_total);
  model_changes_.Follow(core.model_changes_total);
  finished_.Follow(core.finished_total);
  failed_.Follow(core.failed_total);
  refused_.Follow(core.refused_total);
  groups_formed_.Follow(groups.groups_formed_total);
  groups_lost_.Follow(groups.groups_lost_total);
  stale_.Follow(groups.stale_epoch_rejected_total);
  overflows_.Follow(transport.outbox_overflows_total);
  unreadable_.Follow(transport.unreadable_messages_total);
}

}  // namespace fathom::scheduler
