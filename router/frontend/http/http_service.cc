#include "router/frontend/http/http_service.h"

#include <algorithm>
#include <charconv>
#include <chrono>
#include <memory>
#include <optional>
#include <utility>

#include "common/reason.h"
#include "common/utf8.h"
#include "router/frontend/http/anthropic_error.h"
#include "router/frontend/http/anthropic_request.h"
#include "router/frontend/http/http_answer.h"
#include "router/frontend/http/http_error.h"
#include "router/frontend/http/json_writer.h"
#include "router/frontend/http/openai_request.h"
#include "router/frontend/http/page.h"
#include "router/frontend/http/responses_request.h"

namespace fathom::router {
namespace {

using ExchangePtr = std::shared_ptr<http::Exchange>;

// As a message of gRPC.
constexpr size_t kBodyBytesMax = 4 << 20;

int64_t NowUnixS() {
  const auto now = std::chrono::system_clock::now().time_since_epoch();
  return std::chrono::duration_cast<std::chrono::seconds>(now).count();
}

// The one place where a call gets its tenant, which the guard found (http_guard.h).
CallContext ContextOf(const http::Request& request) {
  const bool ipv6 = request.peer.find(':') != std::string::npos;
  return {.tenant = request.tenant.empty() ? kDefaultTenant : request.tenant,
          .peer = ipv6 ? fmt::format("ipv6:[{}]:0", request.peer)
                       : fmt::format("ipv4:{}:0", request.peer),
          .forwarded_for = std::string(request.Header("x-forwarded-for")),
          .trace = ParseTraceparent(request.Header("traceparent")),
          .received_unix_s = NowUnixS()};
}

CallContext ContextOf(const ExchangePtr& exchange) {
  CallContext call = ContextOf(exchange->request());
  call.cancelled = [exchange] { return exchange->hung_up(); };
  return call;
}

// 415: without this type a page of another site could send requests through a user's browser.
std::optional<http::Response> CheckContentType(const http::Request& request) {
  std::string_view type = request.Header("content-type");
  type = type.substr(0, type.find(';'));
  while (type.ends_with(' ')) type.remove_suffix(1);
  std::string lower(type);
  for (char& c : lower) c = static_cast<char>(c >= 'A' && c <= 'Z' ? c - 'A' + 'a' : c);
  if (lower == "application/json") return std::nullopt;
  return http::ErrorResponse(
      415, "unsupported_media_type",
      fmt::format("Content-Type is \"{}\"; send a body of JSON with the header Content-Type: "
                  "application/json",
                  Shortened(ToUtf8(lower), 64)));
}

// ---- Generating

// The headers that say more of a request than its body.
absl::StatusOr<std::optional<LastEvent>> ReadHeaders(const http::Request& http, FormRequest* read) {
  OpenAiRequest* request = &read->request;
  PublicRequest& params = request->params;
  const std::string id(http.Header("x-request-id"));
  if (!id.empty() && !params.request_id.empty() && id != params.request_id) {
    return WithReason(Invalid("the header X-Request-Id and request_id in the body differ; send one "
                              "of them"),
                      Reason::kOutOfRange, "request_id");
  }
  if (!id.empty()) params.request_id = id;
  params.idempotency_key = std::string(http.Header("idempotency-key"));
  const std::string_view last = http.Header("last-event-id");
  if (last.empty()) return std::nullopt;
  if (!read->form.can_resume) {
    return WithReason(
        Unimplemented(
            "the header Last-Event-ID is set, but a stream of this API cannot be taken up "
            "again; send the header Idempotency-Key with each request, and repeat the "
            "request with the same key: the answer is the same from its begin"),
        Reason::kNotImplemented, "Last-Event-ID");
  }
  if (!request->answer.stream) {
    return WithReason(Invalid("the header Last-Event-ID is set, but stream is not true; only a "
                              "stream can be taken up again"),
                      Reason::kOutOfRange, "Last-Event-ID");
  }
  const auto choices = static_cast<int32_t>(request->prompts.size()) * request->answer.n;
  FATHOM_ASSIGN_OR_RETURN(LastEvent event, ParseLastEventId(last, choices));
  return event;
}

template <absl::StatusOr<OpenAiRequest> (*read)(const JsonValue& body)>
absl::StatusOr<FormRequest> ReadOpenAi(const JsonValue& body) {
  FATHOM_ASSIGN_OR_RETURN(OpenAiRequest request, read(body));
  AnswerForm form = OpenAiForm(request);
  return FormRequest{std::move(request), std::move(form)};
}

// How the bodies of a route are read, and the form of the errors before that.
struct GenerateRoute {
  ReadFormFn read;
  ErrorAnswerFn error = ErrorAnswer;
  // Checks the headers of the API; null: it has none.
  absl::Status (*check)(const http::Request& request) = nullptr;
};

void Refuse(const InferenceApi* api, const ExchangePtr& exchange, const GenerateRoute& route,
            const absl::Status& status) {
  api->CountRefused(status);
  exchange->Answer(route.error(status, {}));
}

void Generate(const InferenceApi* api, const ExchangePtr& exchange, const CallContext& call,
              const GenerateRoute& route) {
  if (route.check != nullptr) {
    const absl::Status status = route.check(exchange->request());
    if (!status.ok()) return Refuse(api, exchange, route, status);
  }
  const auto body = ParseBody(exchange->request().body);
  exchange->request().body = {};
  if (!body.ok()) return Refuse(api, exchange, route, body.status());
  auto read = route.read(*body);
  if (!read.ok()) return Refuse(api, exchange, route, read.status());
  auto last = ReadHeaders(exchange->request(), &*read);
  if (!last.ok()) return Refuse(api, exchange, route, last.status());
  HttpAnswer::Start(exchange, api, call, *std::move(read), *std::move(last));
}

// ---- Texts and models

http::Response Json(JsonWriter* json) { return {200, "application/json", json->Take() + "\n", {}}; }

absl::StatusOr<http::Response> Tokenize(const InferenceApi* api, const CallContext& call,
                                        const std::string& body) {
  FATHOM_ASSIGN_OR_RETURN(const JsonValue parsed, ParseBody(body));
  FATHOM_ASSIGN_OR_RETURN(HttpTokenizeRequest request, ReadTokenize(parsed));
  FATHOM_ASSIGN_OR_RETURN(const ModelAnswer model, api->GetModel(request.model));
  FATHOM_ASSIGN_OR_RETURN(const TokenizeAnswer answer,
                          api->Tokenize(call, std::move(request.request)));
  JsonWriter json;
  json.BeginObject().Key("count").Int(static_cast<int64_t>(answer.ids.size()));
  json.Key("max_model_len").Int(model.context_tokens).Key("tokens").BeginArray();
  for (const TokenId id : answer.ids) json.Int(id);
  json.EndArray().Key("token_strs");
  if (request.return_token_strs) {
    const TokenTexts texts(api->tokenizer(), /*as_ids=*/false);
    json.BeginArray();
    for (const TokenId id : answer.ids) json.String(texts.Text(id));
    json.EndArray();
  } else {
    json.Null();
  }
  json.EndObject();
  return Json(&json);
}

absl::StatusOr<http::Response> Detokenize(const InferenceApi* api, const CallContext&,
                                          const std::string& body) {
  FATHOM_ASSIGN_OR_RETURN(const JsonValue parsed, ParseBody(body));
  FATHOM_ASSIGN_OR_RETURN(const HttpDetokenizeRequest request, ReadDetokenize(parsed));
  FATHOM_RETURN_IF_ERROR(api->GetModel(request.model).status());
  FATHOM_ASSIGN_OR_RETURN(const std::string text, api->Detokenize(request.request));
  JsonWriter json;
  json.BeginObject().Key("prompt").String(text).EndObject();
  return Json(&json);
}

// Anthropic's count of the tokens that a request's prompt would have.
absl::StatusOr<http::Response> CountTokens(const InferenceApi* api, const CallContext& call,
                                           const std::string& body) {
  FATHOM_ASSIGN_OR_RETURN(const JsonValue parsed, ParseBody(body));
  FATHOM_ASSIGN_OR_RETURN(CountTokensRequest request, ReadCountTokens(parsed));
  FATHOM_RETURN_IF_ERROR(api->GetModel(request.model).status());
  FATHOM_ASSIGN_OR_RETURN(const TokenizeAnswer answer,
                          api->Tokenize(call, TokenizeRequest{std::move(request.chat)}));
  JsonWriter json;
  json.BeginObject().Key("input_tokens").Int(static_cast<int64_t>(answer.ids.size())).EndObject();
  return Json(&json);
}

void WriteModel(const ModelAnswer& model, int64_t created_unix_s, JsonWriter* json) {
  json->BeginObject().Key("id").String(model.name).Key("object").String("model");
  json->Key("created").Int(created_unix_s).Key("owned_by").String("fathom");
  json->Key("root").String(model.name).Key("parent").Null();
  json->Key("max_model_len").Int(model.context_tokens).Key("permission").BeginArray().EndArray();
  json->EndObject();
}

// "%2F" becomes "/". A "%" without two digits stays.
std::string Unescaped(std::string_view text) {
  std::string plain;
  for (size_t i = 0; i < text.size(); ++i) {
    int byte = 0;
    const char* const digits = text.data() + i + 1;
    if (text[i] == '%' && i + 2 < text.size() &&
        std::from_chars(digits, digits + 2, byte, 16).ptr == digits + 2) {
      plain += static_cast<char>(byte);
      i += 2;
    } else {
      plain += text[i];
    }
  }
  return plain;
}

using AskFn = absl::StatusOr<http::Response> (*)(const InferenceApi* api, const CallContext& call,
                                                 const std::string& body);

void AddAsk(const InferenceApi* api, const std::string& path, AskFn ask, ErrorAnswerFn error,
            const FieldNames& names, http::Routes* routes) {
  const auto handler = [api, ask, error, names](const ExchangePtr& exchange) {
    if (auto refused = CheckContentType(exchange->request())) {
      return exchange->Answer(*std::move(refused));
    }
    const CallContext call = ContextOf(exchange);
    const auto refuse = [exchange, error, names](const absl::Status& status) {
      exchange->Answer(error(status, names));
    };
    const auto work = [api, ask, exchange, call, refuse] {
      auto answer = ask(api, call, exchange->request().body);
      if (!answer.ok()) return refuse(answer.status());
      exchange->Answer(*std::move(answer));
    };
    api->Run(call, exchange->request().body.size(), work, refuse);
  };
  routes->AddExchange("POST", path, kBodyBytesMax, handler);
}

void AddGenerate(const InferenceApi* api, const std::string& path, const GenerateRoute& route,
                 http::Routes* routes) {
  routes->AddExchange("POST", path, kBodyBytesMax, [api, route](const ExchangePtr& exchange) {
    if (auto refused = CheckContentType(exchange->request())) {
      return exchange->Answer(*std::move(refused));
    }
    const CallContext call = ContextOf(exchange);
    api->Run(
        call, exchange->request().body.size(),
        [api, exchange, call, route] { Generate(api, exchange, call, route); },
        [api, exchange, route](const absl::Status& status) {
          Refuse(api, exchange, route, status);
        });
  });
}

}  // namespace

absl::StatusOr<LastEvent> ParseLastEventId(std::string_view text, int32_t choices) {
  const auto refused = [&] {
    return WithReason(
        Invalid("Last-Event-ID is \"{}\"; it must be an id of an event of the stream, with {} "
                "numbers for this request: REQUEST_ID:N{}",
                Shortened(ToUtf8(text), 64), choices, choices > 1 ? ",N,..." : ""),
        Reason::kOutOfRange, "Last-Event-ID");
  };
  const size_t colon = text.rfind(':');
  if (colon == text.npos || colon == 0) return refused();
  LastEvent event{.request_id = std::string(text.substr(0, colon)), .positions = {}};
  for (size_t at = colon + 1; at <= text.size();) {
    const size_t end = std::min(text.find(',', at), text.size());
    int32_t position = -1;
    const auto [last, error] = std::from_chars(text.data() + at, text.data() + end, position);
    if (error != std::errc() || last != text.data() + end || position < 0) return refused();
    event.positions.push_back(position);
    at = end + 1;
  }
  if (static_cast<int32_t>(event.positions.size()) != choices) return refused();
  return event;
}

void AddInferenceRoutes(const InferenceApi* api, http::Routes* routes) {
  const int64_t created_unix_s = NowUnixS();
  AddGenerate(api, "/v1/chat/completions", {ReadOpenAi<ReadChatCompletion>}, routes);
  AddGenerate(api, "/v1/completions", {ReadOpenAi<ReadCompletion>}, routes);
  AddGenerate(api, "/v1/responses", {ReadResponses}, routes);
  AddGenerate(api, "/v1/messages", {ReadMessages, AnthropicErrorAnswer, CheckAnthropicVersion},
              routes);
  AddAsk(api, "/v1/messages/count_tokens", CountTokens, AnthropicErrorAnswer,
         {.prompt = "messages"}, routes);
  AddPageRoutes(
      api, [](const http::Request& request) { return ContextOf(request); }, routes);
  AddAsk(api, "/tokenize", Tokenize, ErrorAnswer, {}, routes);
  AddAsk(api, "/detokenize", Detokenize, ErrorAnswer, {}, routes);
  routes->Add("GET", "/v1/models", [api, created_unix_s](const http::Request&) {
    const auto model = api->GetModel("");
    if (!model.ok()) return ErrorAnswer(model.status(), {});
    JsonWriter json;
    json.BeginObject().Key("object").String("list").Key("data").BeginArray();
    WriteModel(*model, created_unix_s, &json);
    json.EndArray().EndObject();
    return Json(&json);
  });
  routes->AddUnder("GET", "/v1/models/", [api, created_unix_s](const http::Request& request) {
    const std::string name =
        ToUtf8(Unescaped(request.path.substr(std::string_view("/v1/models/").size())));
    const auto model = api->GetModel(name);
    if (!model.ok()) return ErrorAnswer(model.status(), {});
    JsonWriter json;
    WriteModel(*model, created_unix_s, &json);
    return Json(&json);
  });
}

}  // namespace fathom::router
