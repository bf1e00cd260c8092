// router/api/field_limits.h: the one table of limits of the public request (docs/API.md shows it to
// users). Every numeric field of proto/inference.proto's requests has one row; admission checks
// against nothing else, and the property test walks the rows, so that a field cannot be added
// without its limit.
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
  kPromptTokenId,
  kRequestIdBytes,
  kIdempotencyKeyBytes,
  kModelBytes,
  kMessages,
  kDetokenizeIds,
  kTemplateKwargsBytes,
  kCount,  // Not a field.
};

// Where a row's upper end comes from.
enum class UpperBound { kFixed, kVocabulary };

struct FieldLimit {
  Field field = Field::kCount;
  std::string_view path;  // As in the proto: "sampling.temperature".
  double min = 0;
  double max = 0;             // With kVocabulary: ignored, the model's vocabulary - 1 counts.
  bool min_excluded = false;  // (min, max] instead of [min, max].
  UpperBound upper = UpperBound::kFixed;
  std::string_view fallback;  // What holds when the field is absent.
  std::string_view unit;
  std::string_view way_out;  // What to do instead.
};

std::span<const FieldLimit> FieldLimits();
const FieldLimit& LimitOf(Field field);
// REQUIRES: a row of kSamplingFields itself, not a copy.
constexpr Field FieldOf(const SamplingField& row) {
  return static_cast<Field>(&row - kSamplingFields);
}

// INVALID_ARGUMENT (reason OUT_OF_RANGE) unless `value` is a number within the row's range. `path`
// replaces the row's in the error when a position belongs to it ("stop.strings[3]"). `vocab`: of
// the model; `model`: its name.
struct FieldContext {
  int32_t vocab = 0;
  std::string_view model;
};
absl::Status CheckField(Field field, double value, const FieldContext& context,
                        std::string_view path = {});

}  // namespace fathom::router
