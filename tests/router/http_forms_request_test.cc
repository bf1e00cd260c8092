// The bodies of /v1/responses and /v1/messages: each field is honoured, or refused by its name.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "common/reason.h"
#include "router/frontend/http/anthropic_error.h"
#include "router/frontend/http/anthropic_request.h"
#include "router/frontend/http/responses_request.h"

namespace fathom::router {
namespace {

using Json = nlohmann::json;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

absl::StatusOr<FormRequest> Read(ReadFormFn read, const std::string& text) {
  const auto body = ParseBody(text);
  if (!body.ok()) return body.status();
  return read(*body);
}
FormRequest Good(ReadFormFn read, const std::string& text) {
  auto request = Read(read, text);
  EXPECT_TRUE(request.ok()) << text << ": " << ToString(request.status());
  return request.ok() ? *std::move(request) : FormRequest{};
}
const ChatPrompt& ChatOf(const FormRequest& read) {
  return std::get<ChatPrompt>(read.request.prompts.at(0));
}
// "role: content [reasoning] name(arguments)#id", one for each message.
std::vector<std::string> Lines(const ChatPrompt& chat) {
  std::vector<std::string> lines;
  for (const ChatMessage& message : chat.messages) {
    std::string line = message.role + ":";
    if (!message.tool_call_id.empty()) line += "#" + message.tool_call_id;
    if (message.content) line += " " + *message.content;
    for (const std::string& part : message.content_parts) line += " |" + part;
    if (message.reasoning) line += " [" + *message.reasoning + "]";
    for (const ChatToolCall& call : message.tool_calls) {
      line += fmt::format(" {}({})#{}", call.name, call.arguments_json, call.id);
    }
    lines.push_back(line);
  }
  return lines;
}
// A refusal of a body: the field that it names and its reason.
std::pair<std::string, std::string> RefusalOf(ReadFormFn read, const std::string& text) {
  const auto request = Read(read, text);
  EXPECT_FALSE(request.ok()) << text;
  if (request.ok()) return {};
  const ErrorDetail detail = DetailOf(request.status()).value_or(ErrorDetail{});
  // A name that the server does not know is quoted in the message: tools[0]."nmae".
  const std::string field = detail.field.substr(0, detail.field.rfind(".type"));
  const std::string named = field.substr(field.rfind('.') + 1);
  EXPECT_THAT(Message(request.status()), HasSubstr(named)) << text;
  return {detail.field, detail.reason};
}

// ---- /v1/responses

FormRequest Responses(const std::string& members) {
  return Good(ReadResponses, "{\"input\": \"Hi\", " + members + "}");
}

TEST(Responses, AConversationOfCodex) {
  const FormRequest read = Good(ReadResponses, R"({
      "model": "m", "instructions": "Be brief.", "store": false, "stream": true,
      "input": [
        {"type": "message", "role": "developer", "content": [{"type": "input_text", "text": "D"}]},
        {"role": "user", "content": "What is here?"},
        {"type": "reasoning", "id": "rs_1", "summary": [], "encrypted_content": null,
         "content": [{"type": "reasoning_text", "text": "look"}]},
        {"type": "message", "role": "assistant", "id": "msg_1", "status": "completed", "content":
         [{"type": "output_text", "text": "I look.", "annotations": [], "logprobs": []}]},
        {"type": "function_call", "id": "fc_1", "call_id": "c1", "name": "shell",
         "arguments": "{}"},
        {"type": "function_call", "call_id": "c2", "name": "shell", "arguments": "{\"a\": 1}"},
        {"type": "function_call_output", "call_id": "c1", "output": "one"},
        {"type": "function_call_output", "call_id": "c2", "output":
         [{"type": "input_text", "text": "two"}, {"type": "input_text", "text": "three"}]}],
      "tools": [{"type": "function", "name": "shell", "description": "Runs.", "strict": false,
                 "parameters": {"type": "object"}},
                {"type": "custom", "name": "apply_patch", "format": {"type": "grammar"}},
                {"type": "web_search"}, {"type": "local_shell"}, {"type": "of_the_future", "x": 1}],
      "tool_choice": "auto", "parallel_tool_calls": false,
      "reasoning": {"effort": "low", "summary": "auto"}, "include": ["reasoning.encrypted_content"],
      "prompt_cache_key": "k", "client_metadata": {"a": "b"}})");
  EXPECT_THAT(Lines(ChatOf(read)),
              ElementsAre("system: Be brief.", "developer: D", "user: What is here?",
                          "assistant: I look. [look] shell({})#c1 shell({\"a\": 1})#c2",
                          "tool:#c1 one", "tool:#c2 |two |three"));
  EXPECT_THAT(read.form.names.messages, ElementsAre("instructions", "input[0]", "input[1]",
                                                    "input[2]", "input[6]", "input[7]"));
  EXPECT_EQ(Json::parse(ChatOf(read).tools_json), Json::parse(R"([{"type": "function", "function":
      {"name": "shell", "description": "Runs.", "strict": false,
       "parameters": {"type": "object"}}}])"));
  EXPECT_FALSE(ChatOf(read).tool_choice.parallel);
  EXPECT_EQ(ChatOf(read).tool_choice.kind, ToolChoice::Kind::kAuto);
  EXPECT_EQ(read.request.params.thinking.effort, "low");
  EXPECT_TRUE(read.request.answer.stream);
  EXPECT_FALSE(read.form.can_resume);
}

