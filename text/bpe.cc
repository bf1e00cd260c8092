#include "text/bpe.h"

#include <algorithm>
#include <bit>
#include <cstring>
#include <functional>
#include <queue>
#include <utility>

#include "absl/container/flat_hash_map.h"
#include "common/check.h"
#include "common/utf8.h"

namespace fathom {
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
      byte_tokens_(spec.byte_tokens),
      characters_(std::move(spec.characters)) {
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

// A token is a word of its own if BPE of its bytes gives exactly this token (with ignore_merges:
// always).
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
  if (word.size() == 1 && characters_.empty()) {
    ids->push_back(byte_tokens_[static_cast<uint8_t>(word.front())]);
  } else if (const TokenId id = FindWord(word); id >= 0) {
    ids->push_back(id);
  } else if (word.size() <= kShortBytes) {
    MergeShort(word, ids);
  } else {
    MergeLong(word, ids);
  }
}

template <class Take>
void Bpe::ForEachSymbol(std::string_view word, const Take& take) const {
  for (size_t at = 0; at < word.size();) {
    size_t bytes = 1;
    if (!characters_.empty()) {
      const Utf8Step step = ScanUtf8(word.substr(at));
      bytes = step.bytes;
      const auto found = characters_.find(step.code_point);
      if (step.kind == Utf8Step::kCharacter && found != characters_.end()) {
        take(found->second);
        at += bytes;
        continue;
      }
    }
    for (; bytes > 0; --bytes) take(byte_tokens_[static_cast<uint8_t>(word[at++])]);
  }
}

// Quadratic, but all data is in a few cache lines.
void Bpe::MergeShort(std::string_view word, std::vector<TokenId>* ids) const {
  TokenId parts[kShortBytes];
  Merged merges[kShortBytes];  // Merge i joins parts i and i + 1.
  size_t count = 0;
  ForEachSymbol(word, [&](TokenId id) { parts[count++] = id; });
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

// Merges a long word. Every possible merge has a bucket of the offsets where it may apply, in
// order. The bucket of the lowest rank is emptied first. So an offset costs one push to a vector. A
// single priority queue of all offsets would cost a logarithm of the word's length for each (a run
// of a million spaces has three million offsets for a handful of merges).
class Bpe::LongMerger {
 public:
  LongMerger(const Bpe& bpe, std::string_view word) : bpe_(bpe) {
    parts_.reserve(word.size());
    bpe.ForEachSymbol(word, [this](TokenId id) {
      const auto i = static_cast<int32_t>(parts_.size());
      parts_.push_back({id, i - 1, i + 1});
    });
    if (!parts_.empty()) parts_.back().next = -1;
    const auto count = static_cast<int32_t>(parts_.size());
    for (int32_t i = 0; i < count; ++i) Offer(i);
  }

  void Run(std::vector<TokenId>* ids) {
    while (!ranks_.empty()) {
      Bucket& bucket = buckets_[ranks_.top().second];
      if (bucket.places.empty()) {
        bucket.queued = false;
        ranks_.pop();
        continue;
      }
      Merge(bucket.left, bucket.right, bucket.merged, bucket.Take());
    }
    for (int32_t at = 0; at >= 0; at = parts_[at].next) ids->push_back(parts_[at].id);
  }

 private:
  struct PartNode {
    TokenId id;
    int32_t previous, next;  // -1: none.
  };
  // One merge and its offsets. They are normally added in ascending order. If a merge makes a merge
  // of lower rank possible, they are not, and the vector becomes a heap.
  struct Bucket {
    TokenId left, right, merged;
    std::vector<int32_t> places;
    size_t taken = 0;
    bool heap = false;
    bool queued = false;

    void Push(int32_t at) {
      if (!heap && !places.empty() && at < places.back()) {
        places.erase(places.begin(), places.begin() + static_cast<ptrdiff_t>(taken));
        taken = 0;
        heap = true;
        std::make_heap(places.begin(), places.end(), std::greater<>());
      }
      places.push_back(at);
      if (heap) std::push_heap(places.begin(), places.end(), std::greater<>());
    }
    // Removes and returns the lowest offset. REQUIRES: there is one.
    int32_t Take() {
      int32_t at = 0;
      if (heap) {
        std::pop_heap(places.begin(), places.end(), std::greater<>());
        at = places.back();
        places.pop_back();
      } else {
        at = places[taken++];
        if (taken < places.size()) return at;
        places.clear();
        taken = 0;
      }
      heap = heap && !places.empty();
      return at;
    }
  };

  // Records that the part at `at` can be merged with the next part.
  void Offer(int32_t at) {
    if (at < 0 || parts_[at].next < 0) return;
    const TokenId left = parts_[at].id, right = parts_[parts_[at].next].id;
    const Merged merge = bpe_.Find(left, right);
    if (merge.rank == kNone) return;
    const auto [found, fresh] =
        by_rank_.try_emplace(merge.rank, static_cast<int32_t>(buckets_.size()));
    if (fresh) buckets_.push_back({left, right, merge.id, {}});
    Bucket& bucket = buckets_[found->second];
    bucket.Push(at);
    if (!std::exchange(bucket.queued, true)) ranks_.emplace(merge.rank, found->second);
  }

  // Does nothing at an offset whose pair no longer exists.
  void Merge(TokenId left, TokenId right, TokenId merged, int32_t at) {
    PartNode& part = parts_[at];
    if (part.id != left || part.next < 0 || parts_[part.next].id != right) return;
    PartNode& dropped = parts_[part.next];
    part.id = merged;
    dropped.id = -1;
    part.next = dropped.next;
    if (part.next >= 0) parts_[part.next].previous = at;
    Offer(part.previous);
    Offer(at);
  }

  const Bpe& bpe_;
  std::vector<PartNode> parts_;
  std::vector<Bucket> buckets_;
  absl::flat_hash_map<uint32_t, int32_t> by_rank_;
  using RankedBucket = std::pair<uint32_t, int32_t>;
  std::priority_queue<RankedBucket, std::vector<RankedBucket>, std::greater<>> ranks_;
};

void Bpe::MergeLong(std::string_view word, std::vector<TokenId>* ids) const {
  LongMerger(*this, word).Run(ids);
}

}  // namespace fathom
