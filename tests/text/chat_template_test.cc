#include "text/chat_template.h"

#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>

namespace fathom {
namespace {

using Json = nlohmann::ordered_json;
const std::string kRoot = FATHOM_SOURCE_DIR;

std::vector<Json> Lines(const std::string& path) {
  std::vector<Json> rows;
  std::ifstream file(path);
  for (std::string line; std::getline(file, line);) rows.push_back(Json::parse(line));
  return rows;
}

absl::StatusOr<std::string> RenderSource(const std::string& source,
                                         const std::string& messages_json, const ChatInput& rest) {
  FATHOM_ASSIGN_OR_RETURN(const auto parsed, ChatTemplate::Parse(source, "test"));
  return parsed->RenderJson(messages_json, rest);
}

// Every snippet gives the result of Python's Jinja, and fails where Python's Jinja fails.
TEST(ChatTemplate, SnippetsAsPythonRendersThem) {
  const auto rows = Lines(kRoot + "/tests/data/chat/vectors.jsonl");
  ASSERT_GT(rows.size(), 80u);
  for (const Json& row : rows) {
    const auto text = RenderSource(row["source"], row["messages"].dump(), {});
    if (row.contains("error")) {
      EXPECT_FALSE(text.ok()) << row["source"] << " gave " << *text << ", Python " << row["error"];
    } else {
      EXPECT_EQ(text.value_or(ToString(text.status())), row["text"].get<std::string>())
          << row["source"];
    }
  }
}

// Published templates, if copies of them are available.
TEST(ChatTemplate, PublishedTemplates) {
  const std::string folder = kRoot + "/../shared/tokenizers/chat/";
  if (!std::filesystem::exists(folder + "vectors.jsonl")) {
    GTEST_LOG_(INFO)
        << "the published templates are not on this machine; the snippets above cover the language";
    return;
  }
  for (const Json& row : Lines(folder + "vectors.jsonl")) {
    std::ifstream file(folder + row["template"].get<std::string>());
    const std::string source(std::istreambuf_iterator<char>(file), {});
    ChatInput rest;
    rest.bos_token = row["bos"];
    rest.eos_token = row["eos"];
    rest.add_generation_prompt = row["add_generation_prompt"];
    rest.kwargs_json = row["options"].dump();
    const auto text = RenderSource(source, row["messages"].dump(), rest);
    if (!row["error"].is_null()) {
      EXPECT_FALSE(text.ok()) << row;
    } else {
      ASSERT_TRUE(text.ok()) << row << ToString(text.status());
      EXPECT_EQ(*text, row["text"].get<std::string>()) << row;
    }
  }
}

// The bundled model's template with structured messages gives the prompts of the recorded goldens.
TEST(ChatTemplate, BundledModelsGoldens) {
  const auto chat = ChatTemplate::Load(kRoot + "/models/fathom-tiny");
  ASSERT_TRUE(chat.ok()) << ToString(chat.status());
  int compared = 0;
  for (const Json& row : Lines(kRoot + "/tests/data/goldens/fathom-tiny.jsonl")) {
    if (!row.contains("messages") || row["messages"].is_null()) continue;
    ChatInput input;
    input.bos_token = "<｜begin▁of▁sentence｜>";
    input.eos_token = "<｜end▁of▁sentence｜>";
    if (row.contains("enable_thinking")) input.enable_thinking = row["enable_thinking"].get<bool>();
    if (row.contains("tools")) input.tools_json = row["tools"].dump();
    const auto text = (*chat)->RenderJson(row["messages"].dump(), input);
    ASSERT_TRUE(text.ok()) << ToString(text.status());
    EXPECT_EQ(*text, row["rendered"].get<std::string>());
    ++compared;
  }
  EXPECT_GE(compared, 15);
}

TEST(ChatTemplate, StructuredMessagesAreTheJsonOnes) {
  const auto chat = ChatTemplate::Parse(
      "{% for m in messages %}{{ m | tojson }}\n{% endfor %}{{ tools | tojson }}{{ enable_thinking "
      "}}",
      "test");
  ASSERT_TRUE(chat.ok());
  ChatInput input;
  input.messages = {{.role = "user", .content = "Hi"},
                    {.role = "assistant", .tool_calls = {{"call_1", "f", "{\"b\": 1, \"a\": 2}"}}},
                    {.role = "tool", .content = "3", .tool_call_id = "call_1"}};
  input.tools_json = R"([{"z": 1, "a": {"y": 2, "b": 3}}])";
  input.enable_thinking = true;
  EXPECT_EQ((*chat)->Render(input)->text,
            R"({"role": "user", "content": "Hi"})"
            "\n"
            R"({"role": "assistant", "content": null, "tool_calls": [{"id": "call_1", )"
            R"("type": "function", )"
            R"("function": {"name": "f", "arguments": {"b": 1, "a": 2}}}]})"
            "\n"
            R"({"role": "tool", "content": "3", "tool_call_id": "call_1"})"
            "\n"
            R"([{"z": 1, "a": {"y": 2, "b": 3}}]True)");
}

TEST(ChatTemplate, NullContentIsTheEmptyText) {
  const auto chat = ChatTemplate::Parse(
      "{% for m in messages %}[{{ m.content }}|{{ m.content is none }}]{% endfor %}", "test");
  ASSERT_TRUE(chat.ok());
  ChatInput input;
  input.messages = {{.role = "user"}, {.role = "assistant", .tool_calls = {{"call_1", "f", "{}"}}}};
  EXPECT_EQ((*chat)->Render(input)->text, "[|False][None|True]");  // Templates ask for calls' none.
}

TEST(ChatTemplate, ErrorsOfARequestNameTheFileAndNotTheFolder) {
  const auto chat =
      ChatTemplate::Parse("{{ raise_exception('no') }}", "/srv/models/x/chat_template.jinja");
  ASSERT_TRUE(chat.ok());
  const std::string message(Message((*chat)->Render({}).status()));
  EXPECT_NE(message.find("chat_template.jinja: chat template"), std::string::npos) << message;
  EXPECT_EQ(message.find("/srv"), std::string::npos) << message;
}

// Hostile templates and messages end quickly with an error that names the limit, and without a
// crash.
TEST(ChatTemplate, LimitsHold) {
  const std::string deep_brackets =
      "{{ " + std::string(100'000, '(') + "1" + std::string(100'000, ')') + " }}";
  std::string deep_ifs;
  for (int i = 0; i < 10'000; ++i) deep_ifs += "{% if 1 %}";
  const std::pair<std::string, const char*> cases[] = {
      {"{% for i in range(99999) %}{% for j in range(99999) %}x{% endfor %}{% endfor %}", "steps"},
      {"{% set ns = namespace(s='0123456789') %}{% for i in range(99) %}{% set ns.s = ns.s + ns.s "
       "%}{% endfor %}",
       "too long"},
      {"{{ 'x' * 999999999 }}", "too long"},
      {"{% for i in range(999999999) %}{% endfor %}", "more than 100000 items"},
      {"{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}", "nested deeper"},
      {"{% for i in range(99999) %}" + std::string(200, 'x') + "{% endfor %}", "longer than"},
      {deep_brackets, "nested deeper"},
      {deep_ifs, "nested deeper"},
  };
  for (const auto& [source, says] : cases) {
    const auto text = RenderSource(source, "[]", {});
    ASSERT_FALSE(text.ok()) << source.substr(0, 80);
    EXPECT_NE(Message(text.status()).find(says), std::string_view::npos) << ToString(text.status());
  }
  const std::string deep_json = std::string(100'000, '[') + std::string(100'000, ']');
  EXPECT_EQ(RenderSource("x", deep_json, {}).status().code(), absl::StatusCode::kInvalidArgument);
  ChatInput bad_tools;
  bad_tools.tools_json = "{";
  const auto refused = RenderSource("x", "[]", bad_tools);
  EXPECT_EQ(DetailOf(refused.status())->field, "tools_json");
  EXPECT_EQ(Message(refused.status()).find("array"), std::string_view::npos)
      << ToString(refused.status());
}

// The names in a template and their arguments are checked before anything is rendered, also in
// branches that no conversation reaches.
TEST(ChatTemplate, WhatIsNotThereIsRefusedAtStartWithItsLine) {
  const std::pair<const char*, const char*> cases[] = {
      {"{{ x | nosuch }}", "the filter 'nosuch' is not supported in chat templates"},
      {"{{ x is nosuch }}", "the test 'nosuch' is not supported in chat templates"},
      {"{{ x.nosuch(1) }}", "the method 'nosuch' is not supported in chat templates"},
      {"{{ x.append(1) }}", "the method 'append' would change its object"},
      {"{{ nosuch(1) }}", "the function 'nosuch' is not supported in chat templates"},
      {"{{ x | map('nosuch') }}", "the filter 'nosuch' is not supported in chat templates"},
      {"{{ x | select('nosuch') }}", "the test 'nosuch' is not supported in chat templates"},
      {"{{ x | selectattr('a', 'eq') }}", "the test 'eq' has no value for its argument 'other'"},
      {"{{ x | tojson(sortkeys=true) }}",
       "the filter 'tojson' has no argument named 'sortkeys'; it takes ensure_ascii, indent, "
       "separators, sort_keys"},
      {"{{ x | upper(1) }}", "the filter 'upper' takes at most 0 arguments (none)"},
      {"{{ x | replace('a') }}", "the filter 'replace' has no value for its argument 'new'"},
      {"{{ x | join('a', d='b') }}", "the filter 'join' has two values for its argument 'd'"},
      {"{{ x.strip(chars='a') }}", "none of them by name"},
      {"{{ x is divisibleby }}", "the test 'divisibleby' has no value for its argument 'num'"},
      {"{{ range(1, 2, 3, 4) }}", "the function 'range' takes at most 3 arguments"},
      {"{% macro m(a) %}{% endmacro %}{{ m(1, 2) }}", "the macro 'm' takes at most 1 arguments"},
      {"{% macro m(a) %}{% endmacro %}{{ m(b=1) }}", "the macro 'm' has no argument named 'b'"},
      {"{% macro m() %}{% endmacro %}{% call m() %}{% endcall %}", "named 'caller'"},
      {"{% break %}", "'break' stands in no loop"},
      {"\xE4", "byte 0xE4 is not UTF-8; save the template as UTF-8"},
  };
  for (const auto& [source, says] : cases) {
    const auto parsed =
        ChatTemplate::Parse(fmt::format("a\n{{% if false %}}\n{}{{% endif %}}", source), "file");
    ASSERT_FALSE(parsed.ok()) << source;
    const std::string message(Message(parsed.status()));
    EXPECT_TRUE(message.starts_with("file: chat template, line 3: ")) << message;
    EXPECT_NE(message.find(says), std::string::npos) << message;
  }
  // Names that a template defines itself may be anything.
  for (const char* source :
       {"{% macro f() %}1{% endmacro %}{% set ns = namespace(run=f) %}{{ ns.run() }}",
        "{% macro f() %}1{% endmacro %}{{ {'run': f}.run() }}",
        "{% macro f() %}1{% endmacro %}{% for g in [f] %}{{ g() }}{% endfor %}"}) {
    EXPECT_EQ(RenderSource(source, "[]", {}).value_or("refused"), "1") << source;
  }
}

// Values that take little memory but whose printing would never end.
TEST(ChatTemplate, AValueThatHoldsItselfTwiceManyTimesIsRefused) {
  for (const char* twice : {"[ns.x, ns.x]", "(ns.x, ns.x)", "{'a': ns.x, 'b': ns.x}"}) {
    const auto text =
        RenderSource(fmt::format("{{% set ns = namespace(x=1) %}}{{% for i in range(60) %}}"
                                 "{{% set ns.x = {} %}}{{% endfor %}}{{{{ ns.x | tojson }}}}",
                                 twice),
                     "[]", {});
    ASSERT_FALSE(text.ok());
    EXPECT_NE(Message(text.status()).find("holds more than"), std::string_view::npos);
  }
}

// Integers of any size keep their digits; entries of large maps are found in constant time.
TEST(ChatTemplate, JsonKeepsDigitsOrderAndTheLastOfEqualKeys) {
  ChatInput input;
  input.tools_json = R"([{"a": 18446744073709551615, "b": -99999999999999999999999, "c": 1.0, )"
                     R"("a": 2, "d": 9223372036854775807}])";
  const auto chat = ChatTemplate::Parse(
      "{{ tools | tojson }}{{ tools }}{{ tools[0].b < 0 }}{{ tools[0].b is integer }}{{ "
      "tools[0].b }}",
      "test");
  ASSERT_TRUE(chat.ok());
  EXPECT_EQ((*chat)->Render(input)->text,
            R"([{"a": 2, "b": -99999999999999999999999, "c": 1.0, "d": 9223372036854775807}])"
            "[{'a': 2, 'b': -99999999999999999999999, 'c': 1.0, 'd': 9223372036854775807}]"
            "TrueTrue-99999999999999999999999");
  input.tools_json = R"([18446744073709551615])";
  EXPECT_EQ((*chat)->Render(input).ok(), false);  // A number has no entry `b`.
}

TEST(ChatTemplate, AnUnsupportedStatementIsNamedWithItsLine) {
  const auto parsed = ChatTemplate::Parse("a\n{% include 'x' %}", "model/chat_template.jinja");
  EXPECT_EQ(Message(parsed.status()),
            "model/chat_template.jinja: chat template, line 2: the statement 'include' is not "
            "supported in chat templates");
}

}  // namespace
}  // namespace fathom
