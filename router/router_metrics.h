// router/router_metrics.h: the router's metrics, fathom_router_*, and the names that dashboards of
// other engines look for (vllm:*). main.cc makes the object once; any thread may update the
// metrics.
//
// The cluster's gauges (running, waiting, KV use, tokens of a step) are those of the whole cluster,
// at each router. Counters and times are those of this router's requests.
#pragma once

#include <array>
#include <map>
#include <memory>
#include <mutex>
#include <string>

#include "cluster/messages.h"
#include "cluster/step_tokens.h"
#include "common/metrics.h"
#include "router/api/inference_api.h"
#include "router/sessions/sessions.h"
#include "rpc/connections.h"

namespace fathom::router {

class RouterMetrics final : public SessionObserver, public ApiObserver {
 public:
  // `model`: the name that clients see. REQUIRES: `metrics` outlives this object.
  RouterMetrics(Metrics* metrics, const std::string& model);

  void FirstToken(int64_t since_us, int64_t tokens) override;
  void TokenGap(int64_t gap_us, int64_t tokens) override;
  void Ended(const std::string& outcome) override;
  void Finished(const FinishedRequest& request) override;
  void DroppedTokens(int64_t tokens) override { dropped_.Add(static_cast<double>(tokens)); }
  void Resubmitted() override { resubmitted_.Add(); }
  void StreamReset() override { resets_.Add(); }
  void Refused(absl::StatusCode code) override;
  void TracesDropped(size_t requests) { traces_dropped_.Add(static_cast<double>(requests)); }

  // Set the gauges and the counters that another object counts.
  void Show(const Sessions::View& view, bool ready);
  void Show(const rpc::ConnectionStats& connections);

 private:
  // What the thread that reads /metrics needs of the last view.
  struct Cluster {
    std::mutex mutex;  // Guards what follows.
    ClusterFacts facts;
    StepTokens step_tokens;
  };

  void AddRequests(Metrics* metrics);
  void AddConnections(Metrics* metrics);
  // `own`: the labels of every alias.
  void AddRequestAliases(Metrics* metrics, const Metrics::Labels& own);
  void AddClusterAliases(Metrics* metrics, const Metrics::Labels& own);

  const std::shared_ptr<Cluster> cluster_ = std::make_shared<Cluster>();
  std::map<std::string, Counter, std::less<>> ended_;
  std::map<absl::StatusCode, Counter> refused_;
  Counter tokens_, prompt_tokens_, cached_tokens_, drafted_tokens_, accepted_drafts_, dropped_,
      resubmitted_, resets_, preemptions_, traces_dropped_;
  Histogram first_token_, gap_, per_token_, whole_, queue_, prefill_, decode_, inference_;
  Histogram prompt_, generated_, max_tokens_;
  Counter accepted_, evicted_, turned_away_, cut_;
  Gauge open_, kept_, ready_, scheduler_up_, connections_;
  Gauge running_, waiting_, waiting_capacity_, waiting_deferred_, kv_usage_;
};

}  // namespace fathom::router
