#include "router/router_metrics.h"

namespace fathom::router {
namespace {

constexpr FinishReason kReasons[] = {FinishReason::kEndToken, FinishReason::kStopToken,
                                     FinishReason::kStopString, FinishReason::kLength,
                                     FinishReason::kDeadline};
constexpr int kCodeMax = 16;  // UNAUTHENTICATED.

}  // namespace

RouterMetrics::RouterMetrics(Metrics* metrics) {
  const auto ended = [&](const std::string& outcome) {
    ended_[outcome] = metrics->AddCounter("requests_total", "Streams that ended, by outcome.",
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
  tokens_ =
      metrics->AddCounter("tokens_total", "Generated tokens that came for this router's streams.");
  dropped_ =
      metrics->AddCounter("tokens_dropped_total", "Tokens that came again and were dropped.");
  resubmitted_ =
      metrics->AddCounter("resubmits_total", "Accepted sessions that were submitted again.");
  traces_dropped_ = metrics->AddCounter(
      "events_dropped_total", "Events that were dropped because nothing took them in time.",
      {{"what", "trace"}});
  resets_ = metrics->AddCounter("stream_resets_total",
                                "Scheduler streams closed because a frame could not be.");
  first_token_ = metrics->AddHistogram(
      "first_token_seconds", "From a session's start to its first token.", LatencyBucketsSeconds());
  gap_ = metrics->AddHistogram("token_gap_seconds", "Between a stream's tokens, per token.",
                               LatencyBucketsSeconds());
  const auto closed = [metrics](const char* reason) {
    return metrics->AddCounter("connections_closed_total", "Connections that the port closed.",
                               {{"reason", reason}});
  };
  accepted_ = metrics->AddCounter("connections_total", "Connections of clients.");
  evicted_ = closed("idle");
  turned_away_ = closed("full");
  cut_ = closed("hostile");
  connections_ = metrics->AddGauge("connections_open", "Connections of clients now.");
  open_ = metrics->AddGauge("streams_open", "Client streams now.");
  kept_ = metrics->AddGauge("sessions_kept", "Sessions kept for a resume.");
  ready_ = metrics->AddGauge("ready", "1: a request would be answered.");
  scheduler_up_ = metrics->AddGauge("scheduler_up", "1: a scheduler leads and answers.");
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
  for (int64_t i = 0; i < tokens; ++i) gap_.Observe(gap);
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
}

}  // namespace fathom::router
