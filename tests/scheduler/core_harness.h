// tests/scheduler/core_harness.h: a core with manual time: one call for each event, and a check of
// the invariants after each.
#pragma once

#include <gtest/gtest.h>

#include <map>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "scheduler/core/scheduler_core.h"
#include "tests/sim/fake_group.h"
#include "tests/sim/model.h"

namespace fathom::scheduler {

inline constexpr PeerId kRouter{1};
inline constexpr PeerId kOtherRouter{2};
inline constexpr GroupId kGroup{0};

inline Record MakeRecord(const std::string& id, int32_t prompt_tokens, int32_t max_tokens) {
  Record record;
  record.key = {"", id};
  record.seed = 1000;  // FaultAt(1000) is -1.
  for (int32_t i = 0; i < prompt_tokens; ++i) record.prompt_ids.push_back(2 + i % 50);
  record.request.stop.max_tokens = max_tokens;
  return record;
}

// The ids that a request gets if nothing disturbs it.
inline std::vector<TokenId> Expected(const Record& record, const std::string& fingerprint = "kind",
                                     int32_t sequence = 0) {
  std::vector<TokenId> ids;
  uint64_t prefix = 0;
  for (TokenId id : record.prompt_ids) prefix = sim::PrefixWith(prefix, id);
  for (int32_t p = 0; p < record.request.stop.max_tokens; ++p) {
    ids.push_back(sim::TokenAt(record.seed, p, prefix, fingerprint, sequence));
    prefix = sim::PrefixWith(prefix, ids.back());
  }
  return ids;
}

// Groups with different fingerprints have the same model, unless the fingerprint begins with
// "model".
inline ComputeKind KindOf(const std::string& fingerprint) {
  const std::string model = fingerprint.starts_with("model") ? fingerprint : "model";
  return {.model_digest = model,
          .dtype = "float32",
          .device_kind = "device of " + fingerprint,
          .tp = 1,
          .recipe = 1};
}

class CoreHarness {
 public:
  explicit CoreHarness(const CoreOptions& options = {}) : core(options) {}

  Actions Step(const Event& event) {
    Actions actions = core.Step(event, now);
    const absl::Status status = core.CheckInvariants();
    EXPECT_TRUE(status.ok()) << ToString(status);
    return actions;
  }
  Actions Tick(TimeUs advance_us) {
    now += advance_us;
    return Step(scheduler::Tick{});
  }

  GroupUp UpEvent(GroupLimits limits, uint64_t epoch = 1, const std::string& fingerprint = "kind",
                  GroupId group = kGroup) const {
    return {group, TermId{1}, EpochId{epoch}, limits, fingerprint, KindOf(fingerprint)};
  }
  Actions Up(GroupLimits limits = Limits(), uint64_t epoch = 1) {
    return Step(UpEvent(limits, epoch));
  }
  static GroupLimits Limits() {
    return {.blocks = 33,
            .block_tokens = 4,
            .slots = 8,
            .step_tokens = 16,
            .context_tokens = 128,
            .plans_in_flight = 2,
            .protocol = kProtocol2};
  }

  static Routed<fathom::Submit> SubmitEvent(Record record, uint64_t attempt,
                                            PeerId router = kRouter) {
    Routed<fathom::Submit> event{router, {.attempt = AttemptId{attempt}, .key = record.key}};
    event.message.router_blob = "blob";
    event.message.record = std::move(record);
    return event;
  }
  static Routed<fathom::Submit> KeyOnly(const SessionKey& key, uint64_t attempt,
                                        PeerId router = kRouter) {
    return {router, {.attempt = AttemptId{attempt}, .key = key}};
  }
  Actions Submit(Record record, uint64_t attempt, PeerId router = kRouter) {
    return Step(SubmitEvent(std::move(record), attempt, router));
  }

  // Executes a plan and gives its result to the core.
  Actions Answer(sim::FakeGroup& group, const StepPlan& plan, GroupId id = kGroup) {
    absl::StatusOr<StepResult> result = group.Execute(plan);
    EXPECT_TRUE(result.ok()) << ToString(result.status());
    return Step(StepDone{id, *std::move(result)});
  }

  SchedulerCore core;
  TimeUs now = 1;
};

// All ids of one sequence in the frames of an attempt, in order; fails if a frame leaves a gap.
struct Ledger {
  std::vector<TokenId> ids;
  std::optional<FrameFinish> end;
  std::optional<RequestTimings> timings;
  absl::Status error;
  std::vector<std::string> fingerprints;
  std::vector<float> prompt_logprobs;
  int frames = 0;

  void Take(const Actions& actions, uint64_t attempt, int32_t sequence = 0) {
    for (const auto& [router, frame] : actions.frames) {
      if (frame.attempt.value != attempt || frame.sequence != sequence) continue;
      ++frames;
      EXPECT_FALSE(end.has_value()) << "a frame after the end";
      if (!frame.ids.empty()) {
        EXPECT_EQ(frame.position, start + static_cast<int32_t>(ids.size()));
      }
      ids.insert(ids.end(), frame.ids.begin(), frame.ids.end());
      if (!frame.fingerprint.empty()) fingerprints.push_back(frame.fingerprint);
      if (frame.prompt_logprobs) {
        EXPECT_EQ(frame.prompt_logprobs->start, static_cast<int32_t>(prompt_logprobs.size()) + 1);
        for (const auto& l : frame.prompt_logprobs->logprobs) prompt_logprobs.push_back(l.logprob);
      }
      if (frame.finish) end = frame.finish;
      if (frame.timings) timings = frame.timings;
      if (!frame.error.ok()) error = frame.error;
    }
  }
  int32_t start = 0;  // The attempt's `have`.
};

// Answers plans in order until none is left, and gives the frames of all actions to the ledgers of
// `attempts`.
class Runner {
 public:
  Runner(CoreHarness& harness, const GroupUp& up) : harness_(harness), group_(up), id_(up.group) {}

  void Follow(uint64_t attempt, int32_t have = 0, int32_t sequence = 0) {
    ledgers_[{attempt, sequence}].start = have;
  }
  Ledger& ledger(uint64_t attempt, int32_t sequence = 0) { return ledgers_[{attempt, sequence}]; }

  void Take(const Actions& actions) {
    for (auto& [of, ledger] : ledgers_) ledger.Take(actions, of.first, of.second);
    for (const PlanOut& out : actions.plans) {
      if (out.group == id_) plans_.push_back(out.plan);
    }
    EXPECT_TRUE(actions.aborts.empty());
  }
  // Returns false if no plan waits.
  bool RunOne() {
    if (plans_.empty()) return false;
    const StepPlan plan = plans_.front();
    plans_.erase(plans_.begin());
    Take(harness_.Answer(group_, plan, id_));
    return true;
  }
  void RunAll() {
    while (RunOne()) {
    }
  }
  const std::vector<StepPlan>& plans() const { return plans_; }
  // For a test that answers the plans of several groups itself.
  void DropPlan() { plans_.erase(plans_.begin()); }
  void DropPlans() { plans_.clear(); }
  sim::FakeGroup& group() { return group_; }

 private:
  CoreHarness& harness_;
  sim::FakeGroup group_;
  GroupId id_;
  std::vector<StepPlan> plans_;
  std::map<std::pair<uint64_t, int32_t>, Ledger> ledgers_;  // By attempt and sequence.
};

}  // namespace fathom::scheduler
