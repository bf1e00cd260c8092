// scheduler/core/sequence_prefix.h: which blocks a sequence may share with others, and with whom.
// Through the prefix index it shares with sequences of its scope: those of its tenant whose
// requests have the same salt. A request that opts out shares nothing that way, and its blocks are
// not found by others; neither do requests for the log-probabilities of their prompt, whose tokens
// must all be computed. The sequences of one request (n > 1) share their prompt in any case. Pure.
// Thread: the driver thread.
#pragma once

#include <cstdint>
#include <optional>
#include <span>

#include "common/types.h"
#include "scheduler/core/group.h"
#include "scheduler/core/kv_allocator.h"
#include "scheduler/sessions/session.h"

namespace fathom::scheduler {

class SequencePrefixes {
 public:
  struct Options {
    bool enabled = true;
    bool across_tenants = false;  // The scope is the salt alone.
  };
  explicit SequencePrefixes(const Options& options) : options_(options) {}

  bool MayShare(const Record& record) const;

  // For all known tokens but the last one, which is computed in any case; nullopt: the sequence
  // shares nothing through the index of `group`. Valid until the record changes. Only the first
  // call hashes all tokens.
  std::optional<PrefixQuery> QueryOf(const Sequence& sequence, const Group& group) const;
  // The same for a request that has no sequence yet. `hashes` must live as long as the query.
  std::optional<PrefixQuery> QueryOf(const Record& record, const Group& group,
                                     BlockHashes* hashes) const;

  // The queries of a sequence in one group after another: computed again only if groups have blocks
  // of different sizes. nullptr: as nullopt above. Valid until the next call, and as above.
  class Queries {
   public:
    Queries(const SequencePrefixes& prefixes, const Sequence& sequence)
        : prefixes_(prefixes), sequence_(sequence) {}
    const PrefixQuery* Of(const Group& group);

   private:
    const SequencePrefixes& prefixes_;
    const Sequence& sequence_;
    std::optional<PrefixQuery> query_;
    int32_t block_tokens_ = 0;  // Of query_.
  };

  // Another sequence of the session that runs in `group` and has computed the prompt; nullptr:
  // none.
  static const RunningState* ForkSource(const Sequence& sequence, const Group& group);
  // Whether another sequence of the session is computing the prompt now, and none has it: the
  // prompt is shared as soon as that one is done. REQUIRES: the sequence waits.
  static bool WaitsForPrompt(const Sequence& sequence);

 private:
  // Workers of version 1 zero all blocks of a sequence with a fault, shared ones too.
  static bool MayShareIn(const Group& group) { return group.limits.protocol >= kProtocol2; }
  std::optional<PrefixQuery> QueryOf(const Record& record, std::span<const TokenId> generated,
                                     const Group& group, BlockHashes* known) const;

  const Options options_;
};

}  // namespace fathom::scheduler
