// router/router_metrics.h: the router's metrics, fathom_router_*. main.cc makes the object once;
// any thread may update the metrics.
#pragma once

#include <map>
#include <string>

#include "common/metrics.h"
#include "router/api/inference_api.h"
#include "router/sessions/sessions.h"
#include "rpc/connections.h"

namespace fathom::router {

class RouterMetrics final : public SessionObserver, public ApiObserver {
 public:
  // REQUIRES: `metrics` outlives this object.
  explicit RouterMetrics(Metrics* metrics);

  void FirstToken(int64_t since_us, int64_t tokens) override;
  void TokenGap(int64_t gap_us, int64_t tokens) override;
  void Ended(const std::string& outcome) override;
  void DroppedTokens(int64_t tokens) override { dropped_.Add(static_cast<double>(tokens)); }
  void Resubmitted() override { resubmitted_.Add(); }
  void StreamReset() override { resets_.Add(); }
  void Refused(absl::StatusCode code) override;
  void TracesDropped(size_t requests) { traces_dropped_.Add(static_cast<double>(requests)); }

  // Set the gauges and the counters that another object counts.
  void Show(const Sessions::View& view, bool ready);
  void Show(const rpc::ConnectionStats& connections);

 private:
  std::map<std::string, Counter, std::less<>> ended_;
  std::map<absl::StatusCode, Counter> refused_;
  Counter tokens_, dropped_, resubmitted_, resets_, traces_dropped_;
  Histogram first_token_, gap_;
  Counter accepted_, evicted_, turned_away_, cut_;
  Gauge open_, kept_, ready_, scheduler_up_, connections_;
};

}  // namespace fathom::router
