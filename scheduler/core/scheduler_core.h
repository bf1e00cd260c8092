// scheduler/core/scheduler_core.h: makes every scheduling decision. It has no IO, thread, clock or
// randomness: the same events at the same times give the same actions. The simulation and
// `fathom replay` depend on this. Thread: not thread-safe; owned by the driver thread.
#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <string>

#include "cluster/request_timings.h"
#include "cluster/route_messages.h"
#include "common/status.h"
#include "common/types.h"
#include "scheduler/core/admission.h"
#include "scheduler/core/events.h"
#include "scheduler/sessions/sessions.h"

namespace fathom::scheduler {

struct CoreOptions {
  std::string policy = "fcfs";              // A row of scheduler/core/policy.cc.
  int32_t waiting_requests_max = 4096;      // First-time submits beyond it are refused.
  int64_t waiting_tokens_max = 16'000'000;  // Likewise, prompt tokens.
  int64_t session_memory_bytes_max = int64_t{1} << 30;
  int64_t record_keep_us = 60'000'000;  // After the end or the suspension.
  int64_t router_grace_us = 5'000'000;  // A lost router's sessions run on for so long.
  // An answer waits for so long for a group of its kind; then another kind of group of the same
  // model may continue it. If only other models have groups for so long, the answer ends.
  int64_t model_wait_us = 30'000'000;
  int32_t run_ahead_max =
      INT32_MAX;  // Of RunningState::run_ahead; the plans in flight bound it too.
  int32_t sequences_max = kSequencesMax;  // A larger n is UNIMPLEMENTED.
  bool prefix_caching = true;  // Sequences of one scope share blocks of equal first tokens.
  bool prefixes_across_tenants = false;  // The tenant is no part of the scope; the salt still is.
  // So many sequences at most are admitted before one that waits for blocks (Placement::NextFor).
  int32_t overtakes_max = 16;
};

// What /metrics, Stats and `fathom status` show. Counters count since the core was made.
struct CoreStats : SessionStats {
  int32_t requests_running = 0;  // In a slot.
  int32_t requests_waiting = 0;
  std::array<int32_t, kWaitLimits> waiting_by_limit = {};  // By WaitLimit; adds up to the above.
  int32_t groups = 0;                                      // Live ones.
  int32_t blocks_total = 0;  // Over live groups, without padding blocks.
  int32_t blocks_used = 0;
  int32_t blocks_cached = 0;  // Free ones whose content the prefix index can find.
  uint64_t steps_total = 0;
  uint64_t step_rows_total = 0;
  uint64_t prompt_tokens_total = 0;      // Computed in prefill chunks.
  uint64_t generation_tokens_total = 0;  // Added to records.
  int32_t swap_blocks_total = 0;         // Over live groups.
  int32_t swap_blocks_used = 0;
  uint64_t preemptions_total = 0;  // Because no block was free.
  uint64_t swaps_total = 0;        // Preempted sequences whose KV went to the swap space.
  uint64_t swapped_out_blocks_total = 0;
  uint64_t swapped_in_blocks_total = 0;
  uint64_t tokens_dropped_total = 0;  // Computed, and added to no record.
  uint64_t failovers_total = 0;       // Sequences whose group was lost while they were in it.
  // Tokens of sequences that got a slot again, or came with tokens: they are computed again.
  uint64_t replayed_tokens_total = 0;
  uint64_t model_changes_total = 0;  // Answers that ended: their model was gone.
  uint64_t poisoned_total = 0;       // Sequences that failed because groups died of them.
  // Of speculative decoding, in rows whose tokens belong to a record.
  uint64_t draft_rows_total = 0;  // Rows with drafts.
  uint64_t drafted_tokens_total = 0;
  uint64_t accepted_draft_tokens_total = 0;
  uint64_t overtakes_total = 0;  // Admissions before a sequence that waits for blocks.
  std::array<uint64_t, kRefusedBy> refused_by = {};  // By RefusedBy; adds up to refused_total.
  // Refused requests that came back after their delay and were admitted, or refused again.
  uint64_t retries_kept_total = 0, retries_broken_total = 0;
  // Prompt tokens of sequences that got their first slot and may share blocks; those among them
  // that were in the blocks; and blocks that lost their findable content to another sequence.
  uint64_t prefix_queries_tokens_total = 0;
  uint64_t prefix_hit_tokens_total = 0;
  uint64_t prefix_evicted_blocks_total = 0;
};

class SchedulerCore {
 public:
  explicit SchedulerCore(const CoreOptions& options);
  ~SchedulerCore();

  // Applies one event and returns what the driver must do. Never blocks. A Submit's record and blob
  // are moved into the session, so that a caller that gives its event away copies no prompt.
  // REQUIRES: now >= the previous now.
  Actions Step(Event event, TimeUs now);

  // Where the time of the session's slowest sequence went until `now`: of the first one that has
  // not ended, else of the one that ended last. Changes nothing, so it is no event. REQUIRES: now
  // >= the last Step's.
  Explained Explain(const SessionKey& key, TimeUs now) const;

  // When the next Tick is due at the latest, or INT64_MAX.
  TimeUs NextWakeup() const;

  CoreStats Stats() const;

  // INTERNAL naming the first broken invariant. Tests call it after every Step. O(sessions +
  // blocks).
  absl::Status CheckInvariants() const;

 private:
  class Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace fathom::scheduler
