#include "router/frontend/http/anthropic_messages.h"

#include <utility>

#include "common/reason.h"
#include "router/frontend/http/conversation.h"

namespace fathom::router {
namespace {

// The text of a failed tool's result, which no chat template can mark.
constexpr char kErrorPrefix[] = "Error: ";

// One message of the body.
class MessageReader {
 public:
  MessageReader(std::string path, FieldReader* body, Conversation* to)
      : path_(std::move(path)), body_(body), to_(to) {}

  void Read(const JsonValue& value) {
    FieldReader reader(value, path_);
    reader.Take("role", &role_);
    const JsonValue* content = reader.Find("content");
    if (reader.ok() && role_ != "user" && role_ != "assistant" && role_ != "system") {
      reader.Fail(WithReason(Invalid("{}.role is {}; it must be \"user\" or \"assistant\"", path_,
                                     JsonValue(role_).Brief()),
                             Reason::kUnknownRole, path_ + ".role"));
    }
    if (reader.ok() && content == nullptr) {
      reader.Fail(
          WithReason(Invalid("{}.content is missing; send a text or a list of blocks", path_),
                     Reason::kOutOfRange, path_ + ".content"));
    }
    if (const absl::Status status = reader.Finish(); !status.ok()) return body_->Fail(status);
    if (const std::string* text = content->AsString()) {
      texts_.push_back(*text);
    } else if (const JsonValue::Array* blocks = content->AsArray()) {
      for (size_t i = 0; i < blocks->size() && body_->ok(); ++i) {
        ReadBlock((*blocks)[i], fmt::format("{}.content[{}]", path_, i));
      }
    } else {
      return body_->Fail(
          WithReason(Invalid("{}.content is {}; it must be a text or a list of blocks", path_,
                             content->Brief()),
                     Reason::kOutOfRange, path_ + ".content"));
    }
    if (role_ == "assistant") {
      SetTexts(&answer_);
      to_->Add(std::move(answer_), path_);
    } else if (!texts_.empty() || !results_) {
      FlushTexts();
    }
  }

 private:
  void ReadBlock(const JsonValue& value, const std::string& path) {
    FieldReader block(value, path);
    std::string type;
    block.Take("type", &type);
    block.Accept("cache_control");  // The prefix cache needs no marks.
    const bool assistant = role_ == "assistant";
    if (type == "text") {
      std::string text;
      block.Take("text", &text);
      block.Only("citations", {"[]"}, "leave it out");
      texts_.push_back(std::move(text));
    } else if (type == "thinking" && assistant) {
      std::string text;
      block.Take("thinking", &text);
      block.Accept("signature");
      if (!text.empty()) answer_.reasoning = answer_.reasoning.value_or("") + text;
    } else if (type == "tool_use" && assistant) {
      ReadToolUse(path, &block);
    } else if (type == "tool_result" && role_ == "user") {
      ReadToolResult(path, &block);
    } else if (block.ok()) {
      const char* known = assistant ? "text, thinking and tool_use" : "text and tool_result";
      block.Fail(WithReason(
          Unimplemented("{}.type is {}; this server reads blocks of the types {} in a message of "
                        "the role {}; leave the block out",
                        path, JsonValue(type).Brief(), known, role_),
          Reason::kNotImplemented, path + ".type"));
    }
    if (const absl::Status status = block.Finish(); !status.ok()) body_->Fail(status);
  }

  void ReadToolUse(const std::string& path, FieldReader* block) {
    ChatToolCall call;
    block->Take("id", &call.id);
    block->Take("name", &call.name);
    block->Accept("caller");
    if (const JsonValue* input = block->Find("input")) {
      if (input->AsObject() == nullptr) block->FailType("input", *input, "a JSON object");
      call.arguments_json = ToJsonText(*input);
    } else if (block->ok()) {
      block->Fail(WithReason(Invalid("{}.input is missing; send the call's arguments", path),
                             Reason::kOutOfRange, path + ".input"));
    }
    answer_.tool_calls.push_back(std::move(call));
  }

  void ReadToolResult(const std::string& path, FieldReader* block) {
    if (!texts_.empty()) FlushTexts();
    results_ = true;
    ChatMessage message{.role = "tool"};
    bool is_error = false;
    block->Take("tool_use_id", &message.tool_call_id);
    block->Take("is_error", &is_error);
    std::vector<std::string> texts{""};
    if (const JsonValue* content = block->Find("content")) {
      texts =
          ReadTexts(*content, path + ".content", {"text"}, {"cache_control", "citations"}, body_);
    }
    if (is_error && !texts.empty()) texts.front().insert(0, kErrorPrefix);
    SetContent(std::move(texts), &message);
    to_->Add(std::move(message), path);
  }

