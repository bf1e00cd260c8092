// tests/sim/timed/traffic.h: who asks for what, and when: the workloads of `fathom bench serve`
// (cli/bench/workload.h) for several tenants, each with a rate of its own. Pure; everything follows
// from the seed.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "cli/bench/workload.h"
#include "common/types.h"

namespace fathom::sim {

// A user of a tenant. The first turn is due at `at_us`, each later one when the answer before it
// has come and its pause is over.
struct Conversation {
  TimeUs at_us = 0;
  std::string tenant;
  client::SessionPlan plan;
  int32_t number = 0;  // Its tokens follow from it and from `seed`.
  uint64_t seed = 0;
};

// Open loop: `rate` requests a second come, whatever the cluster does.
struct TenantLoad {
  std::string tenant;
  double rate = 0;
  std::string workload;  // "": that of the options.
};

struct TrafficOptions {
  client::WorkloadOptions workload;
  client::Arrivals arrivals = client::Arrivals::kPoisson;
  std::vector<TenantLoad> tenants;
  double seconds = 60;
};

// Ascending by time. REQUIRES: rates and seconds > 0.
std::vector<Conversation> MakeTraffic(const TrafficOptions& options);

}  // namespace fathom::sim
