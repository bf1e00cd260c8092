// The grammar engine: random schemas and expressions give outputs that follow them; the compiled
// form survives the way to another process; limits and refusals.
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>
#include <random>
#include <string>
#include <vector>

#include "common/status.h"
#include "common/utf8.h"
#include "tests/text/text_support.h"
#include "text/guided/grammar_engine.h"
#include "text/tokenizer.h"

namespace fathom {
namespace {

// Every byte is a token, and so are some longer pieces, one special token and an end token.
std::vector<std::string> MadeUpTokens() {
  std::vector<std::string> tokens;
  for (int byte = 0; byte < 256; ++byte) tokens.emplace_back(1, static_cast<char>(byte));
  for (const char* piece : {"{\"", "\":", "\": ", "\",", "\"}", "true", "false", "null", "[]", "{}",
                            "12", "name", "\xe4\xbd\xa0", "}\n", ", \"", "abc"}) {
    tokens.emplace_back(piece);
  }
  tokens.emplace_back("");  // Special.
  tokens.emplace_back("");  // The end token.
  return tokens;
}

class GuidedTest : public testing::Test {
 protected:
  void SetUp() override {
    if (!GrammarEngine::Built()) GTEST_FAIL() << "this test needs FATHOM_GUIDED";
    engine_ = GrammarEngine::Make(tokens_).value();
  }

  TokenId end_id() const { return static_cast<TokenId>(tokens_.size()) - 1; }
  CompiledGrammar Compile(GrammarKind kind, const std::string& text) {
    return engine_->Compile({.kind = kind, .text = text}, "guided").value();
  }
  GrammarMatcher MatcherOf(const CompiledGrammar& grammar) { return {grammar, {end_id()}}; }
  std::vector<uint32_t> MaskOf(GrammarMatcher* matcher) {
    std::vector<uint32_t> mask(GrammarMaskWords(engine_->vocab()));
    matcher->FillMask(mask);
    return mask;
  }
  static bool Allows(const std::vector<uint32_t>& mask, TokenId id) {
    return (mask[static_cast<size_t>(id) / 32] >> (id % 32) & 1) != 0;
  }

  // Draws tokens that the mask allows until the end; prefers the end token, so that outputs end.
  std::optional<std::string> Draw(GrammarMatcher* matcher, std::mt19937_64* random, int most) {
    std::string text;
    for (int i = 0; i < most; ++i) {
      const std::vector<uint32_t> mask = MaskOf(matcher);
      if (Allows(mask, end_id()) && (*random)() % 2 == 0) {
        EXPECT_TRUE(matcher->Accept(end_id()));
        EXPECT_TRUE(matcher->ended());
        return text;
      }
      std::vector<TokenId> allowed;
      for (TokenId id = 0; id < engine_->vocab(); ++id) {
        if (id != end_id() && Allows(mask, id)) allowed.push_back(id);
      }
      if (allowed.empty()) {
        if (!Allows(mask, end_id())) ADD_FAILURE() << "nothing may follow " << text;
        return Allows(mask, end_id()) ? std::optional(text) : std::nullopt;
      }
      const TokenId id = allowed[(*random)() % allowed.size()];
      EXPECT_FALSE(tokens_[static_cast<size_t>(id)].empty()) << "a special token";
      EXPECT_TRUE(matcher->Accept(id));
      text += tokens_[static_cast<size_t>(id)];
    }
    return std::nullopt;
  }

