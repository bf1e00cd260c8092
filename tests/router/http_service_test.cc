// OpenAI's API in one process: a real HTTP server and real sockets, sessions over a fake link; the
// test plays the scheduler.
#include "router/frontend/http/http_service.h"

#include <gmock/gmock.h>

#include <algorithm>
#include <atomic>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <thread>

#include "common/reason.h"
#include "http/process_routes.h"
#include "http/server.h"
#include "router/frontend/http/http_guard.h"
#include "tests/http/http_client.h"
#include "tests/router/api_world.h"

namespace fathom::router {
namespace {

using Json = nlohmann::json;
using ::testing::HasSubstr;
using ::testing::Not;

class HttpServiceTest : public ::testing::Test {
 protected:
  HttpServiceTest() {
    http::Routes routes;
    AddInferenceRoutes(world_.api.get(), &routes);
    Listener listener = http::Listen();
    port_ = listener.port();
    server_ = std::make_unique<http::Server>(std::move(listener), std::move(routes));
    stream_ = StreamId{1};
    link_.set_current(stream_);
    sessions_.OnUp(stream_, world_.Facts(), kProtocolMax);
    ticks_ = std::jthread([this](const std::stop_token& stop) {
      while (!stop.stop_requested()) {
        sessions_.Tick();
        std::this_thread::sleep_for(std::chrono::milliseconds(20));
      }
    });
  }
  ~HttpServiceTest() override {
    ticks_ = {};
    server_.reset();
  }

  static std::string Post(const std::string& path, const std::string& body,
                          const std::string& headers = "") {
    return "POST " + path + " HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n" + headers +
           "Content-Length: " + std::to_string(body.size()) + "\r\n\r\n" + body;
  }
  std::string AskPost(const std::string& path, const std::string& body,
                      const std::string& headers = "") {
    return http::Ask(port_, Post(path, body, "Connection: close\r\n" + headers));
  }
  static Json BodyOf(const std::string& answer) {
    return Json::parse(answer.substr(answer.find("\r\n\r\n") + 4), nullptr, false);
  }
  std::vector<Submit> WaitForSubmits(size_t count) {
    std::vector<Submit> all;
    while (all.size() < count) {
      std::vector<Submit> more = link_.WaitForSubmits();
      EXPECT_FALSE(more.empty());
      if (more.empty()) break;
      all.insert(all.end(), more.begin(), more.end());
    }
    return all;
  }
  void Accept(const Submit& submit) {
    sessions_.OnAccepted({.attempt = submit.attempt, .seed = submit.record->seed});
  }
  void Send(const Submit& submit, int32_t position, std::vector<TokenId> ids, bool ends) {
    Frame frame;
    frame.attempt = submit.attempt;
    frame.position = position;
    frame.ids = std::move(ids);
    if (ends) {
      const auto length = position + static_cast<int32_t>(frame.ids.size());
      frame.finish = FrameFinish{FinishReason::kLength, {3, length, 0}};
      frame.timings = RequestTimings{.phase = RequestPhase::kEnded};
    }
    sessions_.OnFrames(stream_, {&frame, 1});
  }
  void Fail(const Submit& submit, absl::Status status) {
    Frame frame;
    frame.attempt = submit.attempt;
    frame.error = std::move(status);
    sessions_.OnFrames(stream_, {&frame, 1});
  }

