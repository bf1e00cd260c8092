// Grammars in the core: a group has each one before the first admit that names it, once in an
// epoch; only groups of its vocabulary take the request; the table of held grammars is bounded.
#include <gtest/gtest.h>

#include <algorithm>
#include <deque>
#include <map>
#include <random>
#include <set>

#include "scheduler/core/grammar_table.h"
#include "tests/scheduler/core_harness.h"

namespace fathom::scheduler {
namespace {

GroupLimits GuidedLimits(int32_t slots = 8) {
  GroupLimits limits = CoreHarness::Limits();
  limits.slots = slots;
  limits.grammar_vocabulary = "vocabulary";
  return limits;
}

GrammarRef MakeGrammar(const std::string& digest, size_t bytes = 10) {
  return GrammarRef({digest, "vocabulary", std::string(bytes, 'x')});
}

Record GuidedRecord(const std::string& id, const std::string& digest, int32_t max_tokens = 6) {
  Record record = MakeRecord(id, 5, max_tokens);
  record.grammar = MakeGrammar(digest);
  return record;
}

// Answers all plans until there are none; the fake group checks that grammars are held. Returns how
// many grammars were sent.
int RunAll(CoreHarness* harness, sim::FakeGroup* group, Actions actions) {
  int grammars = 0;
  std::deque<StepPlan> plans;
  const auto take = [&](Actions& from) {
    for (PlanOut& out : from.plans) {
      grammars += static_cast<int>(out.plan.grammars.size());
      plans.push_back(std::move(out.plan));
    }
  };
  take(actions);
  while (!plans.empty()) {
    const StepPlan plan = std::move(plans.front());
    plans.pop_front();
    Actions next = harness->Answer(*group, plan);
    take(next);
  }
  return grammars;
}

TEST(CoreGrammarTest, OnceInAnEpochAndAgainInTheNext) {
  CoreHarness harness;
  for (uint64_t epoch = 1; epoch <= 2; ++epoch) {
    sim::FakeGroup group(harness.UpEvent(GuidedLimits(), epoch));
    harness.Up(GuidedLimits(), epoch);
    int sent = 0;
    for (int i = 0; i < 6; ++i) {
      const std::string id = std::to_string(epoch) + "." + std::to_string(i);
      sent += RunAll(&harness, &group,
                     harness.Submit(GuidedRecord(id, i % 2 == 0 ? "a" : "b"), epoch * 100 + i));
    }
    EXPECT_EQ(sent, 2) << "epoch " << epoch;
    harness.Step(GroupLost{kGroup, EpochId{epoch}});
  }
}

// A sequence that runs when its group is lost has its grammar in the next epoch, and its tokens.
TEST(CoreGrammarTest, AReplayHasItsGrammar) {
  CoreHarness harness;
  sim::FakeGroup first(harness.UpEvent(GuidedLimits(), 1));
  harness.Up(GuidedLimits(), 1);
  const Record record = GuidedRecord("r", "a", 12);
  Ledger ledger;
  std::deque<StepPlan> plans;
  const auto take = [&](Actions actions) {
    ledger.Take(actions, 1);
    for (PlanOut& out : actions.plans) plans.push_back(std::move(out.plan));
  };
  take(harness.Submit(record, 1));
  for (int step = 0; step < 4 && !plans.empty(); ++step) {
    const StepPlan plan = std::move(plans.front());
    plans.pop_front();
    take(harness.Answer(first, plan));
  }
  ASSERT_GE(ledger.ids.size(), 2u);
  plans.clear();
  harness.Step(GroupLost{kGroup, EpochId{1}});
  sim::FakeGroup second(harness.UpEvent(GuidedLimits(), 2));
  take(harness.Up(GuidedLimits(), 2));
  ASSERT_FALSE(plans.empty());
  ASSERT_EQ(plans.front().grammars.size(), 1u);
  EXPECT_EQ(plans.front().admits.front().grammar_digest, "a");
  while (!plans.empty()) {
    const StepPlan plan = std::move(plans.front());
    plans.pop_front();
    take(harness.Answer(second, plan));
  }
  EXPECT_EQ(ledger.ids, Expected(record));
}

TEST(CoreGrammarTest, OtherVocabulariesAreRefusedByName) {
  for (const char* vocabulary : {"", "other"}) {
    CoreHarness harness;
    GroupLimits limits = GuidedLimits();
    limits.grammar_vocabulary = vocabulary;
    harness.Up(limits);
    const Actions actions = harness.Submit(GuidedRecord("r", "a"), 1);
    ASSERT_EQ(actions.refused.size(), 1u);
    EXPECT_EQ(DetailOf(actions.refused[0].message.status)->reason, "NO_GRAMMAR_ENGINE");
    EXPECT_TRUE(actions.plans.empty());
  }
}

TEST(CoreGrammarTest, GuidedRowsHaveNoDrafts) {
  CoreHarness harness;
  GroupLimits limits = GuidedLimits();
  limits.draft_max = 4;
  sim::FakeGroup group(harness.UpEvent(limits));
  harness.Up(limits);
  harness.Submit(MakeRecord("free", 5, 40), 1);
  Actions actions = harness.Submit(GuidedRecord("guided", "a", 40), 2);
  RunAll(&harness, &group, std::move(actions));
  EXPECT_TRUE(harness.core.CheckInvariants().ok());
}

TEST(CoreGrammarTest, OtherGrammarIsAnotherRequest) {
  CoreHarness harness;
  harness.Up(GuidedLimits());
  harness.Submit(GuidedRecord("r", "a"), 1);
  const Actions actions = harness.Submit(GuidedRecord("r", "b"), 2);
  ASSERT_EQ(actions.refused.size(), 1u);
  EXPECT_EQ(DetailOf(actions.refused[0].message.status)->reason, "REQUEST_ID_IN_USE");
}

// Random uses: the table equals what a worker that obeys the plans holds, and is bounded.
TEST(GrammarTableTest, WorkersHoldWhatTheTableSays) {
  std::mt19937_64 random(7);
  GrammarTable table;
  std::map<std::string, int> in_use;
  std::set<std::string> worker;
  for (int round = 0; round < 4000; ++round) {
    StepPlan plan;
    const GrammarRef grammar =
        MakeGrammar(std::to_string(random() % 200), random() % 5 == 0 ? 3 << 20 : 1000);
    ASSERT_TRUE(table.HasRoom(grammar, plan));
    table.Use(grammar, &plan);
    ++in_use[grammar.digest()];
    for (const std::string& digest : plan.grammar_drops) {
      ASSERT_EQ(worker.erase(digest), 1u);
      ASSERT_EQ(in_use[digest], 0) << "a grammar in use was dropped";
    }
    for (const GrammarRef& sent : plan.grammars) ASSERT_TRUE(worker.insert(sent.digest()).second);
    ASSERT_TRUE(worker.contains(grammar.digest()));
    ASSERT_EQ(worker.size(), table.size());
    const auto used = std::ranges::count_if(in_use, [](const auto& use) { return use.second > 0; });
    ASSERT_LE(table.size(), std::max(GrammarTable::kGrammarsKept, static_cast<size_t>(used)));
    while (random() % 2 == 0) {
      auto it = in_use.begin();
      std::advance(it, random() % in_use.size());
      if (it->second == 0) continue;
      --it->second;
      table.Leave(MakeGrammar(it->first));
    }
  }
}

TEST(GrammarTableTest, APlanCarriesABoundedNumberOfBytes) {
  GrammarTable table;
  StepPlan plan;
  int taken = 0;
  while (table.HasRoom(MakeGrammar("g" + std::to_string(taken), 8 << 20), plan)) {
    table.Use(MakeGrammar("g" + std::to_string(taken), 8 << 20), &plan);
    ++taken;
  }
  EXPECT_EQ(taken, 2);
  EXPECT_TRUE(table.HasRoom(MakeGrammar("g0", 8 << 20), plan)) << "the workers hold it";
  EXPECT_TRUE(table.HasRoom(GrammarRef(), plan));
}

}  // namespace
}  // namespace fathom::scheduler
