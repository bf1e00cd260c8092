#include "router/api/admission.h"

#include <algorithm>
#include <iterator>

#include "cluster/protocol.h"
#include "common/reason.h"
#include "common/utf8.h"
#include "router/api/field_limits.h"

namespace fathom::router {
namespace {

FieldContext ContextOf(const ModelFacts& facts) { return {facts.vocab, facts.name}; }

template <class T>
absl::Status CheckOptional(Field field, const std::optional<T>& value, const ModelFacts& facts) {
  return value ? CheckField(field, static_cast<double>(*value), ContextOf(facts))
               : absl::OkStatus();
}

bool IsNameCharacter(char c) {
  return (c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || c == '.' ||
         c == '_' || c == ':' || c == '-';
}

absl::Status CheckNames(const PublicRequest& request, const ModelFacts& facts) {
  const FieldContext context = ContextOf(facts);
  const auto size = [](const std::string& text) { return static_cast<double>(text.size()); };
  FATHOM_RETURN_IF_ERROR(CheckField(Field::kRequestIdBytes, size(request.request_id), context));
  if (!std::ranges::all_of(request.request_id, IsNameCharacter)) {
    return WithReason(
        Invalid("request_id '{}' has a character outside of [A-Za-z0-9._:-]; use only "
                "those, or leave it out",
                request.request_id),
        Reason::kInvalidCharacter, "request_id");
  }
  FATHOM_RETURN_IF_ERROR(
      CheckField(Field::kIdempotencyKeyBytes, size(request.idempotency_key), context));
  if (!std::ranges::all_of(request.idempotency_key, [](char c) { return c >= 0x20 && c < 0x7f; })) {
    return WithReason(
        Invalid(
            "idempotency_key has a character that is not printable ASCII; use a UUID, for example"),
        Reason::kInvalidCharacter, "idempotency_key");
  }
  FATHOM_RETURN_IF_ERROR(CheckField(Field::kModelBytes, size(request.model), context));
  FATHOM_RETURN_IF_ERROR(CheckField(Field::kCacheSaltBytes, size(request.cache.salt), context));
  if (!request.model.empty() && request.model != facts.name) {
    return WithReason(
        NotFound(
            "model {} is not served here; this cluster serves {}; leave the field out to take it",
            request.model, facts.name),
        Reason::kModelNotFound, "model");
  }
  FATHOM_RETURN_IF_ERROR(
      CheckField(Field::kDeadlineMs, static_cast<double>(request.deadline_ms), context));
  return CheckOptional(Field::kPriority, request.priority, facts);
}

absl::Status CheckSampling(const PublicSampling& sampling, const ModelFacts& facts) {
  const FieldContext context = ContextOf(facts);
  absl::Status numbers;
  ForEachSamplingField([&](const SamplingField& row, auto, auto option) {
    if (numbers.ok()) numbers = CheckOptional(FieldOf(row), sampling.*option, facts);
  });
  FATHOM_RETURN_IF_ERROR(numbers);
  FATHOM_RETURN_IF_ERROR(
      CheckField(Field::kLogitBiasCount, static_cast<double>(sampling.logit_bias.size()), context));
  for (const auto& [id, bias] : sampling.logit_bias) {
    FATHOM_RETURN_IF_ERROR(CheckField(Field::kLogitBiasId, id, context));
    FATHOM_RETURN_IF_ERROR(CheckField(Field::kLogitBiasValue, bias, context,
                                      fmt::format("sampling.logit_bias[{}]", id)));
  }
  FATHOM_RETURN_IF_ERROR(CheckOptional(Field::kN, sampling.n, facts));
  return absl::OkStatus();
}

absl::Status CheckStop(const PublicStop& stop, const ModelFacts& facts) {
  const FieldContext context = ContextOf(facts);
  FATHOM_RETURN_IF_ERROR(CheckOptional(Field::kMaxTokens, stop.max_tokens, facts));
  FATHOM_RETURN_IF_ERROR(CheckOptional(Field::kMinTokens, stop.min_tokens, facts));
  if (stop.max_tokens && stop.min_tokens > stop.max_tokens) {
    return WithReason(
        Invalid("stop.min_tokens is {}, more than stop.max_tokens, which is {}; lower "
                "the one or raise the "
                "other",
                *stop.min_tokens, *stop.max_tokens),
        Reason::kOutOfRange, "stop.min_tokens");
  }
  FATHOM_RETURN_IF_ERROR(
      CheckField(Field::kStopCount, static_cast<double>(stop.strings.size()), context));
  for (size_t i = 0; i < stop.strings.size(); ++i) {
    FATHOM_RETURN_IF_ERROR(CheckField(Field::kStopBytes,
                                      static_cast<double>(stop.strings[i].size()), context,
                                      fmt::format("stop.strings[{}]", i)));
  }
  FATHOM_RETURN_IF_ERROR(
      CheckField(Field::kStopTokenCount, static_cast<double>(stop.token_ids.size()), context));
  for (size_t i = 0; i < stop.token_ids.size(); ++i) {
    FATHOM_RETURN_IF_ERROR(CheckField(Field::kStopTokenId, stop.token_ids[i], context,
                                      fmt::format("stop.token_ids[{}]", i)));
  }
  return absl::OkStatus();
}

absl::Status CheckThinking(const PublicThinking& thinking, const ModelFacts& facts) {
  static constexpr const char* kEfforts[] = {"",       "none", "minimal", "low",
                                             "medium", "high", "xhigh"};
  if (std::ranges::find(kEfforts, thinking.effort, [](const char* effort) {
        return std::string_view(effort);
      }) == std::end(kEfforts)) {
    return WithReason(Invalid("thinking.effort is '{}'; it must be none, minimal, low, medium, "
                              "high or xhigh; thinking.token_budget takes any number of tokens",
                              Shortened(thinking.effort, 32)),
                      Reason::kOutOfRange, "thinking.effort");
  }
  return CheckOptional(Field::kThinkingBudget, thinking.token_budget, facts);
}

// A grammar decides where the output ends, and then only an end token may come.
absl::Status CheckGuided(const PublicRequest& request, const ModelFacts& facts) {
  if (!request.guided) return absl::OkStatus();
  const auto& [spec, field] = *request.guided;
  FATHOM_RETURN_IF_ERROR(CheckGrammarSpec(spec, field));
  const auto refused = [](absl::Status status, const char* of) {
    return WithReason(std::move(status), Reason::kOutOfRange, of);
  };
  if (request.stop.ignore_eos) {
    return refused(Invalid("stop.ignore_eos is true and {} is set: after the end of a grammar only "
                           "an end token may come; leave one of them out",
                           field),
                   "stop.ignore_eos");
  }
  if (request.stop.min_tokens.value_or(0) > 0) {
    return refused(Invalid("stop.min_tokens is {} and {} is set: a grammar may end earlier; leave "
                           "one of them out",
                           *request.stop.min_tokens, field),
                   "stop.min_tokens");
  }
  if (facts.end_token_ids.empty() && request.stop.token_ids.empty()) {
    return refused(
        Invalid("{} is set, and model {} has no end token; set stop.token_ids", field, facts.name),
        "stop.token_ids");
  }
  return absl::OkStatus();
}

absl::Status CheckOutput(const PublicRequest& request, const ModelFacts& facts) {
  const PublicOutput& output = request.output;
  FATHOM_RETURN_IF_ERROR(CheckOptional(Field::kLogprobs, output.logprobs, facts));
  FATHOM_RETURN_IF_ERROR(CheckOptional(Field::kPromptLogprobs, output.prompt_logprobs, facts));
  if (!output.ids.value_or(true) && !output.text.value_or(facts.has_tokenizer)) {
    return WithReason(Invalid("output.ids and output.text are both off, so nothing could be sent; "
                              "leave one of them on"),
                      Reason::kNothingToSend, "output.ids");
  }
  if (facts.has_tokenizer) return absl::OkStatus();
  if (output.text.value_or(false)) {
    return WithReason(
        Invalid(
            "output.text is true, but the folder of model {} has no tokenizer.json; ask for ids",
            facts.name),
        Reason::kNoTokenizer, "output.text");
  }
  if (!request.stop.strings.empty()) {
    return WithReason(
        Invalid(
            "stop.strings has {} strings, but the folder of model {} has no tokenizer.json; use "
            "stop.token_ids",
            request.stop.strings.size(), facts.name),
        Reason::kNoTokenizer, "stop.strings");
  }
  return absl::OkStatus();
}

// The limit of the tokens that prompt and answer have together, and where it comes from.
struct TokenLimit {
  int64_t tokens;
  bool pool_binds;
  std::string whose;
  Reason reason;
};

TokenLimit LimitOfTokens(const ModelFacts& facts) {
  if (facts.pool_tokens < facts.context_tokens) {
    return {facts.pool_tokens, true,
            fmt::format("the whole KV cache of a group ({} tokens)", facts.pool_tokens),
            Reason::kKvPoolExceeded};
  }
  return {facts.context_tokens, false,
          fmt::format("the context of model {} ({} tokens)", facts.name, facts.context_tokens),
          Reason::kContextLengthExceeded};
}

absl::Status PromptTooLong(const char* has, int64_t prompt_tokens, const TokenLimit& limit) {
  return WithReason(
      Invalid("the prompt has {}{} tokens and needs room for one more, which exceeds {}; shorten "
              "the prompt to {} tokens or fewer{}",
              has, prompt_tokens, limit.whose, limit.tokens - 1,
              limit.pool_binds ? ", or start the workers with more --kv-cache-memory" : ""),
      limit.reason, "prompt");
}

// The value of max_tokens: how many tokens may follow the prompt. INVALID_ARGUMENT: there is no
// room for one token, or for as many as the request asks for.
absl::StatusOr<int32_t> RoomAfter(int64_t prompt_tokens, const PublicStop& stop,
                                  const ModelFacts& facts) {
  const TokenLimit limit = LimitOfTokens(facts);
  if (prompt_tokens + 1 > limit.tokens) return PromptTooLong("", prompt_tokens, limit);
  const int64_t room = limit.tokens - prompt_tokens;
  if (stop.max_tokens && *stop.max_tokens > room) {
    return WithReason(Invalid("stop.max_tokens is {}; with a prompt of {} tokens that exceeds {}; "
                              "lower it to {}, leave it "
                              "out for as many as fit, or shorten the prompt",
                              *stop.max_tokens, prompt_tokens, limit.whose, room),
                      limit.reason, "stop.max_tokens");
  }
  if (stop.min_tokens.value_or(0) > room) {
    return WithReason(
        Invalid(
            "stop.min_tokens is {}; with a prompt of {} tokens that exceeds {}; lower it to {} or "
            "shorten the prompt",
            *stop.min_tokens, prompt_tokens, limit.whose, room),
        limit.reason, "stop.min_tokens");
  }
  return static_cast<int32_t>(stop.max_tokens.value_or(static_cast<int32_t>(room)));
}

// A record crosses every stream as one message, so its longest form must fit into one, with a
// quarter to spare for the rest of the message.
absl::Status CheckRecordSize(const Record& record) {
  constexpr int64_t kRecordBytesMax = int64_t{kClusterMessageBytesMax} / 4 * 3;
  // The bytes of a token with its log-probability and the alternatives, at most.
  const auto token_bytes = [](const std::optional<int32_t>& logprobs) {
    return int64_t{4} + (logprobs ? 20 + int64_t{8} * *logprobs : 0);
  };
  const Request& request = record.request;
  const int64_t prompt =
      static_cast<int64_t>(record.prompt_ids.size()) * token_bytes(request.output.prompt_logprobs);
  const int64_t sequence = request.stop.max_tokens * token_bytes(request.output.logprobs);
  const int64_t bytes = prompt + request.sequences * sequence;
  if (bytes <= kRecordBytesMax) return absl::OkStatus();
  return WithReason(
      Invalid("{} sequences of up to {} tokens{} take up to {} MiB together with a prompt of {} "
              "tokens; a request may take {} MiB; lower sampling.n, stop.max_tokens or "
              "output.logprobs",
              request.sequences, request.stop.max_tokens,
              request.output.logprobs ? " with log-probabilities" : "", bytes >> 20,
              record.prompt_ids.size(), kRecordBytesMax >> 20),
      Reason::kOutOfRange, request.sequences > 1 ? "sampling.n" : "stop.max_tokens");
}

// A worker has room for as many biases of a sequence as one request may have. The model's
// suppressed tokens are biases too, so they reduce what a request may send.
absl::Status CheckBiases(const SamplingParams& resolved, const PublicSampling& asked,
                         const ModelFacts& facts) {
  const auto max = static_cast<size_t>(LimitOf(Field::kLogitBiasCount).max);
  if (resolved.logit_bias.size() <= max) return absl::OkStatus();
  if (!asked.forbidden_ids.empty()) {
    return WithReason(
        Invalid("sampling.bad_words and sampling.allowed_token_ids forbid {} tokens; together with "
                "logit_bias and with what model {} suppresses they are {} biases; the limit is {}; "
                "forbid fewer",
                asked.forbidden_ids.size(), facts.name, resolved.logit_bias.size(), max),
        Reason::kOutOfRange,
        asked.bad_words.empty() ? "sampling.allowed_token_ids" : "sampling.bad_words");
  }
  return WithReason(
      Invalid("sampling.logit_bias has {} entries; the limit is {} together with the {} "
              "tokens that model {} suppresses; send {} entries or fewer",
              asked.logit_bias.size(), max, facts.defaults.suppressed_ids.size(), facts.name,
              max - facts.defaults.suppressed_ids.size()),
      Reason::kOutOfRange, "sampling.logit_bias");
}

// The request's biases together with the tokens that the model or the request suppresses. A bias
// does not allow such a token again.
std::vector<std::pair<TokenId, float>> WithSuppressed(
    const std::vector<std::pair<TokenId, float>>& biases, const std::vector<TokenId>& suppressed) {
  std::vector<std::pair<TokenId, float>> all;
  all.reserve(biases.size() + suppressed.size());
  for (const TokenId id : suppressed) all.emplace_back(id, kSuppressedBias);
  for (const auto& [id, bias] : biases) {
    if (!std::ranges::binary_search(suppressed, id)) all.emplace_back(id, bias);
  }
  std::ranges::sort(all);
  return all;
}

}  // namespace

SamplingParams ResolveSampling(const PublicSampling& sampling, const RequestDefaults& defaults) {
  std::vector<TokenId> suppressed;
  std::ranges::set_union(defaults.suppressed_ids, sampling.forbidden_ids,
                         std::back_inserter(suppressed));
  return {Resolve(sampling, defaults), WithSuppressed(sampling.logit_bias, suppressed)};
}

absl::Status CheckTokenIds(const std::vector<TokenId>& ids, const ModelFacts& facts,
                           const char* field) {
  for (size_t i = 0; i < ids.size(); ++i) {
    if (ids[i] >= 0 && ids[i] < facts.vocab) continue;
    return CheckField(Field::kPromptTokenId, ids[i], ContextOf(facts),
                      fmt::format("{}[{}]", field, i));
  }
  return absl::OkStatus();
}

absl::Status CheckPromptMayFit(int64_t tokens_at_least, const ModelFacts& facts) {
  const TokenLimit limit = LimitOfTokens(facts);
  if (tokens_at_least + 1 <= limit.tokens) return absl::OkStatus();
  return PromptTooLong("at least ", tokens_at_least, limit);
}

absl::Status CheckFields(const PublicRequest& request, const ModelFacts& facts) {
  FATHOM_RETURN_IF_ERROR(CheckNames(request, facts));
  FATHOM_RETURN_IF_ERROR(CheckSampling(request.sampling, facts));
  FATHOM_RETURN_IF_ERROR(CheckStop(request.stop, facts));
  FATHOM_RETURN_IF_ERROR(CheckThinking(request.thinking, facts));
  FATHOM_RETURN_IF_ERROR(CheckGuided(request, facts));
  return CheckOutput(request, facts);
}

absl::StatusOr<AdmittedRequest> Admit(const PublicRequest& request, std::vector<TokenId> prompt_ids,
                                      const ModelFacts& facts, const Identity& identity) {
  FATHOM_RETURN_IF_ERROR(CheckFields(request, facts));
  if (prompt_ids.empty()) {
    return WithReason(
        Invalid("the prompt has no tokens; send at least one, for example the model's BOS token"),
        Reason::kEmptyPrompt, "prompt");
  }
  FATHOM_RETURN_IF_ERROR(CheckTokenIds(prompt_ids, facts, "token_ids"));
  AdmittedRequest admitted;
  Record& record = admitted.record;
  FATHOM_ASSIGN_OR_RETURN(record.request.stop.max_tokens,
                          RoomAfter(static_cast<int64_t>(prompt_ids.size()), request.stop, facts));
  record.key = identity.key;
  record.model = facts.name;
  record.seed = identity.seed;
  record.prompt_ids = std::move(prompt_ids);
  record.priority = request.priority.value_or(0);
  record.cache = {.skip = !request.cache.enabled.value_or(true), .salt = request.cache.salt};
  record.request.sampling = ResolveSampling(request.sampling, facts.defaults);
  FATHOM_RETURN_IF_ERROR(CheckBiases(record.request.sampling, request.sampling, facts));
  StopParams& stop = record.request.stop;
  stop.min_tokens =
      request.stop.min_tokens.value_or(std::min(facts.defaults.min_tokens, stop.max_tokens));
  if (request.guided) stop.min_tokens = 0;
  if (!request.stop.ignore_eos) stop.end_token_ids = facts.end_token_ids;
  stop.stop_token_ids = request.stop.token_ids;
  std::sort(stop.stop_token_ids.begin(), stop.stop_token_ids.end());
  stop.stop_token_ids.erase(std::unique(stop.stop_token_ids.begin(), stop.stop_token_ids.end()),
                            stop.stop_token_ids.end());
  record.request.output = {request.output.logprobs, request.output.prompt_logprobs};
  record.request.sequences = request.sampling.n.value_or(1);
  FATHOM_RETURN_IF_ERROR(CheckRecordSize(record));
  admitted.text = {.stop_strings = request.stop.strings.empty() ? facts.defaults.stop_strings
                                                                : request.stop.strings,
                   .include_stop = request.stop.include_stop,
                   .keep_special = request.output.keep_special,
                   .want_ids = request.output.ids.value_or(true),
                   .want_text = request.output.text.value_or(facts.has_tokenizer)};
  admitted.idempotency_key = request.idempotency_key;
  admitted.seed_given = request.sampling.seed.has_value();
  admitted.max_tokens_given = request.stop.max_tokens.has_value();
  admitted.deadline_ms = request.deadline_ms;
  return admitted;
}

}  // namespace fathom::router
