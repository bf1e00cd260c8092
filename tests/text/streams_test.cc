// The classes that turn ids into text piece by piece: the whole text must not depend on the pieces.
#include <gtest/gtest.h>

#include <algorithm>
#include <string>
#include <vector>

#include "common/utf8.h"
#include "tests/text/text_support.h"
#include "text/detokenizer.h"
#include "text/stop_strings.h"
#include "text/text_stream.h"

namespace fathom {
namespace {

class Streams : public ::testing::Test {
 protected:
  void SetUp() override {
    trace_.emplace(__FILE__, __LINE__, "FATHOM_SEED=" + std::to_string(TestSeed()));
  }

  // The ids of some text, or random ids (which mostly give no UTF-8).
  std::vector<TokenId> RandomIds() {
    if (random_() % 2 == 0) {
      return tokenizer_->Encode(RandomText(random_, 30, AddedContents(*tokenizer_))).value();
    }
    std::vector<TokenId> ids(random_() % 20);
    for (TokenId& id : ids) {
      id = static_cast<TokenId>(random_() % (random_() % 2 == 0 ? 300 : tokenizer_->vocab_size()));
    }
    return ids;
  }

  std::unique_ptr<Tokenizer> tokenizer_ = LoadTokenizer(TinyModel());
  Random random_{TestSeed()};
  std::optional<::testing::ScopedTrace> trace_;
};

TEST_F(Streams, DetokenizerGivesWhatDecodeGives) {
  for (int i = 0; i < 4000; ++i) {
    const std::vector<TokenId> ids = RandomIds();
    for (const bool skip_special : {false, true}) {
      Detokenizer detokenizer(tokenizer_.get(), skip_special);
      std::string text;
      for (TokenId id : ids) {
        std::string piece;
        detokenizer.Append(id, &piece);
        ASSERT_EQ(FirstInvalidUtf8(piece), std::string::npos);
        text += piece;
      }
      detokenizer.Flush(&text);
      ASSERT_EQ(text, tokenizer_->Decode(ids, skip_special).value());
    }
  }
}

TEST_F(Streams, PaddingOfTheVocabularyIsNoText) {
  Detokenizer detokenizer(tokenizer_.get(), false);
  std::string text;
  for (TokenId id : {-1, tokenizer_->vocab_size(), 1 << 30}) detokenizer.Append(id, &text);
  EXPECT_EQ(text, "");
}

struct Found {
  std::string text;
  std::optional<int32_t> index;
  bool operator==(const Found&) const = default;
};

// By the definition: the match that ends first, then the first in the list.
Found Naive(const std::string& text, const std::vector<std::string>& stops, bool include_stop) {
  for (size_t end = 1; end <= text.size(); ++end) {
    for (size_t i = 0; i < stops.size(); ++i) {
      if (!text.substr(0, end).ends_with(stops[i])) continue;
      return {text.substr(0, include_stop ? end : end - stops[i].size()), static_cast<int32_t>(i)};
    }
  }
  return {text, std::nullopt};
}

TEST_F(Streams, StopStringsEqualASearchInTheWhole) {
  for (int i = 0; i < 30000; ++i) {
    std::string text;
    for (uint64_t left = random_() % 25; left > 0; --left) text += "abc"[random_() % 3];
    std::vector<std::string> stops(random_() % 4);
    size_t longest = 0;
    for (std::string& stop : stops) {
      for (uint64_t left = 1 + random_() % 5; left > 0; --left) stop += "abc"[random_() % 3];
      longest = std::max(longest, stop.size());
    }
    const bool include_stop = random_() % 2 == 0;
    StopStrings matcher(stops, include_stop);
    Found found;
    size_t given = 0;
    while (given < text.size() && !found.index) {
      const std::string piece = text.substr(given, random_() % 4);
      given += piece.size();
      found.index = matcher.Append(piece, true, &found.text);
      if (!found.index) {
        ASSERT_EQ(found.text, text.substr(0, found.text.size()));
        ASSERT_LE(given - found.text.size(), longest == 0 ? 0 : longest - 1);
      }
    }
    if (!found.index) matcher.Flush(&found.text);
    ASSERT_EQ(found, Naive(text, stops, include_stop))
        << text << " " << ::testing::PrintToString(stops);
  }
}

TEST_F(Streams, UnarmedMatchesDoNotCount) {
  StopStrings matcher({"aa"}, false);
  std::string text;
  EXPECT_EQ(matcher.Append("xaa", false, &text), std::nullopt);
  EXPECT_EQ(text, "xa");  // The second a may begin a match that counts.
  EXPECT_EQ(matcher.Append("a", true, &text), 0);
  EXPECT_EQ(text, "xa");
}

TEST_F(Streams, ThinkingOpensInThePromptOrWithTheFirstToken) {
  const auto thinking = DetectThinkingForm(*tokenizer_);
  ASSERT_TRUE(thinking.has_value());
  const auto opens = [&](const std::string& prompt) {
    return PromptOpensThinking(*tokenizer_, *thinking, tokenizer_->Encode(prompt).value());
  };
  EXPECT_TRUE(opens("Hi<think>"));
  EXPECT_TRUE(opens("Hi<think>\n \n"));
  EXPECT_FALSE(opens("Hi<think>\nso"));
  EXPECT_FALSE(opens("Hi<think>\n</think>\n"));
  EXPECT_FALSE(opens("Hi"));
  EXPECT_FALSE(opens(""));

  const std::vector<TokenId> ids = {
      *thinking->begin.id, 100, *thinking->end.id, 101, *thinking->begin.id,
      *thinking->end.id,   102};
  const auto channels = [&](bool opened) {
    TextStream stream(
        tokenizer_.get(),
        {.keep_special = true, .thinking = thinking, .prompt_opens_thinking = opened});
    std::string letters;
    for (const TokenId id : ids) {
      TextDelta delta;
      stream.Append({&id, 1}, &delta);
      letters += !delta.reasoning.empty() ? 'R' : !delta.text.empty() ? 'T' : '-';
    }
    return letters;
  };
  EXPECT_EQ(channels(false), "-R-TTTT");
  EXPECT_EQ(channels(true), "RR-TTTT");  // A second begin token belongs to the reasoning too.
}

TextDelta RunAll(const Tokenizer* tokenizer, const TextStreamOptions& options,
                 const std::vector<TokenId>& ids, Random* cuts, std::optional<StopMatch>* stop) {
  TextStream stream(tokenizer, options);
  TextDelta all;
  for (size_t at = 0; at < ids.size();) {
    const size_t count =
        cuts == nullptr ? ids.size() : std::min<size_t>(ids.size() - at, (*cuts)() % 4);
    TextDelta delta;
    stream.Append(std::span(ids).subspan(at, count), &delta);
    EXPECT_EQ(FirstInvalidUtf8(delta.text), std::string::npos);
    EXPECT_EQ(FirstInvalidUtf8(delta.reasoning), std::string::npos);
    all.text += delta.text;
    all.reasoning += delta.reasoning;
    at += count;
  }
  stream.Finish(&all);
  *stop = stream.stop();
  EXPECT_EQ(stream.length(),
            stop->has_value() ? (*stop)->length : static_cast<int32_t>(ids.size()));
  return all;
}

TEST_F(Streams, TextStreamIsAFunctionOfTheIds) {
  const auto thinking = DetectThinkingForm(*tokenizer_);
  int stopped = 0;
  for (int i = 0; i < 4000; ++i) {
    const std::vector<TokenId> ids = RandomIds();
    TextStreamOptions options;
    options.keep_special = random_() % 2 == 0;
    options.include_stop = random_() % 2 == 0;
    options.min_tokens = static_cast<int32_t>(random_() % 3);
    if (random_() % 2 == 0) options.thinking = thinking;
    options.prompt_opens_thinking = random_() % 2 == 0;
    const std::string text = tokenizer_->Decode(ids, !options.keep_special).value();
    if (!text.empty() &&
        random_() % 2 == 0) {  // Something that is there, from a character's begin.
      size_t at = random_() % text.size();
      while (at > 0 && (static_cast<uint8_t>(text[at]) & 0xC0) == 0x80) --at;
      options.stop_strings.push_back(text.substr(at, NextCharacter(text, at) - at));
    }
    std::optional<StopMatch> stop, stop_cut;
    const TextDelta whole = RunAll(tokenizer_.get(), options, ids, nullptr, &stop);
    const TextDelta cut = RunAll(tokenizer_.get(), options, ids, &random_, &stop_cut);
    ASSERT_EQ(whole.text, cut.text);
    ASSERT_EQ(whole.reasoning, cut.reasoning);
    ASSERT_EQ(stop, stop_cut);
    stopped += stop.has_value();
    if (!stop && !options.thinking) {
      ASSERT_EQ(whole.text, text);
    }
    if (stop) {  // Exactly the ids up to its length are needed.
      std::optional<StopMatch> again;
      const std::vector<TokenId> needed(ids.begin(), ids.begin() + stop->length);
      ASSERT_EQ(RunAll(tokenizer_.get(), options, needed, nullptr, &again).text, whole.text);
      ASSERT_EQ(again, stop);
      ASSERT_GE(stop->length, options.min_tokens);
    }
  }
  EXPECT_GT(stopped, 100);
}

TEST_F(Streams, WhiteSpaceBeforeThinkingIsNoAnswer) {
  TextStreamOptions options{.thinking = DetectThinkingForm(*tokenizer_)};
  const auto run = [&](const std::string& text) {
    std::optional<StopMatch> stop, stop_cut;
    const std::vector<TokenId> ids = tokenizer_->Encode(text).value();
    const TextDelta all = RunAll(tokenizer_.get(), options, ids, nullptr, &stop);
    EXPECT_EQ(RunAll(tokenizer_.get(), options, ids, &random_, &stop_cut).text, all.text);
    EXPECT_EQ(stop, stop_cut);
    return all.reasoning + "|" + all.text;
  };
  EXPECT_EQ(run("\n\n <think>so</think>yes"), "so|yes");
  EXPECT_EQ(run("\n\n yes</think>no"), "|\n\n yesno");
  EXPECT_EQ(run(" \n "), "| \n ");
  options.stop_strings = {"\nno"};
  EXPECT_EQ(run("\n<think>so</think>yes\nno"), "so|yes");
  EXPECT_EQ(run("\nno"), "|");
  options.stop_strings = {"\n"};  // Searched at once.
  EXPECT_EQ(run("\n<think>so"), "|");
  EXPECT_EQ(run(" <think>so</think>yes"), "so| yes");
}

TEST_F(Streams, AStopStringAcrossTokens) {
  const std::vector<TokenId> ids = tokenizer_->Encode("One. Two! Three. Four").value();
  TextStreamOptions options{.stop_strings = {"Four", "o! Thr"}};
  std::optional<StopMatch> stop;
  EXPECT_EQ(RunAll(tokenizer_.get(), options, ids, nullptr, &stop).text, "One. Tw");
  ASSERT_TRUE(stop.has_value());
  EXPECT_EQ(stop->index, 1);
  const auto needed = std::span(ids).first(stop->length);
  EXPECT_TRUE(tokenizer_->Decode(needed, true).value().find("o! Thr") != std::string::npos);
  const auto fewer = std::span(ids).first(stop->length - 1);
  EXPECT_TRUE(tokenizer_->Decode(fewer, true).value().find("o! Thr") == std::string::npos);
}

TEST_F(Streams, StopStringsLeaveReasoningAlone) {
  const std::vector<TokenId> ids = tokenizer_->Encode("<think>stop here</think>go stop").value();
  TextStreamOptions options{.stop_strings = {"stop"}, .thinking = DetectThinkingForm(*tokenizer_)};
  std::optional<StopMatch> stop;
  const TextDelta all = RunAll(tokenizer_.get(), options, ids, nullptr, &stop);
  EXPECT_EQ(all.reasoning, "stop here");
  EXPECT_EQ(all.text, "go ");
  EXPECT_TRUE(stop.has_value());
}

}  // namespace
}  // namespace fathom
