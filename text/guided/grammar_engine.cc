// The engine of a build with xgrammar. xgrammar throws, so each call of it is inside of Guarded.
#include "text/guided/grammar_engine.h"

#include <openssl/evp.h>
#include <xgrammar/xgrammar.h>

#include <algorithm>
#include <array>
#include <exception>
#include <optional>
#include <stdexcept>
#include <utility>
#include <variant>

#include "common/check.h"
#include "common/reason.h"
#include "text/tokenizer.h"

// While a grammar is compiled: what xgrammar ignores of it, which it only logs. Null: not
// compiling.
static thread_local std::string* ignored_part = nullptr;

// xgrammar's log (XGRAMMAR_LOG_CUSTOMIZE): what is fatal is an exception, a warning says what is
// ignored, and the rest is left out.
namespace xgrammar {
[[noreturn]] void LogFatalImpl(const std::string&, int, const std::string& message);
void LogMessageImpl(const std::string&, int, int, const std::string&);
void LogFatalImpl(const std::string&, int, const std::string& message) {
  throw std::runtime_error(message);
}
void LogMessageImpl(const std::string&, int, int level, const std::string& message) {
  constexpr int kWarning = 2;
  if (level == kWarning && ignored_part != nullptr && ignored_part->empty()) {
    *ignored_part = message;
  }
}
}  // namespace xgrammar

namespace fathom {

struct CompiledGrammar::Impl {
  explicit Impl(xgrammar::CompiledGrammar compiled) : grammar(std::move(compiled)) {}
  xgrammar::CompiledGrammar grammar;
};

struct GrammarEngine::Impl {
  explicit Impl(const std::vector<std::string>& tokens)
      : info(tokens, xgrammar::VocabType::RAW, std::nullopt, std::vector<int32_t>{}),
        // One thread for each compile, no cache: the callers have both.
        compiler(info, /*max_threads=*/1, /*cache_enabled=*/false),
        vocab(static_cast<int32_t>(tokens.size())) {}

  xgrammar::TokenizerInfo info;
  // Compile changes nothing, but it is not const.
  mutable xgrammar::GrammarCompiler compiler;
  int32_t vocab;
  std::string digest;
};

struct GrammarMatcher::Impl {
  Impl(const CompiledGrammar& grammar, std::vector<TokenId> ends)
      : compiled(grammar),
        end_ids(std::move(ends)),
        matcher(grammar.impl().grammar, std::vector<int>(end_ids.begin(), end_ids.end())) {}

