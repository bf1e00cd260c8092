// The bodies of OpenAI's endpoints: each field is honoured, or refused by its name.
#include "router/frontend/http/openai_request.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "common/reason.h"
#include "router/frontend/http/field_reader.h"

namespace fathom::router {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

absl::StatusOr<OpenAiRequest> Chat(const std::string& members) {
  const auto body = ParseBody("{\"messages\": [{\"role\": \"user\", \"content\": \"Hi\"}]" +
                              (members.empty() ? "" : ", " + members) + "}");
  if (!body.ok()) return body.status();
  return ReadChatCompletion(*body);
}
absl::StatusOr<OpenAiRequest> Complete(const std::string& members) {
  const auto body = ParseBody("{" + members + "}");
  if (!body.ok()) return body.status();
  return ReadCompletion(*body);
}
OpenAiRequest GoodChat(const std::string& members) {
  auto request = Chat(members);
  EXPECT_TRUE(request.ok()) << members << ": " << ToString(request.status());
  return request.ok() ? *std::move(request) : OpenAiRequest{};
}
OpenAiRequest GoodCompletion(const std::string& members) {
  auto request = Complete(members);
  EXPECT_TRUE(request.ok()) << members << ": " << ToString(request.status());
  return request.ok() ? *std::move(request) : OpenAiRequest{};
}
std::string FieldOf(const absl::Status& status) {
  return DetailOf(status).value_or(ErrorDetail{}).field;
}
std::string ReasonOf(const absl::Status& status) {
  return DetailOf(status).value_or(ErrorDetail{}).reason;
}

TEST(HttpRequest, AChatHasAllFields) {
  const OpenAiRequest request = GoodChat(
      R"("model": "m", "temperature": 0.5, "top_p": 1, "top_k": -1, "min_p": 0.25, "typical_p":
      0.75, "repetition_penalty": 1.5, "presence_penalty": -1, "frequency_penalty": 2, "seed":
      -1, "n": 3, "stop": "END", "stop_token_ids": [4, 5], "min_tokens": 1, "ignore_eos":
      true, "include_stop_str_in_output": true, "max_completion_tokens": 7, "logprobs": true,
      "top_logprobs": 2, "logit_bias": {"9": -100, "3": 1.5}, "skip_special_tokens": false,
      "stream": true, "return_token_ids": true, "timings": true, "stream_options":
      {"include_usage": true, "continuous_usage_stats": true}, "deadline_ms": 5000,
      "request_id": "r", "truncate_prompt_tokens": 12, "include_reasoning": false, "user":
      "u", "return_tokens_as_token_ids": true, "priority": -3, "cache_salt": "tenant",
      "parallel_tool_calls": true,
      "store": false, "response_format": {"type": "text"}, "best_of": 3, "metadata": {"a":
      "b"}, "use_beam_search": false)");
  const PublicRequest& params = request.params;
  EXPECT_EQ(params.model, "m");
  EXPECT_EQ(params.sampling.temperature, 0.5f);
  EXPECT_EQ(params.sampling.top_p, 1.0f);
  EXPECT_EQ(params.sampling.top_k, 0);  // -1 is vLLM's value for off.
  EXPECT_EQ(params.sampling.min_p, 0.25f);
  EXPECT_EQ(params.sampling.typical_p, 0.75f);
  EXPECT_EQ(params.sampling.repetition_penalty, 1.5f);
  EXPECT_EQ(params.sampling.presence_penalty, -1.0f);
  EXPECT_EQ(params.sampling.frequency_penalty, 2.0f);
  EXPECT_EQ(params.sampling.seed, ~uint64_t{0});
  EXPECT_EQ(params.sampling.n, 3);
  EXPECT_THAT(params.sampling.logit_bias, ElementsAre(std::pair(3, 1.5f), std::pair(9, -100.0f)));
  EXPECT_THAT(params.stop.strings, ElementsAre("END"));
  EXPECT_THAT(params.stop.token_ids, ElementsAre(4, 5));
  EXPECT_EQ(params.stop.min_tokens, 1);
  EXPECT_TRUE(params.stop.ignore_eos);
  EXPECT_TRUE(params.stop.include_stop);
  EXPECT_EQ(params.stop.max_tokens, 7);
  EXPECT_EQ(params.output.logprobs, 2);
  EXPECT_TRUE(params.output.keep_special);
  EXPECT_EQ(params.output.ids, true);
  EXPECT_EQ(params.deadline_ms, 5000);
  EXPECT_EQ(params.request_id, "r");
  EXPECT_EQ(params.priority, -3);
  EXPECT_EQ(params.cache.salt, "tenant");
  EXPECT_EQ(request.truncate_prompt_tokens, 12);
  const AnswerOptions& answer = request.answer;
  EXPECT_TRUE(answer.chat && answer.stream && answer.include_usage && answer.continuous_usage &&
              answer.logprobs && answer.return_token_ids && answer.tokens_as_token_ids &&
              answer.timings && !answer.include_reasoning && !answer.skip_special && !answer.echo);
  EXPECT_EQ(answer.n, 3);
  EXPECT_EQ(answer.max_tokens_name, "max_completion_tokens");
}

TEST(HttpRequest, AbsentAndNullAreTheSame) {
  const OpenAiRequest plain = GoodChat("");
  const OpenAiRequest nulls = GoodChat(
      R"("temperature": null, "n": null, "stop": null, "logprobs": null, "tools": null,
         "seed": null, "stream": null, "stream_options": null,
         "reasoning_effort": null, "functions": null)");
  EXPECT_EQ(plain.params.sampling.temperature, std::nullopt);
  EXPECT_EQ(nulls.params.sampling.temperature, std::nullopt);
  EXPECT_EQ(nulls.params.output.logprobs, std::nullopt);
  EXPECT_EQ(plain.params.output.ids, false);
  EXPECT_EQ(nulls.params.stop.max_tokens, std::nullopt);
  EXPECT_EQ(GoodCompletion(R"("prompt": "x")").params.stop.max_tokens, 16);  // OpenAI's default.
}

TEST(HttpRequest, MessagesAndTheTemplatesOptions) {
  const auto body = ParseBody(R"({"messages": [
      {"role": "system", "content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]},
      {"role": "assistant", "content": null, "reasoning_content": "r", "reasoning": "r",
       "refusal": null, "tool_calls": [{"id": "c1", "type": "function", "index": 0,
                       "function": {"name": "f", "arguments": "{\"x\": 1}"}}]},
      {"role": "tool", "content": "7", "tool_call_id": "c1", "name": "f"}],
      "tools": [{"type": "function",
                 "function": {"name": "f", "parameters": {"b": 1.0, "a": [true, null]}}}],
      "tool_choice": "none", "add_generation_prompt": false, "continue_final_message": true,
      "chat_template_kwargs": {"enable_thinking": false, "other": "x"}})");
  ASSERT_TRUE(body.ok());
  const auto request = ReadChatCompletion(*body);
  ASSERT_TRUE(request.ok()) << ToString(request.status());
  const auto& chat = std::get<ChatPrompt>(request->prompts.at(0));
  ASSERT_EQ(chat.messages.size(), 3u);
  EXPECT_THAT(chat.messages[0].content_parts, ElementsAre("a", "b"));
  EXPECT_EQ(chat.messages[1].content, std::nullopt);
  EXPECT_EQ(chat.messages[1].reasoning, "r");
  ASSERT_EQ(chat.messages[1].tool_calls.size(), 1u);
  EXPECT_EQ(chat.messages[1].tool_calls[0].arguments_json, "{\"x\": 1}");
  EXPECT_EQ(chat.messages[2].tool_call_id, "c1");
  // As json.dumps writes it, in the order of the body.
  EXPECT_EQ(chat.tools_json, R"([{"type": "function", "function": {"name": "f", )"
                             R"("parameters": {"b": 1.0, "a": [true, null]}}}])");
  EXPECT_EQ(chat.add_generation_prompt, false);
  EXPECT_TRUE(chat.continue_final_message);
  EXPECT_EQ(chat.enable_thinking, false);
  EXPECT_EQ(chat.kwargs_json, R"({"other": "x"})");
}

