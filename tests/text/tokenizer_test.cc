// Tokenizer against recorded results of Hugging Face's library, and properties of its own.
#include <gtest/gtest.h>

#include <string>
#include <thread>
#include <vector>

#include "tests/text/text_support.h"

namespace fathom::router {
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

// Each exercises some keys of tokenizer.json: behaviours, prefix spaces, kinds of added tokens,
// NFC...
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
  if (!std::filesystem::exists(PublishedTokenizers())) return;  // BundledModel and Variants remain.
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

// A literal span over the whole text is the same as no parsing; over none of it, as plain parsing.
// In between, text outside of spans keeps its tokens and no token touches a span.
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
          EXPECT_EQ(std::count(ids.begin(), ids.end(), token.id), 1)
              << folder << " " << token.content << " " << span.begin;
        }
      }
    }
  }
}

// The template's text and the span may touch: "<think>" right behind a literal "<".
TEST(LiteralSpans, ATokenMayTouchASpanFromOutside) {
  const auto tokenizer = LoadTokenizer(TinyModel());
  const TokenId think = *tokenizer->FindToken("<think>");
  const std::string text = "<<think>>";
  const std::vector<ByteSpan> spans = {{0, 1}, {8, 9}};
  const auto ids = tokenizer->Encode(text, {.literal_spans = spans}).value();
  EXPECT_EQ(std::count(ids.begin(), ids.end(), think), 1);
}

}  // namespace
}  // namespace fathom::router
