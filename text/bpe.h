// text/bpe.h: BPE of one word. It starts from the bytes (or characters) of the word. Repeatedly,
// among the pairs with the lowest rank, it joins the leftmost one. A word that is a single token is
// found by a table, which is built once at construction. Thread: constant after construction.
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

namespace fathom {

struct BpeMerge {
  TokenId left = 0;
  TokenId right = 0;
  TokenId merged = 0;
};

struct BpeSpec {
  // Bytes of each token, by id; empty for ids that are not used.
  std::vector<std::string> tokens;
  // Tokens that are not made of the alphabet's characters: they are decoded, but never made from
  // bytes.
  absl::flat_hash_set<TokenId> foreign;
  std::array<TokenId, 256> byte_tokens{};  // -1 for bytes that occur in no UTF-8 text.
  // Tokens of one character. If there are any, a word starts from the tokens of its characters, and
  // from byte_tokens for a character without a token; otherwise it starts from byte_tokens alone.
  absl::flat_hash_map<char32_t, TokenId> characters;
  // The first has the lowest rank. Of equal pairs the last one counts.
  std::vector<BpeMerge> merges;
  bool ignore_merges = false;  // A word that is a token becomes that token without merging.
};

class Bpe {
 public:
  explicit Bpe(BpeSpec spec);

  // Appends the tokens of `word`. O(bytes) for words that are tokens, else O(bytes * log(bytes)).
  // REQUIRES: every byte of the word has a token; a word has less than 2^31 bytes.
  void Encode(std::string_view word, std::vector<TokenId>* ids) const;

  // Whether Encode can produce the token.
  bool MadeFromBytes(TokenId id) const { return !foreign_.contains(id); }
  std::string_view TokenBytes(TokenId id) const { return tokens_[id]; }
  // Finds the token with these bytes, among the foreign tokens or among the others, by a linear
  // search.
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
  static constexpr uint32_t kNone = UINT32_MAX;  // No merge; larger than any rank.

  void BuildPairs(const std::vector<BpeMerge>& merges);
  void BuildWords(bool all);
  Merged Find(TokenId left, TokenId right) const;
  TokenId FindWord(std::string_view word) const;
  class LongMerger;
  // Calls `take` for the tokens from which merging starts; at most one for each byte.
  template <class Take>
  void ForEachSymbol(std::string_view word, const Take& take) const;
  void MergeShort(std::string_view word, std::vector<TokenId>* ids) const;
  void MergeLong(std::string_view word, std::vector<TokenId>* ids) const;

  std::vector<std::string> tokens_;
  absl::flat_hash_set<TokenId> foreign_;
  std::array<TokenId, 256> byte_tokens_;
  absl::flat_hash_map<char32_t, TokenId> characters_;
  std::vector<PairSlot> pairs_;  // The size is a power of two; at most half full.
  // A hash table too: ids of tokens that their own bytes make; -1: free.
  std::vector<TokenId> words_;
};

}  // namespace fathom