  RealClock clock_;
  FakeLink link_;
  SessionObserver counts_;
  ApiObserver observer_;
  Sessions sessions_{{}, &clock_, &link_, &TinyTokenizer(), &counts_};
  ApiWorld world_{&sessions_, &clock_, &observer_};
  int port_ = 0;
  std::unique_ptr<http::Server> server_;
  StreamId stream_;
  std::jthread ticks_;
};

TEST_F(HttpServiceTest, AWholeCompletion) {
  TcpClient client("127.0.0.1", port_);
  client.Write(Post("/v1/completions", R"({"prompt": "The capital", "temperature": 0, "seed": 9})",
                    "X-Request-Id: my-id\r\nIdempotency-Key: k\r\n"));
  const Submit submit = WaitForSubmits(1).at(0);
  EXPECT_EQ(submit.key.request_id, "my-id");
  EXPECT_EQ(submit.record->seed, 9u);
  EXPECT_EQ(submit.record->request.stop.max_tokens, 16);
  EXPECT_EQ(submit.record->prompt_ids.at(0), 0);  // BOS, as over gRPC.
  Accept(submit);
  Send(submit, 0, Ids(" of"), false);
  Send(submit, static_cast<int32_t>(Ids(" of").size()), Ids(" France"), true);
  const std::string answer = client.ReadUntil("}}\n");
  EXPECT_TRUE(http::IsStatus(answer, 200)) << answer;
  EXPECT_THAT(answer, HasSubstr("\r\nX-Request-Id: my-id\r\n"));
  EXPECT_EQ(BodyOf(answer)["choices"][0]["text"], " of France");
  EXPECT_EQ(BodyOf(answer)["id"], "cmpl-my-id");
}

TEST_F(HttpServiceTest, AStreamBeginsWhenTheSchedulerHasAccepted) {
  TcpClient client("127.0.0.1", port_);
  client.Write(Post("/v1/chat/completions",
                    R"({"messages": [{"role": "user", "content": "Hi"}], "stream": true})"));
  const Submit submit = WaitForSubmits(1).at(0);
  Accept(submit);
  std::string answer = client.ReadUntil("\"role\"");
  EXPECT_TRUE(http::IsStatus(answer, 200)) << answer;
  EXPECT_THAT(answer, HasSubstr("text/event-stream"));
  EXPECT_THAT(answer, HasSubstr("X-Request-Id: " + submit.key.request_id));
  answer += client.ReadUntil(": heartbeat\n");  // Nothing is sent for a second.
  EXPECT_THAT(answer, HasSubstr(": heartbeat\n"));
  Send(submit, 0, Ids("Hello"), false);
  answer = client.ReadUntil("Hello");
  EXPECT_THAT(answer,
              HasSubstr(fmt::format("id: {}:{}\n", submit.key.request_id, Ids("Hello").size())));
  Send(submit, static_cast<int32_t>(Ids("Hello").size()), {}, true);
  answer = client.ReadUntil("0\r\n\r\n");
  EXPECT_THAT(answer, HasSubstr("\"finish_reason\":\"length\""));
  EXPECT_THAT(answer, HasSubstr("data: [DONE]\n\n"));
}

TEST_F(HttpServiceTest, AStreamOfMessagesHasPings) {
  TcpClient client("127.0.0.1", port_);
  client.Write(Post("/v1/messages",
                    R"({"max_tokens": 9, "messages": [{"role": "user", "content": "Hi"}], "stream":
                        true})",
                    "X-Request-Id: m1\r\nanthropic-version: 2023-06-01\r\n"));
  const Submit submit = WaitForSubmits(1).at(0);
  Accept(submit);
  std::string answer = client.ReadUntil("event: ping\n");
  EXPECT_TRUE(http::IsStatus(answer, 200)) << answer;
  EXPECT_THAT(answer, HasSubstr("\r\nrequest-id: m1\r\n"));
  EXPECT_THAT(answer, HasSubstr("event: message_start\n"));
  client.ReadUntil("event: ping\n");  // Nothing is sent for a second.
  Send(submit, 0, Ids("Hello"), false);
  EXPECT_THAT(client.ReadUntil("Hello"), HasSubstr("event: content_block_start\n"));
  Send(submit, static_cast<int32_t>(Ids("Hello").size()), {}, true);
  answer = client.ReadUntil("0\r\n\r\n");
  EXPECT_THAT(answer, HasSubstr(R"("stop_reason":"max_tokens")"));
  EXPECT_THAT(answer, HasSubstr("event: message_stop\n"));
  EXPECT_THAT(answer, Not(HasSubstr("[DONE]")));
}

// An answer that fails in the middle ends with the error of its API, and without its end.
TEST_F(HttpServiceTest, FailuresOfResponsesAndMessages) {
  const std::tuple<const char*, const char*, const char*> cases[] = {
      {"/v1/responses", R"({"input": "Hi", "stream": true})", "event: response.failed\n"},
      {"/v1/messages", R"({"messages": [{"role": "user", "content": "Hi"}], "stream": true})",
       "event: error\n"}};
  for (const auto& [path, body, event] : cases) {
    TcpClient client("127.0.0.1", port_);
    client.Write(Post(path, body));
    const Submit submit = WaitForSubmits(1).at(0);
    Accept(submit);
    Send(submit, 0, Ids("Hello"), false);
    client.ReadUntil("Hello");
    Fail(submit, WithReason(Internal("broken"), Reason::kNonFiniteLogits));
    const std::string rest = client.ReadUntil("0\r\n\r\n");
    EXPECT_THAT(rest, HasSubstr(event));
    EXPECT_THAT(rest, HasSubstr("non_finite_logits"));
    EXPECT_THAT(rest, Not(HasSubstr("message_stop")));
    EXPECT_THAT(rest, Not(HasSubstr("response.completed")));
  }
}

