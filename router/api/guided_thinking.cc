#include "router/api/guided_thinking.h"

#include <nlohmann/json.hpp>
#include <utility>

namespace fathom::router {
namespace {

using OrderedJson = nlohmann::ordered_json;

// The spec as a format of a structural tag.
OrderedJson FormatOf(const GrammarSpec& spec) {
  switch (spec.kind) {
    case GrammarKind::kJsonObject:
      return {{"type", "json_schema"},
              {"json_schema", {{"type", "object"}, {"additionalProperties", true}}}};
    case GrammarKind::kJsonSchema:
      return {{"type", "json_schema"},
              {"json_schema", OrderedJson::parse(spec.text, nullptr, /*allow_exceptions=*/false)}};
    case GrammarKind::kRegex:
      return {{"type", "regex"}, {"pattern", spec.text}};
    case GrammarKind::kEbnf:
      return {{"type", "grammar"}, {"grammar", spec.text}};
    case GrammarKind::kChoice: {
      OrderedJson texts = OrderedJson::array();
      for (const std::string& choice : spec.choices) {
        texts.push_back({{"type", "const_string"}, {"value", choice}});
      }
      return {{"type", "or"}, {"elements", std::move(texts)}};
    }
    case GrammarKind::kStructuralTag: {
      const OrderedJson tag = OrderedJson::parse(spec.text, nullptr, /*allow_exceptions=*/false);
      return tag.is_object() && tag.contains("format") ? tag["format"] : tag;
    }
  }
  return nullptr;
}

}  // namespace

GrammarSpec AfterThinking(const GrammarSpec& spec, TokenId end) {
  const OrderedJson elements = {
      OrderedJson{{"type", "any_tokens"}, {"exclude_tokens", OrderedJson::array({end})}},
      OrderedJson{{"type", "token"}, {"token", end}}, FormatOf(spec)};
  const OrderedJson tag = {{"type", "structural_tag"},
                           {"format", {{"type", "sequence"}, {"elements", elements}}}};
  return {.kind = GrammarKind::kStructuralTag,
          .text = tag.dump(-1, ' ', false, OrderedJson::error_handler_t::replace)};
}

}  // namespace fathom::router
