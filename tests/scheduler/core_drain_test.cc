// Groups that come and go while sequences run: a group that drains gives its sequences away, and a
// new group takes load.
#include <gtest/gtest.h>

#include <algorithm>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "tests/scheduler/core_harness.h"

namespace fathom::scheduler {
namespace {

class CoreDrain : public testing::Test {
 protected:
  static GroupLimits Small(int32_t blocks = 33) {
    GroupLimits limits = CoreHarness::Limits();
    limits.blocks = blocks;
    return limits;
  }
  void Add(int32_t id, GroupLimits limits = CoreHarness::Limits(),
           const std::string& fingerprint = "kind") {
    const GroupUp up =
        harness_.UpEvent(limits, static_cast<uint64_t>(id) + 1, fingerprint, GroupId{id});
    runners_.emplace(id, std::make_unique<Runner>(harness_, up));
    All(harness_.Step(up));
  }
  void Submit(const std::string& id, uint64_t attempt, int32_t max_tokens = 12) {
    runners_.begin()->second->Follow(attempt);  // The first group's runner sees all frames.
    All(harness_.Submit(MakeRecord(id, 5, max_tokens), attempt));
  }
  // Each runner keeps the plans of its group.
  void All(const Actions& actions) {
    for (auto& [id, runner] : runners_) runner->Take(actions);
    drained_.insert(drained_.end(), actions.drained.begin(), actions.drained.end());
  }
  // Answers one plan of a group. The runner itself takes the actions.
  bool RunOne(int32_t id) {
    Runner& runner = *runners_.at(id);
    if (runner.plans().empty()) return false;
    const StepPlan plan = runner.plans().front();
    runner.DropPlan();
    All(harness_.Answer(runner.group(), plan, GroupId{id}));
    return true;
  }
  void RunAll() {
    for (bool any = true; any;) {
      any = false;
      for (const auto& [id, runner] : runners_) any = RunOne(id) || any;
    }
  }
  void Drain(int32_t id) {
    All(harness_.Step(GroupDrain{GroupId{id}, EpochId{static_cast<uint64_t>(id) + 1}}));
  }
  const std::vector<TokenId>& IdsOf(uint64_t attempt) {
    return runners_.begin()->second->ledger(attempt).ids;
  }
  bool Drained(int32_t id) const {
    return std::ranges::any_of(drained_,
                               [&](const GroupDrained& d) { return d.group.value == id; });
  }

