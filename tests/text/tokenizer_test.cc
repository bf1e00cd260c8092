// The tokenizer against recorded results of Hugging Face's library, and its own properties.
#include <gtest/gtest.h>

#include <algorithm>
#include <chrono>
#include <map>
#include <string>
#include <thread>
#include <vector>

#include "common/utf8.h"
#include "tests/text/text_support.h"

namespace fathom {
namespace {

void CheckVectors(const Tokenizer& tokenizer, const std::filesystem::path& path, size_t at_least) {
  const std::vector<Vector> vectors = ReadVectors(path);
  ASSERT_GE(vectors.size(), at_least);
  for (size_t i = 0; i < vectors.size(); ++i) {
    const Vector& vector = vectors[i];
    SCOPED_TRACE(fmt::format("{}:{}", path.string(), i + 1));
    if (vector.text) {
      const auto ids = tokenizer.Encode(*vector.text);
      ASSERT_TRUE(ids.ok()) << ids.status();
      EXPECT_EQ(*ids, vector.ids) << *vector.text;
      if (vector.ids_with_special != vector.ids) {
        EXPECT_EQ(tokenizer.Encode(*vector.text, {.add_special_tokens = true}).value(),
                  vector.ids_with_special);
      }
    }
    if (vector.decoded) {
      EXPECT_EQ(tokenizer.Decode(vector.ids, false).value(), *vector.decoded);
    }
    if (vector.decoded_skip) {
      EXPECT_EQ(tokenizer.Decode(vector.ids, true).value(), *vector.decoded_skip);
    }
  }
}

TEST(TokenizerVectors, BundledModel) {
  CheckVectors(*LoadTokenizer(TinyModel()), TokenizerData() / "fathom-tiny.jsonl", 400);
}

// Each tests some keys of tokenizer.json: behaviours, prefix spaces, kinds of added tokens, NFC,
// ...
TEST(TokenizerVectors, Variants) {
  int variants = 0;
  for (const auto& entry : std::filesystem::directory_iterator(TokenizerData())) {
    if (!std::filesystem::exists(entry.path() / "tokenizer.json")) continue;
    ++variants;
    CheckVectors(*LoadTokenizer(entry.path()), entry.path() / "vectors.jsonl", 200);
  }
  EXPECT_GE(variants, 10);
}

TEST(TokenizerVectors, PublishedWhereTheyAre) {
  // BundledModel and Variants still run.
  if (!std::filesystem::exists(PublishedTokenizers())) return;
  int families = 0;
  for (const auto& entry : std::filesystem::directory_iterator(PublishedTokenizers())) {
    if (!std::filesystem::exists(entry.path() / "tokenizer.json")) continue;
    ++families;
    CheckVectors(*LoadTokenizer(entry.path()), entry.path() / "vectors.jsonl", 40);
  }
  EXPECT_GE(families, 5);
}

class TinyTokenizer : public ::testing::Test {
 protected:
  std::unique_ptr<Tokenizer> tokenizer_ = LoadTokenizer(TinyModel());
};

TEST_F(TinyTokenizer, DecodeOfEncodeIsTheText) {
  SCOPED_TRACE("FATHOM_SEED=" + std::to_string(TestSeed()));
  Random random(TestSeed());
  const std::vector<std::string> specials = AddedContents(*tokenizer_);
  for (int i = 0; i < 3000; ++i) {
    const std::string text = RandomText(random, 60, specials);
    for (const bool parse : {false, true}) {
      const auto ids = tokenizer_->Encode(text, {.parse_special = parse});
      ASSERT_TRUE(ids.ok()) << ids.status();
      ASSERT_EQ(tokenizer_->Decode(*ids, false).value(), text);
    }
  }
}

TEST_F(TinyTokenizer, BosWhereTheConfigurationAsks) {
  ASSERT_TRUE(tokenizer_->bos_id().has_value());
  std::vector<TokenId> expected = tokenizer_->Encode("Hello").value();
  expected.insert(expected.begin(), *tokenizer_->bos_id());
  EXPECT_EQ(tokenizer_->Encode("Hello", {.add_special_tokens = true}).value(), expected);
  EXPECT_EQ(tokenizer_->bos_token(), "<｜begin▁of▁sentence｜>");
  EXPECT_EQ(tokenizer_->eos_id(), tokenizer_->FindToken("<｜end▁of▁sentence｜>"));
}

TEST_F(TinyTokenizer, FindTokenIsTheInverseOfTokenBytes) {
  for (const AddedToken& token : tokenizer_->added_tokens()) {
    EXPECT_EQ(tokenizer_->FindToken(token.content), token.id);
    EXPECT_EQ(tokenizer_->TokenBytes(token.id), token.content);
    EXPECT_EQ(tokenizer_->IsSpecial(token.id), token.special);
  }
  EXPECT_TRUE(tokenizer_->FindToken("Ġthe").has_value());
  EXPECT_EQ(tokenizer_->FindToken("no such token"), std::nullopt);
  EXPECT_EQ(tokenizer_->FindToken(""), std::nullopt);
}

TEST_F(TinyTokenizer, InvalidUtf8IsRefusedWithItsOffset) {
  for (const auto& [text, offset] : std::vector<std::pair<std::string, std::string>>{
           {"abc\xFFz", "byte 3"},
           {"\xC3", "byte 0"},
           {"ab\xED\xA0\x80", "byte 2"},       // A surrogate.
           {"\xF4\x90\x80\x80", "byte 0"},     // Above U+10FFFF.
           {"01234567\xC0\x80", "byte 8"}}) {  // Overlong.
    const auto ids = tokenizer_->Encode(text);
    ASSERT_EQ(ids.status().code(), absl::StatusCode::kInvalidArgument);
    EXPECT_NE(Message(ids.status()).find(offset), std::string::npos) << ids.status();
  }
}

TEST_F(TinyTokenizer, DecodeNamesAnIdOutOfRange) {
  for (TokenId id : {-1, tokenizer_->vocab_size()}) {
    const std::vector<TokenId> ids = {5, id};
    const auto text = tokenizer_->Decode(ids, false);
    ASSERT_EQ(text.status().code(), absl::StatusCode::kInvalidArgument);
    EXPECT_NE(Message(text.status()).find(fmt::format("ids[1] is {}", id)), std::string::npos);
  }
}

TEST_F(TinyTokenizer, EveryThreadGetsTheSame) {
  Random random(TestSeed());
  std::string text;
  for (int i = 0; i < 200; ++i) text += RandomText(random, 60, AddedContents(*tokenizer_));
  const std::vector<TokenId> expected = tokenizer_->Encode(text).value();
  std::vector<std::jthread> threads;
  for (int i = 0; i < 4; ++i) {
    threads.emplace_back([&] {
      for (int j = 0; j < 5; ++j) EXPECT_EQ(tokenizer_->Encode(text).value(), expected);
    });
  }
}

// Long runs of few kinds of characters, which BPE merges in another way than short words. The test
// needs no second tokenizer: the ids of a word must be those that BPE's rule gives literally.
TEST_F(TinyTokenizer, LongWordsFollowTheRule) {
  Random random(TestSeed());
  SCOPED_TRACE("FATHOM_SEED=" + std::to_string(TestSeed()));
  std::ifstream file(TinyModel() / "tokenizer.json");
  const auto merges = nlohmann::json::parse(file)["model"]["merges"];
  std::map<std::pair<std::string, std::string>, size_t> ranks;
  for (size_t i = 0; i < merges.size(); ++i) {
    std::string left, right;
    if (merges[i].is_array()) {
      left = merges[i][0], right = merges[i][1];
    } else {
      const std::string text = merges[i];
      left = text.substr(0, text.find(' ')), right = text.substr(text.find(' ') + 1);
    }
    ranks[{left, right}] = i;
  }
  for (int i = 0; i < 40; ++i) {
    const std::string alphabet = std::string("etainorshl").substr(random() % 8, 1 + random() % 3);
    std::string word;
    for (uint64_t left = 49 + random() % 400; left > 0; --left) {
      word += alphabet[random() % alphabet.size()];
    }
    std::vector<std::string> parts;
    for (const char c : word) parts.emplace_back(1, c);
    while (true) {
      size_t best = SIZE_MAX, at = 0;
      for (size_t p = 0; p + 1 < parts.size(); ++p) {
        const auto found = ranks.find({parts[p], parts[p + 1]});
        if (found != ranks.end() && found->second < best) best = found->second, at = p;
      }
      if (best == SIZE_MAX) break;
      parts[at] += parts[at + 1];
      parts.erase(parts.begin() + static_cast<ptrdiff_t>(at) + 1);
    }
    std::vector<TokenId> expected;
    for (const std::string& part : parts) expected.push_back(*tokenizer_->FindToken(part));
    ASSERT_EQ(tokenizer_->Encode(word).value(), expected) << word;
  }
}

// Spaces take about as long as text. If they took ten times as long, a few such texts would stop
// the texts of all clients.
TEST_F(TinyTokenizer, RunsOfOneCharacterAreNotSlow) {
  const auto seconds = [&](const std::string& text) {
    double best = 1e9;
    for (int i = 0; i < 3; ++i) {
      const auto begin = std::chrono::steady_clock::now();
      EXPECT_TRUE(tokenizer_->Encode(text).ok());
      best = std::min(
          best, std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count());
    }
    return best;
  };
  constexpr size_t kBytes = 200'000;
  std::string prose;
  while (prose.size() < kBytes) prose += "The quick brown fox jumps over 13 lazy dogs, isn't it? ";
  const double one = seconds(prose);
  for (const char c : {' ', '\n', 'a', '='}) {
    EXPECT_LT(seconds(std::string(kBytes, c)), 8 * one) << "a run of '" << c << "'";
  }
}

TEST_F(TinyTokenizer, NobodyWaitsForIt) {
  const std::string text(1 << 20, 'a');
  int asked = 0;
  const auto status =
      tokenizer_->Encode(text, {.cancelled = [&] { return ++asked == 2; }}).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kCancelled);  // One word: checked before and after it.
  EXPECT_EQ(asked, 2);
  asked = 0;
  std::string words;
  for (int i = 0; i < 200'000; ++i) words += " word";
  EXPECT_EQ(tokenizer_->Encode(words, {.cancelled = [&] { return ++asked == 3; }}).status().code(),
            absl::StatusCode::kCancelled);
  EXPECT_EQ(asked, 3);
  asked = 0;
  EXPECT_TRUE(tokenizer_->Encode(words, {.cancelled = [&] { return ++asked < 0; }}).ok());
  EXPECT_LT(asked, 1000);  // A check may cost a lock.
}

// The lower bound that refuses a text without tokenizing it is never above the real number of
// tokens.
TEST(MinTokens, IsALowerBound) {
  Random random(TestSeed());
  SCOPED_TRACE("FATHOM_SEED=" + std::to_string(TestSeed()));
  std::vector<std::filesystem::path> folders = {TinyModel(), TokenizerData() / "gpt2",
                                                TokenizerData() / "gpt"};
  for (const auto& folder : folders) {
    const auto tokenizer = LoadTokenizer(folder);
    std::vector<std::string> pieces = AddedContents(*tokenizer);
    for (const char* piece :
         {"\xE2\x84\xAA", "\xE1\x84\x80\xE1\x85\xA1\xE1\x86\xA8", "a\xCC\x81"}) {
      pieces.insert(pieces.end(), 10, piece);
    }
    for (TokenId id = 0; id < tokenizer->vocab_size(); id += 7) {
      const std::string bytes(tokenizer->TokenBytes(id));
      if (FirstInvalidUtf8(bytes) == std::string::npos) pieces.push_back(bytes);
    }
    for (int i = 0; i < 2000; ++i) {
      std::string text = RandomText(random, 40, pieces);
      if (i % 3 == 0) {  // The tightest case: one long token, repeated.
        const std::string& piece = pieces[random() % pieces.size()];
        text.clear();
        for (int repeat = 0; repeat < 20; ++repeat) text += piece;
      }
      const auto ids = tokenizer->Encode(text);
      ASSERT_TRUE(ids.ok());
      ASSERT_LE(tokenizer->MinTokens(text), static_cast<int64_t>(ids->size())) << text;
    }
    EXPECT_GT(tokenizer->MinTokens(std::string(100'000, 'x')), 100) << folder;
  }
}

// A literal span over the whole text gives the same ids as no parsing; no span gives the same ids
// as plain parsing. With other spans, text outside them keeps its tokens and no token touches a
// span.
TEST(LiteralSpans, BetweenAllAndNothing) {
  SCOPED_TRACE("FATHOM_SEED=" + std::to_string(TestSeed()));
  for (const auto& folder :
       {TinyModel(), TokenizerData() / "tokens-plain", TokenizerData() / "tokens"}) {
    const auto tokenizer = LoadTokenizer(folder);
    Random random(TestSeed());
    const std::vector<std::string> contents = AddedContents(*tokenizer);
    for (int i = 0; i < 2000; ++i) {
      const std::string text = RandomText(random, 20, contents);
      const std::vector<ByteSpan> all = {{0, text.size()}};
      ASSERT_EQ(tokenizer->Encode(text, {.literal_spans = all}).value(),
                tokenizer->Encode(text, {.parse_special = false}).value());
      const std::vector<ByteSpan> none = {{0, 0}, {text.size(), text.size()}};
      ASSERT_EQ(tokenizer->Encode(text, {.literal_spans = none}).value(),
                tokenizer->Encode(text).value());
    }
  }
}

// In published vocabularies a few letters are added tokens: they are text, also in a client's text.
TEST(LiteralSpans, LettersAreTextWhereTheyAre) {
  const struct {
    const char* folder;
    std::vector<TokenId> ids;
  } cases[] = {{"deepseek-coder", {8305, 207, 32011, 207, 32009}}, {"deepseek-llm", {}}};
  const std::string text = "ä ö ü";
  const ByteSpan all = {0, text.size()};
  for (const auto& [name, ids] : cases) {
    const auto folder = PublishedTokenizers() / name;
    if (!std::filesystem::exists(folder / "tokenizer.json")) {
      GTEST_LOG_(INFO) << folder << " is not on this machine";
      continue;
    }
    const auto tokenizer = LoadTokenizer(folder);
    const auto expected = tokenizer->Encode(text).value();  // The ids with markup parsed.
    EXPECT_TRUE(ids.empty() || ids == expected);
    EXPECT_EQ(tokenizer->Encode(text, {.literal_spans = {&all, 1}}).value(), expected) << name;
    EXPECT_EQ(tokenizer->Encode(text, {.parse_special = false}).value(), expected) << name;
  }
}

TEST(LiteralSpans, WhatIsTextIsToldByItsSpelling) {
  for (const char* text : {"ö", "Á", "þ", "÷", "hello", "中文", "a b"}) {
    EXPECT_TRUE((AddedToken{.content = text}.IsText())) << text;
    EXPECT_FALSE((AddedToken{.content = text, .special = true}.IsText())) << text;
  }
  for (const char* markup : {"<think>", "｜", "▁x", "User:", "[INST]", "a_b", "<｜User｜>"}) {
    EXPECT_FALSE((AddedToken{.content = markup}.IsText())) << markup;
  }
}

TEST(LiteralSpans, OnlyTheOneOutsideIsAToken) {
  for (const auto& folder :
       {TinyModel(), TokenizerData() / "tokens", TokenizerData() / "tokens-plain"}) {
    const auto tokenizer = LoadTokenizer(folder);
    for (const AddedToken& token : tokenizer->added_tokens()) {
      if (token.content == "<t" || token.content == "wo")
        continue;  // Begin others: not found alone.
      for (const std::string before : {"e\xCC\x81 \xE2\x84\xA6 ", "x "}) {  // NFC moves offsets.
        const std::string text = before + token.content + " \xC3\xA9 " + token.content + " .";
        const size_t size = token.content.size();
        const size_t second = before.size() + size + 4;
        for (const ByteSpan span : {ByteSpan{before.size(), before.size() + 1},
                                    ByteSpan{second + size - 1, second + size}}) {
          const auto ids = tokenizer->Encode(text, {.literal_spans = {&span, 1}}).value();
          EXPECT_EQ(std::count(ids.begin(), ids.end(), token.id), token.IsText() ? 2 : 1)
              << folder << " " << token.content << " " << span.begin;
        }
      }
    }
  }
}

// The template's text and a span may touch: "<think>" directly after a literal "<".
TEST(LiteralSpans, ATokenMayTouchASpanFromOutside) {
  const auto tokenizer = LoadTokenizer(TinyModel());
  const TokenId think = *tokenizer->FindToken("<think>");
  const std::string text = "<<think>>";
  const std::vector<ByteSpan> spans = {{0, 1}, {8, 9}};
  const auto ids = tokenizer->Encode(text, {.literal_spans = spans}).value();
  EXPECT_EQ(std::count(ids.begin(), ids.end(), think), 1);
}

}  // namespace
}  // namespace fathom