TEST_F(HttpServiceTest, CountsTheTokensOfMessages) {
  const std::string body = R"({"messages": [{"role": "user", "content": "Hello"}]})";
  const Json counted = BodyOf(AskPost("/v1/messages/count_tokens", body));
  EXPECT_EQ(counted["input_tokens"], BodyOf(AskPost("/tokenize", body))["count"]);
  const Json refused = BodyOf(AskPost("/v1/messages/count_tokens", "{}"));
  EXPECT_EQ(refused["type"], "error");
  EXPECT_EQ(refused["error"]["param"], "messages");
}

// A refusal is an HTTP status, for a stream too, and says when to try again.
TEST_F(HttpServiceTest, ARefusalOfTheSchedulerIsAStatus) {
  for (const char* stream : {"true", "false"}) {
    TcpClient client("127.0.0.1", port_);
    client.Write(
        Post("/v1/completions", fmt::format(R"({{"prompt": "x", "stream": {}}})", stream)));
    const Submit submit = WaitForSubmits(1).at(0);
    sessions_.OnRefused(
        {.attempt = submit.attempt,
         .status = WithReason(Exhausted("too many wait"), Reason::kQueueFull, "", 2500)});
    const std::string answer = client.ReadUntil("}}\n");
    EXPECT_TRUE(http::IsStatus(answer, 429)) << answer;
    EXPECT_THAT(answer, HasSubstr("\r\nRetry-After: 3\r\n"));
    EXPECT_EQ(BodyOf(answer)["error"]["code"], "queue_full");
    EXPECT_EQ(BodyOf(answer)["error"]["type"], "rate_limit_error");
  }
}

TEST_F(HttpServiceTest, AFailedStreamHasAnErrorAndNoDone) {
  TcpClient client("127.0.0.1", port_);
  client.Write(Post("/v1/completions", R"({"prompt": "x", "stream": true})"));
  const Submit submit = WaitForSubmits(1).at(0);
  Accept(submit);
  Send(submit, 0, Ids("half"), false);
  client.ReadUntil("half");
  Fail(submit, WithReason(Internal("not finite"), Reason::kNonFiniteLogits));
  const std::string answer = client.ReadUntil("0\r\n\r\n");
  EXPECT_THAT(answer,
              HasSubstr("data: {\"error\":{\"message\":\"not finite\",\"type\":\"server_error\","
                        "\"param\":null,\"code\":\"non_finite_logits\"}}\n\n"));
  EXPECT_THAT(answer, Not(HasSubstr("[DONE]")));
}

TEST_F(HttpServiceTest, AListOfPromptsIsOneAnswer) {
  for (const bool stream : {false, true}) {
    TcpClient client("127.0.0.1", port_);
    client.Write(Post("/v1/completions",
                      Json{{"prompt", {"a", "b", "c"}}, {"stream", stream}}.dump(),
                      stream ? "X-Request-Id: s\r\n" : "X-Request-Id: w\r\n"));
    const std::vector<Submit> submits = WaitForSubmits(3);
    const std::string base = stream ? "s" : "w";
    for (const Submit& submit : submits) Accept(submit);
    for (const char* text : {"2", "0", "1"}) {  // In any order.
      const auto of = std::ranges::find_if(submits, [&](const Submit& submit) {
        return submit.key.request_id == base + "-" + text;
      });
      ASSERT_NE(of, submits.end());
      Send(*of, 0, Ids(text), true);
    }
    const std::string answer = client.ReadUntil(stream ? "0\r\n\r\n" : "}}\n");
    EXPECT_THAT(answer, HasSubstr("X-Request-Id: " + base + "\r\n"));
    for (int i = 0; i < 3; ++i) {
      if (stream) {
        EXPECT_THAT(answer, HasSubstr(fmt::format("{{\"index\":{},\"text\":\"{}\"", i, i)));
      } else {
        EXPECT_EQ(BodyOf(answer)["choices"][i]["text"], std::to_string(i));
        EXPECT_EQ(BodyOf(answer)["usage"]["completion_tokens"], 3);
      }
    }
  }
}

