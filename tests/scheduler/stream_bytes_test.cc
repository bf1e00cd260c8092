// A message that the scheduler sends arrives unchanged on its stream. A wrong message from a peer
// is refused, and the error names it.
#include "scheduler/transport/stream_bytes.h"

#include <google/protobuf/arena.h>
#include <gtest/gtest.h>

#include <functional>
#include <string>

#include "cluster.pb.h"

namespace fathom::scheduler {
namespace {

namespace pb = cluster::v1;

template <class Message>
Message Down(StreamKind stream, const DownMessage& message) {
  google::protobuf::Arena arena;
  Message parsed;
  EXPECT_TRUE(parsed.ParseFromString(DownToWire(stream, message, &arena).SerializeAsString()));
  return parsed;
}

template <class Message>
absl::StatusOr<UpMessage> Up(StreamKind stream, const Message& message) {
  const std::string bytes = message.SerializeAsString();
  return UpFromBytes(stream, bytes.data(), bytes.size());
}

TEST(StreamBytes, HelloSaysWhoLeadsAndWhatTheClusterIs) {
  const ClusterFacts facts{"tiny", "config", "print", 1024,        16,
                           100,    2,        1000,    "cuda-sm90", "bfloat16"};
  Hello scheduler;
  scheduler.process_id = "s";
  scheduler.role = Role::kScheduler;
  scheduler.term_seen = TermId{4};
  scheduler.scheduler = SchedulerFacts{true, TermId{4}, facts};
  const auto down = Down<pb::RouteDown>(StreamKind::kRoute, scheduler);
  EXPECT_EQ(down.hello().role(), pb::ROLE_SCHEDULER);
  EXPECT_EQ(down.hello().term_seen(), 4u);
  EXPECT_EQ(down.hello().protocol_max(), kProtocolMax);
  const pb::SchedulerHello& hello = down.hello().scheduler();
  EXPECT_TRUE(hello.leader());
  EXPECT_EQ(hello.model(), "tiny");
  EXPECT_EQ(hello.config_digest(), "config");
  EXPECT_EQ(hello.context_tokens(), 1024);
  EXPECT_EQ(hello.block_tokens(), 16);
  EXPECT_EQ(hello.pool_blocks(), 100);
  EXPECT_EQ(hello.groups(), 2);
  EXPECT_EQ(hello.vocab(), 1000);
  EXPECT_EQ(hello.device_kind(), "cuda-sm90");
  EXPECT_EQ(hello.dtype(), "bfloat16");
}

TEST(StreamBytes, RefusalsAndErrorsKeepTheirDetail) {
  const absl::Status status = WithDetail(
      Exhausted("full"), {.reason = "QUEUE_FULL", .field = "prompt", .retry_after_ms = 250});
  const auto refused =
      Down<pb::RouteDown>(StreamKind::kRoute, Refused{AttemptId{7}, status}).refused();
  EXPECT_EQ(refused.attempt(), 7u);
  EXPECT_EQ(refused.code(), static_cast<int>(absl::StatusCode::kResourceExhausted));
  EXPECT_EQ(refused.reason(), "QUEUE_FULL");
  EXPECT_EQ(refused.field(), "prompt");
  EXPECT_EQ(refused.message(), "full");
  EXPECT_EQ(refused.retry_after_ms(), 250);

  Frames batch{TermId{2}, {}};
  batch.frames.push_back({.attempt = AttemptId{7}, .position = 5, .error = status});
  batch.frames.push_back({.attempt = AttemptId{8},
                          .sequence = 1,
                          .position = 6,
                          .ids = {9, 10},
                          .fingerprint = "print",
                          .finish = FrameFinish{FinishReason::kLength, {3, 8, 1}},
                          .timings = RequestTimings{.suspensions = 2}});
  const auto frames = Down<pb::RouteDown>(StreamKind::kRoute, batch).frames();
  EXPECT_EQ(frames.term(), 2u);
  ASSERT_EQ(frames.frames_size(), 2);
  EXPECT_EQ(frames.frames(0).error().reason(), "QUEUE_FULL");
  EXPECT_FALSE(frames.frames(0).has_finish());
  EXPECT_EQ(frames.frames(1).finish().reason(), pb::FINISH_REASON_LENGTH);
  EXPECT_EQ(frames.frames(1).finish().usage().completion_tokens(), 8);
  EXPECT_EQ(frames.frames(1).finish().timings().suspensions(), 2);
  EXPECT_EQ(frames.frames(1).ids(1), 10);
}

TEST(StreamBytes, ControlCarriesSeatsExchangesAndAborts) {
  const GroupSeat seat{GroupId{1},
                       TermId{2},
                       EpochId{3},
                       2,
                       1,
                       1,
                       {{"a", "h"}, {"b", "h"}},
                       50,
                       {1024, 16, 51, 8, 256, 1000}};
  const auto group = Down<pb::ControlDown>(StreamKind::kControl, seat).group();
  EXPECT_EQ(group.epoch(), 3u);
  EXPECT_EQ(group.rank(), 1);
  EXPECT_EQ(group.peers(1).process_id(), "b");
  EXPECT_EQ(group.blocks(), 50);
  EXPECT_EQ(group.limits().step_tokens(), 256);
  const auto exchange =
      Down<pb::ControlDown>(StreamKind::kControl,
                            GroupExchange{EpochId{3}, 4, 1, std::string("\0x", 2)})
          .exchange();
  EXPECT_EQ(exchange.round(), 4);
  EXPECT_EQ(exchange.bytes(), std::string("\0x", 2));
  EXPECT_EQ(Down<pb::ControlDown>(StreamKind::kControl, Abort{TermId{2}, EpochId{3}, "why"})
                .abort()
                .reason(),
            "why");
  EXPECT_EQ(Down<pb::ControlDown>(StreamKind::kControl, Resign{TermId{2}}).resign().term(), 2u);
}

TEST(StreamBytesDeathTest, AMessageOnTheWrongStreamIsOurBug) {
  google::protobuf::Arena arena;
  EXPECT_DEATH(DownToWire(StreamKind::kRoute, StepPlan{}, &arena), "not a message of Route");
  EXPECT_DEATH(DownToWire(StreamKind::kSteps, Resign{}, &arena), "not a message of Steps");
}

TEST(StreamBytes, AnUnreadableSubmitNamesItsFieldAndAttempt) {
  const std::pair<const char*, std::function<void(pb::Submit*)>> cases[] = {
      {"Submit.subject", [](pb::Submit* s) { s->clear_key(); }},
      {"request_id", [](pb::Submit* s) { s->mutable_key()->clear_request_id(); }},
      {"Submit.deadline_ms", [](pb::Submit* s) { s->set_deadline_ms(-1); }},
      {"Submit.age_ms", [](pb::Submit* s) { s->set_age_ms(int64_t{1} << 60); }},
      {"Submit.have", [](pb::Submit* s) { s->add_have(-1); }},
      {"Record.request",
       [](pb::Submit* s) { s->mutable_record()->mutable_key()->set_request_id("r"); }},
  };
  for (const auto& [field, spoil] : cases) {
    pb::RouteUp up;
    up.mutable_submit()->set_attempt(9);
    up.mutable_submit()->mutable_key()->set_request_id("r");
    ASSERT_TRUE(std::holds_alternative<Submit>(Up(StreamKind::kRoute, up).value()));
    spoil(up.mutable_submit());
    const UpMessage message = Up(StreamKind::kRoute, up).value();
    ASSERT_TRUE(std::holds_alternative<SubmitUnreadable>(message)) << field;
    const auto& bad = std::get<SubmitUnreadable>(message);
    EXPECT_EQ(bad.attempt, AttemptId{9});
    EXPECT_NE(Message(bad.status).find(field), std::string_view::npos) << Message(bad.status);
  }
}

TEST(StreamBytes, SubmitsDurationsBecomeMicroseconds) {
  pb::RouteUp up;
  up.mutable_submit()->mutable_key()->set_request_id("r");
  up.mutable_submit()->set_deadline_ms(1500);
  up.mutable_submit()->set_age_ms(3);
  const auto submitted = std::get<Submit>(Up(StreamKind::kRoute, up).value());
  EXPECT_EQ(submitted.deadline_us, 1'500'000);
  EXPECT_EQ(submitted.age_us, 3'000);
}

TEST(StreamBytes, RefusesWhatIsNoMessageOfTheStream) {
  pb::RouteUp close;
  close.mutable_close()->set_reason(pb::FINISH_REASON_UNSPECIFIED);
  EXPECT_NE(Message(Up(StreamKind::kRoute, close).status()).find("Close"), std::string_view::npos);
  for (const StreamKind stream : {StreamKind::kRoute, StreamKind::kControl, StreamKind::kSteps}) {
    const absl::Status empty = Up(stream, pb::RouteUp()).status();
    EXPECT_EQ(empty.code(), absl::StatusCode::kInvalidArgument);
    EXPECT_NE(Message(empty).find(StreamKindName(stream)), std::string_view::npos);
    EXPECT_EQ(UpFromBytes(stream, "\xff\xff", 2).status().code(),
              absl::StatusCode::kInvalidArgument);
  }
}

}  // namespace
}  // namespace fathom::scheduler
