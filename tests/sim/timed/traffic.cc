#include "tests/sim/timed/traffic.h"

#include <algorithm>
#include <cmath>

namespace fathom::sim {

std::vector<Conversation> MakeTraffic(const TrafficOptions& options) {
  std::vector<Conversation> traffic;
  uint64_t seed = options.workload.seed;
  for (const TenantLoad& load : options.tenants) {
    client::WorkloadOptions workload = options.workload;
    workload.seed = seed++;
    if (!load.workload.empty()) workload.name = load.workload;
    const auto requests =
        std::max(1, static_cast<int32_t>(std::lround(load.rate * options.seconds)));
    client::Workload made = client::MakeWorkload(workload, requests);
    const auto sessions = static_cast<int32_t>(made.sessions.size());
    const std::vector<double> times = client::ArrivalTimes(
        options.arrivals, load.rate * sessions / made.requests, sessions, workload.seed);
    for (size_t i = 0; i < times.size(); ++i) {
      traffic.push_back({.at_us = 1 + static_cast<TimeUs>(times[i] * 1e6),
                         .tenant = load.tenant,
                         .plan = std::move(made.sessions[i]),
                         .number = static_cast<int32_t>(i),
                         .seed = workload.seed});
    }
  }
  std::stable_sort(traffic.begin(), traffic.end(),
                   [](const Conversation& a, const Conversation& b) { return a.at_us < b.at_us; });
  return traffic;
}

}  // namespace fathom::sim
