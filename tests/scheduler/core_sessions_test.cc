// Submit of new and of known keys, subscribers, suspension, Close, deadlines, limits.
#include <gtest/gtest.h>

#include "tests/scheduler/core_harness.h"

namespace fathom::scheduler {
namespace {

std::string ReasonOf(const Actions& actions) {
  if (actions.refused.size() != 1) return "not refused";
  return DetailOf(actions.refused[0].message.status)->reason;
}

class CoreSessions : public testing::Test {
 protected:
  CoreSessions() : runner_(harness_, harness_.UpEvent(CoreHarness::Limits())) {
    harness_.Up();
    for (uint64_t attempt = 1; attempt <= 4; ++attempt) runner_.Follow(attempt);
  }
  void Start(int32_t steps) {
    runner_.Take(harness_.Submit(record_, 1));
    for (int32_t i = 0; i < steps; ++i) ASSERT_TRUE(runner_.RunOne());
  }

  CoreHarness harness_;
  Runner runner_;
  Record record_ = MakeRecord("r", 5, 12);
};

TEST_F(CoreSessions, ASecondAttemptGetsWhatItLacksAndThenLives) {
  Start(4);
  auto again = CoreHarness::SubmitEvent(record_, 2, kOtherRouter);
  again.message.have = {2};
  runner_.Follow(2, 2);
  runner_.Take(harness_.Step(again));
  EXPECT_EQ(runner_.ledger(2).ids.size(), 2u);  // Of the 4 there are.
  runner_.RunAll();
  const std::vector<TokenId> expected = Expected(record_);
  EXPECT_EQ(runner_.ledger(1).ids, expected);
  EXPECT_EQ(runner_.ledger(2).ids, std::vector<TokenId>(expected.begin() + 2, expected.end()));
  EXPECT_EQ(runner_.ledger(2).fingerprints, std::vector<std::string>{"kind"});
  EXPECT_EQ(runner_.ledger(2).end->usage.completion_tokens, 12);
}

TEST_F(CoreSessions, AKeyAloneIsAnsweredWithRecordAndBlob) {
  Start(3);
  const Actions actions = harness_.Step(CoreHarness::KeyOnly(record_.key, 2));
  ASSERT_EQ(actions.accepted.size(), 1u);
  EXPECT_EQ(actions.accepted[0].message.router_blob, "blob");
  EXPECT_EQ(actions.accepted[0].message.record->prompt_ids, record_.prompt_ids);
  EXPECT_EQ(actions.accepted[0].message.record->sequences[0].ids.size(), 3u);
  EXPECT_EQ(ReasonOf(harness_.Step(CoreHarness::KeyOnly({"", "nobody"}, 3))), "SESSION_NOT_FOUND");
  EXPECT_EQ(ReasonOf(harness_.Step(CoreHarness::KeyOnly({"other tenant", "r"}, 4))),
            "SESSION_NOT_FOUND");
}

// A client with tokens of an earlier leader, of which this one has fewer: another kind of group may
// have made them. With the whole record the answer waits for that kind.
TEST_F(CoreSessions, AKeyAloneIsNotEnoughForAClientWithMoreTokens) {
  Start(3);
  auto event = CoreHarness::KeyOnly(record_.key, 2);
  event.message.have = {4};
  EXPECT_EQ(ReasonOf(harness_.Step(event)), "SESSION_NOT_FOUND");
  event.message.have = {3};
  runner_.Follow(2, 3);
  EXPECT_EQ(harness_.Step(event).accepted.size(), 1u);
  runner_.RunAll();
  event.message.attempt = AttemptId{3};
  event.message.have = {13};  // All of 12 tokens, and the end.
  EXPECT_EQ(harness_.Step(event).accepted.size(), 1u);
}

TEST_F(CoreSessions, AFinishedRecordIsAnsweredAndNotContinued) {
  Start(0);
  runner_.RunAll();
  runner_.Take(harness_.Submit(record_, 2));
  EXPECT_EQ(runner_.ledger(2).ids, Expected(record_));
  EXPECT_EQ(runner_.ledger(2).frames, 1);
  EXPECT_TRUE(runner_.ledger(2).end.has_value());
  EXPECT_TRUE(runner_.plans().empty());
  EXPECT_EQ(harness_.core.Stats().finished_total, 1u);
}

TEST_F(CoreSessions, AnotherBodyUnderTheSameKeyIsRefused) {
  Start(1);
  Record other = record_;
  other.request.sampling.temperature = 0.5f;
  EXPECT_EQ(ReasonOf(harness_.Submit(other, 2)), "REQUEST_ID_IN_USE");
  other = record_;
  other.prompt_ids.back() += 1;
  EXPECT_EQ(ReasonOf(harness_.Submit(other, 2)), "REQUEST_ID_IN_USE");
  other = record_;
  other.sequences = {{.ids = {63, 63}}};
  EXPECT_EQ(ReasonOf(harness_.Submit(other, 2)), "RECORD_MISMATCH");
  other.sequences = {{.ids = {Expected(record_)[0]}, .fingerprints = {{0, "other kind"}}}};
  EXPECT_EQ(ReasonOf(harness_.Submit(other, 2)), "FINGERPRINT_MISMATCH");
}

TEST_F(CoreSessions, LongerIdsAreTakenOver) {
  Start(2);
  Record longer = record_;
  const std::vector<TokenId> expected = Expected(record_);
  longer.sequences = {{.ids = {expected.begin(), expected.begin() + 9}}};
  longer.sequences[0].fingerprints = {{0, "kind", KindOf("kind")}};
  auto event = CoreHarness::SubmitEvent(longer, 2, kOtherRouter);
  event.message.have = {9};
  runner_.Follow(2, 9);
  runner_.Take(harness_.Step(event));
  EXPECT_EQ(runner_.ledger(1).ids.size(), 9u);  // The first listener gets them too.
  runner_.RunAll();
  EXPECT_EQ(runner_.ledger(1).ids, expected);
  EXPECT_EQ(runner_.ledger(2).ids, std::vector<TokenId>(expected.begin() + 9, expected.end()));
}

TEST_F(CoreSessions, AReplayedRecordGoesOnWhereItWas) {
  Record replayed = record_;
  const std::vector<TokenId> expected = Expected(record_);
  replayed.sequences = {{.ids = {expected.begin(), expected.begin() + 7}}};
  replayed.sequences[0].fingerprints = {{0, "kind", KindOf("kind")}};
  auto event = CoreHarness::SubmitEvent(replayed, 1);
  event.message.replay = true;
  event.message.have = {7};
  runner_.Follow(1, 7);
  const Actions actions = harness_.Step(event);
  EXPECT_EQ(actions.plans[0].plan.admits[0].prompt_tokens, 5);
  EXPECT_EQ(actions.plans[0].plan.admits[0].ids.size(), 12u);
  runner_.Take(actions);
  runner_.RunAll();
  EXPECT_EQ(runner_.ledger(1).ids, std::vector<TokenId>(expected.begin() + 7, expected.end()));
}

TEST_F(CoreSessions, ASuspensionFreesBlocksAtOnceAndLateTokensStillCount) {
  Start(3);
  ASSERT_EQ(runner_.plans().size(), 2u);  // Tokens 3 and 4 are in flight.
  runner_.Take(
      harness_.Step(Routed<Suspend>{kRouter, {AttemptId{9}, record_.key}}));  // Not its attempt.
  EXPECT_GT(harness_.core.Stats().blocks_used, 0);
  runner_.Take(harness_.Step(Routed<Suspend>{kRouter, {AttemptId{1}, record_.key}}));
  EXPECT_EQ(harness_.core.Stats().blocks_used, 0);
  EXPECT_EQ(harness_.core.Stats().requests_running, 0);
  // The session is submitted again with 3 ids while rows 3 and 4 are in flight. Token 3 is computed
  // before and after the suspension; one of the two is dropped.
  auto again = CoreHarness::SubmitEvent(record_, 2);
  again.message.have = {3};
  runner_.Follow(2, 3);
  runner_.Take(harness_.Step(again));
  runner_.RunAll();
  const std::vector<TokenId> expected = Expected(record_);
  EXPECT_EQ(runner_.ledger(1).ids, std::vector<TokenId>(expected.begin(), expected.begin() + 3));
  EXPECT_EQ(runner_.ledger(2).ids, std::vector<TokenId>(expected.begin() + 3, expected.end()));
  EXPECT_EQ(harness_.core.Stats().tokens_dropped_total, 1u);
  EXPECT_EQ(runner_.ledger(2).timings->suspensions, 1);
}

TEST_F(CoreSessions, OneOfTwoListenersMayLeave) {
  Start(2);
  runner_.Take(harness_.Submit(record_, 2, kOtherRouter));
  runner_.Take(harness_.Step(Routed<Suspend>{kRouter, {AttemptId{1}, record_.key}}));
  EXPECT_EQ(harness_.core.Stats().requests_running, 1);
  runner_.RunAll();
  EXPECT_EQ(runner_.ledger(2).ids, Expected(record_));
  EXPECT_FALSE(runner_.ledger(1).end.has_value());
}

TEST_F(CoreSessions, ALostRoutersSessionsRunFiveSecondsMore) {
  Start(2);
  runner_.Take(harness_.Step(RouterLost{kRouter}));
  runner_.Take(harness_.Tick(4'999'999));
  EXPECT_EQ(harness_.core.Stats().requests_running, 1);
  EXPECT_EQ(harness_.core.NextWakeup(), harness_.now + 1);
  runner_.Take(harness_.Tick(1));
  EXPECT_EQ(harness_.core.Stats().requests_running, 0);
  EXPECT_EQ(harness_.core.Stats().blocks_used, 0);
  EXPECT_EQ(harness_.core.Stats().sessions, 1);
  runner_.Take(harness_.Tick(59'999'999));
  EXPECT_EQ(harness_.core.Stats().sessions, 1);
  runner_.Take(harness_.Tick(1));
  EXPECT_EQ(harness_.core.Stats().sessions, 0);
  EXPECT_EQ(harness_.core.Stats().session_bytes, 0);
  runner_.RunAll();  // Rows in flight of a session that is gone.
}

TEST_F(CoreSessions, CloseCutsAndLaterTokensAreDropped) {
  Start(6);
  ASSERT_EQ(runner_.ledger(1).ids.size(), 6u);
  runner_.Take(
      harness_.Step(Routed<Close>{kRouter, {record_.key, 0, 4, FinishReason::kStopString}}));
  ASSERT_TRUE(runner_.ledger(1).end.has_value());
  EXPECT_EQ(runner_.ledger(1).end->reason, FinishReason::kStopString);
  EXPECT_EQ(runner_.ledger(1).end->usage.completion_tokens, 4);
  EXPECT_EQ(harness_.core.Stats().blocks_used, 0);
  runner_.RunAll();
  EXPECT_EQ(harness_.core.Stats().tokens_dropped_total, 2u);
  const Actions actions = harness_.Step(CoreHarness::KeyOnly(record_.key, 2));
  EXPECT_EQ(actions.accepted[0].message.record->sequences[0].ids.size(), 4u);
  EXPECT_EQ(actions.accepted[0].message.record->sequences[0].finish, FinishReason::kStopString);
}

TEST_F(CoreSessions, EndAndStopTokensEndASequenceAndAreItsLast) {
  const TokenId fourth = Expected(record_)[3];
  record_.request.stop.end_token_ids = {fourth};
  Record stopped = record_;
  stopped.key.request_id = "s";
  std::swap(stopped.request.stop.end_token_ids, stopped.request.stop.stop_token_ids);
  Start(0);
  runner_.Take(harness_.Submit(stopped, 2));
  runner_.RunAll();
  EXPECT_EQ(runner_.ledger(1).ids.back(), fourth);
  EXPECT_EQ(runner_.ledger(1).end->reason, FinishReason::kEndToken);
  EXPECT_EQ(runner_.ledger(2).ids, runner_.ledger(1).ids);
  EXPECT_EQ(runner_.ledger(2).end->reason, FinishReason::kStopToken);
  EXPECT_GT(harness_.core.Stats().tokens_dropped_total, 0u);  // The rows that ran ahead.
}

TEST_F(CoreSessions, ADeadlineEndsWhatRunsAndWhatWaits) {
  auto event = CoreHarness::SubmitEvent(record_, 1);
  event.message.deadline_us = 1000;
  runner_.Take(harness_.Step(event));
  ASSERT_TRUE(runner_.RunOne());
  EXPECT_EQ(harness_.core.NextWakeup(), harness_.now + 1000);
  runner_.Take(harness_.Tick(1000));
  ASSERT_TRUE(runner_.ledger(1).end.has_value());
  EXPECT_EQ(runner_.ledger(1).end->reason, FinishReason::kDeadline);
  EXPECT_EQ(runner_.ledger(1).ids.size(), 1u);
  EXPECT_EQ(harness_.core.Stats().blocks_used, 0);

  CoreHarness idle;  // No group: it waits.
  event.message.deadline_us = 5;
  idle.Step(event);
  const Actions actions = idle.Tick(5);
  ASSERT_EQ(actions.frames.size(), 1u);
  EXPECT_EQ(actions.frames[0].message.finish->reason, FinishReason::kDeadline);
}

TEST_F(CoreSessions, AFaultHarmsItsRowOnly) {
  Record faulty = record_;
  faulty.key.request_id = "faulty";
  while (sim::FaultAt(faulty.seed) != 2) ++faulty.seed;
  Start(1);
  runner_.Take(harness_.Submit(faulty, 2));
  runner_.RunAll();
  EXPECT_EQ(runner_.ledger(1).ids, Expected(record_));
  EXPECT_EQ(runner_.ledger(2).ids.size(), 2u);
  EXPECT_EQ(runner_.ledger(2).error.code(), absl::StatusCode::kInternal);
  EXPECT_EQ(DetailOf(runner_.ledger(2).error)->reason, "NON_FINITE_LOGITS");
  EXPECT_FALSE(runner_.ledger(2).end.has_value());
  EXPECT_EQ(harness_.core.Stats().failed_total, 1u);
}

TEST_F(CoreSessions, ALostGroupsSessionsReplayFirstWithTheTokensTheyHave) {
  Start(5);
  harness_.Step(GroupLost{kGroup, EpochId{7}});  // Another epoch: nothing.
  EXPECT_EQ(harness_.core.Stats().groups, 1);
  runner_.Take(harness_.Step(GroupLost{kGroup, EpochId{1}}));
  EXPECT_EQ(harness_.core.Stats().requests_waiting, 1);
  harness_.now += 10;
  harness_.Submit(MakeRecord("younger", 5, 2), 7);
  const Actions actions = harness_.Up(CoreHarness::Limits(), 2);
  ASSERT_EQ(actions.plans[0].plan.admits.size(), 2u);
  EXPECT_EQ(actions.plans[0].plan.admits[0].ids.size(), 10u);  // 5 of the prompt, 5 generated.
  Runner next(harness_, harness_.UpEvent(CoreHarness::Limits(), 2));
  next.Follow(1, 5);
  next.Take(actions);
  next.RunAll();
  const std::vector<TokenId> expected = Expected(record_);
  EXPECT_EQ(next.ledger(1).ids, std::vector<TokenId>(expected.begin() + 5, expected.end()));
}

TEST_F(CoreSessions, PromptLogprobsComeOnceInOrderToEachAttempt) {
  record_.prompt_ids = MakeRecord("", 40, 1).prompt_ids;
  record_.request.output.prompt_logprobs = 0;
  Start(1);
  runner_.Take(harness_.Step(Routed<Suspend>{kRouter, {AttemptId{1}, record_.key}}));
  EXPECT_EQ(runner_.ledger(1).prompt_logprobs.size(), 16u);
  runner_.Take(harness_.Submit(record_, 2));
  runner_.RunAll();
  EXPECT_EQ(runner_.ledger(2).prompt_logprobs.size(), 39u);
  EXPECT_EQ(runner_.ledger(2).ids, Expected(record_));
}

// A leader that has only the records of routers. An answer that is complete in one router's record
// is never computed again, so another router can get it only from that record.
TEST_F(CoreSessions, PromptLogprobsOfARecordReachEveryRouter) {
  record_.request.output.prompt_logprobs = 0;
  const size_t scored = record_.prompt_ids.size() - 1;
  for (const size_t tokens : {size_t{0}, size_t{5}, size_t{12}}) {
    SCOPED_TRACE(tokens);
    CoreHarness harness;
    Record whole = record_;
    const std::vector<TokenId> expected = Expected(record_);
    whole.sequences = {
        {.ids = {expected.begin(), expected.begin() + static_cast<ptrdiff_t>(tokens)}}};
    whole.sequences[0].fingerprints = {{0, "kind", KindOf("kind")}};
    for (size_t i = 0; i < scored; ++i)
      whole.prompt_logprobs.push_back({.id = record_.prompt_ids[i + 1], .logprob = -1.0f});
    auto first = CoreHarness::SubmitEvent(whole, 1);
    first.message.have = {static_cast<int32_t>(tokens)};
    first.message.replay = true;
    for (const auto& [router, frame] : harness.Step(first).frames)
      EXPECT_FALSE(frame.prompt_logprobs);
    const Actions known = harness.Step(CoreHarness::KeyOnly(record_.key, 2, kOtherRouter));
    EXPECT_EQ(known.accepted.at(0).message.record->prompt_logprobs, whole.prompt_logprobs);
    for (const auto& [router, frame] : known.frames) EXPECT_FALSE(frame.prompt_logprobs);
    // A third router has only the request, as when a client repeats it.
    const Actions repeated = harness.Submit(record_, 3, kOtherRouter);
    ASSERT_FALSE(repeated.frames.empty());
    ASSERT_TRUE(repeated.frames[0].message.prompt_logprobs);
    EXPECT_EQ(repeated.frames[0].message.prompt_logprobs->logprobs, whole.prompt_logprobs);
  }
}

TEST_F(CoreSessions, ALongerRecordsPromptLogprobsAreTakenOver) {
  record_.request.output.prompt_logprobs = 0;
  runner_.Take(harness_.Submit(record_, 1));  // Nothing is computed yet.
  Record whole = record_;
  whole.sequences = {{.ids = Expected(record_)}};
  whole.sequences[0].fingerprints = {{0, "kind", KindOf("kind")}};
  whole.prompt_logprobs.assign(record_.prompt_ids.size() - 1, {.id = 1, .logprob = -1.0f});
  runner_.Take(harness_.Step(CoreHarness::SubmitEvent(whole, 2, kOtherRouter)));
  EXPECT_EQ(runner_.ledger(1).prompt_logprobs.size(), record_.prompt_ids.size() - 1);
  EXPECT_EQ(runner_.ledger(1).ids, Expected(record_));
}

TEST_F(CoreSessions, MorePromptLogprobsThanThePromptHasAreRefused) {
  record_.prompt_logprobs.resize(1);  // Not asked for.
  EXPECT_EQ(ReasonOf(harness_.Submit(record_, 1)), "RECORD_INVALID");
  record_.request.output.prompt_logprobs = 0;
  record_.prompt_logprobs.resize(record_.prompt_ids.size());
  EXPECT_EQ(ReasonOf(harness_.Submit(record_, 1)), "RECORD_INVALID");
}

TEST(CoreRepeats, WhatFailedIsTriedAgainByARepetitionAndToldToAReplay) {
  CoreHarness harness;
  harness.Submit(MakeRecord("r", 100, 100), 1);
  harness.Up();
  const Actions failed = harness.Tick(30'000'000);
  ASSERT_EQ(failed.frames.size(), 1u);
  ASSERT_FALSE(failed.frames[0].message.error.ok());
  // A router that missed the end asks again for the same answer.
  auto replay = CoreHarness::SubmitEvent(MakeRecord("r", 100, 100), 2, kOtherRouter);
  replay.message.replay = true;
  const Actions told = harness.Step(replay);
  ASSERT_EQ(told.frames.size(), 1u);
  EXPECT_EQ(told.frames[0].message.error, failed.frames[0].message.error);
  // A client repeats the request with the values that the error proposed, under the same id.
  const Record shorter = MakeRecord("r", 100, 20);
  const GroupUp up = harness.UpEvent(CoreHarness::Limits());
  Runner runner(harness, up);
  runner.Follow(3);
  runner.Take(harness.Submit(shorter, 3));
  runner.RunAll();
  EXPECT_EQ(runner.ledger(3).ids, Expected(shorter));
}

TEST(CoreRepeats, AReplayWaitsForTheGroupThatItFits) {
  CoreHarness harness;
  GroupLimits small = CoreHarness::Limits();
  small.context_tokens = 16;
  harness.Step(harness.UpEvent(small));
  const Record record = MakeRecord("r", 5, 40);
  EXPECT_EQ(ReasonOf(harness.Submit(record, 1)), "CONTEXT_LENGTH_EXCEEDED");
  auto replay = CoreHarness::SubmitEvent(record, 2);
  replay.message.replay = true;
  EXPECT_EQ(harness.Step(replay).accepted.size(), 1u);
  const GroupUp large = harness.UpEvent(CoreHarness::Limits(), 1, "kind", GroupId{1});
  Runner runner(harness, large);
  runner.Follow(2);
  runner.Take(harness.Step(large));
  runner.RunAll();
  EXPECT_EQ(runner.ledger(2).ids, Expected(record));
}

TEST(CoreLimits, TheQueueIsBoundedForFirstTimersOnly) {
  CoreHarness harness({.waiting_requests_max = 2, .waiting_tokens_max = 20});
  EXPECT_EQ(harness.Submit(MakeRecord("a", 30, 2), 1).accepted.size(), 1u);  // One always gets in.
  EXPECT_EQ(ReasonOf(harness.Submit(MakeRecord("b", 1, 2), 2)), "QUEUE_FULL");
  CoreHarness second({.waiting_requests_max = 2, .waiting_tokens_max = 20});
  second.Submit(MakeRecord("a", 3, 2), 1);
  second.Submit(MakeRecord("b", 3, 2), 2);
  const Actions full = second.Submit(MakeRecord("c", 3, 2), 3);
  EXPECT_EQ(ReasonOf(full), "QUEUE_FULL");
  EXPECT_EQ(full.refused[0].message.status.code(), absl::StatusCode::kResourceExhausted);
  EXPECT_GT(DetailOf(full.refused[0].message.status)->retry_after_ms, 0);
  auto replay = CoreHarness::SubmitEvent(MakeRecord("c", 3, 2), 4);
  replay.message.replay = true;
  EXPECT_EQ(second.Step(replay).accepted.size(), 1u);
}

TEST(CoreLimits, SessionMemoryDropsTheOldestKeptAndRefusesWhenAllAreLive) {
  CoreHarness harness({.session_memory_bytes_max = 7000});
  harness.Submit(MakeRecord("a", 3, 2), 1);
  harness.Submit(MakeRecord("b", 3, 2), 2);
  harness.Submit(MakeRecord("c", 3, 2), 3);
  EXPECT_EQ(ReasonOf(harness.Submit(MakeRecord("d", 3, 2), 4)), "SESSION_MEMORY_FULL");
  harness.Step(Routed<Suspend>{kRouter, {AttemptId{2}, {"", "b"}}});
  harness.Tick(1);
  harness.Step(Routed<Suspend>{kRouter, {AttemptId{1}, {"", "a"}}});
  EXPECT_EQ(harness.Submit(MakeRecord("d", 3, 2), 5).accepted.size(), 1u);
  EXPECT_EQ(ReasonOf(harness.Step(CoreHarness::KeyOnly({"", "b"}, 6))), "SESSION_NOT_FOUND");
  EXPECT_EQ(harness.Step(CoreHarness::KeyOnly({"", "a"}, 7)).accepted.size(), 1u);
}

TEST(CoreLimits, WhatARecordMustBe) {
  CoreHarness harness;
  harness.Up();
  auto refused = [&](auto change) {
    Record record = MakeRecord("r", 5, 4);
    change(record);
    auto event = CoreHarness::SubmitEvent(record, 1);
    event.message.key = {"", "r"};
    const Actions actions = harness.Step(event);
    return actions.refused.size() == 1 ? actions.refused[0].message.status : absl::OkStatus();
  };
  const absl::Status many = refused([](Record& r) { r.request.sequences = kSequencesMax + 1; });
  EXPECT_EQ(many.code(), absl::StatusCode::kUnimplemented);
  EXPECT_EQ(DetailOf(many)->field, "sampling.n");
  const absl::StatusCode invalid = absl::StatusCode::kInvalidArgument;
  EXPECT_EQ(refused([](Record& r) { r.request.sequences = 0; }).code(), invalid);
  EXPECT_EQ(refused([](Record& r) { r.prompt_ids.clear(); }).code(), invalid);
  EXPECT_EQ(refused([](Record& r) { r.request.stop.max_tokens = 0; }).code(), invalid);
  EXPECT_EQ(refused([](Record& r) { r.key.request_id = "x"; }).code(), invalid);
  EXPECT_EQ(refused([](Record& r) { r.sequences.resize(2); }).code(), invalid);
  EXPECT_EQ(refused([](Record& r) { r.sequences = {{.ids = {1, 2, 3, 4, 5}}}; }).code(), invalid);
  EXPECT_EQ(refused([](Record& r) { r.sequences = {{.ids = {1}, .logprobs = {{}}}}; }).code(),
            invalid);
  const absl::Status context = refused([](Record& r) { r.request.stop.max_tokens = INT32_MAX; });
  EXPECT_EQ(DetailOf(context)->reason, "CONTEXT_LENGTH_EXCEEDED");
  EXPECT_NE(Message(context).find("lower max_tokens to 123"), std::string::npos);
  EXPECT_TRUE(refused([](Record& r) { r.request.sequences = kSequencesMax; }).ok());
}

TEST(CoreLimits, WhatWaitsAndFitsNoGroupFailsByNameAfterHalfAMinute) {
  CoreHarness harness;
  harness.Submit(MakeRecord("r", 100, 100), 1);  // No group yet: nothing is known.
  EXPECT_TRUE(harness.Up().frames.empty());
  const Actions actions = harness.Tick(30'000'000);
  ASSERT_EQ(actions.frames.size(), 1u);
  EXPECT_EQ(DetailOf(actions.frames[0].message.error)->reason, "CONTEXT_LENGTH_EXCEEDED");
}

}  // namespace
}  // namespace fathom::scheduler