// One prompt is refused after the others were accepted: the answer is that refusal, and the others
// free their places.
TEST_F(HttpServiceTest, ARefusedPromptOfAListRefusesAll) {
  TcpClient client("127.0.0.1", port_);
  client.Write(Post("/v1/completions", R"({"prompt": ["a", "b", "c"], "stream": true})"));
  const std::vector<Submit> submits = WaitForSubmits(3);
  Accept(submits[0]);
  Accept(submits[2]);
  sessions_.OnRefused(
      {.attempt = submits[1].attempt,
       .status = WithReason(Exhausted("too many wait"), Reason::kQueueFull, "", 1)});
  const std::string answer = client.ReadUntil("}}\n");
  EXPECT_TRUE(http::IsStatus(answer, 429)) << answer;
  EXPECT_EQ(link_.WaitForSuspends(2).size(), 2u);
  const std::string never = AskPost("/v1/completions", R"({"prompt": ["a", [999999], "c"]})");
  EXPECT_TRUE(http::IsStatus(never, 400)) << never;
  EXPECT_EQ(BodyOf(never)["error"]["param"], "prompt[1][0]");
  EXPECT_THAT(BodyOf(never)["error"]["message"], HasSubstr("prompt[1][0] is 999999"));
}

// Whether it streams or not, and whether it was accepted or not.
TEST_F(HttpServiceTest, AClientThatHangsUpFreesItsPlace) {
  size_t left = 0;
  for (const char* stream : {"true", "false"}) {
    for (const bool accepted : {true, false}) {
      auto client = std::make_unique<TcpClient>("127.0.0.1", port_);
      client->Write(
          Post("/v1/completions", fmt::format(R"({{"prompt": "x", "stream": {}}})", stream)));
      const Submit submit = WaitForSubmits(1).at(0);
      if (accepted) {
        Accept(submit);
        Send(submit, 0, Ids("some"), false);
      }
      client.reset();
      EXPECT_EQ(link_.WaitForSuspends(++left).back(), submit.attempt);
    }
  }
}

TEST_F(HttpServiceTest, ALostStreamIsTakenUpAgain) {
  const std::string body =
      R"({"prompt": "x", "stream": true, "stream_options": {"include_usage": true}})";
  auto client = std::make_unique<TcpClient>("127.0.0.1", port_);
  client->Write(Post("/v1/completions", body, "X-Request-Id: lost\r\n"));
  const Submit submit = WaitForSubmits(1).at(0);
  Accept(submit);
  const std::vector<TokenId> ids = Ids("one two three");
  Send(submit, 0, ids, false);
  client->ReadUntil("three");
  client.reset();
  link_.WaitForSuspends(1);
  // It has the first token only.
  TcpClient again("127.0.0.1", port_);
  again.Write(Post("/v1/completions", body, "Last-Event-ID: lost:1\r\n"));
  const Submit second = WaitForSubmits(1).at(0);
  Accept(second);
  Send(second, static_cast<int32_t>(ids.size()), {}, true);
  const std::string answer = again.ReadUntil("0\r\n\r\n");
  EXPECT_TRUE(http::IsStatus(answer, 200)) << answer;
  const std::string rest = "one two three";
  const std::string first = *TinyTokenizer().Decode({ids.data(), 1}, true);
  EXPECT_THAT(answer, HasSubstr("\"text\":\"" + rest.substr(first.size()) + "\""));
  EXPECT_THAT(answer, HasSubstr(fmt::format("\"completion_tokens\":{}", ids.size())));
  EXPECT_THAT(answer, HasSubstr("[DONE]"));
  // The ended answer is held. A body with another n than that of the request is refused.
  const std::string other = AskPost("/v1/completions", R"({"prompt": "x", "stream": true, "n": 2})",
                                    "Last-Event-ID: lost:1,1\r\n");
  EXPECT_TRUE(http::IsStatus(other, 400)) << other;
  const std::string unknown = AskPost("/v1/completions", body, "Last-Event-ID: nobody\r\n");
  EXPECT_EQ(BodyOf(unknown)["error"]["param"], "Last-Event-ID");
}

