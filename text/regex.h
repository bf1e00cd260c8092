// text/regex.h: the regular expressions of pre-tokenizers, with PCRE2 and its JIT. Published
// patterns were written for Oniguruma. Syntax with a different meaning in PCRE2 is rewritten (\s,
// \S, \d, ^, $) or refused by name (\w, nested classes, possessive intervals, ...), so a pattern
// that compiles matches as its author meant. Thread: constant after Compile; any thread may call
// Find (each has its own match stack).
#pragma once

#include <cstddef>
#include <memory>
#include <string>
#include <string_view>

#include "absl/status/statusor.h"
#include "text/tokenizer.h"

struct pcre2_real_code_8;

namespace fathom {

// Rewrites an Oniguruma pattern for PCRE2 (options UTF and MULTILINE). INVALID_ARGUMENT names the
// unsupported part.
absl::StatusOr<std::string> RewriteOnigPattern(std::string_view pattern);

class Regex {
 public:
  enum class Result {
    kMatch,
    kNoMatch,
    kTooHard,  // The match needs more backtracking than kMatchLimit.
  };

  static absl::StatusOr<Regex> Compile(std::string_view pattern);
  // A regex that matches `text` literally.
  static absl::StatusOr<Regex> CompileLiteral(std::string_view text);

  // Finds the first match in `subject` that starts at `offset` or later. Lookbehinds see the text
  // before `offset`. REQUIRES: `subject` is UTF-8; `offset` is the start of a character or the end.
  Result Find(std::string_view subject, size_t offset, ByteSpan* match) const;

 private:
  struct Free {
    void operator()(pcre2_real_code_8* code) const;
  };
  Regex(pcre2_real_code_8* code, bool jit) : code_(code), jit_(jit) {}
  static absl::StatusOr<Regex> Make(std::string_view pattern, uint32_t options);

  std::unique_ptr<pcre2_real_code_8, Free> code_;
  bool jit_;  // False if the system forbids executable memory; matching is then slower.
};

}  // namespace fathom