TEST(HttpRequest, ToolChoiceAndThinking) {
  const auto chat_of = [](const std::string& members) {
    const OpenAiRequest request = GoodChat(members);
    return std::get<ChatPrompt>(request.prompts.at(0));
  };
  using Kind = ToolChoice::Kind;
  EXPECT_EQ(chat_of("").tool_choice.kind, Kind::kAuto);
  EXPECT_TRUE(chat_of("").tool_choice.parallel);
  EXPECT_EQ(chat_of(R"("tool_choice": "auto")").tool_choice.kind, Kind::kAuto);
  EXPECT_EQ(chat_of(R"("tool_choice": "required")").tool_choice.kind, Kind::kRequired);
  const ChatPrompt named = chat_of(
      R"("tool_choice": {"type": "function", "function": {"name": "f"}},
         "parallel_tool_calls": false)");
  EXPECT_EQ(named.tool_choice.kind, Kind::kNamed);
  EXPECT_EQ(named.tool_choice.name, "f");
  EXPECT_FALSE(named.tool_choice.parallel);
  const OpenAiRequest thinking =
      GoodChat(R"("thinking_token_budget": 5, "reasoning_effort": "low")");
  EXPECT_EQ(thinking.params.thinking.token_budget, 5);
  EXPECT_EQ(thinking.params.thinking.effort, "low");
}