  void SetTexts(ChatMessage* message) {
    if (texts_.empty()) {
      // The content of a message of calls alone is absent, as chat completions have it.
      if (message->tool_calls.empty()) message->content = "";
      return;
    }
    SetContent(std::exchange(texts_, {}), message);
  }

  // The texts so far become a message, so the order of texts and results is kept.
  void FlushTexts() {
    ChatMessage message{.role = role_};
    SetTexts(&message);
    to_->Add(std::move(message), path_);
  }

  const std::string path_;
  FieldReader* const body_;
  Conversation* const to_;
  std::string role_;
  std::vector<std::string> texts_;
  ChatMessage answer_{.role = "assistant"};
  bool results_ = false;  // A tool_result came, so the message needs no text.
};

void ReadAnthropicSystem(FieldReader* body, Conversation* to) {
  const JsonValue* system = body->Find("system");
  if (system == nullptr) return;
  ChatMessage message{.role = "system"};
  std::vector<std::string> texts =
      ReadTexts(*system, "system", {"text"}, {"cache_control", "citations"}, body);
  if (texts.size() == 1 && texts.front().empty()) return;
  SetContent(std::move(texts), &message);
  to->Add(std::move(message), "system");
}

void ReadAnthropicTools(FieldReader* body, ToolList* tools) {
  const JsonValue::Array* list = body->Array("tools");
  if (list == nullptr) return;
  for (size_t i = 0; i < list->size() && body->ok(); ++i) {
    const std::string path = fmt::format("tools[{}]", i);
    FieldReader tool((*list)[i], path);
    std::string type = "custom", name, description;
    tool.Take("type", &type);
    if (tool.ok() && type != "custom") {
      tool.Fail(WithReason(
          Unimplemented("{}.type is {}; this server runs no tools and reads only those of the type "
                        "\"custom\", which have an input_schema; leave the tool out",
                        path, JsonValue(type).Brief()),
          Reason::kNotImplemented, path + ".type"));
    }
    tool.Take("name", &name);
    tool.Take("description", &description);
    const JsonValue* const schema = tool.Find("input_schema");
    const JsonValue* const strict = tool.Find("strict");
    for (const char* hint : {"cache_control", "eager_input_streaming", "defer_loading",
                             "allowed_callers", "input_examples"}) {
      tool.Accept(hint);
    }
    if (tool.ok() && (name.empty() || schema == nullptr)) {
      const char* missing = name.empty() ? "name" : "input_schema";
      tool.Fail(WithReason(Invalid("{}.{} is missing; send it", path, missing), Reason::kOutOfRange,
                           fmt::format("{}.{}", path, missing)));
    }
    if (const absl::Status status = tool.Finish(); !status.ok()) return body->Fail(status);
    tools->Add(name, description, schema, strict);
  }
}

void ReadAnthropicToolChoice(FieldReader* body, ToolChoice* choice) {
  const JsonValue* value = body->Find("tool_choice");
  if (value == nullptr) return;
  FieldReader reader(*value, "tool_choice");
  std::string type;
  bool one = false;
  reader.Take("type", &type);
  reader.Take("name", &choice->name);
  reader.Take("disable_parallel_tool_use", &one);
  choice->parallel = !one;
  if (type == "any") {
    choice->kind = ToolChoice::Kind::kRequired;
  } else if (type == "tool") {
    choice->kind = ToolChoice::Kind::kNamed;
  } else if (type == "none") {
    choice->kind = ToolChoice::Kind::kNone;
  } else if (reader.ok() && type != "auto") {
    reader.FailType("type", JsonValue(type), "\"auto\", \"any\", \"tool\" or \"none\"");
  }
  if (const absl::Status status = reader.Finish(); !status.ok()) body->Fail(status);
}

}  // namespace

void ReadAnthropicChat(FieldReader* body, ChatPrompt* chat, std::vector<std::string>* paths) {
  Conversation conversation;
  ReadAnthropicSystem(body, &conversation);
  const JsonValue::Array* messages = body->Array("messages");
  for (size_t i = 0; messages != nullptr && i < messages->size() && body->ok(); ++i) {
    MessageReader(fmt::format("messages[{}]", i), body, &conversation).Read((*messages)[i]);
  }
  if (body->ok() && (messages == nullptr || messages->empty())) {
    body->Fail(WithReason(Invalid("messages has no message; send a list of at least one"),
                          Reason::kEmptyPrompt, "messages"));
  }
  const ChatMessage* const last = conversation.LastAssistant();
  chat->continue_final_message = last != nullptr && last->tool_calls.empty();
  chat->messages = conversation.TakeMessages();
  *paths = conversation.TakePaths();
  ToolList tools;
  ReadAnthropicTools(body, &tools);
  ReadAnthropicToolChoice(body, &chat->tool_choice);
  CheckChoice(*chat, tools, "tool_choice", body);
  chat->tools_json = tools.TakeJson();
}

}  // namespace fathom::router
