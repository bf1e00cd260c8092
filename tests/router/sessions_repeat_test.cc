// A repeated request or a resume may arrive in any state of the session. Nothing that docs/API.md,
// "Seeds and ids", promises is refused.
#include "router/sessions/session_blob.h"
#include "tests/router/session_fixture.h"

namespace fathom::router {
namespace {

absl::Status Unknown() {
  return WithDetail(NotFound("no record"), {.reason = "SESSION_NOT_FOUND", .field = "request_id"});
}

TEST_F(SessionsTest, AResumeThatNobodyKnowsLeavesNothingBehind) {
  Up();
  const auto lost = Resume("a", {5});
  // A repetition is possible before the answer to the Submit, after a refusal, and after the end of
  // the stream.
  const auto during = Start(Request("a"));
  for (const fathom::Submit& submit : link_.TakeSubmits()) {
    if (!submit.record) sessions_.OnRefused({submit.attempt, Unknown()});
  }
  ASSERT_TRUE(lost->seen().end.has_value());
  Leave(during);
  const auto after = Start(Request("a"));
  Leave(after);
  sessions_.Gone(lost->session());
  AdmittedRequest other = Request("b");
  Resume("b", {});
  EXPECT_TRUE(sessions_.Create(other, after).ok());
  const auto again = Start(Request("a"));
  const AttemptId attempt = AcceptAll().back().attempt;
  Send(End(Frame(attempt, 0, {10, 1}), FinishReason::kEndToken));
  EXPECT_EQ(again->seen().ids, (std::vector<TokenId>{10, 1}));
}

TEST_F(SessionsTest, AFailedResumeNeverReplacesALivingSession) {
  Up();
  const auto living = Start(Request("a"));
  const AttemptId attempt = AcceptAll()[0].attempt;
  Send(Frame(attempt, 0, {10, 11}));
  Down();
  // The resume takes the record from the session in this router and asks no scheduler for it.
  const auto second = Resume("a", {1});
  const auto third =
      Resume("a", {1});  // Takes the record from the second one, which is not accepted.
  Up();
  for (const fathom::Submit& submit : AcceptAll()) {
    ASSERT_TRUE(submit.record.has_value());
    EXPECT_EQ(submit.record->sequences.at(0).ids, (std::vector<TokenId>{10, 11}));
    EXPECT_TRUE(submit.replay);
  }
  EXPECT_EQ(second->seen().ids, std::vector<TokenId>{11});
  EXPECT_EQ(third->seen().ids, std::vector<TokenId>{11});
  // The same with a session that was not accepted yet.
  Down();
  Start(Request("new"));
  Resume("new", {});
  Up();
  for (const fathom::Submit& submit : link_.TakeSubmits()) EXPECT_TRUE(submit.record.has_value());
}

TEST_F(SessionsTest, ARecordThatCameWithAResumeIsFoundByTheNext) {
  Up();
  const auto first = Resume("b", {});
  Accepted accepted;
  accepted.attempt = link_.TakeSubmits().at(0).attempt;
  accepted.seed = 7;
  accepted.record = Request("b").record;
  accepted.router_blob = EncodeBlob({});
  sessions_.OnAccepted(accepted);
  Leave(first);
  Start(Request("b"));
  EXPECT_TRUE(link_.TakeSubmits().at(0).replay);
  AdmittedRequest other = Request("b");
  other.record.prompt_ids = {5};
  EXPECT_EQ(DetailOf(sessions_.Create(other, first).status())->reason, "REQUEST_ID_IN_USE");
}

TEST_F(SessionsTest, ARefusedRequestMayBeRepeatedWithAnotherBody) {
  Up();
  AdmittedRequest admitted = Request("a");
  admitted.idempotency_key = "k";
  const auto refused = Start(admitted);
  sessions_.OnRefused({link_.TakeSubmits().at(0).attempt,
                       WithDetail(Invalid("lower max_tokens"), {.reason = "KV_POOL_EXCEEDED"})});
  sessions_.Gone(refused->session());
  admitted.record.request.stop.max_tokens = 10;  // What the refusal proposed, with the same id.
  const auto lower = Start(admitted);
  AcceptAll();
  Leave(lower);
  clock_.Advance(61'000'000);
  sessions_.Tick();
  admitted.record.key.request_id = "digest-of-another-body";  // The key is free again.
  EXPECT_TRUE(sessions_.Create(admitted, refused).ok());
}

TEST_F(SessionsTest, AKeyIsFreeOnceAllItsSessionsAreForgotten) {
  Up();
  AdmittedRequest admitted = Request("a");
  admitted.idempotency_key = "k";
  const auto first = Start(admitted);
  AdmittedRequest same = Request("a");
  same.idempotency_key = "another";
  const auto second = Start(same);
  AcceptAll();
  Leave(first);
  clock_.Advance(30'000'000);
  Leave(second);
  clock_.Advance(31'000'000);
  sessions_.Tick();  // The first is forgotten, the second is not.
  admitted.record.key.request_id = "b";
  EXPECT_TRUE(sessions_.Create(admitted, first).ok());
  same.record.key.request_id = "c";
  EXPECT_EQ(DetailOf(sessions_.Create(same, first).status())->reason, "IDEMPOTENCY_KEY_REUSED");
}

TEST_F(SessionsTest, WhatWaitedInVainForASchedulerGoesOnFromItsRecord) {
  Up();
  const auto client = Start(Request("a"));
  Send(Frame(AcceptAll()[0].attempt, 0, {10, 11}));
  Down();
  clock_.Advance(61'000'000);
  sessions_.Tick();
  ASSERT_TRUE(client->seen().over());
  sessions_.Gone(client->session());
  Up();  // A scheduler without any session.
  const auto resumed = Resume("a", {1});
  const auto submits = AcceptAll();
  ASSERT_TRUE(submits.at(0).record.has_value());
  EXPECT_EQ(submits[0].record->sequences.at(0).ids, (std::vector<TokenId>{10, 11}));
  EXPECT_EQ(resumed->seen().ids, std::vector<TokenId>{11});
}

TEST_F(SessionsTest, AFailedSequenceIsTriedAgainFromTheStart) {
  Up();
  const auto client = Start(Request("a"));
  fathom::Frame frame = Frame(AcceptAll()[0].attempt, 0, {10});
  frame.error = Internal("NaN");
  Send(frame);
  sessions_.Gone(client->session());
  Start(Request("a"));
  const auto submits = link_.TakeSubmits();
  EXPECT_FALSE(submits.at(0).replay);
  EXPECT_TRUE(submits[0].record->sequences.empty());
}

TEST_F(SessionsTest, ADefaultLengthIsThatOfTheFirstAndStopStringsArePartOfTheRequest) {
  Up();
  AdmittedRequest admitted = Request("a");
  admitted.max_tokens_given = true;
  admitted.text.stop_strings = {"fox"};
  const auto first = Start(admitted);
  AcceptAll();
  AdmittedRequest same = admitted;
  same.max_tokens_given = false;  // The room may have changed since the first request.
  same.record.request.stop.max_tokens = 64;
  Start(same);
  EXPECT_EQ(AcceptAll().at(0).record->request.stop.max_tokens, 100);
  same.max_tokens_given = true;
  EXPECT_EQ(DetailOf(sessions_.Create(same, first).status())->reason, "REQUEST_ID_IN_USE");
  AdmittedRequest other = admitted;
  other.text.stop_strings = {"dog"};
  EXPECT_EQ(DetailOf(sessions_.Create(other, first).status())->reason, "REQUEST_ID_IN_USE");
}

TEST_F(SessionsTest, AFinishedAnswerComesAgainWithItsPromptsLogprobs) {
  Up();
  AdmittedRequest admitted = Request("a");
  admitted.record.request.output.prompt_logprobs = 0;
  const auto client = Start(admitted);
  fathom::Frame frame = End(Frame(AcceptAll()[0].attempt, 0, {10, 1}), FinishReason::kEndToken);
  frame.prompt_logprobs = PromptLogprobs{1, {{.id = 3, .logprob = -1}, {.id = 4, .logprob = -2}}};
  Send(frame);
  sessions_.Gone(client->session());
  const Seen seen = Resume("a", {})->seen();
  EXPECT_EQ(seen.prompt_logprobs.size(), 2u);
  EXPECT_EQ(seen.prompt_logprobs, client->seen().prompt_logprobs);
}

TEST_F(SessionsTest, AnotherRouterTellsWhichStringStopped) {
  Up();
  const std::vector<TokenId> ids = Ids("the quick brown fox");
  const auto client = Resume("b", {});
  Accepted accepted;
  accepted.attempt = link_.TakeSubmits().at(0).attempt;
  accepted.record = Request("b").record;
  accepted.router_blob = EncodeBlob({.stop_strings = {"dog", "fox"}});
  sessions_.OnAccepted(accepted);
  Send(End(Frame(accepted.attempt, 0, ids), FinishReason::kStopString));
  ASSERT_EQ(client->seen().finishes.size(), 1u);
  EXPECT_EQ(client->seen().finishes[0].stop_string, "fox");
}

TEST_F(SessionsTest, IdempotencyKeyWithAnotherBodyIsRefused) {
  Up();
  AdmittedRequest admitted = Request("digest-1");
  admitted.idempotency_key = "k";
  const auto client = Start(admitted);
  admitted.record.key.request_id = "digest-2";
  EXPECT_EQ(DetailOf(sessions_.Create(admitted, client).status())->reason,
            "IDEMPOTENCY_KEY_REUSED");
  Leave(client);
  clock_.Advance(61'000'000);
  sessions_.Tick();
  EXPECT_TRUE(sessions_.Create(admitted, client).ok());
}

}  // namespace
}  // namespace fathom::router
