#include "scheduler/core/sequence_prefix.h"

#include <string>

namespace fathom::scheduler {

bool SequencePrefixes::MayShare(const Record& record) const {
  return options_.enabled && !record.cache.skip && !record.request.output.prompt_logprobs;
}

std::optional<PrefixQuery> SequencePrefixes::QueryOf(const Sequence& sequence,
                                                     const Group& group) const {
  return QueryOf(sequence.session->record, sequence.record().ids, group, &sequence.block_hashes);
}

std::optional<PrefixQuery> SequencePrefixes::QueryOf(const Record& record, const Group& group,
                                                     BlockHashes* hashes) const {
  return QueryOf(record, {}, group, hashes);
}

std::optional<PrefixQuery> SequencePrefixes::QueryOf(const Record& record,
                                                     std::span<const TokenId> generated,
                                                     const Group& group, BlockHashes* known) const {
  if (!MayShare(record) || !MayShareIn(group)) return std::nullopt;
  const int32_t block_tokens = group.kv.block_tokens();
  const std::string& tenant = record.key.tenant;
  PrefixQuery query;
  // The length keeps tenant and salt apart, whatever they contain.
  if (!options_.across_tenants) query.scope = std::to_string(tenant.size()) + ":" + tenant;
  query.scope += record.cache.salt;
  query.tokens = {record.prompt_ids, generated};
  query.tokens_max = query.tokens.size() - 1;
  if (known->block_tokens != block_tokens) *known = {block_tokens, {}};
  ExtendHashes(query.scope, query.tokens, block_tokens, &known->hashes);
  query.hashes = known->hashes;
  return query;
}

const PrefixQuery* SequencePrefixes::Queries::Of(const Group& group) {
  if (!MayShareIn(group)) return nullptr;
  if (block_tokens_ != group.kv.block_tokens()) {
    block_tokens_ = group.kv.block_tokens();
    query_ = prefixes_.QueryOf(sequence_, group);
  }
  return query_ ? &*query_ : nullptr;
}

const RunningState* SequencePrefixes::ForkSource(const Sequence& sequence, const Group& group) {
  if (!MayShareIn(group)) return nullptr;
  for (const Sequence& other : sequence.session->sequences) {
    const RunningState* running = other.running();
    if (&other == &sequence || running == nullptr || running->group != group.id) continue;
    if (running->clean_tokens >= sequence.session->prompt_tokens()) return running;
  }
  return nullptr;
}

bool SequencePrefixes::WaitsForPrompt(const Sequence& sequence) {
  bool computing = false;
  for (const Sequence& other : sequence.session->sequences) {
    const RunningState* running = other.running();
    if (running == nullptr) continue;
    if (running->clean_tokens >= sequence.session->prompt_tokens()) return false;
    computing = true;
  }
  return computing;
}

}  // namespace fathom::scheduler
