#include "tests/sim/timed/traffic.h"

#include <algorithm>
#include <cmath>
#include <random>

namespace fathom::sim {
namespace {

client::Workload CodingWorkload(const client::WorkloadOptions& options, int32_t requests) {
  constexpr int32_t kTurns = 16, kPrefixTokens = 2048;
  std::mt19937_64 rng(options.seed);
  const auto between = [&](int32_t low, int32_t high) {
    return low + static_cast<int32_t>(rng() % static_cast<uint64_t>(high - low + 1));
  };
  client::Workload workload;
  while (workload.requests < requests) {
    client::SessionPlan session{.prefix = 0, .prefix_tokens = kPrefixTokens};
    int32_t used = kPrefixTokens;
    for (int32_t turn = 0; turn < kTurns; ++turn) {
      client::TurnPlan plan{between(1000, 2000), between(100, 300), 0};
      used += plan.new_tokens + plan.output_tokens;
      if (used > options.context_tokens) break;
      const double uniform = (between(0, (1 << 20) - 1) + 0.5) / (1 << 20);
      if (turn > 0) plan.pause_s = -std::log(uniform);
      session.turns.push_back(plan);
    }
    workload.requests += static_cast<int32_t>(session.turns.size());
    workload.sessions.push_back(std::move(session));
  }
  return workload;
}

}  // namespace

std::vector<Conversation> MakeTraffic(const TrafficOptions& options) {
  std::vector<Conversation> traffic;
  uint64_t seed = options.workload.seed;
  for (const TenantLoad& load : options.tenants) {
    client::WorkloadOptions workload = options.workload;
    workload.seed = seed++;
    if (!load.workload.empty()) workload.name = load.workload;
    const auto requests =
        std::max(1, static_cast<int32_t>(std::lround(load.rate * options.seconds)));
    client::Workload made = workload.name == kCodingWorkload
                                ? CodingWorkload(workload, requests)
                                : client::MakeWorkload(workload, requests);
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
