// The answer machine: each form as its models write it, cut at every byte; text that only looks
// like a call; and random answers.
#include "text/answer_machine.h"

#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "tests/text/answer_support.h"
#include "tests/text/text_support.h"
#include "text/chat_template.h"
#include "text/template_traits.h"
#include "text/text_stream.h"

namespace fathom {
namespace {

constexpr char kCalls[] = "<｜tool▁calls▁begin｜>", kCallsEnd[] = "<｜tool▁calls▁end｜>";
constexpr char kCall[] = "<｜tool▁call▁begin｜>", kCallEnd[] = "<｜tool▁call▁end｜>";
constexpr char kSep[] = "<｜tool▁sep｜>";

const Tokenizer& TokensOf(bool tokens) {
  static const std::unique_ptr<Tokenizer> kTokens = MarkerTokenizer(true);
  static const std::unique_ptr<Tokenizer> kText = MarkerTokenizer(false);
  return tokens ? *kTokens : *kText;
}

AnswerMachineOptions OptionsOf(const std::string& form, bool tokens) {
  AnswerMachineOptions options;
  options.calls = FindToolCallForm(form, TokensOf(tokens)).value();
  options.thinking = FindThinkingForm("qwen3", TokensOf(tokens)).value();
  options.tool_names = {"get_weather", "add", "f"};
  return options;
}

struct Case {
  const char* form;
  std::string text;
  std::string events;            // If the markers are tokens.
  std::string text_events = {};  // If they are text; empty: the same.
};

std::string V3(const std::string& name, const std::string& arguments) {
  return std::string(kCall) + "function" + kSep + name + "\n```json\n" + arguments + "\n```" +
         kCallEnd;
}
std::string V31(const std::string& name, const std::string& arguments) {
  return kCall + name + kSep + arguments + kCallEnd;
}

const std::vector<Case>& Vectors() {
  const std::string object =
      R"({"city": "Zürich 🚀", "days": [1, 2.5e-3, -0], "deep": {"a": null}})";
  const std::string escaped = R"({"text": "a \"quoted\" </tool_call> \\ \u00e9 ```"})";
  const std::string quoted = R"({"text": "a \"quoted\" <b> \\ \u00e9 ```"})";
  static const std::vector<Case> kVectors = {
      // DeepSeek V3 and R1.
      {"deepseek_v3", kCalls + V3("get_weather", object) + kCallsEnd,
       "get_weather#0(" + object + ")! "},
      {"deepseek_v3",
       "<think>so</think>I look.\n\n" + (kCalls + V3("f", "{}")) + "\n" +
           V3("add", R"({"a": 1, "b": 2})") + kCallsEnd + "\n",
       "think(so) text(I look.\n\n) f#0({})! add#1({\"a\": 1, \"b\": 2})! "},
      {"deepseek_v3", "\n\n" + (kCalls + V3("f", escaped)) + kCallsEnd, "f#0(" + escaped + ")! "},
      {"deepseek_v3", kCalls + V3("f", "{\n  \"a\": 1\n}\n") + kCallsEnd,
       "f#0({\n  \"a\": 1\n}\n)! "},
      {"deepseek_v3", kCalls + V3("unknown", "{}") + kCallsEnd,
       "text(" + (kCalls + V3("unknown", "{}")) + kCallsEnd + ") "},
      {"deepseek_v3", std::string(kCalls) + kCall + "f" + kSep + "{}" + kCallEnd,
       "text(" + std::string(kCalls) + kCall + "f" + kSep + "{}" + kCallEnd + ") "},
      {"deepseek_v3", std::string(kCalls) + kCall + "function" + kSep + "f\n```json\n{\"a\": 1",
       "f#0({\"a\": 1)? ",
       "text(" + std::string(kCalls) + kCall + "function" + kSep + "f\n```json\n{\"a\": 1) "},
      // DeepSeek V3.1 and the bundled model.
      {"deepseek_v31", kCalls + V31("get_weather", object) + kCallsEnd,
       "get_weather#0(" + object + ")! "},
      {"deepseek_v31",
       "</think>no. " + (kCalls + V31("f", escaped)) + V31("add", "{}") + kCallsEnd + " yes",
       "text(</think>no. ) f#0(" + escaped + ")! add#1({})! text( yes) "},
      {"deepseek_v31", std::string(kCalls) + kCallsEnd + "nothing",
       "text(" + std::string(kCalls) + kCallsEnd + "nothing) "},
      {"deepseek_v31", kCalls + V31("f", "no") + V31("f", "{}") + kCallsEnd,
       "text(" + (kCalls + V31("f", "no")) + ") f#0({})! "},
      {"deepseek_v31", kCalls + V31("f", "{\"a\" 1}") + kCallsEnd,  // A mistake after its begin.
       "f#0({\"a\" 1})? ", "text(" + (kCalls + V31("f", "{\"a\" 1}")) + kCallsEnd + ") "},
      {"deepseek_v31", "The tool f: " + std::string(kCall) + "f",
       "text(The tool f: " + std::string(kCall) + "f) "},
      // Qwen and Hermes.
      {"hermes",
       "<think>\nHm.\n</think>\n\n<tool_call>\n{\"name\": \"get_weather\", "
       "\"arguments\": " +
           object + "}\n</tool_call>",
       "think(\nHm.\n) get_weather#0(" + object + ")! "},
      {"hermes",
       "Both:\n<tool_call>\n{\"name\": \"f\", \"arguments\": {}}\n</tool_call>\n"
       "<tool_call>\n{\"name\": \"add\", \"arguments\": " +
           quoted + "}\n</tool_call>\n",
       "text(Both:\n) f#0({})! add#1(" + quoted + ")! "},
      // A marker that is a token ends the call wherever it is.
      {"hermes",
       "<tool_call>{\"name\": \"f\", \"arguments\": {\"a\": \"</tool_call>\"}}</tool_call>",
       "f#0({\"a\": \")? text(\"}}</tool_call>) ", "f#0({\"a\": \"</tool_call>\"})! "},
      {"hermes", "<tool_call>{\"arguments\": {\"a\": 1}, \"name\": \"add\"}</tool_call>done",
       "add#0({\"a\": 1})! text(done) "},
      {"hermes", "<tool_call>{\"name\": \"nobody\", \"arguments\": {}}</tool_call>",
       "text(<tool_call>{\"name\": \"nobody\", \"arguments\": {}}</tool_call>) "},
      {"hermes", "<tool_call>{\"name\": \"f\", \"arguments\": \"{}\"}</tool_call>",
       "text(<tool_call>{\"name\": \"f\", \"arguments\": \"{}\"}</tool_call>) "},
      {"hermes", "<tool_call>\n{\"name\": \"f\"}\n</tool_call>",
       "text(<tool_call>\n{\"name\": \"f\"}\n</tool_call>) "},
      {"hermes",
       "<tool_call>not JSON</tool_call>\n<tool_call>{\"name\": \"f\", \"arguments\": "
       "{}}</tool_call>",
       "text(<tool_call>not JSON</tool_call>\n) f#0({})! "},
      {"hermes", "<tool_call>{\"name\": \"f\", \"arguments\": {\"a\": ", "f#0({\"a\": )? ",
       "text(<tool_call>{\"name\": \"f\", \"arguments\": {\"a\": ) "},
      {"hermes", "a < b, <tool, <tool_cal, </tool_call> and {\"name\": \"f\", \"arguments\": {}}",
       "text(a < b, <tool, <tool_cal, </tool_call> and {\"name\": \"f\", \"arguments\": {}}) "},
      // Llama 3.1.
      {"llama3_json", "{\"name\": \"get_weather\", \"parameters\": " + object + "}",
       "get_weather#0(" + object + ")! "},
      {"llama3_json", "<|python_tag|>{\"type\": \"function\", \"name\": \"f\", \"parameters\": {}}",
       "f#0({})! "},
      {"llama3_json",
       "\n{\"name\": \"f\", \"parameters\": {}}; {\"name\": \"add\", "
       "\"parameters\": {\"a\": 1}}\n",
       "f#0({})! add#1({\"a\": 1})! "},
      {"llama3_json", "{\"name\": \"f\", \"parameters\": {}} is a call",
       "text({\"name\": \"f\", \"parameters\": {}} is a call) "},
      {"llama3_json", "{\"name\": \"f\", \"age\": 3}", "text({\"name\": \"f\", \"age\": 3}) "},
      {"llama3_json", "{\"name\": \"Ada\", \"parameters\": {}}",
       "text({\"name\": \"Ada\", \"parameters\": {}}) "},
      {"llama3_json", "So: {\"name\": \"f\", \"parameters\": {}}",
       "text(So: {\"name\": \"f\", \"parameters\": {}}) "},
      {"llama3_json", "<|python_tag|>print(1)", "text(<|python_tag|>print(1)) "},
      {"llama3_json", "{\"name\": \"f\", \"parameters\": {",
       "text({\"name\": \"f\", \"parameters\": {) "},
      {"llama3_json", " \n", "text( \n) "}};
  return kVectors;
}