  const CompiledGrammar compiled;  // Kept for the matcher.
  const std::vector<TokenId> end_ids;
  xgrammar::GrammarMatcher matcher;
  int after_end = 0;  // Accepted tokens after the one that ended the output.
};

namespace {

// White space between the parts of a JSON value: a bound, so that a model cannot write it for ever.
constexpr int kWhitespaceMax = 16;
constexpr size_t kReasonBytesMax = 400;  // Of what xgrammar says, which may repeat the grammar.

// What xgrammar says, on one line.
std::string Brief(std::string text) {
  std::ranges::replace(text, '\n', ' ');
  if (text.size() > kReasonBytesMax) {
    text.resize(kReasonBytesMax);
    while (!text.empty() && (static_cast<unsigned char>(text.back()) & 0x80) != 0) text.pop_back();
    text += "...";
  }
  return text;
}

// `work()`, or INVALID_ARGUMENT with what it threw.
template <class Work>
auto Guarded(Work work) -> absl::StatusOr<decltype(work())> {
  try {
    return work();
  } catch (const std::exception& error) {
    return Invalid("{}", Brief(error.what()));
  }
}

std::string HexOf(const unsigned char* bytes, size_t size) {
  std::string text;
  for (size_t i = 0; i < size; ++i) text += fmt::format("{:02x}", bytes[i]);
  return text;
}

// SHA-256 over the version of the compiled form and all tokens, each with its length before it.
std::string DigestOf(const std::vector<std::string>& tokens) {
  std::string bytes = "fathom grammar 1 " + xgrammar::GetSerializationVersion();
  const auto add = [&bytes](uint64_t number) {
    for (int i = 0; i < 8; ++i) bytes.push_back(static_cast<char>(number >> (8 * i)));
  };
  for (const std::string& token : tokens) {
    add(token.size());
    bytes += token;
  }
  std::array<unsigned char, EVP_MAX_MD_SIZE> digest;
  unsigned size = 0;
  FATHOM_CHECK(
      EVP_Digest(bytes.data(), bytes.size(), digest.data(), &size, EVP_sha256(), nullptr) == 1);
  return HexOf(digest.data(), 16);
}

// The choices as one rule.
std::string ChoiceRules(const std::vector<std::string>& choices) {
  std::string rules = "root ::= ";
  for (size_t i = 0; i < choices.size(); ++i) {
    rules += i == 0 ? "\"" : " | \"";
    for (const char c : choices[i]) {
      if (c == '"' || c == '\\') {
        rules += fmt::format("\\{}", c);
      } else if (static_cast<unsigned char>(c) < 0x20 || c == 0x7f) {
        rules += fmt::format("\\x{:02x}", static_cast<unsigned>(static_cast<unsigned char>(c)));
      } else {
        rules += c;
      }
    }
    rules += '"';
  }
  return rules + "\n";
}

xgrammar::CompiledGrammar CompileWith(xgrammar::GrammarCompiler* compiler,
                                      const GrammarSpec& spec) {
  const auto schema = [compiler](const std::string& text, bool closed) {
    return compiler->CompileJSONSchema(text, /*any_whitespace=*/true, std::nullopt, std::nullopt,
                                       closed, kWhitespaceMax);
  };
  switch (spec.kind) {
    case GrammarKind::kJsonObject:
      return schema(R"({"type": "object"})", /*closed=*/false);
    case GrammarKind::kJsonSchema:
      return schema(spec.text, spec.closed);
    case GrammarKind::kRegex:
      return compiler->CompileRegex(spec.text);
    case GrammarKind::kChoice:
      return compiler->CompileGrammar(ChoiceRules(spec.choices));
    case GrammarKind::kEbnf:
      return compiler->CompileGrammar(spec.text);
    case GrammarKind::kStructuralTag:
      return compiler->CompileStructuralTag(spec.text);
  }
  throw std::runtime_error("unknown kind of grammar");
}

DLTensor TensorOf(std::span<uint32_t> mask, int64_t* shape) {
  *shape = static_cast<int64_t>(mask.size());
  return {.data = mask.data(),
          .device = {kDLCPU, 0},
          .ndim = 1,
          .dtype = {kDLInt, 32, 1},
          .shape = shape,
          .strides = nullptr,
          .byte_offset = 0};
}

}  // namespace

size_t CompiledGrammar::memory_bytes() const { return impl_->grammar.MemorySizeBytes(); }

bool GrammarEngine::Built() { return true; }

GrammarEngine::GrammarEngine(std::unique_ptr<const Impl> impl) : impl_(std::move(impl)) {}
GrammarEngine::~GrammarEngine() = default;
int32_t GrammarEngine::vocab() const { return impl_->vocab; }
const std::string& GrammarEngine::vocabulary_digest() const { return impl_->digest; }

absl::StatusOr<std::unique_ptr<GrammarEngine>> GrammarEngine::Make(const Tokenizer& tokenizer,
                                                                   int32_t vocab) {
  std::vector<std::string> tokens(static_cast<size_t>(vocab));
  for (TokenId id = 0; id < std::min(vocab, tokenizer.vocab_size()); ++id) {
    // No UTF-8 text has this byte, so no text of a grammar matches the token.
    if (tokenizer.IsSpecial(id)) tokens[static_cast<size_t>(id)] = "\xff";
    tokens[static_cast<size_t>(id)] += tokenizer.TokenBytes(id);
  }
  return Make(std::move(tokens));
}

absl::StatusOr<std::unique_ptr<GrammarEngine>> GrammarEngine::Make(
    std::vector<std::string> tokens) {
  if (tokens.empty()) return Invalid("a vocabulary of no tokens");
  auto impl = Guarded([&] { return std::make_unique<Impl>(tokens); });
  if (!impl.ok()) return Annotate(impl.status(), "the grammar engine refuses the vocabulary");
  (*impl)->digest = DigestOf(tokens);
  return std::unique_ptr<GrammarEngine>(new GrammarEngine(*std::move(impl)));
}

absl::StatusOr<CompiledGrammar> GrammarEngine::Compile(const GrammarSpec& spec,
                                                       const std::string& field) const {
  FATHOM_RETURN_IF_ERROR(CheckGrammarSpec(spec, field));
  // An output must follow the whole grammar, so one that is followed in part is refused.
  std::string ignored;
  auto compiled = Guarded([&] {
    ignored_part = &ignored;
    return CompiledGrammar(
        std::make_shared<const CompiledGrammar::Impl>(CompileWith(&impl_->compiler, spec)));
  });
  ignored_part = nullptr;
  if (compiled.ok() && !ignored.empty()) compiled = Invalid("{}", Brief(ignored));
  if (!compiled.ok()) {
    return WithReason(Invalid("{} is no {} that this server can follow: {}", field,
                              GrammarKindName(spec.kind), Message(compiled.status())),
                      Reason::kInvalidGrammar, field);
  }
  if (compiled->memory_bytes() > kGrammarMemoryMax) {
    return WithReason(
        Invalid("{} needs {} bytes for its masks; this server's limit is {}; make it simpler",
                field, compiled->memory_bytes(), kGrammarMemoryMax),
        Reason::kInvalidGrammar, field);
  }
  return compiled;
}

absl::StatusOr<std::string> GrammarEngine::Serialize(const CompiledGrammar& grammar) const {
  FATHOM_ASSIGN_OR_RETURN(std::string bytes,
                          Guarded([&] { return grammar.impl().grammar.SerializeJSON(); }));
  if (std::ssize(bytes) <= kGrammarBytesMax) return bytes;
  return WithReason(
      Invalid("the compiled grammar has {} bytes; this server's limit is {}; make it simpler",
              bytes.size(), kGrammarBytesMax),
      Reason::kInvalidGrammar);
}

absl::StatusOr<CompiledGrammar> GrammarEngine::Load(const std::string& bytes) const {
  if (std::ssize(bytes) > kGrammarBytesMax) {
    return Invalid("a compiled grammar of {} bytes; the limit is {}", bytes.size(),
                   kGrammarBytesMax);
  }
  auto loaded = Guarded([&] {
    auto read = xgrammar::CompiledGrammar::DeserializeJSON(bytes, impl_->info);
    if (auto* grammar = std::get_if<xgrammar::CompiledGrammar>(&read)) {
      return CompiledGrammar(std::make_shared<const CompiledGrammar::Impl>(std::move(*grammar)));
    }
    return std::visit(
        [](const auto& error) -> CompiledGrammar { throw std::runtime_error(error.what()); },
        std::get<xgrammar::SerializationError>(read));
  });
  if (!loaded.ok()) return Annotate(loaded.status(), "the compiled grammar cannot be read");
  return loaded;
}

GrammarMatcher::GrammarMatcher(const CompiledGrammar& grammar, std::vector<TokenId> end_ids)
    : impl_(std::make_unique<Impl>(grammar, std::move(end_ids))) {}
GrammarMatcher::~GrammarMatcher() = default;
GrammarMatcher::GrammarMatcher(GrammarMatcher&&) noexcept = default;
GrammarMatcher& GrammarMatcher::operator=(GrammarMatcher&&) noexcept = default;

bool GrammarMatcher::Accept(TokenId id) {
  if (ended()) {
    const bool end = std::ranges::find(impl_->end_ids, id) != impl_->end_ids.end();
    impl_->after_end += end ? 1 : 0;
    return end;
  }
  return Guarded([&] { return impl_->matcher.AcceptToken(id); }).value_or(false);
}

void GrammarMatcher::Rollback(int tokens) {
  const int after = std::min(tokens, impl_->after_end);
  impl_->after_end -= after;
  if (tokens == after) return;
  const auto done = Guarded([&] {
    impl_->matcher.Rollback(tokens - after);
    return true;
  });
  FATHOM_CHECK(done.ok(), "{}", Message(done.status()));
}

bool GrammarMatcher::ended() const { return impl_->matcher.IsTerminated(); }

void GrammarMatcher::FillMask(std::span<uint32_t> mask) {
  std::ranges::fill(mask, 0);
  if (ended()) {
    for (const TokenId id : impl_->end_ids) {
      mask[static_cast<size_t>(id) / 32] |= uint32_t{1} << (id % 32);
    }
    return;
  }
  int64_t shape = 0;
  DLTensor tensor = TensorOf(mask, &shape);
  const auto filled = Guarded([&] { return impl_->matcher.FillNextTokenBitmask(&tensor); });
  // No token may come, so the sequence ends with a fault.
  if (!filled.ok()) std::ranges::fill(mask, 0);
}

}  // namespace fathom
