#include "text/template_traits.h"

#include <initializer_list>
#include <optional>
#include <utility>
#include <vector>

namespace fathom {
namespace {

using jinja::List;
using jinja::Map;
using jinja::Value;

// Texts that no real template contains.
constexpr const char* kText = "probe-text-7401";
constexpr const char* kKey = "probe_key_7402";
constexpr const char* kPythonMap = "{'probe_key_7402'";
constexpr const char* kPythonParts = "'text':";

Value Message(const char* role, Value content) {
  return Value(Map{{"role", role}, {"content", std::move(content)}});
}

Value Parts() { return Value(List{Value(Map{{"type", "text"}, {"text", kText}})}); }

Value ToolCall(Value content, Value arguments) {
  const Value function(Map{{"name", std::string(kProbeTool)}, {"arguments", std::move(arguments)}});
  // The id has nine letters and digits, because some templates require that.
  const Value call(Map{{"id", "probe7403"}, {"type", "function"}, {"function", function}});
  return Value(
      Map{{"role", "assistant"}, {"content", std::move(content)}, {"tool_calls", List{call}}});
}

Value ToolResult(Value content) {
  return Value(Map{{"role", "tool"},
                   {"content", std::move(content)},
                   {"tool_call_id", "probe7403"},
                   {"name", "probe"}});
}

class Prober {
 public:
  Prober(const jinja::Block& block, const jinja::Variables& globals)
      : block_(block), globals_(globals) {}

  // Returns nullopt if the template refuses the conversation. `tools` replaces the variable.
  std::optional<std::string> Render(List messages, const Value& tools = jinja::None{}) const {
    jinja::Variables variables = globals_;
    for (auto& [name, value] : variables) {
      if (name == "tools") value = tools;
    }
    variables.emplace_back("messages", Value(std::move(messages)));
    try {
      return jinja::Render(block_, variables, 0, {.steps_max = 200'000, .bytes_max = 1 << 20})
          .str();
    } catch (const jinja::TemplateError&) {
      return std::nullopt;
    }
  }

 private:
  const jinja::Block& block_;
  const jinja::Variables& globals_;
};

bool Has(const std::optional<std::string>& text, std::string_view part) {
  return text && text->find(part) != std::string::npos;
}

// True if the template prints a map, but not in Python's form. The first conversation that the
// template renders in one of the two ways decides; *shown gets its text.
bool WantsMap(const Prober& prober, std::string* shown) {
  const Value map(Map{{kKey, "v"}});
  const Value text(std::string("{\"") + kKey + "\": \"v\"}");
  const Value tool(
      Map{{"type", "function"},
          {"function", Map{{"name", "probe"},
                           {"description", "d"},
                           {"parameters", Map{{"type", "object"}, {"properties", Map{}}}}}}});
  for (const Value& tools : {Value(jinja::None{}), Value(List{tool})}) {
    for (const Value& content : {Value(""), Value(jinja::None{})}) {
      for (const bool with_result : {true, false}) {
        const auto render = [&](const Value& arguments) {
          List messages = {Message("user", "q"), ToolCall(content, arguments)};
          if (with_result) messages.push_back(ToolResult("r"));
          return prober.Render(std::move(messages), tools);
        };
        const std::optional<std::string> of_map = render(map), of_text = render(text);
        if (!Has(of_map, kKey) && !Has(of_text, kKey)) continue;
        const bool map_wanted = Has(of_map, kKey) && !Has(of_map, kPythonMap);
        *shown = map_wanted ? *of_map : of_text.value_or("");
        return map_wanted;
      }
    }
  }
  return false;
}

// A conversation in which a message of the role has this content.
List Conversation(std::string_view role, const Value& content, bool with_answer) {
  if (role == "assistant") return {Message("user", "q"), Message("assistant", content)};
  if (role == "tool") return {Message("user", "q"), ToolCall("", "{}"), ToolResult(content)};
  List messages;
  if (role != "user") messages.push_back(Message(std::string(role).c_str(), content));
  messages.push_back(Message("user", role == "user" ? content : Value("q")));
  if (with_answer) {
    messages.push_back(Message("assistant", "a"));
    messages.push_back(Message("user", "q"));
  }
  return messages;
}

}  // namespace

TemplateTraits FindTraits(const jinja::Block& block, std::string_view source,
                          const jinja::Variables& globals) {
  const Prober prober(block, globals);
  TemplateTraits traits;
  traits.arguments_as_map = WantsMap(prober, &traits.tool_call);
  for (const char* role : {"system", "developer", "user", "assistant", "tool"}) {
    bool shown = false, rendered = false;
    for (const bool with_answer : {false, true}) {
      const auto text = prober.Render(Conversation(role, Value(kText), with_answer));
      rendered = rendered || text.has_value();
      shown = shown || Has(text, kText);
    }
    if (rendered && !shown) traits.roles_left_out.insert(role);
    const auto of_parts = prober.Render(Conversation(role, Parts(), false));
    if (Has(of_parts, kText) && !Has(of_parts, kPythonParts)) traits.roles_with_parts.insert(role);
    if (std::string_view(role) == "developer")
      traits.knows_developer = shown && source.find(role) != std::string_view::npos;
  }
  return traits;
}

}  // namespace fathom
