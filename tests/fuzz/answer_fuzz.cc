// Answers of models: the events of the answer machine do not depend on how a text was cut into
// tokens, and tests/text/answer_support.h says what else must hold. The first bytes of an input
// choose the form and the options, the rest is the answer.
#include <string>
#include <string_view>

#include "common/check.h"
#include "common/utf8.h"
#include "tests/fuzz/fuzz.h"
#include "tests/text/answer_support.h"

namespace fathom {
namespace {

const Tokenizer& TheAnswerTokenizer(bool tokens) {
  static const std::unique_ptr<Tokenizer> kTokens = MarkerTokenizer(true);
  static const std::unique_ptr<Tokenizer> kText = MarkerTokenizer(false);
  return tokens ? *kTokens : *kText;
}

AnswerMachineOptions AnswerOptionsOf(uint8_t choice, const Tokenizer& tokenizer) {
  static const char* const kForms[] = {"deepseek_v3", "deepseek_v31", "hermes", "llama3_json"};
  AnswerMachineOptions options;
  options.calls = FindToolCallForm(kForms[choice & 3], tokenizer).value();
  options.thinking =
      FindThinkingForm((choice & 4) != 0 ? "deepseek_r1" : "qwen3", tokenizer).value();
  options.prompt_opens_thinking = (choice & 8) != 0;
  options.may_hold = (choice & 16) == 0;
  if ((choice & 32) != 0) options.calls_max = 1;
  options.tool_names = {"get_weather", "f"};
  return options;
}

void FuzzAnswer(std::string_view input) {
  if (input.size() < 2) return;
  const auto choice = static_cast<uint8_t>(input[0]), at = static_cast<uint8_t>(input[1]);
  input.remove_prefix(2);
  if (input.size() > 4096 || FirstInvalidUtf8(input) != std::string_view::npos) return;
  const Tokenizer& tokenizer = TheAnswerTokenizer((choice & 64) != 0);
  const AnswerMachineOptions options = AnswerOptionsOf(choice, tokenizer);
  const auto bytes =
      AllEvents(tokenizer, options, TokensCutAt(tokenizer, input, std::string_view::npos));
  const std::vector<TokenId> ids = TokensCutAt(tokenizer, input, input.size() * at / 256);
  const auto events = AllEvents(tokenizer, options, ids);
  FATHOM_CHECK(events == bytes, "{} and {}", ToText(events), ToText(bytes));
  AnswerMachineOptions plain = options;
  plain.calls.reset();
  const std::string wrong = Wrong(events, AllEvents(tokenizer, plain, ids), options);
  FATHOM_CHECK(wrong.empty(), "{}: {}", wrong, ToText(events));
}

}  // namespace
}  // namespace fathom

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  fathom::FuzzAnswer({reinterpret_cast<const char*>(data), size});
  return 0;
}

std::vector<std::string> FuzzSeeds() {
  std::vector<std::string> seeds;
  // Parentheses: each answer is one text of several literals.
  const char* const answers[] = {
      ("<think>so</"
       "think><｜tool▁calls▁begin｜><｜tool▁call▁begin｜>function<｜tool▁sep｜>get_weather\n"
       "```json\n{\"city\": \"Z\\u00fcrich\", \"n\": [1, 2.5e-3]}\n```<｜tool▁call▁end｜>"
       "<｜tool▁calls▁end｜>"),
      ("One.\n<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>f<｜tool▁sep｜>{\"a\": "
       "{}}<｜tool▁call▁end｜>"
       "<｜tool▁call▁begin｜>f<｜tool▁sep｜>{}<｜tool▁call▁end｜><｜tool▁calls▁end｜>"),
      ("<think>\nHm\n</think>\n\n<tool_call>\n{\"name\": \"f\", \"arguments\": {\"a\": "
       "\"</tool_call>\"}}\n</tool_call>\n<tool_call>\n{\"arguments\": {}, \"name\": \"f\"}\n"
       "</tool_call>"),
      ("<|python_tag|>{\"type\": \"function\", \"name\": \"f\", \"parameters\": {\"x\": true}}; "
       "{\"name\": \"f\", \"parameters\": {}}")};
  for (uint8_t form = 0; form < 4; ++form) {
    for (const uint8_t mode : {0, 64}) {
      const std::string begin = {static_cast<char>(form | mode), 'A'};
      seeds.push_back(begin + answers[form]);
    }
  }
  return seeds;
}
