// router/api/field_limits.h: the one table of limits of the public request; docs/API.md shows it to
// users. Every numeric field of the requests in proto/inference.proto has one row. Admission checks
// fields against this table alone, and a property test tries values inside and outside of each row.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string_view>

#include "common/sampling_fields.h"
#include "common/status.h"

namespace fathom::router {

// The first values are the rows of common/sampling_fields.h, which have no names here.
enum class Field : size_t {
  kLogitBiasId = kSamplingFieldCount,
  kLogitBiasValue,
  kLogitBiasCount,
  kN,
  kMaxTokens,
  kMinTokens,
  kStopCount,
  kStopBytes,
  kStopTokenId,
  kStopTokenCount,
  kLogprobs,
  kPromptLogprobs,
  kDeadlineMs,
  kPriority,
  kPromptTokenId,
  kRequestIdBytes,
  kIdempotencyKeyBytes,
  kModelBytes,
  kCacheSaltBytes,
  kMessages,
  kDetokenizeIds,
  kTemplateKwargsBytes,
  kThinkingBudget,
  kCount,  // Not a field.
};

// Where a row's upper limit comes from.
enum class UpperBound { kFixed, kVocabulary };

struct FieldLimit {
  Field field = Field::kCount;
  std::string_view path;  // As in the proto: "sampling.temperature".
  double min = 0;
  double max = 0;  // Ignored with kVocabulary: then the maximum is the model's vocabulary - 1.
  bool min_excluded = false;  // (min, max] instead of [min, max].
  UpperBound upper = UpperBound::kFixed;
  std::string_view fallback;  // The value that is used if the field is absent.
  std::string_view unit;
  std::string_view way_out;  // What the user can do instead.
};

std::span<const FieldLimit> FieldLimits();
const FieldLimit& LimitOf(Field field);
// REQUIRES: a row of kSamplingFields itself, not a copy.
constexpr Field FieldOf(const SamplingField& row) {
  return static_cast<Field>(&row - kSamplingFields);
}

struct FieldContext {
  int32_t vocab = 0;       // The vocabulary of the model.
  std::string_view model;  // The name of the model, for the error.
};
// INVALID_ARGUMENT (reason OUT_OF_RANGE) unless `value` is a number within the row's range. If
// `path` is not empty, the error names it instead of the row's path, for example with an index:
// "stop.strings[3]".
absl::Status CheckField(Field field, double value, const FieldContext& context,
                        std::string_view path = {});

}  // namespace fathom::router
