// The steps between a client's request and the template: which template is used, which variables it
// gets, and in which form it gets messages.
#include <gtest/gtest.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <string>

#include "tests/text/text_support.h"
#include "text/chat_template.h"

namespace fathom {
namespace {

std::unique_ptr<const ChatTemplate> Parsed(const std::string& source) {
  auto parsed = ChatTemplate::Parse(source, "folder/file.jinja");
  FATHOM_CHECK(parsed.ok(), "{}", ToString(parsed.status()));
  return *std::move(parsed);
}

std::string TextOf(const absl::StatusOr<RenderedText>& rendered) {
  return rendered.ok() ? rendered->text : "error: " + std::string(Message(rendered.status()));
}

const std::string kTurns =
    "{% for m in messages %}<{{ m.role }}>{{ m.content }}{% for c in m.tool_calls or [] %}[{{ "
    "@ }}]{% endfor %}{% endfor %}";

// A template that prints each tool call in the given way.
std::unique_ptr<const ChatTemplate> WithCalls(const std::string& call) {
  std::string source = kTurns;
  return Parsed(source.replace(source.find('@'), 1, call));
}

ChatInput OneCall(const std::string& arguments) {
  ChatInput input;
  input.messages = {{.role = "user", .content = "q"},
                    {.role = "assistant", .content = "", .tool_calls = {{"c", "f", arguments}}}};
  return input;
}

TEST(ChatForms, ToolCallArgumentsAsTheTemplateWantsThem) {
  const std::string sent = R"({"b":1.0,"a":[18446744073709551615]})";
  const std::pair<const char*, std::string> cases[] = {
      {"c.function.arguments", sent},
      {"'x' + c.function.arguments", "x" + sent},
      {"c.function.arguments | tojson", R"({"b": 1.0, "a": [18446744073709551615]})"},
      {"c.function.arguments if c.function.arguments is string else c.function.arguments | tojson",
       R"({"b": 1.0, "a": [18446744073709551615]})"},
      {"c.function.arguments | items | map('first') | join(',')", "b,a"},
      {"c.function.arguments.split(':')[0]", R"({"b")"},
  };
  for (const auto& [call, shown] : cases) {
    EXPECT_EQ(TextOf(WithCalls(call)->Render(OneCall(sent))), "<user>q<assistant>[" + shown + "]")
        << call;
  }
  const auto map = WithCalls("c.function.arguments | tojson");
  EXPECT_EQ(TextOf(map->Render(OneCall(""))), "<user>q<assistant>[{}]");
  for (const char* bad : {"{", "[1]", "1"}) {
    const auto refused = map->Render(OneCall(bad));
    ASSERT_FALSE(refused.ok());
    EXPECT_EQ(DetailOf(refused.status())->field, "messages[1].tool_calls[0].arguments_json");
  }
  EXPECT_EQ(TextOf(WithCalls("c.function.arguments")->Render(OneCall("{"))),
            "<user>q<assistant>[{]");
}

// A template may require an id of nine letters, tools, or a result after each call.
TEST(ChatForms, TheProbeFindsArgumentsInStrictTemplates) {
  const auto strict = Parsed(
      "{% if not tools %}{{ raise_exception('no tools') }}{% endif %}"
      "{% for m in messages %}{% for c in m.tool_calls or [] %}"
      "{% if c.id | length != 9 %}{{ raise_exception('bad id') }}{% endif %}"
      "{{ c.function.arguments | tojson }}{% endfor %}{% endfor %}");
  ChatInput input = OneCall(R"({"a": 1})");
  input.messages[1].tool_calls[0].id = "123456789";
  input.tools_json = "[{}]";
  EXPECT_EQ(TextOf(strict->Render(input)), R"({"a": 1})");
}

TEST(ChatForms, PartsAsAListOrJoined) {
  ChatInput input;
  input.messages = {{.role = "user", .content_parts = {"one", "two"}}};
  EXPECT_EQ(TextOf(Parsed("{% for m in messages %}{{ m.content }}{% endfor %}")->Render(input)),
            "one\ntwo");
  EXPECT_EQ(
      TextOf(Parsed("{% for m in messages %}{{ '<' + m.content }}{% endfor %}")->Render(input)),
      "<one\ntwo");
  EXPECT_EQ(
      TextOf(Parsed("{% for m in messages %}{% if m.content is string %}{{ m.content }}{% else "
                    "%}{% for p in m.content %}({{ p.text }}){% endfor %}{% endif %}{% endfor %}")
                 ->Render(input)),
      "(one)(two)");
  // The text of parts comes from a client, like content.
  input.messages[0].literal = true;
  const auto rendered = Parsed("{% for m in messages %}{{ m.content }}{% endfor %}")->Render(input);
  EXPECT_EQ(rendered->literal_spans, (std::vector<ByteSpan>{{0, 7}}));
}

TEST(ChatForms, DeveloperBecomesSystemOrIsRefused) {
  ChatInput input;
  input.messages = {{.role = "developer", .content = "rules"}, {.role = "user", .content = "q"}};
  EXPECT_EQ(TextOf(Parsed("{% for m in messages %}<{{ m.role }}>{{ m.content }}{% endfor %}")
                       ->Render(input)),
            "<system>rules<user>q");
  EXPECT_EQ(
      TextOf(Parsed("{% for m in messages %}{% if m.role in ['developer', 'user'] %}<{{ m.role "
                    "}}>{{ m.content }}{% endif %}{% endfor %}")
                 ->Render(input)),
      "<developer>rules<user>q");
  const auto only_users = Parsed(
      "{% for m in messages %}{% if m.role == 'user' %}{{ m.content }}{% endif %}{% endfor %}");
  for (const char* role : {"developer", "system", "tool"}) {
    input.messages[0].role = role;
    const auto refused = only_users->Render(input);
    ASSERT_FALSE(refused.ok()) << role;
    EXPECT_EQ(DetailOf(refused.status())->reason, "ROLE_LEFT_OUT");
    EXPECT_EQ(DetailOf(refused.status())->field, "messages[0].role");
  }
}

TEST(ChatForms, ContinueFinalMessage) {
  const auto chat = Parsed(
      "{% for m in messages %}<{{ m.role }}>{{ m.content | trim }}</s>{% endfor %}"
      "{% if add_generation_prompt %}<assistant>{% endif %}");
  ChatInput input;
  input.continue_final_message = true;
  input.messages = {{.role = "user", .content = "12", .literal = true},
                    {.role = "assistant", .content = "1  ", .literal = true}};
  const auto rendered = chat->Render(input);
  EXPECT_EQ(TextOf(rendered), "<user>12</s><assistant>1");
  EXPECT_EQ(rendered->literal_spans, (std::vector<ByteSpan>{{6, 8}, {23, 24}}));
  const auto keeps = Parsed("{% for m in messages %}{{ m.content }}</s>{% endfor %}");
  EXPECT_EQ(TextOf(keeps->Render(input)), "12</s>1  ");
  input.messages[1].content_parts = {"a", "b c"};
  EXPECT_EQ(TextOf(keeps->Render(input)), "12</s>a\nb c");
  const auto refused = [&](ChatInput bad) {
    const auto status = chat->Render(bad).status();
    return !status.ok() && DetailOf(status)->field == "continue_final_message";
  };
  ChatInput both = input;
  both.add_generation_prompt = true;
  EXPECT_TRUE(refused(both));
  ChatInput nothing = input;
  nothing.messages[1] = {.role = "assistant"};
  EXPECT_TRUE(refused(nothing));
  nothing.messages.clear();
  EXPECT_TRUE(refused(nothing));
}

TEST(ChatForms, Variables) {
  const auto chat = Parsed(
      "{{ tools is none }}{{ documents is none }}{{ bos_token is defined }}{{ thinking }}|{{ "
      "enable_thinking is defined }}{{ add_generation_prompt }}");
  ChatInput input;
  EXPECT_EQ(TextOf(chat->Render(input)), "TrueTrueFalse|FalseTrue");
  input.kwargs_json = R"({"thinking": "<t>", "documents": [], "enable_thinking": false})";
  input.kwargs_literal = true;
  const auto rendered = chat->Render(input);
  EXPECT_EQ(TextOf(rendered), "TrueFalseFalse<t>|TrueTrue");
  EXPECT_EQ(rendered->literal_spans, (std::vector<ByteSpan>{{14, 17}}));
  for (const char* bad : {"[]", "{", R"({"messages": []})", R"({"tools": []})", R"({"range": 1})",
                          R"({"add_generation_prompt": true})"}) {
    input.kwargs_json = bad;
    const auto refused = chat->Render(input);
    ASSERT_FALSE(refused.ok()) << bad;
    EXPECT_EQ(DetailOf(refused.status())->field, "chat_template_kwargs_json");
  }
  input.kwargs_json = R"({"enable_thinking": false})";
  input.enable_thinking = true;
  EXPECT_FALSE(chat->Render(input).ok());
}

class Files : public ::testing::Test {
 protected:
  Files() {
    folder_ =
        std::filesystem::path(::testing::TempDir()) / fmt::format("chat_forms_test.{}", getpid());
    std::filesystem::remove_all(folder_);
    std::filesystem::create_directories(folder_ / "additional_chat_templates");
  }
  ~Files() override { std::filesystem::remove_all(folder_); }