TEST_F(HttpServiceTest, RefusalsWithoutTheScheduler) {
  const struct {
    std::string path, body, param, code;
    int status;
  } cases[] = {
      {"/v1/completions", "{", "", "invalid_json", 400},
      {"/v1/completions", R"({"prompt": "x", "model": "other"})", "model", "model_not_found", 404},
      {"/v1/completions", R"({"prompt": "x", "temperature": 3})", "temperature", "out_of_range",
       400},
      {"/v1/completions", R"({"prompt": "x", "max_tokens": 0})", "max_tokens", "out_of_range", 400},
      {"/v1/completions", R"({"prompt": []})", "prompt", "empty_prompt", 400},
      {"/v1/completions", R"({"prompt": "x", "truncate_prompt_tokens": 0})",
       "truncate_prompt_tokens", "out_of_range", 400},
      {"/v1/chat/completions",
       R"({"messages": [{"role": "user", "content": "x"}], "max_completion_tokens": 99999})",
       "max_completion_tokens", "context_length_exceeded", 400},
      {"/v1/chat/completions", R"({"messages": [{"role": "king", "content": "x"}]})",
       "messages[0].role", "unknown_role", 400},
      {"/v1/chat/completions",
       R"({"messages": [{"role": "user", "content": "x"}], "logprobs": true, "top_logprobs": 21})",
       "top_logprobs", "out_of_range", 400},
      {"/tokenize", R"({"prompt": 5})", "prompt", "out_of_range", 400},
      {"/detokenize", R"({"tokens": [99999]})", "tokens[0]", "out_of_range", 400},
  };
  for (const auto& c : cases) {
    const std::string answer = AskPost(c.path, c.body);
    EXPECT_TRUE(http::IsStatus(answer, c.status)) << c.body << ": " << answer;
    const Json error = BodyOf(answer)["error"];
    EXPECT_EQ(error["code"], c.code) << answer;
    EXPECT_EQ(error["param"], c.param.empty() ? Json() : Json(c.param)) << answer;
    EXPECT_THAT(answer, Not(HasSubstr(world_.folder.path)));
  }
  const std::string typed = http::Ask(
      port_, "POST /tokenize HTTP/1.1\r\nConnection: close\r\nContent-Length: 2\r\n\r\n{}");
  EXPECT_TRUE(http::IsStatus(typed, 415)) << typed;
  EXPECT_TRUE(http::IsStatus(
      AskPost("/v1/completions", R"({"prompt": "x"})", "X-Request-Id: a b\r\n"), 400));
}

TEST_F(HttpServiceTest, TokenizesAndListsModels) {
  const Json ids = BodyOf(AskPost("/tokenize", R"({"prompt": "a é", "return_token_strs": true})"));
  std::vector<TokenId> wanted = {0};
  for (const TokenId id : Ids("a é")) wanted.push_back(id);
  EXPECT_EQ(ids["tokens"], Json(wanted));
  EXPECT_EQ(ids["count"], wanted.size());
  EXPECT_EQ(ids["max_model_len"], 4096);
  EXPECT_EQ(ids["token_strs"].size(), wanted.size());
  const Json text = BodyOf(AskPost("/detokenize", Json{{"tokens", Ids("a é")}}.dump()));
  EXPECT_EQ(text["prompt"], "a é");
  const Json models = BodyOf(http::Get(port_, "/v1/models"));
  EXPECT_EQ(models["data"][0]["id"], "tiny");
  EXPECT_EQ(models["data"][0]["max_model_len"], 4096);
  EXPECT_EQ(BodyOf(http::Get(port_, "/v1/models/t%69ny"))["id"], "tiny");
  EXPECT_TRUE(http::IsStatus(http::Get(port_, "/v1/models/other"), 404));
}

