// A client's text is never markup: whatever a client writes and whatever a template does with it,
// no special token is made of it. The template's own markers stay markers, and the template sees
// the text unchanged.
#include <gtest/gtest.h>

#include <algorithm>
#include <chrono>
#include <string>
#include <vector>

#include "common/utf8.h"
#include "tests/text/text_support.h"
#include "text/chat_template.h"
#include "text/jinja/str.h"

namespace fathom {
namespace {

RenderedText RenderContents(const std::string& source, const std::vector<std::string>& contents,
                            bool literal) {
  const auto chat = ChatTemplate::Parse(source, "test");
  FATHOM_CHECK(chat.ok(), "{}", ToString(chat.status()));
  ChatInput input;
  for (const std::string& content : contents) {
    input.messages.push_back({.role = "user", .content = content, .literal = literal});
  }
  const auto rendered = (*chat)->Render(input);
  FATHOM_CHECK(rendered.ok(), "{}: {}", source, ToString(rendered.status()));
  return *rendered;
}

class Literal : public ::testing::TestWithParam<std::filesystem::path> {
 protected:
  std::unique_ptr<Tokenizer> tokenizer_ = LoadTokenizer(GetParam());
  Random random_{TestSeed()};
};

// Values that are pieces of the text of a token, stripped or not, next to each other and between
// markers.
TEST_P(Literal, NoValueBecomesAToken) {
  SCOPED_TRACE("FATHOM_SEED=" + std::to_string(TestSeed()));
  const std::vector<AddedToken>& tokens = tokenizer_->added_tokens();
  const AddedToken& marker = tokens.front();
  const auto chat = ChatTemplate::Parse(
      "{{ bos_token }}{% for m in messages %}{{ m.content | trim "
      "}}{% endfor %}{{ bos_token }}",
      "test");
  ASSERT_TRUE(chat.ok());
  for (int i = 0; i < 3000; ++i) {
    const std::string& content = tokens[random_() % tokens.size()].content;
    const size_t first = random_() % (content.size() + 1),
                 second = random_() % (content.size() + 1);
    std::string values[3] = {content.substr(0, std::min(first, second)), "",
                             content.substr(std::max(first, second))};
    values[1] =
        content.substr(values[0].size(), content.size() - values[0].size() - values[2].size());
    ChatInput input;
    input.bos_token = marker.content;
    bool whole_characters = true;
    for (std::string& value : values) {
      whole_characters = whole_characters && FirstInvalidUtf8(value) == std::string::npos;
      if (random_() % 4 == 0) value = "\n " + value;
      if (random_() % 4 == 0) value += "  ";
      input.messages.push_back({.role = "user", .content = value, .literal = true});
    }
    if (!whole_characters) continue;
    const auto taken = (*chat)->Render(input);
    ASSERT_TRUE(taken.ok()) << ToString(taken.status());
    const auto ids =
        tokenizer_->Encode(taken->text, {.literal_spans = taken->literal_spans}).value();
    const auto is_added = [&](TokenId id) {
      return std::any_of(tokens.begin(), tokens.end(),
                         [&](const AddedToken& t) { return t.id == id; });
    };
    ASSERT_EQ(std::count_if(ids.begin(), ids.end(), is_added), 2) << taken->text;
    ASSERT_EQ(ids.front(), marker.id);
    ASSERT_EQ(ids.back(), marker.id);
    const auto plain = tokenizer_->Encode(
        taken->text.substr(marker.content.size(), taken->text.size() - 2 * marker.content.size()),
        {.parse_special = false});
    ASSERT_EQ(std::vector<TokenId>(ids.begin() + 1, ids.end() - 1), *plain);
  }
}

INSTANTIATE_TEST_SUITE_P(Tokenizers, Literal,
                         ::testing::Values(TinyModel(), TokenizerData() / "gpt2",
                                           TokenizerData() / "gpt"),
                         [](const auto& folder) {
                           std::string name = folder.param.filename().string();
                           std::replace(name.begin(), name.end(), '-', '_');
                           return name;
                         });

// Operations whose own text is ASCII, or Greek letters that the template removes again.
constexpr const char* kOperations[] = {
    "<a>{{ c }}</a>",
    "{{ c ~ '|' ~ c }}{{ '-' + c + '-' }}{{ c * 3 }}",
    "{{ c[2:] }}.{{ c[:3] }}.{{ c[1:-1:2] }}.{{ c[::-1] }}.{{ c[0] }}.{{ c[-1] }}",
    "{{ c | trim }}{{ c.strip('α ') }}{{ c.lstrip() }}{{ c.rstrip('γ') }}",
    "{{ c.split('β') | join(', ') }}{{ c.split() | join('') }}{{ c.rsplit(' ', 1)[0] }}",
    "{% for x in c %}{{ loop.index }}{{ x }}{% endfor %}{{ c | list | reverse | join }}",
    "{{ c | upper }}{{ c | lower }}{{ c | title }}{{ c | capitalize }}{{ c.upper() }}",
    "{{ c | replace('β', 'xy') }}{{ 'x-y' | replace('-', c) }}{{ c.replace(' ', '', 1) }}",
    "{{ c | tojson }}{{ [c, {c: 1, 'k': c}] | tojson(indent=1) }}",
    "{{ [c, {'k': c}, 1] }}{{ {c: none} }}",
    "{% set x %}[{{ c }}]{% endset %}{{ x }}{{ x | length }}",
    "{% set ns = namespace(s='') %}{% for m in messages %}{% set ns.s = ns.s + m.content + '\\n' "
    "%}{% endfor %}{{ ns.s }}{{ ns.s | indent(2) }}",
    "{% macro f(x) %}<{{ x }}>{% endmacro %}{{ f(c) }}{{ f(c) | reverse }}",
    "{{ c | first }}{{ c | last }}{{ c | default('x') }}{{ (c if c else 'y') | string | safe }}",
    "{{ messages | map(attribute='content') | join('+') }}{{ c in c }}{{ c == c }}{{ c < 'x' }}",
    "{{ c.startswith('α') }}{{ c.endswith('γ') }}{{ c.find('β') }}{{ c | length }}{{ c is string "
    "}}",
};

std::vector<ByteSpan> GreekRuns(const std::string& text) {
  std::vector<ByteSpan> runs;
  for (size_t at = 0; at < text.size(); ++at) {
    if (static_cast<uint8_t>(text[at]) < 0x80) continue;
    if (runs.empty() || runs.back().end != at) runs.push_back({at, at});
    runs.back().end = at + 1;
  }
  return runs;
}

std::string GreekText(Random& random, bool spaces) {
  std::string text;
  for (uint64_t left = 1 + random() % 12; left > 0; --left) {
    const char* const letters[] = {"α", "β", "γ", "Α", "Ω", "ω", " "};
    text += letters[random() % (spaces ? 7 : 6)];
  }
  return text;
}

// After any operation, exactly the text of the client is literal.
TEST(LiteralStrings, FollowTheirText) {
  Random random(TestSeed());
  SCOPED_TRACE("FATHOM_SEED=" + std::to_string(TestSeed()));
  for (const char* operation : kOperations) {
    SCOPED_TRACE(operation);
    const std::string source = "{% set c = messages[0].content %}" + std::string(operation);
    for (int i = 0; i < 30; ++i) {
      const std::vector<std::string> contents = {GreekText(random, false),
                                                 GreekText(random, false)};
      const RenderedText rendered = RenderContents(source, contents, true);
      EXPECT_EQ(rendered.literal_spans, GreekRuns(rendered.text)) << rendered.text;
    }
  }
}

// The result of a rendering does not depend on whether a text is literal.
TEST(LiteralStrings, TemplatesDoNotSeeThem) {
  Random random(TestSeed());
  SCOPED_TRACE("FATHOM_SEED=" + std::to_string(TestSeed()));
  for (const char* operation : kOperations) {
    SCOPED_TRACE(operation);
    const std::string source = "{% set c = messages[0].content %}" + std::string(operation);
    for (int i = 0; i < 30; ++i) {
      std::vector<std::string> contents;
      for (int m = 0; m < 2; ++m) {
        contents.push_back("x" + RandomText(random, 20, {"<think>", "</think>", "\xEF\xB7\x90"}) +
                           GreekText(random, true));
      }
      const RenderedText plain = RenderContents(source, contents, false);
      EXPECT_EQ(RenderContents(source, contents, true).text, plain.text);
      EXPECT_TRUE(plain.literal_spans.empty());
    }
  }
  EXPECT_EQ(RenderContents("{{ messages[0].content | length }}", {"a<think>b"}, true).text, "9");
  EXPECT_EQ(RenderContents("{{ messages[0].content.startswith('<tool_response>') }}",
                           {"<tool_response>x"}, true)
                .text,
            "True");
  EXPECT_EQ(
      RenderContents("{{ messages[0].content.split('</think>')[-1] }}", {"a</think>b"}, true).text,
      "b");
}

TEST(LiteralStrings, PartsAndSums) {
  using jinja::Concat;
  using jinja::Str;
  const Str user = Str::Literal("user"), own("own");
  Str sum = Concat(own, user);
  const Str longer = Concat(sum, own);  // Grows the same buffer,
  const Str other = Concat(sum, user);  // which then has no room for another end.
  EXPECT_EQ(sum.view(), "ownuser");
  EXPECT_EQ(longer.view(), "ownuserown");
  EXPECT_EQ(other.view(), "ownuseruser");
  EXPECT_EQ(longer.LiteralSpans(), (std::vector<ByteSpan>{{3, 7}}));
  EXPECT_EQ(other.LiteralSpans(), (std::vector<ByteSpan>{{3, 11}}));
  EXPECT_EQ(longer.Slice(5, 9).LiteralSpans(), (std::vector<ByteSpan>{{0, 2}}));
  EXPECT_EQ(Concat(Str(), user).LiteralSpans(), (std::vector<ByteSpan>{{0, 4}}));
  for (int i = 0; i < 10; ++i) sum = Concat(sum, sum);  // Appends to its own buffer.
  EXPECT_EQ(sum.size(), 7u << 10);
  EXPECT_EQ(sum.Slice(7 * 1023, 7 * 1024).view(), "ownuser");
  EXPECT_EQ(sum.LiteralSpans().size(), 1024u);
}

// A template that collects a text piece by piece copies each byte a few times, not once for each
// piece. It takes little longer than a template that writes the pieces; copying each time would
// take 40 times as long.
TEST(LiteralStrings, CollectingIsNotQuadratic) {
  const std::vector<std::string> contents(6000, std::string(1000, 'x'));
  const auto seconds = [&](const std::string& source) {
    double best = 1e9;
    for (int i = 0; i < 3; ++i) {
      const auto begin = std::chrono::steady_clock::now();
      EXPECT_EQ(RenderContents(source, contents, true).text.size(), contents.size() * 1002);
      best = std::min(
          best, std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count());
    }
    return best;
  };
  const double collected = seconds(
      "{% set ns = namespace(s='') %}{% for m in messages %}{% set ns.s = ns.s + '\\n\\n' + "
      "m['content'] %}{% endfor %}{{ ns.s }}");
  const double written =
      seconds("{% for m in messages %}{{ '\\n\\n' + m['content'] }}{% endfor %}");
  EXPECT_LT(collected, 8 * written);
}

}  // namespace
}  // namespace fathom