  void Write(const std::string& name, const std::string& text) const {
    std::ofstream(folder_ / name) << text;
  }
  // The output of the folder's template for no messages, without and with tools.
  std::string Rendered(bool tools, const std::string& file = "") const {
    const auto chat = ChatTemplate::Load(folder_.string(), file);
    if (!chat.ok()) return std::string(Message(chat.status()));
    ChatInput input;
    if (tools) input.tools_json = "[]";
    return TextOf((*chat)->Render(input));
  }

  std::filesystem::path folder_;
};

TEST_F(Files, TheFirstThatThereIs) {
  EXPECT_EQ(ChatTemplate::Load(folder_.string()).status().code(), absl::StatusCode::kNotFound);
  Write("chat_template.json", R"({"chat_template": "processor"})");
  EXPECT_EQ(Rendered(false), "processor");
  Write("tokenizer_config.json",
        R"({"bos_token": {"content": "<s>"}, "pad_token": "<p>",
      "additional_special_tokens": ["<x>", {"content": "<y>"}], "unk_token": null,
      "chat_template": [
        {"name": "default", "template": ")"
        "{{ bos_token }}{{ pad_token }}{{ unk_token is defined }}{{ eos_token is defined }}"
        R"({{ additional_special_tokens }}"},
        {"name": "tool_use", "template": "with tools"},
        {"name": "rag", "template": "{{ no( }}"}]})");
  EXPECT_EQ(Rendered(false), "<s><p>FalseFalse['<x>', '<y>']");
  EXPECT_EQ(Rendered(true), "with tools");
  Write("chat_template.jinja", "own {{ pad_token }}");
  EXPECT_EQ(Rendered(false), "own <p>");
  EXPECT_EQ(Rendered(true), "own <p>");
  Write("additional_chat_templates/tool_use.jinja", "own tools");
  EXPECT_EQ(Rendered(true), "own tools");
  Write("given", "given");
  EXPECT_EQ(Rendered(true, (folder_ / "given").string()), "given");
}

TEST_F(Files, WhatCannotBeUsedIsNamed) {
  EXPECT_EQ(Rendered(false, "/no/such/file"),
            "--chat-template /no/such/file: no such file; give a template in Jinja's language");
  Write("tokenizer_config.json", R"({"chat_template": [{"name": "rag", "template": "x"}]})");
  EXPECT_NE(Rendered(false).find("[rag] and none named 'default'"), std::string::npos);
  Write("tokenizer_config.json", R"({"chat_template": 5})");
  EXPECT_NE(Rendered(false).find("expected a template or a list"), std::string::npos);
  Write("chat_template.jinja", std::string((1 << 20) + 1, 'x'));
  EXPECT_NE(Rendered(false).find("at most 1048576"), std::string::npos);
  Write("chat_template.jinja", "x");
  Write("additional_chat_templates/tool_use.jinja", "a\n{{ x | nosuch }}");
  EXPECT_NE(Rendered(false).find("additional_chat_templates/tool_use.jinja: chat template, line 2"),
            std::string::npos);
}

}  // namespace
}  // namespace fathom