TEST(Responses, FieldsOfThisServer) {
  const FormRequest read = Responses(
      R"("max_output_tokens": 9, "temperature": 0.5, "top_p": 0.75, "top_k": -1, "seed": -1,
         "stop": "x", "stop_token_ids": [4], "min_tokens": 2, "ignore_eos": true, "priority": -2,
         "cache_salt": "s", "request_id": "r", "deadline_ms": 1000,
         "chat_template_kwargs": {"enable_thinking": false, "a": 1}, "top_logprobs": 0,
         "text": {"format": {"type": "text"}, "verbosity": "medium"}, "truncation": "disabled",
         "service_tier": "auto", "background": false, "tools": [], "user": "u", "metadata": {})");
  const PublicRequest& params = read.request.params;
  EXPECT_EQ(params.stop.max_tokens, 9);
  EXPECT_EQ(params.sampling.temperature, 0.5f);
  EXPECT_EQ(params.sampling.top_k, 0);
  EXPECT_EQ(params.sampling.seed, ~uint64_t{0});
  EXPECT_THAT(params.stop.strings, ElementsAre("x"));
  EXPECT_EQ(params.request_id, "r");
  EXPECT_EQ(params.deadline_ms, 1000);
  EXPECT_EQ(params.priority, -2);
  EXPECT_EQ(params.cache.salt, "s");
  EXPECT_EQ(ChatOf(read).enable_thinking, false);
  EXPECT_EQ(ChatOf(read).kwargs_json, R"({"a": 1})");
  EXPECT_EQ(ChatOf(read).tools_json, "");
}

