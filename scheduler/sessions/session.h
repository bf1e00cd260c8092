// scheduler/sessions/session.h: what the scheduler holds of one request: its record, its
// subscribers, and the state of each of its sequences. Plain data, owned by SessionTable. Only the
// batching core (scheduler/core) sets and reads the states of a sequence that waits or runs.
#pragma once

#include <compare>
#include <cstdint>
#include <optional>
#include <string>
#include <variant>
#include <vector>

#include "cluster/request.h"
#include "cluster/route_messages.h"
#include "common/status.h"
#include "common/types.h"
#include "scheduler/sessions/stamps.h"

namespace fathom::scheduler {

// A place in an order that a policy makes. The least key is first. `number` is the
// sequence's, so that the keys of two sequences differ.
struct OrderKey {
  int64_t rank = 0;
  int64_t value = 0;
  uint64_t number = 0;
  auto operator<=>(const OrderKey&) const = default;
};

// In the queue for a slot.
struct WaitingState {
  std::string line;   // The line of WaitQueue in which it waits; empty: that of any group.
  std::string model;  // The model that it waits for; empty: any.
  OrderKey order;
  bool first_time = false;  // Counts against the queue's limits.
  WaitTimes clock_us = {};  // The clock of the line when this wait began (WaitQueue).
  int32_t overtakes = 0;    // Sequences that were admitted before it because it waits for blocks.
};

// In a slot of a group.
struct RunningState {
  GroupId group;
  SlotId slot;
  int32_t lane = 0;   // Of the group: only its plans compute this sequence.
  uint64_t seat = 0;  // Number of this stay in a slot, never used twice.
  OrderKey keep;
  std::vector<BlockId> blocks;  // Hold block_tokens each, in order.
  int32_t known_tokens = 0;     // Prompt and generated ids at admission: what prefill must cover.
  int32_t sent_tokens = 0;      // How many of these were sent in admits.
  int32_t planned_tokens = 0;   // In the blocks once every plan sent so far is done.
  int32_t reused_tokens = 0;    // How many of these were in the blocks at admission.
  // How many of these a sample showed to be finite, because its row attends to all of them. Only
  // such tokens enter the prefix index.
  int32_t clean_tokens = 0;
  int32_t indexed_blocks = 0;   // The first blocks that the prefix index has; the entry of the last
  BlockId indexed_at;           // of them is that of block `indexed_at` while this is its serial
  uint64_t indexed_serial = 0;  // number.
  int32_t next_position = 0;    // Position of the token that the next sampling row gives.
  StepId sampled_in;            // Step of the last sampling row; meaningful once decoding().
  // Decode steps that may be planned before the result of the step that feeds them is known, beyond
  // the first: 0 for a sequence whose next step depends on its last token (a grammar).
  int32_t run_ahead = 0;

  bool decoding() const { return planned_tokens >= known_tokens; }
};

// The KV of a waiting sequence in the swap space of a group.
struct SwappedKv {
  GroupId group;
  std::vector<BlockId> blocks;  // Of the swap space, in the order of the tokens.
  int32_t tokens = 0;           // The KV of so many first tokens is in the blocks.
  StepId settled_at;            // The first step that was planned after the swap.
};

// In no slot and in no queue. The record is kept.
struct SuspendedState {};

struct FinishedState {
  FrameFinish finish;  // When `error` is OK.
  absl::Status error;  // Otherwise why it failed.
  RequestTimings timings;
};

using SequenceState = std::variant<SuspendedState, WaitingState, RunningState, FinishedState>;

struct Session;

// Hashes of a sequence's full blocks, as the prefix index takes them. Only a cache of them.
struct BlockHashes {
  int32_t block_tokens = 0;  // Groups may have blocks of different sizes.
  std::vector<uint64_t> hashes;
};

struct Sequence {
  Session* session = nullptr;
  int32_t index = 0;    // In session->record.sequences.
  uint64_t number = 0;  // Unique in the core's life.
  SequenceState state;
  std::optional<SwappedKv> swapped;  // Only while it waits.
  bool seated_before = false;        // Had a slot, here or under another leader.
  int32_t preemptions = 0;           // Times that it lost its slot because blocks ran out.
  // ---- Whether it ends the workers that compute it (scheduler/core/poison.cc).
  // Groups that were lost with a step of it in flight, since its last progress.
  int32_t deaths = 0;
  int32_t furthest_tokens = 0;  // The furthest end of a chunk of its prefills that was computed.
  // ---- Speculative decoding.
  int32_t drafted_tokens = 0;  // As in Usage; counted here, not under earlier leaders.
  int32_t accepted_draft_tokens = 0;
  // ---- The prefix cache.
  int32_t cached_tokens = 0;  // Of the prompt: in the KV cache when it first got a slot here.
  mutable BlockHashes block_hashes;
  Stamps stamps;

  bool finished() const { return std::holds_alternative<FinishedState>(state); }
  bool suspect() const { return deaths >= 2; }
  bool suspended() const { return std::holds_alternative<SuspendedState>(state); }
  RunningState* running() { return std::get_if<RunningState>(&state); }
  const RunningState* running() const { return std::get_if<RunningState>(&state); }
  SequenceRecord& record();
  const SequenceRecord& record() const;
};

// How much of one sequence one attempt was sent.
struct Cursor {
  int32_t next = 0;  // Position of the next token to send.
  bool ended = false;
  std::string fingerprint_sent;
};

struct Subscriber {
  PeerId router;
  AttemptId attempt;
  bool lost = false;  // Its router is gone; it holds the session only until the grace ends.
  std::vector<Cursor> cursors;
  int32_t prompt_logprobs_sent = 0;
};

struct Session {
  uint64_t number = 0;  // Of its first sequence.
  Record record;        // record.sequences has request.sequences elements, always.
  std::string router_blob;
  std::string traceparent;  // Of the first Submit; decides nothing.
  std::vector<Sequence> sequences;
  std::vector<Subscriber> subscribers;
  TimeUs arrival_us = 0;     // First acceptance anywhere.
  TimeUs deadline_us = 0;    // 0: none.
  TimeUs keep_until_us = 0;  // 0: live, that is, some sequence waits or runs.
  int64_t bytes = 0;         // As SessionTable counts them.
  bool dirty = false;        // The session may have something to deliver.

  int32_t prompt_tokens() const { return static_cast<int32_t>(record.prompt_ids.size()); }
  bool finished() const {
    for (const Sequence& sequence : sequences) {
      if (!sequence.finished()) return false;
    }
    return true;
  }
};

inline SequenceRecord& Sequence::record() {
  return session->record.sequences[static_cast<size_t>(index)];
}
inline const SequenceRecord& Sequence::record() const {
  return session->record.sequences[static_cast<size_t>(index)];
}

// The kind of group that must compute the sequence: that of its last token, else that of the
// request's other sequences. nullptr: any.
inline const FingerprintSpan* SpanOf(const Sequence& sequence) {
  const auto& own = sequence.record().fingerprints;
  return own.empty() ? LastSpan(sequence.session->record) : &own.back();
}

}  // namespace fathom::scheduler
