// cluster/request_timings.h: where the time of one sequence went, by the clock of the scheduler
// that leads. Plain data, bounded. The six parts add up exactly to WholeUs(): a sequence is in one
// phase at any time. Durations and offsets are in microseconds; offsets count from the sequence's
// Submit to this scheduler.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <numeric>
#include <vector>

#include "common/types.h"

namespace fathom {

// What keeps the first sequence of a line of the queue from its slot. The others of the line wait
// behind it.
enum class WaitLimit {
  kSlots,          // Every slot of a group is taken (--max-num-seqs).
  kBlocks,         // A group has too few free KV blocks (--kv-cache-memory).
  kNoGroup,        // No group is up that may compute the sequence.
  kOther,          // The next plan: steps in flight, tokens of a step, the lane's share.
  kTenantRunning,  // The tenant has as many sequences in slots as it may (running_max).
};
inline constexpr size_t kWaitLimits = 5;
// "slots", "blocks", "no_group", "other", "tenant_running": also the label of metrics.
const char* WaitLimitName(WaitLimit limit);

// A duration for each WaitLimit.
using WaitTimes = std::array<int64_t, kWaitLimits>;

enum class RequestPhase {
  kQueued,     // No slot yet.
  kPrefill,    // In its first slot, no token yet.
  kDecode,     // In a slot, with a token of this stay.
  kSuspended,  // Had a slot and has none, or its client left.
  kReplay,     // In a slot again, no token of this stay yet.
  kEnded,
};
// "queued", "prefill", ...
const char* RequestPhaseName(RequestPhase phase);

enum class StayEnd {
  kNone,        // The sequence is still in the slot.
  kFinished,    // The sequence ended or failed.
  kPreempted,   // No KV block was free.
  kGroupLost,   // The group's epoch ended.
  kClientLeft,  // No client listens.
  kBehind,      // A router had more tokens than the record here.
};
// "finished", "preempted", ...
const char* StayEndName(StayEnd end);

// One stay in a slot.
struct Stay {
  GroupId group;
  EpochId epoch;
  int64_t at_us = 0;
  int64_t us = 0;
  StayEnd end = StayEnd::kNone;
  int64_t prefill_us = 0;  // Of `us`: until the first token of the stay; all, if it had none.
  bool operator==(const Stay&) const = default;
};

// A chunk of a prefill. The last entry of a list that is full stands for several chunks.
struct PromptChunk {
  int64_t at_us = 0;  // Planned.
  int64_t us = 0;     // Until its result came.
  int32_t tokens = 0;
  int32_t chunks = 1;
  bool operator==(const PromptChunk&) const = default;
};

// The time between a token and the one before it.
struct TokenGap {
  int64_t us = 0;
  int32_t position = 0;  // Of the later token.
  bool operator==(const TokenGap&) const = default;
};

inline constexpr size_t kStaysMax = 8;    // Of the list; the last entry is the latest stay.
inline constexpr size_t kChunksMax = 16;  // Likewise.
inline constexpr size_t kTokenGapsMax = 3;

struct RequestTimings {
  // ---- The parts.
  int64_t earlier_us = 0;    // Under schedulers that led before this one.
  int64_t queue_us = 0;      // Until the first slot.
  int64_t prefill_us = 0;    // In the first slot, until the first token or the end of the stay.
  int64_t decode_us = 0;     // In a slot, from the first token of the stay.
  int64_t suspended_us = 0;  // Without a slot after a first one, or without a client.
  int64_t replay_us = 0;     // In a later slot, until the first token of that stay.

  WaitTimes queue_behind_us = {};      // Adds up to queue_us.
  WaitTimes suspended_behind_us = {};  // At most suspended_us; the rest had no client.
  int32_t suspensions = 0;             // Because of preemption, a lost worker or an absent client.
  int32_t preemptions = 0;
  int32_t stays_total = 0;
  int32_t chunks_total = 0;
  int64_t first_token_us = -1;  // -1: none in this scheduler.
  int64_t last_token_us = -1;
  RequestPhase phase = RequestPhase::kQueued;
  std::vector<Stay> stays;          // At most kStaysMax.
  std::vector<PromptChunk> chunks;  // At most kChunksMax.
  std::vector<TokenGap> gaps;       // The largest first; at most kTokenGapsMax.

  int64_t WholeUs() const {
    return earlier_us + queue_us + prefill_us + decode_us + suspended_us + replay_us;
  }
  bool operator==(const RequestTimings&) const = default;
};

inline int64_t SumUs(const WaitTimes& times) {
  return std::accumulate(times.begin(), times.end(), int64_t{0});
}

}  // namespace fathom
