// text/added_tokens.h: finds added tokens in a text.
// At each place the longest token that is text or touches no literal span; from left to right,
// without overlap. Thread: constant after construction.
#pragma once

#include <array>
#include <cstdint>
#include <span>
#include <string_view>
#include <vector>

#include "text/byte_trie.h"
#include "text/tokenizer.h"

namespace fathom::router {

class AddedTokenMatcher {
 public:
  // A token (id >= 0) or a stretch of text (id < 0).
  struct Piece {
    ByteSpan span;
    TokenId id = -1;
  };

  // REQUIRES: contents are distinct and not empty.
  explicit AddedTokenMatcher(std::vector<AddedToken> tokens);

  bool empty() const { return tokens_.empty(); }
  // Appends all of `text` in pieces, none empty. REQUIRES: `text` is UTF-8; spans ascending,
  // disjoint.
  void Split(std::string_view text, std::span<const ByteSpan> literal_spans,
             std::vector<Piece>* pieces) const;

 private:
  // Length and index of the longest token that `text` begins with and that is text or ends within
  // `markup_bytes`; index -1 if there is none.
  struct Hit {
    size_t bytes = 0;
    int32_t token = -1;
  };
  Hit Longest(std::string_view text, size_t markup_bytes) const;

  std::vector<AddedToken> tokens_;
  std::vector<bool> is_text_;  // By index in tokens_.
  ByteTrie trie_;              // Of contents; values are indices in tokens_.
  std::array<bool, 256> begins_{};
};

}  // namespace fathom::router