TEST(AnswerMachine, EveryVectorAtEverySplit) {
  for (const Case& vector : Vectors()) {
    for (const bool tokens : {true, false}) {
      const Tokenizer& tokenizer = TokensOf(tokens);
      const AnswerMachineOptions options = OptionsOf(vector.form, tokens);
      const std::string& expected =
          tokens || vector.text_events.empty() ? vector.events : vector.text_events;
      SCOPED_TRACE(std::string(vector.form) + (tokens ? " tokens " : " text ") + vector.text);
      const auto run = [&](size_t cut) {
        return AllEvents(tokenizer, options, TokensCutAt(tokenizer, vector.text, cut));
      };
      const std::vector<AnswerEvent> bytes = run(std::string::npos);
      ASSERT_EQ(ToText(bytes), expected);
      for (size_t cut = 0; cut <= vector.text.size(); ++cut) {
        ASSERT_EQ(run(cut), bytes) << "cut at " << cut << ": " << ToText(run(cut));
      }
      AnswerMachineOptions plain = options;
      plain.calls.reset();
      const auto whole = AllEvents(tokenizer, plain, TokensCutAt(tokenizer, vector.text, 0));
      ASSERT_EQ(Wrong(bytes, whole, options), "");
    }
  }
}

// The ends of each vector: what was given before is never taken back.
TEST(AnswerMachine, AnAnswerMayEndAnywhere) {
  for (const Case& vector : Vectors()) {
    const Tokenizer& tokenizer = TokensOf(true);
    const AnswerMachineOptions options = OptionsOf(vector.form, true);
    AnswerMachineOptions plain = options;
    plain.calls.reset();
    const std::vector<TokenId> ids = TokensCutAt(tokenizer, vector.text, std::string::npos);
    for (size_t n = 0; n <= ids.size(); ++n) {
      const auto part = std::span(ids).first(n);
      ASSERT_EQ(
          Wrong(AllEvents(tokenizer, options, part), AllEvents(tokenizer, plain, part), options),
          "")
          << vector.text << " " << n;
    }
  }
}

