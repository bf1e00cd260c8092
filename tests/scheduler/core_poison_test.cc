// Requests that end the workers which compute them, and the order in which sequences are preempted.
#include <gtest/gtest.h>

#include <algorithm>
#include <map>
#include <memory>
#include <random>
#include <set>

#include "scheduler/core/policy.h"
#include "tests/scheduler/core_harness.h"

namespace fathom::scheduler {
namespace {

// A group on which each step dies that computes token `index` of a sequence with the seed `seed`.
class Mortal {
 public:
  Mortal(const GroupUp& up, std::map<uint64_t, int32_t> deadly)
      : group_(up), deadly_(std::move(deadly)) {}

  // nullopt: the group died in this step.
  std::optional<StepResult> Execute(const StepPlan& plan) {
    for (const SlotId slot : plan.releases) slots_.erase(slot);
    for (const Admit& admit : plan.admits) {
      slots_.try_emplace(admit.slot, admit.seed, admit.computed_tokens);
    }
    for (const Chunk& chunk : plan.chunks) {
      auto& [seed, computed] = slots_.at(chunk.slot);
      const auto* count = std::get_if<int32_t>(&chunk.work);
      computed += count != nullptr ? *count : 1;
      const auto deadly = deadly_.find(seed);
      if (deadly != deadly_.end() && computed > deadly->second) return std::nullopt;
    }
    absl::StatusOr<StepResult> result = group_.Execute(plan);
    EXPECT_TRUE(result.ok()) << ToString(result.status());
    return *std::move(result);
  }

 private:
  sim::FakeGroup group_;
  const std::map<uint64_t, int32_t> deadly_;                   // Seed to index.
  std::map<SlotId, std::pair<uint64_t, int32_t>> slots_ = {};  // Seed and computed tokens.
};

// Runs a core until nothing is left to do. A group that dies comes back at once.
class MortalWorld {
 public:
  MortalWorld(const GroupLimits& limits, std::map<uint64_t, int32_t> deadly)
      : limits_(limits), deadly_(std::move(deadly)) {}
  void Submit(const Record& record) {
    const uint64_t attempt = record.seed;
    ledgers_[attempt];
    harness.now += 10;
    Take(harness.Submit(record, attempt));
  }
  // False: no plan waits.
  bool RunOne() {
    if (plans_.empty()) return false;
    const StepPlan plan = plans_.front();
    plans_.erase(plans_.begin());
    if (std::optional<StepResult> result = group_->Execute(plan)) {
      Take(harness.Step(StepDone{kGroup, *std::move(result)}));
    } else {
      Die();
    }
    return true;
  }
  void Die() {
    ++deaths;
    plans_.clear();
    Take(harness.Step(GroupLost{kGroup, EpochId{epoch_}}));
    BringUp();
  }
  void RunAll() {
    while (RunOne()) {
    }
  }
  void Leave(const Record& record) {
    Take(harness.Step(Routed<Suspend>{kRouter, {AttemptId{record.seed}, record.key}}));
  }
  void BringUp() {
    const GroupUp up = harness.UpEvent(limits_, ++epoch_);
    group_ = std::make_unique<Mortal>(up, deadly_);
    Take(harness.Step(up));
  }
  Ledger& ledger(const Record& record) { return ledgers_.at(record.seed); }
  const std::vector<StepPlan>& plans() const { return plans_; }

  CoreHarness harness;
  int deaths = 0;

 private:
  void Take(const Actions& actions) {
    EXPECT_TRUE(actions.aborts.empty());
    for (auto& [attempt, ledger] : ledgers_) ledger.Take(actions, attempt);
    for (const PlanOut& out : actions.plans) plans_.push_back(out.plan);
  }