  const std::vector<std::string> tokens_ = MadeUpTokens();
  std::unique_ptr<GrammarEngine> engine_;
};

// The mask is exactly the set of tokens that Accept takes, at every place of random outputs.
TEST_F(GuidedTest, MaskIsWhatAcceptTakes) {
  std::mt19937_64 random(TestSeed());
  for (const auto& [kind, text] : std::vector<std::pair<GrammarKind, std::string>>{
           {GrammarKind::kRegex, "[a-c]{1,3}(12|name)+"},
           {GrammarKind::kJsonSchema, R"({"enum": ["abc", 12, null]})"},
           {GrammarKind::kEbnf, "root ::= \"{\" root? \"}\""}}) {
    const CompiledGrammar grammar = Compile(kind, text);
    GrammarMatcher matcher = MatcherOf(grammar);
    for (int step = 0; step < 12 && !matcher.ended(); ++step) {
      const std::vector<uint32_t> mask = MaskOf(&matcher);
      std::vector<TokenId> allowed;
      for (TokenId id = 0; id < engine_->vocab(); ++id) {
        const bool taken = matcher.Accept(id);
        EXPECT_EQ(taken, Allows(mask, id)) << text << " token " << id;
        if (!taken) continue;
        matcher.Rollback(1);
        allowed.push_back(id);
      }
      ASSERT_FALSE(allowed.empty()) << text;
      EXPECT_EQ(MaskOf(&matcher), mask) << "Rollback gives the state back";
      EXPECT_TRUE(matcher.Accept(allowed[random() % allowed.size()]));
    }
  }
}

TEST_F(GuidedTest, JsonObjectsParse) {
  std::mt19937_64 random(TestSeed());
  const CompiledGrammar grammar = Compile(GrammarKind::kJsonObject, "");
  int ended = 0;
  for (int round = 0; round < 40; ++round) {
    GrammarMatcher matcher = MatcherOf(grammar);
    const auto text = Draw(&matcher, &random, 400);
    if (!text) continue;
    ++ended;
    // As a client gets it: a character that is none (a lone surrogate) is replaced.
    try {
      EXPECT_TRUE(nlohmann::json::parse(ToUtf8(*text)).is_object()) << *text;
    } catch (const nlohmann::json::out_of_range&) {  // 5E612 is JSON, and no double.
    } catch (const nlohmann::json::exception& error) {
      ADD_FAILURE() << error.what() << ": " << *text;
    }
  }
  EXPECT_GT(ended, 0);
}

// After the compiled form was sent to another engine of the same vocabulary the masks are the same.
TEST_F(GuidedTest, SerializedFormGivesTheSameMasks) {
  std::mt19937_64 random(TestSeed());
  const auto other = GrammarEngine::Make(tokens_).value();
  EXPECT_EQ(other->vocabulary_digest(), engine_->vocabulary_digest());
  const CompiledGrammar grammar =
      Compile(GrammarKind::kJsonSchema,
              R"({"type":"object","properties":{"name":{"type":"string","maxLength":3},)"
              R"("size":{"type":"integer"}},"required":["name","size"]})");
  const std::string bytes = engine_->Serialize(grammar).value();
  const CompiledGrammar loaded = other->Load(bytes).value();
  GrammarMatcher here = MatcherOf(grammar), there = MatcherOf(loaded);
  for (int step = 0; step < 60 && !here.ended(); ++step) {
    const std::vector<uint32_t> mask = MaskOf(&here);
    ASSERT_EQ(mask, MaskOf(&there)) << "step " << step;
    std::vector<TokenId> allowed;
    for (TokenId id = 0; id < engine_->vocab(); ++id) {
      if (Allows(mask, id)) allowed.push_back(id);
    }
    const TokenId id = allowed[random() % allowed.size()];
    ASSERT_TRUE(here.Accept(id) && there.Accept(id));
  }
  std::vector<std::string> longer = tokens_;
  longer.emplace_back("more");
  const auto foreign = GrammarEngine::Make(longer).value();
  EXPECT_NE(foreign->vocabulary_digest(), engine_->vocabulary_digest());
  EXPECT_FALSE(foreign->Load(bytes).ok());
  EXPECT_FALSE(engine_->Load("").ok());
  EXPECT_FALSE(engine_->Load(bytes.substr(0, bytes.size() / 2)).ok());
}

TEST_F(GuidedTest, OnlyEndTokensFollowTheEnd) {
  const CompiledGrammar grammar =
      engine_
          ->Compile({.kind = GrammarKind::kChoice, .choices = {"abc", "a\"\\\n", "\xe4\xbd\xa0"}},
                    "guided_choice")
          .value();
  GrammarMatcher matcher = MatcherOf(grammar);
  const TokenId abc = end_id() - 2;
  ASSERT_EQ(tokens_[static_cast<size_t>(abc)], "abc");
  ASSERT_TRUE(matcher.Accept(abc));
  for (int i = 0; i < 3; ++i) {
    const std::vector<uint32_t> mask = MaskOf(&matcher);
    for (TokenId id = 0; id < engine_->vocab(); ++id) EXPECT_EQ(Allows(mask, id), id == end_id());
    EXPECT_TRUE(matcher.Accept(end_id()));
    EXPECT_TRUE(matcher.ended());
    EXPECT_FALSE(matcher.Accept('a'));
  }
  matcher.Rollback(4);
  EXPECT_FALSE(matcher.ended());
  for (const char c : std::string("a\"\\\n")) ASSERT_TRUE(matcher.Accept(c)) << c;
  EXPECT_TRUE(matcher.Accept(end_id()));
}

TEST_F(GuidedTest, RefusalsNameFieldAndLimit) {
  const auto refused = [&](const GrammarSpec& spec, const char* what) {
    const auto compiled = engine_->Compile(spec, "guided_x");
    ASSERT_FALSE(compiled.ok()) << what;
    EXPECT_EQ(compiled.status().code(), absl::StatusCode::kInvalidArgument);
    EXPECT_EQ(DetailOf(compiled.status())->reason, "INVALID_GRAMMAR");
    EXPECT_EQ(DetailOf(compiled.status())->field, "guided_x");
    EXPECT_NE(Message(compiled.status()).find("guided_x"), std::string::npos);
    EXPECT_NE(Message(compiled.status()).find(what), std::string::npos)
        << Message(compiled.status());
  };
  using enum GrammarKind;
  refused({.kind = kRegex, .text = std::string(kGrammarTextBytesMax + 1, 'a')}, "65536");
  refused({.kind = kRegex, .text = std::string(40, '(') + std::string(40, ')')}, "32");
  refused({.kind = kRegex, .text = "a{9999999999999999999999}"}, "4096");
  refused({.kind = kRegex, .text = "a("}, "regex");
  refused({.kind = kJsonSchema, .text = "{"}, "JSON");
  refused({.kind = kJsonSchema, .text = R"({"type":"string","maxLength":5000})"}, "maxLength");
  refused({.kind = kJsonSchema, .text = R"({"type":"nonsense"})"}, "json_schema");
  refused({.kind = kJsonSchema, .text = R"({"$ref":"https://example.com/a.json"})"}, "$ref");
  // What the engine would ignore is refused, too.
  refused({.kind = kJsonSchema, .text = R"({"type":"object","not":{"type":"null"}})"}, "not");
  refused({.kind = kJsonSchema, .text = R"({"type":"array","uniqueItems":true})"}, "uniqueItems");
  EXPECT_TRUE(
      engine_
          ->Compile({.kind = kJsonSchema,
                     .text = R"({"type":"object","properties":{"not":{"const":{"if":1}}}})"},
                    "x")
          .ok());
  refused({.kind = kEbnf, .text = "root ::= other"}, "ebnf");
  refused({.kind = kChoice}, "choices");
  refused({.kind = kChoice, .choices = {"a", ""}}, "empty");
  refused({.kind = kStructuralTag, .text = R"({"type":"structural_tag"})"}, "structural_tag");
}

// The tokenizer of the bundled model, with a vocabulary that is padded beyond it.
TEST_F(GuidedTest, TokenizerOfAModel) {
  const auto tokenizer = Tokenizer::Load(std::string(FATHOM_SOURCE_DIR) + "/models/fathom-tiny");
  ASSERT_TRUE(tokenizer.ok()) << ToString(tokenizer.status());
  const int32_t vocab = (*tokenizer)->vocab_size() + 77;
  const auto engine = GrammarEngine::Make(**tokenizer, vocab).value();
  ASSERT_EQ(engine->vocab(), vocab);
  const CompiledGrammar grammar =
      engine->Compile({.kind = GrammarKind::kRegex, .text = "Hello, w[a-z]+!"}, "x").value();
  const TokenId end = (*tokenizer)->eos_id().value();
  GrammarMatcher matcher(grammar, {end});
  const auto ids = (*tokenizer)->Encode("Hello, world!", {});
  ASSERT_TRUE(ids.ok());
  for (const TokenId id : *ids) {
    ASSERT_TRUE(matcher.Accept(id)) << id;
  }
  EXPECT_FALSE(matcher.Accept(vocab - 1));
  EXPECT_TRUE(matcher.Accept(end));
}

}  // namespace
}  // namespace fathom
