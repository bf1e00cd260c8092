// text/guided/grammar_spec.h: what the output of a request must follow (guided output), as a client
// writes it, and the limits of it. Plain data; the check is pure and any thread may call it.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "common/status.h"

namespace fathom {

enum class GrammarKind {
  kJsonObject,     // Any JSON object.
  kJsonSchema,     // `text`: a JSON Schema.
  kRegex,          // `text`: a regular expression, matched by the whole output.
  kChoice,         // `choices`: the output is one of them.
  kEbnf,           // `text`: rules `name ::= ...` (GBNF); the output is what `root` derives.
  kStructuralTag,  // `text`: xgrammar's structural tag as JSON: free text and tags with a content.
};

struct GrammarSpec {
  GrammarKind kind = GrammarKind::kJsonObject;
  std::string text;
  std::vector<std::string> choices;
  // kJsonSchema: objects have only the properties that the schema names, and tuples only the items.
  bool closed = true;
  bool operator==(const GrammarSpec&) const = default;
};

// A compiler of grammars cannot be stopped, so what it gets is bounded: by these limits a compile
// takes at most seconds (tests/text/grammar_limits_test.cc measures the worst inputs known).
inline constexpr size_t kGrammarTextBytesMax = 64 << 10;  // Of the text, or of all choices.
inline constexpr int kGrammarDepthMax = 32;               // Of nesting: brackets and JSON values.
inline constexpr size_t kGrammarChoicesMax = 1024;
// Of a count in a repetition: {n,m} in a regular expression or a rule; minLength, maxLength,
// minItems, maxItems, minProperties and maxProperties in a schema.
inline constexpr int64_t kGrammarRepeatMax = 4096;

// The name of the kind in errors and metrics: "json_schema".
const char* GrammarKindName(GrammarKind kind);

// INVALID_ARGUMENT with an ErrorDetail (INVALID_GRAMMAR, and `field`): a text beyond a limit, or
// JSON that is none. It says nothing of what the grammar engine refuses.
absl::Status CheckGrammarSpec(const GrammarSpec& spec, const std::string& field);

}  // namespace fathom
