#include "text/bpe.h"

#include <bit>
#include <cstring>
#include <queue>
#include <utility>

#include "common/check.h"

namespace fathom::router {
namespace {

constexpr size_t kShortBytes = 48;
constexpr uint64_t kFreeKey = UINT64_MAX;

uint64_t PairKey(TokenId left, TokenId right) {
  return (static_cast<uint64_t>(static_cast<uint32_t>(left)) << 32) | static_cast<uint32_t>(right);
}

uint64_t Mix(uint64_t x) {
  x *= 0x9E3779B97F4A7C15ull;
  return x ^ (x >> 29);
}

uint64_t HashWord(std::string_view word) {
  uint64_t hash = word.size();
  size_t i = 0;
  for (; i + 8 <= word.size(); i += 8) {
    uint64_t part;
    std::memcpy(&part, word.data() + i, 8);
    hash = Mix(hash ^ part);
  }
  uint64_t part = 0;
  if (i < word.size()) std::memcpy(&part, word.data() + i, word.size() - i);
  return Mix(Mix(hash ^ part));
}

size_t TableSize(size_t entries) { return std::bit_ceil(entries * 2 + 2); }

}  // namespace

Bpe::Bpe(BpeSpec spec)
    : tokens_(std::move(spec.tokens)),
      foreign_(std::move(spec.foreign)),
      byte_tokens_(spec.byte_tokens) {
  BuildPairs(spec.merges);
  BuildWords(spec.ignore_merges);
}

void Bpe::BuildPairs(const std::vector<BpeMerge>& merges) {
  pairs_.assign(TableSize(merges.size()), {kFreeKey, {kNone, -1}});
  const size_t mask = pairs_.size() - 1;
  for (size_t rank = 0; rank < merges.size(); ++rank) {
    const uint64_t key = PairKey(merges[rank].left, merges[rank].right);
    size_t slot = Mix(key) & mask;
    while (pairs_[slot].key != kFreeKey && pairs_[slot].key != key) slot = (slot + 1) & mask;
    pairs_[slot] = {key, {static_cast<uint32_t>(rank), merges[rank].merged}};
  }
}

// A token is a word of its own if BPE of its bytes gives just it (or always, with ignore_merges).
void Bpe::BuildWords(bool all) {
  words_.assign(TableSize(tokens_.size()), -1);
  const size_t mask = words_.size() - 1;
  std::vector<TokenId> ids;
  for (size_t id = 0; id < tokens_.size(); ++id) {
    const std::string& bytes = tokens_[id];
    if (bytes.size() < 2 || foreign_.contains(static_cast<TokenId>(id))) continue;
    if (!all) {
      ids.clear();
      bytes.size() <= kShortBytes ? MergeShort(bytes, &ids) : MergeLong(bytes, &ids);
      if (ids.size() != 1 || ids[0] != static_cast<TokenId>(id)) continue;
    }
    size_t slot = HashWord(bytes) & mask;
    while (words_[slot] >= 0) slot = (slot + 1) & mask;
    words_[slot] = static_cast<TokenId>(id);
  }
}

Bpe::Merged Bpe::Find(TokenId left, TokenId right) const {
  const uint64_t key = PairKey(left, right);
  const size_t mask = pairs_.size() - 1;
  size_t slot = Mix(key) & mask;
  while (pairs_[slot].key != key) {
    if (pairs_[slot].key == kFreeKey) return {kNone, -1};
    slot = (slot + 1) & mask;
  }
  return pairs_[slot].value;
}

TokenId Bpe::FindWord(std::string_view word) const {
  const size_t mask = words_.size() - 1;
  for (size_t slot = HashWord(word) & mask; words_[slot] >= 0; slot = (slot + 1) & mask) {
    if (tokens_[words_[slot]] == word) return words_[slot];
  }
  return -1;
}

std::optional<TokenId> Bpe::FindToken(std::string_view bytes, bool foreign) const {
  if (bytes.empty()) return std::nullopt;
  for (size_t i = 0; i < tokens_.size(); ++i) {
    const auto id = static_cast<TokenId>(i);
    if (tokens_[i] == bytes && foreign_.contains(id) == foreign) return id;
  }
  return std::nullopt;
}

void Bpe::Encode(std::string_view word, std::vector<TokenId>* ids) const {
  if (word.size() == 1) {
    ids->push_back(byte_tokens_[static_cast<uint8_t>(word.front())]);
  } else if (const TokenId id = FindWord(word); id >= 0) {
    ids->push_back(id);
  } else if (word.size() <= kShortBytes) {
    MergeShort(word, ids);
  } else {
    MergeLong(word, ids);
  }
}

// Quadratic, but in a few cache lines.
void Bpe::MergeShort(std::string_view word, std::vector<TokenId>* ids) const {
  TokenId parts[kShortBytes];
  Merged merges[kShortBytes];  // Of parts i and i + 1.
  size_t count = word.size();
  for (size_t i = 0; i < count; ++i) parts[i] = byte_tokens_[static_cast<uint8_t>(word[i])];
  for (size_t i = 0; i + 1 < count; ++i) merges[i] = Find(parts[i], parts[i + 1]);
  while (count > 1) {
    size_t best = 0;
    for (size_t i = 1; i + 1 < count; ++i) {
      if (merges[i].rank < merges[best].rank) best = i;
    }
    if (merges[best].rank == kNone) break;
    parts[best] = merges[best].id;
    --count;
    for (size_t i = best + 1; i < count; ++i) parts[i] = parts[i + 1];
    for (size_t i = best + 1; i + 1 < count; ++i) merges[i] = merges[i + 1];
    if (best > 0) merges[best - 1] = Find(parts[best - 1], parts[best]);
    if (best + 1 < count) merges[best] = Find(parts[best], parts[best + 1]);
  }
  ids->insert(ids->end(), parts, parts + count);
}

// A list of parts and a queue of candidates; a candidate that its pair has outlived is passed over.
void Bpe::MergeLong(std::string_view word, std::vector<TokenId>* ids) const {
  struct PartNode {
    TokenId id;
    int64_t previous, next;  // -1: none.
  };
  struct Candidate {
    Merged merge;
    int64_t at;
    TokenId left, right;
    bool operator<(const Candidate& other) const {  // The queue gives the greatest first.
      return std::pair(merge.rank, at) > std::pair(other.merge.rank, other.at);
    }
  };
  const auto count = static_cast<int64_t>(word.size());
  std::vector<PartNode> parts(word.size());
  std::priority_queue<Candidate> queue;
  const auto offer = [&](int64_t at) {
    if (at < 0 || parts[at].next < 0) return;
    const TokenId left = parts[at].id, right = parts[parts[at].next].id;
    const Merged merge = Find(left, right);
    if (merge.rank != kNone) queue.push({merge, at, left, right});
  };
  for (int64_t i = 0; i < count; ++i) {
    parts[i] = {byte_tokens_[static_cast<uint8_t>(word[i])], i - 1, i + 1 < count ? i + 1 : -1};
  }
  for (int64_t i = 0; i < count; ++i) offer(i);
  while (!queue.empty()) {
    const Candidate top = queue.top();
    queue.pop();
    PartNode& part = parts[top.at];
    if (part.id != top.left || part.next < 0 || parts[part.next].id != top.right) continue;
    PartNode& dropped = parts[part.next];
    part.id = top.merge.id;
    dropped.id = -1;
    part.next = dropped.next;
    if (part.next >= 0) parts[part.next].previous = top.at;
    offer(part.previous);
    offer(top.at);
  }
  for (int64_t at = 0; at >= 0; at = parts[at].next) ids->push_back(parts[at].id);
}

}  // namespace fathom::router
