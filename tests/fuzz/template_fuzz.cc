// The template language with any source and any messages. A template that parses and renders gives
// UTF-8 text whose literal spans are in order and within the text, and the text does not depend on
// whether the messages are literal.
#include "common/check.h"

#include <algorithm>
#include "common/utf8.h"
#include "tests/fuzz/fuzz.h"
#include "text/jinja/eval.h"
#include "text/jinja/parser.h"

namespace fathom::jinja {
namespace {

const EvalLimits kLimits = {.steps_max = 5'000, .bytes_max = 1 << 16};

// One message for each line of `text`.
Variables Messages(std::string_view text, bool literal) {
  List messages;
  for (size_t begin = 0; begin <= text.size();) {
    const size_t end = std::min(text.find('\n', begin), text.size());
    const std::string content(text.substr(begin, end - begin));
    messages.emplace_back(Map{{"role", messages.size() % 2 == 0 ? "user" : "assistant"},
                              {"content", literal ? Str::Literal(content) : Str(content)}});
    begin = end + 1;
  }
  return {{"messages", std::move(messages)}, {"bos_token", "<s>"}, {"add_generation_prompt", true}};
}

void FuzzTemplate(std::string_view input) {
  const size_t cut = std::min(input.find('\0'), input.size());
  // Messages are always UTF-8 (protobuf, JSON); the source may have any bytes.
  const std::string contents = ToUtf8(input.substr(std::min(cut + 1, input.size())));
  try {
    const Block block = Parse(input.substr(0, cut));
    const Str text = Render(block, Messages(contents, true), 0, kLimits);
    size_t done = 0;
    for (const ByteSpan& span : text.LiteralSpans()) {
      FATHOM_CHECK(done <= span.begin && span.begin < span.end && span.end <= text.size());
      done = span.end;
    }
    FATHOM_CHECK(FirstInvalidUtf8(text.view()) == std::string::npos);
    FATHOM_CHECK(text == Render(block, Messages(contents, false), 0, kLimits));
  } catch (const TemplateError& error) {  // Its text is sent to clients and logged.
    FATHOM_CHECK(FirstInvalidUtf8(error.what()) == std::string::npos, "{}", error.what());
  }
}

}  // namespace
}  // namespace fathom::jinja

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  fathom::jinja::FuzzTemplate({reinterpret_cast<const char*>(data), size});
  return 0;
}

std::vector<std::string> FuzzSeeds() {
  const std::string contents = std::string(1, '\0') + "Hi\na<think>b\n\xC3\xA4 \xF0\x9F\x9A\x80";
  const std::string sources[] = {
      "{{ bos_token }}{% for m in messages %}{% if m['role'] == 'user' %}<u>{{ m['content'] | trim "
      "}}{% else %}<a>{{ m.content.split('</think>')[-1] }}{% endif %}{% endfor %}",
      "{% set ns = namespace(s='', n=0) %}{% for m in messages %}{% set ns.s = ns.s + m.content ~ "
      "loop.index %}{% set ns.n = ns.n + 1 %}{% endfor %}{{ ns.s[1:-1:2] }}{{ ns.n ** 2 // 3 % 5 "
      "}}",
      "{% macro f(x, y=2) -%} <{{ x | upper | replace('A', 'b', y) }}> {%- endmacro %}{{ "
      "f(messages[0].content) }}{{ f('q', y=-1) | tojson(indent=2) }}",
      "{% for x in range(3, 0, -1) if x is odd %}{{ loop.first }}{% break %}{% else %}{{ [1, 'a', "
      "none, {'k': 1.5}] | map('string') | join(', ') }}{% endfor %}",
      "{{ messages | selectattr('role', 'equalto', 'user') | map(attribute='content') | list | "
      "length }}{{ 'a\\n\\x41' | indent(2, true) }}{{ x | default('d', true) }}{# c #}",
      "{%- if 1 < 2 <= 3 and not 'a' in 'bc' or none is defined -%} {{ 'é' * 3 }}{{ -7 // 2 }} {% "
      "endif %}{% raw %}{{ }}{% endraw %}{% set a, b = 1, [2] %}{{ a if b else raise_exception(a) "
      "}}",
      "{% set c %}x{{ messages[-1].content[::-1] }}{% endset %}{{ c.strip('x').rsplit(' ', 1) }}{{ "
      "dict(a=1).items() | list }}{{ strftime_now('%Y') }}{{ c | reverse | title | int(3) }}",
  };
  std::vector<std::string> seeds;
  for (const std::string& source : sources) seeds.push_back(source + contents);
  return seeds;
}
