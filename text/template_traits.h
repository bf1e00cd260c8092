// text/template_traits.h: in which form a chat template wants what a client sends, found out by
// rendering small conversations with it. Pure.
#pragma once

#include <set>
#include <string>
#include <string_view>

#include "text/jinja/eval.h"

namespace fathom::router {

struct TemplateTraits {
  // Tool calls' arguments as a map; else as JSON text.
  bool arguments_as_map = false;
  // Roles whose content may be a list of parts; the other roles' parts are joined to one text.
  std::set<std::string, std::less<>> roles_with_parts;
  // Roles whose content never comes to the prompt, although the template renders them.
  std::set<std::string, std::less<>> roles_left_out;
  // Whether the template has words for the role `developer`.
  bool knows_developer = false;
};

// `globals`: all variables but `messages`. The template's `source` is searched for "developer".
TemplateTraits FindTraits(const jinja::Block& block, std::string_view source,
                          const jinja::Variables& globals);

}  // namespace fathom::router
