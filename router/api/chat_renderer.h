// router/api/chat_renderer.h: makes a prompt from chat messages. The model's chat template renders
// the messages and marks which bytes came from a client; the tokenizer makes no special token of
// those bytes. Otherwise a client could write the markers of another role into its message. Pure
// and const; any thread may call it.
#pragma once

#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "common/cancel.h"
#include "common/status.h"
#include "router/api/requests.h"
#include "text/chat_template.h"
#include "text/tokenizer.h"
#include "text/tool_call_form.h"

namespace fathom::router {

struct RenderedChat {
  std::vector<TokenId> ids;
  std::string text;  // The text that the template made.
};

struct RenderOptions {
  int64_t now_unix_s = 0;   // The time for templates that show the date.
  CancelFn cancelled = {};  // Called now and then; if it returns true: CANCELLED.
  // If set, called before the text is tokenized, with a lower bound of its number of tokens. Render
  // returns the status if it is not OK.
  std::function<absl::Status(int64_t tokens_min)> check_tokens_min = {};
};

class ChatRenderer {
 public:
  // Null if the folder has no chat template. `file`, if not empty, is a template that replaces the
  // folder's. INVALID_ARGUMENT: the template cannot be used. REQUIRES: `tokenizer` outlives the
  // renderer.
  static absl::StatusOr<std::unique_ptr<const ChatRenderer>> Load(const std::string& folder,
                                                                  const std::string& file,
                                                                  const Tokenizer* tokenizer);

  // The form in which the template shows tool calls; nullopt: it is no known one.
  std::optional<ToolCallForm> CallForm() const;
  // INVALID_ARGUMENT: it is no JSON array, or it is nested too deeply.
  static absl::Status CheckTools(const std::string& tools_json);

  // INVALID_ARGUMENT (with the field), or the status of check_tokens_min.
  absl::StatusOr<RenderedChat> Render(ChatPrompt chat, const RenderOptions& options) const;

 private:
  ChatRenderer(const Tokenizer* tokenizer, std::unique_ptr<const ChatTemplate> chat_template);
  static absl::Status CheckMessages(const std::vector<ChatMessage>& messages);
  const Tokenizer* const tokenizer_;
  const std::unique_ptr<const ChatTemplate> template_;
};

}  // namespace fathom::router
