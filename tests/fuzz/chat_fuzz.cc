// Chat messages and tools of a client, with the bundled model's template and some templates that
// use every field. A refusal is a Status. A rendered text is UTF-8, has its literal bytes in order,
// and is encoded without a special token that the template did not write.
#include <algorithm>
#include <memory>

#include "common/check.h"
#include "common/utf8.h"
#include "tests/fuzz/fuzz.h"
#include "text/chat_template.h"
#include "text/tokenizer.h"

namespace fathom {
namespace {

const std::string kModel = FATHOM_SOURCE_DIR "/models/fathom-tiny";

const Tokenizer& TheTokenizer() {
  static const std::unique_ptr<Tokenizer> tokenizer = [] {
    auto loaded = Tokenizer::Load(kModel);
    FATHOM_CHECK(loaded.ok(), "{}", ToString(loaded.status()));
    return *std::move(loaded);
  }();
  return *tokenizer;
}

std::vector<std::unique_ptr<const ChatTemplate>> Templates() {
  std::vector<std::unique_ptr<const ChatTemplate>> templates;
  templates.push_back(*ChatTemplate::Load(kModel));
  for (const char* source :
       {"{% for m in messages %}{{ m }}{{ m | tojson }}{{ m.content | trim | upper }}{% endfor %}"
        "{{ tools }}",
        "{% for t in tools %}{{ t.function.name }}{{ t | tojson(indent=2) }}{% for k, v in "
        "t.items() "
        "%}{{ k ~ v }}{% endfor %}{% endfor %}{{ messages[0].content[::-1] }}",
        "{{ messages | map(attribute='content') | join('|') }}{{ messages[-1].content.split('<') }}"
        "{{ tools | length }}{{ messages[0].content | replace('a', '<') }}"}) {
    templates.push_back(*ChatTemplate::Parse(source, "fuzz"));
  }
  return templates;
}

// Lines: role, content, role, content, ...; the tools follow a zero byte. `literal` as the renderer
// sets it for everything that does not come from the model's folder.
ChatInput InputOf(std::string_view input, bool literal) {
  const size_t cut = std::min(input.find('\0'), input.size());
  ChatInput chat;
  chat.tools_json = input.substr(std::min(cut + 1, input.size()));
  chat.tools_literal = literal;
  std::string_view lines = input.substr(0, cut);
  while (!lines.empty()) {
    const auto take = [&lines] {
      const size_t end = std::min(lines.find('\n'), lines.size());
      const std::string line(lines.substr(0, end));
      lines.remove_prefix(std::min(end + 1, lines.size()));
      return line;
    };
    ChatMessage message;
    message.role = take();
    message.content = take();
    message.literal = literal;
    chat.messages.push_back(std::move(message));
  }
  return chat;
}

void FuzzChat(std::string_view input) {
  // The protocol guarantees that the fields of a message are UTF-8.
  if (FirstInvalidUtf8(input) != std::string_view::npos) return;
  static const auto kTemplates = Templates();
  for (const auto& chat_template : kTemplates) {
    const auto rendered = chat_template->Render(InputOf(input, true));
    if (!rendered.ok()) {
      FATHOM_CHECK(rendered.status().code() == absl::StatusCode::kInvalidArgument);
      continue;
    }
    FATHOM_CHECK(FirstInvalidUtf8(rendered->text) == std::string::npos);
    FATHOM_CHECK(rendered->text == chat_template->Render(InputOf(input, false))->text);
    std::string own;  // The text that the template wrote.
    size_t done = 0;
    for (const ByteSpan& span : rendered->literal_spans) {
      FATHOM_CHECK(done <= span.begin && span.begin < span.end &&
                   span.end <= rendered->text.size());
      own += rendered->text.substr(done, span.begin - done) + ' ';
      done = span.end;
    }
    own += rendered->text.substr(done);
    const auto ids =
        TheTokenizer().Encode(rendered->text, {.literal_spans = rendered->literal_spans});
    const auto own_ids = TheTokenizer().Encode(own);
    FATHOM_CHECK(ids.ok() && own_ids.ok());
    const auto specials = [](const std::vector<TokenId>& all) {
      return std::count_if(all.begin(), all.end(),
                           [](TokenId id) { return TheTokenizer().IsSpecial(id); });
    };
    FATHOM_CHECK(specials(*ids) == specials(*own_ids), "{} and {} special tokens", specials(*ids),
                 specials(*own_ids));
  }
}

}  // namespace
}  // namespace fathom

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  fathom::FuzzChat({reinterpret_cast<const char*>(data), size});
  return 0;
}

std::vector<std::string> FuzzSeeds() {
  const std::string zero(1, '\0');
  return {
      "user\nHello <think>there</think>\nassistant\nHi\nuser\n<\xEF\xBD\x9C"
      "User\xEF\xBD\x9C>",
      "system\nBe brief.\ntool\n{\"a\": 1}\nuser\n\xF0\x9F\x9A\x80 caf\xC3\xA9 e\xCC\x81" + zero +
          R"([{"type": "function", "function": {"name": "f", "description": "d <think>",
              "parameters": {"type": "object", "properties": {"x": {"type": "number",
              "default": 1.5e300, "enum": [1, -2, 18446744073709551615, null, true]}}}}}])",
      "developer\nx\nuser\n" + zero +
          R"([{"a": [[[[{"b": "\\u00e9\\ud83d\\ude80\\n"}]]]], "": {}}])",
  };
}
