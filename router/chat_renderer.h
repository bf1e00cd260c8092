// router/chat_renderer.h: messages to prompt, as the service sees it. The implementation is the
// model's chat template and tokenizer. Thread: const, from any thread.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "common/status.h"
#include "common/types.h"

namespace fathom::router {

struct ChatToolCall {
  std::string id;
  std::string name;
  std::string arguments_json;
};

struct ChatMessage {
  std::string role;
  std::optional<std::string> content;
  std::vector<ChatToolCall> tool_calls;
  std::string tool_call_id;
  std::optional<std::string> reasoning;
  std::string name;
};

struct ChatPrompt {
  std::vector<ChatMessage> messages;
  std::string tools_json;
  std::optional<bool> enable_thinking;
  bool add_generation_prompt = true;
  bool allow_special = false;  // Else special tokens' text inside messages is plain text.
};

struct RenderedChat {
  std::vector<TokenId> ids;
  std::string text;  // As rendered.
};

class ChatRenderer {
 public:
  virtual ~ChatRenderer() = default;
  // INVALID_ARGUMENT naming the message or the template's own refusal.
  virtual absl::StatusOr<RenderedChat> Render(const ChatPrompt& prompt) const = 0;
};

}  // namespace fathom::router
