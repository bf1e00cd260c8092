// The parts of the tokenizer: UTF-8, patterns, NFC, and refusals of tokenizer.json.
#include <gtest/gtest.h>
#include <utf8proc.h>

#include <algorithm>
#include <cstdlib>
#include <string>
#include <vector>

#include "common/utf8.h"
#include "tests/text/text_support.h"
#include "text/byte_level.h"
#include "text/normalizer.h"
#include "text/regex.h"

namespace fathom {
namespace {

TEST(Utf8, EveryCodePointIsACharacterAndSurrogatesAreNot) {
  for (char32_t c = 0; c <= 0x110000; ++c) {
    std::string text;
    AppendCodePoint(c, &text);
    const Utf8Step step = ScanUtf8(text);
    if ((c >= 0xD800 && c <= 0xDFFF) || c > 0x10FFFF) {
      ASSERT_EQ(step.kind, Utf8Step::kInvalid) << static_cast<uint32_t>(c);
      continue;
    }
    ASSERT_EQ(step.kind, Utf8Step::kCharacter);
    ASSERT_EQ(step.bytes, text.size());
    ASSERT_EQ(step.code_point, c);
    ASSERT_EQ(LastCodePoint("x" + text), c);
    for (size_t size = 1; size < text.size(); ++size) {
      ASSERT_EQ(ScanUtf8(text.substr(0, size)).kind, Utf8Step::kIncomplete);
    }
  }
}

TEST(Utf8, StreamDoesNotDependOnTheCuts) {
  Random random(TestSeed());
  for (int i = 0; i < 20000; ++i) {
    std::string bytes;
    for (uint64_t left = random() % 12; left > 0; --left) {
      bytes.push_back("a\xC3\xA9\xE4\xB8\xAD\xF0\x9F\x98\x80\xFF\xED\xA0\xC0"[random() % 14]);
    }
    Utf8Stream whole, cut;
    std::string expected, text;
    whole.Append(bytes, &expected);
    whole.Flush(&expected);
    for (char byte : bytes) cut.Append({&byte, 1}, &text);
    cut.Flush(&text);
    ASSERT_EQ(text, expected);
    ASSERT_EQ(FirstInvalidUtf8(text), std::string::npos);
  }
}

TEST(Utf8, ShortenedTextsAreWholeCharacters) {
  const std::string text = "a\u00E9\u4E2D\U0001F600z\u00E9";
  for (size_t bytes = 0; bytes <= text.size() + 1; ++bytes) {
    const std::string shown = Shortened(text, bytes);
    ASSERT_EQ(FirstInvalidUtf8(shown), std::string::npos) << bytes;
    if (bytes >= text.size()) {
      ASSERT_EQ(shown, text);
      continue;
    }
    ASSERT_TRUE(shown.ends_with("..."));
    const std::string kept = shown.substr(0, shown.size() - 3);
    ASSERT_TRUE(text.starts_with(kept) && kept.size() <= bytes && bytes - kept.size() < 4) << bytes;
  }
}

TEST(Utf8, MaximalSubpartsAsInTheUnicodeStandard) {  // Chapter 3, tables 3-8 and 3-11.
  const auto decode = [](const std::string& bytes) {
    Utf8Stream stream;
    std::string text, marks;
    stream.Append(bytes, &text);
    stream.Flush(&text);
    for (std::string_view rest = text; !rest.empty(); rest.remove_prefix(NextCharacter(rest, 0))) {
      marks += FirstCodePoint(rest) == 0xFFFD ? '?' : rest.front();
    }
    return marks;
  };
  EXPECT_EQ(decode("\xC0\xAF\xE0\x80\xBF\xF0\x81\x82\x41"), "????????A");
  EXPECT_EQ(decode("\xE1\x80\xE2\xF0\x91\x92\xF1\xBF\x41"), "????A");
}

TEST(ByteLevel, AlphabetAndBack) {
  std::string bytes, token;
  for (int byte = 0; byte < 256; ++byte) {
    bytes.push_back(static_cast<char>(byte));
    token += ByteLevelCharacter(static_cast<uint8_t>(byte));
  }
  EXPECT_EQ(ByteLevelBytes(token), bytes);
  EXPECT_EQ(ByteLevelCharacter(' '), "Ġ");
  EXPECT_EQ(ByteLevelBytes("a b"), std::nullopt);
}

TEST(Regex, WhiteSpaceIsUnicodes) {
  const Regex space = Regex::Compile(R"(\s)").value(), other = Regex::Compile(R"(\S)").value(),
              in_class = Regex::Compile(R"([\s])").value();
  for (char32_t c = 0; c <= 0x10FFFF; ++c) {
    if (c >= 0xD800 && c <= 0xDFFF) continue;
    std::string text;
    AppendCodePoint(c, &text);
    ByteSpan match;
    const bool found = space.Find(text, 0, &match) == Regex::Result::kMatch;
    ASSERT_EQ(found, IsWhiteSpace(c)) << static_cast<uint32_t>(c);
    ASSERT_EQ(in_class.Find(text, 0, &match) == Regex::Result::kMatch, found);
    ASSERT_EQ(other.Find(text, 0, &match) == Regex::Result::kMatch, !found);
  }
}

TEST(Regex, LineEndsAsOniguruma) {
  const Regex end = Regex::Compile("a$").value();
  ByteSpan match;
  EXPECT_EQ(end.Find("ab a\nb", 0, &match), Regex::Result::kMatch);
  EXPECT_EQ(match, (ByteSpan{3, 4}));
  EXPECT_EQ(end.Find("a\r", 0, &match), Regex::Result::kNoMatch);
}

TEST(Regex, WhatWouldMeanSomethingElseIsRefused) {
  for (const char* pattern :
       {R"(\w)", R"(\bx)", R"(\h)", R"([a[b]])", "[a&&b]", R"([\S])", "a{2}+", "a{,2}", "(?m:.)",
        "a(?i)b", "(*UCP)a", R"(\1)", R"(\x41)", "[]a]", "[[:alpha:]]", R"(\)"}) {
    const auto regex = Regex::Compile(pattern);
    ASSERT_EQ(regex.status().code(), absl::StatusCode::kInvalidArgument) << pattern;
    EXPECT_NE(Message(regex.status()).find(pattern), std::string::npos);
  }
  EXPECT_FALSE(Regex::Compile("a(b").ok());
  EXPECT_FALSE(Regex::Compile(R"(\p{Nonsense})").ok());
}

TEST(Regex, GivesUpInsteadOfHanging) {
  const Regex hard = Regex::Compile("(?:a|aa|aaa)+(?:a|aa)+[bc]").value();
  ByteSpan match;
  EXPECT_EQ(hard.Find(std::string(60, 'a'), 0, &match), Regex::Result::kTooHard);
}

std::string Nfc(const std::string& text) {
  utf8proc_uint8_t* out = utf8proc_NFC(reinterpret_cast<const utf8proc_uint8_t*>(text.c_str()));
  std::string result(reinterpret_cast<const char*>(out));
  std::free(out);
  return result;
}

std::string ComposingText(Random& random) {
  static const std::vector<char32_t> kCharacters = {
      'a',    'e',   'o',     ' ',    0xE9,   0x301,  0x323, 0x308,   0x1100,  0x1161,  0x11A8,
      0xAC00, 0x9BE, 0x9C7,   0x9D7,  0x2126, 0x212B, 0x344, 0xF73,   0xF71,   0xF72,   0x1EBF,
      0x4E00, 0x338, 0x1F600, 0xFB1D, 0x958,  0x93C,  0x915, 0x110A5, 0x110BA, 0x1D157, 0x1D165};
  std::string text;
  for (uint64_t left = random() % 12; left > 0; --left) {
    AppendCodePoint(kCharacters[random() % kCharacters.size()], &text);
  }
  return text;
}

TEST(Normalizer, EqualsUtf8procAndKeepsSpans) {
  SCOPED_TRACE("FATHOM_SEED=" + std::to_string(TestSeed()));
  Random random(TestSeed());
  int changed = 0;
  for (int i = 0; i < 30000; ++i) {
    // Characters that do not compose surround the span, so that its NFC must be found in the span.
    const std::string before = ComposingText(random) + "(", inside = ComposingText(random),
                      after = ")" + ComposingText(random);
    const ByteSpan span{before.size(), before.size() + inside.size()};
    if (inside.empty() || !Nfc("(" + inside).starts_with("(") || !Nfc(after).starts_with(")"))
      continue;
    std::string out;
    std::vector<ByteSpan> spans;
    if (!NormalizeNfc(before + inside + after, {&span, 1}, &out, &spans)) {
      ASSERT_EQ(Nfc(before + inside + after), before + inside + after);
      continue;
    }
    ++changed;
    ASSERT_EQ(out, Nfc(before + inside + after));
    ASSERT_EQ(spans.size(), 1u);
    const std::string found = out.substr(spans[0].begin, spans[0].end - spans[0].begin);
    ASSERT_NE(found.find(Nfc(inside)), std::string::npos);
    ASSERT_LE(found.size(),
              Nfc(inside).size() + 1);  // At most the bracket that `inside` may compose with.
  }
  EXPECT_GT(changed, 1000);
}

// A letter with a million marks; an ordering that exchanges neighbours would take an hour.
TEST(Normalizer, MarksWithoutEnd) {
  constexpr int kPairs = 500'000;
  std::string text = "a", expected = "\xC3\xA1";
  for (int i = 0; i < kPairs; ++i) text += "\xCC\x81\xCC\x96";  // U+0301 (class 230), U+0316 (220).
  for (int i = 0; i < kPairs; ++i) expected += "\xCC\x96";
  for (int i = 1; i < kPairs; ++i) expected += "\xCC\x81";
  std::string out;
  std::vector<ByteSpan> spans;
  ASSERT_TRUE(NormalizeNfc(text, {}, &out, &spans));
  EXPECT_TRUE(out == expected);
}

TEST(Normalizer, NoCharacterShrinksToLessThanAThird) {
  for (char32_t c = 0x80; c <= 0x10FFFF; ++c) {
    if (c >= 0xD800 && c <= 0xDFFF) continue;
    std::string text, out;
    std::vector<ByteSpan> spans;
    AppendCodePoint(c, &text);
    const bool changed = NormalizeNfc(text, {}, &out, &spans);
    ASSERT_LE(changed ? text.size() : 0, 3 * out.size());
  }
}

class Refusals : public ::testing::Test {
 protected:
  void SetUp() override {
    folder_ = std::filesystem::temp_directory_path() /
              fmt::format("fathom-tokenizer-{}",
                          ::testing::UnitTest::GetInstance()->random_seed() + getpid());
    std::filesystem::create_directories(folder_);
    std::ifstream(TokenizerData() / "tokens/tokenizer.json") >> good_;
  }
  void TearDown() override { std::filesystem::remove_all(folder_); }

