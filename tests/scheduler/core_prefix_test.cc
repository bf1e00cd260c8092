// Sequences that share KV blocks, through the whole core: the same tokens as without, and fewer
// rows.
#include <gtest/gtest.h>

#include <deque>
#include <map>
#include <string>
#include <utility>
#include <vector>

#include "scheduler/core/placement.h"
#include "tests/scheduler/core_harness.h"

namespace fathom::scheduler {
namespace {

Record Asking(const std::string& id, std::vector<TokenId> prompt, int32_t max_tokens) {
  Record record = MakeRecord(id, 1, max_tokens);
  record.prompt_ids = std::move(prompt);
  return record;
}

class CorePrefix : public testing::Test {
 protected:
  explicit CorePrefix(const CoreOptions& options = {}) : harness_(options) {}
  void SetUp() override { runner_.Take(harness_.Up()); }

  // Runs a request to its end, and checks its tokens. Returns its usage; `rows`: of its steps.
  Usage Ask(const Record& record, uint64_t* rows = nullptr) {
    const uint64_t before = harness_.core.Stats().step_rows_total;
    const uint64_t attempt = next_attempt_++;
    runner_.Follow(attempt);
    const Actions actions = harness_.Submit(record, attempt);
    EXPECT_EQ(actions.accepted.size(), 1u);
    accepted_cached_ = actions.accepted.at(0).message.cached_tokens;
    runner_.Take(actions);
    runner_.RunAll();
    const Ledger& ledger = runner_.ledger(attempt);
    EXPECT_EQ(ledger.ids, Expected(record));
    EXPECT_TRUE(ledger.end.has_value());
    if (rows != nullptr) *rows = harness_.core.Stats().step_rows_total - before;
    return ledger.end ? ledger.end->usage : Usage{};
  }
  CoreStats Stats() const { return harness_.core.Stats(); }

