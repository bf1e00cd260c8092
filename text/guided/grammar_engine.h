// text/guided/grammar_engine.h: compiles grammars for one vocabulary, and follows an output token
// by token: which tokens may come next. xgrammar does the work; it is linked only if the build has
// its sources (FATHOM_GUIDED), and its exceptions end here. In a build without it Built() is false,
// and Make returns UNIMPLEMENTED with what to do.
// A compiled grammar has the masks of its vocabulary in it, so compiling takes milliseconds to
// seconds, and reading the compiled form takes less. The router compiles; workers read.
// Pure: equal specs, vocabularies and tokens give equal masks on every machine.
// Thread: an engine and a compiled grammar are constant, and any thread may use them. A matcher
// belongs to one thread at a time.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "common/request_limits.h"
#include "common/status.h"
#include "common/types.h"
#include "text/guided/grammar_spec.h"

namespace fathom {

class Tokenizer;

// The most memory of a compiled grammar.
inline constexpr size_t kGrammarMemoryMax = size_t{64} << 20;

// Number of 32-bit words in a mask: bit i % 32 of word i / 32 is set if token i may come next.
constexpr size_t GrammarMaskWords(int32_t vocab) { return (static_cast<size_t>(vocab) + 31) / 32; }

// Shares its content with its copies; null: no grammar.
class CompiledGrammar {
 public:
  struct Impl;
  CompiledGrammar() = default;
  explicit CompiledGrammar(std::shared_ptr<const Impl> impl) : impl_(std::move(impl)) {}

  explicit operator bool() const { return impl_ != nullptr; }
  const Impl& impl() const { return *impl_; }
  // About its memory. REQUIRES: not null.
  size_t memory_bytes() const;

 private:
  std::shared_ptr<const Impl> impl_;
};

class GrammarEngine {
 public:
  // Whether this build has a grammar engine.
  static bool Built();

  // The vocabulary of a model: `vocab` tokens, of which the tokenizer may have fewer. Special
  // tokens (those that a client's text leaves out) match no text. A grammar allows them only where
  // a structural tag names their id ({"type": "token", "token": 7}, also as begin or end of a tag),
  // and end tokens also at its end.
  static absl::StatusOr<std::unique_ptr<GrammarEngine>> Make(const Tokenizer& tokenizer,
                                                             int32_t vocab);
  // The same from the bytes of each token; an empty one is special. For tests and benchmarks.
  static absl::StatusOr<std::unique_ptr<GrammarEngine>> Make(std::vector<std::string> tokens);
  ~GrammarEngine();
  GrammarEngine(const GrammarEngine&) = delete;
  GrammarEngine& operator=(const GrammarEngine&) = delete;

  // INVALID_ARGUMENT (INVALID_GRAMMAR, `field`): the spec is beyond a limit, the engine refuses it
  // (the message has its reason), or the compiled grammar is too large.
  absl::StatusOr<CompiledGrammar> Compile(const GrammarSpec& spec, const std::string& field) const;
  // The compiled form as bytes, for Load in another process with the same vocabulary.
  // INVALID_ARGUMENT (INVALID_GRAMMAR): more than kGrammarBytesMax (common/request_limits.h).
  absl::StatusOr<std::string> Serialize(const CompiledGrammar& grammar) const;
  // INVALID_ARGUMENT: the bytes are of another vocabulary or of another version of the engine.
  absl::StatusOr<CompiledGrammar> Load(const std::string& bytes) const;

  int32_t vocab() const;
  // Hex. Equal for engines whose grammars can be exchanged: same version, same tokens.
  const std::string& vocabulary_digest() const;

 private:
  struct Impl;
  explicit GrammarEngine(std::unique_ptr<const Impl> impl);
  std::unique_ptr<const Impl> impl_;
};

// Follows one output. After one of `end_ids` was accepted the output has ended.
class GrammarMatcher {
 public:
  // REQUIRES: `grammar` is not null; `end_ids` is not empty and within the vocabulary.
  GrammarMatcher(const CompiledGrammar& grammar, std::vector<TokenId> end_ids);
  ~GrammarMatcher();
  GrammarMatcher(GrammarMatcher&&) noexcept;
  GrammarMatcher& operator=(GrammarMatcher&&) noexcept;

  // The output goes on with `id`. False: the grammar does not allow it here, and nothing changed.
  bool Accept(TokenId id);
  // Takes back the last `tokens` accepted ones. REQUIRES: so many were accepted.
  void Rollback(int tokens);
  // Whether an end token was accepted.
  bool ended() const;
  // Fills [GrammarMaskWords(vocab)] words. After the end only the end tokens may come.
  void FillMask(std::span<uint32_t> mask);

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace fathom
