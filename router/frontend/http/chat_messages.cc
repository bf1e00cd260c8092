#include "router/frontend/http/chat_messages.h"

#include <utility>

#include "common/reason.h"

namespace fathom::router {
namespace {

constexpr char kTextOnly[] = "this server's models read text only";

// A part of a content that is a list.
void ReadPart(const JsonValue& value, const std::string& path, FieldReader* body,
              std::vector<std::string>* texts) {
  FieldReader part(value, path);
  std::string type, text;
  part.Take("type", &type);
  if (part.ok() && type != "text" && type != "refusal") {
    return body->Fail(
        WithReason(Unimplemented("{} has the type {}; {}, so send parts of the type \"text\"", path,
                                 JsonValue(type).Brief(), kTextOnly),
                   Reason::kNotImplemented, path + ".type"));
  }
  part.Take(type == "refusal" ? "refusal" : "text", &text);
  if (const absl::Status status = part.Finish(); !status.ok()) return body->Fail(status);
  texts->push_back(std::move(text));
}

void ReadContent(FieldReader* reader, FieldReader* body, ChatMessage* message) {
  const JsonValue* content = reader->Find("content");
  if (content == nullptr) return;
  if (const std::string* text = content->AsString()) {
    message->content = *text;
  } else if (const JsonValue::Array* parts = content->AsArray()) {
    for (size_t i = 0; i < parts->size() && body->ok(); ++i) {
      ReadPart((*parts)[i], fmt::format("{}[{}]", reader->PathOf("content"), i), body,
               &message->content_parts);
    }
    if (parts->empty()) message->content = "";
  } else {
    reader->FailType("content", *content, "a string or a list of parts");
  }
}

void ReadToolCalls(FieldReader* reader, FieldReader* body, ChatMessage* message) {
  const JsonValue::Array* calls = reader->Array("tool_calls");
  if (calls == nullptr) return;
  for (size_t i = 0; i < calls->size() && body->ok(); ++i) {
    const std::string path = fmt::format("{}[{}]", reader->PathOf("tool_calls"), i);
    FieldReader call((*calls)[i], path);
    ChatToolCall to;
    call.Take("id", &to.id);
    call.Only("type", {"\"function\""}, "send calls of functions");
    call.Accept("index");
    const JsonValue* function = call.Find("function");
    if (const absl::Status status = call.Finish(); !status.ok()) return body->Fail(status);
    if (function == nullptr) {
      return body->Fail(WithReason(Invalid("{}.function is missing; send the called function's "
                                           "name and arguments",
                                           path),
                                   Reason::kOutOfRange, path + ".function"));
    }
    FieldReader called(*function, path + ".function");
    called.Take("name", &to.name);
    called.Take("arguments", &to.arguments_json);
    if (const absl::Status status = called.Finish(); !status.ok()) return body->Fail(status);
    message->tool_calls.push_back(std::move(to));
  }
}

ChatMessage ReadMessage(const JsonValue& value, const std::string& path, FieldReader* body) {
  ChatMessage message;
  FieldReader reader(value, path);
  reader.Take("role", &message.role);
  ReadContent(&reader, body, &message);
  reader.Take("name", &message.name);
  reader.Take("tool_call_id", &message.tool_call_id);
  ReadToolCalls(&reader, body, &message);
  // DeepSeek's name first, then vLLM's; the answers of this server have both.
  reader.Take("reasoning_content", &message.reasoning);
  std::optional<std::string> reasoning;
  reader.Take("reasoning", &reasoning);
  if (reasoning && message.reasoning && *reasoning != *message.reasoning) {
    reader.Fail(WithReason(Invalid("{} and {} differ; send one of them", reader.PathOf("reasoning"),
                                   reader.PathOf("reasoning_content")),
                           Reason::kOutOfRange, reader.PathOf("reasoning")));
  }
  if (reasoning) message.reasoning = std::move(reasoning);
  // What an answer has that a client may send back.
  reader.Only("refusal", {"\"\""}, "send it as content");
  reader.Only("annotations", {"[]"}, "leave it out");
  reader.Refuse("audio", kTextOnly);
  reader.Refuse("function_call", "use tool_calls");
  if (const absl::Status status = reader.Finish(); !status.ok()) body->Fail(status);
  return message;
}

constexpr char kChoices[] =
    "\"auto\", \"none\", \"required\" or {\"type\": \"function\", \"function\": {\"name\": ...}}";

void ReadToolChoice(FieldReader* body, ToolChoice* to) {
  const JsonValue* choice = body->Find("tool_choice");
  if (choice == nullptr) return;
  if (const std::string* text = choice->AsString()) {
    if (*text == "auto") return;
    if (*text != "none" && *text != "required") {
      return body->FailType("tool_choice", *choice, kChoices);
    }
    to->kind = *text == "none" ? ToolChoice::Kind::kNone : ToolChoice::Kind::kRequired;
    return;
  }
  if (choice->AsObject() == nullptr) return body->FailType("tool_choice", *choice, kChoices);
  FieldReader reader(*choice, "tool_choice");
  reader.Only("type", {"\"function\""}, "name a function");
  const JsonValue* function = reader.Find("function");
  if (const absl::Status status = reader.Finish(); !status.ok()) return body->Fail(status);
  if (function == nullptr) return body->FailType("tool_choice", *choice, kChoices);
  FieldReader named(*function, "tool_choice.function");
  named.Take("name", &to->name);
  if (const absl::Status status = named.Finish(); !status.ok()) return body->Fail(status);
  to->kind = ToolChoice::Kind::kNamed;
}

// The model sees the tools as they are written. What a tool's function must have, the API checks.
void ReadTools(FieldReader* body, ChatPrompt* chat) {
  ReadToolChoice(body, &chat->tool_choice);
  body->Take("parallel_tool_calls", &chat->tool_choice.parallel);
  const JsonValue* tools = body->Find("tools");
  if (tools == nullptr) return;
  if (tools->AsArray() == nullptr) return body->FailType("tools", *tools, "a list");
  if (tools->AsArray()->empty()) return;
  for (size_t i = 0; i < tools->AsArray()->size() && body->ok(); ++i) {
    const std::string path = fmt::format("tools[{}]", i);
    FieldReader tool((*tools->AsArray())[i], path);
    tool.Only("type", {"\"function\""}, "this server calls functions only");
    tool.Accept("function");
    if (const absl::Status status = tool.Finish(); !status.ok()) return body->Fail(status);
  }
  chat->tools_json = ToJsonText(*tools);
}

}  // namespace

void ReadTemplateVariables(FieldReader* body, ChatPrompt* chat) {
  const JsonValue::Object* kwargs = body->Object("chat_template_kwargs");
  if (kwargs == nullptr) return;
  JsonValue::Object others;
  for (const auto& [key, value] : *kwargs) {
    if (key == "enable_thinking" && value.AsBool() != nullptr) {
      chat->enable_thinking = *value.AsBool();
    } else {
      others.emplace_back(key, value);
    }
  }
  if (!others.empty()) chat->kwargs_json = ToJsonText(JsonValue(std::move(others)));
}

ChatPrompt ReadChatPrompt(FieldReader* body) {
  ChatPrompt chat;
  if (const JsonValue::Array* messages = body->Array("messages")) {
    for (size_t i = 0; i < messages->size() && body->ok(); ++i) {
      chat.messages.push_back(ReadMessage((*messages)[i], fmt::format("messages[{}]", i), body));
    }
  } else if (body->ok()) {
    body->Fail(WithReason(Invalid("messages is missing; send a list of messages"),
                          Reason::kEmptyPrompt, "messages"));
  }
  ReadTools(body, &chat);
  body->Take("add_generation_prompt", &chat.add_generation_prompt);
  body->Take("continue_final_message", &chat.continue_final_message);
  ReadTemplateVariables(body, &chat);
  body->Refuse("chat_template",
               "templates of requests are not run; start the server with "
               "--chat-template FILE");
  body->Refuse("documents", "put the documents into a message");
  body->Refuse("mm_processor_kwargs", kTextOnly);
  return chat;
}

}  // namespace fathom::router
