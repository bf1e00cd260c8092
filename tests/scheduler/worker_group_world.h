// tests/scheduler/worker_group_world.h: the workers of a WorkerGroups under test, whose messages
// and time the test makes.
#pragma once

#include <gtest/gtest.h>

#include <cstdint>
#include <optional>
#include <string>
#include <variant>
#include <vector>

#include "scheduler/membership/worker_group.h"

namespace fathom::scheduler {

inline constexpr TermId kTerm{5};

inline Hello HelloOf(const std::string& process, int32_t preferred_rank = -1, int32_t tp = 2) {
  Hello hello;
  hello.process_id = process;
  hello.role = Role::kWorker;
  hello.config_digest = "config";
  hello.worker = WorkerFacts{.host = "h",
                             .device = "cpu",
                             .model = "tiny",
                             .weights_digest = "weights",
                             .fingerprint = "print",
                             .limits = {1024, 16, 101, 8, 256, 1000},
                             .tp = tp,
                             .preferred_rank = preferred_rank,
                             .device_kind = "cuda-sm90",
                             .dtype = "bfloat16"};
  return hello;
}

class WorkerGroupTest : public testing::Test {
 protected:
  static PeerId Control(int i) { return PeerId{100 + i}; }
  PeerId Steps(int rank) const { return PeerId{static_cast<int64_t>(1000 * epoch_.value + rank)}; }

  void Join(int i, const Hello& hello) { groups_.OnHello(Control(i), hello, now_, &out_); }
  void Beat(int i, Phase phase = Phase::kIdle) {
    groups_.OnHeartbeat(Control(i), {.phase = phase, .progress = progress_}, now_, &out_);
  }
  // Moves time by ticks; the workers in `alive` send heartbeats before each tick.
  void Pass(int64_t us, const std::vector<int>& alive, Phase phase = Phase::kIdle) {
    for (int64_t end = now_ + us; now_ < end;) {
      now_ += options_.tick_us;
      for (const int i : alive) Beat(i, phase);
      groups_.OnTick(now_, &out_);
    }
  }
  // The last seat that worker i was told.
  std::optional<GroupSeat> SeatOf(int i) {
    std::optional<GroupSeat> seat;
    for (const auto& [peer, message] : out_.messages) {
      if (const auto* found = std::get_if<GroupSeat>(&message); found && peer == Control(i))
        seat = *found;
    }
    return seat;
  }
  std::optional<std::string> AbortOf(int i) {
    std::optional<std::string> reason;
    for (const auto& [peer, message] : out_.messages) {
      if (const auto* found = std::get_if<Abort>(&message); found && peer == Control(i))
        reason = found->reason;
    }
    return reason;
  }
  // Brings up a group of two workers.
  void BringUp() {
    Join(0, HelloOf("a", 0));
    Join(1, HelloOf("b", 1));
    Ready();
    ASSERT_EQ(out_.up.size(), 1u);
    group_ = out_.up[0].group;
    out_ = {};
  }
  void Ready() {
    epoch_ = SeatOf(0)->epoch;
    for (int i : {0, 1}) {
      groups_.OnReady(Control(i), {kTerm, epoch_, i}, now_, &out_);
      groups_.OnStepsHello(Steps(i), {kTerm, epoch_, i, i == 0 ? "a" : "b"}, now_, &out_);
    }
  }
  std::vector<PeerId> Plan(uint64_t step) {
    return groups_.OnPlan(group_, StepPlan{kTerm, epoch_, StepId{step}}, now_);
  }
  std::optional<StepDone> Result(int rank, uint64_t step) {
    return groups_.OnResult(Steps(rank), StepResult{kTerm, epoch_, StepId{step}, rank}, now_,
                            &out_);
  }
  void ExpectLost(const std::string& why) {
    ASSERT_EQ(out_.lost.size(), 1u);
    EXPECT_EQ(out_.lost[0].group, group_);
    EXPECT_EQ(out_.lost[0].epoch, epoch_);
    ASSERT_FALSE(out_.log.empty());
    EXPECT_NE(out_.log[0].find(why), std::string::npos) << out_.log[0];
  }

  const WorkerGroupOptions options_{};
  WorkerGroups groups_{options_, kTerm};
  GroupActions out_;
  TimeUs now_ = 1'000'000;
  uint64_t progress_ = 1;
  EpochId epoch_;
  GroupId group_;
};

}  // namespace fathom::scheduler
