// cluster/plan.h: the messages between scheduler and workers in each step (docs/ARCHITECTURE.md,
// "Plans"). A plan is a list of changes to slots. A worker executes plans strictly in order, and
// within a plan copies, releases, grammars, admits, extends and chunks in this order.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <variant>
#include <vector>

#include "cluster/request.h"
#include "common/block_kind.h"
#include "common/request_limits.h"
#include "common/types.h"

namespace fathom {

// kInPool: from a block of the pool to another one. kSwapOut: from a block of the pool to one of
// the swap space in the host's memory; kSwapIn: the way back.
enum class CopyOperation { kInPool, kSwapOut, kSwapIn };

struct BlockCopy {
  CopyOperation operation = CopyOperation::kInPool;
  BlockId from, to;
  BlockKind block_kind = BlockKind::kTokens;
  bool operator==(const BlockCopy&) const = default;
};

// Admits a sequence to a slot: its prompt and the ids that are already generated, at most
// kAdmitIdsMax of them. `more` says that an admit for the same slot in a later plan has the next
// ids; of such an admit only slot, ids and more are read.
struct Admit {
  SlotId slot;
  Request request;
  uint64_t seed = 0;
  int32_t sequence = 0;
  int32_t prompt_tokens = 0;    // ids from this index on were generated.
  int32_t computed_tokens = 0;  // Tokens that the given blocks already hold.
  std::vector<TokenId> ids;
  bool more = false;
  std::string traceparent = {};  // As in Submit.
  // Of the grammar that the sequence follows; a plan of the epoch had it, or this one has it.
  // Empty: none.
  std::string grammar_digest = {};
  bool operator==(const Admit&) const = default;
};

// Appends blocks to a slot's table.
struct Extend {
  SlotId slot;
  std::vector<BlockId> block_ids;
  BlockKind block_kind = BlockKind::kTokens;
  bool operator==(const Extend&) const = default;
};

// A decode row. The token to compute is the sample of step `fed_by_step`. The worker has that
// sample, or will have it before it runs this row, so the plan carries no token. The worker counts
// the slot's length.
// With `draft_max` > 0 the worker may propose up to so many drafts of the tokens that follow, and
// computes them in the same step. Draft i is kept if it equals the sample at its position. The
// result has the ids of 1 to draft_max + 1 samples, so the length of the slot is known only when
// the result is: no other row of the slot is in flight with this one.
struct DecodeRow {
  StepId fed_by_step;
  int32_t draft_max = 0;  // At most kDraftsMax.
  bool operator==(const DecodeRow&) const = default;
};

struct Chunk {
  SlotId slot;
  // int32_t: the number of known ids of the slot to compute now (prefill). DecodeRow: one decode
  // row.
  std::variant<int32_t, DecodeRow> work = 0;
  bool sample = false;  // Whether to sample the token after this chunk.
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
  std::vector<Chunk> chunks;  // Row i of the result belongs to chunks[i].
  // Grammars that no slot has and that the workers need no longer, by digest; then those that the
  // admits need and the workers do not have. Executed before the admits.
  std::vector<std::string> grammar_drops = {};
  std::vector<GrammarRef> grammars = {};
  bool operator==(const StepPlan&) const = default;
};

// Why a row has no token. A fault affects only its row.
enum class RowFault { kNone, kNonFiniteLogits, kTokenOutOfRange, kBlockOutOfRange };
const char* RowFaultName(RowFault fault);

struct ResultRow {
  int32_t row = 0;  // Index into the plan's chunks.
  int32_t sequence = 0;
  int32_t position = 0;                // Position of ids[0]; generated tokens count from 0.
  std::vector<TokenId> ids;            // Empty if the chunk did not sample.
  std::vector<TokenLogprob> logprobs;  // One for each id if asked for.
  std::optional<PromptLogprobs> prompt_logprobs;
  RowFault fault = RowFault::kNone;
  std::string fault_detail;  // More from the worker: where the fault arose, the way out.
  int32_t drafted = 0;       // The drafts that were checked in this row; ids.size() - 1 were kept.
  bool operator==(const ResultRow&) const = default;
};

struct StepTimings {
  int64_t read_to_write_us = 0;  // From the plan read to the result ready.
  int64_t compute_us = 0;        // Forward pass and sampler.
  int64_t collective_us = 0;     // The part of it spent in collectives.
  int64_t swap_us = 0;           // Copies between pool and swap space; no part of compute_us.
  bool operator==(const StepTimings&) const = default;
};

// The result of a step. Rank 0 of the last stage sends rows; every rank sends step, collectives and
// timings.
struct StepResult {
  TermId term;
  EpochId epoch;
  StepId step;
  int32_t rank = 0;
  std::vector<ResultRow> rows;
  StepTimings timings;
  uint64_t collectives = 0;  // Collectives done in this epoch.
  bool operator==(const StepResult&) const = default;
};

}  // namespace fathom
