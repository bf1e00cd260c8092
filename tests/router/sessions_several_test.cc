// Requests for several sequences (n > 1) in the router: events, stop strings, ends and resumes of
// each sequence, and one report and one count for the whole request.
#include <gtest/gtest.h>

#include "router/sessions/session_blob.h"
#include "tests/router/session_fixture.h"

namespace fathom::router {
namespace {

class SeveralTest : public SessionsTest {
 protected:
  static AdmittedRequest Several(const std::string& id, int32_t sequences) {
    AdmittedRequest admitted = Request(id);
    admitted.record.request.sequences = sequences;
    return admitted;
  }
  static fathom::Frame Of(int32_t sequence, fathom::Frame frame) {
    frame.sequence = sequence;
    return frame;
  }
  static std::vector<TokenId> Slice(const std::vector<TokenId>& ids, size_t from, size_t to) {
    return {ids.begin() + static_cast<ptrdiff_t>(from), ids.begin() + static_cast<ptrdiff_t>(to)};
  }
  const std::vector<TokenId> fox_ = Ids("the quick brown fox jumps over the lazy dog");
  const std::vector<TokenId> cat_ = Ids("a cat sat on the mat and looked at the moon");
};

TEST_F(SeveralTest, EachSequenceHasItsTokensItsTextAndItsEnd) {
  Up();
  const auto client = Start(Several("a", 2));
  const AttemptId attempt = AcceptAll()[0].attempt;
  Send(Of(1, Frame(attempt, 0, Slice(cat_, 0, 4))));
  Send(Of(0, Frame(attempt, 0, Slice(fox_, 0, 2))));
  Send(Of(1, End(Frame(attempt, 4, Slice(cat_, 4, 6)), FinishReason::kLength)));
  EXPECT_FALSE(client->seen().over());
  EXPECT_TRUE(counts_.finished.empty());
  clock_.Advance(1000);
  Send(Of(0, End(Frame(attempt, 2, Slice(fox_, 2, 5)), FinishReason::kEndToken)));
  const Seen seen = client->seen();
  EXPECT_EQ(seen.sequences.at(0).ids, Slice(fox_, 0, 5));
  EXPECT_EQ(seen.sequences.at(1).ids, Slice(cat_, 0, 6));
  EXPECT_EQ(seen.sequences.at(1).text, *TinyTokenizer().Decode(Slice(cat_, 0, 6), true));
  ASSERT_EQ(seen.finishes.size(), 2u);
  EXPECT_EQ(seen.finishes[0].sequence, 1);
  EXPECT_EQ(seen.finishes[0].usage.completion_tokens, 6);
  EXPECT_FALSE(seen.finishes[0].last);
  EXPECT_EQ(seen.finishes[1].sequence, 0);
  EXPECT_EQ(seen.finishes[1].usage.completion_tokens, 5);
  EXPECT_TRUE(seen.finishes[1].last);
  // One request, whose times are those of the sequence that ended last.
  ASSERT_EQ(counts_.finished.size(), 1u);
  EXPECT_EQ(counts_.finished[0].usage.prompt_tokens, 3);
  EXPECT_EQ(counts_.finished[0].usage.completion_tokens, 11);
  EXPECT_EQ(counts_.finished[0].timed_tokens, 5);
  sessions_.Gone(client->session());
  EXPECT_EQ(counts_.ended, std::vector<std::string>{"END_TOKEN"});
}

TEST_F(SeveralTest, AStopStringEndsItsSequenceAndTheOthersGoOn) {
  Up();
  AdmittedRequest admitted = Several("a", 2);
  admitted.text.stop_strings = {"fox"};
  const auto client = Start(std::move(admitted));
  const AttemptId attempt = AcceptAll()[0].attempt;
  Send(Of(0, Frame(attempt, 0, fox_)));
  ASSERT_EQ(client->seen().finishes.size(), 1u);
  EXPECT_EQ(client->seen().finishes[0].stop_string, "fox");
  const int32_t length = client->seen().finishes[0].position;
  ASSERT_EQ(link_.closes().size(), 1u);
  EXPECT_EQ(link_.closes()[0].sequence, 0);
  EXPECT_EQ(link_.closes()[0].length, length);
  // The scheduler computed more of the sequence before it got the Close.
  Send(Of(0, Frame(attempt, static_cast<int32_t>(fox_.size()), {5, 6})));
  EXPECT_EQ(counts_.resets, 0);
  Send(Of(1, End(Frame(attempt, 0, cat_), FinishReason::kLength)));
  EXPECT_EQ(client->seen().sequences.at(1).ids, cat_);
  EXPECT_TRUE(client->seen().over());
  EXPECT_TRUE(counts_.finished.empty());  // The scheduler's end of the first one is still to come.
  Send(Of(0, End(Frame(attempt, length, {}), FinishReason::kStopString)));
  ASSERT_EQ(counts_.finished.size(), 1u);
  EXPECT_EQ(counts_.finished[0].usage.completion_tokens,
            length + static_cast<int32_t>(cat_.size()));
  EXPECT_EQ(link_.closes().size(), 1u);
}

TEST_F(SeveralTest, TwoStopStringsAtTheEndBothGetTheirTimings) {
  Up();
  AdmittedRequest admitted = Several("a", 2);
  admitted.text.stop_strings = {"fox"};
  const auto client = Start(std::move(admitted));
  const AttemptId attempt = AcceptAll()[0].attempt;
  Send(Of(0, Frame(attempt, 0, fox_)));
  Send(Of(1, Frame(attempt, 0, fox_)));
  EXPECT_TRUE(client->seen().over());
  const int32_t length = client->seen().finishes[0].position;
  sessions_.Gone(client->session());
  Send(Of(0, End(Frame(attempt, length, {}), FinishReason::kStopString)));
  EXPECT_TRUE(counts_.finished.empty());
  Send(Of(1, End(Frame(attempt, length, {}), FinishReason::kStopString)));
  ASSERT_EQ(counts_.finished.size(), 1u);
  EXPECT_EQ(counts_.finished[0].usage.completion_tokens, 2 * length);
}

// The Close may be lost with the scheduler or the stream that it was sent to.
TEST_F(SeveralTest, ANewLeaderLearnsWhichSequencesHaveEnded) {
  Up();
  AdmittedRequest admitted = Several("a", 3);
  admitted.text.stop_strings = {"fox"};
  const auto client = Start(std::move(admitted));
  const AttemptId first = AcceptAll()[0].attempt;
  Send(Of(0, Frame(first, 0, fox_)));
  Send(Of(1, Frame(first, 0, Slice(cat_, 0, 3))));
  Send(Of(2, End(Frame(first, 0, Slice(cat_, 0, 2)), FinishReason::kLength)));
  const int32_t length = client->seen().finishes[0].position;
  Down();
  Up();
  const std::vector<Submit> again = AcceptAll();
  ASSERT_EQ(again.size(), 1u);
  EXPECT_EQ(again[0].have, (std::vector<int32_t>{length, 3, 2}));
  const auto& sequences = again[0].record->sequences;
  EXPECT_EQ(sequences[0].finish, FinishReason::kStopString);
  EXPECT_EQ(sequences[0].ids, Slice(fox_, 0, static_cast<size_t>(length)));
  EXPECT_EQ(sequences[1].finish, FinishReason::kNone);
  EXPECT_EQ(sequences[2].finish, FinishReason::kLength);
  ASSERT_EQ(link_.closes().size(), 2u);
  EXPECT_EQ(link_.closes()[1].sequence, 0);
  EXPECT_EQ(link_.closes()[1].length, length);
  const AttemptId second = again[0].attempt;
  Send(Of(2, End(Frame(second, 2, {}), FinishReason::kLength)));
  Send(Of(0, End(Frame(second, length, {}), FinishReason::kStopString)));
  Send(Of(1, End(Frame(second, 3, Slice(cat_, 3, 6)), FinishReason::kLength)));
  EXPECT_EQ(client->seen().sequences.at(1).ids, Slice(cat_, 0, 6));
  EXPECT_EQ(client->seen().finishes.size(), 3u);
  EXPECT_EQ(counts_.finished.size(), 1u);
  EXPECT_EQ(counts_.resets, 0);
}

TEST_F(SeveralTest, AResumeGoesOnWithEachSequenceWhereItsClientIs) {
  Up();
  const auto first = Start(Several("a", 3));
  const AttemptId attempt = AcceptAll()[0].attempt;
  Send(Of(0, Frame(attempt, 0, Slice(fox_, 0, 4))));
  Send(Of(1, Frame(attempt, 0, Slice(cat_, 0, 4))));
  Send(Of(2, End(Frame(attempt, 0, Slice(cat_, 0, 2)), FinishReason::kLength)));
  Leave(first);
  EXPECT_EQ(link_.suspends().size(), 1u);  // Of the whole request.

  const auto second = Resume("a", {4, 1, 3});  // It has the end of the third one.
  const AttemptId later = AcceptAll()[0].attempt;
  Send(Of(0, End(Frame(later, 4, Slice(fox_, 4, 6)), FinishReason::kLength)));
  Send(Of(1, End(Frame(later, 4, Slice(cat_, 4, 6)), FinishReason::kLength)));
  const Seen seen = second->seen();
  EXPECT_EQ(seen.sequences.at(0).ids, Slice(fox_, 4, 6));
  EXPECT_EQ(seen.sequences.at(1).ids, Slice(cat_, 1, 6));
  EXPECT_FALSE(seen.sequences.contains(2) && !seen.sequences.at(2).ids.empty());
  ASSERT_EQ(seen.finishes.size(), 2u);
  EXPECT_TRUE(seen.finishes[1].last);

  auto client = std::make_shared<TestClient>(&sessions_);
  const auto refused = sessions_.Resume({"default", "a"}, {0, 0, 0, 0}, client).status();
  EXPECT_EQ(refused.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(DetailOf(refused)->field, "next_positions");
}

// The record comes with Accepted.
TEST_F(SeveralTest, AResumeOfAnotherRoutersSessionHasAtMostItsSequences) {
  Up();
  for (const size_t positions : {size_t{2}, size_t{3}}) {
    // This router does not know the session yet; of one that it knows it refuses the call itself.
    const std::string id = "b" + std::to_string(positions);
    const auto client = Resume(id, std::vector<int32_t>(positions, 1));
    Accepted accepted;
    accepted.attempt = link_.TakeSubmits().at(0).attempt;
    accepted.request_id = id;
    accepted.record = Several(id, 2).record;
    accepted.record->sequences = {{.ids = Slice(fox_, 0, 3)}, {.ids = Slice(cat_, 0, 2)}};
    accepted.router_blob = EncodeBlob({.want_ids = true});
    sessions_.OnAccepted(accepted);
    if (positions == 3) {
      ASSERT_TRUE(client->seen().end.has_value());
      EXPECT_EQ(client->seen().end->code(), absl::StatusCode::kInvalidArgument);
    } else {
      EXPECT_EQ(client->seen().sequences.at(0).ids, Slice(fox_, 1, 3));
      EXPECT_EQ(client->seen().sequences.at(1).ids, Slice(cat_, 1, 2));
      Leave(client);
    }
  }
}

TEST_F(SeveralTest, ASlowReaderGetsTheSequencesInTurn) {
  Up();
  const auto client = Start(Several("a", 3));
  const AttemptId attempt = AcceptAll()[0].attempt;
  client->Stall();
  Send(Of(0, Frame(attempt, 0, {10})));  // This write does not end.
  for (int32_t position = 1; position < 5; ++position) {
    Send(Of(0, Frame(attempt, position, {10})));
    Send(Of(1, Frame(attempt, position - 1, {11})));
    Send(Of(2, Frame(attempt, position - 1, {12})));
  }
  // The next writes have the second and the third sequence, each in one message.
  for (const int32_t next : {1, 2, 0}) {
    sessions_.WriteDone(client->session());
    const auto event = sessions_.Take(client->session());
    ASSERT_TRUE(event.has_value());
    const auto& tokens = std::get<TokensEvent>(*event);
    EXPECT_EQ(tokens.sequence, next);
    EXPECT_EQ(tokens.ids.size(), 4u);
  }
}

TEST_F(SeveralTest, TheFailureOfOneSequenceEndsTheRequest) {
  Up();
  const auto client = Start(Several("a", 2));
  const AttemptId attempt = AcceptAll()[0].attempt;
  Send(Of(0, End(Frame(attempt, 0, {5, 6}), FinishReason::kLength)));
  fathom::Frame failed = Of(1, Frame(attempt, 0, {7}));
  failed.error = Internal("broken");
  failed.timings = RequestTimings{.phase = RequestPhase::kEnded};
  Send(failed);
  ASSERT_TRUE(client->seen().end.has_value());
  EXPECT_EQ(client->seen().end->code(), absl::StatusCode::kInternal);
  EXPECT_EQ(client->seen().sequences.at(0).ids, (std::vector<TokenId>{5, 6}));
  EXPECT_EQ(client->seen().sequences.at(1).ids, (std::vector<TokenId>{7}));
  sessions_.Gone(client->session());
  EXPECT_EQ(counts_.ended, std::vector<std::string>{"INTERNAL"});
}

}  // namespace
}  // namespace fathom::router