  CoreHarness harness_;
  std::map<int32_t, std::unique_ptr<Runner>> runners_;
  std::vector<GroupDrained> drained_;
};

TEST_F(CoreDrain, ItsSequencesMoveToAnotherGroupOfTheirKindWithTheSameTokens) {
  Add(0);
  Add(1);
  for (uint64_t i = 1; i <= 6; ++i) Submit(std::string(1, static_cast<char>('a' + i)), i);
  for (int step = 0; step < 4; ++step) {
    RunOne(0);
    RunOne(1);
  }
  Drain(0);
  RunAll();
  for (uint64_t i = 1; i <= 6; ++i) {
    const Record record = MakeRecord(std::string(1, static_cast<char>('a' + i)), 5, 12);
    EXPECT_EQ(IdsOf(i), Expected(record)) << i;
  }
  ASSERT_EQ(drained_.size(), 1u);
  EXPECT_EQ(drained_[0].group, GroupId{0});
  EXPECT_EQ(drained_[0].epoch, EpochId{1});
  EXPECT_EQ(harness_.core.Stats().failovers_total, 0u);
  // Nothing is placed there any more, until it is gone.
  Submit("later", 9);
  EXPECT_TRUE(runners_.at(0)->plans().empty());
  RunAll();
  EXPECT_EQ(IdsOf(9), Expected(MakeRecord("later", 5, 12)));
  All(harness_.Step(GroupLost{GroupId{0}, EpochId{1}}));
  EXPECT_EQ(harness_.core.Stats().groups, 1);
  EXPECT_EQ(drained_.size(), 1u);
}

TEST_F(CoreDrain, WithoutAnotherGroupTheyRunToTheirEndAndNewOnesWait) {
  Add(0);
  Submit("a", 1);
  RunOne(0);
  Drain(0);
  Submit("b", 2);
  RunAll();
  EXPECT_EQ(IdsOf(1), Expected(MakeRecord("a", 5, 12)));
  EXPECT_TRUE(IdsOf(2).empty());
  EXPECT_TRUE(Drained(0));
  All(harness_.Step(GroupLost{GroupId{0}, EpochId{1}}));
  Add(1);
  RunAll();
  EXPECT_EQ(IdsOf(2), Expected(MakeRecord("b", 5, 12)));
}

TEST_F(CoreDrain, TheyMoveWhenAnotherGroupComesUp) {
  Add(0);
  Submit("a", 1, 40);
  for (int step = 0; step < 5; ++step) RunOne(0);
  Drain(0);
  EXPECT_FALSE(Drained(0));
  Add(1, Small(), "other kind");  // Its tokens could be others.
  EXPECT_TRUE(runners_.at(1)->plans().empty());
  Add(2);
  EXPECT_FALSE(runners_.at(2)->plans().empty());
  RunAll();
  EXPECT_TRUE(Drained(0));
  EXPECT_EQ(IdsOf(1), Expected(MakeRecord("a", 5, 40)));
}

TEST_F(CoreDrain, ASequenceThatFitsNoOtherGroupStays) {
  Add(0);
  Add(1, Small(5));  // 16 tokens.
  Submit("long", 1, 40);
  Submit("short", 2, 8);
  RunOne(0);
  Drain(0);
  RunAll();
  EXPECT_EQ(IdsOf(1), Expected(MakeRecord("long", 5, 40)));
  EXPECT_EQ(IdsOf(2), Expected(MakeRecord("short", 5, 8)));
  EXPECT_TRUE(Drained(0));
}

TEST_F(CoreDrain, AnIdleGroupIsDrainedAtOnceAndOnce) {
  Add(0);
  Drain(0);
  EXPECT_TRUE(Drained(0));
  Drain(0);
  harness_.Step(GroupDrain{GroupId{0}, EpochId{7}});  // Another epoch.
  harness_.Step(GroupDrain{GroupId{5}, EpochId{1}});  // No such group.
  harness_.Tick(1000);
  EXPECT_EQ(drained_.size(), 1u);
}

TEST_F(CoreDrain, ALostGroupThatDrainedLosesNothing) {
  Add(0);
  Submit("a", 1);
  RunOne(0);
  RunOne(0);
  Drain(0);
  All(harness_.Step(GroupLost{GroupId{0}, EpochId{1}}));
  runners_.at(0)->DropPlans();
  Add(1);
  RunAll();
  EXPECT_EQ(IdsOf(1), Expected(MakeRecord("a", 5, 12)));
  EXPECT_FALSE(Drained(0));
}

TEST_F(CoreDrain, AGroupThatComesUpWhileOthersAreFullTakesWhatWaits) {
  GroupLimits limits = CoreHarness::Limits();
  limits.slots = 2;
  Add(0, limits);
  for (uint64_t i = 1; i <= 6; ++i) Submit(std::string(1, static_cast<char>('a' + i)), i);
  RunOne(0);
  EXPECT_EQ(harness_.core.Stats().requests_waiting, 4);
  Add(1, limits);
  Add(2, limits);
  EXPECT_EQ(harness_.core.Stats().requests_waiting, 0);
  RunAll();
  for (uint64_t i = 1; i <= 6; ++i) {
    const Record record = MakeRecord(std::string(1, static_cast<char>('a' + i)), 5, 12);
    EXPECT_EQ(IdsOf(i), Expected(record)) << i;
  }
}

}  // namespace
}  // namespace fathom::scheduler
