#include "router/frontend/http/http_error.h"

#include <algorithm>
#include <charconv>
#include <string_view>
#include <utility>
#include <vector>

#include "common/reason.h"
#include "common/utf8.h"
#include "router/frontend/http/json_writer.h"

namespace fathom::router {
namespace {

constexpr int kClientLeft = 499;

std::string_view TypeOf(int status) {
  if (status == 429) return "rate_limit_error";
  if (status == 401) return "authentication_error";
  if (status == 403) return "permission_error";
  return status < 500 ? "invalid_request_error" : "server_error";
}

void ReplaceAll(std::string_view from, std::string_view to, std::string* text) {
  for (size_t at = 0; (at = text->find(from, at)) != std::string::npos; at += to.size()) {
    text->replace(at, from.size(), to);
  }
}

// "messages[3]" as the body has it.
std::string WithMessagePaths(const std::string& text, const std::vector<std::string>& paths) {
  constexpr std::string_view kName = "messages[";
  std::string renamed;
  size_t done = 0;
  for (size_t at = 0; (at = text.find(kName, at)) != std::string::npos;) {
    const char* const digits = text.data() + at + kName.size();
    size_t index = 0;
    const auto [end, error] = std::from_chars(digits, text.data() + text.size(), index);
    at += kName.size();
    if (error != std::errc() || *end != ']' || index >= paths.size()) continue;
    renamed.append(text, done, at - kName.size() - done);
    renamed += paths[index];
    done = at = static_cast<size_t>(end + 1 - text.data());
  }
  return renamed + text.substr(done);
}

// The fields as the body named them, in a message or in the path of a field.
std::string Renamed(std::string text, const FieldNames& names) {
  const std::pair<std::string_view, std::string_view> pairs[] = {
      {"stop.max_tokens", names.max_tokens},
      {"stop.strings", names.stop},
      {"stop.token_ids", "stop_token_ids"},
      {"stop.min_tokens", "min_tokens"},
      {"stop.ignore_eos", "ignore_eos"},
      {"output.logprobs", names.logprobs},
      {"output.prompt_logprobs", "prompt_logprobs"},
      {"output.ids and output.text are both off", "the model has no tokenizer"},
      {"leave one of them on", "set return_token_ids"},
      {"output.ids", "return_token_ids"},
      {"sampling.", ""},
      {"cache.salt", "cache_salt"},
      {"thinking.token_budget", names.thinking_budget},
      {"thinking.effort", names.effort},
      {"chat_template_kwargs_json", "chat_template_kwargs"},
      {"tools_json", "tools"},
      {"next_positions", "Last-Event-ID"},
      {"use Generate with token_ids instead", "send a prompt of token ids to /v1/completions"},
      {"use Generate with a text instead", "send a prompt to /v1/completions"},
      {"set text or token_ids", "set prompt"},
      {"Tokenize gives", "/tokenize gives"},
  };
  for (const auto& [from, to] : pairs) ReplaceAll(from, to, &text);
  // These names are words of the language too, so only those that begin the text are meant.
  const std::pair<std::string_view, std::string_view> firsts[] = {
      {"token_ids", names.prompt}, {"text", names.prompt}, {"ids", "tokens"}};
  for (const auto& [from, to] : firsts) {
    const std::string_view after =
        std::string_view(text).substr(std::min(from.size(), text.size()));
    const bool whole = after.empty() || after.front() == '[' || after.front() == ' ';
    if (text.starts_with(from) && whole) text.replace(0, from.size(), to);
  }
  if (text == "prompt" || text == "messages") text = names.prompt;
  return names.messages.empty() ? text : WithMessagePaths(text, names.messages);
}

std::string Lower(std::string text) {
  for (char& c : text) c = static_cast<char>(c >= 'A' && c <= 'Z' ? c - 'A' + 'a' : c);
  return text;
}

ErrorDetail Detail(const absl::Status& status) {
  return DetailOf(status).value_or(ErrorDetail{std::string(CodeName(status.code())), "", 0});
}

}  // namespace

int HttpStatusOf(const absl::Status& status) {
  // What the model lacks does not come back with a repetition, which 409 would invite.
  const std::string reason = DetailOf(status).value_or(ErrorDetail{}).reason;
  if (reason == ReasonText(Reason::kNoTokenizer)) return 400;
  if (reason == ReasonText(Reason::kNoChatTemplate)) return 400;
  switch (status.code()) {
    case absl::StatusCode::kInvalidArgument:
    case absl::StatusCode::kOutOfRange:
    case absl::StatusCode::kUnimplemented:
      return 400;
    case absl::StatusCode::kUnauthenticated:
      return 401;
    case absl::StatusCode::kPermissionDenied:
      return 403;
    case absl::StatusCode::kNotFound:
      return 404;
    case absl::StatusCode::kAlreadyExists:
    case absl::StatusCode::kFailedPrecondition:
    case absl::StatusCode::kAborted:
      return 409;
    case absl::StatusCode::kResourceExhausted:
      return 429;
    case absl::StatusCode::kCancelled:
      return kClientLeft;
    case absl::StatusCode::kUnavailable:
      return 503;
    case absl::StatusCode::kDeadlineExceeded:
      return 504;
    default:
      return 500;
  }
}

ErrorParts PartsOf(const absl::Status& status, const FieldNames& names) {
  const ErrorDetail detail = Detail(status);
  return {.status = HttpStatusOf(status),
          .message = Renamed(ToUtf8(Message(status)), names),
          .param = detail.field.empty() ? "" : Renamed(ToUtf8(detail.field), names),
          .code = Lower(detail.reason)};
}

std::string ErrorObject(const absl::Status& status, const FieldNames& names) {
  const ErrorParts parts = PartsOf(status, names);
  JsonWriter json;
  json.BeginObject().Key("error").BeginObject();
  json.Key("message").String(parts.message);
  json.Key("type").String(TypeOf(parts.status));
  json.Key("param");
  if (parts.param.empty()) {
    json.Null();
  } else {
    json.String(parts.param);
  }
  json.Key("code").String(parts.code);
  json.EndObject().EndObject();
  return json.Take();
}

void AddRetryHeaders(const absl::Status& status, http::Response* answer) {
  const int64_t delay_ms = Detail(status).retry_after_ms;
  if (delay_ms <= 0) return;
  // The first is of whole seconds; the clients of OpenAI and Anthropic prefer the second.
  answer->headers.emplace_back("Retry-After", fmt::format("{}", (delay_ms + 999) / 1000));
  answer->headers.emplace_back("retry-after-ms", fmt::format("{}", delay_ms));
}

http::Response ErrorAnswer(const absl::Status& status, const FieldNames& names) {
  http::Response answer{
      HttpStatusOf(status), "application/json", ErrorObject(status, names) + "\n", {}};
  AddRetryHeaders(status, &answer);
  return answer;
}

}  // namespace fathom::router
