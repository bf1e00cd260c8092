// The content of plans: run-ahead, rows of a step, admission, blocks.
#include <gtest/gtest.h>

#include <algorithm>

#include "tests/scheduler/core_harness.h"

namespace fathom::scheduler {
namespace {

TEST(CorePlanning, TwoPlansInFlightAndDecodesFedByTheStepBefore) {
  CoreHarness harness;
  harness.Up();
  const Actions actions = harness.Submit(MakeRecord("r", 3, 4), 1);
  ASSERT_EQ(actions.accepted.size(), 1u);
  EXPECT_EQ(actions.accepted[0].message.seed, 1000u);
  ASSERT_EQ(actions.plans.size(), 2u);
  const StepPlan& first = actions.plans[0].plan;
  EXPECT_EQ(first.step, StepId{0});
  ASSERT_EQ(first.admits.size(), 1u);
  EXPECT_EQ(first.admits[0].ids, MakeRecord("r", 3, 4).prompt_ids);
  EXPECT_FALSE(first.admits[0].more);
  ASSERT_EQ(first.chunks.size(), 1u);
  EXPECT_EQ(first.chunks[0], (Chunk{SlotId{1}, 3, true}));
  const StepPlan& second = actions.plans[1].plan;
  EXPECT_TRUE(second.admits.empty());
  EXPECT_EQ(second.chunks[0], (Chunk{SlotId{1}, DecodeRow{StepId{0}}, true}));
}

TEST(CorePlanning, AGroupOfAnEarlierVersionGetsNoTrace) {
  for (const uint32_t protocol : {kProtocol2 - 1, kProtocol2}) {
    CoreHarness harness;
    GroupLimits limits = CoreHarness::Limits();
    limits.protocol = protocol;
    harness.Up(limits);
    struct Submit submit {
      .attempt = AttemptId{1}, .key = {"", "r"}, .record = MakeRecord("r", 3, 4)
    };
    submit.traceparent = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
    const Actions actions = harness.Step(Routed<struct Submit>{kRouter, submit});
    ASSERT_EQ(actions.plans.size(), 2u);
    ASSERT_EQ(actions.plans[0].plan.admits.size(), 1u);
    EXPECT_EQ(actions.plans[0].plan.admits[0].traceparent,
              protocol < kProtocol2 ? "" : submit.traceparent);
  }
}

TEST(CorePlanning, NeverBeyondALengthStop) {
  CoreHarness harness;
  harness.Up();
  const Record record = MakeRecord("r", 3, 1);
  const GroupUp up = harness.UpEvent(CoreHarness::Limits());
  Runner runner(harness, up);
  runner.Follow(1);
  runner.Take(harness.Submit(record, 1));
  EXPECT_EQ(runner.plans().size(), 1u);  // One token: nothing to run ahead with.
  runner.RunAll();
  EXPECT_EQ(runner.ledger(1).ids, Expected(record));
  EXPECT_EQ(runner.ledger(1).end->reason, FinishReason::kLength);
  EXPECT_EQ(harness.core.Stats().tokens_dropped_total, 0u);
  EXPECT_EQ(harness.core.Stats().blocks_used, 0);
}

TEST(CorePlanning, ASlotIsReleasedByTheNextPlanThatHasWork) {
  CoreHarness harness;
  harness.Up();
  Runner runner(harness, harness.UpEvent(CoreHarness::Limits()));
  runner.Take(harness.Submit(MakeRecord("a", 3, 2), 1));
  runner.RunAll();
  EXPECT_EQ(harness.core.Stats().blocks_used, 0);
  const Actions actions = harness.Submit(MakeRecord("b", 3, 2), 2);
  ASSERT_FALSE(actions.plans.empty());
  EXPECT_EQ(actions.plans[0].plan.releases, std::vector<SlotId>{SlotId{1}});
  EXPECT_EQ(actions.plans[0].plan.admits[0].slot, SlotId{1});
  runner.Take(actions);
  runner.RunAll();
}

// A prompt alone may use all rows of a step. In a step with decode rows it may use only as many as
// mixed_step_tokens leaves, so that the sequences that decode are not delayed.
TEST(CorePlanning, APromptBesideDecodesHasFewerRows) {
  CoreHarness harness;
  GroupLimits limits = CoreHarness::Limits();
  limits.plans_in_flight = 1;
  limits.slots = 4;
  limits.step_tokens = 16;
  limits.mixed_step_tokens = 6;
  harness.Up(limits);
  Runner runner(harness, harness.UpEvent(limits));
  runner.Take(harness.Submit(MakeRecord("first", 20, 30), 1));
  EXPECT_EQ(runner.plans()[0].chunks, (std::vector<Chunk>{{SlotId{1}, 16, false}}));
  runner.Take(harness.Submit(MakeRecord("second", 20, 2), 2));
  ASSERT_TRUE(runner.RunOne());
  // The last 4 rows of the first prompt, and 12 of the second one: no sequence decodes yet.
  EXPECT_EQ(runner.plans()[0].chunks,
            (std::vector<Chunk>{{SlotId{1}, 4, true}, {SlotId{2}, 12, false}}));
  ASSERT_TRUE(runner.RunOne());
  ASSERT_EQ(runner.plans()[0].chunks.size(), 2u);
  EXPECT_EQ(runner.plans()[0].chunks[1], (Chunk{SlotId{2}, 5, false}));
  ASSERT_TRUE(runner.RunOne());
  EXPECT_EQ(runner.plans()[0].chunks[1], (Chunk{SlotId{2}, 3, true}));
  runner.RunAll();
}

// The limit is never below a row for each slot, so that each prompt gets at least one row.
TEST(CorePlanning, DecodesNeverKeepAPromptFromARow) {
  CoreHarness harness;
  GroupLimits limits = CoreHarness::Limits();
  limits.plans_in_flight = 1;
  limits.slots = 3;
  limits.mixed_step_tokens = 1;
  harness.Up(limits);
  Runner runner(harness, harness.UpEvent(limits));
  runner.Take(harness.Submit(MakeRecord("a", 2, 30), 1));
  runner.Take(harness.Submit(MakeRecord("b", 2, 30), 2));
  ASSERT_TRUE(runner.RunOne());
  runner.Take(harness.Submit(MakeRecord("c", 4, 2), 3));
  ASSERT_TRUE(runner.RunOne());
  ASSERT_TRUE(runner.RunOne());
  ASSERT_EQ(runner.plans()[0].chunks.size(), 3u);
  EXPECT_EQ(runner.plans()[0].chunks[2], (Chunk{SlotId{3}, 1, false}));
  runner.RunAll();
}

TEST(CorePlanning, DecodesThenRunningPromptsThenNewOnes) {
  CoreHarness harness;
  GroupLimits limits = CoreHarness::Limits();
  limits.plans_in_flight = 1;
  harness.Up(limits);
  Runner runner(harness, harness.UpEvent(limits));
  runner.Take(harness.Submit(MakeRecord("decodes", 2, 30), 1));
  runner.Take(harness.Submit(MakeRecord("long", 40, 2), 2));
  runner.Take(harness.Submit(MakeRecord("new", 5, 2), 3));
  ASSERT_TRUE(runner.RunOne());
  // One decode row, and 15 of the long prompt's 40.
  ASSERT_EQ(runner.plans()[0].chunks.size(), 2u);
  EXPECT_EQ(runner.plans()[0].chunks[0], (Chunk{SlotId{1}, DecodeRow{StepId{0}}, true}));
  EXPECT_EQ(runner.plans()[0].chunks[1], (Chunk{SlotId{2}, 15, false}));
  ASSERT_TRUE(runner.RunOne());
  EXPECT_EQ(runner.plans()[0].chunks[1], (Chunk{SlotId{2}, 15, false}));
  ASSERT_TRUE(runner.RunOne());
  // The last 10 rows of it, and the 5 of the new prompt fill the 16 rows.
  ASSERT_EQ(runner.plans()[0].chunks.size(), 3u);
  EXPECT_EQ(runner.plans()[0].chunks[1], (Chunk{SlotId{2}, 10, true}));
  EXPECT_EQ(runner.plans()[0].chunks[2], (Chunk{SlotId{3}, 5, true}));
  runner.RunAll();
  EXPECT_EQ(harness.core.Stats().finished_total, 3u);
}

TEST(CorePlanning, AdmitsInPiecesOf32k) {
  CoreHarness harness;
  const GroupLimits limits{.blocks = 8001,
                           .block_tokens = 16,
                           .slots = 4,
                           .step_tokens = 50'000,
                           .context_tokens = 100'000,
                           .plans_in_flight = 2};
  harness.Up(limits);
  Runner runner(harness, harness.UpEvent(limits));
  runner.Follow(1);
  Record record = MakeRecord("r", 70'000, 3);
  record.request.output.prompt_logprobs = 0;
  runner.Take(harness.Submit(record, 1));
  ASSERT_EQ(runner.plans().size(), 2u);
  EXPECT_EQ(runner.plans()[0].admits[0].ids.size(), static_cast<size_t>(kAdmitIdsMax));
  EXPECT_TRUE(runner.plans()[0].admits[0].more);
  EXPECT_EQ(std::get<int32_t>(runner.plans()[0].chunks[0].work), kAdmitIdsMax - 1);
  runner.RunAll();
  EXPECT_EQ(runner.ledger(1).ids, Expected(record));
  EXPECT_EQ(runner.ledger(1).prompt_logprobs.size(), 69'999u);
}

TEST(CorePlanning, WithoutBlocksTheLatestArrivalGoesAndIsFirstInLineAgain) {
  CoreHarness harness;
  GroupLimits limits = CoreHarness::Limits();
  limits.blocks = 9;  // 32 tokens.
  harness.Up(limits);
  Runner runner(harness, harness.UpEvent(limits));
  std::vector<Record> records;
  for (uint64_t i = 1; i <= 3; ++i) {
    harness.now += 10;
    records.push_back(MakeRecord("r" + std::to_string(i), 8, 20));
    runner.Follow(i);
    runner.Take(harness.Submit(records.back(), i));
  }
  runner.RunAll();
  for (uint64_t i = 1; i <= 3; ++i) {
    EXPECT_EQ(runner.ledger(i).ids, Expected(records[i - 1]));
    EXPECT_EQ(runner.ledger(i).end->reason, FinishReason::kLength);
  }
  EXPECT_GT(harness.core.Stats().preemptions_total, 0u);
  const RequestTimings& first = *runner.ledger(1).timings;  // The first is never disturbed.
  EXPECT_EQ(first.suspensions, 0);
  EXPECT_EQ(first.stays_total, 1);
  EXPECT_EQ(harness.core.Stats().blocks_used, 0);
}

TEST(CorePlanning, ARequestThatFillsThePoolRunsAndOneMoreTokenIsRefused) {
  CoreHarness harness;
  GroupLimits limits = CoreHarness::Limits();
  limits.blocks = 9;
  harness.Up(limits);
  Runner runner(harness, harness.UpEvent(limits));
  runner.Follow(1);
  const Record record = MakeRecord("fits", 30, 3);  // The last token needs no room.
  runner.Take(harness.Submit(record, 1));
  runner.RunAll();
  EXPECT_EQ(runner.ledger(1).ids, Expected(record));
  const Actions actions = harness.Submit(MakeRecord("over", 30, 4), 2);
  ASSERT_EQ(actions.refused.size(), 1u);
  EXPECT_EQ(DetailOf(actions.refused[0].message.status)->reason, "KV_POOL_EXCEEDED");
  EXPECT_EQ(DetailOf(actions.refused[0].message.status)->field, "stop.max_tokens");
  EXPECT_NE(Message(actions.refused[0].message.status).find("lower max_tokens to 3"),
            std::string::npos)
      << ToString(actions.refused[0].message.status);
}

TEST(CorePlanning, AGroupOfASecondKindTakesNewWorkOnly) {
  CoreHarness harness;
  harness.Step(harness.UpEvent(CoreHarness::Limits(), 1, "kind-a", GroupId{0}));
  const Record record = MakeRecord("r", 3, 10);
  Runner a(harness, harness.UpEvent(CoreHarness::Limits(), 1, "kind-a", GroupId{0}));
  a.Follow(1);
  a.Take(harness.Submit(record, 1));
  ASSERT_TRUE(a.RunOne());
  EXPECT_TRUE(harness.Step(GroupLost{GroupId{0}, EpochId{1}}).plans.empty());
  const Actions up = harness.Step(harness.UpEvent(CoreHarness::Limits(), 2, "kind-b", GroupId{1}));
  EXPECT_TRUE(up.plans.empty());  // Its kind is expected back.
  Runner b(harness, harness.UpEvent(CoreHarness::Limits(), 2, "kind-b", GroupId{1}));
  b.Follow(1, 1);
  b.Take(harness.Tick(30'000'000));
  b.RunAll();
  EXPECT_EQ(b.ledger(1).ids.size(), 9u);
  EXPECT_EQ(b.ledger(1).fingerprints, std::vector<std::string>{"kind-b"});
  const Actions again = harness.Step(CoreHarness::KeyOnly(record.key, 2));
  EXPECT_EQ(again.accepted[0].message.record->sequences[0].fingerprints,
            (std::vector<FingerprintSpan>{{0, "kind-a", KindOf("kind-a")},
                                          {1, "kind-b", KindOf("kind-b")}}));
  ASSERT_EQ(again.frames.size(), 2u);  // One for each kind.
  EXPECT_EQ(again.frames[0].message.fingerprint, "kind-a");
  EXPECT_EQ(again.frames[1].message.fingerprint, "kind-b");
  EXPECT_EQ(again.frames[1].message.position, 1);
  EXPECT_EQ(again.frames[1].message.kind, KindOf("kind-b"));
  EXPECT_EQ(harness.core.Stats().kind_changes_total, 1u);
}

// The weights were replaced in place: the answer waits for its own model and is never made by two
// models.
TEST(CorePlanning, AnAnswerIsOfOneModel) {
  CoreHarness harness;
  Runner first(harness, harness.UpEvent(CoreHarness::Limits(), 1, "model-1", GroupId{0}));
  harness.Step(harness.UpEvent(CoreHarness::Limits(), 1, "model-1", GroupId{0}));
  first.Follow(1);
  first.Take(harness.Submit(MakeRecord("r", 3, 10), 1));
  ASSERT_TRUE(first.RunOne());
  harness.Step(GroupLost{GroupId{0}, EpochId{1}});
  // Without any group it waits without limit, and continues when its model comes back.
  EXPECT_TRUE(harness.Tick(120'000'000).frames.empty());
  const Actions up = harness.Step(harness.UpEvent(CoreHarness::Limits(), 2, "model-2", GroupId{1}));
  EXPECT_TRUE(up.plans.empty());
  EXPECT_TRUE(harness.Tick(29'999'999).frames.empty());
  const Actions over = harness.Tick(1);
  ASSERT_EQ(over.frames.size(), 1u);
  EXPECT_EQ(DetailOf(over.frames[0].message.error)->reason, "MODEL_CHANGED");
  EXPECT_TRUE(over.frames[0].message.ids.empty());
  EXPECT_EQ(harness.core.Stats().model_changes_total, 1u);
  EXPECT_EQ(harness.core.Stats().kind_changes_total, 0u);
  // A new request is served by the new model.
  EXPECT_FALSE(harness.Submit(MakeRecord("s", 3, 10), 2).plans.empty());
}

TEST(CorePlanning, AModelThatComesBackInTimeGoesOn) {
  CoreHarness harness;
  Runner first(harness, harness.UpEvent(CoreHarness::Limits(), 1, "model-1", GroupId{0}));
  harness.Step(harness.UpEvent(CoreHarness::Limits(), 1, "model-1", GroupId{0}));
  first.Follow(1);
  first.Take(harness.Submit(MakeRecord("r", 3, 10), 1));
  ASSERT_TRUE(first.RunOne());
  harness.Step(GroupLost{GroupId{0}, EpochId{1}});
  harness.Step(harness.UpEvent(CoreHarness::Limits(), 2, "model-2", GroupId{1}));
  harness.Tick(20'000'000);
  Runner back(harness, harness.UpEvent(CoreHarness::Limits(), 3, "model-1", GroupId{2}));
  back.Follow(1, 1);
  back.Take(harness.Step(harness.UpEvent(CoreHarness::Limits(), 3, "model-1", GroupId{2})));
  back.RunAll();
  EXPECT_EQ(back.ledger(1).ids.size(), 9u);
}

TEST(CorePlanning, AResultThatCannotBeEndsTheEpochOnce) {
  CoreHarness harness;
  harness.Up();
  const Actions submitted = harness.Submit(MakeRecord("r", 3, 4), 1);
  sim::FakeGroup group(harness.UpEvent(CoreHarness::Limits()));
  StepResult result = *group.Execute(submitted.plans[0].plan);
  StepResult stale = result;
  stale.epoch = EpochId{9};
  EXPECT_TRUE(harness.Step(StepDone{kGroup, stale}).aborts.empty());  // An old epoch: ignored.
  auto broken = [&](auto change) {
    StepResult copy = result;
    change(copy);
    CoreHarness fresh;
    fresh.Up();
    fresh.Submit(MakeRecord("r", 3, 4), 1);
    const Actions actions = fresh.Step(StepDone{kGroup, copy});
    return actions.aborts.size() == 1 && fresh.core.Stats().groups == 0 &&
           fresh.core.Stats().requests_waiting == 1;
  };
  EXPECT_TRUE(broken([](StepResult& r) { r.step = StepId{1}; }));
  EXPECT_TRUE(broken([](StepResult& r) { r.rows.clear(); }));
  EXPECT_TRUE(broken([](StepResult& r) { r.rows[0].row = 1; }));
  EXPECT_TRUE(broken([](StepResult& r) { r.rows[0].row = -1; }));
  EXPECT_TRUE(broken([](StepResult& r) { r.rows[0].position = 1; }));
  EXPECT_TRUE(broken([](StepResult& r) { r.rows[0].sequence = 1; }));
  EXPECT_TRUE(broken([](StepResult& r) { r.rows[0].ids.push_back(5); }));
  EXPECT_TRUE(broken([](StepResult& r) { r.rows[0].ids[0] = -5; }));
  EXPECT_TRUE(broken([](StepResult& r) { r.rows.push_back(r.rows[0]); }));
  EXPECT_TRUE(broken([](StepResult& r) { r.rows[0].logprobs.resize(1); }));
  EXPECT_TRUE(broken([](StepResult& r) { r.rows[0].prompt_logprobs.emplace(); }));
  EXPECT_FALSE(broken([](StepResult&) {}));
}

TEST(CorePlanning, RunAheadIsHowManyStepsMayWaitForATokensResult) {
  for (const int32_t run_ahead : {0, 1, 2, 100}) {
    SCOPED_TRACE(run_ahead);
    CoreHarness harness({.run_ahead_max = run_ahead});
    GroupLimits limits = CoreHarness::Limits();
    limits.plans_in_flight = 4;
    const GroupUp up = harness.UpEvent(limits);
    harness.Step(up);
    Runner runner(harness, up);
    runner.Follow(1);
    const Record record = MakeRecord("r", 3, 10);
    runner.Take(harness.Submit(record, 1));
    // The step of the prompt samples the first token; after it this many more steps are planned,
    // but no more than fit.
    EXPECT_EQ(runner.plans().size(), static_cast<size_t>(1 + std::min(run_ahead, 3)));
    runner.RunAll();
    EXPECT_EQ(runner.ledger(1).ids, Expected(record));
  }
}

TEST(CorePlanning, LimitsThatNoPlanCanKeepToAreRefused) {
  CoreHarness harness;
  GroupLimits limits = CoreHarness::Limits();
  limits.blocks = 1;
  EXPECT_EQ(harness.Up(limits).aborts.size(), 1u);
  EXPECT_EQ(harness.core.Stats().groups, 0);
}

// A tenant whose requests say a large max_tokens and end early gets its share, because the policy
// is charged what was computed.
TEST(CorePlanning, FairShareChargesWhatWasComputed) {
  CoreHarness harness({.policy = "fair"});
  GroupLimits limits = CoreHarness::Limits();
  limits.slots = 1;
  harness.Up(limits);
  Runner runner(harness, harness.UpEvent(limits));
  constexpr uint64_t kEach = 12;
  for (uint64_t attempt = 1; attempt <= 2 * kEach; ++attempt) {
    const bool liar = attempt % 2 == 0;
    Record record = MakeRecord(std::to_string(attempt), 5, liar ? 100 : 3);
    record.key.tenant = liar ? "liar" : "exact";
    if (liar) record.request.stop.end_token_ids = {Expected(record)[2]};
    runner.Follow(attempt);
    runner.Take(harness.Submit(record, attempt));
  }
  int ended = 0, of_liar = 0;
  while (ended < 12 && runner.RunOne()) {
    ended = of_liar = 0;
    for (uint64_t attempt = 1; attempt <= 2 * kEach; ++attempt) {
      if (!runner.ledger(attempt).end) continue;
      ++ended;
      of_liar += attempt % 2 == 0 ? 1 : 0;
    }
  }
  EXPECT_EQ(ended, 12);
  EXPECT_GE(of_liar, 5);
  EXPECT_LE(of_liar, 7);
  runner.RunAll();
}

}  // namespace
}  // namespace fathom::scheduler
