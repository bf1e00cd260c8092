#include "modeling/config/generation_config.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <type_traits>
#include <utility>

#include "common/check.h"
#include "common/request_limits.h"
#include "common/status.h"
#include "modeling/config/config_fields.h"

namespace fathom {
namespace {

constexpr HarmlessKey kHarmlessGenerationKeys[] = {
    // The origin of the file.
    {"_from_model_config"},
    {"transformers_version"},
    {"trust_remote_code"},  // Code of a model folder is never run here.
    // What another program returns in addition to the tokens, or how it stores its results.
    {"use_cache"},
    {"cache_implementation"},
    {"cache_config"},
    {"return_legacy_cache"},
    {"prefill_chunk_size"},
    {"compile_config"},
    {"disable_compile"},
    {"low_memory"},
    {"output_attentions"},
    {"output_hidden_states"},
    {"output_scores"},
    {"output_logits"},
    {"return_dict_in_generate"},
    // A request sets lengths, durations and the number of answers.
    {"max_length"},
    {"max_new_tokens"},
    {"max_time"},
    {"num_return_sequences"},
    // The tokenizer and the template put these tokens into a prompt; nothing is padded here.
    {"bos_token_id"},
    {"pad_token_id"},
    {"decoder_start_token_id"},
    // For beam search, which num_beams 1 does not use.
    {"length_penalty"},
    {"early_stopping"},
    {"diversity_penalty"},
    // For speculation by another model or from the prompt, which changes the speed but not the
    // tokens.
    {"is_assistant"},
    {"num_assistant_tokens"},
    {"num_assistant_tokens_schedule"},
    {"assistant_confidence_threshold"},
    {"assistant_early_exit"},
    {"assistant_lookbehind"},
    {"target_lookbehind"},
    {"prompt_lookup_num_tokens"},
    {"max_matching_ngram_size"},
    // Probabilities are always those of the tokens that the filters keep, and a row whose logits
    // are not finite is refused by name.
    {"renormalize_logits"},
    {"remove_invalid_values"},
    // These change the tokens, unless they have these values.
    {"num_beams", 1.0},
    {"num_beam_groups", 1.0},
    {"penalty_alpha", 0.0},
    {"min_length", 0.0},
    {"epsilon_cutoff", 0.0},
    {"eta_cutoff", 0.0},
    {"no_repeat_ngram_size", 0.0},
    {"encoder_no_repeat_ngram_size", 0.0},
    {"encoder_repetition_penalty", 1.0},
    {"guidance_scale", 1.0},
    {"token_healing", false},
};

// Lists that change the tokens unless they are empty.
constexpr std::string_view kEmptyLists[] = {"begin_suppress_tokens", "force_words_ids",
                                            "constraints", "forced_decoder_ids"};

void NoteOff(std::string_view key, auto value, const char* rule, GenerationConfig& config) {
  config.notes.push_back(fmt::format("{} {} turns it off: {}", key, value, rule));
}

// The number at the row's key; nullopt if it is absent or refused. `off` turns the parameter off.
std::optional<float> ReadNumber(ConfigFields& fields, const SamplingField& row, float off,
                                GenerationConfig& config) {
  const std::string_view key = row.name();
  if (fields.Take(key) == nullptr) return std::nullopt;
  const double value =
      fields.RealOr(key, 0, -std::numeric_limits<float>::max(), std::numeric_limits<float>::max());
  if (row.file_min_excluded ? value <= row.file_min : value < row.file_min) {
    fields.Refuse(key, fmt::format("is {}, which means nothing; expected a number {} {}", value,
                                   row.file_min_excluded ? "above" : "of at least", row.file_min));
    return std::nullopt;
  }
  // A value above 0 that a float cannot hold is rounded up to the least float, so that it stays
  // above 0.
  auto real = static_cast<float>(value);
  if (value > 0) real = std::max(real, std::numeric_limits<float>::min());
  if (real <= static_cast<float>(row.max) || row.above == AboveRange::kNearest) return real;
  if (row.above == AboveRange::kOff) {
    NoteOff(key, real, "it keeps the whole vocabulary", config);
    return off;
  }
  fields.Refuse(key, fmt::format("is {}, which leaves no token; expected a number from {} to {}",
                                 real, row.min, row.max));
  return std::nullopt;
}

// The number of tokens at the row's key; 0: off.
std::optional<int32_t> ReadCount(ConfigFields& fields, const SamplingField& row, int32_t vocab,
                                 GenerationConfig& config) {
  const std::string_view key = row.name();
  const JsonValue* count = fields.Take(key);
  if (count == nullptr) return std::nullopt;
  const double* real = count->AsReal();
  const bool whole = real != nullptr && *real == std::floor(*real) && std::abs(*real) < 1e15;
  if (count->AsInt() == nullptr && !whole) {
    fields.Refuse(key, fmt::format("is {}; expected an integer", count->Brief()));
    return std::nullopt;
  }
  const int64_t value = whole ? static_cast<int64_t>(*real) : *count->AsInt();
  if (value < 0) NoteOff(key, value, "below 0", config);
  if (value >= vocab) NoteOff(key, value, "it keeps the whole vocabulary", config);
  return value <= 0 || value >= vocab ? 0 : static_cast<int32_t>(value);
}

void ReadSampling(ConfigFields& fields, int32_t vocab, GenerationConfig& config) {
  ForEachSamplingField([&](const SamplingField& row, auto value, auto option) {
    const auto off = SamplingValues{}.*value;
    if constexpr (std::is_same_v<decltype(off), const int32_t>) {
      config.*option = ReadCount(fields, row, vocab, config);
    } else {
      config.*option = ReadNumber(fields, row, off, config);
    }
  });
  if (config.top_p == 0.0f) {
    config.notes.emplace_back("top_p 0 keeps the most likely token alone");
    config.top_p = std::numeric_limits<float>::min();
  }
  if (fields.BoolOr("do_sample", true)) return;
  if (config.temperature.value_or(0) > 0) {
    config.notes.push_back(
        fmt::format("do_sample is false: a request without a temperature takes the most likely "
                    "token, and temperature {} is not used",
                    *config.temperature));
  }
  config.temperature = 0.0f;
}

void ReadStops(ConfigFields& fields, int32_t vocab, GenerationConfig& config) {
  config.end_ids = fields.Ids("eos_token_id", vocab);
  std::sort(config.end_ids.begin(), config.end_ids.end());
  if (config.end_ids.size() > kEndTokensMax) {
    fields.Refuse("eos_token_id", fmt::format("has {} ids; at most {} are supported",
                                              config.end_ids.size(), kEndTokensMax));
  }
  if (fields.Take("min_new_tokens") != nullptr) {
    config.min_new_tokens = fields.IntOr("min_new_tokens", 0, 0, 1 << 27);
  }
  const JsonValue* stops = fields.Take("stop_strings");
  if (stops == nullptr) return;
  const JsonValue::Array one = {*stops};
  const JsonValue::Array& items = stops->AsArray() != nullptr ? *stops->AsArray() : one;
  for (const JsonValue& item : items) {
    const std::string* text = item.AsString();
    if (text == nullptr || text->empty() || text->size() > kStopStringBytesMax ||
        items.size() > kStopStringsMax) {
      fields.Refuse("stop_strings",
                    fmt::format("is {}; expected at most {} strings of 1 to {} bytes",
                                stops->Brief(), kStopStringsMax, kStopStringBytesMax));
      return;
    }
    config.stop_strings.push_back(*text);
  }
}

// {"low": 1024, "medium": 8192, "high": null}: any of them; null is no budget.
void ReadThinkingBudgets(ConfigFields& fields, GenerationConfig& config) {
  constexpr char kKey[] = "thinking_token_budgets";
  const JsonValue* value = fields.Take(kKey);
  if (value == nullptr) return;
  const JsonValue::Object* object = value->AsObject();
  const std::pair<std::string_view, std::optional<int32_t>*> efforts[] = {
      {"low", &config.thinking_budgets.low},
      {"medium", &config.thinking_budgets.medium},
      {"high", &config.thinking_budgets.high}};
  for (const auto& [name, budget] : object == nullptr ? JsonValue::Object{} : *object) {
    const auto* effort = std::ranges::find(
        efforts, name, [](const auto& one) -> std::string_view { return one.first; });
    const int64_t* tokens = budget.AsInt();
    const bool valid = budget.is_null() || (tokens != nullptr && *tokens >= 0 && *tokens < 1 << 27);
    if (effort == std::end(efforts) || !valid) {
      object = nullptr;
      break;
    }
    *effort->second =
        tokens == nullptr ? std::nullopt : std::optional(static_cast<int32_t>(*tokens));
  }
  if (object != nullptr) return;
  fields.Refuse(kKey, fmt::format("is {}; expected an object with low, medium and high, each a "
                                  "number of tokens or null (no budget)",
                                  value->Brief()));
}

// The id of an entry of bad_words_ids; nullopt if the entry is not a list of one id.
std::optional<TokenId> OneId(const JsonValue& entry, int32_t vocab) {
  const JsonValue::Array* ids = entry.AsArray();
  if (ids == nullptr || ids->size() != 1) return std::nullopt;
  const int64_t* id = ids->front().AsInt();
  if (id == nullptr || *id < 0 || *id >= vocab) return std::nullopt;
  return static_cast<TokenId>(*id);
}

void ReadSuppressed(ConfigFields& fields, int32_t vocab, GenerationConfig& config) {
  std::vector<TokenId>& ids = config.suppressed_ids;
  ids = fields.Ids("suppress_tokens", vocab);
  if (const JsonValue* words = fields.Take("bad_words_ids")) {
    const JsonValue::Array none;
    const JsonValue::Array* list = words->AsArray();
    bool fits = list != nullptr;
    for (const JsonValue& word : list != nullptr ? *list : none) {
      const std::optional<TokenId> id = OneId(word, vocab);
      fits = fits && id.has_value();
      if (id) ids.push_back(*id);
    }
    if (!fits) {
      fields.Refuse("bad_words_ids",
                    fmt::format("is {}; supported are words of one token id from 0 to {}, which "
                                "are never drawn; a word of several tokens is not supported",
                                words->Brief(), vocab - 1));
    }
  }
  std::sort(ids.begin(), ids.end());
  ids.erase(std::unique(ids.begin(), ids.end()), ids.end());
  if (ids.size() > kLogitBiasMax || std::ssize(ids) >= vocab) {
    fields.Refuse("suppress_tokens",
                  fmt::format("and bad_words_ids have {} ids; the limit is {}, and one id of the "
                              "vocabulary of {} must be left",
                              ids.size(), kLogitBiasMax, vocab));
  }
}

void RefuseWhatIsNotBuilt(ConfigFields& fields) {
  for (const std::string_view key : kEmptyLists) {
    const JsonValue* value = fields.Take(key);
    if (value == nullptr || (value->AsArray() != nullptr && value->AsArray()->empty())) continue;
    fields.Refuse(key, fmt::format("is {}; it changes the tokens and is not supported, only an "
                                   "empty list is",
                                   value->Brief()));
  }
  for (const std::string_view key :
       {"sequence_bias", "forced_bos_token_id", "forced_eos_token_id", "watermarking_config",
        "exponential_decay_length_penalty", "dola_layers", "top_h"}) {
    if (const JsonValue* value = fields.Take(key)) {
      fields.Refuse(
          key, fmt::format("is {}; it changes the tokens and is not supported", value->Brief()));
    }
  }
}

// The text of the file after --override-generation-config is applied.
absl::StatusOr<std::string> Overridden(std::string_view json, std::string_view overrides) {
  const auto patch = ParseJson(overrides, kConfigLimits);
  if (!patch.ok()) return Annotate(patch.status(), kOverrideGenerationFlag);
  if (patch->AsObject() == nullptr) {
    return Invalid("{} is {}; expected a JSON object, e.g. {{\"temperature\": 0.6}}",
                   kOverrideGenerationFlag, patch->Brief());
  }
  return MergePatch(json, overrides, kConfigLimits);
}

}  // namespace

absl::StatusOr<GenerationConfig> ParseGenerationConfig(std::string_view json, int32_t vocab,
                                                       std::string_view overrides) {
  FATHOM_CHECK(vocab > 0);
  std::string merged(json);
  if (!overrides.empty()) {
    FATHOM_ASSIGN_OR_RETURN(merged, Overridden(json, overrides));
  }
  FATHOM_ASSIGN_OR_RETURN(const JsonValue root, ParseJson(merged, kConfigLimits));
  if (root.AsObject() == nullptr) {
    return Invalid("is {}; expected a JSON object", root.Brief());
  }
  ConfigFields fields(*root.AsObject());
  GenerationConfig config;
  ReadSampling(fields, vocab, config);
  ReadStops(fields, vocab, config);
  ReadThinkingBudgets(fields, config);
  ReadSuppressed(fields, vocab, config);
  RefuseWhatIsNotBuilt(fields);
  const absl::Status refused = fields.Finish(kHarmlessGenerationKeys, kOverrideGenerationFlag);
  if (!refused.ok()) {
    return Invalid(
        "{}; {} '{{\"KEY\": VALUE}}' changes a key without touching the file, and null "
        "takes it out",
        Message(refused), kOverrideGenerationFlag);
  }
  return config;
}

absl::StatusOr<GenerationConfig> ReadGenerationConfig(const std::filesystem::path& model,
                                                      int32_t vocab, std::string_view overrides) {
  const std::filesystem::path path = model / "generation_config.json";
  std::error_code error;
  if (!std::filesystem::exists(path, error)) {
    auto config = ParseGenerationConfig("{}", vocab, overrides);
    if (!config.ok()) return Annotate(config.status(), kOverrideGenerationFlag);
    return config;
  }
  FATHOM_ASSIGN_OR_RETURN(const std::string text, ReadConfigText(path));
  auto config = ParseGenerationConfig(text, vocab, overrides);
  if (!config.ok()) return Annotate(config.status(), path.string());
  return config;
}

std::vector<TokenId> EndIds(const ModelConfig& config, const GenerationConfig& generation) {
  std::vector<TokenId> ids = generation.end_ids.empty() ? config.end_ids : generation.end_ids;
  std::sort(ids.begin(), ids.end());
  return ids;
}

}  // namespace fathom
