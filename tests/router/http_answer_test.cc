// What HTTP clients get: error objects, and OpenAI's JSON for the events of sessions.
#include "router/frontend/http/openai_answer.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <nlohmann/json.hpp>

#include "common/reason.h"
#include "router/frontend/http/http_error.h"
#include "tests/router/session_fixture.h"

namespace fathom::router {
namespace {

using Json = nlohmann::json;

TEST(JsonWriter, WritesWhatOthersRead) {
  JsonWriter json;
  json.BeginObject().Key("a\"\\\n\x01").String("tab\t, é, \x1f, \r").Key("b").BeginArray();
  json.Int(-5).Real(0.1f).Real(1e-9f).Real(3).Bool(true).Null().BeginObject().EndObject();
  json.Real(-std::numeric_limits<float>::infinity()).EndArray().Key("c").Raw("[1]").EndObject();
  const Json read = Json::parse(json.text());
  EXPECT_EQ(read["a\"\\\n\x01"], "tab\t, é, \x1f, \r");
  EXPECT_EQ(read["b"].dump(), Json::parse("[-5,0.1,1e-9,3,true,null,{},-9999]").dump());
  EXPECT_EQ(read["b"][1].get<float>(), 0.1f);
  EXPECT_EQ(read["c"], Json::parse("[1]"));
}

TEST(HttpError, HasTheFieldsAsTheBodyNamesThem) {
  const absl::Status status =
      WithReason(Invalid("stop.max_tokens is 0; lower it"), Reason::kOutOfRange, "stop.max_tokens");
  const Json error =
      Json::parse(ErrorObject(status, {.max_tokens = "max_completion_tokens"}))["error"];
  EXPECT_EQ(error["message"], "max_completion_tokens is 0; lower it");
  EXPECT_EQ(error["param"], "max_completion_tokens");
  EXPECT_EQ(error["code"], "out_of_range");
  EXPECT_EQ(error["type"], "invalid_request_error");
  const std::pair<const char*, const char*> fields[] = {
      {"sampling.temperature", "temperature"},
      {"stop.strings[3]", "stop[3]"},
      {"stop.token_ids[0]", "stop_token_ids[0]"},
      {"output.prompt_logprobs", "prompt_logprobs"},
      {"token_ids[7]", "prompt[2][7]"},
      {"text", "prompt[2]"},
      {"prompt", "prompt[2]"},
      {"messages[1].role", "messages[1].role"},
  };
  for (const auto& [field, name] : fields) {
    const absl::Status named = WithReason(Invalid("x"), Reason::kOutOfRange, field);
    EXPECT_EQ(Json::parse(ErrorObject(named, {.prompt = "prompt[2]"}))["error"]["param"], name);
  }
  EXPECT_TRUE(Json::parse(ErrorObject(Internal("x\xff"), {}))["error"]["param"].is_null());
}

// Every reason has an HTTP status; only what may go away by itself is one that clients repeat.
TEST(HttpError, EveryReasonHasAStatus) {
  for (const ReasonRow& row : Reasons()) {
    const absl::Status status = WithReason(MakeStatus(row.code, "m"), row.reason, "f", 1500);
    const http::Response answer = ErrorAnswer(status, {});
    EXPECT_GE(answer.status, 400) << row.text;
    EXPECT_LT(answer.status, 505) << row.text;
    const bool caller = row.code == absl::StatusCode::kInvalidArgument ||
                        row.code == absl::StatusCode::kUnimplemented;
    EXPECT_EQ(answer.status == 400, caller || row.reason == Reason::kNoChatTemplate) << row.text;
    const Json error = Json::parse(answer.body)["error"];
    std::string code(row.text);
    for (char& c : code) c = static_cast<char>(std::tolower(c));
    EXPECT_EQ(error["code"], code);
    EXPECT_THAT(answer.headers, testing::Contains(std::pair("Retry-After", "2")));
    EXPECT_THAT(answer.headers, testing::Contains(std::pair("retry-after-ms", "1500")));
  }
}

// ---- Answers

struct Options : AnswerOptions {
  explicit Options(bool is_chat) { chat = is_chat; }
};

AnswerParts Parts(AnswerOptions options, size_t prompts = 1) {
  AnswerParts parts;
  parts.options = std::move(options);
  parts.echoes.resize(prompts);
  parts.tokenizer = &TinyTokenizer();
  parts.created_unix_s = 1700000000;
  return parts;
}

StartedEvent Started(const std::string& id = "r1") {
  StartedEvent started;
  started.request_id = id;
  started.model = "tiny";
  started.fingerprint = "fp";
  started.prompt_tokens = 3;
  started.cached_tokens = 2;
  return started;
}

TokensEvent Tokens(int32_t position, const std::string& text, int32_t sequence = 0) {
  TokensEvent tokens;
  tokens.sequence = sequence;
  tokens.position = position;
  tokens.ids = Ids(text);
  tokens.text = text;
  return tokens;
}

FinishEvent Finish(int32_t position, FinishReason reason, int32_t sequence = 0) {
  FinishEvent finish;
  finish.sequence = sequence;
  finish.position = position;
  finish.reason = reason;
  finish.timings.queue_us = 11;
  return finish;
}

// The data of each event, and its id.
std::vector<std::pair<std::string, Json>> EventsOf(const std::string& bytes) {
  std::vector<std::pair<std::string, Json>> events;
  std::string id;
  size_t at = 0;
  while (at < bytes.size()) {
    const size_t end = bytes.find('\n', at);
    const std::string line = bytes.substr(at, end - at);
    if (line.starts_with("id: ")) id = line.substr(4);
    if (line.starts_with("data: ")) {
      const std::string data = line.substr(6);
      events.emplace_back(id, data == "[DONE]" ? Json("[DONE]") : Json::parse(data));
    }
    at = end + 1;
  }
  return events;
}

TokensEvent Calls(int32_t position, std::vector<ToolCallDelta> calls) {
  TokensEvent tokens;
  tokens.position = position;
  tokens.calls = std::move(calls);
  return tokens;
}

// A call in pieces, as a whole answer and as a stream.
TEST(OpenAiAnswer, ToolCalls) {
  const std::vector<TokensEvent> events = {
      Calls(3, {{.index = 0, .id = "call_a", .name = "f", .arguments = "{\"x"}}),
      Calls(4, {{.index = 0, .arguments = "\": 1}"},
                {.index = 0, .end = true, .whole = true},
                {.index = 1, .id = "call_b", .name = "g", .arguments = "{}"}}),
      Calls(5, {{.index = 1, .end = true, .whole = true}})};
  FinishEvent finish = Finish(6, FinishReason::kEndToken);
  finish.calls_tools = true;
  for (const bool stream : {false, true}) {
    AnswerOptions options = Options(true);
    options.stream = stream;
    OpenAiAnswer answer(Parts(options));
    std::string bytes = answer.OnStarted(0, Started(), {});
    for (const TokensEvent& event : events) bytes += answer.OnTokens(0, event);
    bytes += answer.OnFinish(0, finish);
    if (!stream) {
      const Json choice = Json::parse(answer.Whole())["choices"][0];
      EXPECT_EQ(choice["finish_reason"], "tool_calls");
      EXPECT_TRUE(choice["message"]["content"].is_null());
      EXPECT_EQ(choice["message"]["tool_calls"], Json::parse(R"([
          {"id": "call_a", "type": "function",
           "function": {"name": "f", "arguments": "{\"x\": 1}"}},
          {"id": "call_b", "type": "function", "function": {"name": "g", "arguments": "{}"}}])"));
      continue;
    }
    std::vector<Json> deltas;
    std::string reason;
    for (const auto& [id, data] : EventsOf(bytes)) {
      const Json& choice = data["choices"][0];
      if (choice["delta"].contains("tool_calls")) {
        EXPECT_FALSE(choice["delta"].contains("content"));
        for (const Json& call : choice["delta"]["tool_calls"]) deltas.push_back(call);
      }
      if (!choice["finish_reason"].is_null()) reason = choice["finish_reason"];
    }
    EXPECT_EQ(reason, "tool_calls");
    EXPECT_EQ(Json(deltas), Json::parse(R"([
        {"index": 0, "id": "call_a", "type": "function",
         "function": {"name": "f", "arguments": "{\"x"}},
        {"index": 0, "function": {"arguments": "\": 1}"}},
        {"index": 1, "id": "call_b", "type": "function",
         "function": {"name": "g", "arguments": "{}"}}])"));
  }
}

TEST(OpenAiAnswer, AWholeChat) {
  AnswerOptions options = Options(true);
  options.timings = true;
  OpenAiAnswer answer(Parts(options));
  EXPECT_EQ(answer.OnStarted(0, Started(), {}), "");
  TokensEvent tokens = Tokens(0, "Hello");
  const auto first = static_cast<int32_t>(tokens.ids.size());
  tokens.reasoning = "hm";
  EXPECT_EQ(answer.OnTokens(0, tokens), "");
  EXPECT_EQ(answer.OnTokens(0, Tokens(first, " world")), "");
  const auto all = first + static_cast<int32_t>(Ids(" world").size());
  FinishEvent finish = Finish(all, FinishReason::kStopString);
  finish.stop_string = "!";
  finish.usage.drafted_tokens = 9;
  finish.usage.accepted_draft_tokens = 4;
  EXPECT_EQ(answer.OnFinish(0, finish), "");
  const Json json = Json::parse(answer.Whole());
  EXPECT_EQ(json["id"], "chatcmpl-r1");
  EXPECT_EQ(json["object"], "chat.completion");
  EXPECT_EQ(json["created"], 1700000000);
  EXPECT_EQ(json["model"], "tiny");
  EXPECT_EQ(json["system_fingerprint"], "fp");
  const Json& choice = json["choices"].at(0);
  EXPECT_EQ(choice["message"]["role"], "assistant");
  EXPECT_EQ(choice["message"]["content"], "Hello world");
  EXPECT_EQ(choice["message"]["reasoning"], "hm");
  EXPECT_EQ(choice["message"]["reasoning_content"], "hm");
  EXPECT_EQ(choice["finish_reason"], "stop");
  EXPECT_EQ(choice["stop_reason"], "!");
  EXPECT_EQ(choice["timings"]["queue_us"], 11);
  EXPECT_EQ(json["usage"]["prompt_tokens"], 3);
  EXPECT_EQ(json["usage"]["completion_tokens"], all);
  EXPECT_EQ(json["usage"]["total_tokens"], all + 3);
  EXPECT_EQ(json["usage"]["completion_tokens_details"]["accepted_prediction_tokens"], 4);
  EXPECT_EQ(json["usage"]["completion_tokens_details"]["rejected_prediction_tokens"], 5);
  EXPECT_EQ(json["usage"]["prompt_tokens_details"]["cached_tokens"], 2);
}

TEST(OpenAiAnswer, AStreamOfAChat) {
  AnswerOptions options = Options(true);
  options.stream = true;
  options.include_usage = true;
  options.n = 2;
  OpenAiAnswer answer(Parts(options));
  std::string bytes = answer.OnStarted(0, Started("a:b"), {});
  bytes += answer.OnTokens(0, Tokens(0, "A", 1));
  TokensEvent hidden = Tokens(0, "", 0);
  hidden.ids = {7};  // Half a character: no text yet.
  EXPECT_EQ(answer.OnTokens(0, hidden), "");
  bytes += answer.OnTokens(0, Tokens(1, "B", 0));
  bytes += answer.OnFinish(0, Finish(1, FinishReason::kLength, 1));
  bytes += answer.OnFinish(0, Finish(2, FinishReason::kEndToken, 0));
  bytes += answer.StreamEnd();
  const auto events = EventsOf(bytes);
  ASSERT_EQ(events.size(), 8u) << bytes;
  for (int i = 0; i < 2; ++i) {
    const Json& choice = events[i].second["choices"][0];
    EXPECT_EQ(choice["index"], i);
    EXPECT_EQ(choice["delta"], Json::parse(R"({"role": "assistant", "content": ""})"));
    EXPECT_TRUE(choice["finish_reason"].is_null());
    EXPECT_TRUE(events[i].second["usage"].is_null());
    EXPECT_EQ(events[i].second["object"], "chat.completion.chunk");
  }
  EXPECT_EQ(events[2].first, "a:b:0,1");
  EXPECT_EQ(events[2].second["choices"][0]["delta"], Json::parse(R"({"content": "A"})"));
  EXPECT_EQ(events[3].first, "a:b:2,1");
  EXPECT_EQ(events[4].second["choices"][0]["finish_reason"], "length");
  EXPECT_EQ(events[5].second["choices"][0]["finish_reason"], "stop");
  EXPECT_EQ(events[5].first, "a:b:2,1");  // The end is told again if the usage is lost.
  EXPECT_EQ(events[6].first, "a:b:3,2");
  EXPECT_EQ(events[6].second["choices"], Json::array());
  EXPECT_EQ(events[6].second["usage"]["completion_tokens"], 3);
  EXPECT_EQ(events[7].second, "[DONE]");
}

TEST(OpenAiAnswer, AResumedStreamHasNoBegin) {
  AnswerOptions options = Options(true);
  options.stream = true;
  AnswerParts parts = Parts(options);
  parts.positions = {5};
  parts.request_id = "r9";
  OpenAiAnswer answer(std::move(parts));
  EXPECT_EQ(answer.OnStarted(0, Started("r9"), {}), ": accepted\n");
  const auto events = EventsOf(answer.OnFinish(0, Finish(6, FinishReason::kEndToken)));
  EXPECT_EQ(events.at(0).first, "r9:7");  // Without usage the end counts as one more.
}

// The client had everything but the end of the stream.
TEST(OpenAiAnswer, AStreamThatIsTakenUpAfterItsEndHasTheUsage) {
  AnswerOptions options = Options(true);
  options.stream = true;
  options.include_usage = true;
  AnswerParts parts = Parts(options);
  parts.positions = {7};  // Six tokens, and the end.
  parts.request_id = "r9";
  OpenAiAnswer answer(std::move(parts));
  answer.OnStarted(0, Started("r9"), {});
  const auto events = EventsOf(answer.StreamEnd());
  EXPECT_EQ(events.at(0).first, "r9:7");
  EXPECT_EQ(events.at(0).second["usage"]["completion_tokens"], 6);
}

TokenLogprob Logprob(TokenId id, float logprob, std::vector<TokenId> top = {}) {
  TokenLogprob token{id, logprob, std::move(top), {}};
  for (size_t i = 0; i < token.top_ids.size(); ++i) {
    token.top_logprobs.push_back(-0.25f * static_cast<float>(i + 1));
  }
  return token;
}

TEST(OpenAiAnswer, LogprobsOfAChat) {
  AnswerOptions options = Options(true);
  options.logprobs = true;
  OpenAiAnswer answer(Parts(options));
  answer.OnStarted(0, Started(), {});
  TokensEvent tokens = Tokens(0, "Paris");
  const std::vector<TokenId> ids = tokens.ids;
  for (const TokenId id : ids) tokens.logprobs.push_back(Logprob(id, -0.5f, {ids[0], 1}));
  answer.OnTokens(0, tokens);
  answer.OnFinish(0, Finish(static_cast<int32_t>(ids.size()), FinishReason::kEndToken));
  const Json content = Json::parse(answer.Whole())["choices"][0]["logprobs"]["content"];
  ASSERT_EQ(content.size(), ids.size());
  std::string text, bytes;
  for (const Json& token : content) {
    text += token["token"];
    for (const int byte : token["bytes"]) bytes += static_cast<char>(byte);
    EXPECT_EQ(token["logprob"], -0.5);
    EXPECT_EQ(token["top_logprobs"].size(), 2u);
    EXPECT_EQ(token["top_logprobs"][1]["logprob"], -0.5);
  }
  EXPECT_EQ(text, "Paris");
  EXPECT_EQ(bytes, "Paris");
}

TEST(OpenAiAnswer, LogprobsOfACompletionWithEcho) {
  AnswerOptions options = Options(false);
  options.logprobs = true;
  options.echo = true;
  options.return_token_ids = true;
  AnswerParts parts = Parts(options);
  parts.echoes[0] = "The é";
  OpenAiAnswer answer(std::move(parts));
  std::vector<TokenId> prompt = {0};  // BOS, which is no text.
  for (const TokenId id : Ids("The é")) prompt.push_back(id);
  answer.OnStarted(0, Started(), prompt);
  PromptLogprobs before{1, {}};
  for (size_t i = 1; i < prompt.size(); ++i) before.logprobs.push_back(Logprob(prompt[i], -1));
  answer.OnPromptLogprobs(0, before);
  TokensEvent tokens = Tokens(0, " end");
  for (const TokenId id : tokens.ids) tokens.logprobs.push_back(Logprob(id, -2, {1, id}));
  answer.OnTokens(0, tokens);
  answer.OnFinish(0, Finish(static_cast<int32_t>(tokens.ids.size()), FinishReason::kLength));
  const Json choice = Json::parse(answer.Whole())["choices"][0];
  EXPECT_EQ(choice["text"], "The é end");
  EXPECT_EQ(choice["prompt_token_ids"], Json(prompt));
  EXPECT_EQ(choice["token_ids"], Json(tokens.ids));
  const Json& logprobs = choice["logprobs"];
  const size_t count = prompt.size() + tokens.ids.size();
  EXPECT_EQ(logprobs["tokens"].size(), count);
  EXPECT_EQ(logprobs["top_logprobs"].size(), count);
  EXPECT_TRUE(logprobs["token_logprobs"][0].is_null());
  EXPECT_TRUE(logprobs["top_logprobs"][0].is_null());
  EXPECT_EQ(logprobs["token_logprobs"][1], -1);
  EXPECT_EQ(logprobs["token_logprobs"].back(), -2);
  EXPECT_EQ(logprobs["top_logprobs"][1].size(), 1u);  // The token itself.
  EXPECT_EQ(logprobs["text_offset"][0], 0);
  EXPECT_EQ(logprobs["text_offset"][1], 0);
  EXPECT_EQ(logprobs["text_offset"][prompt.size()], 5);  // Characters, not bytes.
}

TEST(OpenAiAnswer, PromptLogprobsInVllmsForm) {
  AnswerOptions options = Options(false);
  options.prompt_logprobs = true;
  OpenAiAnswer answer(Parts(options));
  answer.OnStarted(0, Started(), {0, 5});
  answer.OnPromptLogprobs(0, {1, {Logprob(5, -3, {6})}});
  answer.OnFinish(0, Finish(0, FinishReason::kLength));
  const Json list = Json::parse(answer.Whole())["choices"][0]["prompt_logprobs"];
  EXPECT_TRUE(list[0].is_null());
  EXPECT_EQ(list[1]["6"]["rank"], 1);
  EXPECT_EQ(list[1]["5"]["logprob"], -3);
  EXPECT_FALSE(list[1]["5"].contains("rank"));  // Beyond the alternatives it is not known.
}

// In a stream they stand in the first chunk of each choice, however the spans came.
TEST(OpenAiAnswer, PromptLogprobsOfAStreamAreThoseOfTheWholeAnswer) {
  for (const bool chat : {false, true}) {
    for (const bool split : {false, true}) {
      AnswerOptions options = Options(chat);
      options.prompt_logprobs = true;
      options.echo = options.logprobs = !chat;
      options.n = 2;
      const auto play = [&](OpenAiAnswer* answer) {
        StartedEvent started = Started();
        started.prompt_tokens = 3;
        std::string bytes = answer->OnStarted(0, started, {5, 6, 7});
        if (split) {
          bytes += answer->OnPromptLogprobs(0, {1, {Logprob(6, -3, {6})}});
          bytes += answer->OnPromptLogprobs(0, {2, {Logprob(7, -1, {8})}});
        } else {
          bytes += answer->OnPromptLogprobs(0, {1, {Logprob(6, -3, {6}), Logprob(7, -1, {8})}});
        }
        for (int32_t sequence = 0; sequence < 2; ++sequence) {
          bytes += answer->OnFinish(0, Finish(0, FinishReason::kLength, sequence));
        }
        return bytes;
      };
      OpenAiAnswer whole(Parts(options));
      play(&whole);
      const Json want = Json::parse(whole.Whole())["choices"];
      options.stream = true;
      OpenAiAnswer stream(Parts(options));
      const auto events = EventsOf(play(&stream));
      ASSERT_EQ(events.size(), 4u);
      for (int i = 0; i < 2; ++i) {
        const Json choice = events[static_cast<size_t>(i)].second["choices"][0];
        EXPECT_EQ(choice["index"], i);
        EXPECT_EQ(choice["prompt_logprobs"], want[static_cast<size_t>(i)]["prompt_logprobs"]);
        EXPECT_EQ(choice["logprobs"].is_null(), chat);
        if (chat) continue;
        EXPECT_EQ(choice["logprobs"], want[static_cast<size_t>(i)]["logprobs"]);
        EXPECT_EQ(choice["text"], want[static_cast<size_t>(i)]["text"]);
      }
    }
  }
}

TEST(OpenAiAnswer, TokensThatAreNoTextHaveDifferentKeys) {
  const TokenTexts texts(&TinyTokenizer(), false);
  std::vector<std::string> keys;
  std::vector<TokenId> ids;
  for (TokenId id = 0; id < TinyTokenizer().vocab_size() && ids.size() < 20; ++id) {
    if (FirstInvalidUtf8(TinyTokenizer().TokenBytes(id)) == std::string::npos) continue;
    ids.push_back(id);
    EXPECT_TRUE(texts.Key(id).starts_with("bytes:\\x")) << texts.Key(id);
    EXPECT_THAT(keys, testing::Not(testing::Contains(texts.Key(id))));
    keys.push_back(texts.Key(id));
  }
  EXPECT_FALSE(ids.empty());
  EXPECT_EQ(TokenTexts(&TinyTokenizer(), true).Text(5), "token_id:5");
  EXPECT_EQ(TokenTexts(nullptr, false).Text(5), "token_id:5");
}

}  // namespace
}  // namespace fathom::router
