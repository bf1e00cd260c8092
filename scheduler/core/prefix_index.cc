#include "scheduler/core/prefix_index.h"

#include <algorithm>
#include <bit>

#include "common/check.h"

namespace fathom::scheduler {
namespace {

// The most entries of a bucket. A client that knows the hash could send texts that all have the
// same one; this limit keeps each search short. A text that finds its bucket full is not indexed.
constexpr int32_t kBucketMax = 32;

uint64_t MixHash(uint64_t hash, uint64_t value) {
  hash = (hash ^ value) * 0x9E3779B97F4A7C15u;
  return hash ^ (hash >> 29);
}

uint64_t HashOfScope(std::string_view scope) {
  uint64_t hash = 0x2545F4914F6CDD1Du;
  for (const char c : scope) hash = MixHash(hash, static_cast<unsigned char>(c));
  return MixHash(hash, scope.size());
}

uint64_t HashOfBlock(uint64_t before, std::span<const TokenId> tokens) {
  const auto word = [&](size_t i) {
    return static_cast<uint64_t>(static_cast<uint32_t>(tokens[i]));
  };
  uint64_t hash = before;
  size_t i = 0;
  for (; i + 1 < tokens.size(); i += 2) hash = MixHash(hash, word(i) | word(i + 1) << 32);
  return i < tokens.size() ? MixHash(hash, word(i)) : hash;
}

}  // namespace

std::span<const TokenId> SequenceTokens::Slice(int32_t begin, int32_t count,
                                               std::vector<TokenId>* scratch) const {
  const auto from = static_cast<size_t>(begin), length = static_cast<size_t>(count);
  if (from + length <= prompt.size()) return prompt.subspan(from, length);
  if (from >= prompt.size()) return generated.subspan(from - prompt.size(), length);
  scratch->assign(prompt.begin() + begin, prompt.end());
  const auto rest = generated.first(length - scratch->size());
  scratch->insert(scratch->end(), rest.begin(), rest.end());
  return *scratch;
}

void ExtendHashes(std::string_view scope, const SequenceTokens& tokens, int32_t block_tokens,
                  std::vector<uint64_t>* hashes) {
  std::vector<TokenId> scratch;
  const auto blocks = static_cast<size_t>(tokens.size() / block_tokens);
  if (hashes->size() >= blocks) return;
  uint64_t hash = hashes->empty() ? HashOfScope(scope) : hashes->back();
  hashes->reserve(blocks);
  while (hashes->size() < blocks) {
    const auto begin = static_cast<int32_t>(hashes->size()) * block_tokens;
    hash = HashOfBlock(hash, tokens.Slice(begin, block_tokens, &scratch));
    hashes->push_back(hash);
  }
}

PrefixIndex::PrefixIndex(int32_t pool_blocks, int32_t block_tokens)
    : block_tokens_(block_tokens),
      entries_(static_cast<size_t>(pool_blocks)),
      heads_(std::bit_ceil(static_cast<size_t>(pool_blocks))),
      tokens_(std::make_unique_for_overwrite<TokenId[]>(static_cast<size_t>(pool_blocks) *
                                                        static_cast<size_t>(block_tokens))) {
  FATHOM_CHECK(pool_blocks >= 1 && block_tokens >= 1);
}

std::span<TokenId> PrefixIndex::TokensOf(BlockId block) const {
  const auto width = static_cast<size_t>(block_tokens_);
  return {tokens_.get() + static_cast<size_t>(block.value) * width, width};
}

BlockId PrefixIndex::Search(uint64_t parent, uint64_t hash, std::span<const TokenId> tokens,
                            int32_t* probes) const {
  *probes = 0;
  for (BlockId block{heads_[Bucket(hash)]}; block.value != 0; block.value = At(block).next) {
    ++*probes;
    const Entry& entry = At(block);
    if (entry.hash == hash && entry.parent == parent && std::ranges::equal(TokensOf(block), tokens))
      return block;
  }
  return BlockId{};
}

PrefixIndex::Match PrefixIndex::Find(std::string_view scope, const SequenceTokens& tokens,
                                     std::span<const uint64_t> hashes, int32_t blocks_max,
                                     StateKinds kinds) const {
  Match match;
  const auto root = roots_.find(scope);
  if (root == roots_.end()) return match;
  size_t usable = 0;
  uint64_t parent = root->second.serial;
  for (int32_t i = 0; i < blocks_max; ++i) {
    int32_t probes = 0;
    const BlockId block =
        Search(parent, hashes[static_cast<size_t>(i)],
               tokens.Slice(i * block_tokens_, block_tokens_, &scratch_), &probes);
    if (block.value == 0) break;
    parent = At(block).serial;
    match.blocks.push_back(block);
    if ((At(block).kinds & kinds) != kinds) continue;
    usable = match.blocks.size();
    match.last = {block, parent};
  }
  match.blocks.resize(usable);
  return match;
}

PrefixIndex::Place PrefixIndex::FindOrAdd(std::string_view scope, const Place& at,
                                          const SequenceTokens& tokens,
                                          std::span<const uint64_t> hashes, int32_t index,
                                          BlockId block, bool* added) {
  *added = false;
  FATHOM_CHECK(block.value == 0 || !Has(block), "block {} has an entry", block.value);
  if (index > 0 && At(at.block).serial != at.serial) return {};
  const auto root = index == 0 ? roots_.find(scope) : roots_.end();
  const bool new_root = index == 0 && root == roots_.end();
  // No entry has the parent 0, so the search for a new root only counts the bucket.
  uint64_t parent = index > 0 ? at.serial : new_root ? 0 : root->second.serial;
  const uint64_t hash = hashes[static_cast<size_t>(index)];
  const std::span<const TokenId> own =
      tokens.Slice(index * block_tokens_, block_tokens_, &scratch_);
  int32_t probes = 0;
  const BlockId found = Search(parent, hash, own, &probes);
  if (found.value != 0) return {found, At(found).serial};
  if (block.value == 0 || probes >= kBucketMax) return {};
  if (new_root) {
    parent = next_serial_++;
    root_of_.emplace(parent, roots_.emplace(scope, Root{parent, 1}).first);
  } else if (index == 0) {
    ++root->second.children;
  }
  Entry& entry = At(block);
  int32_t& head = heads_[Bucket(hash)];
  entry = {next_serial_++, parent, hash, head, kTokenState};
  head = block.value;
  std::ranges::copy(own, TokensOf(block).begin());
  ++size_;
  *added = true;
  return {block, entry.serial};
}

void PrefixIndex::AddKinds(BlockId block, StateKinds kinds) {
  FATHOM_CHECK(Has(block), "block {} has no entry", block.value);
  At(block).kinds = static_cast<StateKinds>(At(block).kinds | kinds);
}

void PrefixIndex::Erase(BlockId block) {
  FATHOM_CHECK(Has(block), "block {} has no entry", block.value);
  Entry& entry = At(block);
  int32_t* link = &heads_[Bucket(entry.hash)];
  while (*link != block.value) link = &At(BlockId{*link}).next;
  *link = entry.next;
  const auto root = root_of_.find(entry.parent);
  if (root != root_of_.end() && --root->second->second.children == 0) {
    roots_.erase(root->second);
    root_of_.erase(root);
  }
  entry = {};
  --size_;
}

absl::Status PrefixIndex::Check() const {
  int32_t linked = 0, children = 0;
  for (size_t bucket = 0; bucket < heads_.size(); ++bucket) {
    for (int32_t id = heads_[bucket], probes = 0; id != 0; id = At(BlockId{id}).next) {
      const Entry& entry = At(BlockId{id});
      if (entry.serial == 0 || Bucket(entry.hash) != bucket) {
        return Internal("block {} is in a bucket that is not its own", id);
      }
      if (++probes > kBucketMax) return Internal("more than {} entries in a bucket", kBucketMax);
      ++linked;
      children += root_of_.contains(entry.parent) ? 1 : 0;
    }
  }
  int32_t counted = 0;
  for (const auto& [scope, root] : roots_) counted += root.children;
  const auto entries =
      std::ranges::count_if(entries_, [](const Entry& e) { return e.serial != 0; });
  if (linked != size_ || entries != size_ || children != counted ||
      roots_.size() != root_of_.size()) {
    return Internal("{} entries, {} linked, {} counted; {} below roots, {} counted", entries,
                    linked, size_, children, counted);
  }
  return absl::OkStatus();
}

}  // namespace fathom::scheduler
