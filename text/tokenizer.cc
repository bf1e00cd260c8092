#include "text/tokenizer.h"

#include <algorithm>
#include <utility>

#include "absl/container/flat_hash_map.h"
#include "common/check.h"
#include "common/status.h"
#include "common/string_hash.h"
#include "common/utf8.h"
#include "text/added_tokens.h"
#include "text/bpe.h"
#include "text/byte_level.h"
#include "text/normalizer.h"
#include "text/pre_tokenizer.h"
#include "text/token_bound.h"
#include "text/tokenizer_json.h"

namespace fathom {
namespace {

constexpr int64_t kCancelCheckBytes = 16 << 10;

// Memory that one Encode reuses.
struct Scratch {
  std::string normalized;
  std::string prefixed;
  std::vector<std::string_view> words;
  CancelCheck cancel;
};

// The parts of `spans` inside `piece`, with offsets from the start of `piece`.
std::vector<ByteSpan> Clip(std::span<const ByteSpan> spans, ByteSpan piece) {
  std::vector<ByteSpan> inside;
  auto span = std::partition_point(spans.begin(), spans.end(),
                                   [&](const ByteSpan& s) { return s.end <= piece.begin; });
  for (; span != spans.end() && span->begin < piece.end; ++span) {
    inside.push_back({std::max(span->begin, piece.begin) - piece.begin,
                      std::min(span->end, piece.end) - piece.begin});
  }
  return inside;
}

std::vector<AddedToken> Select(const std::vector<AddedToken>& tokens, bool normalized) {
  std::vector<AddedToken> selected;
  for (const AddedToken& token : tokens) {
    if (token.normalized == normalized) selected.push_back(token);
  }
  return selected;
}

std::vector<AddedToken> NormalizedTokens(const TokenizerSpec& spec) {
  if (spec.characters) return {};
  std::vector<AddedToken> tokens = Select(spec.added_tokens, true);
  if (!spec.nfc) return tokens;
  std::string out;
  std::vector<ByteSpan> none;
  for (AddedToken& token : tokens) {
    if (NormalizeNfc(token.content, {}, &out, &none)) token.content = out;
  }
  // If normalization made two tokens equal, the lower id counts.
  std::stable_sort(tokens.begin(), tokens.end(),
                   [](const AddedToken& a, const AddedToken& b) { return a.content < b.content; });
  tokens.erase(
      std::unique(tokens.begin(), tokens.end(),
                  [](const AddedToken& a, const AddedToken& b) { return a.content == b.content; }),
      tokens.end());
  return tokens;
}

}  // namespace

struct Tokenizer::Impl {
  std::vector<AddedToken> added_tokens;
  absl::flat_hash_map<std::string, TokenId, StringHash, StringEq> added_ids;
  AddedTokenMatcher plain_matcher;       // Searches the original text.
  AddedTokenMatcher normalized_matcher;  // Then searches the normalized text between those tokens.
  bool nfc = false;
  std::optional<CharacterVocabulary> characters;
  PreTokenizer pre_tokenizer;
  Bpe bpe;
  std::vector<std::string> added_bytes;  // By index in added_tokens.
  std::vector<int32_t> added_index;      // By id: the index in added_tokens, or -1.
  std::vector<TokenId> prefix_ids, suffix_ids;
  int32_t bpe_size = 0;  // Ids below it belong to BPE.
  std::string bos_token, eos_token;
  std::optional<TokenId> bos_id, eos_id;
  TokenBound bound;

  absl::Status EncodeText(std::string_view text, Scratch* scratch,
                          std::vector<TokenId>* ids) const {
    FATHOM_RETURN_IF_ERROR(
        pre_tokenizer.Split(text, &scratch->cancel, &scratch->prefixed, &scratch->words));
    for (std::string_view word : scratch->words) {
      bpe.Encode(word, ids);
      if (scratch->cancel.After(static_cast<int64_t>(word.size()))) {
        return Cancelled("nobody waits for these tokens any more");
      }
    }
    return absl::OkStatus();
  }

  // REQUIRES: `text` contains no token of plain_matcher. `at_begin`: it starts the whole text.
  absl::Status EncodePiece(std::string_view text, bool at_begin,
                           std::vector<ByteSpan> literal_spans, Scratch* scratch,
                           std::vector<TokenId>* ids) const {
    std::vector<ByteSpan> spans;
    if (characters) {
      PrepareCharacters(*characters, text, at_begin, literal_spans, &scratch->normalized, &spans);
      text = scratch->normalized;
    } else if (nfc && NormalizeNfc(text, literal_spans, &scratch->normalized, &spans)) {
      text = scratch->normalized;
    } else {
      spans = std::move(literal_spans);
    }
    if (normalized_matcher.empty()) return EncodeText(text, scratch, ids);
    std::vector<AddedTokenMatcher::Piece> pieces;
    normalized_matcher.Split(text, spans, &pieces);
    for (const AddedTokenMatcher::Piece& piece : pieces) {
      if (piece.id >= 0) {
        ids->push_back(piece.id);
      } else {
        FATHOM_RETURN_IF_ERROR(EncodeText(
            text.substr(piece.span.begin, piece.span.end - piece.span.begin), scratch, ids));
      }
    }
    return absl::OkStatus();
  }

