#include "router/frontend/http/responses_request.h"

#include <utility>

#include "common/reason.h"
#include "router/frontend/http/conversation.h"
#include "router/frontend/http/responses_answer.h"

namespace fathom::router {
namespace {

constexpr char kStateless[] =
    "this server keeps no responses: send the whole conversation as input";
constexpr char kLeaveOut[] = "leave it out";

std::string TypeAt(const JsonValue& value, const std::string& path) {
  FieldReader reader(value, path);
  std::string type;
  reader.Take("type", &type);
  return type;
}

// ---- Input

class InputReader {
 public:
  InputReader(FieldReader* body, Conversation* to) : body_(body), to_(to) {}

  void Read(const JsonValue& value) {
    if (const std::string* text = value.AsString()) {
      to_->Add({.role = "user", .content = *text}, "input");
    } else if (const JsonValue::Array* items = value.AsArray()) {
      for (size_t i = 0; i < items->size() && body_->ok(); ++i) {
        ReadItem((*items)[i], fmt::format("input[{}]", i));
      }
    } else {
      body_->FailType("input", value, "a text or a list of items");
    }
  }

 private:
  void ReadItem(const JsonValue& value, const std::string& path) {
    const std::string type = TypeAt(value, path);
    FieldReader item(value, path);
    item.Accept("type");
    item.Accept("id");
    item.Accept("status");
    if (type.empty() || type == "message") {
      ReadMessage(path, &item);
    } else if (type == "function_call") {
      ReadCall(path, &item);
    } else if (type == "function_call_output") {
      ReadOutput(path, &item);
    } else if (type == "reasoning") {
      ReadReasoning(path, &item);
    } else {
      return body_->Fail(WithReason(
          Unimplemented("{}.type is {}; {}", path, JsonValue(type).Brief(),
                        type == "item_reference"
                            ? kStateless
                            : "this server reads items of the types message, function_call, "
                              "function_call_output and reasoning; leave the item out"),
          Reason::kNotImplemented, path + ".type"));
    }
    if (const absl::Status status = item.Finish(); !status.ok()) body_->Fail(status);
  }

  std::vector<std::string> Texts(std::string_view name, const std::string& path,
                                 FieldReader* item) {
    const JsonValue* content = item->Find(name);
    if (content == nullptr) return {""};
    return ReadTexts(*content, fmt::format("{}.{}", path, name),
                     {"input_text", "output_text", "text", "refusal"},
                     {"annotations", "logprobs", "prompt_cache_breakpoint"}, body_);
  }

  void ReadMessage(const std::string& path, FieldReader* item) {
    ChatMessage message;
    item->Take("role", &message.role);
    item->Accept("phase");
    SetContent(Texts("content", path, item), &message);
    ChatMessage* const last = to_->LastAssistant();
    // The text that follows the reasoning of the same answer.
    if (message.role == "assistant" && last != nullptr && !last->content &&
        last->content_parts.empty() && last->tool_calls.empty()) {
      last->content = std::move(message.content);
      last->content_parts = std::move(message.content_parts);
      return;
    }
    to_->Add(std::move(message), path);
  }

  void ReadCall(const std::string& path, FieldReader* item) {
    ChatToolCall call;
    item->Take("call_id", &call.id);
    item->Take("name", &call.name);
    item->Take("arguments", &call.arguments_json);
    item->Refuse("namespace", "send the functions of the namespace as tools of their own");
    item->Accept("caller");
    to_->Assistant(path, /*fits=*/true)->tool_calls.push_back(std::move(call));
  }

  void ReadOutput(const std::string& path, FieldReader* item) {
    ChatMessage message{.role = "tool"};
    item->Take("call_id", &message.tool_call_id);
    item->Take("name", &message.name);
    item->Accept("caller");
    SetContent(Texts("output", path, item), &message);
    to_->Add(std::move(message), path);
  }

  // The reasoning is that of the message or the calls that follow it.
  void ReadReasoning(const std::string& path, FieldReader* item) {
    std::string text;
    // The text itself; else its summary, which is all that other servers give.
    for (const char* name : {"content", "summary"}) {
      const JsonValue::Array* parts = item->Array(name);
      if (parts == nullptr || !text.empty()) continue;
      for (const std::string& part :
           ReadTexts(JsonValue(*parts), fmt::format("{}.{}", path, name),
                     {"reasoning_text", "summary_text", "text"}, {}, body_)) {
        text += part;
      }
    }
    item->Accept("encrypted_content");  // This server encrypts none.
    if (text.empty()) return;
    to_->Assistant(path, /*fits=*/false)->reasoning = std::move(text);
  }