// A long body goes through the pool; a prompt beyond the context is cut if the request says so.
TEST_F(HttpServiceTest, ALongPromptIsCut) {
  std::string words;
  for (int i = 0; i < 20000; ++i) words += " word";
  EXPECT_EQ(BodyOf(AskPost("/v1/completions", Json{{"prompt", words}}.dump()))["error"]["code"],
            "context_length_exceeded");
  for (const int32_t keep : {10, -1}) {
    TcpClient client("127.0.0.1", port_);
    client.Write(
        Post("/v1/completions", Json{{"prompt", words}, {"truncate_prompt_tokens", keep}}.dump()));
    const Submit submit = WaitForSubmits(1).at(0);
    const auto size = static_cast<int32_t>(submit.record->prompt_ids.size());
    EXPECT_EQ(size, keep > 0 ? keep : 4096 - 16);
    const std::vector<TokenId> all = Ids(words);
    EXPECT_TRUE(std::equal(submit.record->prompt_ids.begin(), submit.record->prompt_ids.end(),
                           all.end() - size));
  }
}

// A route without a row in router/api/access_table.cc is open to nobody.
TEST_F(HttpServiceTest, EveryRouteHasARowInTheTableOfAccess) {
  http::Routes routes;
  AddInferenceRoutes(world_.api.get(), &routes);
  const Metrics metrics("router");
  const auto fine = [] { return absl::OkStatus(); };
  http::AddProcessRoutes("router", &metrics, {.live = fine, .ready = fine, .progress = {}},
                         &routes);
  EXPECT_GT(routes.Names().size(), 10U);
  for (const std::string& name : routes.Names()) {
    EXPECT_NE(AccessOf(name), Access::kNobody) << name;
  }
}

TEST(HttpGuard, RefusesBeforeTheBodyAndInTheFormOfTheApi) {
  http::Routes routes;
  std::atomic<int> handled = 0;
  for (const char* path : {"/v1/completions", "/v1/messages", "/v1/new"}) {
    routes.AddExchange("POST", path, 4 << 20, [&](const std::shared_ptr<http::Exchange>& exchange) {
      ++handled;
      exchange->Answer({200, "text/plain", exchange->request().tenant, {}});
    });
  }
  const AccessControl off;
  const std::string file = std::filesystem::temp_directory_path() / "fathom-no-such-keys";
  const AccessControl on({file});  // Not loaded: it has no key.
  const auto ask = [&](const AccessControl* access, const std::string& path) {
    Listener listener = http::Listen();
    const int port = listener.port();
    const http::Server server(std::move(listener), routes, {}, {}, {.guard = GuardOf(access)});
    // The body never comes: only an answer before it lets this end.
    const bool body = access == &off;
    return http::Ask(
        port, "POST " + path + " HTTP/1.1\r\nHost: x\r\nConnection: close\r\n" +
                  (body ? "Content-Length: 2\r\n\r\n{}" : "Content-Length: 4000000\r\n\r\n"));
  };
  EXPECT_THAT(ask(&off, "/v1/completions"), HasSubstr("\r\n\r\ndefault"));
  EXPECT_TRUE(http::IsStatus(ask(&off, "/v1/new"), 403));
  EXPECT_EQ(handled, 1);
  const std::string refused = ask(&on, "/v1/completions");
  EXPECT_TRUE(http::IsStatus(refused, 401)) << refused;
  EXPECT_THAT(refused, HasSubstr("WWW-Authenticate: Bearer\r\n"));
  EXPECT_THAT(refused, HasSubstr("\"code\":\"missing_api_key\""));
  EXPECT_THAT(refused, HasSubstr("\"type\":\"authentication_error\""));
  const std::string anthropic = ask(&on, "/v1/messages");
  EXPECT_TRUE(http::IsStatus(anthropic, 401)) << anthropic;
  EXPECT_THAT(anthropic,
              HasSubstr("{\"type\":\"error\",\"error\":{\"type\":\"authentication_error\""));
  EXPECT_EQ(handled, 1);
}

TEST(LastEventId, HasAnIdAndANumberForEachChoice) {
  const auto event = ParseLastEventId("a:b:1,20", 2);
  ASSERT_TRUE(event.ok());
  EXPECT_EQ(event->request_id, "a:b");
  EXPECT_EQ(event->positions, (std::vector<int32_t>{1, 20}));
  for (const char* bad : {"", ":", "a", "a:", "a:1", ":1,2", "a:1,2,3", "a:1,-2", "a:1,x", "a:1,2,",
                          "a:1,99999999999", "a:1, 2"}) {
    EXPECT_FALSE(ParseLastEventId(bad, 2).ok()) << bad;
  }
}

}  // namespace
}  // namespace fathom::router
