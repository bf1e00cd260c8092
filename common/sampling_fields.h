// common/sampling_fields.h: the table of the sampling parameters that are one number each. A
// parameter is declared in four places: public (proto/inference.proto), resolved (its row here),
// wire (proto/cluster.proto) and device (kernels/sampler_params.h). A field has the same name in
// all of them, so the plain structs, the limits, the conversions and the reader of
// generation_config.json follow from the rows. Pure.
#pragma once

#include <cstddef>
#include <cstdint>
#include <iterator>
#include <limits>
#include <optional>
#include <string_view>

namespace fathom {

// What a number of generation_config.json means that is above the range of a request.
enum class AboveRange : uint8_t {
  kNearest,  // The largest number that a request may have.
  kOff,      // The parameter is off.
  kRefused,
};

struct SamplingField {
  std::string_view path;       // In proto/inference.proto: "sampling.top_p".
  std::string_view wire_name;  // In proto/cluster.proto: "Sampling.top_p".
  double min = 0;              // The range of a request.
  double max = 0;
  bool min_excluded = false;       // (min, max] instead of [min, max].
  uint8_t tag = 0;                 // In router/api/canonical_encoding.h; 8, 9, 11 and 12 are taken.
  std::string_view fallback;       // What holds if a request does not set the field.
  std::string_view unit;           // Empty: a pure number.
  std::string_view way_out;        // What to do instead of sending a value outside of the range.
  double file_min = 0;             // In generation_config.json; a lower number is refused.
  bool file_min_excluded = false;  // file_min itself is refused too.
  AboveRange above = AboveRange::kNearest;  // In generation_config.json.

  constexpr std::string_view name() const { return path.substr(path.find('.') + 1); }
};

// X(type, name, value if neither the request nor the model sets the field, members of
// SamplingField...). An int32_t in generation_config.json is a number of tokens: below 0, and from
// the size of the vocabulary on, it means off.
// docs/NUMERICS.md, "Sampler" has the meaning of each.
#define FATHOM_SAMPLING_FIELDS(X)                                                         \
  X(float, temperature, 1, .max = 2, .tag = 1, .fallback = "the model's, else 1",         \
    .way_out = "0, like all below 0.00001, takes the most likely token always")           \
  X(int32_t, top_k, 0, .max = 1 << 24, .tag = 2, .fallback = "the model's, else 0 (off)", \
    .unit = "tokens", .way_out = "0 turns it off")                                        \
  X(float, top_p, 1, .max = 1, .min_excluded = true, .tag = 3,                            \
    .fallback = "the model's, else 1 (off)", .way_out = "1 turns it off",                 \
    .above = AboveRange::kOff)                                                            \
  X(float, min_p, 0, .max = 1, .tag = 4, .fallback = "the model's, else 0 (off)",         \
    .way_out = "0 turns it off", .above = AboveRange::kRefused)                           \
  X(float, repetition_penalty, 1, .min = 0.001, .max = 2, .tag = 5,                       \
    .fallback = "the model's, else 1 (off)", .way_out = "1 turns it off",                 \
    .file_min_excluded = true)                                                            \
  X(float, presence_penalty, 0, .min = -2, .max = 2, .tag = 6,                            \
    .fallback = "the model's, else 0 (off)", .way_out = "0 turns it off",                 \
    .file_min = -std::numeric_limits<float>::max())                                       \
  X(float, frequency_penalty, 0, .min = -2, .max = 2, .tag = 7,                           \
    .fallback = "the model's, else 0 (off)", .way_out = "0 turns it off",                 \
    .file_min = -std::numeric_limits<float>::max())                                       \
  X(float, typical_p, 1, .max = 1, .min_excluded = true, .tag = 10,                       \
    .fallback = "the model's, else 1 (off)", .way_out = "1 turns it off",                 \
    .file_min_excluded = true, .above = AboveRange::kOff)

// Each parameter has a value.
struct SamplingValues {
#define X(type, name, value, ...) type name = value;
  FATHOM_SAMPLING_FIELDS(X)
#undef X
  bool operator==(const SamplingValues&) const = default;
};

// A parameter that is absent has the value of another source.
struct SamplingOptions {
#define X(type, name, value, ...) std::optional<type> name;
  FATHOM_SAMPLING_FIELDS(X)
#undef X
  bool operator==(const SamplingOptions&) const = default;
};

inline constexpr SamplingField kSamplingFields[] = {
#define X(type, name, value, ...) \
  {.path = "sampling." #name, .wire_name = "Sampling." #name, __VA_ARGS__},
    FATHOM_SAMPLING_FIELDS(X)
#undef X
};
inline constexpr size_t kSamplingFieldCount = std::size(kSamplingFields);

// Calls f(row, &SamplingValues::name, &SamplingOptions::name) for each row.
template <class F>
constexpr void ForEachSamplingField(F f) {
  const SamplingField* row = kSamplingFields;
#define X(type, name, value, ...) f(*row++, &SamplingValues::name, &SamplingOptions::name);
  FATHOM_SAMPLING_FIELDS(X)
#undef X
}

// Messages are the Sampling of either proto. Fields of a message that are absent stay absent.
template <class Message>
void SetSamplingFields(const SamplingOptions& from, Message* to) {
#define X(type, name, value, ...) \
  if (from.name) to->set_##name(*from.name);
  FATHOM_SAMPLING_FIELDS(X)
#undef X
}
template <class Message>
SamplingOptions SamplingFieldsOf(const Message& message) {
  SamplingOptions options;
#define X(type, name, value, ...) \
  if (message.has_##name()) options.name = message.name();
  FATHOM_SAMPLING_FIELDS(X)
#undef X
  return options;
}

// `Params` is a device's struct with members of these names.
template <class Params>
void CopySamplingValues(const SamplingValues& from, Params* to) {
#define X(type, name, value, ...) to->name = from.name;
  FATHOM_SAMPLING_FIELDS(X)
#undef X
}

#undef FATHOM_SAMPLING_FIELDS

// For each parameter the first value that is there.
inline SamplingValues Resolve(const SamplingOptions& first, const SamplingOptions& second = {}) {
  SamplingValues values;
  ForEachSamplingField([&](const SamplingField&, auto value, auto option) {
    values.*value = (first.*option).value_or((second.*option).value_or(values.*value));
  });
  return values;
}

inline SamplingOptions ToOptions(const SamplingValues& values) {
  SamplingOptions options;
  ForEachSamplingField(
      [&](const SamplingField&, auto value, auto option) { options.*option = values.*value; });
  return options;
}

// The values that are not the ones of SamplingValues{}.
inline SamplingOptions ChangedOnly(const SamplingValues& values) {
  const SamplingValues unchanged;
  SamplingOptions options;
  ForEachSamplingField([&](const SamplingField&, auto value, auto option) {
    if (values.*value != unchanged.*value) options.*option = values.*value;
  });
  return options;
}

}  // namespace fathom
