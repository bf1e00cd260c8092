// tests/sim/load_world.h: the scheduler core under a load of several tenants: requests that come at
// given times, one group whose steps take a time that grows with their rows, and clients that try
// again after the delay that a refusal told them. Simulated time; no faults. For properties of
// order, limits and delays; the numbers are of this small group and say nothing about a device.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <queue>
#include <string>
#include <vector>

#include "cluster/request.h"
#include "scheduler/core/scheduler_core.h"
#include "tests/sim/fake_group.h"

namespace fathom::sim {

struct LoadOptions {
  scheduler::CoreOptions core;
  scheduler::TenantTable tenants;
  scheduler::GroupLimits limits{.blocks = 4097,
                                .block_tokens = 16,
                                .slots = 32,
                                .step_tokens = 512,
                                .context_tokens = 4096,
                                .plans_in_flight = 2};
  int64_t step_us = 8'000;
  int64_t row_us = 40;  // Of each row of a step.
  bool obey = true;     // Refused clients come back once their delay is over.
};

// One request and what became of it.
struct LoadRequest {
  Record record;
  TimeUs at_us = 0;
  int64_t deadline_us = 0;
  // ---- Results; -1: not.
  TimeUs accepted_us = -1;
  TimeUs first_token_us = -1;
  TimeUs end_us = -1;
  int32_t tries = 0;
  std::string refused;  // The last reason.
};

class LoadWorld {
 public:
  explicit LoadWorld(const LoadOptions& options);

  // A request of `prompt` tokens whose answer has `answer` tokens. Returns its index.
  size_t Add(const std::string& tenant, TimeUs at_us, int32_t prompt, int32_t answer,
             int64_t deadline_us = 0, int32_t priority = 0);
  // Until nothing is left to do, or until the time `end_us`.
  void Run(TimeUs end_us = INT64_MAX);

  const std::vector<LoadRequest>& requests() const { return requests_; }
  scheduler::CoreStats stats() const { return core_.Stats(); }
  TimeUs now() const { return now_; }
  // Called at each refusal; may call Add.
  std::function<void(size_t index, const Refused& refused)> on_refused;

 private:
  struct Timed {
    TimeUs at_us;
    uint64_t order;
    std::function<void()> run;
    bool operator>(const Timed& other) const {
      return at_us != other.at_us ? at_us > other.at_us : order > other.order;
    }
  };
  void At(TimeUs at_us, std::function<void()> run);
  void Submit(size_t index);
  void Feed(const scheduler::Event& event);

  const LoadOptions options_;
  scheduler::SchedulerCore core_;
  std::unique_ptr<FakeGroup> group_;
  TimeUs now_ = 1;
  TimeUs busy_until_us_ = 0;
  uint64_t order_ = 0;
  uint64_t next_attempt_ = 1;
  std::priority_queue<Timed, std::vector<Timed>, std::greater<>> queue_;
  std::vector<LoadRequest> requests_;
  std::map<AttemptId, size_t> attempts_;
};

}  // namespace fathom::sim
