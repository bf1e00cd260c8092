// The rule that every token is taken once and in order, for any behaviour of the streams.
#include "client/session.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cstdlib>
#include <random>

namespace fathom::client {
namespace {

uint64_t TestSeed() {
  const char* text = std::getenv("FATHOM_SEED");
  return text != nullptr ? std::strtoull(text, nullptr, 10) : 13;
}

Tokens Some(int32_t position, std::vector<TokenId> ids, std::string text = "") {
  return {.position = position, .ids = std::move(ids), .text = std::move(text)};
}

Finish End(int32_t position) { return {.kind = FinishKind::kLength, .position = position}; }

TEST(SessionTest, TakesTokensInOrderAndEndsWithFinish) {
  Session session(1);
  session.BeginStream(Session::From::kStart);
  ASSERT_TRUE(session.Apply(Started{.request_id = "r", .seed = 7}).value().has_value());
  ASSERT_TRUE(session.Apply(Some(0, {5, 6}, "ab")).value().has_value());
  EXPECT_EQ(session.next_positions(), std::vector<int32_t>{2});
  EXPECT_FALSE(session.finished());
  // Only text, which was held back until now.
  ASSERT_TRUE(session.Apply(Some(2, {}, "c")).value().has_value());
  ASSERT_TRUE(session.Apply(End(2)).value().has_value());
  EXPECT_TRUE(session.finished());
  EXPECT_EQ(session.next_positions(), std::vector<int32_t>{3});  // The end counts as one more.
  EXPECT_EQ(session.answer().sequences[0].text, "abc");
  EXPECT_EQ(session.answer().started.seed, 7u);
}

TEST(SessionTest, LowerPositionsAreDroppedAndCounted) {
  Session session(1);
  session.BeginStream(Session::From::kStart);
  ASSERT_TRUE(session.Apply(Some(0, {5, 6}, "ab")).ok());
  EXPECT_FALSE(session.Apply(Some(0, {5, 6}, "ab")).value().has_value());
  EXPECT_EQ(session.answer().counts.dropped_tokens, 2);
  EXPECT_EQ(session.answer().sequences[0].text, "ab");
}

TEST(SessionTest, AMissingPositionIsAnError) {
  Session session(1);
  session.BeginStream(Session::From::kStart);
  ASSERT_TRUE(session.Apply(Some(0, {5})).ok());
  EXPECT_TRUE(absl::IsDataLoss(session.Apply(Some(2, {7})).status()));
  EXPECT_TRUE(absl::IsDataLoss(session.Apply(End(2)).status()));
  EXPECT_EQ(session.answer().counts.gaps, 2);
  EXPECT_EQ(session.answer().sequences[0].ids, std::vector<TokenId>{5});
  EXPECT_FALSE(session.finished());
}

TEST(SessionTest, AnUnknownSequenceIsAnError) {
  Session session(1);
  session.BeginStream(Session::From::kStart);
  EXPECT_TRUE(absl::IsDataLoss(session.Apply(Tokens{.sequence = 1, .ids = {3}}).status()));
  EXPECT_TRUE(absl::IsDataLoss(session.Apply(Finish{.sequence = -1}).status()));
}

TEST(SessionTest, PromptLogprobsJoinAndOverlapIsDropped) {
  Session session(1);
  session.BeginStream(Session::From::kStart);
  const auto span = [](int32_t start, const std::vector<TokenId>& ids) {
    PromptLogprobs some{.start = start};
    for (TokenId id : ids) some.logprobs.push_back({.id = id});
    return some;
  };
  ASSERT_TRUE(session.Apply(span(1, {10, 20})).value().has_value());
  const auto fresh = session.Apply(span(2, {20, 30})).value();
  ASSERT_TRUE(fresh.has_value());
  EXPECT_EQ(std::get<PromptLogprobs>(*fresh).start, 3);
  EXPECT_FALSE(session.Apply(span(1, {10})).value().has_value());
  EXPECT_TRUE(absl::IsDataLoss(session.Apply(span(9, {90})).status()));
  ASSERT_EQ(session.answer().prompt_logprobs->logprobs.size(), 3u);
  EXPECT_EQ(session.answer().prompt_logprobs->logprobs[2].id, 30);
}

// The true result: ids, and the text that each of them completes (some complete nothing).
struct Truth {
  std::vector<TokenId> ids;
  std::vector<std::string> pieces;
  std::string flush;  // Sent without ids before the end.

