#include "scheduler/core/sequence_prefix.h"

#include <string>

namespace fathom::scheduler {

bool SequencePrefixes::MayShare(const Session& session) const {
  return options_.enabled && !session.record.cache.skip &&
         !session.record.request.output.prompt_logprobs;
}

std::optional<PrefixQuery> SequencePrefixes::QueryOf(const Sequence& sequence,
                                                     const Group& group) const {
  const Session& session = *sequence.session;
  if (!MayShare(session) || !MayShareIn(group)) return std::nullopt;
  const int32_t block_tokens = group.kv.block_tokens();
  const std::string& tenant = session.record.key.tenant;
  PrefixQuery query;
  // The length keeps tenant and salt apart, whatever they contain.
  if (!options_.across_tenants) query.scope = std::to_string(tenant.size()) + ":" + tenant;
  query.scope += session.record.cache.salt;
  query.tokens = {session.record.prompt_ids, sequence.record().ids};
  query.tokens_max = query.tokens.size() - 1;
  BlockHashes& known = sequence.block_hashes;
  if (known.block_tokens != block_tokens) known = {block_tokens, {}};
  ExtendHashes(query.scope, query.tokens, block_tokens, &known.hashes);
  query.hashes = known.hashes;
  return query;
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
