// What the tools and the thinking budget of a request mean for its record and its text.
#include "router/api/tool_use.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "common/reason.h"
#include "router/api/thinking.h"
#include "router/sessions/session_blob.h"
#include "tests/router/session_fixture.h"

namespace fathom::router {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;

constexpr char kTools[] =
    R"([{"type": "function", "function": {"name": "f"}},
        {"type": "function", "function": {"name": "g.h-1"}}])";

std::string FieldOf(const absl::Status& status) {
  return DetailOf(status).value_or(ErrorDetail{}).field;
}

TEST(ToolUse, FormsOfTheModelOrOfTheFlags) {
  const auto detected = FindToolCallForm("hermes", TinyTokenizer()).value();
  const auto forms = ResolveForms("auto", "auto", detected, TinyTokenizer());
  ASSERT_TRUE(forms.ok());
  EXPECT_EQ(forms->reasoning, "qwen3");  // The tokenizer has <think> and </think>.
  EXPECT_EQ(forms->tool_calls, "hermes");
  const auto given = ResolveForms("deepseek_r1", "qwen", std::nullopt, TinyTokenizer());
  ASSERT_TRUE(given.ok());
  EXPECT_EQ(given->reasoning, "deepseek_r1");
  EXPECT_EQ(given->tool_calls, "hermes");
  EXPECT_EQ(ResolveForms("none", "auto", std::nullopt, TinyTokenizer())->tool_calls, "none");
  EXPECT_THAT(Message(ResolveForms("x", "auto", {}, TinyTokenizer()).status()),
              testing::AllOf(HasSubstr("--reasoning-parser"), HasSubstr("qwen3")));
  EXPECT_THAT(Message(ResolveForms("auto", "x", {}, TinyTokenizer()).status()),
              testing::AllOf(HasSubstr("--tool-call-parser"), HasSubstr("deepseek_v31")));
}

TEST(ToolUse, NamesAndChoices) {
  const AnswerForms forms{.reasoning = "qwen3", .tool_calls = "hermes"};
  using Kind = ToolChoice::Kind;
  const auto apply = [&](const std::string& tools, ToolChoice choice, TextOptions* text) {
    ChatPrompt chat;
    chat.tools_json = tools;
    chat.tool_choice = std::move(choice);
    return ApplyTools(chat, forms, text);
  };
  TextOptions text;
  ASSERT_TRUE(apply(kTools, {}, &text).ok());
  EXPECT_EQ(text.call_form, "hermes");
  EXPECT_THAT(text.tool_names, ElementsAre("f", "g.h-1"));
  EXPECT_TRUE(text.parallel_calls);
  for (const auto& [tools, choice] :
       {std::pair<std::string, ToolChoice>{"", {}}, {"[]", {}}, {kTools, {.kind = Kind::kNone}}}) {
    TextOptions none;
    ASSERT_TRUE(apply(tools, choice, &none).ok()) << tools;
    EXPECT_EQ(none.call_form, "");
  }
  TextOptions one;
  ASSERT_TRUE(apply(kTools, {.parallel = false}, &one).ok());
  EXPECT_FALSE(one.parallel_calls);

  const auto refused = [&](const std::string& tools, ToolChoice choice) {
    TextOptions unused;
    return FieldOf(apply(tools, std::move(choice), &unused));
  };
  EXPECT_EQ(refused("", {.kind = Kind::kRequired}), "tool_choice");
  EXPECT_EQ(refused(kTools, {.kind = Kind::kNamed, .name = "nobody"}), "tool_choice");
  EXPECT_EQ(refused("{}", {}), "tools_json");
  EXPECT_EQ(refused("[5]", {}), "tools_json[0].function.name");
  EXPECT_EQ(refused(R"([{"function": {"name": 5}}])", {}), "tools_json[0].function.name");
  EXPECT_EQ(refused(R"([{"function": {"name": "a\"b"}}])", {}), "tools_json[0].function.name");
  EXPECT_EQ(refused(std::string(200, '[') + std::string(200, ']'), {}), "tools_json");
  std::string many = "[";
  for (int i = 0; i < 129; ++i) many += R"({"function": {"name": "f"}},)";
  many.back() = ']';
  EXPECT_EQ(refused(many, {}), "tools_json");

  ChatPrompt chat;
  chat.tools_json = kTools;
  EXPECT_EQ(FieldOf(ApplyTools(chat, {}, &text)), "tools_json");  // No form is known.
}

TEST(ToolUse, TheBlobKeepsWhatTheTextNeeds) {
  TextOptions options;
  options.chat = true;
  options.reasoning_form = "deepseek_r1";
  options.call_form = "hermes";
  options.tool_names = {"f", "g"};
  options.parallel_calls = false;
  EXPECT_EQ(*DecodeBlob(EncodeBlob(options)), options);
  // Of a router of version 0.1.
  const auto old = DecodeBlob(R"({"version": 1, "chat": true, "want_text": true})");
  ASSERT_TRUE(old.ok());
  EXPECT_EQ(old->reasoning_form, "");
  EXPECT_EQ(old->call_form, "");
  EXPECT_TRUE(old->parallel_calls);
}

TEST(Thinking, BudgetsAndEfforts) {
  const auto form = DetectThinkingForm(TinyTokenizer());
  ASSERT_TRUE(form.has_value());
  const auto resolve = [&](PublicThinking thinking, const std::string& prompt, int32_t max_tokens) {
    return ResolveThinking(thinking, {}, &TinyTokenizer(), form, Ids(prompt), max_tokens).value();
  };
  const ThinkingParams opened = resolve({.token_budget = 5}, "Hi<think>\n", 100);
  EXPECT_EQ(opened, (ThinkingParams{*form->begin.id, *form->end.id, 5, true}));
  EXPECT_FALSE(resolve({.token_budget = 5}, "Hi", 100).opened);
  EXPECT_EQ(resolve({.token_budget = 100}, "Hi", 100), ThinkingParams{});  // Never reached.
  EXPECT_EQ(resolve({}, "Hi", 9000), ThinkingParams{});
  EXPECT_EQ(resolve({.effort = "low"}, "Hi", 9000).budget, 1024);
  EXPECT_EQ(resolve({.effort = "minimal"}, "Hi", 9000).budget, 1024);
  EXPECT_EQ(resolve({.effort = "medium"}, "Hi", 9000).budget, 8192);
  EXPECT_EQ(resolve({.effort = "high"}, "Hi", 9000), ThinkingParams{});
  EXPECT_EQ(resolve({.effort = "none"}, "Hi", 9000).budget, 0);
  EXPECT_EQ(resolve({.token_budget = 3, .effort = "low"}, "Hi", 9000).budget, 3);
  EXPECT_EQ(ThinkingByEffort({}), std::nullopt);
  EXPECT_EQ(ThinkingByEffort({.effort = "none"}), false);
  EXPECT_EQ(ThinkingByEffort({.effort = "low"}), true);
  const auto refused = ResolveThinking({.token_budget = 3}, {}, &TinyTokenizer(), {}, {}, 9000);
  EXPECT_EQ(FieldOf(refused.status()), "thinking.token_budget");
  EXPECT_TRUE(ResolveThinking({.effort = "none"}, {}, &TinyTokenizer(), {}, {}, 9000).ok());
}

}  // namespace
}  // namespace fathom::router
