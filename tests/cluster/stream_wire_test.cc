// Each message of each stream is converted to bytes and back. Every FromWire checks the ranges and
// refuses a peer's wrong values by name.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>
#include <utility>

#include "cluster.pb.h"
#include "cluster/wire.h"

namespace fathom {
namespace {

namespace pb = cluster::v1;
using ::testing::HasSubstr;

// `value` as the message of the stream, converted to bytes and back.
template <class Stream, class Value>
auto Through(const Value& value) {
  Stream sent;
  ToWire(value, &sent);
  Stream received;
  EXPECT_TRUE(received.ParseFromString(sent.SerializeAsString()));
  return FromWire(std::move(received));
}

template <class Stream, class Value>
void ExpectSame(const Value& value) {
  auto back = Through<Stream>(value);
  ASSERT_TRUE(back.ok()) << ToString(back.status());
  ASSERT_TRUE(std::holds_alternative<Value>(*back)) << back->index();
  EXPECT_EQ(std::get<Value>(*back), value);
}

Record MakeRecord() {
  Record record;
  record.key = {"tenant", "request"};
  record.model = "tiny";
  record.seed = 7;
  record.prompt_ids = {1, 2, 3};
  record.request.stop.max_tokens = 4;
  record.sequences = {{.ids = {9, 8}, .logprobs = {}, .finish = FinishReason::kLength}};
  record.sequences[0].fingerprints = {{0, "print", {"model", "float32", "cpu", 1, 2}}};
  record.cache = {.skip = true, .salt = "salt"};
  return record;
}

Hello MakeHello() {
  Hello hello;
  hello.process_id = "me";
  hello.role = Role::kWorker;
  hello.build = "build";
  hello.term_seen = TermId{5};
  hello.config_digest = "config";
  hello.worker =
      WorkerFacts{.host = "host",
                  .device = "cpu",
                  .memory_bytes = 1 << 20,
                  .model = "tiny",
                  .weights_digest = "weights",
                  .fingerprint = "print",
                  .limits = {100, 16, 20, 4, 32, 50, 8},
                  .tp = 2,
                  .pp = 1,
                  .preferred_rank = 1,
                  .health_address = "host:1",
                  .device_kind = "cuda-sm90",
                  .dtype = "bfloat16",
                  .recipe = 2,
                  .card = "card",
                  .machine = "machine",
                  .shared_memory = "shm",
                  .startup = {{StartPhase::kProcess, 5, 0}, {StartPhase::kWeights, 9, 1 << 20}},
                  .age_us = 10,
                  .proposer = "ngram of 2 to 4 tokens"};
  hello.worker->limits.draft_max = 4;
  return hello;
}

Hello SchedulerHello() {
  Hello hello;
  hello.process_id = "scheduler";
  hello.role = Role::kScheduler;
  hello.scheduler = SchedulerFacts{
      true, TermId{6}, {"tiny", "config", "print", 1024, 16, 100, 2, 1000, "cpu", "float32"}};
  hello.scheduler->cluster.starts = {
      {.group = 3,
       .epoch = EpochId{4},
       .us = 100,
       .ranks = {{1, "me", "host", {{StartPhase::kConnected, 50, 0}}}}}};
  return hello;
}

constexpr Heartbeat kBeat{
    TermId{3}, true, Phase::kStepping, StepId{4}, 5, 6, 7, {Activity::kAttention, 0, 9}};

TEST(StreamWire, Route) {
  ExpectSame<pb::RouteUp>(MakeHello());
  ExpectSame<pb::RouteUp>(kBeat);
  Submit submit{.attempt = AttemptId{1}, .key = {"tenant", "request"}};
  ExpectSame<pb::RouteUp>(submit);
  submit.record = MakeRecord();
  submit.router_blob = "blob";
  submit.have = {2};
  submit.deadline_us = 5'000;
  submit.replay = true;
  submit.age_us = 1'000;
  submit.traceparent = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
  ExpectSame<pb::RouteUp>(submit);
  ExpectSame<pb::RouteUp>(Suspend{AttemptId{1}, {"tenant", "request"}});
  ExpectSame<pb::RouteUp>(ExplainAsk{5, {"tenant", "request"}});
  ExpectSame<pb::RouteUp>(Close{{"tenant", "request"}, 1, 2, FinishReason::kStopString});

  ExpectSame<pb::RouteDown>(SchedulerHello());
  ExpectSame<pb::RouteDown>(kBeat);
  ExpectSame<pb::RouteDown>(Accepted{AttemptId{1}, "request", 7, 3, MakeRecord(), "blob"});
  ClusterStats stats{1, 2, 3, 4, 5, 6, 7, 8, "why", 9, "waits"};
  ExpectSame<pb::RouteDown>(stats);
  stats.apart = true;
  stats.waiting_by = {1, 0, 1, 0};
  for (const int64_t tokens : {1, 2, 8, 9, 16'384, 16'385}) stats.step_tokens.Add(tokens);
  EXPECT_EQ(stats.step_tokens.counts,
            (std::array<uint64_t, 14>{1, 2, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 1}));
  EXPECT_EQ(stats.step_tokens.sum, 32'789u);
  stats.ranks = {{.group = 1,
                  .rank = 2,
                  .process_id = "me",
                  .host = "host",
                  .phase = Phase::kStepping,
                  .step = StepId{3},
                  .work = {Activity::kStageMessage, -1, 4},
                  .still_us = 5,
                  .waits_for = 0,
                  .address = "h:8010"}};
  ExpectSame<pb::RouteDown>(stats);
  ExpectSame<pb::RouteDown>(Resign{TermId{4}});
  ExpectSame<pb::RouteDown>(Explained{.ask = 7,
                                      .found = true,
                                      .timings = {.queue_us = 3, .phase = RequestPhase::kQueued},
                                      .prompt_tokens = 4,
                                      .generated_tokens = 5,
                                      .max_tokens = 6});
  ExpectSame<pb::RouteDown>(Explained{.ask = 8});
}

TEST(StreamWire, RefusalsAndFramesKeepStatusAndDetail) {
  const absl::Status status = WithDetail(
      Exhausted("full"), {.reason = "QUEUE_FULL", .field = "prompt", .retry_after_ms = 250});
  auto refused = Through<pb::RouteDown>(Refused{AttemptId{7}, status});
  ASSERT_TRUE(refused.ok());
  EXPECT_EQ(std::get<Refused>(*refused).attempt, AttemptId{7});
  EXPECT_EQ(std::get<Refused>(*refused).status, status);

  Frame frame{.attempt = AttemptId{8}, .sequence = 1, .position = 6, .ids = {9, 10}};
  frame.logprobs = {{9, -1.0f, {}, {}}, {10, -2.0f, {3}, {-0.5f}}};
  frame.prompt_logprobs = PromptLogprobs{1, {{2, -3.0f, {}, {}}}};
  frame.fingerprint = "print";
  frame.kind = {"model", "float32", "cpu", 1, 2};
  frame.finish = FrameFinish{FinishReason::kLength, {3, 8, 1}};
  frame.timings = RequestTimings{.earlier_us = 1,
                                 .queue_us = 10,
                                 .prefill_us = 20,
                                 .decode_us = 30,
                                 .suspended_us = 40,
                                 .replay_us = 50,
                                 .queue_behind_us = {4, 3, 2, 1},
                                 .suspended_behind_us = {1, 2, 3, 4},
                                 .suspensions = 2,
                                 .preemptions = 1,
                                 .stays_total = 3,
                                 .chunks_total = 4,
                                 .first_token_us = 5,
                                 .last_token_us = 6,
                                 .phase = RequestPhase::kReplay,
                                 .stays = {{GroupId{1}, EpochId{2}, 3, 4, StayEnd::kPreempted, 2},
                                           {GroupId{2}, EpochId{3}, 4, 5, StayEnd::kNone}},
                                 .chunks = {{1, 2, 3, 4}},
                                 .gaps = {{9, 8}}};
  Frame failed{.attempt = AttemptId{9},
               .position = 5,
               .error = Internal("a fault"),
               .timings = RequestTimings{.queue_us = 3, .phase = RequestPhase::kEnded}};
  auto both = Through<pb::RouteDown>(Frames{TermId{2}, {frame, failed}});
  ASSERT_TRUE(both.ok()) << ToString(both.status());
  const auto& frames = std::get<Frames>(*both);
  EXPECT_EQ(frames.term, TermId{2});
  ASSERT_EQ(frames.frames.size(), 2u);
  const Frame& first = frames.frames[0];
  EXPECT_EQ(first.attempt, frame.attempt);
  EXPECT_EQ(first.sequence, frame.sequence);
  EXPECT_EQ(first.position, frame.position);
  EXPECT_EQ(first.ids, frame.ids);
  EXPECT_EQ(first.logprobs, frame.logprobs);
  EXPECT_EQ(first.prompt_logprobs, frame.prompt_logprobs);
  EXPECT_EQ(first.fingerprint, frame.fingerprint);
  EXPECT_EQ(first.kind, frame.kind);
  EXPECT_EQ(first.finish, frame.finish);
  EXPECT_EQ(first.timings, frame.timings);
  EXPECT_EQ(frames.frames[1].timings, failed.timings);
  EXPECT_FALSE(frames.frames[1].finish);
  EXPECT_EQ(frames.frames[1].error.code(), absl::StatusCode::kInternal);
  EXPECT_EQ(Message(frames.frames[1].error), "a fault");
}

TEST(StreamWire, Control) {
  ExpectSame<pb::ControlUp>(MakeHello());
  ExpectSame<pb::ControlUp>(kBeat);
  ExpectSame<pb::ControlUp>(GroupExchange{EpochId{1}, 2, 3, std::string("\0x", 2)});
  ExpectSame<pb::ControlUp>(GroupReady{TermId{1}, EpochId{2}, 3});
  ExpectSame<pb::ControlUp>(GroupFailed{TermId{1}, EpochId{2}, 3, "why"});

  ExpectSame<pb::ControlDown>(SchedulerHello());
  ExpectSame<pb::ControlDown>(kBeat);
  ExpectSame<pb::ControlDown>(GroupSeat{GroupId{1},
                                        TermId{2},
                                        EpochId{3},
                                        2,
                                        1,
                                        1,
                                        {{"a", "h"}, {"b", "h"}},
                                        50,
                                        {1024, 16, 51, 8, 256, 1000, 64}});
  ExpectSame<pb::ControlDown>(GroupExchange{EpochId{1}, 2, 3, "bytes"});
  ExpectSame<pb::ControlDown>(Abort{TermId{1}, EpochId{2}, "why"});
  ExpectSame<pb::ControlDown>(Resign{TermId{1}});
}

TEST(StreamWire, Steps) {
  ExpectSame<pb::StepsUp>(StepsHello{TermId{1}, EpochId{2}, 3, "me"});
  ExpectSame<pb::StepsUp>(StepResult{TermId{1}, EpochId{2}, StepId{3}, 1, {}, {4, 5, 6}, 7});
  const StepPlan plan{TermId{1}, EpochId{2}, StepId{3}, {}, {SlotId{4}}, {}, {}, {}};
  EXPECT_EQ(Through<pb::StepsDown>(plan).value(), plan);
}

TEST(StreamWire, DurationsAreMillisecondsOnTheWire) {
  pb::RouteUp up;
  const Submit submit{.attempt = AttemptId{1},
                      .key = {"", "r"},
                      .record = std::nullopt,
                      .deadline_us = 1'999,
                      .age_us = 3'999};
  ToWire(submit, &up);
  EXPECT_EQ(up.submit().deadline_ms(), 1);
  EXPECT_EQ(up.submit().age_ms(), 3);
  ToWire(Submit{.key = {"", "r"}, .record = std::nullopt, .deadline_us = 1}, &up);
  EXPECT_EQ(up.submit().deadline_ms(), 1) << "0 would be none";
  ToWire(Submit{.key = {"", "r"}, .record = std::nullopt}, &up);
  EXPECT_EQ(up.submit().deadline_ms(), 0);
}

TEST(StreamWire, EveryFromWireChecksRanges) {
  const auto text = [](const auto& result) { return std::string(Message(result.status())); };
  pb::RouteUp route_up;
  route_up.mutable_hello()->set_build(std::string(257, 'x'));
  EXPECT_THAT(text(FromWire(std::move(route_up))), HasSubstr("Hello.build"));
  pb::RouteDown route_down;
  route_down.mutable_accepted()->set_cached_tokens(-1);
  EXPECT_THAT(text(FromWire(std::move(route_down))), HasSubstr("Accepted.cached_tokens"));
  pb::ControlUp control_up;
  control_up.mutable_ready()->set_rank(-1);
  EXPECT_THAT(text(FromWire(std::move(control_up))), HasSubstr("GroupReady.rank"));
  pb::ControlDown control_down;
  control_down.mutable_group()->set_blocks(-1);
  EXPECT_THAT(text(FromWire(std::move(control_down))), HasSubstr("Group."));
  pb::StepsUp steps_up;
  steps_up.mutable_result()->set_rank(-1);
  EXPECT_THAT(text(FromWire(std::move(steps_up))), HasSubstr("StepResult.rank"));
  pb::StepsDown steps_down;
  steps_down.mutable_plan()->add_releases(-1);
  EXPECT_THAT(text(FromWire(std::move(steps_down))), HasSubstr("StepPlan.releases"));
}

TEST(StreamWire, AHelloWithAFieldForLaterUseIsRefusedByName) {
  const auto text = [](auto change) {
    pb::ControlUp up;
    ToWire(MakeHello(), &up);
    change(up.mutable_hello());
    return std::string(Message(FromWire(std::move(up)).status()));
  };
  EXPECT_THAT(text([](pb::Hello* hello) { hello->add_features("a"); }),
              HasSubstr("Hello.features: it is set"));
  EXPECT_THAT(text([](pb::Hello* hello) { hello->mutable_worker()->mutable_last_started(); }),
              HasSubstr("WorkerHello.last_started"));
  EXPECT_THAT(text([](pb::Hello* hello) { hello->mutable_worker()->mutable_last_finished(); }),
              HasSubstr("WorkerHello.last_finished"));
}

TEST(StreamWire, AnUnknownKindIsRefusedAndARouterPassesItOver) {
  EXPECT_THAT(std::string(Message(FromWire(pb::RouteUp()).status())), HasSubstr("Route message"));
  EXPECT_THAT(std::string(Message(FromWire(pb::ControlUp()).status())),
              HasSubstr("Control message"));
  EXPECT_THAT(std::string(Message(FromWire(pb::ControlDown()).status())),
              HasSubstr("Control message"));
  EXPECT_THAT(std::string(Message(FromWire(pb::StepsUp()).status())), HasSubstr("Steps message"));
  EXPECT_TRUE(std::holds_alternative<std::monostate>(FromWire(pb::RouteDown()).value()));
}

}  // namespace
}  // namespace fathom
