// text/tokenizer.h: text to token ids and back, as a Hugging Face tokenizer.json says.
// BPE, byte-level or of characters with byte fallback, with the pre-tokenizers, normalizer, added
// tokens and post-processors that published DeepSeek-family tokenizers use. Every key of
// tokenizer.json is honoured or refused by name at load. Thread: constant after Load; every method
// may be called by any number of threads at once. Pure: the same text and options give the same
// ids. Differences: character classes are Unicode 14 (PCRE2 10.42), where others may have a newer
// table. `clean_up_tokenization_spaces` of tokenizer_config.json is not applied: text is what the
// model wrote.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"
#include "common/byte_span.h"
#include "common/cancel.h"
#include "common/types.h"

namespace fathom::router {

// A token that is found in the text as a whole, before anything else looks at it.
struct AddedToken {
  TokenId id = 0;
  std::string content;
  bool single_word = false;  // Only between characters that belong to no word.
  bool lstrip = false;       // Takes the white space before it along.
  bool rstrip = false;       // Takes the white space after it along.
  bool normalized = false;   // Looked for in the normalized text.
  bool special = false;      // Left out by skip_special.

  // Whether it is text and no markup: a letter that the vocabulary lacked, say. Such a token is
  // found in literal spans too, as everywhere. `special` alone does not tell (<think> is not
  // special), but its spelling does: text has neither ASCII punctuation nor one of the two that
  // markers of this family are made with, U+FF5C and U+2581.
  bool IsText() const;
};

struct EncodeOptions {
  // Added tokens ("<think>") in the text become their ids; else all of the text is literal.
  bool parse_special = true;
  // BOS (and EOS) where add_bos_token (add_eos_token) of tokenizer_config.json or, where it is
  // absent, the post-processor asks for it.
  bool add_special_tokens = false;
  // Where no added token is matched, not even in part, but for those that are text (IsText);
  // otherwise these bytes are encoded together with their neighbours. REQUIRES: ascending,
  // disjoint, within the text.
  std::span<const ByteSpan> literal_spans = {};
  // Asked now and then (some ten thousand bytes apart); when true, Encode gives up: CANCELLED.
  CancelFn cancelled = {};
};

class Tokenizer {
 public:
  // Reads folder/tokenizer.json and, where it is there, folder/tokenizer_config.json. An error
  // names file, key and value, and what would be understood; NOT_FOUND if tokenizer.json does not
  // exist.
  static absl::StatusOr<std::unique_ptr<Tokenizer>> Load(const std::string& folder);
  ~Tokenizer();
  Tokenizer(const Tokenizer&) = delete;
  Tokenizer& operator=(const Tokenizer&) = delete;

  // INVALID_ARGUMENT if `text` is not UTF-8 (names the byte offset). O(n log n) for any text, where
  // the tokenizer's own pattern is linear. REQUIRES: less than 2 GiB.
  absl::StatusOr<std::vector<TokenId>> Encode(std::string_view text,
                                              const EncodeOptions& options = {}) const;

  // How many tokens Encode gives at least; reads the text once and tokenizes nothing, so that a
  // text that can never fit is refused at little cost.
  int64_t MinTokens(std::string_view text) const;

  // The bytes of all ids together as UTF-8, each maximal invalid part as U+FFFD. INVALID_ARGUMENT
  // names an id that is out of range. Ids within vocab_size that no token has (padding of the
  // vocabulary) give nothing.
  absl::StatusOr<std::string> Decode(std::span<const TokenId> ids, bool skip_special) const;

  // One token's bytes, not UTF-8 by themselves. Empty for ids that no token has. REQUIRES: 0 <= id
  // < vocab_size.
  std::string_view TokenBytes(TokenId id) const;
  // Whether skip_special leaves the token out (`special` of added_tokens). False for ids out of
  // range.
  bool IsSpecial(TokenId id) const;
  // An added token by its text, or a token of the vocabulary as tokenizer.json spells it.
  std::optional<TokenId> FindToken(std::string_view token) const;

  // Highest id + 1, added tokens included. A model's embedding may have more rows.
  int32_t vocab_size() const;
  // From tokenizer_config.json's bos_token and eos_token.
  std::optional<TokenId> bos_id() const;
  std::optional<TokenId> eos_id() const;
  // All of added_tokens, ascending by id.
  const std::vector<AddedToken>& added_tokens() const;
  // Whether a decoded text loses the space that it begins with (vocabularies of characters, which
  // put one before each text).
  bool strips_first_space() const;
  // The strings themselves; empty where there is none.
  const std::string& bos_token() const;
  const std::string& eos_token() const;

 private:
  struct Impl;
  explicit Tokenizer(std::unique_ptr<const Impl> impl);
  std::unique_ptr<const Impl> impl_;
};

}  // namespace fathom::router
