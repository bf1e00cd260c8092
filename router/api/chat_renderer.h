// router/api/chat_renderer.h: messages to prompt: the model's chat template with what keeps user
// text from being markup (text/literal_text.h) around it, then the tokenizer. Pure; const and safe
// from any thread.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "common/status.h"
#include "text/chat_template.h"
#include "text/literal_text.h"
#include "text/tokenizer.h"

namespace fathom::router {

struct RenderedChat {
  std::vector<TokenId> ids;
  std::string text;  // As rendered.
};

class ChatRenderer {
 public:
  // Null when the folder has no chat template. `tokenizer` outlives it. INVALID_ARGUMENT: the
  // template cannot be used, with the reason.
  static absl::StatusOr<std::unique_ptr<const ChatRenderer>> Load(const std::string& folder,
                                                                  const Tokenizer* tokenizer);

  // `input` without bos and eos token: those are the model's. Unless `allow_special`, special
  // tokens' text in system, user and tool messages and in tools is plain text. INVALID_ARGUMENT
  // (field messages or tools_json).
  absl::StatusOr<RenderedChat> Render(ChatInput input, bool allow_special) const;

 private:
  ChatRenderer(const Tokenizer* tokenizer, std::unique_ptr<const ChatTemplate> chat_template);
  static absl::Status CheckMessages(const std::vector<ChatMessage>& messages);
  std::string Guard(const std::string& value, bool allow_special) const;
  absl::StatusOr<std::string> GuardTools(const std::string& tools_json) const;

  const Tokenizer* const tokenizer_;
  const std::unique_ptr<const ChatTemplate> template_;
  const LiteralText literal_;
};

}  // namespace fathom::router
