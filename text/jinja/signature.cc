#include "text/jinja/signature.h"

#include <fmt/format.h>

#include <algorithm>

namespace fathom::jinja {
namespace {

struct Parameter {
  std::string_view name;
  bool required;
};

struct Parsed {
  std::vector<Parameter> list;
  bool any_positional = false, any_named = false, by_name = true;
};

Parsed ParseParameters(std::string_view text) {
  Parsed parsed;
  while (!text.empty()) {
    const size_t end = std::min(text.find(' '), text.size());
    std::string_view word = text.substr(0, end);
    text.remove_prefix(std::min(end + 1, text.size()));
    if (word == "*") {
      parsed.any_positional = true;
    } else if (word == "**") {
      parsed.any_named = true;
    } else if (word == "/") {
      parsed.by_name = false;
    } else {
      const bool required = !word.ends_with('?');
      if (!required) word.remove_suffix(1);
      parsed.list.push_back({word, required});
    }
  }
  return parsed;
}

std::string NamesOf(const std::vector<Parameter>& list) {
  std::string names;
  for (const Parameter& parameter : list) {
    if (!names.empty()) names += ", ";
    names += parameter.name;
  }
  return names.empty() ? "none" : names;
}

}  // namespace

std::string CallError(const Signature& signature, size_t positional,
                      const std::vector<std::string_view>& named) {
  const Parsed parsed = ParseParameters(signature.parameters);
  const std::vector<Parameter>& list = parsed.list;
  if (positional > list.size() && !parsed.any_positional) {
    return fmt::format("takes at most {} arguments ({}), and the call gives {}", list.size(),
                       NamesOf(list), positional);
  }
  for (const std::string_view name : named) {
    const auto found =
        std::find_if(list.begin(), list.end(), [&](const Parameter& p) { return p.name == name; });
    if (found == list.end() ? !parsed.any_named : !parsed.by_name) {
      return fmt::format("has no argument named '{}'; it takes {}{}", name, NamesOf(list),
                         parsed.by_name || list.empty() ? "" : ", none of them by name");
    }
    if (found != list.end() && static_cast<size_t>(found - list.begin()) < positional)
      return fmt::format("has two values for its argument '{}'", name);
    if (std::count(named.begin(), named.end(), name) > 1)
      return fmt::format("has two values for its argument '{}'", name);
  }
  for (size_t i = positional; i < list.size(); ++i) {
    if (list[i].required && std::find(named.begin(), named.end(), list[i].name) == named.end())
      return fmt::format("has no value for its argument '{}'", list[i].name);
  }
  return {};
}

}  // namespace fathom::jinja
