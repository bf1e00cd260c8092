// text/chat_template.h: a model's chat template: renders messages into the text of a prompt.
// docs/API.md, "Chat templates" lists the subset of Jinja. The results equal those of Python's
// Jinja as transformers sets it up (trim_blocks, lstrip_blocks, loop controls, tojson as
// json.dumps). Pure and const after Parse; several threads may render at the same time. Steps,
// nesting and bytes of a rendering are bounded (text/jinja/eval.h).
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "common/byte_span.h"
#include "common/cancel.h"
#include "common/status.h"

namespace fathom {

struct ChatToolCall {
  std::string id;
  std::string name;
  // A JSON object. The template gets the text or the map, whichever it was written for. An empty
  // text is an empty map.
  std::string arguments_json;
};

struct ChatMessage {
  std::string role;
  std::optional<std::string> content;  // Absent: None in the template.
  // Texts that replace `content`. A template that accepts a list of parts gets the list; for others
  // they are joined with newlines.
  std::vector<std::string> content_parts;
  std::vector<ChatToolCall> tool_calls;
  std::string tool_call_id;
  std::string name;
  std::optional<std::string> reasoning;  // The template's reasoning_content.
  bool literal = false;  // Its texts come from a client: no special token is made of them.
};

struct ChatInput {
  std::vector<ChatMessage> messages;
  std::string tools_json;               // A JSON array, or empty: no tools (None).
  bool tools_literal = false;           // As ChatMessage::literal.
  std::string kwargs_json;              // A JSON object of further variables, or empty.
  bool kwargs_literal = false;          // As ChatMessage::literal.
  std::optional<bool> enable_thinking;  // Absent: undefined in the template.
  // Absent: true, unless continue_final_message is set.
  std::optional<bool> add_generation_prompt;
  // The prompt ends with the content of the last message, so the model continues it.
  bool continue_final_message = false;
  std::string bos_token, eos_token;  // If not empty, they replace those of the folder.
  int64_t now_unix_s = 0;            // For strftime_now.
  CancelFn cancelled = {};           // Called now and then; if it returns true: CANCELLED.
};

struct RenderedText {
  std::string text;
  // The bytes that came from literal texts, for EncodeOptions.
  std::vector<ByteSpan> literal_spans;
};

class ChatTemplate {
 public:
  // INVALID_ARGUMENT, with `origin` (a file) and the line, for unsupported syntax.
  static absl::StatusOr<std::unique_ptr<const ChatTemplate>> Parse(std::string_view source,
                                                                   const std::string& origin);

  // Loads the template of a model folder, or of `file` if it is not empty (template_files.h), and
  // the special tokens of the folder. For conversations with tools, a template named `tool_use` is
  // used if it exists. NOT_FOUND: there is no template.
  static absl::StatusOr<std::unique_ptr<const ChatTemplate>> Load(const std::string& folder,
                                                                  const std::string& file = {});

  ~ChatTemplate();

  // INVALID_ARGUMENT if the template refuses the conversation, if it drops the content of a role in
  // it, if the JSON is invalid, or if a limit is reached. The role `developer` becomes `system` if
  // the template does not know it.
  absl::StatusOr<RenderedText> Render(const ChatInput& input) const;

  // A conversation in which the assistant calls the tool kProbeTool (text/template_traits.h), as
  // the template for conversations with tools renders it; empty: it renders no call.
  const std::string& ToolCallSample() const;

  // Like Render, but the messages are the JSON text of an array, which the template gets unchanged.
  // For `fathom render`.
  absl::StatusOr<std::string> RenderJson(const std::string& messages_json,
                                         const ChatInput& rest) const;

 private:
  class Impl;
  explicit ChatTemplate(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

}  // namespace fathom