  void FillBound(const TokenizerSpec& spec) {
    for (TokenId id = 0; id < bpe_size; ++id) {
      if (bpe.MadeFromBytes(id)) bound.Add(bpe.TokenBytes(id));
    }
    for (const AddedToken& token : added_tokens) {
      bound.Add(token.content);
      if (token.lstrip || token.rstrip) bound.SetTokensStrip();
    }
    for (const AddedToken& token : NormalizedTokens(spec)) bound.Add(token.content);
    if (nfc) bound.SetNfc();
    for (const SplitSpec& split : spec.pre_tokenizer.splits) {
      if (split.behavior == SplitBehavior::kRemoved) bound.SetTextVanishes();
    }
  }

  std::optional<TokenId> Find(std::string_view token) const {
    if (const auto found = added_ids.find(token); found != added_ids.end()) return found->second;
    if (characters) {
      const CharacterToken spelled = ReadCharacterToken(token);
      const auto found = bpe.FindToken(spelled.bytes, spelled.is_byte);
      return found || spelled.is_byte ? found : bpe.FindToken(spelled.bytes, true);
    }
    if (const std::optional<std::string> bytes = ByteLevelBytes(token)) {
      return bpe.FindToken(*bytes, false);
    }
    return bpe.FindToken(token, true);
  }
};

namespace {

absl::StatusOr<std::optional<TokenId>> FindNamed(const std::optional<TokenId>& id,
                                                 const std::string& folder, std::string_view key,
                                                 const std::string& token) {
  if (token.empty()) return std::optional<TokenId>();
  if (id) return id;
  return Invalid("{}/tokenizer_config.json: {} is '{}'; tokenizer.json has no such token", folder,
                 key, token);
}

// add_bos_token or add_eos_token of tokenizer_config.json decides if it is set, otherwise the
// post-processor.
absl::Status Surround(const std::optional<bool>& add, const std::optional<TokenId>& id,
                      const std::string& folder, std::string_view key, std::vector<TokenId>* ids) {
  if (!add) return absl::OkStatus();
  ids->clear();
  if (!*add) return absl::OkStatus();
  if (!id) {
    return Invalid("{}/tokenizer_config.json: add_{} is true; then {} must name a token", folder,
                   key, key);
  }
  ids->push_back(*id);
  return absl::OkStatus();
}

}  // namespace

Tokenizer::Tokenizer(std::unique_ptr<const Impl> impl) : impl_(std::move(impl)) {}
Tokenizer::~Tokenizer() = default;

bool AddedToken::IsText() const {
  if (special) return false;
  const bool punctuated = std::any_of(content.begin(), content.end(), [](char c) {
    return (c >= '!' && c <= '/') || (c >= ':' && c <= '@') || (c >= '[' && c <= '`') ||
           (c >= '{' && c <= '~');
  });
  return !punctuated && content.find("\xEF\xBD\x9C") == std::string::npos &&
         content.find("\xE2\x96\x81") == std::string::npos;
}

absl::StatusOr<std::unique_ptr<Tokenizer>> Tokenizer::Load(const std::string& folder) {
  FATHOM_ASSIGN_OR_RETURN(TokenizerSpec spec, ReadTokenizerSpec(folder));
  FATHOM_ASSIGN_OR_RETURN(PreTokenizer pre_tokenizer, PreTokenizer::Make(spec.pre_tokenizer));
  const auto bpe_size = static_cast<int32_t>(spec.bpe.tokens.size());
  std::unique_ptr<Impl> impl(new Impl{
      .added_tokens = spec.added_tokens,
      .added_ids = {},
      .plain_matcher =
          AddedTokenMatcher(spec.characters ? spec.added_tokens : Select(spec.added_tokens, false)),
      .normalized_matcher = AddedTokenMatcher(NormalizedTokens(spec)),
      .nfc = spec.nfc,
      .characters = spec.characters,
      .pre_tokenizer = std::move(pre_tokenizer),
      .bpe = Bpe(std::move(spec.bpe)),
      .added_bytes = {},
      .added_index = {},
      .prefix_ids = std::move(spec.prefix_ids),
      .suffix_ids = std::move(spec.suffix_ids),
      .bpe_size = bpe_size,
      .bos_token = std::move(spec.bos_token),
      .eos_token = std::move(spec.eos_token),
      .bos_id = {},
      .eos_id = {},
  });
  const int32_t last_added = impl->added_tokens.empty() ? -1 : impl->added_tokens.back().id;
  impl->added_index.assign(std::max(bpe_size, last_added + 1), -1);
  for (const AddedToken& token : impl->added_tokens) {
    impl->added_index[token.id] = static_cast<int32_t>(impl->added_bytes.size());
    impl->added_bytes.push_back(impl->characters
                                    ? ReadCharacterToken(token.content).bytes
                                    : ByteLevelBytes(token.content).value_or(token.content));
    impl->added_ids.emplace(token.content, token.id);
  }
  impl->FillBound(spec);
  for (const std::vector<TokenId>* ids : {&impl->prefix_ids, &impl->suffix_ids}) {
    for (TokenId id : *ids) {
      if (id >= static_cast<TokenId>(impl->added_index.size())) {
        return Invalid("{}/tokenizer.json: post_processor adds token {}; the vocabulary has {}",
                       folder, id, impl->added_index.size());
      }
    }
  }
  FATHOM_ASSIGN_OR_RETURN(
      impl->bos_id, FindNamed(impl->Find(impl->bos_token), folder, "bos_token", impl->bos_token));
  FATHOM_ASSIGN_OR_RETURN(
      impl->eos_id, FindNamed(impl->Find(impl->eos_token), folder, "eos_token", impl->eos_token));
  FATHOM_RETURN_IF_ERROR(
      Surround(spec.add_bos_token, impl->bos_id, folder, "bos_token", &impl->prefix_ids));
  FATHOM_RETURN_IF_ERROR(
      Surround(spec.add_eos_token, impl->eos_id, folder, "eos_token", &impl->suffix_ids));
  return std::unique_ptr<Tokenizer>(new Tokenizer(std::move(impl)));
}

absl::StatusOr<std::vector<TokenId>> Tokenizer::Encode(std::string_view text,
                                                       const EncodeOptions& options) const {
  if (const size_t offset = FirstInvalidUtf8(text); offset != std::string_view::npos) {
    return Invalid("the text is not UTF-8 at byte {} (0x{:02X}); send UTF-8", offset,
                   static_cast<uint8_t>(text[offset]));
  }
  std::vector<TokenId> ids;
  ids.reserve(text.size() / 4 + 4);
  if (options.add_special_tokens) ids = impl_->prefix_ids;
  const ByteSpan all = {0, text.size()};
  const std::span<const ByteSpan> literal_spans =
      options.parse_special ? options.literal_spans : std::span<const ByteSpan>(&all, 1);
  std::vector<AddedTokenMatcher::Piece> pieces;
  impl_->plain_matcher.Split(text, literal_spans, &pieces);
  Scratch scratch{.cancel = CancelCheck(options.cancelled, kCancelCheckBytes)};
  for (const AddedTokenMatcher::Piece& piece : pieces) {
    if (piece.id >= 0) {
      ids.push_back(piece.id);
      continue;
    }
    FATHOM_RETURN_IF_ERROR(
        impl_->EncodePiece(text.substr(piece.span.begin, piece.span.end - piece.span.begin),
                           piece.span.begin == 0, Clip(literal_spans, piece.span), &scratch, &ids));
  }
  if (options.add_special_tokens) {
    ids.insert(ids.end(), impl_->suffix_ids.begin(), impl_->suffix_ids.end());
  }
  return ids;
}

int64_t Tokenizer::MinTokens(std::string_view text) const {
  if (!impl_->characters) return impl_->bound.MinTokens(text);
  std::string prepared;  // Some characters become shorter ones.
  PrepareCharacters({}, text, false, {}, &prepared, nullptr);
  return impl_->bound.MinTokens(prepared);
}

absl::StatusOr<std::string> Tokenizer::Decode(std::span<const TokenId> ids,
                                              bool skip_special) const {
  std::string text;
  Utf8Stream stream;
  for (size_t i = 0; i < ids.size(); ++i) {
    if (ids[i] < 0 || ids[i] >= vocab_size()) {
      return Invalid("ids[{}] is {}; the tokenizer has ids 0 to {}", i, ids[i], vocab_size() - 1);
    }
    if (skip_special && IsSpecial(ids[i])) continue;
    stream.Append(TokenBytes(ids[i]), &text);
  }
  stream.Flush(&text);
  if (strips_first_space() && text.starts_with(' ')) text.erase(0, 1);
  return text;
}

std::string_view Tokenizer::TokenBytes(TokenId id) const {
  FATHOM_CHECK(id >= 0 && id < vocab_size(), "token {} of {}", id, vocab_size());
  const int32_t added = impl_->added_index[id];
  if (added >= 0) return impl_->added_bytes[added];
  return id < impl_->bpe_size ? impl_->bpe.TokenBytes(id) : std::string_view();
}

bool Tokenizer::IsSpecial(TokenId id) const {
  if (id < 0 || id >= vocab_size()) return false;
  const int32_t added = impl_->added_index[id];
  return added >= 0 && impl_->added_tokens[added].special;
}

std::optional<TokenId> Tokenizer::FindToken(std::string_view token) const {
  return impl_->Find(token);
}

int32_t Tokenizer::vocab_size() const { return static_cast<int32_t>(impl_->added_index.size()); }
std::optional<TokenId> Tokenizer::bos_id() const { return impl_->bos_id; }
std::optional<TokenId> Tokenizer::eos_id() const { return impl_->eos_id; }
const std::string& Tokenizer::bos_token() const { return impl_->bos_token; }
const std::string& Tokenizer::eos_token() const { return impl_->eos_token; }
const std::vector<AddedToken>& Tokenizer::added_tokens() const { return impl_->added_tokens; }
bool Tokenizer::strips_first_space() const {
  return impl_->characters && impl_->characters->strips_first_space;
}

}  // namespace fathom
