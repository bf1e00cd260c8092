#include "router/sessions/session_blob.h"

#include <nlohmann/json.hpp>

namespace fathom::router {
namespace {

using Json = nlohmann::json;

bool Flag(const Json& json, const char* key) {
  const auto it = json.find(key);
  return it != json.end() && it->is_boolean() && it->get<bool>();
}

std::string Text(const Json& json, const char* key) {
  const auto it = json.find(key);
  return it != json.end() && it->is_string() ? it->get<std::string>() : "";
}

// Null, or a value that is no list: none. An element that is no text becomes an empty one.
std::vector<std::string> Texts(const Json& json, const char* key) {
  std::vector<std::string> texts;
  const auto it = json.find(key);
  if (it == json.end() || !it->is_array()) return texts;
  for (const Json& text : *it) {
    texts.push_back(text.is_string() ? text.get<std::string>() : std::string());
  }
  return texts;
}

}  // namespace

std::string EncodeBlob(const TextOptions& options) {
  const Json json = {{"version", 1},
                     {"stop_strings", options.stop_strings},
                     {"include_stop", options.include_stop},
                     {"keep_special", options.keep_special},
                     {"want_ids", options.want_ids},
                     {"want_text", options.want_text},
                     {"chat", options.chat},
                     {"reasoning_form", options.reasoning_form},
                     {"call_form", options.call_form},
                     {"tool_names", options.tool_names},
                     {"one_call", !options.parallel_calls}};
  return json.dump(-1, ' ', false, Json::error_handler_t::replace);
}

absl::StatusOr<TextOptions> DecodeBlob(const std::string& blob) {
  const Json json = Json::parse(blob, nullptr, /*allow_exceptions=*/false);
  if (!json.is_object() || json.value("version", Json()) != 1) {
    return Internal(
        "the session was made by a router of another version, whose text options this one cannot "
        "read; "
        "send the request again");
  }
  TextOptions options;
  const auto strings = json.find("stop_strings");
  if (strings != json.end() && strings->is_array()) {
    for (const Json& string : *strings) {
      if (!string.is_string() || string.get_ref<const std::string&>().empty()) {
        return Internal(
            "a stop string of the session's text options is not a text; send the request again");
      }
      options.stop_strings.push_back(string.get<std::string>());
    }
  }
  options.include_stop = Flag(json, "include_stop");
  options.keep_special = Flag(json, "keep_special");
  options.want_ids = Flag(json, "want_ids");
  options.want_text = Flag(json, "want_text");
  options.chat = Flag(json, "chat");
  options.reasoning_form = Text(json, "reasoning_form");
  options.call_form = Text(json, "call_form");
  options.tool_names = Texts(json, "tool_names");
  options.parallel_calls = !Flag(json, "one_call");
  return options;
}

}  // namespace fathom::router