TEST(HttpRequest, PromptsInAllTheirForms) {
  EXPECT_EQ(std::get<std::string>(GoodCompletion(R"("prompt": "x")").prompts.at(0)), "x");
  const OpenAiRequest ids = GoodCompletion(R"("prompt": [1, 2.0])");
  EXPECT_THAT(std::get<std::vector<TokenId>>(ids.prompts.at(0)), ElementsAre(1, 2));
  EXPECT_FALSE(ids.prompt_list);
  const OpenAiRequest texts = GoodCompletion(R"("prompt": ["a", "b"])");
  EXPECT_EQ(std::get<std::string>(texts.prompts.at(1)), "b");
  EXPECT_TRUE(texts.prompt_list);
  const OpenAiRequest lists =
      GoodCompletion(R"("prompt": [[1], [2, 3]], "echo": true, "logprobs": 4)");
  EXPECT_THAT(std::get<std::vector<TokenId>>(lists.prompts.at(1)), ElementsAre(2, 3));
  EXPECT_EQ(lists.params.output.prompt_logprobs, 4);
  EXPECT_FALSE(lists.answer.prompt_logprobs);  // They stand in `logprobs`.
}

// {members, the field of the error, a part of its message}.
TEST(HttpRequest, RefusalsNameTheFieldAndTheWayOut) {
  const struct {
    std::string members, field, text;
    Reason reason;
  } cases[] = {
      {R"("temprature": 1)", "temprature", "did you mean temperature?", Reason::kUnknownField},
      {R"("zzzzzzzz\u0000": 1)", std::string("zzzzzzzz\0", 9), "does not know; leave it out",
       Reason::kUnknownField},
      {R"("temperature": "hot")", "temperature", "temperature is \"hot\"; it must be a number",
       Reason::kOutOfRange},
      {R"("n": 1.5)", "n", "n is 1.5; it must be an integer", Reason::kOutOfRange},
      {R"("max_tokens": 99999999999)", "max_tokens", "32 bits", Reason::kOutOfRange},
      {R"("stream": 1)", "stream", "true or false", Reason::kOutOfRange},
      {R"("stop": ["a", 1])", "stop[1]", "it must be a string", Reason::kOutOfRange},
      {R"("stop_token_ids": ["a"])", "stop_token_ids[0]", "token id", Reason::kOutOfRange},
      {R"("logit_bias": {"x": 1})", "logit_bias", "/tokenize gives", Reason::kOutOfRange},
      {R"("logit_bias": {"1": 1, "01": 2})", "logit_bias", "twice", Reason::kOutOfRange},
      {R"("logit_bias": {"1": "a"})", "logit_bias", "must be a number", Reason::kOutOfRange},
      {R"("logprobs": 3)", "logprobs", "true or false", Reason::kOutOfRange},
      {R"("top_logprobs": 3)", "top_logprobs", "logprobs is not true", Reason::kOutOfRange},
      {R"("stream_options": {})", "stream_options", "stream is not true", Reason::kOutOfRange},
      {R"("stream": true, "stream_options": {"include_usages": true})",
       "stream_options.include_usages", "did you mean include_usage?", Reason::kUnknownField},
      {R"("max_tokens": 3, "max_completion_tokens": 4)", "max_tokens", "send one of them",
       Reason::kOutOfRange},
      {R"("best_of": 2)", "best_of", "not supported", Reason::kNotImplemented},
      {R"("tools": [{"type": "custom"}])", "tools[0].type", "functions only",
       Reason::kNotImplemented},
      {R"("tools": {})", "tools", "a list", Reason::kOutOfRange},
      {R"("tool_choice": "any")", "tool_choice", "\"required\"", Reason::kOutOfRange},
      {R"("tool_choice": {"type": "function"})", "tool_choice", "\"name\"", Reason::kOutOfRange},
      {R"("tool_choice": {"type": "allowed_tools"})", "tool_choice.type", "name a function",
       Reason::kNotImplemented},
      {R"("parallel_tool_calls": 1)", "parallel_tool_calls", "", Reason::kOutOfRange},
      {R"("response_format": {"type": "xml"})", "response_format.type", "json_schema",
       Reason::kOutOfRange},
      {R"("response_format": "json_object")", "response_format", "an object", Reason::kOutOfRange},
      {R"("response_format": {"type": "json_schema"})", "response_format.json_schema", "missing",
       Reason::kOutOfRange},
      {R"("response_format": {"type": "json_object", "x": 1})", "response_format.x", "",
       Reason::kUnknownField},
      {R"("guided_json": {}, "guided_regex": "a")", "guided_regex", "both set",
       Reason::kOutOfRange},
      {R"("structured_outputs": {"whitespace_pattern": "x"})",
       "structured_outputs.whitespace_pattern", "", Reason::kNotImplemented},
      {R"("guided_decoding_backend": "outlines")", "guided_decoding_backend", "xgrammar",
       Reason::kNotImplemented},
      {R"("use_beam_search": true)", "use_beam_search", "supports only false",
       Reason::kNotImplemented},
      {R"("chat_template": "{{ x }}")", "chat_template", "--chat-template FILE",
       Reason::kNotImplemented},
      {R"("service_tier": "flex")", "service_tier", "\"auto\" and \"default\"",
       Reason::kNotImplemented},
  };
  for (const auto& c : cases) {
    const absl::Status status = Chat(c.members).status();
    EXPECT_EQ(FieldOf(status), c.field) << c.members << ": " << ToString(status);
    EXPECT_EQ(ReasonOf(status), ReasonText(c.reason)) << ToString(status);
    EXPECT_THAT(std::string(Message(status)), HasSubstr(c.text));
  }
  for (const char* field :
       {"functions", "function_call", "audio", "prediction", "web_search_options",
        "guided_whitespace_pattern", "kv_transfer_params", "documents", "logprob_token_ids"}) {
    const absl::Status status = Chat(fmt::format("\"{}\": \"x\"", field)).status();
    EXPECT_EQ(FieldOf(status), field);
    EXPECT_EQ(ReasonOf(status), "NOT_IMPLEMENTED") << ToString(status);
  }
}

