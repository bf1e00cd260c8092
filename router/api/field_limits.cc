#include "router/api/field_limits.h"

#include <algorithm>
#include <array>
#include <cmath>

#include "common/check.h"
#include "common/reason.h"
#include "common/request_limits.h"

namespace fathom::router {
namespace {

using enum Field;
constexpr UpperBound kFixed = UpperBound::kFixed;
constexpr UpperBound kVocab = UpperBound::kVocabulary;

// The rows after those of the sampling parameters, in the order of the enumeration.
constexpr FieldLimit kOtherLimits[] = {
    {kLogitBiasId, "sampling.logit_bias", 0, 0, false, kVocab, "", "token id",
     "Tokenize gives a text's ids"},
    {kLogitBiasValue, "sampling.logit_bias", -100, 100, false, kFixed, "", "",
     "-100 as good as forbids a token, 100 as good as forces it"},
    {kLogitBiasCount, "sampling.logit_bias", 0, kLogitBiasMax, false, kFixed, "none", "entries",
     "send fewer"},
    {kN, "sampling.n", 1, kSequencesMax, false, kFixed, "1", "sequences",
     "send several requests instead"},
    {kMaxTokens, "stop.max_tokens", 1, 1 << 27, false, kFixed,
     "the rest of the context or of the KV pool", "tokens", "leave it out for as many as fit"},
    {kMinTokens, "stop.min_tokens", 0, 1 << 27, false, kFixed, "the model's, else 0", "tokens",
     "leave it out"},
    {kStopCount, "stop.strings", 0, kStopStringsMax, false, kFixed, "the model's, else none",
     "strings", "send fewer"},
    {kStopBytes, "stop.strings", 1, kStopStringBytesMax, false, kFixed, "", "bytes of UTF-8",
     "shorten the string or leave it out"},
    {kStopTokenId, "stop.token_ids", 0, 0, false, kVocab, "", "token id",
     "Tokenize gives a text's ids"},
    {kStopTokenCount, "stop.token_ids", 0, kStopTokensMax, false, kFixed, "none", "ids",
     "send fewer"},
    {kLogprobs, "output.logprobs", 0, kTopLogprobsMax, false, kFixed, "none", "alternatives",
     "ask for fewer"},
    {kPromptLogprobs, "output.prompt_logprobs", 0, kTopLogprobsMax, false, kFixed, "none",
     "alternatives", "ask for fewer"},
    {kDeadlineMs, "deadline_ms", 0, 86'400'000, false, kFixed, "none", "milliseconds",
     "0 or nothing for no deadline"},
    {kPriority, "priority", -kPriorityMax, kPriorityMax, false, kFixed, "0", "",
     "smaller is more urgent; leave it out for 0"},
    {kPromptTokenId, "token_ids", 0, 0, false, kVocab, "", "token id",
     "send ids of this model's tokenizer"},
    {kRequestIdBytes, "request_id", 0, 128, false, kFixed, "drawn", "characters",
     "leave it out to have one drawn"},
    {kIdempotencyKeyBytes, "idempotency_key", 0, 256, false, kFixed, "none", "characters",
     "use a shorter key"},
    {kModelBytes, "model", 0, 256, false, kFixed, "the one served", "bytes",
     "leave it out for the one served"},
    {kCacheSaltBytes, "cache.salt", 0, kCacheSaltBytesMax, false, kFixed, "none", "bytes",
     "use a hash of it"},
    {kMessages, "messages", 1, 4096, false, kFixed, "", "messages",
     "send at least one, and fewer than this"},
    {kDetokenizeIds, "ids", 0, 1 << 20, false, kFixed, "none", "ids", "split the call"},
    {kTemplateKwargsBytes, "chat_template_kwargs_json", 0, 65'536, false, kFixed, "none", "bytes",
     "send fewer variables"},
    {kThinkingBudget, "thinking.token_budget", 0, 1 << 27, false, kFixed,
     "that of thinking.effort, else none", "tokens", "leave it out for none"},
};
static_assert(kSamplingFieldCount + std::size(kOtherLimits) == static_cast<size_t>(Field::kCount));

constexpr auto kLimits = [] {
  std::array<FieldLimit, static_cast<size_t>(Field::kCount)> limits;
  FieldLimit* next = limits.data();
  for (const SamplingField& row : kSamplingFields) {
    *next++ = {FieldOf(row), row.path,     row.min,  row.max,    row.min_excluded,
               kFixed,       row.fallback, row.unit, row.way_out};
  }
  std::copy(std::begin(kOtherLimits), std::end(kOtherLimits), next);
  return limits;
}();

constexpr bool RowsInOrder() {
  for (size_t i = 0; i < kLimits.size(); ++i) {
    if (static_cast<size_t>(kLimits[i].field) != i) return false;
  }
  return true;
}
static_assert(RowsInOrder());

}  // namespace

std::span<const FieldLimit> FieldLimits() { return kLimits; }

const FieldLimit& LimitOf(Field field) {
  FATHOM_CHECK(field < Field::kCount);
  return kLimits[static_cast<size_t>(field)];
}

absl::Status CheckField(Field field, double value, const FieldContext& context,
                        std::string_view path) {
  const FieldLimit& limit = LimitOf(field);
  if (path.empty()) path = limit.path;
  const bool vocabulary = limit.upper == UpperBound::kVocabulary;
  const double max = vocabulary ? context.vocab - 1 : limit.max;
  // Written so that NaN fails.
  const bool above = limit.min_excluded ? value > limit.min : value >= limit.min;
  if (above && value <= max) return absl::OkStatus();
  const std::string unit = limit.unit.empty() ? "" : fmt::format(" {}", limit.unit);
  const std::string whose =
      vocabulary ? fmt::format("the vocabulary of model {}", context.model) : "this server's limit";
  absl::Status status =
      Invalid("{} is {}{}; {} is {}{:.10g} to {:.10g}; {}", path,
              std::isfinite(value) ? fmt::format("{:.10g}", value) : fmt::format("{}", value), unit,
              whose, limit.min_excluded ? "above " : "", limit.min, max, limit.way_out);
  return WithReason(std::move(status), Reason::kOutOfRange, path);
}

}  // namespace fathom::router
