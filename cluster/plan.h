// cluster/plan.h: what scheduler and workers say to each other in each step (docs/ARCHITECTURE.md,
// "Plans"). Plans are deltas on slots and are executed strictly in order: copies, releases, admits,
// extends, chunks.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <variant>
#include <vector>

#include "cluster/request.h"
#include "common/request_limits.h"
#include "common/types.h"

namespace fathom {

enum class CopyKind { kBlock };  // Copy-on-write of a partial block; swaps come later.

struct BlockCopy {
  CopyKind kind = CopyKind::kBlock;
  BlockId from, to;
  bool operator==(const BlockCopy&) const = default;
};

// Seats a sequence: prompt and already generated ids. At most kAdmitIdsMax ids; `more` says that
// the same slot's next ids follow in a later plan's admit (only slot, ids and more are read from
// it).
struct Admit {
  SlotId slot;
  Request request;
  uint64_t seed = 0;
  int32_t sequence = 0;
  int32_t prompt_tokens = 0;    // ids from here on were generated.
  int32_t computed_tokens = 0;  // How many tokens the given blocks already hold.
  std::vector<TokenId> ids;
  bool more = false;
  std::string grammar_digest;  // Later work; empty.
  bool operator==(const Admit&) const = default;
};

// Appends blocks to a slot's table.
struct Extend {
  SlotId slot;
  std::vector<BlockId> block_ids;
  bool operator==(const Extend&) const = default;
};

// A decode row: the token to compute is the sample of step `fed_by_step`, which the worker has (or
// knows, when that step is long done); the worker owns the slot's length.
struct DecodeRow {
  StepId fed_by_step;
  int32_t draft_max = 0;
  bool operator==(const DecodeRow&) const = default;
};

struct Chunk {
  SlotId slot;
  // int32_t: that many of the slot's known ids that are not yet computed (prefill); or a decode
  // row.
  std::variant<int32_t, DecodeRow> work = 0;
  bool sample = false;  // Sample the token after this chunk's last one.
  bool operator==(const Chunk&) const = default;
};

struct StepPlan {
  TermId term;
  EpochId epoch;
  StepId step;
  std::vector<BlockCopy> copies;
  std::vector<SlotId> releases;
  std::vector<Admit> admits;
  std::vector<Extend> extends;
  std::vector<Chunk> chunks;  // Row i of the result is chunks[i].
  bool operator==(const StepPlan&) const = default;
};

// Why a row has no token. A fault harms its row only.
enum class RowFault { kNone, kNonFiniteLogits, kTokenOutOfRange, kBlockOutOfRange };
const char* RowFaultName(RowFault fault);

struct ResultRow {
  int32_t row = 0;  // Index into the plan's chunks.
  int32_t sequence = 0;
  int32_t position = 0;                // Of ids[0] in the sequence; generated tokens count from 0.
  std::vector<TokenId> ids;            // Empty when the chunk did not sample.
  std::vector<TokenLogprob> logprobs;  // One per id when asked for.
  std::optional<PromptLogprobs> prompt_logprobs;
  RowFault fault = RowFault::kNone;
  std::string fault_detail;  // What the worker knows beyond that: where it arose, the way out.
  bool operator==(const ResultRow&) const = default;
};

struct StepTimings {
  int64_t read_to_write_us = 0;  // Plan read to result ready to be written.
  int64_t compute_us = 0;        // Forward pass and sampler.
  int64_t collective_us = 0;     // Of that, waiting in collectives.
  bool operator==(const StepTimings&) const = default;
};

// Rank 0 of the last stage answers with rows; every rank with step, collectives and timings.
struct StepResult {
  TermId term;
  EpochId epoch;
  StepId step;
  int32_t rank = 0;
  std::vector<ResultRow> rows;
  StepTimings timings;
  uint64_t collectives = 0;  // Done in this epoch.
  bool operator==(const StepResult&) const = default;
};

}  // namespace fathom
