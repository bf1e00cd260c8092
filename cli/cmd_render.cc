#include <fmt/format.h>

#include <ctime>
#include <filesystem>
#include <nlohmann/json.hpp>

#include "cli/commands.h"
#include "cli/verify/vectors.h"
#include "common/output.h"
#include "text/chat_template.h"
#include "text/template_files.h"

namespace fathom::client {
namespace {

// A string is taken as JSON text, whose integers may have any number of digits.
std::string JsonTextOf(const nlohmann::ordered_json& value) {
  return value.is_string() ? value.get<std::string>() : value.dump();
}

// A vector has messages and either the text or the error that the template raises; `template` names
// a file.
std::optional<std::string> Compare(const ChatTemplate& chat_template, const std::string& file,
                                   const nlohmann::ordered_json& vector) {
  if (vector.contains("template") && vector["template"] != file) return std::nullopt;
  ChatInput input;
  if (vector.contains("tools") && !vector["tools"].is_null()) {
    input.tools_json = JsonTextOf(vector["tools"]);
  }
  if (vector.contains("options")) input.kwargs_json = vector["options"].dump();
  input.add_generation_prompt = vector.value("add_generation_prompt", true);
  input.now_unix_s = std::time(nullptr);
  input.bos_token = vector.value("bos", "");
  input.eos_token = vector.value("eos", "");
  const auto text = chat_template.RenderJson(JsonTextOf(vector.at("messages")), input);
  const bool refused = vector.contains("error") && !vector["error"].is_null();
  if (refused) {
    return text.ok() ? "rendered, but the template refuses it: " + vector["error"].dump() : "";
  }
  if (!text.ok()) return std::string(Message(text.status()));
  const auto want = vector.at("text").get<std::string>();
  return *text == want ? "" : TextDifference(*text, want);
}

}  // namespace

int RunRender(int argc, const char* const* argv) {
  Flags flags("fathom render", "Checks a chat template against recorded prompts.");
  std::string file, vectors;
  flags.Group("What");
  flags.Add("--template", &file, "A chat template (.jinja)");
  flags.Add("--vectors", &vectors, "File of conversations and their text; prints N of N exact");
  if (const auto code = flags.Parse(argc, argv)) return *code;
  if (file.empty() || vectors.empty()) {
    return Fail("render", Invalid("--template FILE and --vectors FILE are needed"));
  }

  const auto source = ReadWholeFile(file, kTemplateBytesMax);
  if (!source.ok()) return Fail("render", source.status());
  const auto chat_template = ChatTemplate::Parse(*source, file);
  if (!chat_template.ok()) {
    Fail("render", chat_template.status());
    return kExitBadModel;
  }
  const auto jsonl = ReadWholeFile(vectors, kVectorsBytesMax);
  if (!jsonl.ok()) return Fail("render", jsonl.status());
  const std::string name = std::filesystem::path(file).filename();
  const auto counts = CheckVectors(
      *jsonl, vectors,
      [&](const nlohmann::ordered_json& vector) { return Compare(**chat_template, name, vector); },
      [](const std::string& line) { PrintAnswer("{}\n", line); });
  if (!counts.ok()) return Fail("render", counts.status());
  PrintAnswer("{} of {} exact\n", counts->exact, counts->total);
  return counts->exact == counts->total ? kExitOk : kExitInternal;
}

}  // namespace fathom::client
