#include "router/api/forbidden_tokens.h"

#include <algorithm>
#include <string>
#include <vector>

#include "common/reason.h"
#include "common/request_limits.h"
#include "common/utf8.h"

namespace fathom::router {
namespace {

absl::Status ForbidWord(const Tokenizer& tokenizer, const std::string& word,
                        const std::string& path, std::vector<TokenId>* ids) {
  const size_t begin = std::min(word.find_first_not_of(' '), word.size());
  const std::string bare = word.substr(begin);
  if (bare.empty()) {
    return WithReason(Invalid("{} has no text; leave it out", path), Reason::kOutOfRange, path);
  }
  const auto tokens = tokenizer.Encode(bare);
  if (!tokens.ok()) return WithReason(tokens.status(), Reason::kInvalidText, path);
  if (tokens->size() != 1) {
    return WithReason(
        Unimplemented("{} is '{}', which is {} tokens; this version forbids words of one token; "
                      "send a shorter word, or stop at the word by stop",
                      path, Shortened(bare, 40), tokens->size()),
        Reason::kNotImplemented, path);
  }
  ids->push_back(tokens->front());
  const auto spaced = tokenizer.Encode(" " + bare);
  if (spaced.ok() && spaced->size() == 1) ids->push_back(spaced->front());
  return absl::OkStatus();
}

absl::Status ForbidOthers(const std::vector<TokenId>& allowed, const ModelFacts& facts,
                          std::vector<TokenId>* ids) {
  constexpr char kPath[] = "sampling.allowed_token_ids";
  FATHOM_RETURN_IF_ERROR(CheckTokenIds(allowed, facts, kPath));
  std::vector<bool> is_allowed(static_cast<size_t>(facts.vocab), false);
  for (const TokenId id : allowed) is_allowed[static_cast<size_t>(id)] = true;
  const auto others = std::ranges::count(is_allowed, false);
  if (others > kLogitBiasMax) {
    return WithReason(
        Unimplemented("{} leaves out {} of the {} tokens of model {}; this version can forbid at "
                      "most {} tokens in a request; allow more, or raise the wanted ones by "
                      "logit_bias 100",
                      kPath, others, facts.vocab, facts.name, kLogitBiasMax),
        Reason::kNotImplemented, kPath);
  }
  for (TokenId id = 0; id < facts.vocab; ++id) {
    if (!is_allowed[static_cast<size_t>(id)]) ids->push_back(id);
  }
  return absl::OkStatus();
}

}  // namespace

absl::Status ResolveForbidden(const Tokenizer* tokenizer, const ModelFacts& facts,
                              PublicSampling* sampling) {
  std::vector<TokenId>& ids = sampling->forbidden_ids;
  const std::vector<std::string>& words = sampling->bad_words;
  if (!words.empty() && tokenizer == nullptr) {
    return WithReason(Invalid("sampling.bad_words has {} words, but the folder of model {} has no "
                              "tokenizer.json; forbid token ids by logit_bias",
                              words.size(), facts.name),
                      Reason::kNoTokenizer, "sampling.bad_words");
  }
  if (words.size() > static_cast<size_t>(kLogitBiasMax)) {
    return WithReason(Invalid("sampling.bad_words has {} words; this server's limit is {}; send "
                              "fewer",
                              words.size(), kLogitBiasMax),
                      Reason::kOutOfRange, "sampling.bad_words");
  }
  for (size_t i = 0; i < words.size(); ++i) {
    FATHOM_RETURN_IF_ERROR(
        ForbidWord(*tokenizer, words[i], fmt::format("sampling.bad_words[{}]", i), &ids));
  }
  if (!sampling->allowed_token_ids.empty()) {
    FATHOM_RETURN_IF_ERROR(ForbidOthers(sampling->allowed_token_ids, facts, &ids));
  }
  std::ranges::sort(ids);
  const auto repeated = std::ranges::unique(ids);
  ids.erase(repeated.begin(), repeated.end());
  return absl::OkStatus();
}

}  // namespace fathom::router