  absl::Status Load(const std::string& tokenizer, const std::string& config = "{}") {
    std::ofstream(folder_ / "tokenizer.json") << tokenizer;
    std::ofstream(folder_ / "tokenizer_config.json") << config;
    return Tokenizer::Load(folder_.string()).status();
  }
  void ExpectRefused(const absl::Status& status, const std::string& key) {
    ASSERT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << status;
    EXPECT_NE(Message(status).find((folder_ / "tokenizer").string()), std::string::npos) << status;
    EXPECT_NE(Message(status).find(key), std::string::npos) << status;
  }

  std::filesystem::path folder_;
  nlohmann::json good_;
};

// A letter among the added tokens is matched in literal text, alone and next to markup, which is
// not matched.
TEST_F(Refusals, ALetterIsTextAndAMarkerIsNot) {
  const auto next = static_cast<TokenId>(good_["model"]["vocab"].size()) + 100;
  for (const char* content : {"ж", "<mark>", "ж>"}) {
    good_["added_tokens"].push_back(
        {{"id", next + static_cast<TokenId>(good_["added_tokens"].size())},
         {"content", content},
         {"special", false}});
  }
  ASSERT_TRUE(Load(good_.dump()).ok());
  const auto loaded = LoadTokenizer(folder_);
  const Tokenizer& tokenizer = *loaded;
  const TokenId letter = *tokenizer.FindToken("ж"), mark = *tokenizer.FindToken("<mark>");
  const auto has = [&](const std::vector<TokenId>& ids, TokenId id) {
    return std::count(ids.begin(), ids.end(), id);
  };
  const std::string text = "a<mark>ж>ж<mark>";
  const ByteSpan literal = {0, text.size() - 6};  // Everything except the last marker.
  const auto ids = tokenizer.Encode(text, {.literal_spans = {&literal, 1}}).value();
  EXPECT_EQ(has(ids, letter), 2);
  EXPECT_EQ(has(ids, mark), 1);
  EXPECT_EQ(has(ids, *tokenizer.FindToken("ж>")), 0);
  EXPECT_EQ(has(tokenizer.Encode(text).value(), *tokenizer.FindToken("ж>")), 1);
}

// Vocabularies of characters: the cases that the recorded vectors do not have.
TEST_F(Refusals, CharacterVocabularies) {
  nlohmann::json json;
  std::ifstream(TokenizerData() / "characters/tokenizer.json") >> json;
  ASSERT_EQ(Load(json.dump()), absl::OkStatus());
  const auto tokenizer = LoadTokenizer(folder_);
  EXPECT_TRUE(tokenizer->strips_first_space());
  const TokenId newline = *tokenizer->FindToken("<0x0A>");
  EXPECT_EQ(tokenizer->TokenBytes(newline), "\n");
  EXPECT_EQ(tokenizer->TokenBytes(*tokenizer->FindToken("\xE2\x96\x81the")), " the");
  // A U+2581 in a text becomes a space; spans move with their text.
  EXPECT_EQ(tokenizer->Encode("a\xE2\x96\x81the").value(), tokenizer->Encode("a the").value());
  EXPECT_LE(tokenizer->MinTokens("\xE2\x96\x81\xE2\x96\x81\xE2\x96\x81\xE2\x96\x81"), 1);
  const ByteSpan literal = {0, 3};
  const auto special = *tokenizer->FindToken("<s>");
  const auto ids = tokenizer->Encode("<s> <s>", {.literal_spans = {&literal, 1}}).value();
  EXPECT_EQ(std::count(ids.begin(), ids.end(), special), 1);
  const std::pair<const char*, const char*> refused[] = {
      {"/model/vocab/<0x41>", ""},
      {"/normalizer", "null"},
      {"/normalizer/normalizers/0/prepend", R"("x")"},
      {"/normalizer/normalizers/1/content", R"("_")"},
      {"/pre_tokenizer", R"({"type":"Metaspace","replacement":"_"})"},
      {"/decoder/decoders/1", R"({"type":"Fuse"})"},
      {"/decoder/decoders/3/start", "2"}};
  for (const auto& [pointer, value] : refused) {
    nlohmann::json bad = json;
    const nlohmann::json::json_pointer at(pointer);
    if (*value == '\0') {
      bad[at.parent_pointer()].erase(at.back());
    } else {
      bad[at] = nlohmann::json::parse(value);
    }
    EXPECT_EQ(Load(bad.dump()).code(), absl::StatusCode::kInvalidArgument) << pointer;
  }
}

// Training leaves these sections in published files; a server ignores them.
TEST_F(Refusals, TruncationAndPaddingChangeNothing) {
  ASSERT_TRUE(Load(good_.dump()).ok());
  const std::string text = "a text of more than five tokens, surely";
  const auto expected = LoadTokenizer(folder_)->Encode(text).value();
  good_["truncation"] = {{"max_length", 5}, {"strategy", "LongestFirst"}, {"stride", 0}};
  good_["padding"] = {{"strategy", {{"Fixed", 64}}}, {"pad_id", 0}};
  ASSERT_TRUE(Load(good_.dump()).ok());
  EXPECT_EQ(LoadTokenizer(folder_)->Encode(text).value(), expected);
}

TEST_F(Refusals, TokensThatOnlyTheConfigurationLists) {
  const std::string decoder = R"({"eos_token":"<only>","added_tokens_decoder":{"900":{
      "content":"<only>","lstrip":false,"normalized":false,"rstrip":false,"single_word":false,
      "special":true}}})";
  ASSERT_EQ(Load(good_.dump(), decoder), absl::OkStatus());
  const auto tokenizer = LoadTokenizer(folder_);
  EXPECT_EQ(tokenizer->FindToken("<only>"), 900);
  EXPECT_EQ(tokenizer->eos_id(), 900);
  EXPECT_TRUE(tokenizer->IsSpecial(900));
  EXPECT_EQ(tokenizer->Encode("<only>").value(), std::vector<TokenId>{900});
  EXPECT_EQ(tokenizer->vocab_size(), 901);
  const auto one = [](const std::string& id, const std::string& content) {
    return R"({"added_tokens_decoder":{")" + id + R"(":{"content":")" + content + R"("}}})";
  };
  const std::string known = good_["added_tokens"][0]["content"];
  const TokenId id = good_["added_tokens"][0]["id"];
  EXPECT_TRUE(Load(good_.dump(), one(std::to_string(id), known)).ok());
  ExpectRefused(Load(good_.dump(), one(std::to_string(id + 1), known)), "both must agree");
  ExpectRefused(Load(good_.dump(), one(std::to_string(id), "<new>")), "another token");
  ExpectRefused(Load(good_.dump(), one("5", "<new>")), "another token");
  ExpectRefused(Load(good_.dump(), one("x", "<new>")), "token id");
}