TEST(Responses, RefusesByName) {
  const std::tuple<const char*, const char*, const char*> cases[] = {
      {R"("store": true)", "store", "NOT_IMPLEMENTED"},
      {R"("previous_response_id": "resp_1")", "previous_response_id", "NOT_IMPLEMENTED"},
      {R"("conversation": "c")", "conversation", "NOT_IMPLEMENTED"},
      {R"("background": true)", "background", "NOT_IMPLEMENTED"},
      {R"("truncation": "auto")", "truncation", "NOT_IMPLEMENTED"},
      {R"("prompt": {"id": "p"})", "prompt", "NOT_IMPLEMENTED"},
      {R"("include": ["file_search_call.results"])", "include", "NOT_IMPLEMENTED"},
      {R"("top_logprobs": 2)", "top_logprobs", "NOT_IMPLEMENTED"},
      {R"("tool_choice": "any")", "tool_choice", "OUT_OF_RANGE"},
      {R"("tool_choice": {"type": "custom", "name": "f"})", "tool_choice.type", "NOT_IMPLEMENTED"},
      {R"("tool_choice": {"type": "function", "name": "f"})", "tool_choice", "OUT_OF_RANGE"},
      {R"("tool_choice": "required", "tools": [{"type": "web_search"}])", "tool_choice",
       "OUT_OF_RANGE"},
      {R"("tools": [{"type": "function"}])", "tools[0].name", "OUT_OF_RANGE"},
      {R"("tools": [{"type": "function", "name": "f", "nmae": 1}])", "tools[0].nmae",
       "UNKNOWN_FIELD"},
      {R"("n": 2)", "n", "UNKNOWN_FIELD"},
      {R"("max_tokens": 2)", "max_tokens", "UNKNOWN_FIELD"},
      {R"("reasoning": {"efort": "low"})", "reasoning.efort", "UNKNOWN_FIELD"},
  };
  for (const auto& [members, field, reason] : cases) {
    EXPECT_EQ(RefusalOf(ReadResponses, fmt::format("{{\"input\": \"Hi\", {}}}", members)),
              std::pair(std::string(field), std::string(reason)));
  }
  const std::tuple<const char*, const char*, const char*> inputs[] = {
      {R"({"type": "item_reference", "id": "x"})", "input[0].type", "NOT_IMPLEMENTED"},
      {R"({"type": "web_search_call", "id": "x"})", "input[0].type", "NOT_IMPLEMENTED"},
      {R"({"role": "user", "content": [{"type": "input_image"}]})", "input[0].content[0].type",
       "NOT_IMPLEMENTED"},
      {R"({"role": "user", "content": 5})", "input[0].content", "OUT_OF_RANGE"},
      {R"({"type": "function_call", "call_id": "c", "name": 4})", "input[0].name", "OUT_OF_RANGE"},
  };
  for (const auto& [item, field, reason] : inputs) {
    EXPECT_EQ(RefusalOf(ReadResponses, fmt::format("{{\"input\": [{}]}}", item)),
              std::pair(std::string(field), std::string(reason)));
  }
  EXPECT_EQ(RefusalOf(ReadResponses, "{}").first, "input");
}

// ---- /v1/messages

FormRequest Messages(const std::string& members) {
  return Good(
      ReadMessages,
      R"({"max_tokens": 5, "messages": [{"role": "user", "content": "Hi"}], )" + members + "}");
}

TEST(Messages, AConversationOfClaudeCode) {
  const FormRequest read = Good(ReadMessages, R"({
      "model": "m", "max_tokens": 32000, "stream": true,
      "metadata": {"user_id": "u"}, "temperature": 1, "top_k": 5,
      "system": [{"type": "text", "text": "One."},
                 {"type": "text", "text": "Two.", "cache_control": {"type": "ephemeral"}}],
      "messages": [
        {"role": "user", "content": [{"type": "text", "text": "Look."}]},
        {"role": "assistant", "content": [
          {"type": "thinking", "thinking": "hm", "signature": "s"},
          {"type": "text", "text": "I do."},
          {"type": "tool_use", "id": "t1", "name": "ls", "input": {"path": "/"}},
          {"type": "tool_use", "id": "t2", "name": "ls", "input": {}}]},
        {"role": "user", "content": [
          {"type": "tool_result", "tool_use_id": "t1", "content": "a b"},
          {"type": "tool_result", "tool_use_id": "t2", "is_error": true,
           "content": [{"type": "text", "text": "none", "cache_control": {"type": "ephemeral"}}]},
          {"type": "text", "text": "Go on."}]}],
      "tools": [{"name": "ls", "description": "Lists.", "cache_control": {"type": "ephemeral"},
                 "input_schema": {"type": "object"}}],
      "tool_choice": {"type": "any", "disable_parallel_tool_use": true},
      "thinking": {"type": "enabled", "budget_tokens": 2048},
      "context_management": {"edits": [{"type": "clear_thinking_20251015", "keep": "all"}]},
      "stop_sequences": ["END"], "service_tier": "auto"})");
  EXPECT_THAT(Lines(ChatOf(read)),
              ElementsAre("system: |One. |Two.", "user: Look.",
                          "assistant: I do. [hm] ls({\"path\": \"/\"})#t1 ls({})#t2",
                          "tool:#t1 a b", "tool:#t2 Error: none", "user: Go on."));
  EXPECT_THAT(read.form.names.messages,
              ElementsAre("system", "messages[0]", "messages[1]", "messages[2].content[0]",
                          "messages[2].content[1]", "messages[2]"));
  EXPECT_EQ(Json::parse(ChatOf(read).tools_json), Json::parse(R"([{"type": "function", "function":
      {"name": "ls", "description": "Lists.", "parameters": {"type": "object"}}}])"));
  EXPECT_EQ(ChatOf(read).tool_choice.kind, ToolChoice::Kind::kRequired);
  EXPECT_FALSE(ChatOf(read).tool_choice.parallel);
  EXPECT_EQ(ChatOf(read).enable_thinking, true);
  EXPECT_EQ(read.request.params.thinking.token_budget, 2048);
  EXPECT_FALSE(ChatOf(read).continue_final_message);
  EXPECT_EQ(read.request.params.stop.max_tokens, 32000);
  EXPECT_THAT(read.request.params.stop.strings, ElementsAre("END"));
}