// Each spelling of a grammar gives the same spec, whose field names what the client wrote.
TEST(HttpRequest, GuidedOutput) {
  const auto guided = [](const std::string& members) {
    const auto request = Chat(members);
    EXPECT_TRUE(request.ok()) << members << ": " << ToString(request.status());
    return request.ok() ? request->params.guided : std::nullopt;
  };
  EXPECT_FALSE(guided(R"("response_format": {"type": "text"})").has_value());
  EXPECT_FALSE(guided(R"("structured_outputs": {"json_object": false})").has_value());
  using enum GrammarKind;
  const GrammarSpec object{.kind = kJsonObject};
  const GrammarSpec schema{.kind = kJsonSchema, .text = R"({"type": "object", "b": 1, "a": 2})"};
  GrammarSpec open = schema;
  open.closed = false;
  const GrammarSpec choice{.kind = kChoice, .choices = {"a", "b"}};
  const std::string text = R"({"type": "object", "b": 1, "a": 2})";
  const struct {
    std::string members;
    GrammarSpec spec;
    const char* field;
  } cases[] = {
      {R"("response_format": {"type": "json_object"})", object, "response_format"},
      {R"("response_format": {"type": "json_schema", "json_schema": {"name": "x", "schema": )" +
           text + "}}",
       schema, "response_format.json_schema.schema"},
      {R"("response_format": {"type": "json_schema", "json_schema": {"strict": false, "schema": )" +
           text + "}}",
       open, "response_format.json_schema.schema"},
      {R"("guided_json": )" + text, schema, "guided_json"},
      {R"("guided_regex": "a+")", {.kind = kRegex, .text = "a+"}, "guided_regex"},
      {R"("guided_grammar": "root ::= \"a\"")",
       {.kind = kEbnf, .text = "root ::= \"a\""},
       "guided_grammar"},
      {R"("guided_choice": ["a", "b"])", choice, "guided_choice"},
      {R"("structured_outputs": {"choice": ["a", "b"]})", choice, "structured_outputs.choice"},
      {R"("structured_outputs": {"json": )" + text + "}", schema, "structured_outputs.json"},
      {R"("structured_outputs": {"json_object": true})", object, "structured_outputs.json_object"},
  };
  for (const auto& c : cases) {
    const auto read = guided(c.members);
    ASSERT_TRUE(read.has_value()) << c.members;
    EXPECT_EQ(read->spec, c.spec) << c.members << " gives " << read->spec.text;
    EXPECT_EQ(read->field, c.field);
  }
}