TEST(AnswerMachine, RandomAnswers) {
  Random random(TestSeed());
  const std::vector<std::string> pieces = {"{\"name\": \"f\", ",
                                           "\"arguments\": {",
                                           "\"parameters\": {",
                                           "}",
                                           "}}",
                                           "{",
                                           "{}",
                                           "\"",
                                           ";",
                                           "function",
                                           "f",
                                           "add",
                                           "\n```json\n",
                                           "\n```",
                                           "```",
                                           "\n",
                                           " ",
                                           "text",
                                           "é",
                                           "🚀",
                                           "\\",
                                           "<",
                                           "[1, 2]",
                                           "\"a\": 1",
                                           ",",
                                           "<think",
                                           "<tool_call"};
  int calls = 0;
  for (int i = 0; i < 4000; ++i) {
    const bool tokens = random() % 2 == 0;
    const Case& vector = Vectors()[random() % Vectors().size()];
    AnswerMachineOptions options = OptionsOf(vector.form, tokens);
    options.prompt_opens_thinking = random() % 4 == 0;
    options.thinking->from_start = random() % 8 == 0;
    options.may_hold = random() % 4 != 0;
    if (random() % 8 == 0) options.calls_max = 1;
    std::string text = random() % 4 != 0 ? vector.text : "";
    for (uint64_t left = text.empty() ? random() % 12 : random() % 4; left > 0; --left) {
      const std::string& piece = random() % 2 == 0 ? pieces[random() % pieces.size()]
                                                   : AllMarkers()[random() % AllMarkers().size()];
      size_t at = random() % (text.size() + 1);
      while (at > 0 && at < text.size() && (static_cast<uint8_t>(text[at]) & 0xC0) == 0x80) --at;
      text.insert(at, piece);
    }
    const Tokenizer& tokenizer = TokensOf(tokens);
    const auto ids = TokensCutAt(tokenizer, text, random() % (text.size() + 1));
    const auto events = AllEvents(tokenizer, options, ids);
    const auto bytes =
        AllEvents(tokenizer, options, TokensCutAt(tokenizer, text, std::string::npos));
    ASSERT_EQ(events, bytes) << text << "\n" << ToText(events) << "\n" << ToText(bytes);
    AnswerMachineOptions plain = options;
    plain.calls.reset();
    ASSERT_EQ(Wrong(events, AllEvents(tokenizer, plain, ids), options), "") << text << "\n"
                                                                            << ToText(events);
    for (const AnswerEvent& event : events) calls += event.kind == AnswerEvent::Kind::kCallEnd;
  }
  EXPECT_GT(calls, 500);
}

