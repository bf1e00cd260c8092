// router/api/chat_renderer.h: messages to prompt: the model's chat template, which keeps account of
// what is a client's text, then the tokenizer, which makes no special token of that. Pure; const
// and safe from any thread.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "common/cancel.h"
#include "common/status.h"
#include "router/api/requests.h"
#include "text/chat_template.h"
#include "text/tokenizer.h"

namespace fathom::router {

struct RenderedChat {
  std::vector<TokenId> ids;
  std::string text;  // As rendered.
};

struct RenderOptions {
  int64_t now_unix_s = 0;   // The date that a template may show.
  CancelFn cancelled = {};  // Asked now and then; true: CANCELLED.
  // Asked before a text is tokenized: may a prompt of at least so many tokens be used?
  std::function<absl::Status(int64_t tokens_min)> check_tokens_min = {};
};

class ChatRenderer {
 public:
  // Null when the folder has no chat template. `file`: a template in the place of the folder's, or
  // empty. `tokenizer` outlives it. INVALID_ARGUMENT: the template cannot be used, with the reason.
  static absl::StatusOr<std::unique_ptr<const ChatRenderer>> Load(const std::string& folder,
                                                                  const std::string& file,
                                                                  const Tokenizer* tokenizer);

  // INVALID_ARGUMENT (with the field), or what check_tokens_min gives.
  absl::StatusOr<RenderedChat> Render(ChatPrompt chat, const RenderOptions& options) const;

 private:
  ChatRenderer(const Tokenizer* tokenizer, std::unique_ptr<const ChatTemplate> chat_template);
  static absl::Status CheckMessages(const std::vector<ChatMessage>& messages);
  static absl::Status CheckTools(const std::string& tools_json);

  const Tokenizer* const tokenizer_;
  const std::unique_ptr<const ChatTemplate> template_;
};

}  // namespace fathom::router