TEST(HttpRequest, RefusalsInsideOfMessagesAndPrompts) {
  const auto chat = [](const std::string& message) {
    const auto body = ParseBody("{\"messages\": [" + message + "]}");
    return body.ok() ? ReadChatCompletion(*body).status() : body.status();
  };
  const struct {
    absl::Status status;
    std::string field;
  } cases[] = {
      {chat(R"({"role": "user", "content": 5})"), "messages[0].content"},
      {chat(R"({"role": "user", "content": [{"type": "image_url", "image_url": {}}]})"),
       "messages[0].content[0].type"},
      {chat(R"({"role": "user", "contents": "x"})"), "messages[0].contents"},
      {chat(R"({"role": "assistant", "tool_calls": [{"id": "x"}]})"),
       "messages[0].tool_calls[0].function"},
      {chat(R"({"role": "assistant", "reasoning": "a", "reasoning_content": "b"})"),
       "messages[0].reasoning"},
      {chat("7"), "messages[0]"},
      {Complete("").status(), "prompt"},
      {Complete(R"("prompt": 5)").status(), "prompt"},
      {Complete(R"("prompt": ["a", 5])").status(), "prompt[1]"},
      {Complete(R"("prompt": [1, "a"])").status(), "prompt[1]"},
      {Complete(R"("prompt": [1, 99999999999])").status(), "prompt[1]"},
      {Complete(R"("prompt": ["a", "b", "c"], "n": 100)").status(), "prompt"},
      {Complete(R"("prompt": "a", "suffix": "b")").status(), "suffix"},
      {Complete(R"("prompt": "a", "messages": [])").status(), "messages"},
  };
  for (const auto& c : cases) EXPECT_EQ(FieldOf(c.status), c.field) << ToString(c.status);
  for (const char* body : {"", "{", "[]", "{\"a\": 1, \"a\": 2}", "nul", "{\"prompt\": \"\xff\"}",
                           "{\"seed\": 99999999999999999999}"}) {
    const auto parsed = ParseBody(body);
    const absl::Status status = parsed.ok() ? ReadCompletion(*parsed).status() : parsed.status();
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << body;
  }
  EXPECT_FALSE(ParseBody(std::string(100, '[') + std::string(100, ']')).ok());
}

TEST(HttpRequest, TokenizeAndDetokenize) {
  const auto read = [](const char* text) { return ReadTokenize(*ParseBody(text)); };
  const auto text = read(R"({"prompt": "x", "return_token_strs": true})");
  ASSERT_TRUE(text.ok());
  EXPECT_EQ(std::get<std::string>(text->request.input), "x");
  EXPECT_TRUE(text->request.add_special_tokens && text->return_token_strs);
  const auto chat = read(R"({"model": "m", "messages": [{"role": "user", "content": "x"}]})");
  ASSERT_TRUE(chat.ok());
  EXPECT_EQ(std::get<ChatPrompt>(chat->request.input).messages.size(), 1u);
  EXPECT_EQ(FieldOf(read("{}").status()), "prompt");
  EXPECT_EQ(FieldOf(read(R"({"prompt": "x", "text": "y"})").status()), "text");
  const auto back = ReadDetokenize(*ParseBody(R"({"tokens": [1, 2], "model": "m"})"));
  ASSERT_TRUE(back.ok());
  EXPECT_THAT(back->request.ids, ElementsAre(1, 2));
  EXPECT_EQ(FieldOf(ReadDetokenize(*ParseBody(R"({"tokens": "x"})")).status()), "tokens");
}

}  // namespace
}  // namespace fathom::router
