#include "scheduler/driver_metrics.h"

#include <string>
#include <variant>

namespace fathom::scheduler {

DriverMetrics::DriverMetrics(Metrics* metrics) {
  const auto gauge = [&](const char* name, const char* help) {
    return metrics->AddGauge(name, help);
  };
  const auto total = [&](const char* name, const char* help) {
    return Total{metrics->AddCounter(name, help)};
  };
  blocks_used_ = gauge("blocks_used", "KV blocks held by sessions.");
  blocks_ = gauge("blocks", "KV blocks of the groups that take work.");
  metrics->AddAlias("fathom_scheduler_blocks_total", "Old name of fathom_scheduler_blocks.", {},
                    blocks_);
  kv_usage_ = gauge("kv_cache_usage_ratio", "Used KV blocks of all, 0 to 1.");
  leads_ = gauge("leads", "1: this scheduler leads.");
  leads_.Set(1);
  failovers_ = total("failovers_total", "Sequences whose group was lost while they ran in it.");
  replayed_ = total("replayed_tokens_total", "Tokens computed again, after a loss or preemption.");
  AddPrefixCache(metrics);
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
  poisoned_ = total("requests_poisoned_total",
                    "Sequences that failed because workers died each time they computed them.");
  draft_rows_ = total("draft_rows_total", "Decode rows with drafts.");
  drafted_ = total("draft_tokens_total", "Drafts checked by speculative decoding.");
  accepted_drafts_ = total("accepted_draft_tokens_total", "Drafts that were kept.");
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
  batch_size_ = metrics->AddHistogram("batch_size", "Sequences of a step.",
                                      {1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024, 4096});
  batch_tokens_ = metrics->AddHistogram(
      "batch_tokens", "Tokens of a step.",
      std::vector<double>(StepTokens::kBounds.begin(), StepTokens::kBounds.end()));
  step_seconds_ = metrics->AddHistogram("step_seconds", "From a plan's sending to its result.",
                                        LatencyBucketsSeconds());
  AddLimitMetrics(metrics);
  AddSwap(metrics);
  AddRankFamilies(metrics);
}

void DriverMetrics::AddPrefixCache(Metrics* metrics) {
  const auto total = [&](const char* name, const char* help) {
    return Total{metrics->AddCounter(name, help)};
  };
  blocks_cached_ =
      metrics->AddGauge("blocks_cached", "Free KV blocks that the prefix cache can find.");
  prefix_queries_ =
      total("prefix_cache_queries_tokens_total", "Prompt tokens looked up in the cache.");
  prefix_hits_ = total("prefix_cache_hit_tokens_total", "Prompt tokens found in the cache.");
  prefix_evictions_ = total("prefix_cache_evicted_blocks_total",
                            "Cached KV blocks that were given to other sequences.");
}

void DriverMetrics::AddLimitMetrics(Metrics* metrics) {
  for (size_t i = 0; i < kWaitLimits; ++i) {
    waiting_by_reason_[i] =
        metrics->AddGauge("requests_waiting_by_reason", "Requests waiting, by what they wait for.",
                          {{"reason", WaitLimitName(static_cast<WaitLimit>(i))}});
  }
  for (size_t i = 0; i < kRefusedBy; ++i) {
    refused_by_[i] = {metrics->AddCounter("requests_refused_by_limit_total",
                                          "Submits refused, by the limit that refused them.",
                                          {{"limit", RefusedByName(static_cast<RefusedBy>(i))}})};
  }
  const auto retries = [&](const char* outcome) {
    return Total{metrics->AddCounter(
        "retries_total", "Refused requests that came back after their delay, by what they got.",
        {{"outcome", outcome}})};
  };
  retries_kept_ = retries("admitted");
  retries_broken_ = retries("refused");
  overtakes_ = {metrics->AddCounter("overtakes_total",
                                    "Admissions before a sequence that waits for blocks.")};
}

void DriverMetrics::AddSwap(Metrics* metrics) {
  const auto total = [&](const char* name, const char* help) {
    return Total{metrics->AddCounter(name, help)};
  };
  swap_blocks_ =
      metrics->AddGauge("swap_blocks", "Blocks of swap space of the groups that take work.");
  swap_blocks_used_ = metrics->AddGauge("swap_blocks_used", "Blocks of swap space with KV.");
  swaps_ = total("swaps_total", "Preempted sequences whose KV went to the swap space.");
  swapped_out_ = total("swapped_out_blocks_total", "Blocks copied to the swap space.");
  swapped_in_ = total("swapped_in_blocks_total", "Blocks copied back from the swap space.");
}

void DriverMetrics::AddRankFamilies(Metrics* metrics) {
  const auto add = [&](const char* name, const char* help, Metrics::Kind kind, auto value) {
    metrics->AddFamily(
        std::string("fathom_scheduler_") + name, help, kind, [ranks = ranks_, value] {
          std::vector<Metrics::Sample> samples;
          const std::lock_guard lock(ranks->mutex);
          for (const RankLoad& load : ranks->loads) {
            samples.push_back(
                {{{"group", std::to_string(load.group.value)}, {"rank", std::to_string(load.rank)}},
                 value(load.time)});
          }
          return samples;
        });
  };
  add("rank_step_seconds", "A rank's time for a step: a mean over about 16 steps.",
      Metrics::Kind::kGauge, [](const RankTime& time) { return time.step_us * 1e-6; });
  add("rank_collective_seconds_total", "A rank's time in collectives, as it tells.",
      Metrics::Kind::kCounter,
      [](const RankTime& time) { return static_cast<double>(time.collective_us_total) * 1e-6; });
  add("straggler_steps_total",
      "Steps in which the other ranks of the stage waited for this one for half of the step.",
      Metrics::Kind::kCounter,
      [](const RankTime& time) { return static_cast<double>(time.straggler_steps_total); });
}

void DriverMetrics::UpdateRanks(std::vector<RankLoad> loads) {
  const std::lock_guard lock(ranks_->mutex);
  ranks_->loads = std::move(loads);
}

void DriverMetrics::ObservePlan(const StepPlan& plan) {
  if (plan.chunks.empty()) return;  // It only releases blocks.
  int64_t tokens = 0;
  for (const Chunk& chunk : plan.chunks) {
    const auto* count = std::get_if<int32_t>(&chunk.work);
    tokens += count != nullptr ? *count : 1;
  }
  batch_size_.Observe(static_cast<double>(plan.chunks.size()));
  batch_tokens_.Observe(static_cast<double>(tokens));
  step_tokens_.Add(tokens);
}

void DriverMetrics::Total::Follow(uint64_t total) {
  if (total > shown) counter.Add(static_cast<double>(total - shown));
  shown = total;
}

void DriverMetrics::ObserveStep(int64_t step_us) {
  step_seconds_.Observe(static_cast<double>(step_us) * 1e-6);
}

void DriverMetrics::UpdateRecording(uint64_t recorded, uint64_t unrecorded) {
  recorded_.Follow(recorded);
  unrecorded_.Follow(unrecorded);
}

void DriverMetrics::Update(const CoreStats& core, const WorkerGroupStats& groups,
                           const TransportStats& transport, TermId term, size_t routers) {
  blocks_used_.Set(core.blocks_used);
  blocks_.Set(core.blocks_total);
  blocks_cached_.Set(core.blocks_cached);
  prefix_queries_.Follow(core.prefix_queries_tokens_total);
  prefix_hits_.Follow(core.prefix_hit_tokens_total);
  prefix_evictions_.Follow(core.prefix_evicted_blocks_total);
  kv_usage_.Set(core.blocks_total == 0 ? 0
                                       : static_cast<double>(core.blocks_used) / core.blocks_total);
  for (size_t i = 0; i < kWaitLimits; ++i) waiting_by_reason_[i].Set(core.waiting_by_limit[i]);
  for (size_t i = 0; i < kRefusedBy; ++i) refused_by_[i].Follow(core.refused_by[i]);
  overtakes_.Follow(core.overtakes_total);
  retries_kept_.Follow(core.retries_kept_total);
  retries_broken_.Follow(core.retries_broken_total);
  failovers_.Follow(core.failovers_total);
  replayed_.Follow(core.replayed_tokens_total);
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
  poisoned_.Follow(core.poisoned_total);
  swap_blocks_.Set(core.swap_blocks_total);
  swap_blocks_used_.Set(core.swap_blocks_used);
  swaps_.Follow(core.swaps_total);
  swapped_out_.Follow(core.swapped_out_blocks_total);
  swapped_in_.Follow(core.swapped_in_blocks_total);
  draft_rows_.Follow(core.draft_rows_total);
  drafted_.Follow(core.drafted_tokens_total);
  accepted_drafts_.Follow(core.accepted_draft_tokens_total);
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
