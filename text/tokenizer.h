// text/tokenizer.h: converts text to token ids and back, as a Hugging Face tokenizer.json describes
// it: BPE (byte-level, or of characters with byte fallback) with the pre-tokenizers, normalizer,
// added tokens and post-processors of published DeepSeek-family tokenizers. Every key of
// tokenizer.json is used or refused by name at load. Thread: constant after Load; any number of
// threads may call the methods. Pure: the same text and options give the same ids. There are two
// differences from other implementations. Character classes are those of Unicode 14 (PCRE2 10.42),
// where others may have a newer table. `clean_up_tokenization_spaces` of tokenizer_config.json is
// ignored, so the text is what the model wrote.
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

namespace fathom {

// A token that is searched in the text before all other processing.
struct AddedToken {
  TokenId id = 0;
  std::string content;
  bool single_word = false;  // Only matched where no word character is next to it.
  bool lstrip = false;       // Also removes the white space before it.
  bool rstrip = false;       // Also removes the white space after it.
  bool normalized = false;   // Searched in the normalized text.
  bool special = false;      // Left out if skip_special is set.

  // Whether the token is text and not markup, for example a letter that the vocabulary lacked. Such
  // a token is also matched in literal spans. `special` does not decide this (<think> is not
  // special), but the spelling does: text has no ASCII punctuation and neither of the two
  // characters that markers of this family contain, U+FF5C and U+2581.
  bool IsText() const;
};

struct EncodeOptions {
  // Added tokens ("<think>") in the text become their ids. False: all of the text is literal.
  bool parse_special = true;
  // Adds BOS (and EOS) if add_bos_token (add_eos_token) of tokenizer_config.json says so or, if it
  // is absent, the post-processor.
  bool add_special_tokens = false;
  // Bytes in which no added token is matched, not even partly, except tokens that are text
  // (IsText). Otherwise these bytes are encoded together with their neighbours. REQUIRES:
  // ascending, disjoint, within the text.
  std::span<const ByteSpan> literal_spans = {};
  // Called now and then (about every ten thousand bytes). If it returns true, Encode returns
  // CANCELLED.
  CancelFn cancelled = {};
};

class Tokenizer {
 public:
  // Reads folder/tokenizer.json and, if it exists, folder/tokenizer_config.json. An error names the
  // file, the key, the value and the supported values. NOT_FOUND: there is no tokenizer.json.
  static absl::StatusOr<std::unique_ptr<Tokenizer>> Load(const std::string& folder);
  ~Tokenizer();
  Tokenizer(const Tokenizer&) = delete;
  Tokenizer& operator=(const Tokenizer&) = delete;

  // INVALID_ARGUMENT, with the byte offset, if `text` is not UTF-8. O(n log n) for any text, if the
  // tokenizer's own pattern is linear. REQUIRES: less than 2 GiB.
  absl::StatusOr<std::vector<TokenId>> Encode(std::string_view text,
                                              const EncodeOptions& options = {}) const;

  // A lower bound of the number of tokens that Encode gives. It reads the text once and does not
  // tokenize it, so a text that can never fit is refused cheaply.
  int64_t MinTokens(std::string_view text) const;

  // The bytes of all ids as UTF-8, with one U+FFFD for each maximal invalid part. INVALID_ARGUMENT
  // names an id that is out of range. Ids within vocab_size without a token (padding of the
  // vocabulary) add nothing.
  absl::StatusOr<std::string> Decode(std::span<const TokenId> ids, bool skip_special) const;

  // The bytes of one token, which need not be UTF-8. Empty for an id without a token. REQUIRES: 0
  // <= id < vocab_size.
  std::string_view TokenBytes(TokenId id) const;
  // Whether skip_special leaves the token out (`special` of added_tokens). False for ids out of
  // range.
  bool IsSpecial(TokenId id) const;
  // Finds an added token by its text, or a token of the vocabulary by its spelling in
  // tokenizer.json.
  std::optional<TokenId> FindToken(std::string_view token) const;

  // The highest id + 1, added tokens included. A model's embedding may have more rows.
  int32_t vocab_size() const;
  // From tokenizer_config.json's bos_token and eos_token.
  std::optional<TokenId> bos_id() const;
  std::optional<TokenId> eos_id() const;
  // All of added_tokens, ascending by id.
  const std::vector<AddedToken>& added_tokens() const;
  // Whether decoding removes a space at the start of a text (vocabularies of characters, which add
  // one before each text).
  bool strips_first_space() const;
  // The texts of the tokens; empty if there is none.
  const std::string& bos_token() const;
  const std::string& eos_token() const;

 private:
  struct Impl;
  explicit Tokenizer(std::unique_ptr<const Impl> impl);
  std::unique_ptr<const Impl> impl_;
};

}  // namespace fathom
