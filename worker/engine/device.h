// worker/engine/device.h: what the one engine (worker/engine/engine.h) computes with: a rank's
// weights, KV blocks and sampler, on a CPU or a GPU, kept between epochs. A device knows slots,
// blocks and rows. Plans, terms, epochs, results and streams are the engine's.
//
// Order: a device executes and gives back steps in the order in which they were submitted. While
// steps_in_flight() steps are submitted and not collected, the engine submits no other one.
// A device keeps for each slot, from the admit that begins it until another one begins it anew:
// - how its tokens are sampled, and the counts of the tokens seen, while a penalty is on;
// - the last token that it drew for the slot, which is what a chunk that is `fed` computes;
// - whether an output of the slot has faulted: every later output of the slot then faults too.
// Thread: Submit and Drain are called by the engine thread. Collect and NonFiniteDetail are called
// by one thread, too: the engine thread where steps_in_flight() is 1, else the collector thread,
// which calls them while Submit may run.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "cluster/plan.h"
#include "common/clock.h"
#include "common/status.h"
#include "common/types.h"
#include "worker/comm/epoch_comm.h"
#include "worker/engine/slots.h"

namespace fathom::worker {

// Ids that an admit appends to a slot.
struct AdmitWork {
  SlotId id;
  const Slot* slot = nullptr;
  int32_t start = 0;             // Index of the first of `ids` in the sequence. 0: the slot begins.
  std::span<const TokenId> ids;  // Not to be counted as seen when the slot has a fault.
};

// One step, checked against the slots. A device does its parts in the order of the members. What it
// points to is valid until Submit returns; `slot` pointers stay valid, and request, seed, sequence
// and end ids beneath them unchanged, until the slot begins anew.
struct StepBatch {
  StepId step;
  std::span<const BlockCopy> copies;  // One after the other.
  std::vector<BlockId> zeroed;        // Blocks that a faulted sequence had: they may hold a NaN.
  std::vector<AdmitWork> admits;
  // Chunks without a fault: those of one token first, else in the plan's order. Their rows follow
  // each other in this order. So do their outputs: a chunk's scored prompt tokens, then its sample.
  std::vector<const ChunkWork*> chunks;
  int32_t rows = 0;     // Of all chunks.
  int32_t outputs = 0;  // Of all chunks: rows with logits.
};

// What the logits of one row gave: a sample, or the log-probability of the next prompt token.
struct RowOutput {
  TokenId token = 0;  // The sample, or the prompt token that was scored.
  RowFault fault = RowFault::kNone;
  float logprob = 0;                 // Where the request asks for it; on rank 0 only.
  std::span<const TokenId> top_ids;  // As many alternatives as were asked for, best first.
  std::span<const float> top_logprobs;
};

struct StepOutputs {
  std::span<const RowOutput> rows;  // [batch.outputs]; valid until the next Collect.
  TimeUs collected_at_us = 0;       // The computing was seen to be over.
  int64_t compute_us = 0;           // Forward pass and sampler.
  int64_t collective_us = 0;        // Of that, in collectives.
  uint64_t collectives = 0;         // Done in this epoch.
  // Where the device has events of its own: computing, and idle since the step before.
  int64_t device_us = 0;
  int64_t device_idle_us = 0;
  bool graph = false;  // The device replayed a graph.
};

class Device {
 public:
  virtual ~Device() = default;

  // Steps that may be submitted and not yet collected. 1: the step is computed when Submit returns.
  virtual int steps_in_flight() const = 0;

  // What the ranks of a group meet in; its target is set while an epoch runs.
  virtual EpochComm* comm() = 0;

  // Computes a step, or queues it. Errors end the epoch: ABORTED from a collective, and
  // INVALID_ARGUMENT for an admit that is larger than what the device has room for.
  virtual absl::Status Submit(const StepBatch& batch) = 0;

  // The outputs of the oldest step that was not collected; waits for them.
  virtual StepOutputs Collect() = 0;

  // Where rows [first, first + count) of the step that was collected last became non-finite, and
  // what to do about it; empty when the device does not know.
  virtual std::string NonFiniteDetail(int32_t first, int32_t count) const = 0;

  // Waits until nothing of the epoch is under way. REQUIRES: every submitted step was collected. An
  // epoch may end here, also after a Submit that failed.
  virtual void Drain() = 0;
};

}  // namespace fathom::worker
