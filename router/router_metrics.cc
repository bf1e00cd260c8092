#include "router/router_metrics.h"

namespace fathom::router {
namespace {

constexpr FinishReason kReasons[] = {FinishReason::kEndToken, FinishReason::kStopToken,
                                     FinishReason::kStopString, FinishReason::kLength,
                                     FinishReason::kDeadline};
constexpr int kCodeMax = 16;  // UNAUTHENTICATED.

}  // namespace

RouterMetrics::RouterMetrics(Metrics* metrics, const std::string& model) {
  const auto ended = [&](const std::string& outcome) {
    ended_[outcome] = metrics->AddCounter(
        "requests_total", "Streams that ended, by outcome; CANCELLED: the client left.",
        {{"outcome", outcome}});
  };
  for (const FinishReason reason : kReasons) ended(FinishReasonName(reason));
  ended("SUSPENDED");
  for (int code = 1; code <= kCodeMax; ++code) {
    const auto status = static_cast<absl::StatusCode>(code);
    const std::string name(CodeName(status));
    ended(name);
    refused_[status] = metrics->AddCounter(
        "refused_total", "Requests refused before a session was made, by code.", {{"code", name}});
  }
  AddRequests(metrics);
  AddConnections(metrics);
  const Metrics::Labels own = {{"engine", "0"}, {"model_name", model}};
  AddRequestAliases(metrics, own);
  AddClusterAliases(metrics, own);
}

void RouterMetrics::AddRequests(Metrics* metrics) {
  const auto counter = [&](const char* name, const char* help) {
    return metrics->AddCounter(name, help);
  };
  const auto time = [&](const char* name, const char* help) {
    return metrics->AddHistogram(name, help, RequestBucketsSeconds());
  };
  const auto tokens = [&](const char* name, const char* help) {
    return metrics->AddHistogram(name, help, TokenBuckets());
  };
  tokens_ = counter("tokens_total", "Generated tokens that came for this router's streams.");
  prompt_tokens_ = counter("prompt_tokens_total", "Prompt tokens of requests that finished.");
  cached_tokens_ = counter("cached_tokens_total", "Those that were in the KV cache already.");
  drafted_tokens_ = counter("draft_tokens_total", "Drafts checked for requests that finished.");
  accepted_drafts_ = counter("accepted_draft_tokens_total", "Those that were kept.");
  dropped_ = counter("tokens_dropped_total", "Tokens that came again and were dropped.");
  preemptions_ = counter("preemptions_total", "Preemptions of requests that finished.");
  traces_dropped_ = metrics->AddCounter(
      "events_dropped_total", "Events that were dropped because nothing took them in time.",
      {{"what", "trace"}});
  resubmitted_ = counter("resubmits_total", "Accepted sessions that were submitted again.");
  resets_ =
      counter("stream_resets_total", "Scheduler streams closed because a frame could not be.");
  first_token_ = time("first_token_seconds", "From a session's start to its first token.");
  gap_ = metrics->AddHistogram("token_gap_seconds", "Between a stream's tokens, per token.",
                               LatencyBucketsSeconds());
  per_token_ = metrics->AddHistogram("time_per_output_token_seconds",
                                     "From the first to the last token, per token after the first.",
                                     LatencyBucketsSeconds());
  whole_ = time("request_seconds", "From a session's start to its end, of finished requests.");
  queue_ = time("request_queue_seconds", "In the scheduler, before the first slot.");
  prefill_ = time("request_prefill_seconds", "In the first slot, before the first token.");
  decode_ = time("request_decode_seconds", "In a slot, after the first token.");
  inference_ = time("request_inference_seconds", "From the first slot to the end.");
  prompt_ = tokens("request_prompt_tokens", "Prompt tokens of a finished request.");
  generated_ = tokens("request_generation_tokens", "Generated tokens of a finished request.");
  max_tokens_ = tokens("request_max_tokens", "The max_tokens of a finished request.");
  open_ = metrics->AddGauge("streams_open", "Client streams now.");
  kept_ = metrics->AddGauge("sessions_kept", "Sessions kept for a resume.");
  ready_ = metrics->AddGauge("ready", "1: a request would be answered.");
  scheduler_up_ = metrics->AddGauge("scheduler_up", "1: a scheduler leads and answers.");
}

void RouterMetrics::AddConnections(Metrics* metrics) {
  const auto closed = [metrics](const char* reason) {
    return metrics->AddCounter("connections_closed_total", "Connections that the port closed.",
                               {{"reason", reason}});
  };
  accepted_ = metrics->AddCounter("connections_total", "Connections of clients.");
  evicted_ = closed("idle");
  turned_away_ = closed("full");
  cut_ = closed("hostile");
  connections_ = metrics->AddGauge("connections_open", "Connections of clients now.");
}

void RouterMetrics::Finished(const FinishedRequest& request) {
  const RequestTimings& timings = request.timings;
  const Usage& usage = request.usage;
  const auto seconds = [](int64_t us) { return static_cast<double>(us) * 1e-6; };
  prompt_tokens_.Add(usage.prompt_tokens);
  cached_tokens_.Add(usage.cached_tokens);
  drafted_tokens_.Add(usage.drafted_tokens);
  accepted_drafts_.Add(usage.accepted_draft_tokens);
  preemptions_.Add(timings.preemptions);
  whole_.Observe(seconds(request.whole_us));
  queue_.Observe(seconds(timings.queue_us));
  prefill_.Observe(seconds(timings.prefill_us));
  decode_.Observe(seconds(timings.decode_us));
  inference_.Observe(seconds(timings.WholeUs() - timings.queue_us));
  prompt_.Observe(usage.prompt_tokens);
  generated_.Observe(usage.completion_tokens);
  max_tokens_.Observe(request.max_tokens);
  if (request.timed_tokens > 1 && timings.first_token_us >= 0) {
    per_token_.Observe(seconds(timings.last_token_us - timings.first_token_us) /
                       (request.timed_tokens - 1));
  }
}

void RouterMetrics::Show(const rpc::ConnectionStats& connections) {
  const auto raise = [](Counter& counter, int64_t total) {
    counter.Add(static_cast<double>(total) - counter.value());
  };
  connections_.Set(static_cast<double>(connections.open));
  raise(accepted_, connections.accepted_total);
  raise(evicted_, connections.evicted_total);
  raise(turned_away_, connections.refused_total);
  raise(cut_, connections.cut_total);
}

void RouterMetrics::FirstToken(int64_t since_us, int64_t tokens) {
  first_token_.Observe(static_cast<double>(since_us) * 1e-6);
  tokens_.Add(static_cast<double>(tokens));
}

void RouterMetrics::TokenGap(int64_t gap_us, int64_t tokens) {
  const double gap = static_cast<double>(gap_us) * 1e-6 / static_cast<double>(tokens);
  for (int64_t i = 0; i < tokens && gap_us >= 0; ++i) gap_.Observe(gap);
  tokens_.Add(static_cast<double>(tokens));
}

void RouterMetrics::Ended(const std::string& outcome) {
  const auto it = ended_.find(outcome);
  if (it != ended_.end()) it->second.Add();
}

void RouterMetrics::Refused(absl::StatusCode code) {
  const auto it = refused_.find(code);
  if (it != refused_.end()) it->second.Add();
}

void RouterMetrics::Show(const Sessions::View& view, bool ready) {
  open_.Set(static_cast<double>(view.open));
  kept_.Set(static_cast<double>(view.kept));
  ready_.Set(ready ? 1 : 0);
  scheduler_up_.Set(view.up ? 1 : 0);
  const ClusterStats& stats = view.stats;
  running_.Set(stats.requests_running);
  waiting_.Set(stats.requests_waiting);
  const auto waiting = [&](WaitLimit limit) {
    return stats.waiting_by[static_cast<size_t>(limit)];
  };
  waiting_capacity_.Set(waiting(WaitLimit::kSlots) + waiting(WaitLimit::kBlocks));
  waiting_deferred_.Set(waiting(WaitLimit::kNoGroup) + waiting(WaitLimit::kOther) +
                        waiting(WaitLimit::kTenantRunning));
  kv_usage_.Set(
      stats.blocks_total == 0 ? 0 : static_cast<double>(stats.blocks_used) / stats.blocks_total);
  const std::lock_guard lock(cluster_->mutex);
  cluster_->step_tokens = stats.step_tokens;
  if (view.facts) cluster_->facts = *view.facts;
}

}  // namespace fathom::router