// Text that spells a marker which the tokenizer has is text.
TEST(AnswerMachine, SpelledMarkersAreText) {
  const Tokenizer& tokenizer = TokensOf(true);
  const std::string text =
      "<think>so</think><tool_call>{\"name\": \"f\", \"arguments\": {}}</tool_call>";
  std::vector<TokenId> ids;
  AppendByteTokens(tokenizer, text, &ids);
  EXPECT_EQ(ToText(AllEvents(tokenizer, OptionsOf("hermes", true), ids)), "text(" + text + ") ");
}

TEST(AnswerMachine, LaterCallsAreLeftOut) {
  AnswerMachineOptions options = OptionsOf("deepseek_v31", true);
  options.calls_max = 1;
  const std::string text = kCalls + V31("f", "{}") + V31("add", "{}") + kCallsEnd + "end";
  EXPECT_EQ(ToText(AllEvents(TokensOf(true), options, TokensCutAt(TokensOf(true), text, 0))),
            "f#0({})! text(end) ");
}

// The name is known before the arguments end, and the arguments come as they are made.
TEST(AnswerMachine, ArgumentsStream) {
  for (const char* form : {"deepseek_v3", "deepseek_v31", "hermes"}) {
    const std::string begin =
        std::string(form) == "hermes" ? "<tool_call>\n{\"name\": \"f\", \"arguments\": {\"a\": \"x"
        : std::string(form) == "deepseek_v3"
            ? std::string(kCalls) + kCall + "function" + kSep + "f\n```json\n{\"a\": \"x"
            : std::string(kCalls) + kCall + "f" + kSep + "{\"a\": \"x";
    AnswerMachine machine(&TokensOf(true), OptionsOf(form, true));
    std::vector<AnswerEvent> events;
    for (const TokenId id : TokensCutAt(TokensOf(true), begin, 0)) machine.Append(id, &events);
    ASSERT_EQ(events.size(), 2u) << form;
    EXPECT_EQ(events[0].text, "f");
    EXPECT_EQ(events[1].text, "{\"a\": \"x");
    events.clear();
    std::vector<TokenId> more;
    AppendByteTokens(TokensOf(true), "y", &more);
    machine.Append(more[0], &events);
    ASSERT_EQ(events.size(), 1u) << form;
    EXPECT_EQ(events[0].text, "y");
  }
}

TEST(AnswerMachine, ReasoningFromTheStart) {
  AnswerMachineOptions options;
  options.thinking = FindThinkingForm("deepseek_r1", TokensOf(true)).value();
  const auto run = [&](const std::string& text) {
    return ToText(AllEvents(TokensOf(true), options, TokensCutAt(TokensOf(true), text, 0)));
  };
  EXPECT_EQ(run("so</think>yes"), "think(so) text(yes) ");
  EXPECT_EQ(run("<think>so</think>yes"), "think(so) text(yes) ");
  EXPECT_EQ(run("so"), "think(so) ");
}

TEST(ToolCallForm, NamesAndAliases) {
  const Tokenizer& tokenizer = TokensOf(true);
  EXPECT_EQ(FindToolCallForm("deepseek_r1", tokenizer)->name, "deepseek_v3");
  EXPECT_EQ(FindToolCallForm("qwen3", tokenizer)->name, "hermes");
  const absl::Status unknown = FindToolCallForm("mistral", tokenizer).status();
  for (const char* name : {"mistral", "deepseek_v3", "deepseek_v31", "hermes", "llama3_json"}) {
    EXPECT_NE(unknown.message().find(name), std::string_view::npos) << ToString(unknown);
  }
  EXPECT_FALSE(FindThinkingForm("mistral", tokenizer).ok());
}