  FieldReader* const body_;
  Conversation* const to_;
};

void ReadInput(FieldReader* body, FormRequest* read, ChatPrompt* chat) {
  Conversation conversation;
  std::optional<std::string> instructions;
  body->Take("instructions", &instructions);
  if (instructions && !instructions->empty()) {
    conversation.Add({.role = "system", .content = std::move(instructions)}, "instructions");
  }
  if (const JsonValue* input = body->Find("input")) {
    InputReader(body, &conversation).Read(*input);
  } else if (body->ok()) {
    body->Fail(WithReason(Invalid("input is missing; send a text or a list of items"),
                          Reason::kEmptyPrompt, "input"));
  }
  chat->messages = conversation.TakeMessages();
  read->form.names.messages = conversation.TakePaths();
}

// ---- Tools

// `kept`: the JSON of the tools that are not left out.
void ReadResponseTools(FieldReader* body, ToolList* tools, JsonWriter* kept) {
  kept->BeginArray();
  if (const JsonValue::Array* list = body->Array("tools")) {
    for (size_t i = 0; i < list->size() && body->ok(); ++i) {
      const std::string path = fmt::format("tools[{}]", i);
      FieldReader tool((*list)[i], path);
      std::string type, name, description;
      tool.Take("type", &type);
      if (!tool.ok()) {
        body->Fail(tool.Finish());
        return;
      }
      if (type != "function") continue;
      tool.Take("name", &name);
      tool.Take("description", &description);
      const JsonValue* const parameters = tool.Find("parameters");
      const JsonValue* const strict = tool.Find("strict");
      for (const char* hint : {"defer_loading", "allowed_callers", "output_schema"}) {
        tool.Accept(hint);
      }
      if (name.empty()) {
        tool.Fail(WithReason(Invalid("{}.name is missing; send the function's name", path),
                             Reason::kOutOfRange, path + ".name"));
      }
      if (const absl::Status status = tool.Finish(); !status.ok()) return body->Fail(status);
      tools->Add(name, description, parameters, strict);
      kept->Raw(ToJsonText((*list)[i]));
    }
  }
  kept->EndArray();
}

// The choice as JSON.
std::string ReadResponseToolChoice(FieldReader* body, ToolChoice* choice) {
  const JsonValue* value = body->Find("tool_choice");
  if (value == nullptr) return "\"auto\"";
  const std::string* word = value->AsString();
  if (word == nullptr) {
    FieldReader named(*value, "tool_choice");
    std::string type;
    named.Take("type", &type);
    named.Take("name", &choice->name);
    if (named.ok() && type != "function") {
      named.Fail(WithReason(
          Unimplemented("tool_choice.type is {}; this version supports only \"function\" with the "
                        "function's name, and the texts \"auto\", \"none\" and \"required\"",
                        JsonValue(type).Brief()),
          Reason::kNotImplemented, "tool_choice.type"));
    }
    if (const absl::Status status = named.Finish(); !status.ok()) body->Fail(status);
    choice->kind = ToolChoice::Kind::kNamed;
  } else if (*word == "required") {
    choice->kind = ToolChoice::Kind::kRequired;
  } else if (*word == "none") {
    choice->kind = ToolChoice::Kind::kNone;
  } else if (*word != "auto") {
    body->FailType("tool_choice", *value, "\"auto\", \"none\", \"required\" or a function");
  }
  return ToJsonText(*value);
}

// ---- Other fields

void ReadInclude(FieldReader* body) {
  const JsonValue::Array* list = body->Array("include");
  if (list == nullptr) return;
  for (size_t i = 0; i < list->size() && body->ok(); ++i) {
    const std::string* name = (*list)[i].AsString();
    // The reasoning is in the answer as text, so nothing has to be encrypted.
    if (name != nullptr && *name == "reasoning.encrypted_content") continue;
    body->Fail(WithReason(
        Unimplemented("include[{}] is {}; this version supports only "
                      "\"reasoning.encrypted_content\", which is null because the reasoning is "
                      "there as text; for log-probabilities use /v1/chat/completions",
                      i, (*list)[i].Brief()),
        Reason::kNotImplemented, "include"));
  }
}

// The members as JSON.
std::string ReadResponseReasoning(FieldReader* body, OpenAiRequest* request) {
  std::optional<std::string> effort, summary;
  if (const JsonValue* value = body->Find("reasoning")) {
    FieldReader reasoning(*value, "reasoning");
    reasoning.Take("effort", &effort);
    reasoning.Take("summary", &summary);
    reasoning.Take("generate_summary", &summary);
    if (const absl::Status status = reasoning.Finish(); !status.ok()) body->Fail(status);
  }
  if (effort) request->params.thinking.effort = *effort;
  JsonWriter json;
  json.BeginObject().Key("effort");
  effort ? json.String(*effort) : json.Null();
  json.Key("summary").Null().EndObject();  // The whole reasoning is given instead.
  return json.Take();
}

void ReadText(FieldReader* body) {
  const JsonValue* value = body->Find("text");
  if (value == nullptr) return;
  FieldReader text(*value, "text");
  text.Only("format", {"{\"type\": \"text\"}"}, "ask for the form in the input");
  text.Only("verbosity", {"\"medium\""}, "ask for it in the input");
  if (const absl::Status status = text.Finish(); !status.ok()) body->Fail(status);
}

void RefuseResponseFields(FieldReader* body) {
  body->Only("store", {"false"}, "send false: this server keeps no responses");
  body->Refuse("previous_response_id", kStateless);
  body->Refuse("conversation", kStateless);
  body->Only("background", {"false"}, "send stream true instead");
  body->Refuse("background_options", kLeaveOut);
  body->Only("truncation", {"\"disabled\""}, "send a shorter input");
  body->Only("service_tier", {"\"auto\"", "\"default\""}, kLeaveOut);
  body->Only("prompt_cache_retention", {"\"in_memory\"", "\"in-memory\""}, kLeaveOut);
  body->Only("top_logprobs", {"0"}, "/v1/chat/completions has log-probabilities");
  body->Refuse("prompt", "send the text of the prompt as input");
  body->Refuse("context_management", "send a shorter input");
  for (const char* other : {"moderation", "access_programs", "image"}) {
    body->Refuse(other, kLeaveOut);
  }
  // `max_tool_calls` limits tools that the server itself runs, and there are none.
  for (const char* accepted : {"user", "safety_identifier", "prompt_cache_key",
                               "prompt_cache_options", "client_metadata", "max_tool_calls"}) {
    body->Accept(accepted);
  }
  if (const JsonValue* value = body->Find("stream_options")) {
    FieldReader options(*value, "stream_options");
    options.Only("include_obfuscation", {"false"}, kLeaveOut);
    if (const absl::Status status = options.Finish(); !status.ok()) body->Fail(status);
  }
}

void ReadResponseStop(FieldReader* body, PublicStop* stop) {
  if (const JsonValue* strings = body->Find("stop")) {
    if (const std::string* one = strings->AsString()) {
      stop->strings.push_back(*one);
    } else {
      body->Take("stop", &stop->strings);
    }
  }
  body->Take("max_output_tokens", &stop->max_tokens);
}

void Repeat(std::string_view name, FieldReader* body, JsonWriter* json) {
  const JsonValue* value = body->Find(name);
  json->Key(name).Raw(value == nullptr ? "null" : ToJsonText(*value));
}

}  // namespace

absl::StatusOr<FormRequest> ReadResponses(const JsonValue& value) {
  FormRequest read;
  OpenAiRequest& request = read.request;
  FieldReader body(value, "");
  ChatPrompt chat;
  ReadServerFields(&body, &request, &chat);
  ReadInput(&body, &read, &chat);
  ReadResponseStop(&body, &request.params.stop);
  ToolList tools;
  JsonWriter kept;
  ReadResponseTools(&body, &tools, &kept);
  const std::string choice = ReadResponseToolChoice(&body, &chat.tool_choice);
  body.Take("parallel_tool_calls", &chat.tool_choice.parallel);
  CheckChoice(chat, tools, "tool_choice", &body);
  ReadInclude(&body);
  ReadText(&body);
  RefuseResponseFields(&body);
  JsonWriter echo;
  echo.BeginObject();
  for (const char* name : {"instructions", "max_output_tokens", "max_tool_calls",
                           "prompt_cache_key", "safety_identifier", "user"}) {
    Repeat(name, &body, &echo);
  }
  echo.Key("metadata");
  const JsonValue* metadata = body.Find("metadata");
  echo.Raw(metadata == nullptr ? "{}" : ToJsonText(*metadata));
  echo.Key("reasoning").Raw(ReadResponseReasoning(&body, &request));
  echo.Key("tools").Raw(kept.text()).Key("tool_choice").Raw(choice);
  echo.Key("parallel_tool_calls").Bool(chat.tool_choice.parallel);
  FATHOM_RETURN_IF_ERROR(body.Finish());
  chat.tools_json = tools.TakeJson();
  request.prompts.emplace_back(std::move(chat));
  read.form.names.max_tokens = "max_output_tokens";
  read.form.names.prompt = "input";
  read.form.names.effort = "reasoning.effort";
  read.form.writer = [echo = echo.Take()](AnswerParts parts) -> std::unique_ptr<AnswerWriter> {
    return std::make_unique<ResponsesAnswer>(std::move(parts), echo);
  };
  return read;
}

}  // namespace fathom::router