  CoreHarness harness_;
  Runner runner_{harness_, harness_.UpEvent(CoreHarness::Limits())};
  uint64_t next_attempt_ = 1;
  int32_t accepted_cached_ = 0;
};

// A prompt of seven full steps of 100 ms cannot be computed within 200 ms, unless it is in the
// index.
TEST_F(CorePrefix, ADeadlineCountsOnlyWhatMustBeComputed) {
  const auto accepted = [&](const std::string& id, TokenId first, int64_t deadline_us) {
    Record record = MakeRecord(id, 112, 2);
    record.prompt_ids[0] = first;
    Routed<Submit> event = CoreHarness::SubmitEvent(record, next_attempt_++);
    event.message.deadline_us = deadline_us;
    const Actions actions = harness_.Step(event);
    runner_.Take(actions);
    do {
      harness_.now += 100'000;
    } while (runner_.RunOne());
    return actions.accepted.size() == 1;
  };
  EXPECT_TRUE(accepted("cold", 2, 0));
  EXPECT_TRUE(accepted("known", 2, 200'000));
  EXPECT_FALSE(accepted("other", 3, 200'000));
}

TEST_F(CorePrefix, TheSamePromptAgainComputesOnlyWhatFollowsItsWholeBlocks) {
  uint64_t cold = 0, cached = 0;
  const Record first = MakeRecord("a", 14, 5), second = MakeRecord("b", 14, 5);
  EXPECT_EQ(Ask(first, &cold).cached_tokens, 0);
  EXPECT_EQ(accepted_cached_, 0);
  const Usage usage = Ask(second, &cached);
  EXPECT_EQ(usage, (Usage{14, 5, 12}));
  EXPECT_EQ(accepted_cached_, 12);
  EXPECT_EQ(cold, 14u + 4u);
  EXPECT_EQ(cached, 2u + 4u);
  EXPECT_EQ(Stats().prefix_queries_tokens_total, 28u);
  EXPECT_EQ(Stats().prefix_hit_tokens_total, 12u);
  EXPECT_EQ(Stats().blocks_used, 0);
  EXPECT_GT(Stats().blocks_cached, 3);
}

TEST_F(CorePrefix, APromptOfWholeBlocksComputesItsLastBlock) {
  Ask(MakeRecord("a", 12, 3));
  EXPECT_EQ(Ask(MakeRecord("b", 12, 3)).cached_tokens, 8);
}

TEST_F(CorePrefix, TheNextTurnOfAChatFindsTheAnswerToo) {
  const Record first = MakeRecord("a", 10, 9);
  Ask(first);
  std::vector<TokenId> prompt = first.prompt_ids;
  for (const TokenId id : Expected(first)) prompt.push_back(id);
  prompt.insert(prompt.end(), {3, 1, 4});
  // The KV of the answer's last token was not computed: 18 tokens are in the blocks.
  EXPECT_EQ(Ask(Asking("b", prompt, 4)).cached_tokens, 16);
}

TEST_F(CorePrefix, ABlockIsFoundOnlyAfterASampleHasAttendedToIt) {
  const Record slow = MakeRecord("slow", 40, 3);
  const Actions actions = harness_.Submit(slow, 100);  // 16 rows a step: three chunks.
  ASSERT_EQ(actions.plans.size(), 2u);
  runner_.Follow(100);
  runner_.Take(actions);
  ASSERT_TRUE(runner_.RunOne());
  ASSERT_TRUE(runner_.RunOne());
  const Actions same = harness_.Submit(MakeRecord("same", 40, 3), 101);
  EXPECT_EQ(same.accepted.at(0).message.cached_tokens, 0);
  runner_.Take(same);
  runner_.RunAll();
  EXPECT_EQ(runner_.ledger(100).ids, Expected(slow));
  EXPECT_EQ(Ask(MakeRecord("later", 40, 3)).cached_tokens, 36);
}

TEST_F(CorePrefix, ARequestMayOptOutAndASaltKeepsApart) {
  Record record = MakeRecord("a", 14, 2);
  record.cache.skip = true;
  Ask(record);
  record.key.request_id = "b";
  record.cache = {};
  EXPECT_EQ(Ask(record).cached_tokens, 0);  // It left nothing.
  record.key.request_id = "c";
  record.cache.skip = true;
  EXPECT_EQ(Ask(record).cached_tokens, 0);  // It takes nothing.
  for (const char* salt : {"x", "y"}) {
    record.cache = {.skip = false, .salt = salt};
    record.key.request_id = std::string("d") + salt;
    EXPECT_EQ(Ask(record).cached_tokens, 0) << salt;
    record.key.request_id = std::string("e") + salt;
    EXPECT_EQ(Ask(record).cached_tokens, 12) << salt;
  }
}

TEST_F(CorePrefix, TenantsNeverShareWhateverTheirNamesAndSaltsSpell) {
  Record record = MakeRecord("a", 14, 2);
  int asked = 0;
  const std::pair<const char*, const char*> scopes[] = {
      {"", ""}, {"a", ""}, {"", "a"}, {"a", "b"}, {"ab", ""}, {"", "1:a"}, {"1:a", ""}};
  for (const auto& [tenant, salt] : scopes) {
    record.key = {tenant, std::to_string(asked++)};
    record.cache.salt = salt;
    EXPECT_EQ(Ask(record).cached_tokens, 0) << tenant << "/" << salt;
  }
}

class CorePrefixAcross : public CorePrefix {
 protected:
  CorePrefixAcross() : CorePrefix({.prefixes_across_tenants = true}) {}
};
TEST_F(CorePrefixAcross, TenantsShareIfTheSchedulerIsToldSo) {
  Record record = MakeRecord("a", 14, 2);
  record.key.tenant = "one";
  Ask(record);
  record.key.tenant = "two";
  EXPECT_EQ(Ask(record).cached_tokens, 12);
  record.cache.salt = "salt";
  record.key.request_id = "b";
  EXPECT_EQ(Ask(record).cached_tokens, 0);
}

class CorePrefixOff : public CorePrefix {
 protected:
  CorePrefixOff() : CorePrefix({.sequences_max = 4, .prefix_caching = false}) {}
};
TEST_F(CorePrefixOff, NothingIsKept) {
  Ask(MakeRecord("a", 14, 2));
  EXPECT_EQ(Ask(MakeRecord("b", 14, 2)).cached_tokens, 0);
  EXPECT_EQ(Stats().blocks_cached, 0);
  EXPECT_EQ(Stats().prefix_queries_tokens_total, 0u);
}

TEST_F(CorePrefix, ARequestForPromptLogprobsComputesAllOfThem) {
  Ask(MakeRecord("a", 14, 2));
  Record record = MakeRecord("b", 14, 2);
  record.request.output.prompt_logprobs = 0;
  const uint64_t attempt = next_attempt_;
  EXPECT_EQ(Ask(record).cached_tokens, 0);
  EXPECT_EQ(runner_.ledger(attempt).prompt_logprobs.size(), 13u);
}

TEST_F(CorePrefix, APreemptedSequenceGoesOnFromItsBlocks) {
  GroupLimits limits = CoreHarness::Limits();
  limits.blocks = 14;  // 13 blocks: both prompts, and not all of both answers.
  harness_.Step(GroupLost{kGroup, EpochId{1}});
  Runner runner(harness_, harness_.UpEvent(limits, 2));
  runner.Take(harness_.Up(limits, 2));
  const Record a = MakeRecord("a", 12, 20), b = Asking("b", std::vector<TokenId>(12, 9), 20);
  for (const uint64_t attempt : {1, 2}) runner.Follow(attempt);
  runner.Take(harness_.Submit(a, 1));
  runner.Take(harness_.Submit(b, 2));
  runner.RunAll();
  EXPECT_EQ(runner.ledger(1).ids, Expected(a));
  EXPECT_EQ(runner.ledger(2).ids, Expected(b));
  const CoreStats stats = Stats();
  EXPECT_GT(stats.preemptions_total, 0u);
  // The blocks of the preempted one were taken for the other one from the end on, so when it got a
  // slot again its first ones were still there.
  EXPECT_LT(stats.replayed_tokens_total, 12u * stats.preemptions_total);
}

TEST_F(CorePrefix, ABlockOfASequenceWithAFaultIsNotFoundAgain) {
  Ask(MakeRecord("a", 14, 2));
  Record record = MakeRecord("b", 14, 12);
  while (sim::FaultAt(record.seed) < 3) ++record.seed;  // Faults at token 3 or later.
  runner_.Follow(50);
  runner_.Take(harness_.Submit(record, 50));
  runner_.RunAll();
  EXPECT_FALSE(runner_.ledger(50).error.ok());
  EXPECT_EQ(Ask(MakeRecord("c", 14, 2)).cached_tokens, 0);
  EXPECT_EQ(Ask(MakeRecord("d", 14, 2)).cached_tokens, 12);
}

// Their workers would zero shared blocks after a fault.
TEST_F(CorePrefix, AGroupOfVersionOneSharesNothing) {
  GroupLimits limits = CoreHarness::Limits();
  limits.protocol = kProtocolMin;
  harness_.Step(GroupLost{kGroup, EpochId{1}});
  Runner runner(harness_, harness_.UpEvent(limits, 2));
  runner.Take(harness_.Up(limits, 2));
  for (const uint64_t attempt : {1, 2}) {
    runner.Follow(attempt);
    runner.Take(harness_.Submit(MakeRecord(std::to_string(attempt), 14, 3), attempt));
    runner.RunAll();
    EXPECT_EQ(runner.ledger(attempt).end->usage.cached_tokens, 0);
  }
  EXPECT_EQ(Stats().blocks_cached, 0);
}

// A prompt beyond what one plan carries is found as far as the plan carries it.
TEST_F(CorePrefix, AHitEndsBeforeTheIdsThatThePlanCarries) {
  const GroupLimits limits{.blocks = 8001,
                           .block_tokens = 16,
                           .slots = 4,
                           .step_tokens = 50'000,
                           .context_tokens = 100'000,
                           .plans_in_flight = 2,
                           .protocol = kProtocol2};
  harness_.Step(GroupLost{kGroup, EpochId{1}});
  Runner runner(harness_, harness_.UpEvent(limits, 2));
  runner.Take(harness_.Up(limits, 2));
  const Record a = MakeRecord("a", 40'000, 2), b = MakeRecord("b", 40'000, 2);
  for (const uint64_t attempt : {1, 2}) runner.Follow(attempt);
  runner.Take(harness_.Submit(a, 1));
  runner.RunAll();
  runner.Take(harness_.Submit(b, 2));
  runner.RunAll();
  EXPECT_EQ(runner.ledger(2).ids, Expected(b));
  EXPECT_EQ(runner.ledger(2).end->usage.cached_tokens, (kAdmitIdsMax - 2) / 16 * 16);
}

// ---- Sequences of one request

struct Forks {
  std::map<int32_t, std::vector<TokenId>> ids;  // By sequence.
  int copies = 0;
  uint64_t prefill_rows = 0;

  void Take(const Actions& actions) {
    for (const auto& [router, frame] : actions.frames) {
      auto& own = ids[frame.sequence];
      own.insert(own.end(), frame.ids.begin(), frame.ids.end());
    }
    for (const PlanOut& out : actions.plans) {
      copies += static_cast<int>(out.plan.copies.size());
      for (const Chunk& chunk : out.plan.chunks) {
        if (const auto* count = std::get_if<int32_t>(&chunk.work)) {
          prefill_rows += static_cast<uint64_t>(*count);
        }
      }
    }
  }
};

void ExpectForks(const CoreOptions& options, const Record& record, int copies,
                 uint64_t prefill_rows) {
  CoreHarness harness(options);
  harness.Up();
  sim::FakeGroup group(harness.UpEvent(CoreHarness::Limits()));
  Forks forks;
  std::vector<StepPlan> plans;
  const auto take = [&](const Actions& actions) {
    forks.Take(actions);
    for (const PlanOut& out : actions.plans) plans.push_back(out.plan);
  };
  take(harness.Submit(record, 1));
  for (size_t i = 0; i < plans.size(); ++i) take(harness.Answer(group, StepPlan(plans[i])));
  ASSERT_EQ(std::ssize(forks.ids), record.request.sequences);
  for (const auto& [sequence, ids] : forks.ids)
    EXPECT_EQ(ids, Expected(record, "kind", sequence)) << sequence;
  EXPECT_EQ(forks.copies, copies);
  EXPECT_EQ(forks.prefill_rows, prefill_rows);
  EXPECT_EQ(harness.core.Stats().blocks_used, 0);
}

// The first computes the prompt; each other one computes its last token, in a copy of the block
// that has it.
TEST(CoreForks, SequencesOfOnePromptShareItAndCopyOneBlock) {
  for (const bool prefix_caching : {true, false}) {
    SCOPED_TRACE(prefix_caching);
    const CoreOptions options{.sequences_max = 4, .prefix_caching = prefix_caching};
    Record record = MakeRecord("a", 14, 6);
    record.request.sequences = 4;
    ExpectForks(options, record, 3, 14 + 3);
    record.prompt_ids.resize(12);
    ExpectForks(options, record, 3, 12 + 3);
    record.prompt_ids.resize(13);  // The last token begins a block: whole blocks are shared.
    ExpectForks(options, record, 0, 13 + 3);
    record.prompt_ids.resize(1);
    ExpectForks(options, record, 0, 4);
  }
}

TEST(CoreForks, ARequestThatOptsOutStillSharesWithinItself) {
  Record record = MakeRecord("a", 14, 6);
  record.request.sequences = 4;
  record.cache.skip = true;
  ExpectForks({.sequences_max = 4}, record, 3, 14 + 3);
}

// ---- Several groups

class CoreTwoGroups : public testing::Test {
 protected:
  static constexpr GroupId kSecond{1};
  static GroupLimits Wide() {
    GroupLimits limits = CoreHarness::Limits();
    limits.blocks = 1000;
    limits.context_tokens = 1000;
    limits.step_tokens = 512;
    return limits;
  }
  explicit CoreTwoGroups(const CoreOptions& options = {}, const GroupLimits& limits = Wide())
      : harness_(options) {
    for (const GroupId id : {kGroup, kSecond}) {
      const GroupUp up = harness_.UpEvent(limits, 1, "kind", id);
      groups_.emplace(id, up);
      Take(harness_.Step(up));
    }
  }
  void Take(const Actions& actions) {
    for (const PlanOut& out : actions.plans) {
      plans_[out.group].push_back(out.plan);
      for (const Admit& admit : out.plan.admits) {
        ++admits_[out.group];
        last_admit_ = out.group;
        last_prompt_ = admit.prompt_tokens;
        EXPECT_EQ(admit.more, false);
      }
    }
  }
  // Answers `most` plans of each group.
  void Run(int most) {
    for (int i = 0; i < most; ++i) {
      for (auto& [id, group] : groups_) {
        if (plans_[id].empty()) continue;
        const StepPlan plan = plans_[id].front();
        plans_[id].pop_front();
        Take(harness_.Answer(group, plan, id));
      }
    }
  }
  // Where the actions of this admit a sequence; -1: nowhere.
  int32_t Ask(const Record& record) {
    last_admit_ = GroupId{-1};
    Take(harness_.Submit(record, next_attempt_++));
    return last_admit_.value;
  }
  int32_t Wait(TimeUs us) {
    last_admit_ = GroupId{-1};
    Take(harness_.Tick(us));
    return last_admit_.value;
  }

  CoreHarness harness_;
  std::map<GroupId, sim::FakeGroup> groups_;
  std::map<GroupId, std::deque<StepPlan>> plans_;
  std::map<GroupId, int> admits_;
  GroupId last_admit_{-1};
  int32_t last_prompt_ = 0;
  uint64_t next_attempt_ = 1;
};

class CoreTwoFullGroups : public CoreTwoGroups {
 protected:
  static GroupLimits Narrow() {
    GroupLimits limits = Wide();
    limits.blocks = 5000;
    limits.context_tokens = 4000;
    limits.step_tokens = 4000;
    limits.slots = 2;
    return limits;
  }
  explicit CoreTwoFullGroups(int32_t overtakes_max = 16)
      : CoreTwoGroups({.overtakes_max = overtakes_max}, Narrow()) {}

  // The group with the prefix has no slot, the other one has one and can be given no plan. A
  // sequence with the prefix waits, and after it comes one without. Returns the prompt of the one
  // that gets the slot.
  int32_t AdmittedFirst() {
    const int32_t with_prefix = Ask(MakeRecord("first", 3000, 1));
    Run(2);
    for (const char* id : {"r0", "r1"}) {
      Ask(MakeRecord(id, 3001, 300));
      Run(3);  // If the group's plans were in flight, it takes the request with its next plan.
      EXPECT_EQ(last_admit_.value, with_prefix) << id;
    }
    const int32_t other = 1 - with_prefix;
    EXPECT_EQ(Ask(Asking("r2", std::vector<TokenId>(50, 60), 300)), other);
    EXPECT_EQ(Ask(MakeRecord("with", 3001, 3)), -1);
    EXPECT_EQ(Ask(Asking("without", std::vector<TokenId>(70, 61), 3)), -1);
    Answer(GroupId{other});
    EXPECT_EQ(last_admit_.value, other);
    return last_prompt_;
  }
  void Answer(GroupId id) {
    const StepPlan plan = plans_[id].front();
    plans_[id].pop_front();
    Take(harness_.Answer(groups_.at(id), plan, id));
  }
};

TEST_F(CoreTwoFullGroups, ASequenceWhosePrefixIsInAFullGroupIsOvertaken) {
  EXPECT_EQ(AdmittedFirst(), 70);
  // There is no other one any more.
  for (int i = 0; i < 8 && last_prompt_ == 70; ++i) Answer(GroupId{last_admit_.value});
  EXPECT_EQ(last_prompt_, 3001);
  EXPECT_EQ(harness_.core.Stats().overtakes_total, 1u);
}

class CoreTwoFullGroupsInOrder : public CoreTwoFullGroups {
 protected:
  CoreTwoFullGroupsInOrder() : CoreTwoFullGroups(0) {}
};

TEST_F(CoreTwoFullGroupsInOrder, NobodyIsOvertakenWhereThatIsNotAllowed) {
  EXPECT_EQ(AdmittedFirst(), 3001);
}

TEST_F(CoreTwoGroups, ASequenceGoesWhereItsPrefixIsUntilThatGroupIsMuchBusier) {
  const int32_t with_prefix = Ask(MakeRecord("first", 400, 2));
  ASSERT_GE(with_prefix, 0);
  Run(5);
  // A sequence costs 1 token there and 128 for each that runs there, or 401 in the other group.
  for (int i = 0; i < 4; ++i) {
    Ask(MakeRecord("r" + std::to_string(i), 401, 300));
    Run(3);  // If the group's plans were in flight, it takes the request with its next plan.
    EXPECT_EQ(last_admit_.value, with_prefix) << i;
  }
  EXPECT_EQ(Ask(MakeRecord("last", 401, 300)), 1 - with_prefix);
}

TEST_F(CoreTwoGroups, AGroupThatGivesNoResultIsNotWaitedFor) {
  const int32_t with_prefix = Ask(MakeRecord("first", 400, 2));
  Run(5);
  ASSERT_EQ(Ask(MakeRecord("a", 401, 300)), with_prefix);
  // Its two plans are in flight. The next request waits for it, for a while.
  EXPECT_EQ(Ask(MakeRecord("b", 401, 300)), -1);
  EXPECT_EQ(harness_.core.NextWakeup(), harness_.now + kGroupSilentUs);
  EXPECT_EQ(Wait(kGroupSilentUs - 1), -1);
  EXPECT_EQ(Wait(1), 1 - with_prefix);
}

TEST_F(CoreTwoGroups, EmptyGroupsShareABurst) {
  for (int i = 0; i < 8; ++i) {
    Ask(Asking("r" + std::to_string(i), std::vector<TokenId>(50, 2 + i), 100));
  }
  Run(20);
  EXPECT_EQ(admits_[kGroup], 4);
  EXPECT_EQ(admits_[kSecond], 4);
}

}  // namespace
}  // namespace fathom::scheduler