  const GroupLimits limits_;
  const std::map<uint64_t, int32_t> deadly_;
  uint64_t epoch_ = 0;
  std::unique_ptr<Mortal> group_;
  std::vector<StepPlan> plans_;
  std::map<uint64_t, Ledger> ledgers_;
};

// Whose logits are always finite.
uint64_t NextSeed(uint64_t seed) {
  do ++seed;
  while (sim::FaultAt(seed) >= 0);
  return seed;
}

TEST(CorePoison, ADeadlyRequestFailsByNameAndEveryOtherOneEndsAsIfAlone) {
  const uint64_t seed = sim::TestSeed(1);
  SCOPED_TRACE("FATHOM_SEED=" + std::to_string(seed));
  std::mt19937_64 rng(seed);
  for (int round = 0; round < 60; ++round) {
    GroupLimits limits = CoreHarness::Limits();
    limits.lanes = 1 + static_cast<int32_t>(rng() % 3);
    limits.plans_in_flight = limits.lanes + static_cast<int32_t>(rng() % 2);
    limits.step_tokens = 4 + static_cast<int32_t>(rng() % 30);
    limits.blocks = 20 + static_cast<int32_t>(rng() % 40);
    std::vector<Record> records;
    std::map<uint64_t, int32_t> deadly;
    uint64_t request_seed = rng() % 1000;
    for (int i = 0; i < 12; ++i) {
      Record record = MakeRecord("r" + std::to_string(i), 1 + static_cast<int32_t>(rng() % 30),
                                 1 + static_cast<int32_t>(rng() % 20));
      record.seed = request_seed = NextSeed(request_seed);
      record.priority = static_cast<int32_t>(rng() % 3) - 1;
      const auto total =
          static_cast<int32_t>(record.prompt_ids.size()) + record.request.stop.max_tokens - 1;
      if (i % 4 == 0) deadly[record.seed] = static_cast<int32_t>(rng() % total);
      records.push_back(std::move(record));
    }
    MortalWorld world(limits, deadly);
    world.BringUp();
    for (const Record& record : records) {
      world.Submit(record);
      for (uint64_t steps = rng() % 4; steps > 0; --steps) world.RunOne();
    }
    world.RunAll();
    for (const Record& record : records) {
      const Ledger& ledger = world.ledger(record);
      const std::vector<TokenId> expected = Expected(record);
      const auto dies = deadly.find(record.seed);
      if (dies == deadly.end()) {
        ASSERT_TRUE(ledger.end.has_value()) << record.key.request_id;
        EXPECT_EQ(ledger.ids, expected);
        continue;
      }
      ASSERT_FALSE(ledger.error.ok()) << record.key.request_id << " dies at " << dies->second;
      EXPECT_EQ(DetailOf(ledger.error)->reason, "ENDS_WORKERS");
      EXPECT_NE(Message(ledger.error).find("request " + record.key.request_id), std::string::npos);
      // It has each token that a step before the deadly one samples.
      const auto tokens = static_cast<size_t>(
          std::max(0, dies->second - static_cast<int32_t>(record.prompt_ids.size()) + 1));
      ASSERT_EQ(ledger.ids.size(), tokens);
      EXPECT_TRUE(std::ranges::equal(ledger.ids, std::span(expected).first(tokens)));
    }
    const CoreStats stats = world.harness.core.Stats();
    EXPECT_EQ(stats.poisoned_total, deadly.size());
    // Three deaths, and again two or three if the chunks of a step alone end further than before.
    EXPECT_LE(world.deaths, static_cast<int>(6 * deadly.size()));
    EXPECT_EQ(stats.blocks_used, 0);
  }
}

TEST(CorePoison, SuspectsRunAloneUntilTheyProgress) {
  GroupLimits limits = CoreHarness::Limits();
  limits.step_tokens = 12;
  MortalWorld world(limits, {});
  std::vector<Record> records;
  for (uint64_t i = 1; i <= 3; ++i) {
    records.push_back(MakeRecord("r" + std::to_string(i), 4, 6));
    records.back().seed = NextSeed(i * 100);
    world.Submit(records.back());
  }
  world.BringUp();
  EXPECT_EQ(world.plans().front().chunks.size(), 3u);
  world.Die();
  EXPECT_EQ(world.plans().front().chunks.size(), 3u);  // One death makes no suspect.
  world.Die();
  const Record late = MakeRecord("late", 4, 6);
  world.Submit(late);
  for (int i = 0; i < 3; ++i) {
    ASSERT_EQ(world.plans().size(), 1u);
    EXPECT_EQ(world.plans().front().chunks.size(), 1u);
    EXPECT_EQ(world.plans().front().admits.size(), 1u);
    ASSERT_TRUE(world.RunOne());
  }
  EXPECT_EQ(world.plans().front().chunks.size(), 4u);  // All of them progressed.
  world.Die();                                         // After progress a death is the first one.
  EXPECT_EQ(world.plans().front().chunks.size(), 3u);
  world.RunAll();
  records.push_back(late);
  for (const Record& record : records) EXPECT_EQ(world.ledger(record).ids, Expected(record));
  EXPECT_EQ(world.harness.core.Stats().poisoned_total, 0u);
}

// A prompt that is longer than a step progresses chunk by chunk. What a replay computes again is no
// progress until it comes to a chunk that is new.
TEST(CorePoison, AReplayIsNoProgress) {
  GroupLimits limits = CoreHarness::Limits();
  limits.step_tokens = 5;
  limits.plans_in_flight = 1;
  Record record = MakeRecord("long", 20, 2);
  MortalWorld world(limits, {{record.seed, 12}});
  world.BringUp();
  world.Submit(record);
  world.RunAll();
  EXPECT_EQ(DetailOf(world.ledger(record).error)->reason, "ENDS_WORKERS");
  EXPECT_EQ(world.deaths, 3);
  // Killed anywhere, but never twice at the same place: no suspect.
  MortalWorld killed(limits, {});
  killed.BringUp();
  killed.Submit(record);
  for (int steps = 1; steps <= 4; ++steps) {
    for (int i = 0; i < steps; ++i) ASSERT_TRUE(killed.RunOne());
    killed.Die();
  }
  killed.RunAll();
  EXPECT_EQ(killed.ledger(record).ids, Expected(record));
}

// A suspect that its client left and that ends otherwise leaves nothing behind.
TEST(CorePoison, ASuspectWhoseClientLeavesLetsTheOthersRun) {
  MortalWorld world(CoreHarness::Limits(), {});
  Record gone = MakeRecord("gone", 4, 6), other = MakeRecord("other", 4, 6);
  gone.seed = NextSeed(500);
  world.Submit(gone);
  world.Submit(other);
  world.BringUp();
  world.Die();
  world.Die();
  EXPECT_EQ(world.plans().size(), 1u);
  world.Leave(gone);
  world.RunAll();
  EXPECT_EQ(world.ledger(other).ids, Expected(other));
}

TEST(CorePreemption, TheLeastUrgentGoesFirstAndThenTheLatestArrival) {
  const auto facts = [](uint64_t number, int32_t priority, TimeUs arrival_us, int32_t preemptions) {
    return SequenceFacts{.number = number,
                         .priority = priority,
                         .arrival_us = arrival_us,
                         .preemptions = preemptions};
  };
  // In the order in which they are kept.
  const std::vector<SequenceFacts> kept = {facts(9, 7, 3, kPreemptionsMax),
                                           facts(8, 7, 4, kPreemptionsMax + 1),
                                           facts(7, -5, 9, 0),
                                           facts(6, 0, 1, 0),
                                           facts(5, 0, 2, 0),
                                           facts(1, 3, 0, 3)};
  for (size_t i = 1; i < kept.size(); ++i) {
    EXPECT_LT(PreemptionOrder(kept[i - 1]), PreemptionOrder(kept[i])) << i;
  }
}

TEST(CorePreemption, AnUrgentSequenceIsNeverPreemptedForOthers) {
  CoreHarness harness({.prefix_caching = false});
  GroupLimits limits = CoreHarness::Limits();
  limits.blocks = 9;  // 32 tokens.
  harness.Up(limits);
  Runner runner(harness, harness.UpEvent(limits));
  std::vector<Record> records;
  for (uint64_t i = 1; i <= 3; ++i) {
    harness.now += 10;
    records.push_back(MakeRecord("r" + std::to_string(i), 8, 20));
    records.back().priority = i == 2 ? -1 : 4;
    runner.Follow(i);
    runner.Take(harness.Submit(records.back(), i));
  }
  runner.RunAll();
  for (uint64_t i = 1; i <= 3; ++i) EXPECT_EQ(runner.ledger(i).ids, Expected(records[i - 1]));
  EXPECT_EQ(runner.ledger(2).timings->preemptions, 0);
  EXPECT_GT(runner.ledger(1).timings->preemptions, 0);
}

// Urgent requests that never end cannot keep a less urgent one from its end.
TEST(CorePreemption, ASequenceThatWasPreemptedOftenIsSpared) {
  CoreHarness harness({.prefix_caching = false});
  GroupLimits limits = CoreHarness::Limits();
  limits.blocks = 9;
  limits.slots = 3;
  harness.Up(limits);
  Runner runner(harness, harness.UpEvent(limits));
  Record patient = MakeRecord("patient", 2, 30);
  patient.priority = 100;
  uint64_t attempt = 1;
  runner.Follow(attempt);
  runner.Take(harness.Submit(patient, attempt));
  for (int steps = 0; steps < 4000 && !runner.ledger(1).end; ++steps) {
    harness.now += 10;
    if (harness.core.Stats().requests_waiting < 2) {
      ++attempt;
      runner.Take(harness.Submit(
          MakeRecord("u" + std::to_string(attempt), 2, 8 + static_cast<int32_t>(attempt % 5)),
          attempt));
    }
    ASSERT_TRUE(runner.RunOne());
  }
  ASSERT_TRUE(runner.ledger(1).end.has_value());
  EXPECT_EQ(runner.ledger(1).ids, Expected(patient));
  EXPECT_EQ(runner.ledger(1).timings->preemptions, kPreemptionsMax);
}

}  // namespace
}  // namespace fathom::scheduler
