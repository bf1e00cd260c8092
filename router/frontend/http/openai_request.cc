#include "router/frontend/http/openai_request.h"

#include <algorithm>
#include <charconv>
#include <utility>

#include "common/reason.h"
#include "router/api/field_limits.h"
#include "router/frontend/http/chat_messages.h"
#include "router/frontend/http/field_reader.h"
#include "router/frontend/http/guided_fields.h"

namespace fathom::router {
namespace {

// A body has at most 4 MiB. Every level of nesting of tools and of template variables counts.
constexpr JsonLimits kBodyLimits{
    .bytes_max = 4 << 20, .depth_max = 64, .values_max = (1 << 20) + (1 << 16)};
// OpenAI's default for /v1/completions.
constexpr int32_t kCompletionMaxTokens = 16;
constexpr char kLater[] = "leave it out";

void ReadLogitBias(FieldReader* body, PublicSampling* sampling) {
  const JsonValue::Object* biases = body->Object("logit_bias");
  if (biases == nullptr) return;
  for (const auto& [key, value] : *biases) {
    TokenId id = 0;
    const auto [end, error] = std::from_chars(key.data(), key.data() + key.size(), id);
    const std::string path = fmt::format("logit_bias[{}]", JsonValue(key).Brief());
    if (error != std::errc() || end != key.data() + key.size()) {
      return body->Fail(WithReason(
          Invalid("{} has a key that is no token id; /tokenize gives a text's ids", path),
          Reason::kOutOfRange, "logit_bias"));
    }
    const int64_t* integer = value.AsInt();
    if (integer == nullptr && value.AsReal() == nullptr) {
      return body->Fail(WithReason(Invalid("{} is {}; it must be a number", path, value.Brief()),
                                   Reason::kOutOfRange, "logit_bias"));
    }
    const double bias = integer != nullptr ? static_cast<double>(*integer) : *value.AsReal();
    sampling->logit_bias.emplace_back(id, static_cast<float>(std::clamp(bias, -1e30, 1e30)));
  }
  std::ranges::sort(sampling->logit_bias);
  const auto same = [](const auto& a, const auto& b) { return a.first == b.first; };
  if (std::ranges::adjacent_find(sampling->logit_bias, same) != sampling->logit_bias.end()) {
    body->Fail(WithReason(Invalid("logit_bias has a token id twice; send each id once"),
                          Reason::kOutOfRange, "logit_bias"));
  }
}

void ReadForbidden(FieldReader* body, PublicSampling* sampling) {
  body->Take("bad_words", &sampling->bad_words);
  body->Take("allowed_token_ids", &sampling->allowed_token_ids);
  if (body->Has("allowed_token_ids") && sampling->allowed_token_ids.empty() && body->ok()) {
    body->Fail(WithReason(Invalid("allowed_token_ids has no id, so no token could be generated; "
                                  "send at least one, or leave it out"),
                          Reason::kOutOfRange, "allowed_token_ids"));
  }
}

void ReadSampling(FieldReader* body, PublicSampling* sampling) {
  ForEachSamplingField([&](const SamplingField& row, auto, auto option) {
    body->Take(row.name(), &(sampling->*option));
  });
  if (sampling->top_k == -1) sampling->top_k = 0;  // vLLM's value for off.
  ReadLogitBias(body, sampling);
  std::optional<int64_t> seed;
  body->Take("seed", &seed);
  if (seed) sampling->seed = static_cast<uint64_t>(*seed);
  body->Take("n", &sampling->n);
  // The best of n of n sequences are all of them.
  std::optional<int32_t> best_of;
  body->Take("best_of", &best_of);
  if (best_of && *best_of != sampling->n.value_or(1)) {
    body->Refuse("best_of", "send n, and choose by the log-probabilities");
  }
  body->Only("use_beam_search", {"false"}, "leave it out");
  body->Only("length_penalty", {"1", "1.0"}, "it belongs to beam search; leave it out");
  ReadForbidden(body, sampling);
  body->Refuse("logprob_token_ids", "ask for top_logprobs");
}

void ReadStop(FieldReader* body, PublicStop* stop) {
  if (const JsonValue* strings = body->Find("stop")) {
    if (const std::string* one = strings->AsString()) {
      stop->strings.push_back(*one);
    } else {
      body->Take("stop", &stop->strings);
    }
  }
  body->Take("stop_token_ids", &stop->token_ids);
  body->Take("min_tokens", &stop->min_tokens);
  body->Take("ignore_eos", &stop->ignore_eos);
  body->Take("include_stop_str_in_output", &stop->include_stop);
}

void ReadStreamOptions(FieldReader* body, AnswerOptions* answer) {
  body->Take("stream", &answer->stream);
  const JsonValue* value = body->Find("stream_options");
  if (value == nullptr) return;
  if (!answer->stream) {
    return body->Fail(WithReason(Invalid("stream_options is set, but stream is not true; set "
                                         "stream, or leave stream_options out"),
                                 Reason::kOutOfRange, "stream_options"));
  }
  FieldReader options(*value, "stream_options");
  options.Take("include_usage", &answer->include_usage);
  options.Take("continuous_usage_stats", &answer->continuous_usage);
  options.Only("include_obfuscation", {"false"}, "leave it out");
  if (const absl::Status status = options.Finish(); !status.ok()) body->Fail(status);
}

// What every endpoint that generates has in common.
void ReadCommon(FieldReader* body, OpenAiRequest* request) {
  PublicRequest& params = request->params;
  AnswerOptions& answer = request->answer;
  body->Take("model", &params.model);
  body->Take("request_id", &params.request_id);
  ReadSampling(body, &params.sampling);
  answer.n = std::max(params.sampling.n.value_or(1), 1);
  ReadStop(body, &params.stop);
  ReadStreamOptions(body, &answer);
  body->Take("skip_special_tokens", &answer.skip_special);
  params.output.keep_special = !answer.skip_special;
  body->Take("prompt_logprobs", &params.output.prompt_logprobs);
  answer.prompt_logprobs = params.output.prompt_logprobs.has_value();
  body->Take("thinking_token_budget", &params.thinking.token_budget);
  body->Take("truncate_prompt_tokens", &request->truncate_prompt_tokens);
  body->Only("truncation_side", {"\"left\""}, "the end of a prompt is kept");
  body->Take("return_token_ids", &answer.return_token_ids);
  body->Take("return_tokens_as_token_ids", &answer.tokens_as_token_ids);
  body->Take("timings", &answer.timings);
  std::optional<int64_t> deadline_ms;
  body->Take("deadline_ms", &deadline_ms);
  params.deadline_ms = deadline_ms.value_or(0);
  body->Only("spaces_between_special_tokens", {"true"}, kLater);
  body->Only("stream_interval", {"1"}, "tokens are sent as they come");
  body->Take("priority", &params.priority);
  body->Take("cache_salt", &params.cache.salt);
  ReadGuided(body, &params);
  for (const char* foreign :
       {"kv_transfer_params", "vllm_xargs", "repetition_detection", "watermarking", "session_id",
        "return_prompt_text", "prompt_embeds", "logits_processors"}) {
    body->Refuse(foreign, kLater);
  }
  body->Accept("user");  // These name the caller's user, and decide nothing here.
}

// Positions of the choices are numbers of tokens, so the session counts them also without ids.
void FinishOutput(OpenAiRequest* request) {
  request->params.output.ids = request->answer.return_token_ids || request->answer.logprobs;
  request->params.output.text = true;
}

void ReadChatLogprobs(FieldReader* body, OpenAiRequest* request) {
  body->Take("logprobs", &request->answer.logprobs);
  std::optional<int32_t> top;
  body->Take("top_logprobs", &top);
  if (top.value_or(0) != 0 && !request->answer.logprobs) {
    return body->Fail(
        WithReason(Invalid("top_logprobs is {}, but logprobs is not true; set it, or leave "
                           "top_logprobs out",
                           *top),
                   Reason::kOutOfRange, "top_logprobs"));
  }
  if (request->answer.logprobs) request->params.output.logprobs = top.value_or(0);
}

// One prompt: a text or a list of token ids.
Prompt ReadPrompt(const JsonValue& value, const std::string& path, FieldReader* body) {
  if (const std::string* text = value.AsString()) return *text;
  const JsonValue::Array* array = value.AsArray();
  std::vector<TokenId> ids;
  for (size_t i = 0; array != nullptr && i < array->size() && body->ok(); ++i) {
    const auto id = TokenIdOf((*array)[i], fmt::format("{}[{}]", path, i));
    if (!id.ok()) body->Fail(id.status());
    ids.push_back(id.value_or(0));
  }
  if (array == nullptr)
    body->FailType(path, value, "a text, a list of token ids, or a list of these");
  return ids;
}

void ReadPrompts(FieldReader* body, OpenAiRequest* request) {
  const JsonValue* value = body->Find("prompt");
  if (value == nullptr) {
    return body->Fail(WithReason(Invalid("prompt is missing; send a text or token ids"),
                                 Reason::kEmptyPrompt, "prompt"));
  }
  const JsonValue::Array* array = value->AsArray();
  const bool list = array != nullptr && !array->empty() && array->front().AsInt() == nullptr &&
                    array->front().AsReal() == nullptr;
  request->prompt_list = list;
  if (!list) {
    request->prompts.push_back(ReadPrompt(*value, "prompt", body));
    return;
  }
  const int64_t choices = static_cast<int64_t>(array->size()) * request->answer.n;
  if (choices > kChoicesMax) {
    return body->Fail(WithReason(
        Invalid("prompt has {} prompts with {} choices each, together {}; this server's limit is "
                "{}; send several requests",
                array->size(), request->answer.n, choices, kChoicesMax),
        Reason::kOutOfRange, "prompt"));
  }
  for (size_t i = 0; i < array->size() && body->ok(); ++i) {
    request->prompts.push_back(ReadPrompt((*array)[i], fmt::format("prompt[{}]", i), body));
  }
}

}  // namespace

absl::StatusOr<JsonValue> ParseBody(const std::string& body) {
  auto parsed = ParseJson(body, kBodyLimits);
  if (parsed.ok()) return parsed;
  return WithReason(Annotate(parsed.status(), "the body is not JSON that this server reads"),
                    Reason::kInvalidJson);
}

absl::StatusOr<OpenAiRequest> ReadChatCompletion(const JsonValue& value) {
  OpenAiRequest request;
  request.answer.chat = true;
  FieldReader body(value, "");
  request.prompts.emplace_back(ReadChatPrompt(&body));
  ReadCommon(&body, &request);
  ReadChatLogprobs(&body, &request);
  PublicStop& stop = request.params.stop;
  body.Take("max_tokens", &stop.max_tokens);
  const std::optional<int32_t> max_tokens = stop.max_tokens;
  if (body.Has("max_completion_tokens")) {
    body.Take("max_completion_tokens", &stop.max_tokens);
    request.answer.max_tokens_name = "max_completion_tokens";
    if (max_tokens && max_tokens != stop.max_tokens) {
      body.Fail(WithReason(Invalid("max_tokens is {} and max_completion_tokens is {}; send one of "
                                   "them",
                                   *max_tokens, stop.max_tokens.value_or(0)),
                           Reason::kOutOfRange, "max_tokens"));
    }
  }
  body.Take("include_reasoning", &request.answer.include_reasoning);
  body.Take("reasoning_effort", &request.params.thinking.effort);
  body.Only("echo", {"false"}, "use /v1/completions");
  body.Only("add_special_tokens", {"false"}, "the chat template has the special tokens");
  body.Only("modalities", {"[\"text\"]"}, kLater);
  body.Only("store", {"false"}, "answers are not stored");
  body.Only("service_tier", {"\"auto\"", "\"default\""}, kLater);
  body.Only("verbosity", {"\"medium\""}, "ask for it in a message");
  body.Only("prompt_cache_retention", {"\"in_memory\"", "\"in-memory\""}, kLater);
  for (const char* accepted : {"metadata", "safety_identifier", "prompt_cache_key"}) {
    body.Accept(accepted);
  }
  for (const char* refused : {"audio", "prediction", "web_search_options", "moderation"}) {
    body.Refuse(refused, kLater);
  }
  body.Refuse("functions", "use tools");
  body.Refuse("function_call", "use tool_choice");
  FATHOM_RETURN_IF_ERROR(body.Finish());
  FinishOutput(&request);
  return request;
}

absl::StatusOr<OpenAiRequest> ReadCompletion(const JsonValue& value) {
  OpenAiRequest request;
  FieldReader body(value, "");
  ReadCommon(&body, &request);
  ReadPrompts(&body, &request);
  PublicOutput& output = request.params.output;
  body.Take("logprobs", &output.logprobs);
  request.answer.logprobs = output.logprobs.has_value();
  request.params.stop.max_tokens = kCompletionMaxTokens;
  body.Take("max_tokens", &request.params.stop.max_tokens);
  body.Take("echo", &request.answer.echo);
  if (request.answer.echo && request.answer.logprobs) {
    // The log-probabilities of the prompt stand before those of the answer.
    if (!output.prompt_logprobs) output.prompt_logprobs = output.logprobs;
  }
  body.Only("add_special_tokens", {"true"}, "send token ids to decide them yourself");
  body.Only("suffix", {"\"\""},
            "put the text around the gap into the prompt as the model wants it");
  FATHOM_RETURN_IF_ERROR(body.Finish());
  FinishOutput(&request);
  return request;
}

absl::StatusOr<HttpTokenizeRequest> ReadTokenize(const JsonValue& value) {
  HttpTokenizeRequest read;
  FieldReader body(value, "");
  body.Take("model", &read.model);
  body.Take("return_token_strs", &read.return_token_strs);
  std::optional<bool> add_special;
  body.Take("add_special_tokens", &add_special);
  if (body.Has("messages")) {
    read.request.input = ReadChatPrompt(&body);
    if (add_special.value_or(false)) {
      body.Refuse("add_special_tokens", "the chat template has the special tokens");
    }
  } else {
    std::optional<std::string> prompt;
    body.Take("prompt", &prompt);
    if (!prompt && body.ok()) {
      body.Fail(WithReason(Invalid("prompt and messages are missing; send one of them"),
                           Reason::kEmptyPrompt, "prompt"));
    }
    read.request.input = std::move(prompt).value_or("");
    read.request.add_special_tokens = add_special.value_or(true);
  }
  FATHOM_RETURN_IF_ERROR(body.Finish());
  return read;
}

absl::StatusOr<HttpDetokenizeRequest> ReadDetokenize(const JsonValue& value) {
  HttpDetokenizeRequest read;
  FieldReader body(value, "");
  body.Take("model", &read.model);
  body.Take("tokens", &read.request.ids);
  body.Take("skip_special_tokens", &read.request.skip_special);
  FATHOM_RETURN_IF_ERROR(body.Finish());
  return read;
}

}  // namespace fathom::router
