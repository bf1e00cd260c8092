// What the router can say of requests: those that run, those that ended, those that were refused.
#include <gtest/gtest.h>

#include <optional>
#include <string>

#include "common/reason.h"
#include "router/sessions/request_log.h"
#include "tests/router/session_fixture.h"

namespace fathom::router {
namespace {

class ExplainTest : public SessionsTest {
 protected:
  static SessionKey Key(const std::string& id) { return {"default", id}; }
  static Explained Found(uint64_t ask, const RequestTimings& timings) {
    return {.ask = ask,
            .found = true,
            .timings = timings,
            .prompt_tokens = 3,
            .generated_tokens = 2,
            .max_tokens = 100};
  }
  // The answer to Explain; nullopt: it waits for the scheduler.
  std::optional<absl::StatusOr<RequestReport>> Ask(const std::string& id) {
    answer_.reset();
    sessions_.Explain(Key(id),
                      [this](const absl::StatusOr<RequestReport>& report) { answer_ = report; });
    return answer_;
  }
  RequestReport Now(const std::string& id) {
    const auto answer = Ask(id);
    EXPECT_TRUE(answer.has_value() && answer->ok());
    return answer && answer->ok() ? **answer : RequestReport{};
  }

  std::optional<absl::StatusOr<RequestReport>> answer_;
};

TEST_F(ExplainTest, ThePartsOfARequestThatEndedAddUpToTheRoutersWhole) {
  Up();
  const auto client = Start(Request("a"));
  const AttemptId attempt = AcceptAll()[0].attempt;
  clock_.Advance(1000);
  Send(Frame(attempt, 0, {3, 4}));
  clock_.Advance(500);
  Send(End(Frame(attempt, 2, {5}), FinishReason::kLength));
  sessions_.Gone(client->session());
  clock_.Advance(7000);
  const RequestReport report = Now("a");
  EXPECT_EQ(report.outcome, "LENGTH");
  EXPECT_EQ(report.whole_us, 1500);
  ASSERT_TRUE(report.timings.has_value());
  EXPECT_EQ(report.timings->WholeUs(), 230);  // As End says.
  EXPECT_EQ(report.TransportUs() + report.timings->WholeUs(), report.whole_us);
  EXPECT_EQ(report.first_token_us, 1000);
  EXPECT_EQ(report.ended_ago_us, 7000);
  EXPECT_EQ(report.usage.completion_tokens, 3);
  EXPECT_TRUE(link_.TakeExplains().empty());  // The scheduler is not asked.
}

TEST_F(ExplainTest, TheSchedulerIsAskedForARequestThatRuns) {
  Up();
  const auto client = Start(Request("a"));
  const AttemptId attempt = AcceptAll()[0].attempt;
  clock_.Advance(1000);
  Send(Frame(attempt, 0, {3, 4}));
  EXPECT_FALSE(Ask("a").has_value());
  const auto asks = link_.TakeExplains();
  ASSERT_EQ(asks.size(), 1u);
  EXPECT_EQ(asks[0].key, Key("a"));
  clock_.Advance(200);
  sessions_.OnExplained(
      Found(asks[0].ask, {.queue_us = 100, .prefill_us = 700, .phase = RequestPhase::kDecode}));
  ASSERT_TRUE(answer_ && answer_->ok());
  EXPECT_EQ((*answer_)->outcome, "RUNNING");
  EXPECT_EQ((*answer_)->whole_us, 1200);
  EXPECT_EQ((*answer_)->TransportUs(), 400);
  EXPECT_EQ((*answer_)->timings->phase, RequestPhase::kDecode);
  sessions_.OnExplained(Found(asks[0].ask, {}));  // A second answer changes nothing.
}

TEST_F(ExplainTest, WithoutAnAnswerOfTheSchedulerTheRouterSaysWhatItKnows) {
  Up();
  const auto client = Start(Request("a"));
  AcceptAll();
  EXPECT_FALSE(Ask("a").has_value());
  clock_.Advance(1'000'000);
  sessions_.Tick();
  ASSERT_TRUE(answer_ && answer_->ok());
  EXPECT_FALSE((*answer_)->timings.has_value());
  EXPECT_EQ((*answer_)->TransportUs(), 1'000'000);
  EXPECT_FALSE(Ask("a").has_value());
  Down();
  EXPECT_TRUE(answer_ && answer_->ok());
  EXPECT_TRUE(Ask("a").has_value());  // No leader: no wait.
  sessions_.EndExplains();
  Up();
  EXPECT_TRUE(Ask("a").has_value());
}

TEST_F(ExplainTest, AnUnknownIdIsNotFoundAndSaysHowManyAreKept) {
  EXPECT_EQ(Ask("x")->status().code(), absl::StatusCode::kNotFound);
  Up();
  const auto client = Start(Request("a"));
  const AttemptId attempt = AcceptAll()[0].attempt;
  Send(End(Frame(attempt, 0, {3}), FinishReason::kLength));
  sessions_.Gone(client->session());
  EXPECT_FALSE(Ask("x").has_value());  // Another router may serve it.
  sessions_.OnExplained({.ask = link_.TakeExplains().at(0).ask});
  ASSERT_TRUE(answer_.has_value());
  EXPECT_EQ(DetailOf(answer_->status())->reason, "SESSION_NOT_FOUND");
  EXPECT_NE(Message(answer_->status()).find("last 1 requests"), std::string::npos);
  EXPECT_NE(Message(answer_->status()).find("at most 10000"), std::string::npos);
}

TEST_F(ExplainTest, ARequestOfAnotherRouterIsKnownToTheScheduler) {
  Up();
  EXPECT_FALSE(Ask("elsewhere").has_value());
  sessions_.OnExplained(Found(link_.TakeExplains().at(0).ask, {.queue_us = 900}));
  ASSERT_TRUE(answer_ && answer_->ok());
  EXPECT_EQ((*answer_)->outcome, "RUNNING");
  EXPECT_EQ((*answer_)->whole_us, 900);
  EXPECT_EQ((*answer_)->TransportUs(), 0);
}

TEST_F(ExplainTest, TheTimesAfterAStopStringComeWithTheAnswerToTheClose) {
  Up();
  AdmittedRequest admitted = Request("a");
  admitted.text.stop_strings = {"fox"};
  const auto client = Start(std::move(admitted));
  const AttemptId attempt = AcceptAll()[0].attempt;
  clock_.Advance(1000);
  Send(Frame(attempt, 0, Ids("the fox jumps")));
  sessions_.Gone(client->session());
  EXPECT_FALSE(Now("a").timings.has_value());
  clock_.Advance(50);
  Send(End(Frame(attempt, 9, {}), FinishReason::kStopString));
  const RequestReport report = Now("a");
  ASSERT_TRUE(report.timings.has_value());
  EXPECT_EQ(report.whole_us, 1050);
  EXPECT_EQ(report.outcome, "STOP_STRING");
}

TEST_F(ExplainTest, FailedAndRefusedRequestsHaveTheirReason) {
  Up();
  const auto failed = Start(Request("failed"));
  fathom::Frame frame = Frame(AcceptAll()[0].attempt, 0, {});
  frame.error = WithReason(Internal("a fault"), Reason::kNonFiniteLogits);
  frame.timings = RequestTimings{.queue_us = 5, .phase = RequestPhase::kEnded};
  clock_.Advance(100);
  Send(frame);
  sessions_.Gone(failed->session());
  RequestReport report = Now("failed");
  EXPECT_EQ(report.outcome, "INTERNAL");
  EXPECT_EQ(report.reason, "NON_FINITE_LOGITS");
  EXPECT_EQ(report.message, "a fault");
  EXPECT_EQ(report.TransportUs(), 95);

  const auto refused = Start(Request("refused"));
  sessions_.OnRefused({link_.TakeSubmits().at(0).attempt,
                       WithReason(Exhausted("full"), Reason::kQueueFull, "", 100)});
  sessions_.Gone(refused->session());
  report = Now("refused");
  EXPECT_EQ(report.outcome, "RESOURCE_EXHAUSTED");
  EXPECT_EQ(report.reason, "QUEUE_FULL");
  EXPECT_FALSE(report.accepted);

  sessions_.NoteRefused(Key("early"), WithReason(Invalid("bad"), Reason::kOutOfRange, "top_p"));
  EXPECT_EQ(Now("early").reason, "OUT_OF_RANGE");
  sessions_.NoteRefused(Key("failed"), Invalid("another request with this id"));
  EXPECT_EQ(Now("failed").reason, "NON_FINITE_LOGITS");  // It keeps its report.
}

TEST_F(ExplainTest, AResumedRequestCountsFromItsFirstStream) {
  Up();
  const auto first = Start(Request("a"));
  Send(Frame(AcceptAll()[0].attempt, 0, {3, 4}));
  clock_.Advance(1000);
  Leave(first);
  EXPECT_FALSE(Ask("a").has_value());  // The scheduler still holds it.
  sessions_.OnExplained(
      Found(link_.TakeExplains().at(0).ask, {.decode_us = 800, .suspended_us = 20}));
  EXPECT_EQ((*answer_)->outcome, "CANCELLED");
  clock_.Advance(500);
  const auto second = Resume("a", {2});
  Send(End(Frame(AcceptAll()[0].attempt, 2, {5}), FinishReason::kLength));
  sessions_.Gone(second->session());
  const RequestReport report = Now("a");
  EXPECT_EQ(report.outcome, "LENGTH");
  EXPECT_EQ(report.whole_us, 1500);
  EXPECT_EQ(report.first_token_us, 0);
  // One more stream of the ended request leaves its report as it is.
  clock_.Advance(500);
  const auto third = Resume("a", {0});
  sessions_.Gone(third->session());
  EXPECT_EQ(Now("a").whole_us, 1500);
}

TEST_F(ExplainTest, EachStreamOfARequestIsReportedOnce) {
  struct Reports final : ReportSink {
    std::vector<std::string> outcomes;
    void Ended(const RequestReport& report) override { outcomes.push_back(report.outcome); }
  } reports;
  Sessions sessions({}, &clock_, &link_, &TinyTokenizer(), &counts_, &reports);
  link_.set_current(StreamId{1});
  sessions.OnUp(StreamId{1}, TinyFacts(), kProtocolMax);
  const auto accept = [&] {
    const AttemptId attempt = link_.TakeSubmits().at(0).attempt;
    sessions.OnAccepted({.attempt = attempt, .request_id = "a", .seed = 7});
    return attempt;
  };
  auto first = std::make_shared<TestClient>(&sessions);
  first->Begin(*sessions.Create(Request("a"), first));
  fathom::Frame frame = Frame(accept(), 0, {3, 4});
  sessions.OnFrames(StreamId{1}, {&frame, 1});
  sessions.HangUp(first->session());
  sessions.Gone(first->session());
  auto second = std::make_shared<TestClient>(&sessions);
  second->Begin(*sessions.Resume({"default", "a"}, {2}, second));
  frame = End(Frame(accept(), 2, {5}), FinishReason::kLength);
  sessions.OnFrames(StreamId{1}, {&frame, 1});
  EXPECT_EQ(reports.outcomes, std::vector<std::string>{"CANCELLED"});
  sessions.Gone(second->session());
  EXPECT_EQ(reports.outcomes, (std::vector<std::string>{"CANCELLED", "LENGTH"}));
}

TEST_F(ExplainTest, ASchedulerOfAnEarlierBuildGetsNoTraceAndIsNotAsked) {
  const std::string trace = "4bf92f3577b34da6a3ce929d0e0e4736", span = "00f067aa0ba902b7";
  link_.set_current(stream_ = StreamId{1});
  sessions_.OnUp(stream_, TinyFacts(), kProtocol2 - 1);
  AdmittedRequest admitted = Request("a");
  admitted.trace.context = {trace, span, true};
  const auto client = Start(std::move(admitted));
  EXPECT_EQ(AcceptAll().at(0).traceparent, "");
  EXPECT_TRUE(Ask("a").has_value());
  Up();
  EXPECT_EQ(AcceptAll().at(0).traceparent, "00-" + trace + "-" + span + "-01");
  EXPECT_FALSE(Ask("a").has_value());
}

RequestReport ReportOf(const std::string& id, const std::string& message = "") {
  RequestReport report;
  report.key = {"", id};
  report.message = message;
  return report;
}

TEST(RequestLog, KeepsTheLastOnesWithinItsNumberAndItsBytes) {
  RequestLog log({.requests_max = 3, .bytes_max = 1 << 20});
  for (const char* id : {"a", "b", "a", "c", "d"}) log.Add(ReportOf(id));
  EXPECT_EQ(log.size(), 3u);
  EXPECT_EQ(log.Find({"", "b"}), nullptr);
  EXPECT_NE(log.Find({"", "a"}), nullptr);
  EXPECT_NE(log.Find({"", "d"}), nullptr);

  RequestLog usual({});
  for (int i = 0; i < 10'001; ++i) {
    RequestReport report = ReportOf(fmt::format("{:032}", i), std::string(100, 'x'));
    report.timings.emplace();
    usual.Add(std::move(report));
  }
  EXPECT_EQ(usual.size(), 10'000u);

  RequestLog small({.requests_max = 1000, .bytes_max = 20'000, .message_bytes_max = 100});
  for (int i = 0; i < 1000; ++i) small.Add(ReportOf(std::to_string(i), std::string(5000, 'x')));
  EXPECT_LE(small.bytes(), 20'000u);
  EXPECT_GE(small.size(), 5u);
  EXPECT_LE(small.Find({"", "999"})->message.size(), 103u);
  EXPECT_EQ(small.Find({"", "0"}), nullptr);
}

}  // namespace
}  // namespace fathom::router
