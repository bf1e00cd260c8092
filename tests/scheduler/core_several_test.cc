// Requests for several sequences (n > 1) in the core: each sequence is computed by itself and ends
// by itself, and the request is one session.
#include <gtest/gtest.h>

#include <set>
#include <string>
#include <vector>

#include "tests/scheduler/core_harness.h"

namespace fathom::scheduler {
namespace {

class CoreSeveral : public testing::Test {
 protected:
  CoreSeveral() { record_ = Several(MakeRecord("r", 5, 12), 3); }

  static Record Several(Record record, int32_t sequences) {
    record.request.sequences = sequences;
    return record;
  }
  void Follow(Runner& runner, uint64_t attempt, const std::vector<int32_t>& have = {}) const {
    for (int32_t i = 0; i < record_.request.sequences; ++i) {
      const auto at = static_cast<size_t>(i);
      runner.Follow(attempt, at < have.size() ? have[at] : 0, i);
    }
  }
  // A group, and the request with at least `tokens` tokens of its first sequence.
  void Start(size_t tokens) {
    harness_.Up();
    Follow(runner_, 1);
    runner_.Take(harness_.Submit(record_, 1));
    while (runner_.ledger(1).ids.size() < tokens && runner_.RunOne()) {
    }
    ASSERT_GE(runner_.ledger(1).ids.size(), tokens);
  }
  std::vector<TokenId> Tail(int32_t sequence, size_t from) const {
    const std::vector<TokenId> all = Expected(record_, "kind", sequence);
    return {all.begin() + static_cast<ptrdiff_t>(from), all.end()};
  }
  // Drops what is in flight: its group is lost.
  Runner Restart(uint64_t epoch) {
    harness_.Step(GroupLost{kGroup, EpochId{epoch - 1}});
    return Runner(harness_, harness_.UpEvent(CoreHarness::Limits(), epoch));
  }

