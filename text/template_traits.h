// text/template_traits.h: finds the form of client data that a chat template expects, by rendering
// small conversations. Pure.
#pragma once

#include <set>
#include <string>
#include <string_view>

#include "text/jinja/eval.h"

namespace fathom {

// The name of the tool in TemplateTraits::tool_call.
inline constexpr std::string_view kProbeTool = "probe";

struct TemplateTraits {
  // The arguments of tool calls are a map; false: JSON text.
  bool arguments_as_map = false;
  // Roles whose content may be a list of parts. For other roles the parts are joined to one text.
  std::set<std::string, std::less<>> roles_with_parts;
  // Roles whose content never reaches the prompt, although the template renders the conversation.
  std::set<std::string, std::less<>> roles_left_out;
  // Whether the template handles the role `developer`.
  bool knows_developer = false;
  // A conversation in which the assistant calls the tool kProbeTool; empty: the template renders
  // no call.
  std::string tool_call;
};

// `globals` has all variables except `messages`. The template's `source` is searched for
// "developer".
TemplateTraits FindTraits(const jinja::Block& block, std::string_view source,
                          const jinja::Variables& globals);

}  // namespace fathom