// The form follows from what a template makes of a call.
TEST(ToolCallForm, DetectedFromTemplates) {
  const auto form_of = [&](const ChatTemplate& chat_template) -> std::string {
    const auto form =
        DetectToolCallForm(chat_template.ToolCallSample(), kProbeTool, TokensOf(true));
    return form ? form->name : "none";
  };
  EXPECT_EQ(form_of(**ChatTemplate::Load(TinyModel().string())), "deepseek_v31");
  const auto parsed = [&](const std::string& source) {
    return form_of(**ChatTemplate::Parse(source, "test"));
  };
  EXPECT_EQ(parsed("{% for m in messages %}{{ m.role }}: {{ m.content }}{% endfor %}"), "none");
  EXPECT_EQ(
      parsed("{% for m in messages %}{% for c in m.tool_calls or [] %}{{ '<tool_call>\\n{\"name\": "
             "\"' + c.function.name + '\", \"arguments\": ' }}{{ c.function.arguments | tojson "
             "}}{{ '}\\n</tool_call>' }}{% endfor %}{% endfor %}"),
      "hermes");
  EXPECT_EQ(
      parsed("{% for m in messages %}{% for c in m.tool_calls or [] %}{{ '{\"name\": \"' + "
             "c.function.name + '\", \"parameters\": ' }}{{ c.function.arguments | tojson }}{{ "
             "'}' }}{% endfor %}{% endfor %}"),
      "llama3_json");
  EXPECT_EQ(
      parsed("{% for m in messages %}{% for c in m.tool_calls or [] %}{{ "
             "'<｜tool▁call▁begin｜>function<｜tool▁sep｜>' + c.function.name + '\\n```json\\n' + "
             "c.function.arguments + '\\n```<｜tool▁call▁end｜>' }}{% endfor %}{% endfor %}"),
      "deepseek_v3");
}

// The published templates beside the project, if they are there.
TEST(ToolCallForm, DetectedFromPublishedTemplates) {
  const auto folder = PublishedTokenizers();
  if (!std::filesystem::exists(folder / "chat")) return;
  const auto form_of = [&](const std::string& file) {
    std::ifstream in(folder / "chat" / file);
    const std::string source((std::istreambuf_iterator<char>(in)), {});
    const auto form = DetectToolCallForm((*ChatTemplate::Parse(source, file))->ToolCallSample(),
                                         kProbeTool, TokensOf(true));
    return form ? form->name : "none";
  };
  EXPECT_EQ(form_of("deepseek-v3.jinja"), "deepseek_v3");
  EXPECT_EQ(form_of("deepseek-r1-distill.jinja"), "deepseek_v3");
  EXPECT_EQ(form_of("deepseek-v3.1.jinja"), "deepseek_v31");
  EXPECT_EQ(form_of("deepseek-llm-chat.jinja"), "none");
  const auto qwen = ChatTemplate::Load((folder / "qwen3").string());
  ASSERT_TRUE(qwen.ok());
  EXPECT_EQ(DetectToolCallForm((*qwen)->ToolCallSample(), kProbeTool, TokensOf(true))->name,
            "hermes");
}

TEST(TextStreamCalls, StopStringsAreOfTheContent) {
  const Tokenizer& tokenizer = TokensOf(true);
  TextStreamOptions options{.stop_strings = {"stop"}};
  options.calls = FindToolCallForm("deepseek_v31", tokenizer).value();
  options.tool_names = {"f"};
  const std::string text =
      "go " + (kCalls + V31("f", "{\"a\": \"stop\"}")) + kCallsEnd + "then stop here";
  TextStream stream(&tokenizer, options);
  TextDelta delta;
  stream.Append(TokensCutAt(tokenizer, text, 0), &delta);
  stream.Finish(&delta);
  EXPECT_EQ(delta.text, "go then ");
  ASSERT_EQ(delta.calls.size(), 1u);
  EXPECT_EQ(delta.calls[0], (ToolCallDelta{.name = "f",
                                           .arguments = "{\"a\": \"stop\"}",
                                           .end = true,
                                           .whole = true,
                                           .text_before = 3}));
  EXPECT_TRUE(stream.stop().has_value());
}

}  // namespace
}  // namespace fathom
