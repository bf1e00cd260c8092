// User text is not markup: whatever a client writes, and whatever a template does with it, no
// special token comes of it; and the template's own markers stay what they are.
#include <gtest/gtest.h>

#include <algorithm>
#include <string>
#include <vector>

#include "tests/text/text_support.h"
#include "text/literal_text.h"
#include "text/utf8.h"

namespace fathom::router {
namespace {

class Literal : public ::testing::TestWithParam<std::filesystem::path> {
 protected:
  std::unique_ptr<Tokenizer> tokenizer_ = LoadTokenizer(GetParam());
  LiteralText literal_{*tokenizer_};
  Random random_{TestSeed()};
};

TEST_P(Literal, ComesOutAsItWentIn) {
  SCOPED_TRACE("FATHOM_SEED=" + std::to_string(TestSeed()));
  std::vector<std::string> pieces = AddedContents(*tokenizer_);
  for (const char* mark : {"\xEF\xB7\x90", "\xEF\xB7\x91", "\xEF\xB7\x92", "\xEF\xB7\x93"})
    pieces.push_back(mark);
  for (int i = 0; i < 5000; ++i) {
    const std::string value = RandomText(random_, 30, pieces);
    ASSERT_EQ(LiteralText::TakeMarks(literal_.Mark(value)).text, value);
    const MarkedText escaped = LiteralText::TakeMarks(LiteralText::Escape(value));
    ASSERT_EQ(escaped.text, value);
    ASSERT_TRUE(escaped.literal_spans.empty());
  }
}

// Values that are cut anywhere into a token's text, stripped or not, side by side and between
// markers.
TEST_P(Literal, NoValueBecomesAToken) {
  SCOPED_TRACE("FATHOM_SEED=" + std::to_string(TestSeed()));
  const std::vector<AddedToken>& tokens = tokenizer_->added_tokens();
  const AddedToken& marker = tokens.front();
  for (int i = 0; i < 5000; ++i) {
    const std::string& content = tokens[random_() % tokens.size()].content;
    const size_t first = random_() % (content.size() + 1),
                 second = random_() % (content.size() + 1);
    std::string values[3] = {content.substr(0, std::min(first, second)), "",
                             content.substr(std::max(first, second))};
    values[1] =
        content.substr(values[0].size(), content.size() - values[0].size() - values[2].size());
    bool whole_characters = true;
    std::string rendered = marker.content;
    for (std::string& value : values) {
      whole_characters = whole_characters && FirstInvalidUtf8(value) == std::string::npos;
      if (!whole_characters) break;
      if (random_() % 4 == 0) value = "\n " + value;
      if (random_() % 4 == 0) value += "  ";
      rendered += TrimLeft(TrimRight(literal_.Mark(value)));
    }
    if (!whole_characters) continue;
    rendered += marker.content;
    const MarkedText taken = LiteralText::TakeMarks(rendered);
    const auto ids = tokenizer_->Encode(taken.text, {.literal_spans = taken.literal_spans}).value();
    const auto is_added = [&](TokenId id) {
      return std::any_of(tokens.begin(), tokens.end(),
                         [&](const AddedToken& t) { return t.id == id; });
    };
    ASSERT_EQ(std::count_if(ids.begin(), ids.end(), is_added), 2) << taken.text;
    ASSERT_EQ(ids.front(), marker.id);
    ASSERT_EQ(ids.back(), marker.id);
    const auto plain = tokenizer_->Encode(
        taken.text.substr(marker.content.size(), taken.text.size() - 2 * marker.content.size()),
        {.parse_special = false});
    ASSERT_EQ(std::vector<TokenId>(ids.begin() + 1, ids.end() - 1), *plain);
  }
}

TEST_P(Literal, OrdinaryTextHasNoMarks) {
  if (tokenizer_->has_normalizer()) return;  // There, other characters are marked as a precaution.
  for (const std::string text :
       {"What is the capital of France?", "2 + 2 = 4", "\n  indented\n", "床前明月光"}) {
    EXPECT_EQ(literal_.Mark(text), text);
    EXPECT_FALSE(LiteralText::HasMarks(text));
  }
  EXPECT_TRUE(LiteralText::HasMarks("a\xEF\xB7\x90z"));
}

INSTANTIATE_TEST_SUITE_P(Tokenizers, Literal,
                         ::testing::Values(TinyModel(), TokenizerData() / "gpt2",
                                           TokenizerData() / "gpt"),
                         [](const auto& folder) {
                           std::string name = folder.param.filename().string();
                           std::replace(name.begin(), name.end(), '-', '_');
                           return name;
                         });

TEST(LiteralText, MarksThatLostTheirCharacterDoNoHarm) {
  const std::string mark = "\xEF\xB7\x90";
  EXPECT_EQ(LiteralText::TakeMarks(mark).text, "");
  EXPECT_TRUE(LiteralText::TakeMarks(mark + "abc").literal_spans.empty());
  const MarkedText twice = LiteralText::TakeMarks("a" + mark + mark + "b");
  EXPECT_EQ(twice.text, "ab");
  EXPECT_EQ(twice.literal_spans, (std::vector<ByteSpan>{{0, 1}}));
}

}  // namespace
}  // namespace fathom::router
