// The answers of /v1/responses and /v1/messages: what a client of a stream collects is the whole
// answer, however the tokens came.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstdlib>
#include <map>
#include <nlohmann/json.hpp>
#include <random>

#include "common/reason.h"
#include "router/frontend/http/anthropic_answer.h"
#include "router/frontend/http/responses_answer.h"
#include "tests/router/session_fixture.h"

namespace fathom::router {
namespace {

using Json = nlohmann::json;
using ::testing::ElementsAre;

uint64_t SeedOfRun() {
  const char* text = std::getenv("FATHOM_SEED");
  const uint64_t seed = text == nullptr ? 1 : std::strtoull(text, nullptr, 10);
  std::printf("FATHOM_SEED=%llu\n", static_cast<unsigned long long>(seed));
  return seed;
}

// ---- Scripts: what a model writes, in pieces that may be joined to events.

struct Piece {
  TokenId id = 100;
  std::string reasoning, text;
  std::optional<ToolCallDelta> call;
};

struct Script {
  std::vector<Piece> pieces;
  FinishReason reason = FinishReason::kEndToken;
};

std::vector<Piece> Letters(const std::string& text, bool reasoning) {
  std::vector<Piece> pieces;
  for (const char c : text) {
    Piece piece;
    (reasoning ? piece.reasoning : piece.text) = std::string(1, c);
    pieces.push_back(piece);
  }
  // The last token of the reasoning is its end.
  if (reasoning) pieces.back().id = TinyTokenizer().FindToken("</think>").value_or(-1);
  return pieces;
}

std::vector<Piece> Call(int index, const std::string& name, const std::string& arguments, bool end,
                        bool whole) {
  std::vector<Piece> pieces;
  const auto add = [&](ToolCallDelta delta) {
    delta.index = index;
    Piece piece;
    piece.call = std::move(delta);
    pieces.push_back(piece);
  };
  ToolCallDelta begin;
  begin.id = fmt::format("call_{}", index);
  begin.name = name;
  add(begin);
  for (const char c : arguments) {
    ToolCallDelta delta;
    delta.arguments = std::string(1, c);
    add(delta);
  }
  ToolCallDelta last;
  last.end = true;
  last.whole = whole;
  if (end) add(last);
  return pieces;
}

Script Join(std::vector<std::vector<Piece>> parts, FinishReason reason) {
  Script script;
  script.reason = reason;
  for (auto& part : parts) {
    script.pieces.insert(script.pieces.end(), part.begin(), part.end());
  }
  return script;
}

std::vector<Script> Scripts() {
  const FinishReason end = FinishReason::kEndToken, length = FinishReason::kLength;
  return {
      Join({}, end),
      Join({Letters("Hello", false)}, end),
      Join({Letters("think", true)}, length),
      Join({Letters("think", true), Letters("say", false)}, end),
      Join({Letters("a", true), Letters("b", false), Call(0, "f", R"({"x": 1})", true, true)}, end),
      Join({Call(0, "f", "{}", true, true), Call(1, "g", R"({"y":"e"})", true, true)}, end),
      Join({Letters("x", false), Call(0, "f", "{}", true, true), Letters("y", false)}, end),
      Join({Call(0, "f", R"({"x": )", false, false)}, length),
      Join({Call(0, "f", "[1]", true, false), Letters("z", false)}, end),
      Join({Letters("cut", false)}, FinishReason::kDeadline),
  };
}

// The pieces as events, several of which may be one. Reasoning comes first in an event.
std::vector<TokensEvent> EventsOf(const Script& script, std::mt19937* random) {
  std::vector<TokensEvent> events;
  int32_t position = 0;
  for (const Piece& piece : script.pieces) {
    const bool joins =
        !events.empty() && (*random)() % 3 != 0 &&
        (piece.reasoning.empty() || (events.back().text.empty() && events.back().calls.empty()));
    if (!joins) {
      events.emplace_back();
      events.back().position = position;
    }
    TokensEvent& event = events.back();
    event.ids.push_back(piece.id);
    ++position;
    event.reasoning += piece.reasoning;
    event.text += piece.text;
    if (piece.call) {
      event.calls.push_back(*piece.call);
      event.calls.back().text_before = event.text.size();
    }
  }
  return events;
}

// ---- Answers

StartedEvent StartOfForm() {
  StartedEvent started;
  started.request_id = "r1";
  started.model = "tiny";
  started.prompt_tokens = 7;
  started.cached_tokens = 4;
  started.request.sampling.temperature = 0.5f;
  return started;
}

AnswerParts PartsOfForm(bool stream) {
  AnswerParts parts;
  parts.options.chat = true;
  parts.options.stream = stream;
  parts.echoes.resize(1);
  parts.tokenizer = &TinyTokenizer();
  parts.created_unix_s = 1700000000;
  return parts;
}

FinishEvent EndOf(const Script& script) {
  FinishEvent finish;
  finish.position = static_cast<int32_t>(script.pieces.size());
  finish.reason = script.reason;
  return finish;
}

// The bytes of a stream, or of the whole answer.
std::string Play(AnswerWriter* answer, const Script& script, bool stream, std::mt19937* random) {
  std::string bytes = answer->OnStarted(0, StartOfForm(), {});
  for (const TokensEvent& event : EventsOf(script, random)) bytes += answer->OnTokens(0, event);
  EXPECT_FALSE(answer->complete());
  bytes += answer->OnFinish(0, EndOf(script));
  EXPECT_TRUE(answer->complete());
  if (stream) return bytes + answer->StreamEnd();
  EXPECT_EQ(bytes, "");
  return answer->Whole();
}

// The (name, data) of each event.
std::vector<std::pair<std::string, Json>> NamedEventsOf(const std::string& bytes) {
  std::vector<std::pair<std::string, Json>> events;
  std::string name;
  for (size_t at = 0; at < bytes.size();) {
    const size_t end = bytes.find('\n', at);
    const std::string line = bytes.substr(at, end - at);
    if (line.starts_with("event: ")) name = line.substr(7);
    if (line.starts_with("data: ")) events.emplace_back(name, Json::parse(line.substr(6)));
    at = end + 1;
  }
  return events;
}

constexpr char kEcho[] = R"({"instructions":"I","tools":[])";

// ---- /v1/responses

// What a client makes of the items' events; checks the order on the way.
Json CollectResponse(const std::string& bytes) {
  std::map<int, Json> items;
  std::map<int, bool> done;
  Json last;
  int64_t number = 0;
  for (const auto& [name, data] : NamedEventsOf(bytes)) {
    EXPECT_EQ(data["type"], name);
    EXPECT_EQ(data["sequence_number"], number++);
    EXPECT_TRUE(last.is_null()) << name << " after the end";
    if (data.contains("item_id")) {
      const int index = data["output_index"];
      EXPECT_EQ(items.at(index)["id"], data["item_id"]);
      EXPECT_FALSE(done[index]) << name;
    }
    if (name == "response.created" || name == "response.in_progress") {
      EXPECT_EQ(data["response"]["status"], "in_progress");
      EXPECT_EQ(data["response"]["output"], Json::array());
    } else if (name == "response.output_item.added") {
      const int index = data["output_index"];
      EXPECT_EQ(index, static_cast<int>(items.size()));
      EXPECT_TRUE(index == 0 || done[index - 1]);
      items[index] = data["item"];
    } else if (name == "response.content_part.added") {
      items.at(data["output_index"])["content"].push_back(data["part"]);
    } else if (name == "response.output_text.delta" || name == "response.reasoning_text.delta") {
      Json& part = items.at(data["output_index"])["content"][0];
      part["text"] = part["text"].get<std::string>() + data["delta"].get<std::string>();
    } else if (name == "response.function_call_arguments.delta") {
      Json& item = items.at(data["output_index"]);
      item["arguments"] = item["arguments"].get<std::string>() + data["delta"].get<std::string>();
    } else if (name == "response.output_text.done" || name == "response.reasoning_text.done") {
      EXPECT_EQ(items.at(data["output_index"])["content"][0]["text"], data["text"]);
    } else if (name == "response.content_part.done") {
      EXPECT_EQ(items.at(data["output_index"])["content"][0], data["part"]);
    } else if (name == "response.function_call_arguments.done") {
      EXPECT_EQ(items.at(data["output_index"])["arguments"], data["arguments"]);
    } else if (name == "response.output_item.done") {
      const int index = data["output_index"];
      Json& item = items.at(index);
      item["status"] = data["item"]["status"];
      EXPECT_EQ(item, data["item"]);
      done[index] = true;
    } else {
      EXPECT_TRUE(name == "response.completed" || name == "response.incomplete") << name;
      EXPECT_EQ(name, "response." + data["response"]["status"].get<std::string>());
      last = data["response"];
    }
  }
  EXPECT_EQ(last["output"].size(), items.size());
  for (const auto& [index, item] : items) EXPECT_EQ(last["output"][index], item);
  return last;
}

TEST(ResponsesAnswer, AStreamIsTheWholeAnswer) {
  std::mt19937 random(SeedOfRun());
  for (const Script& script : Scripts()) {
    ResponsesAnswer whole(PartsOfForm(false), kEcho);
    const Json want = Json::parse(Play(&whole, script, false, &random));
    for (int i = 0; i < 20; ++i) {
      ResponsesAnswer stream(PartsOfForm(true), kEcho);
      EXPECT_EQ(CollectResponse(Play(&stream, script, true, &random)), want);
    }
  }
}

TEST(ResponsesAnswer, AWholeAnswer) {
  std::mt19937 random(1);
  ResponsesAnswer answer(PartsOfForm(false), kEcho);
  const Json json = Json::parse(Play(&answer, Scripts()[4], false, &random));
  EXPECT_EQ(json["id"], "resp_r1");
  EXPECT_EQ(json["object"], "response");
  EXPECT_EQ(json["status"], "completed");
  EXPECT_EQ(json["instructions"], "I");
  EXPECT_EQ(json["temperature"], 0.5);
  EXPECT_EQ(json["store"], false);
  EXPECT_EQ(json["usage"], Json::parse(R"({"input_tokens": 7, "output_tokens": 12,
      "total_tokens": 19, "input_tokens_details": {"cached_tokens": 4, "cache_write_tokens": 0},
      "output_tokens_details": {"reasoning_tokens": 1}})"));
  ASSERT_EQ(json["output"].size(), 3u);
  EXPECT_EQ(json["output"][0]["content"][0]["text"], "a");
  EXPECT_EQ(json["output"][1]["content"][0]["text"], "b");
  EXPECT_EQ(json["output"][2], Json::parse(R"({"id": "fc_r1_2", "type": "function_call",
      "status": "completed", "call_id": "call_0", "name": "f", "arguments": "{\"x\": 1}"})"));
}

TEST(ResponsesAnswer, ACutAnswerIsIncomplete) {
  std::mt19937 random(1);
  ResponsesAnswer answer(PartsOfForm(false), kEcho);
  const Json json = Json::parse(Play(&answer, Scripts()[7], false, &random));
  EXPECT_EQ(json["status"], "incomplete");
  EXPECT_EQ(json["incomplete_details"]["reason"], "max_output_tokens");
  EXPECT_EQ(json["output"][0]["status"], "incomplete");
  EXPECT_EQ(json["output"][0]["arguments"], R"({"x": )");
  ResponsesAnswer late(PartsOfForm(false), kEcho);
  EXPECT_EQ(Json::parse(Play(&late, Scripts()[9], false, &random))["incomplete_details"]["reason"],
            "deadline");
}

TEST(ResponsesAnswer, AFailureIsTheLastEvent) {
  ResponsesAnswer answer(PartsOfForm(true), kEcho);
  answer.OnStarted(0, StartOfForm(), {});
  TokensEvent tokens;
  tokens.text = "x";
  tokens.ids = {100};
  answer.OnTokens(0, tokens);
  const absl::Status status = WithReason(Unavailable("none"), Reason::kNoWorkers, "", 100);
  const auto events = NamedEventsOf(answer.StreamError(status, {}));
  ASSERT_EQ(events.size(), 1u);
  EXPECT_EQ(events[0].first, "response.failed");
  EXPECT_EQ(events[0].second["response"]["status"], "failed");
  EXPECT_EQ(events[0].second["response"]["error"]["code"], "no_workers");
  EXPECT_EQ(events[0].second["response"]["output"][0]["content"][0]["text"], "x");
}

// ---- /v1/messages

// What a client makes of the events, as Anthropic's package does it.
Json CollectMessage(const std::string& bytes) {
  Json message;
  std::string arguments;
  bool stopped = false;
  int open = -1;
  for (const auto& [name, data] : NamedEventsOf(bytes)) {
    EXPECT_EQ(data["type"], name);
    EXPECT_FALSE(stopped);
    if (name == "message_start") {
      message = data["message"];
    } else if (name == "content_block_start") {
      EXPECT_EQ(open, -1);
      EXPECT_EQ(data["index"], message["content"].size());
      message["content"].push_back(data["content_block"]);
      open = data["index"];
      arguments.clear();
    } else if (name == "content_block_delta") {
      EXPECT_EQ(data["index"], open);
      Json& block = message["content"][open];
      const Json& delta = data["delta"];
      const std::string type = delta["type"];
      if (type == "input_json_delta") {
        arguments += delta["partial_json"].get<std::string>();
      } else {
        const std::string member = type.substr(0, type.find('_'));
        block[member] = block[member].get<std::string>() + delta[member].get<std::string>();
      }
    } else if (name == "content_block_stop") {
      EXPECT_EQ(data["index"], open);
      if (message["content"][open]["type"] == "tool_use") {
        const Json input = Json::parse(arguments, nullptr, false);
        message["content"][open]["input"] =
            input.is_object() ? input : Json{{"INVALID_JSON", arguments}};
      }
      open = -1;
    } else if (name == "message_delta") {
      EXPECT_EQ(open, -1);
      message.update(data["delta"]);
      message["usage"].update(data["usage"]);
    } else if (name == "message_stop") {
      stopped = true;
    } else {
      EXPECT_EQ(name, "ping");
    }
  }
  EXPECT_TRUE(stopped);
  return message;
}

TEST(AnthropicAnswer, AStreamIsTheWholeAnswer) {
  std::mt19937 random(SeedOfRun());
  for (const Script& script : Scripts()) {
    for (const bool include : {true, false}) {
      AnswerParts parts = PartsOfForm(false);
      parts.options.include_reasoning = include;
      AnthropicAnswer whole(parts, {});
      const Json want = Json::parse(Play(&whole, script, false, &random));
      parts.options.stream = true;
      for (int i = 0; i < 20; ++i) {
        AnthropicAnswer stream(parts, {});
        EXPECT_EQ(CollectMessage(Play(&stream, script, true, &random)), want);
      }
    }
  }
}

TEST(AnthropicAnswer, AWholeAnswer) {
  std::mt19937 random(1);
  AnthropicAnswer answer(PartsOfForm(false), {});
  const Json json = Json::parse(Play(&answer, Scripts()[4], false, &random));
  EXPECT_EQ(json, Json::parse(R"({"id": "msg_r1", "type": "message", "role": "assistant",
      "model": "tiny", "content": [
        {"type": "thinking", "thinking": "a", "signature": "unsigned"},
        {"type": "text", "text": "b", "citations": null},
        {"type": "tool_use", "id": "call_0", "name": "f", "input": {"x": 1}}],
      "stop_reason": "tool_use", "stop_sequence": null,
      "usage": {"input_tokens": 3, "cache_creation_input_tokens": 0, "cache_read_input_tokens": 4,
                "output_tokens": 12, "output_tokens_details": {"thinking_tokens": 1}}})"));
}

TEST(AnthropicAnswer, SaysWhyItStopped) {
  const auto stop_of = [](FinishEvent finish, const std::vector<std::string>& stops) {
    AnthropicAnswer answer(PartsOfForm(false), stops);
    answer.OnStarted(0, StartOfForm(), {});
    answer.OnFinish(0, std::move(finish));
    const Json json = Json::parse(answer.Whole());
    return std::pair(json["stop_reason"].get<std::string>(), json["stop_sequence"]);
  };
  FinishEvent finish;
  finish.reason = FinishReason::kEndToken;
  EXPECT_EQ(stop_of(finish, {}), std::pair(std::string("end_turn"), Json()));
  finish.reason = FinishReason::kLength;
  EXPECT_EQ(stop_of(finish, {}), std::pair(std::string("max_tokens"), Json()));
  finish.reason = FinishReason::kStopString;
  finish.stop_string = "END";
  EXPECT_EQ(stop_of(finish, {"END"}), std::pair(std::string("stop_sequence"), Json("END")));
  EXPECT_EQ(stop_of(finish, {}), std::pair(std::string("end_turn"), Json()));  // The folder's.
  FinishEvent token;
  token.reason = FinishReason::kStopToken;
  token.stop_token = Ids("a").at(0);
  EXPECT_EQ(stop_of(token, {"a"}), std::pair(std::string("stop_sequence"), Json("a")));
}

TEST(AnthropicAnswer, AFailureIsTheLastEvent) {
  AnthropicAnswer answer(PartsOfForm(true), {});
  answer.OnStarted(0, StartOfForm(), {});
  const absl::Status status = WithReason(Unavailable("none"), Reason::kNoWorkers, "", 100);
  const auto events = NamedEventsOf(answer.StreamError(status, {}));
  ASSERT_EQ(events.size(), 1u);
  EXPECT_EQ(events[0].first, "error");
  EXPECT_EQ(events[0].second["error"]["type"], "overloaded_error");
  EXPECT_EQ(events[0].second["error"]["code"], "no_workers");
}

// ---- Tokens of the reasoning

TEST(AnswerItems, CountsTheTokensUpToTheEndOfTheReasoning) {
  const std::optional<TokenId> end = TinyTokenizer().FindToken("</think>");
  ASSERT_TRUE(end.has_value());
  const std::vector<TokenId> ids = {100, 101, 102, *end, 103, 104};
  for (size_t split = 0; split <= ids.size(); ++split) {
    AnswerItems items(&TinyTokenizer());
    TokensEvent first, second;
    first.ids.assign(ids.begin(), ids.begin() + static_cast<ptrdiff_t>(split));
    second.ids.assign(ids.begin() + static_cast<ptrdiff_t>(split), ids.end());
    (split > 0 ? first : second).reasoning = "think";
    (split > 4 ? first : second).text = "say";
    items.OnTokens(first);
    items.OnTokens(second);
    EXPECT_EQ(items.reasoning_tokens(), 4) << split;
  }
  AnswerItems plain(&TinyTokenizer());
  TokensEvent event;
  event.ids = {100, 101};
  event.text = "x";
  plain.OnTokens(event);
  EXPECT_EQ(plain.reasoning_tokens(), 0);
}

}  // namespace
}  // namespace fathom::router
