// text/chat_template.h: a model's chat template: messages in, prompt text out. The Jinja
// subset is listed in docs/API.md, "Chat templates"; results are those of Python's Jinja as
// transformers sets it up (trim_blocks, lstrip_blocks, loop controls, tojson as json.dumps). Pure
// after Parse, const, safe for concurrent renderings. A rendering is bounded in steps, nesting and
// bytes (text/jinja/eval.h).
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

namespace fathom::router {

struct ChatToolCall {
  std::string id;
  std::string name;
  // An object. The template sees the text or the map, whichever it was written for; the empty text
  // is an empty map.
  std::string arguments_json;
};

struct ChatMessage {
  std::string role;
  std::optional<std::string> content;  // Absent: None in the template.
  // Texts that replace `content`: a list of parts where the template can have one, else joined with
  // newlines.
  std::vector<std::string> content_parts;
  std::vector<ChatToolCall> tool_calls;
  std::string tool_call_id;
  std::string name;
  std::optional<std::string> reasoning;  // reasoning_content in the template.
  bool literal = false;  // Its texts are a client's: no special token is made of them.
};

struct ChatInput {
  std::vector<ChatMessage> messages;
  std::string tools_json;               // A JSON array, or empty: no tools (None).
  bool tools_literal = false;           // As ChatMessage::literal.
  std::string kwargs_json;              // A JSON object of further variables, or empty.
  bool kwargs_literal = false;          // As ChatMessage::literal.
  std::optional<bool> enable_thinking;  // Absent: undefined in the template.
  // Absent: true, unless the last message is continued.
  std::optional<bool> add_generation_prompt;
  // The prompt ends with the last message's content, for the model to go on with it.
  bool continue_final_message = false;
  std::string bos_token, eos_token;  // Where not empty, they replace the folder's.
  int64_t now_unix_s = 0;            // For strftime_now.
  CancelFn cancelled = {};           // Asked now and then; true: CANCELLED.
};

struct RenderedText {
  std::string text;
  std::vector<ByteSpan> literal_spans;  // What came from literal texts; as EncodeOptions wants it.
};

class ChatTemplate {
 public:
  // INVALID_ARGUMENT naming `origin` (a file) and line for what is not supported.
  static absl::StatusOr<std::unique_ptr<const ChatTemplate>> Parse(std::string_view source,
                                                                   const std::string& origin);

  // The template of a model folder, or of `file` where that is not empty (template_files.h), and
  // the folder's special tokens. With tools a template named `tool_use` counts, where there is one.
  // NOT_FOUND when there is none.
  static absl::StatusOr<std::unique_ptr<const ChatTemplate>> Load(const std::string& folder,
                                                                  const std::string& file = {});

  ~ChatTemplate();

  // INVALID_ARGUMENT when the template refuses the conversation or has no place for a role that it
  // holds, the JSON is broken, or a limit is reached. The role `developer` becomes `system` where
  // the template does not know it.
  absl::StatusOr<RenderedText> Render(const ChatInput& input) const;

  // As Render, from the JSON text of a messages array, which the template sees as it is: for
  // `fathom render`.
  absl::StatusOr<std::string> RenderJson(const std::string& messages_json,
                                         const ChatInput& rest) const;

 private:
  class Impl;
  explicit ChatTemplate(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

}  // namespace fathom::router
