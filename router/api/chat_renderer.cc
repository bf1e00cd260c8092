#include "router/api/chat_renderer.h"

#include <nlohmann/json.hpp>
#include <utility>

#include "common/reason.h"
#include "common/utf8.h"
#include "router/api/field_limits.h"
#include "text/template_traits.h"

namespace fathom::router {
namespace {

using Json = nlohmann::json;

absl::Status Refuse(const absl::Status& status, const char* field) {
  if (absl::IsCancelled(status)) return status;
  const bool theirs = status.code() == absl::StatusCode::kInvalidArgument;
  const std::optional<ErrorDetail> detail = DetailOf(status);
  if (theirs && detail && detail->field != "messages") return status;
  return WithReason(status, theirs ? Reason::kChatTemplateRefused : Reason::kInternal, field);
}

// JSON that is nested deeper is refused before the recursive parser reads it, which would overflow
// the stack.
constexpr int kToolsDepthMax = 64;

bool TooDeep(const std::string& json) {
  int depth = 0;
  bool in_string = false;
  for (size_t i = 0; i < json.size(); ++i) {
    if (in_string) {
      if (json[i] == '\\')
        ++i;
      else if (json[i] == '"')
        in_string = false;
    } else if (json[i] == '"') {
      in_string = true;
    } else if (json[i] == '[' || json[i] == '{') {
      if (++depth > kToolsDepthMax) return true;
    } else if (json[i] == ']' || json[i] == '}') {
      --depth;
    }
  }
  return false;
}

}  // namespace

ChatRenderer::ChatRenderer(const Tokenizer* tokenizer,
                           std::unique_ptr<const ChatTemplate> chat_template)
    : tokenizer_(tokenizer), template_(std::move(chat_template)) {}

absl::StatusOr<std::unique_ptr<const ChatRenderer>> ChatRenderer::Load(const std::string& folder,
                                                                       const std::string& file,
                                                                       const Tokenizer* tokenizer) {
  auto chat_template = ChatTemplate::Load(folder, file);
  if (chat_template.status().code() == absl::StatusCode::kNotFound) return nullptr;
  if (!chat_template.ok()) return chat_template.status();
  return std::unique_ptr<const ChatRenderer>(
      new ChatRenderer(tokenizer, *std::move(chat_template)));
}

std::optional<ToolCallForm> ChatRenderer::CallForm() const {
  return DetectToolCallForm(template_->ToolCallSample(), kProbeTool, *tokenizer_);
}

absl::Status ChatRenderer::CheckTools(const std::string& tools_json) {
  if (TooDeep(tools_json)) {
    return Invalid("tools_json is nested deeper than {} levels; flatten it", kToolsDepthMax);
  }
  const Json tools = Json::parse(tools_json, nullptr, /*allow_exceptions=*/false);
  if (!tools.is_array()) {
    return Invalid(
        "tools_json is not a JSON array; send OpenAI's form: [{{\"type\": \"function\", ...}}]");
  }
  return absl::OkStatus();
}

absl::Status ChatRenderer::CheckMessages(const std::vector<ChatMessage>& messages) {
  FATHOM_RETURN_IF_ERROR(CheckField(Field::kMessages, static_cast<double>(messages.size()), {}));
  for (size_t i = 0; i < messages.size(); ++i) {
    const std::string& role = messages[i].role;
    const bool known = role == "system" || role == "developer" || role == "user" ||
                       role == "assistant" || role == "tool";
    if (known) continue;
    return WithReason(
        Invalid(
            "messages[{}].role is \"{}\"; it must be system, developer, user, assistant or tool", i,
            Shortened(role, 32)),
        Reason::kUnknownRole, fmt::format("messages[{}].role", i));
  }
  return absl::OkStatus();
}

absl::StatusOr<RenderedChat> ChatRenderer::Render(ChatPrompt chat,
                                                  const RenderOptions& options) const {
  FATHOM_RETURN_IF_ERROR(CheckMessages(chat.messages));
  const bool literal = !chat.allow_special;
  for (ChatMessage& message : chat.messages) {
    // The model wrote the assistant's messages, so they may contain its special tokens.
    message.literal = literal && message.role != "assistant";
  }
  if (!chat.tools_json.empty()) {
    const absl::Status tools = CheckTools(chat.tools_json);
    if (!tools.ok()) return Refuse(tools, "tools_json");
  }
  FATHOM_RETURN_IF_ERROR(
      CheckField(Field::kTemplateKwargsBytes, static_cast<double>(chat.kwargs_json.size()), {}));
  const ChatInput input = {.messages = std::move(chat.messages),
                           .tools_json = std::move(chat.tools_json),
                           .tools_literal = literal,
                           .kwargs_json = std::move(chat.kwargs_json),
                           .kwargs_literal = literal,
                           .enable_thinking = chat.enable_thinking,
                           .add_generation_prompt = chat.add_generation_prompt,
                           .continue_final_message = chat.continue_final_message,
                           .now_unix_s = options.now_unix_s,
                           .cancelled = options.cancelled};
  auto rendered = template_->Render(input);
  if (!rendered.ok()) return Refuse(rendered.status(), "messages");
  if (options.check_tokens_min) {
    FATHOM_RETURN_IF_ERROR(options.check_tokens_min(tokenizer_->MinTokens(rendered->text)));
  }
  auto ids = tokenizer_->Encode(rendered->text, {.parse_special = true,
                                                 .literal_spans = rendered->literal_spans,
                                                 .cancelled = options.cancelled});
  if (!ids.ok()) return Refuse(ids.status(), "messages");
  return RenderedChat{*std::move(ids), std::move(rendered->text)};
}

}  // namespace fathom::router
