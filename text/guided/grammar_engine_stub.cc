// The engine of a build without xgrammar: there is none.
#include "common/check.h"
#include "text/guided/grammar_engine.h"

namespace fathom {

struct CompiledGrammar::Impl {};
struct GrammarEngine::Impl {};
struct GrammarMatcher::Impl {};

namespace {

absl::Status NoEngine() {
  return Unimplemented(
      "this build has no grammar engine; run deploy/fetch-xgrammar, configure with "
      "-DFATHOM_GUIDED=ON and build again");
}

// Without an engine there is no grammar and no matcher, so their methods cannot be called.
[[noreturn]] void NoGrammar() {
  CheckFailed(__FILE__, __LINE__, "a grammar exists", "this build has no grammar engine");
}

}  // namespace

bool GrammarEngine::Built() { return false; }

absl::StatusOr<std::unique_ptr<GrammarEngine>> GrammarEngine::Make(const Tokenizer&, int32_t) {
  return NoEngine();
}
absl::StatusOr<std::unique_ptr<GrammarEngine>> GrammarEngine::Make(std::vector<std::string>) {
  return NoEngine();
}

size_t CompiledGrammar::memory_bytes() const { NoGrammar(); }
GrammarEngine::GrammarEngine(std::unique_ptr<const Impl> impl) : impl_(std::move(impl)) {}
GrammarEngine::~GrammarEngine() = default;
absl::StatusOr<CompiledGrammar> GrammarEngine::Compile(const GrammarSpec&,
                                                       const std::string&) const {
  return NoEngine();
}
absl::StatusOr<std::string> GrammarEngine::Serialize(const CompiledGrammar&) const {
  return NoEngine();
}
absl::StatusOr<CompiledGrammar> GrammarEngine::Load(const std::string&) const { return NoEngine(); }
int32_t GrammarEngine::vocab() const { return 0; }
const std::string& GrammarEngine::vocabulary_digest() const { NoGrammar(); }
GrammarMatcher::GrammarMatcher(const CompiledGrammar&, std::vector<TokenId>) { NoGrammar(); }
GrammarMatcher::~GrammarMatcher() = default;
GrammarMatcher::GrammarMatcher(GrammarMatcher&&) noexcept = default;
GrammarMatcher& GrammarMatcher::operator=(GrammarMatcher&&) noexcept = default;
bool GrammarMatcher::Accept(TokenId) { NoGrammar(); }
void GrammarMatcher::Rollback(int) { NoGrammar(); }
bool GrammarMatcher::ended() const { NoGrammar(); }
void GrammarMatcher::FillMask(std::span<uint32_t>) { NoGrammar(); }

}  // namespace fathom
