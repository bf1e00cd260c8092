#include "worker/speculative_config.h"

#include <algorithm>
#include <optional>
#include <string_view>

#include "common/json.h"
#include "common/request_limits.h"

namespace fathom::worker {
namespace {

constexpr int32_t kDraftTokensDefault = 4;
constexpr int32_t kLookupMinDefault = 2;
constexpr int32_t kLookupMaxDefault = 4;
constexpr int32_t kLookupLimit = 64;

// The values that were given, wherever they came from.
struct Given {
  std::optional<std::string> method, model;
  std::optional<int64_t> tokens, lookup_min, lookup_max;
};

absl::Status TakeKey(const std::string& key, const JsonValue& value, Given* given) {
  const auto text = [&](std::optional<std::string>* to) -> absl::Status {
    if (value.AsString() == nullptr) {
      return Invalid("--speculative-config: {} is {}, not a string", key, value.Brief());
    }
    *to = *value.AsString();
    return absl::OkStatus();
  };
  const auto number = [&](std::optional<int64_t>* to) -> absl::Status {
    if (value.AsInt() == nullptr) {
      return Invalid("--speculative-config: {} is {}, not an integer", key, value.Brief());
    }
    *to = *value.AsInt();
    return absl::OkStatus();
  };
  if (key == "method") return text(&given->method);
  if (key == "model") return text(&given->model);
  if (key == "num_speculative_tokens") return number(&given->tokens);
  if (key == "prompt_lookup_min") return number(&given->lookup_min);
  if (key == "prompt_lookup_max") return number(&given->lookup_max);
  return Invalid(
      "--speculative-config: the key {} is not known; the keys are method, model, "
      "num_speculative_tokens, prompt_lookup_min and prompt_lookup_max",
      key);
}

absl::StatusOr<Given> GivenBy(const SpeculativeFlags& flags) {
  Given given;
  if (!flags.config.empty()) {
    const auto parsed = ParseJson(flags.config, {.bytes_max = 64 << 10});
    if (!parsed.ok()) return Annotate(parsed.status(), "--speculative-config");
    const JsonValue::Object* object = parsed->AsObject();
    if (object == nullptr) {
      return Invalid(
          "--speculative-config: {} is no JSON object; write e.g. "
          R"({{"method": "ngram", "num_speculative_tokens": 4}})",
          parsed->Brief());
    }
    for (const auto& [key, value] : *object) FATHOM_RETURN_IF_ERROR(TakeKey(key, value, &given));
  }
  const auto clash = [](const char* flag, const char* key) {
    return Invalid("{} and {} in --speculative-config: give one of them", flag, key);
  };
  if (!flags.method.empty()) {
    if (given.method) return clash("--speculative-method", "method");
    given.method = flags.method;
  }
  if (!flags.model.empty()) {
    if (given.model) return clash("--speculative-model", "model");
    given.model = flags.model;
  }
  if (flags.tokens != 0) {
    if (given.tokens) return clash("--num-speculative-tokens", "num_speculative_tokens");
    given.tokens = flags.tokens;
  }
  return given;
}

absl::StatusOr<int32_t> Within(const char* name, std::optional<int64_t> value, int32_t otherwise,
                               int64_t least, int64_t most) {
  if (!value) return otherwise;
  if (*value >= least && *value <= most) return static_cast<int32_t>(*value);
  return Invalid("{} {} is not within {} and {}", name, *value, least, most);
}

absl::StatusOr<SpeculativeMethod> MethodOf(const Given& given) {
  if (!given.method) {
    return given.model ? SpeculativeMethod::kDraft : SpeculativeMethod::kNone;
  }
  const std::string_view method = *given.method;
  if (method == "ngram") return SpeculativeMethod::kNgram;
  if (method == "draft" || method == "draft_model") return SpeculativeMethod::kDraft;
  return Invalid("speculative method '{}': there are ngram and draft", method);
}

}  // namespace

absl::StatusOr<SpeculativeConfig> ReadSpeculativeConfig(const SpeculativeFlags& flags) {
  FATHOM_ASSIGN_OR_RETURN(const Given given, GivenBy(flags));
  SpeculativeConfig config;
  FATHOM_ASSIGN_OR_RETURN(config.method, MethodOf(given));
  if (config.method == SpeculativeMethod::kNone) {
    if (!given.tokens && !given.lookup_min && !given.lookup_max && flags.config.empty()) {
      return config;
    }
    return Invalid(
        "speculative decoding without a method: give --speculative-method ngram, or "
        "--speculative-model FOLDER for a draft model");
  }
  FATHOM_ASSIGN_OR_RETURN(config.draft_tokens, Within("--num-speculative-tokens", given.tokens,
                                                      kDraftTokensDefault, 1, kDraftsMax));
  if (config.method == SpeculativeMethod::kDraft) {
    if (!given.model || given.model->empty()) {
      return Invalid(
          "the speculative method draft needs --speculative-model FOLDER (or the key model), e.g. "
          "models/fathom-tiny-draft");
    }
    if (given.lookup_min || given.lookup_max) {
      return Invalid("prompt_lookup_min and prompt_lookup_max belong to the method ngram");
    }
    config.model = *given.model;
    return config;
  }
  if (given.model) {
    return Invalid("the speculative method ngram has no model; drop --speculative-model {}",
                   *given.model);
  }
  FATHOM_ASSIGN_OR_RETURN(config.lookup_max, Within("prompt_lookup_max", given.lookup_max,
                                                    kLookupMaxDefault, 1, kLookupLimit));
  FATHOM_ASSIGN_OR_RETURN(config.lookup_min, Within("prompt_lookup_min", given.lookup_min,
                                                    std::min(kLookupMinDefault, config.lookup_max),
                                                    1, config.lookup_max));
  return config;
}

std::string Describe(const SpeculativeConfig& config, const std::string& model_digest) {
  switch (config.method) {
    case SpeculativeMethod::kNone:
      return {};
    case SpeculativeMethod::kNgram:
      return fmt::format("ngram of {} to {} tokens, {} drafts", config.lookup_min,
                         config.lookup_max, config.draft_tokens);
    case SpeculativeMethod::kDraft:
      return fmt::format("draft model {}, {} drafts", model_digest, config.draft_tokens);
  }
  return {};
}

}  // namespace fathom::worker
