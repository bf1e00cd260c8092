// Sessions over a fake link: each rule for the router in docs/ARCHITECTURE.md, "Sessions", and then
// all rules together under random breaks, duplicates, new leaders and slow readers.
#include "router/sessions/sessions.h"

#include <gmock/gmock.h>

#include <algorithm>
#include <cstdlib>
#include <random>
#include <set>

#include "router/sessions/session_blob.h"
#include "tests/router/session_fixture.h"

namespace fathom::router {
namespace {

uint64_t TestSeed() {
  const char* seed = std::getenv("FATHOM_SEED");
  return seed == nullptr ? 13 : std::strtoull(seed, nullptr, 10);
}

TEST_F(SessionsTest, NothingBeforeAccepted) {
  Up();
  const auto client = Start(Request("a"));
  EXPECT_FALSE(client->seen().started);
  const auto submits = AcceptAll();
  ASSERT_EQ(submits.size(), 1u);
  EXPECT_FALSE(submits[0].replay);
  EXPECT_TRUE(submits[0].record->sequences.empty());
  EXPECT_TRUE(client->seen().started);
}

TEST_F(SessionsTest, RefusalIsTheStatus) {
  Up();
  const auto client = Start(Request("a"));
  sessions_.OnRefused(
      {link_.TakeSubmits().at(0).attempt,
       WithDetail(Exhausted("full"), {.reason = "QUEUE_FULL", .field = {}, .retry_after_ms = 5})});
  EXPECT_FALSE(client->seen().started);
  ASSERT_TRUE(client->seen().end.has_value());
  EXPECT_EQ(DetailOf(*client->seen().end)->reason, "QUEUE_FULL");
}

TEST_F(SessionsTest, TokensTextAndEndInOrder) {
  Up();
  const auto client = Start(Request("a"));
  const AttemptId attempt = AcceptAll()[0].attempt;
  const std::string answer = "Hello, 你好!";
  std::vector<TokenId> ids = Ids(answer);
  for (size_t i = 0; i < ids.size(); ++i) Send(Frame(attempt, static_cast<int32_t>(i), {ids[i]}));
  ids.push_back(1);
  Send(End(Frame(attempt, static_cast<int32_t>(ids.size()) - 1, {1}), FinishReason::kEndToken));
  const Seen seen = client->seen();
  EXPECT_EQ(seen.ids, ids);
  EXPECT_EQ(seen.text, answer);
  ASSERT_EQ(seen.finishes.size(), 1u);
  EXPECT_EQ(seen.finishes[0].stop_token, 1);
  EXPECT_EQ(seen.finishes[0].position, static_cast<int32_t>(ids.size()));
  EXPECT_TRUE(seen.over());
  sessions_.Gone(client->session());
  EXPECT_EQ(counts_.ended, std::vector<std::string>{"END_TOKEN"});
}

TEST_F(SessionsTest, DuplicatesAreDroppedAndCounted) {
  Up();
  const auto client = Start(Request("a"));
  const AttemptId attempt = AcceptAll()[0].attempt;
  Send(Frame(attempt, 0, {10, 11, 12}));
  Send(Frame(attempt, 1, {11, 12}));
  Send(Frame(attempt, 2, {12, 13}));
  EXPECT_EQ(client->seen().ids, (std::vector<TokenId>{10, 11, 12, 13}));
  EXPECT_EQ(counts_.dropped, 3);
  EXPECT_TRUE(link_.resets().empty());
}

TEST_F(SessionsTest, GapResetsTheStreamAndSubmitsAgain) {
  Up();
  const auto client = Start(Request("a"));
  const AttemptId first = AcceptAll()[0].attempt;
  Send(Frame(first, 0, {10, 11}));
  Send(Frame(first, 3, {13}));
  ASSERT_EQ(link_.resets(), std::vector<StreamId>{stream_});
  EXPECT_EQ(counts_.resets, 1);
  Down();
  Up();
  const auto submits = AcceptAll();
  ASSERT_EQ(submits.size(), 1u);
  EXPECT_GT(submits[0].attempt, first);
  EXPECT_TRUE(submits[0].replay);
  EXPECT_EQ(submits[0].record->sequences.at(0).ids, (std::vector<TokenId>{10, 11}));
  EXPECT_EQ(submits[0].have, std::vector<int32_t>{2});
  Send(Frame(first, 2, {99}));  // A frame of an old attempt.
  Send(Frame(submits[0].attempt, 2, {12}));
  EXPECT_EQ(client->seen().ids, (std::vector<TokenId>{10, 11, 12}));
  EXPECT_EQ(counts_.resubmitted, 1);
}

TEST_F(SessionsTest, TheEndOfARequestIsToldWithTheSchedulersTimings) {
  Up();
  const auto client = Start(Request("a"));
  const AttemptId attempt = AcceptAll()[0].attempt;
  clock_.Advance(1500);
  Send(Frame(attempt, 0, {3, 4}));
  EXPECT_TRUE(counts_.finished.empty());
  clock_.Advance(500);
  Send(End(Frame(attempt, 2, {5}), FinishReason::kLength));
  ASSERT_EQ(counts_.finished.size(), 1u);
  EXPECT_EQ(counts_.finished[0].timings.queue_us, 30);
  EXPECT_EQ(counts_.finished[0].usage.completion_tokens, 3);
  EXPECT_EQ(counts_.finished[0].max_tokens, 100);
  EXPECT_EQ(counts_.finished[0].whole_us, 2000);
}

// The router ends the sequence before the scheduler does; the timings come with its answer to the
// Close, also if the client has left by then.
TEST_F(SessionsTest, TimingsAfterAStopStringComeWithTheAnswerToTheClose) {
  Up();
  AdmittedRequest admitted = Request("a");
  admitted.text.stop_strings = {"fox"};
  const auto client = Start(std::move(admitted));
  const AttemptId attempt = AcceptAll()[0].attempt;
  clock_.Advance(1000);
  Send(Frame(attempt, 0, Ids("the fox jumps")));
  ASSERT_EQ(client->seen().finishes.size(), 1u);
  EXPECT_TRUE(counts_.finished.empty());
  const auto length = client->seen().finishes[0].usage.completion_tokens;
  sessions_.Gone(client->session());
  clock_.Advance(700);
  Send(End(Frame(attempt, length, {}), FinishReason::kStopString));
  ASSERT_EQ(counts_.finished.size(), 1u);
  EXPECT_EQ(counts_.finished[0].timings.queue_us, 30);
  EXPECT_EQ(counts_.finished[0].usage.completion_tokens, length);
  EXPECT_EQ(counts_.finished[0].whole_us, 1000);  // The client's stream ended then.
  Send(End(Frame(attempt, length, {}), FinishReason::kStopString));
  EXPECT_EQ(counts_.finished.size(), 1u);
}

TEST_F(SessionsTest, StopStringCutsAndTellsUpstream) {
  Up();
  AdmittedRequest admitted = Request("a");
  admitted.text.stop_strings = {"fox"};
  const auto client = Start(admitted);
  const AttemptId attempt = AcceptAll()[0].attempt;
  const std::vector<TokenId> ids = Ids("the quick brown fox jumps over the lazy dog");
  Send(Frame(attempt, 0, ids));
  const Seen seen = client->seen();
  EXPECT_EQ(seen.text, "the quick brown ");
  ASSERT_EQ(seen.finishes.size(), 1u);
  EXPECT_EQ(seen.finishes[0].reason, FinishReason::kStopString);
  EXPECT_EQ(seen.finishes[0].stop_string, "fox");
  EXPECT_EQ(seen.finishes[0].usage.completion_tokens, static_cast<int32_t>(seen.ids.size()));
  EXPECT_LT(seen.ids.size(), ids.size());
  ASSERT_EQ(link_.closes().size(), 1u);
  EXPECT_EQ(link_.closes()[0].length, static_cast<int32_t>(seen.ids.size()));
  Send(Frame(attempt, static_cast<int32_t>(ids.size()), {5}));
  EXPECT_EQ(client->seen().ids, seen.ids);
}

TEST_F(SessionsTest, SlowReaderGetsOneMessageOfWhatWaited) {
  Up();
  const auto client = Start(Request("a"));
  const AttemptId attempt = AcceptAll()[0].attempt;
  client->Stall();
  for (int32_t i = 0; i < 50; ++i) Send(Frame(attempt, i, {TokenId{100 + i}}));
  EXPECT_EQ(client->seen().ids.size(), 1u);  // The token of the write in flight.
  client->Unstall();
  EXPECT_EQ(client->seen().ids.size(), 50u);
  EXPECT_EQ(client->seen().messages, 2);
}

TEST_F(SessionsTest, StuckReaderIsSuspended) {
  Up();
  const auto client = Start(Request("a"));
  const AttemptId attempt = AcceptAll()[0].attempt;
  client->Stall();
  Send(Frame(attempt, 0, {10}));
  clock_.Advance(59'000'000);
  sessions_.Tick();
  EXPECT_FALSE(client->broken());
  clock_.Advance(2'000'000);
  sessions_.Tick();
  EXPECT_TRUE(client->broken());
  EXPECT_EQ(link_.suspends(), std::vector<AttemptId>{attempt});
  EXPECT_TRUE(client->seen().over());
}

TEST_F(SessionsTest, ResumeAfterHangUpGoesOn) {
  Up();
  const std::string answer = "The capital of France is Paris, 首都是巴黎。";
  const std::vector<TokenId> ids = Ids(answer);
  // The text after n ids and the text of a resume at n are together the whole answer.
  for (int32_t n = 0; n <= 4; ++n) {
    const std::string id = "r" + std::to_string(n);
    const auto first = Start(Request(id));
    const AttemptId attempt = AcceptAll()[0].attempt;
    Send(Frame(attempt, 0, {ids.begin(), ids.begin() + 4}));
    Leave(first);
    EXPECT_EQ(link_.suspends().back(), attempt);

    const auto client = Resume(id, {n});
    const auto submits = AcceptAll();
    ASSERT_EQ(submits.size(), 1u);
    EXPECT_TRUE(submits[0].replay);
    EXPECT_EQ(submits[0].have, std::vector<int32_t>{4});
    Send(End(Frame(submits[0].attempt, 4, {ids.begin() + 4, ids.end()}), FinishReason::kLength));
    const Seen seen = client->seen();
    EXPECT_EQ(seen.ids, std::vector<TokenId>(ids.begin() + n, ids.end()));
    TextStream before(&TinyTokenizer(), {});
    TextDelta had;
    before.Append({ids.data(), static_cast<size_t>(n)}, &had);
    EXPECT_EQ(had.text + seen.text, answer) << n;
    sessions_.Gone(client->session());
  }
}

TEST_F(SessionsTest, FinishedSessionIsServedFromWhatWasKept) {
  Up();
  const std::vector<TokenId> ids = Ids("Paris.");
  const auto length = static_cast<int32_t>(ids.size());
  const auto first = Start(Request("a"));
  Send(End(Frame(AcceptAll()[0].attempt, 0, ids), FinishReason::kLength));
  sessions_.Gone(first->session());
  Down();
  EXPECT_EQ(Resume("a", {})->seen().text, "Paris.");
  const auto end = Resume("a", {length});
  EXPECT_TRUE(end->seen().started);
  EXPECT_TRUE(end->seen().ids.empty());
  EXPECT_EQ(end->seen().finishes.size(), 1u);
  const auto all = Resume("a", {length + 1});  // The end counts as one more position.
  EXPECT_TRUE(all->seen().finishes.empty());
  ASSERT_TRUE(all->seen().end.has_value());
  EXPECT_TRUE(all->seen().end->ok());
  EXPECT_TRUE(link_.TakeSubmits().empty());
  EXPECT_EQ(first->seen().ids, ids);
}

TEST_F(SessionsTest, ResumeOfAnotherRoutersSession) {
  Up();
  const std::vector<TokenId> ids = Ids("one two three four");
  const auto client = Resume("b", {2});
  const auto submits = link_.TakeSubmits();
  ASSERT_EQ(submits.size(), 1u);
  EXPECT_FALSE(submits[0].record.has_value());
  EXPECT_EQ(submits[0].key.request_id, "b");
  Accepted accepted;
  accepted.attempt = submits[0].attempt;
  accepted.seed = 7;
  accepted.record = Request("b").record;
  accepted.record->sequences = {{{ids[0], ids[1], ids[2]}, {}, FinishReason::kNone}};
  accepted.router_blob = EncodeBlob({});
  sessions_.OnAccepted(accepted);
  Send(Frame(submits[0].attempt, 0, ids));
  EXPECT_EQ(client->seen().ids, std::vector<TokenId>(ids.begin() + 2, ids.end()));
  EXPECT_EQ(counts_.dropped, 3);
  // A record that cannot be parsed ends the stream with an error that names it.
  const auto other = Resume("c", {});
  accepted.attempt = link_.TakeSubmits().at(0).attempt;
  accepted.router_blob = "{";
  sessions_.OnAccepted(accepted);
  EXPECT_EQ(other->seen().end->code(), absl::StatusCode::kInternal);
}

TEST_F(SessionsTest, NoSchedulerIsABoundedWait) {
  const auto waits = Start(Request("a"));
  clock_.Advance(1'900'000);
  sessions_.Tick();
  EXPECT_FALSE(waits->seen().over());
  clock_.Advance(200'000);
  sessions_.Tick();
  ASSERT_TRUE(waits->seen().end.has_value());
  EXPECT_EQ(waits->seen().end->code(), absl::StatusCode::kUnavailable);
  EXPECT_GT(DetailOf(*waits->seen().end)->retry_after_ms, 0);
  sessions_.Gone(waits->session());

  Up();
  const auto runs = Start(Request("b"));
  AcceptAll();
  Down();
  clock_.Advance(30'000'000);
  sessions_.Tick();
  EXPECT_FALSE(runs->seen().over());  // An accepted session waits for a leader.
  clock_.Advance(31'000'000);
  sessions_.Tick();
  EXPECT_TRUE(runs->seen().over());
}

TEST_F(SessionsTest, FullOutboxMakesSubmitsWaitInOrder) {
  Up();
  link_.set_room(1);
  for (const char* id : {"a", "b", "c"}) {
    Start(Request(id));
    clock_.Advance(1000);
  }
  EXPECT_EQ(link_.TakeSubmits().size(), 1u);
  link_.set_room(-1);
  sessions_.OnWritable(stream_);
  const auto submits = link_.TakeSubmits();
  ASSERT_EQ(submits.size(), 2u);
  EXPECT_EQ(submits[0].key.request_id, "b");
  EXPECT_EQ(submits[1].key.request_id, "c");
}

TEST_F(SessionsTest, ReplaysGoOldestFirst) {
  Up();
  for (const char* id : {"a", "b", "c", "d"}) {
    Start(Request(id));
    clock_.Advance(1000);
  }
  AcceptAll();
  Down();
  Up();
  std::string order;
  for (const fathom::Submit& submit : link_.TakeSubmits()) order += submit.key.request_id;
  EXPECT_EQ(order, "abcd");
}

TEST_F(SessionsTest, SameIdSameRequestSharesOtherRequestIsRefused) {
  Up();
  const auto first = Start(Request("a"));
  AttemptId attempt = AcceptAll()[0].attempt;
  Send(Frame(attempt, 0, {10, 11}));
  AdmittedRequest same = Request("a");
  same.record.seed = 99;  // A new random seed; the first session's seed counts.
  const auto second = Start(same);
  const auto submits = AcceptAll();
  EXPECT_EQ(submits.at(0).record->seed, 7u);
  EXPECT_EQ(second->seen().ids, (std::vector<TokenId>{10, 11}));
  AdmittedRequest other = Request("a");
  other.record.prompt_ids = {5};
  EXPECT_EQ(DetailOf(sessions_.Create(other, first).status())->reason, "REQUEST_ID_IN_USE");
}

TEST_F(SessionsTest, KeepAliveAfterASecondOfSilence) {
  Up();
  const auto client = Start(Request("a"));
  clock_.Advance(5'000'000);
  sessions_.Tick();
  EXPECT_EQ(client->seen().keep_alives, 0);  // Not before Accepted.
  AcceptAll();
  clock_.Advance(900'000);
  sessions_.Tick();
  EXPECT_EQ(client->seen().keep_alives, 0);
  clock_.Advance(200'000);
  sessions_.Tick();
  sessions_.Tick();
  EXPECT_EQ(client->seen().keep_alives, 1);
}

TEST_F(SessionsTest, DeadlineTravelsAsWhatIsLeftAndEndsWithoutScheduler) {
  Up();
  AdmittedRequest admitted = Request("a");
  admitted.deadline_ms = 5000;
  const auto client = Start(admitted);
  const auto first = AcceptAll();
  EXPECT_EQ(first[0].deadline_us, 5'000'000);
  Send(Frame(first[0].attempt, 0, {10}));
  Down();
  clock_.Advance(2'000'000);
  Up();
  EXPECT_EQ(AcceptAll()[0].deadline_us, 3'000'000);
  Down();
  clock_.Advance(4'500'000);
  sessions_.Tick();
  const Seen seen = client->seen();
  ASSERT_EQ(seen.finishes.size(), 1u);
  EXPECT_EQ(seen.finishes[0].reason, FinishReason::kDeadline);
  EXPECT_EQ(seen.finishes[0].usage.completion_tokens, 1);
}

TEST_F(SessionsTest, FailedSequenceEndsAfterItsTokens) {
  Up();
  const auto client = Start(Request("a"));
  const AttemptId attempt = AcceptAll()[0].attempt;
  Send(Frame(attempt, 0, {10}));
  fathom::Frame frame = Frame(attempt, 1, {11});
  frame.error = WithDetail(Internal("NaN"), {.reason = "NON_FINITE_LOGITS", .field = {}});
  Send(frame);
  EXPECT_EQ(client->seen().ids, (std::vector<TokenId>{10, 11}));
  EXPECT_EQ(DetailOf(*client->seen().end)->reason, "NON_FINITE_LOGITS");
}

TEST_F(SessionsTest, TooManyStreamsSayWhenToTryAgain) {
  SessionsOptions options;
  options.open_max = 1;
  Sessions small(options, &clock_, &link_, nullptr, &counts_);
  const auto client = std::make_shared<TestClient>(&small);
  ASSERT_TRUE(small.Create(Request("a"), client).ok());
  const auto refused = small.Create(Request("b"), client);
  EXPECT_EQ(refused.status().code(), absl::StatusCode::kResourceExhausted);
  EXPECT_GT(DetailOf(refused.status())->retry_after_ms, 0);
  // Clients that are refused later get longer delays, so that they do not all return at the same
  // moment.
  std::set<int64_t> delays;
  for (int i = 0; i < 40; ++i) {
    delays.insert(DetailOf(small.Create(Request("c"), client).status())->retry_after_ms);
  }
  EXPECT_GT(delays.size(), 20u);
  EXPECT_GT(*delays.rbegin(), 2'000);
}

// Readiness computes the delay for clients from these two values.
TEST_F(SessionsTest, AViewSaysHowLongNobodyCouldAnswer) {
  clock_.Advance(1'000'000);
  EXPECT_EQ(sessions_.view().unable_us, 1'000'000);
  Up();
  clock_.Advance(1'000'000);
  EXPECT_EQ(sessions_.view().unable_us, 0);
  SchedulerFacts facts = TinyFacts();
  facts.cluster.groups = 0;
  sessions_.OnFacts(stream_, facts);
  clock_.Advance(2'000'000);
  Down();  // The time without an answer continues.
  clock_.Advance(1'000'000);
  EXPECT_EQ(sessions_.view().unable_us, 3'000'000);
  EXPECT_NE(sessions_.view().number, sessions_.view().number);
}

TEST_F(SessionsTest, PromptLogprobsArriveOnceAcrossAReplay) {
  Up();
  AdmittedRequest admitted = Request("a");
  admitted.record.request.output.prompt_logprobs = 0;
  const auto client = Start(admitted);
  for (int round = 0; round < 2; ++round) {
    fathom::Frame frame = Frame(AcceptAll().at(0).attempt, 0, {});
    frame.prompt_logprobs = PromptLogprobs{1, {{3, -1.0f, {}, {}}, {4, -2.0f, {}, {}}}};
    Send(frame);
    Down();
    Up();
  }
  EXPECT_EQ(client->seen().prompt_logprobs.size(), 2u);
}

// Random breaks, repetitions, losses and delays: each client reads exactly the answer.
TEST_F(SessionsTest, EveryClientReadsExactlyTheAnswer) {
  SCOPED_TRACE("FATHOM_SEED=" + std::to_string(TestSeed()));
  std::mt19937_64 rng(TestSeed());
  const std::string text =
      "欲穷千里目，更上一层楼。 The quick brown fox jumps over 13 lazy dogs — naïvely "
      "🦊!";
  const std::vector<TokenId> ids = Ids(text);
  for (int round = 0; round < 200; ++round) {
    if (round == 0 || rng() % 4 == 0) Up();
    AdmittedRequest admitted = Request("r" + std::to_string(round));
    admitted.record.request.output.logprobs = 0;
    const auto client = Start(admitted);
    auto attempt = AcceptAll().back().attempt;
    size_t sent = 0;  // What the scheduler has sent for this attempt.
    while (!client->seen().over()) {
      switch (rng() % 8) {
        case 0:  // A new leader: everything is submitted again.
          Down();
          Up();
          for (const fathom::Submit& submit : AcceptAll()) {
            if (submit.key.request_id != admitted.record.key.request_id) continue;
            attempt = submit.attempt;
            sent = static_cast<size_t>(submit.have.at(0));
          }
          break;
        case 1:
          client->Stall();
          break;
        case 2:
          client->Unstall();
          break;
        default: {
          const size_t from =
              rng() % 3 == 0 ? rng() % (sent + 1) : sent;  // Sometimes tokens are sent again.
          const size_t to = std::max(sent, std::min(ids.size(), from + rng() % 6));
          fathom::Frame frame =
              Frame(attempt, static_cast<int32_t>(from), {ids.begin() + from, ids.begin() + to});
          for (const TokenId id : frame.ids) frame.logprobs.push_back({id, -0.5f, {}, {}});
          sent = to;
          if (sent == ids.size()) frame = End(std::move(frame), FinishReason::kLength);
          Send(std::move(frame));
          if (sent == ids.size()) client->Unstall();
        }
      }
    }
    const Seen seen = client->seen();
    ASSERT_EQ(seen.ids, ids) << "round " << round;
    ASSERT_EQ(seen.text, text) << "round " << round;
    ASSERT_EQ(seen.logprobs.size(), ids.size());
    ASSERT_EQ(seen.finishes.size(), 1u);
    sessions_.Gone(client->session());
  }
  EXPECT_EQ(sessions_.view().open, 0u);
  EXPECT_TRUE(link_.resets().empty());
}

}  // namespace
}  // namespace fathom::router