TEST_F(Refusals, TheGoodOneLoads) { EXPECT_TRUE(Load(good_.dump()).ok()); }

// Changes one key of a good tokenizer.json; the message must name it.
TEST_F(Refusals, EachKeyIsNamed) {
  struct Case {
    const char* pointer;
    const char* value;  // Empty: the key is removed.
    const char* named;
  };
  for (const Case& c : std::vector<Case>{
           {"/surprise", "1", "surprise"},
           {"/model", "", "model"},
           {"/model/type", R"("WordPiece")", "model.type"},
           {"/model/dropout", "0.1", "model.dropout"},
           {"/model/end_of_word_suffix", R"("</w>")", "model.end_of_word_suffix"},
           {"/model/continuing_subword_prefix", R"("##")", "model.continuing_subword_prefix"},
           {"/model/ignore_merges", "1", "model.ignore_merges"},
           {"/model/vocab", "[]", "model.vocab"},
           {"/model/vocab/a", "-1", "model.vocab.a"},
           {"/model/vocab/a", "5", "this id belongs to another token"},
           {"/model/vocab/a", "", "model.vocab has no token 'a'"},
           {"/model/vocab/an", "", "model.merges["},
           {"/model/merges/0", R"("a b c")", "model.merges[0]"},
           {"/model/merges/0", R"(["a"])", "model.merges[0]"},
           {"/model/surprise", "1", "model.surprise"},
           {"/normalizer", R"({"type":"Lowercase"})", "normalizer.type"},
           {"/normalizer", R"({"type":"Sequence","normalizers":[{"type":"NFKC"}]})",
            "normalizer.normalizers[0].type"},
           {"/pre_tokenizer", "null", "pre_tokenizer"},
           {"/pre_tokenizer/pretokenizers/0/type", R"("Whitespace")",
            "pre_tokenizer.pretokenizers[0].type"},
           {"/pre_tokenizer/pretokenizers/0/behavior", R"("Sideways")",
            "pretokenizers[0].behavior"},
           {"/pre_tokenizer/pretokenizers/0/pattern/Regex", R"("\\w+")",
            "pretokenizers[0].pattern"},
           {"/pre_tokenizer/pretokenizers/0/invert", R"("no")", "pretokenizers[0].invert"},
           {"/pre_tokenizer/pretokenizers/2", R"({"type":"Digits"})", "pretokenizers[2]"},
           {"/decoder", "null", "decoder"},
           {"/decoder/type", R"("Metaspace")", "decoder"},
           {"/post_processor/type", R"("BertProcessing")", "post_processor"},
           {"/post_processor/processors/1/single/1", R"({"Sequence":{"id":"B","type_id":0}})",
            "single[1]"},
           {"/post_processor/processors/1/special_tokens/<s>/ids", "[99999]", "post_processor"},
           {"/added_tokens/0/id", R"("1")", "added_tokens[0].id"},
           {"/added_tokens/0/id", "3", "added_tokens[0]"},
           {"/added_tokens/0/content", R"("a")", "added_tokens[0]"},
           {"/added_tokens/0/content", R"("")", "added_tokens[0]"},
           {"/added_tokens/1/content", R"("<s>")", "added_tokens[1]"},
           {"/added_tokens/0/lstrip", "3", "added_tokens[0].lstrip"},
           {"/added_tokens/0/surprise", "3", "added_tokens[0].surprise"},
       }) {
    SCOPED_TRACE(fmt::format("{} = {}", c.pointer, c.value));
    nlohmann::json changed = good_;
    const nlohmann::json::json_pointer pointer(c.pointer);
    if (*c.value == '\0') {
      changed[pointer.parent_pointer()].erase(pointer.back());
    } else {
      changed[pointer] = nlohmann::json::parse(c.value);
    }
    ExpectRefused(Load(changed.dump()), c.named);
  }
}

TEST_F(Refusals, BrokenFiles) {
  ExpectRefused(Load("{\"model\": "), "not JSON");
  ExpectRefused(Load("[]"), "expected an object");
  ExpectRefused(Load(good_.dump(), "{"), "tokenizer_config.json is not JSON");
  ExpectRefused(Load(good_.dump(), R"({"bos_token":"<nothing>"})"), "bos_token is '<nothing>'");
  ExpectRefused(Load(good_.dump(), R"({"add_bos_token":true})"), "add_bos_token");
  ExpectRefused(Load(good_.dump(), R"({"split_special_tokens":true})"), "split_special_tokens");
  EXPECT_EQ(Tokenizer::Load((folder_ / "none").string()).status().code(),
            absl::StatusCode::kNotFound);
}

TEST_F(Refusals, TheConfigurationDecidesAboutBos) {
  for (const auto& [config, count] : std::vector<std::pair<std::string, size_t>>{
           {"{}", 3},  // The post-processor: <s> a </s>.
           {R"({"add_bos_token":false})", 2},
           {R"({"add_bos_token":false,"add_eos_token":false})", 1},
           {R"({"add_bos_token":true,"bos_token":{"content":"<think>"}})", 3}}) {
    ASSERT_TRUE(Load(good_.dump(), config).ok());
    const auto tokenizer = Tokenizer::Load(folder_.string()).value();
    EXPECT_EQ(tokenizer->Encode("a", {.add_special_tokens = true})->size(), count) << config;
  }
}

}  // namespace
}  // namespace fathom
