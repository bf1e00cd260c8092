// text/added_tokens.h: finds added tokens in a text, from left to right and without overlap. At
// each offset it takes the longest token that touches no literal span or that IsText. Thread:
// constant after construction.
#pragma once

#include <array>
#include <cstdint>
#include <span>
#include <string_view>
#include <vector>

#include "text/byte_trie.h"
#include "text/tokenizer.h"

namespace fathom {

class AddedTokenMatcher {
 public:
  // A token (id >= 0) or text between tokens (id < 0).
  struct Piece {
    ByteSpan span;
    TokenId id = -1;
  };

  // REQUIRES: the contents are distinct and not empty.
  explicit AddedTokenMatcher(std::vector<AddedToken> tokens);

  bool empty() const { return tokens_.empty(); }
  // Appends all of `text` as pieces, none of them empty. REQUIRES: `text` is UTF-8; the spans are
  // ascending and disjoint.
  void Split(std::string_view text, std::span<const ByteSpan> literal_spans,
             std::vector<Piece>* pieces) const;

 private:
  // Length and index of the longest token at the start of `text` that IsText or ends within
  // `markup_bytes`; index -1: none.
  struct Hit {
    size_t bytes = 0;
    int32_t token = -1;
  };
  Hit Longest(std::string_view text, size_t markup_bytes) const;

  std::vector<AddedToken> tokens_;
  std::vector<bool> is_text_;  // By index in tokens_.
  ByteTrie trie_;              // Maps contents to indices in tokens_.
  std::array<bool, 256> begins_{};
};

}  // namespace fathom