TEST(Messages, AnAnswerThatHasBegunIsContinued) {
  const FormRequest read = Good(ReadMessages, R"({"max_tokens": 5, "messages": [
      {"role": "user", "content": "Hi"}, {"role": "assistant", "content": "The"}]})");
  EXPECT_TRUE(ChatOf(read).continue_final_message);
  EXPECT_THAT(Lines(ChatOf(read)), ElementsAre("user: Hi", "assistant: The"));
}

TEST(Messages, Thinking) {
  EXPECT_EQ(ChatOf(Messages(R"("stream": false)")).enable_thinking, std::nullopt);
  EXPECT_EQ(ChatOf(Messages(R"("thinking": {"type": "disabled"})")).enable_thinking, false);
  const FormRequest read = Messages(
      R"("thinking": {"type": "adaptive", "display": "omitted"},
         "output_config": {"effort": "max"})");
  EXPECT_EQ(ChatOf(read).enable_thinking, true);
  EXPECT_EQ(read.request.params.thinking.effort, "xhigh");
  EXPECT_FALSE(read.request.answer.include_reasoning);
}

TEST(Messages, RefusesByName) {
  const std::tuple<const char*, const char*, const char*> cases[] = {
      {R"("thinking": {"type": "sometimes"})", "thinking.type", "OUT_OF_RANGE"},
      {R"("thinking": {"type": "disabled", "budget_tokens": 5})", "thinking.budget_tokens",
       "OUT_OF_RANGE"},
      {R"("tools": [{"type": "web_search_20250305", "name": "web_search"}])", "tools[0].type",
       "NOT_IMPLEMENTED"},
      {R"("tools": [{"name": "f"}])", "tools[0].input_schema", "OUT_OF_RANGE"},
      {R"("tool_choice": {"type": "tool", "name": "g"})", "tool_choice", "OUT_OF_RANGE"},
      {R"("tool_choice": {"type": "required"})", "tool_choice.type", "OUT_OF_RANGE"},
      {R"("mcp_servers": [{"url": "x"}])", "mcp_servers", "NOT_IMPLEMENTED"},
      {R"("container": "c")", "container", "NOT_IMPLEMENTED"},
      {R"("context_management": {"edits": [{"type": "clear_tool_uses_20250919"}]})",
       "context_management", "NOT_IMPLEMENTED"},
      {R"("stop": "x")", "stop", "UNKNOWN_FIELD"},
      {R"("n": 2)", "n", "UNKNOWN_FIELD"},
  };
  for (const auto& [members, field, reason] : cases) {
    EXPECT_EQ(
        RefusalOf(ReadMessages,
                  fmt::format("{{\"messages\": [{{\"role\": \"user\", \"content\": \"Hi\"}}], "
                              "{}}}",
                              members)),
        std::pair(std::string(field), std::string(reason)));
  }
  const std::tuple<const char*, const char*, const char*> messages[] = {
      {R"({"role": "tool", "content": "x"})", "messages[0].role", "UNKNOWN_ROLE"},
      {R"({"role": "user"})", "messages[0].content", "OUT_OF_RANGE"},
      {R"({"role": "user", "content": [{"type": "image"}]})", "messages[0].content[0].type",
       "NOT_IMPLEMENTED"},
      {R"({"role": "user", "content": [{"type": "tool_use", "id": "a", "name": "f",
           "input": {}}]})",
       "messages[0].content[0].type", "NOT_IMPLEMENTED"},
      {R"({"role": "assistant", "content": [{"type": "tool_use", "id": "a", "name": "f"}]})",
       "messages[0].content[0].input", "OUT_OF_RANGE"},
      {R"({"role": "assistant", "content": [{"type": "tool_use", "id": "a", "name": "f",
           "input": "{}"}]})",
       "messages[0].content[0].input", "OUT_OF_RANGE"},
  };
  for (const auto& [message, field, reason] : messages) {
    EXPECT_EQ(RefusalOf(ReadMessages, fmt::format("{{\"messages\": [{}]}}", message)),
              std::pair(std::string(field), std::string(reason)));
  }
  EXPECT_EQ(RefusalOf(ReadMessages, R"({"messages": []})").first, "messages");
}

