#include "text/guided/grammar_spec.h"

#include <algorithm>
#include <array>
#include <span>
#include <string_view>

#include "common/json.h"
#include "common/reason.h"

namespace fathom {
namespace {

constexpr JsonLimits kGrammarJsonLimits{
    .bytes_max = kGrammarTextBytesMax, .depth_max = kGrammarDepthMax, .values_max = 8192};
constexpr std::array<std::string_view, 6> kCounts = {"minLength", "maxLength",     "minItems",
                                                     "maxItems",  "minProperties", "maxProperties"};

absl::Status Refused(const std::string& field, absl::Status status) {
  return WithReason(std::move(status), Reason::kInvalidGrammar, field);
}

// A number of repetitions at the front of `text`, as in "{3,5}"; saturates.
int64_t TakeCount(std::string_view* text) {
  int64_t count = 0;
  while (!text->empty() && text->front() >= '0' && text->front() <= '9') {
    count = std::min<int64_t>(count * 10 + (text->front() - '0'), kGrammarRepeatMax + 1);
    text->remove_prefix(1);
  }
  return count;
}

// Bounds brackets and counts of a regular expression or of rules. It reads no quotes and escapes,
// so a text with very many brackets in quotes is refused, too.
absl::Status CheckPattern(std::string_view text, const std::string& field) {
  int depth = 0;
  while (!text.empty()) {
    const char c = text.front();
    text.remove_prefix(1);
    if (c == '(' || c == '[') {
      if (++depth > kGrammarDepthMax) {
        return Refused(field,
                       Invalid("{} has more than {} brackets within each other, which is this "
                               "server's limit; make it flatter",
                               field, kGrammarDepthMax));
      }
    } else if (c == ')' || c == ']') {
      depth = std::max(depth - 1, 0);
    } else if (c == '{') {
      int64_t most = TakeCount(&text);
      if (!text.empty() && text.front() == ',') {
        text.remove_prefix(1);
        most = std::max(most, TakeCount(&text));
      }
      if (most > kGrammarRepeatMax) {
        return Refused(field, Invalid("{} repeats a part more than {} times, which is this "
                                      "server's limit; lower the number or use *",
                                      field, kGrammarRepeatMax));
      }
    }
  }
  return absl::OkStatus();
}

absl::Status CheckCount(std::string_view key, const JsonValue& value, const std::string& field) {
  const int64_t* count = value.AsInt();
  const double* real = value.AsReal();
  if ((count == nullptr || *count <= kGrammarRepeatMax) &&
      (real == nullptr || *real <= static_cast<double>(kGrammarRepeatMax))) {
    return absl::OkStatus();
  }
  return Refused(field, Invalid("{}: {} is {}; this server's limit is {}; lower it or leave it out",
                                field, key, value.Brief(), kGrammarRepeatMax));
}

// The grammar engine ignores these keywords of a schema in silence, so outputs might not follow it.
constexpr std::array<std::string_view, 10> kIgnored = {
    "not",         "if",       "then",        "else",       "dependentRequired", "dependentSchemas",
    "uniqueItems", "contains", "minContains", "maxContains"};
// The members of these are named by the client, and each is a schema.
constexpr std::array<std::string_view, 4> kNamed = {"properties", "patternProperties", "$defs",
                                                    "definitions"};
// The values of these are no schemas.
constexpr std::array<std::string_view, 4> kValues = {"const", "enum", "default", "examples"};

bool IsOneOf(std::span<const std::string_view> names, std::string_view name) {
  return std::ranges::find(names, name) != names.end();
}

absl::Status CheckKeyword(std::string_view key, const JsonValue& item, const std::string& field) {
  const std::string* text = item.AsString();
  if (IsOneOf(kIgnored, key)) {
    return Refused(field, Invalid("{}: {} is a keyword that this server cannot follow; leave it "
                                  "out, or say it with other keywords",
                                  field, key));
  }
  if (key == "$ref" && text != nullptr && !text->starts_with('#')) {
    return Refused(field, Invalid("{}: $ref is {}; only references within the schema (#/...) can "
                                  "be followed",
                                  field, item.Brief()));
  }
  return absl::OkStatus();
}

// `named`: the keys of the value are names of schemas. The depth is bounded by the parser.
absl::Status CheckJson(const JsonValue& value, const std::string& field, bool named = false) {
  if (const JsonValue::Array* array = value.AsArray()) {
    for (const JsonValue& item : *array) FATHOM_RETURN_IF_ERROR(CheckJson(item, field));
  }
  const JsonValue::Object* object = value.AsObject();
  if (object == nullptr) return absl::OkStatus();
  for (const auto& [key, item] : *object) {
    if (named) {
      FATHOM_RETURN_IF_ERROR(CheckJson(item, field));
      continue;
    }
    if (IsOneOf(kValues, key)) continue;
    FATHOM_RETURN_IF_ERROR(CheckKeyword(key, item, field));
    if (IsOneOf(kCounts, key)) {
      FATHOM_RETURN_IF_ERROR(CheckCount(key, item, field));
    }
    const std::string* text = item.AsString();
    if (text != nullptr && (key == "pattern" || key == "grammar")) {
      FATHOM_RETURN_IF_ERROR(CheckPattern(*text, field));
    }
    if (key == "patternProperties" && item.AsObject() != nullptr) {
      for (const auto& [pattern, schema] : *item.AsObject()) {
        FATHOM_RETURN_IF_ERROR(CheckPattern(pattern, field));
      }
    }
    FATHOM_RETURN_IF_ERROR(CheckJson(item, field, IsOneOf(kNamed, key)));
  }
  return absl::OkStatus();
}

absl::Status CheckJsonText(const GrammarSpec& spec, const std::string& field) {
  const auto parsed = ParseJson(spec.text, kGrammarJsonLimits);
  if (!parsed.ok()) {
    return Refused(field, Invalid("{} is not JSON that this server reads: {}", field,
                                  Message(parsed.status())));
  }
  return CheckJson(*parsed, field);
}

absl::Status CheckChoices(const GrammarSpec& spec, const std::string& field) {
  if (spec.choices.empty() || spec.choices.size() > kGrammarChoicesMax) {
    return Refused(field, Invalid("{} has {} choices; it must have 1 to {}", field,
                                  spec.choices.size(), kGrammarChoicesMax));
  }
  for (size_t i = 0; i < spec.choices.size(); ++i) {
    if (!spec.choices[i].empty()) continue;
    return Refused(field, Invalid("{}[{}] is empty; give a text", field, i));
  }
  return absl::OkStatus();
}

}  // namespace

const char* GrammarKindName(GrammarKind kind) {
  switch (kind) {
    case GrammarKind::kJsonObject:
      return "json_object";
    case GrammarKind::kJsonSchema:
      return "json_schema";
    case GrammarKind::kRegex:
      return "regex";
    case GrammarKind::kChoice:
      return "choice";
    case GrammarKind::kEbnf:
      return "ebnf";
    case GrammarKind::kStructuralTag:
      return "structural_tag";
  }
  return "unknown";
}

absl::Status CheckGrammarSpec(const GrammarSpec& spec, const std::string& field) {
  size_t bytes = spec.text.size();
  for (const std::string& choice : spec.choices) bytes += choice.size();
  if (bytes > kGrammarTextBytesMax) {
    return Refused(field, Invalid("{} has {} bytes; this server's limit is {}; make it shorter",
                                  field, bytes, kGrammarTextBytesMax));
  }
  switch (spec.kind) {
    case GrammarKind::kJsonObject:
      break;
    case GrammarKind::kJsonSchema:
    case GrammarKind::kStructuralTag:
      return CheckJsonText(spec, field);
    case GrammarKind::kRegex:
    case GrammarKind::kEbnf:
      return CheckPattern(spec.text, field);
    case GrammarKind::kChoice:
      return CheckChoices(spec, field);
  }
  return absl::OkStatus();
}

}  // namespace fathom