  CoreHarness harness_;
  Runner runner_{harness_, harness_.UpEvent(CoreHarness::Limits())};
  Record record_;
};

TEST_F(CoreSeveral, SequenceIHasTheSameTokensForEveryNAboveI) {
  for (const int32_t n : {1, 2, 5, 20}) {  // 20 sequences, 8 slots.
    SCOPED_TRACE(n);
    CoreHarness harness;
    Runner runner(harness, harness.UpEvent(CoreHarness::Limits()));
    harness.Up();
    for (int32_t i = 0; i < n; ++i) runner.Follow(1, 0, i);
    runner.Take(harness.Submit(Several(record_, n), 1));
    runner.RunAll();
    std::set<std::vector<TokenId>> different;
    for (int32_t i = 0; i < n; ++i) {
      const Ledger& ledger = runner.ledger(1, i);
      EXPECT_EQ(ledger.ids, Expected(record_, "kind", i));
      ASSERT_TRUE(ledger.end.has_value());
      EXPECT_EQ(ledger.end->reason, FinishReason::kLength);
      EXPECT_EQ(ledger.end->usage.prompt_tokens, 5);
      EXPECT_EQ(ledger.end->usage.completion_tokens, 12);
      EXPECT_EQ(ledger.fingerprints, std::vector<std::string>{"kind"});
      different.insert(ledger.ids);
    }
    EXPECT_EQ(different.size(), static_cast<size_t>(n));
    const CoreStats stats = harness.core.Stats();
    EXPECT_EQ(stats.blocks_used, 0);
    EXPECT_EQ(stats.sessions, 1);
    EXPECT_EQ(stats.finished_total, static_cast<uint64_t>(n));
  }
}

TEST_F(CoreSeveral, ACloseEndsItsSequenceAndTheOthersGoOn) {
  Start(6);  // The second sequence begins when the first one has computed the prompt.
  const int32_t before = harness_.core.Stats().requests_running;
  runner_.Take(harness_.Step(Routed<Close>{kRouter, {record_.key, 1, 3}}));
  EXPECT_EQ(harness_.core.Stats().requests_running, before - 1);
  ASSERT_TRUE(runner_.ledger(1, 1).end.has_value());
  EXPECT_EQ(runner_.ledger(1, 1).end->reason, FinishReason::kStopString);
  EXPECT_EQ(runner_.ledger(1, 1).end->usage.completion_tokens, 3);
  runner_.RunAll();
  for (const int32_t i : {0, 2}) EXPECT_EQ(runner_.ledger(1, i).ids, Expected(record_, "kind", i));
  EXPECT_EQ(harness_.core.Stats().blocks_used, 0);
  // Closes of sequences that the request does not have, or that have ended, change nothing.
  for (const int32_t i : {-1, 1, 3, INT32_MAX}) {
    EXPECT_TRUE(harness_.Step(Routed<Close>{kRouter, {record_.key, i, 1}}).frames.empty());
  }
}

TEST_F(CoreSeveral, AClientThatLeavesFreesAllSequencesAndComesBackToEachWhereItWas) {
  Start(4);
  harness_.Step(Routed<Suspend>{kRouter, {AttemptId{1}, record_.key}});
  EXPECT_EQ(harness_.core.Stats().blocks_used, 0);
  EXPECT_EQ(harness_.core.Stats().requests_running + harness_.core.Stats().requests_waiting, 0);
  runner_.RunAll();  // The results of the plans in flight.
  auto again = CoreHarness::SubmitEvent(record_, 2);
  again.message.have = {4, 1, 0};
  Follow(runner_, 2, {4, 1, 0});
  runner_.Take(harness_.Step(again));
  runner_.RunAll();
  EXPECT_EQ(runner_.ledger(2, 0).ids, Tail(0, 4));
  EXPECT_EQ(runner_.ledger(2, 1).ids, Tail(1, 1));
  EXPECT_EQ(runner_.ledger(2, 2).ids, Tail(2, 0));
}

TEST_F(CoreSeveral, ALostGroupReplaysEachSequence) {
  Start(4);
  Runner next = Restart(2);
  std::vector<int32_t> have;
  for (int32_t i = 0; i < 3; ++i) {
    have.push_back(static_cast<int32_t>(runner_.ledger(1, i).ids.size()));
  }
  Follow(next, 1, have);
  next.Take(harness_.Up(CoreHarness::Limits(), 2));
  next.RunAll();
  for (int32_t i = 0; i < 3; ++i) {
    EXPECT_EQ(next.ledger(1, i).ids, Tail(i, static_cast<size_t>(have[static_cast<size_t>(i)])));
  }
}

// A new leader has only a router's record, in which one sequence has ended: it is not computed.
TEST_F(CoreSeveral, ANewLeaderComputesOnlyWhatHasNotEnded) {
  Record record = record_;
  record.sequences.resize(3);
  for (int32_t i = 0; i < 3; ++i) {
    SequenceRecord& sequence = record.sequences[static_cast<size_t>(i)];
    const std::vector<TokenId> all = Expected(record_, "kind", i);
    sequence.ids.assign(all.begin(), all.begin() + 2 + i);
    sequence.fingerprints = {{0, "kind", KindOf("kind")}};
  }
  record.sequences[1].finish = FinishReason::kStopString;
  auto event = CoreHarness::SubmitEvent(record, 1);
  event.message.replay = true;
  event.message.have = {2, 3, 4};
  harness_.Up();
  Follow(runner_, 1, event.message.have);
  runner_.Take(harness_.Step(event));
  std::set<int32_t> admitted;
  do {
    for (const Admit& admit : runner_.plans().at(0).admits) admitted.insert(admit.sequence);
  } while (runner_.RunOne() && !runner_.plans().empty());
  EXPECT_EQ(admitted, (std::set<int32_t>{0, 2}));
  EXPECT_EQ(runner_.ledger(1, 0).ids, Tail(0, 2));
  EXPECT_TRUE(runner_.ledger(1, 1).ids.empty());
  EXPECT_EQ(runner_.ledger(1, 1).end->reason, FinishReason::kStopString);
  EXPECT_EQ(runner_.ledger(1, 2).ids, Tail(2, 4));
}

TEST_F(CoreSeveral, TheFailureOfOneSequenceEndsTheRequest) {
  while (sim::FaultAt(record_.seed) != 2) ++record_.seed;
  harness_.Up();
  Follow(runner_, 1);
  runner_.Take(harness_.Submit(record_, 1));
  runner_.RunAll();
  for (int32_t i = 0; i < 3; ++i) {
    EXPECT_EQ(DetailOf(runner_.ledger(1, i).error)->reason, "NON_FINITE_LOGITS") << i;
    EXPECT_FALSE(runner_.ledger(1, i).end.has_value());
  }
  EXPECT_EQ(harness_.core.Stats().blocks_used, 0);
  EXPECT_EQ(harness_.core.Stats().failed_total, 3u);
}

TEST_F(CoreSeveral, ADeadlineEndsTheSequencesThatHaveNotEnded) {
  auto event = CoreHarness::SubmitEvent(record_, 1);
  event.message.deadline_us = 50;
  harness_.Up();
  Follow(runner_, 1);
  runner_.Take(harness_.Step(event));
  while (runner_.ledger(1).ids.size() < 2) ASSERT_TRUE(runner_.RunOne());
  runner_.Take(harness_.Step(Routed<Close>{kRouter, {record_.key, 0, 1}}));
  runner_.Take(harness_.Tick(50));
  EXPECT_EQ(runner_.ledger(1, 0).end->reason, FinishReason::kStopString);
  EXPECT_EQ(runner_.ledger(1, 1).end->reason, FinishReason::kDeadline);
  EXPECT_EQ(runner_.ledger(1, 2).end->reason, FinishReason::kDeadline);
  EXPECT_EQ(harness_.core.Stats().blocks_used, 0);
}

TEST_F(CoreSeveral, PromptLogprobsComeOnceAndBeforeTheTokensOfEverySequence) {
  record_.prompt_ids = MakeRecord("", 40, 1).prompt_ids;
  record_.request.output.prompt_logprobs = 0;
  harness_.Up();
  Follow(runner_, 1);
  runner_.Take(harness_.Submit(record_, 1));
  bool complete = true;
  while (runner_.RunOne()) {
    const bool tokens = !runner_.ledger(1, 1).ids.empty() || !runner_.ledger(1, 2).ids.empty();
    if (tokens && runner_.ledger(1).prompt_logprobs.size() != 39) complete = false;
  }
  EXPECT_TRUE(complete);
  EXPECT_EQ(runner_.ledger(1).prompt_logprobs.size(), 39u);
  for (int32_t i = 0; i < 3; ++i) {
    EXPECT_EQ(runner_.ledger(1, i).ids, Expected(record_, "kind", i));
  }
}

// Slots for one sequence in each group, and another model in the second one.
TEST_F(CoreSeveral, NoAnswerIsOfSequencesOfTwoModels) {
  GroupLimits limits = CoreHarness::Limits();
  limits.slots = 1;
  const GroupUp first = harness_.UpEvent(limits, 1, "kind", GroupId{0});
  const GroupUp second = harness_.UpEvent(limits, 2, "model-b", GroupId{1});
  harness_.Step(first);
  Runner a(harness_, first), b(harness_, second);
  Follow(a, 1);
  const auto both = [&](const Actions& actions) {
    a.Take(actions);
    b.Take(actions);
  };
  both(harness_.Submit(record_, 1));
  both(harness_.Step(second));
  a.RunAll();
  EXPECT_TRUE(b.plans().empty());
  for (int32_t i = 0; i < 3; ++i) {
    EXPECT_EQ(a.ledger(1, i).ids, Expected(record_, "kind", i)) << i;
    EXPECT_EQ(a.ledger(1, i).fingerprints, std::vector<std::string>{"kind"});
  }
}

// The same with groups that differ only in their device: each sequence has spans of its own.
TEST_F(CoreSeveral, EachSequenceKnowsTheKindsThatMadeIt) {
  Start(4);
  std::vector<int32_t> have;
  for (int32_t i = 0; i < 3; ++i) {
    have.push_back(static_cast<int32_t>(runner_.ledger(1, i).ids.size()));
  }
  harness_.Step(Routed<Close>{kRouter, {record_.key, 2, 2}});
  harness_.Step(GroupLost{kGroup, EpochId{1}});
  const GroupUp other = harness_.UpEvent(CoreHarness::Limits(), 2, "kind-b");
  harness_.Step(other);
  Runner next(harness_, other);
  Follow(next, 1, have);
  next.Take(harness_.Tick(30'000'000));
  next.RunAll();
  const Actions told = harness_.Step(CoreHarness::KeyOnly(record_.key, 2));
  const auto& sequences = told.accepted.at(0).message.record->sequences;
  const FingerprintSpan a{0, "kind", KindOf("kind")};
  for (size_t i = 0; i < 2; ++i) {
    const FingerprintSpan b{have[i], "kind-b", KindOf("kind-b")};
    EXPECT_EQ(sequences[i].fingerprints, (std::vector<FingerprintSpan>{a, b})) << i;
    EXPECT_EQ(sequences[i].ids.size(), 12u);
  }
  EXPECT_EQ(sequences[2].fingerprints, std::vector<FingerprintSpan>{a});
}

TEST_F(CoreSeveral, ExplainTellsOfTheSlowestSequenceAndTheTokensOfAll) {
  Start(3);
  runner_.Take(harness_.Step(Routed<Close>{kRouter, {record_.key, 0, 3}}));
  harness_.now += 1000;
  const Explained running = harness_.core.Explain(record_.key, harness_.now);
  EXPECT_EQ(running.timings.phase, RequestPhase::kDecode);
  int32_t generated = 3;
  for (const int32_t i : {1, 2}) {
    generated += static_cast<int32_t>(runner_.ledger(1, i).ids.size());
  }
  EXPECT_EQ(running.generated_tokens, generated);
  runner_.RunAll();
  const Explained ended = harness_.core.Explain(record_.key, harness_.now);
  EXPECT_EQ(ended.timings.phase, RequestPhase::kEnded);
  EXPECT_EQ(ended.generated_tokens, 3 + 12 + 12);
  EXPECT_GE(ended.timings.WholeUs(), 1000);
}

TEST_F(CoreSeveral, TheQueueAndTheMemoryCountEverySequence) {
  CoreOptions options;
  options.waiting_requests_max = 4;
  options.waiting_tokens_max = 30;
  // What a second request is refused for, if one of 3 sequences and 5 tokens waits.
  const auto refused = [&](int32_t prompt, int32_t n) {
    CoreHarness harness(options);
    EXPECT_TRUE(harness.Submit(Several(MakeRecord("first", 5, 4), 3), 1).refused.empty());
    const Actions actions = harness.Submit(Several(MakeRecord("second", prompt, 4), n), 2);
    return actions.refused.empty() ? "" : DetailOf(actions.refused[0].message.status)->reason;
  };
  EXPECT_EQ(refused(1, 2), "QUEUE_FULL");
  EXPECT_EQ(refused(16, 1), "QUEUE_FULL");
  EXPECT_EQ(refused(5, 1), "");
  CoreHarness empty(options);
  EXPECT_TRUE(empty.Submit(Several(MakeRecord("large", 5, 4), 100), 1).refused.empty());

  CoreHarness one, many;
  one.Submit(Several(MakeRecord("r", 5, 4), 1), 1);
  many.Submit(Several(MakeRecord("r", 5, 4), 100), 1);
  EXPECT_GE(many.core.Stats().session_bytes, 50 * one.core.Stats().session_bytes / 2);
}

}  // namespace
}  // namespace fathom::scheduler