TEST(Messages, CountTokensTakesTheSameBody) {
  const auto body = ParseBody(R"({"model": "m", "system": "S", "messages":
      [{"role": "user", "content": "Hi"}], "tools": [{"name": "f", "input_schema": {}}],
      "thinking": {"type": "disabled"}})");
  const auto read = ReadCountTokens(*body);
  ASSERT_TRUE(read.ok()) << ToString(read.status());
  EXPECT_EQ(read->model, "m");
  EXPECT_THAT(Lines(read->chat), ElementsAre("system: S", "user: Hi"));
  EXPECT_EQ(read->chat.enable_thinking, false);
  EXPECT_FALSE(read->chat.tools_json.empty());
}

// ---- Errors

TEST(FormErrors, NameTheMessageAsTheBodyHasIt) {
  const FormRequest read = Good(ReadResponses,
                                R"({"instructions": "I", "input": [{"role": "user", "content": "a"},
                                         {"role": "x", "content": ""}]})");
  const absl::Status status =
      WithReason(Invalid("messages[2].role is \"x\"; messages[0] and messages[9] are not"),
                 Reason::kUnknownRole, "messages[2].role");
  const ErrorParts parts = PartsOf(status, read.form.names);
  EXPECT_EQ(parts.param, "input[1].role");
  EXPECT_EQ(parts.message, "input[1].role is \"x\"; instructions and messages[9] are not");
  const absl::Status whole =
      WithReason(Invalid("the prompt is too long"), Reason::kContextLengthExceeded, "prompt");
  EXPECT_EQ(PartsOf(whole, read.form.names).param, "input");
}

// Every reason has a type of Anthropic's, which decides with the status what its clients repeat.
TEST(FormErrors, AnthropicsObject) {
  for (const ReasonRow& row : Reasons()) {
    const absl::Status status =
        WithReason(MakeStatus(row.code, "m"), row.reason, "stop.strings", 1500);
    const http::Response answer = AnthropicErrorAnswer(status, {.stop = "stop_sequences"});
    EXPECT_EQ(answer.status, HttpStatusOf(status));
    const Json json = Json::parse(answer.body);
    EXPECT_EQ(json["type"], "error");
    EXPECT_EQ(json["error"]["message"], "m");
    EXPECT_EQ(json["error"]["param"], "stop_sequences");
    EXPECT_TRUE(json["error"]["type"].get<std::string>().ends_with("_error")) << row.text;
    EXPECT_THAT(answer.headers, testing::Contains(std::pair("retry-after-ms", "1500")));
  }
  http::Request request;
  EXPECT_TRUE(CheckAnthropicVersion(request).ok());
  for (const char* version : {"2023-06-01", "2026-10-21"}) {
    request.headers = {{"anthropic-version", version}};
    EXPECT_TRUE(CheckAnthropicVersion(request).ok());
  }
  request.headers = {{"anthropic-version", "2023-01-01"}};
  EXPECT_THAT(Message(CheckAnthropicVersion(request)), HasSubstr("2023-06-01"));
}

}  // namespace
}  // namespace fathom::router
