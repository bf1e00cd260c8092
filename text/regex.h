// text/regex.h: the regular expressions of pre-tokenizers, by PCRE2 with its JIT.
// Published patterns were written for Oniguruma. What the two read differently is rewritten (\s,
// \S, \d, ^, $) or refused by name (\w, nested classes, possessive intervals...), so that a pattern
// that compiles matches what it was meant to. Thread: constant after Compile; Find may be called by
// any thread (each has a match stack of its own).
#pragma once

#include <cstddef>
#include <memory>
#include <string>
#include <string_view>

#include "absl/status/statusor.h"
#include "text/tokenizer.h"

struct pcre2_real_code_8;

namespace fathom::router {

// An Oniguruma pattern in PCRE2's words (options UTF and MULTILINE). INVALID_ARGUMENT names what is
// not understood.
absl::StatusOr<std::string> RewriteOnigPattern(std::string_view pattern);

class Regex {
 public:
  enum class Result {
    kMatch,
    kNoMatch,
    kTooHard,  // Backtracks more than kMatchLimit allows.
  };

  static absl::StatusOr<Regex> Compile(std::string_view pattern);
  // Matches `text` itself.
  static absl::StatusOr<Regex> CompileLiteral(std::string_view text);

  // The first match in `subject` that starts at `offset` or later; what lies before `offset` is
  // seen by lookbehinds. REQUIRES: `subject` is UTF-8, `offset` a character's begin or the end.
  Result Find(std::string_view subject, size_t offset, ByteSpan* match) const;

 private:
  struct Free {
    void operator()(pcre2_real_code_8* code) const;
  };
  Regex(pcre2_real_code_8* code, bool jit) : code_(code), jit_(jit) {}
  static absl::StatusOr<Regex> Make(std::string_view pattern, uint32_t options);

  std::unique_ptr<pcre2_real_code_8, Free> code_;
  bool jit_;  // False where the system forbids executable memory: slower, same matches.
};

}  // namespace fathom::router