  std::string Text(size_t count) const {
    std::string text;
    for (size_t i = 0; i < count; ++i) text += pieces[i];
    return text;
  }
};

Truth RandomTruth(std::mt19937_64& rng) {
  Truth truth;
  const size_t length = 1 + rng() % 30;
  for (size_t i = 0; i < length; ++i) {
    truth.ids.push_back(static_cast<TokenId>(rng() % 1000));
    truth.pieces.emplace_back(rng() % 4, static_cast<char>('a' + i % 26));
  }
  truth.flush = std::string(rng() % 3, '!');
  return truth;
}

// Frames from `next` on, in random sizes, some of them twice. Ids and text are those of text(n).
std::vector<Event> FramesFrom(const Truth& truth, size_t next, std::mt19937_64& rng) {
  std::vector<Event> frames = {Started{.request_id = "r"}};
  const size_t length = truth.ids.size();
  for (size_t at = next; at < length;) {
    const size_t count = std::min<size_t>(1 + rng() % 5, length - at);
    Tokens tokens{.position = static_cast<int32_t>(at)};
    for (size_t i = at; i < at + count; ++i) {
      tokens.ids.push_back(truth.ids[i]);
      tokens.text += truth.pieces[i];
    }
    frames.emplace_back(tokens);
    if (rng() % 8 == 0) frames.emplace_back(tokens);  // A duplicate.
    at += count;
  }
  if (next <= length && !truth.flush.empty()) {
    frames.emplace_back(Tokens{.position = static_cast<int32_t>(length), .text = truth.flush});
  }
  if (next <= length) frames.emplace_back(End(static_cast<int32_t>(length)));
  return frames;
}

TEST(SessionTest, PropertyAnyBrokenStreamsGiveTheSameAnswer) {
  SCOPED_TRACE("FATHOM_SEED=" + std::to_string(TestSeed()));
  std::mt19937_64 rng(TestSeed());
  for (int round = 0; round < 5000; ++round) {
    const Truth truth = RandomTruth(rng);
    Session session(1);
    Tokens heard;  // Everything that the callback got, joined.
    for (int streams = 0; !session.finished(); ++streams) {
      ASSERT_LT(streams, 1000);
      const bool again = rng() % 3 == 0;
      session.BeginStream(again ? Session::From::kStart : Session::From::kNextPositions);
      const auto next = static_cast<size_t>(again ? 0 : session.next_positions()[0]);
      std::vector<Event> frames = FramesFrom(truth, next, rng);
      // The stream breaks.
      frames.resize(rng() % 4 == 0 ? frames.size() : rng() % (frames.size() + 1));
      for (Event& frame : frames) {
        const auto fresh = session.Apply(std::move(frame));
        ASSERT_TRUE(fresh.ok()) << ToString(fresh.status());
        if (!fresh->has_value()) continue;
        if (const auto* tokens = std::get_if<Tokens>(&**fresh)) {
          ASSERT_EQ(tokens->position, static_cast<int32_t>(heard.ids.size()));
          heard.ids.insert(heard.ids.end(), tokens->ids.begin(), tokens->ids.end());
          heard.text += tokens->text;
        }
      }
    }
    ASSERT_EQ(session.answer().sequences[0].ids, truth.ids);
    ASSERT_EQ(session.answer().sequences[0].text, truth.Text(truth.ids.size()) + truth.flush);
    ASSERT_EQ(heard.ids, truth.ids);
    ASSERT_EQ(heard.text, session.answer().sequences[0].text);
  }
}

}  // namespace
}  // namespace fathom::client
