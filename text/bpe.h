// text/bpe.h: BPE of one word.
// Starts from the word's bytes (or characters) and joins, again and again, the leftmost of the
// pairs with the lowest rank. Words that are one token after all are looked up instead (decided
// once, at construction). Thread: constant after construction.
#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/container/flat_hash_set.h"
#include "common/types.h"

namespace fathom::router {

struct BpeMerge {
  TokenId left = 0;
  TokenId right = 0;
  TokenId merged = 0;
};

struct BpeSpec {
  // Bytes of each token, by id; empty for ids that are not used.
  std::vector<std::string> tokens;
  // Tokens that are no sequence of the alphabet's characters: decoded, never made from bytes.
  absl::flat_hash_set<TokenId> foreign;
  std::array<TokenId, 256> byte_tokens{};  // -1 for bytes that are in no UTF-8 text.
  // Tokens of one character. If there are any, a word starts from its characters' tokens, and from
  // byte_tokens where a character has none; else from byte_tokens alone.
  absl::flat_hash_map<char32_t, TokenId> characters;
  std::vector<BpeMerge> merges;  // The first has the lowest rank. Of equal pairs the last counts.
  bool ignore_merges = false;    // A word that is a token becomes that token, merges or not.
};

class Bpe {
 public:
  explicit Bpe(BpeSpec spec);

  // Appends the tokens of `word`. O(bytes) for words that are tokens, else O(bytes * log(bytes)).
  // REQUIRES: every byte of the word has a token; a word has less than 2^31 bytes.
  void Encode(std::string_view word, std::vector<TokenId>* ids) const;

  // Whether Encode may give the token.
  bool MadeFromBytes(TokenId id) const { return !foreign_.contains(id); }
  std::string_view TokenBytes(TokenId id) const { return tokens_[id]; }
  // The token of these bytes, among the foreign ones or the others. Looks at all of them.
  std::optional<TokenId> FindToken(std::string_view bytes, bool foreign) const;

 private:
  // A hash table with open addressing; neither key nor value changes after construction.
  struct Merged {
    uint32_t rank;
    TokenId id;
  };
  struct PairSlot {
    uint64_t key;
    Merged value;
  };
  static constexpr uint32_t kNone = UINT32_MAX;  // No merge, worse than any rank.

  void BuildPairs(const std::vector<BpeMerge>& merges);
  void BuildWords(bool all);
  Merged Find(TokenId left, TokenId right) const;
  TokenId FindWord(std::string_view word) const;
  class LongMerger;
  // The tokens that merging starts from; at most one for each byte.
  template <class Take>
  void ForEachSymbol(std::string_view word, const Take& take) const;
  void MergeShort(std::string_view word, std::vector<TokenId>* ids) const;
  void MergeLong(std::string_view word, std::vector<TokenId>* ids) const;

  std::vector<std::string> tokens_;
  absl::flat_hash_set<TokenId> foreign_;
  std::array<TokenId, 256> byte_tokens_;
  absl::flat_hash_map<char32_t, TokenId> characters_;
  std::vector<PairSlot> pairs_;  // A power of two of them, at most half full.
  std::vector<TokenId> words_;   // Likewise: ids of tokens that their own bytes make; -1: free.
};

}  // namespace fathom::router
