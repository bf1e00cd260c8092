// worker/engine/device.h: the interface between the one engine (worker/engine/engine.h) and what
// computes: the weights, the KV blocks and the sampler of a rank, on the CPU or on a GPU. A device
// is kept between epochs. It knows slots, blocks and rows; the engine knows plans, terms, epochs,
// results and streams.
// Order: a device executes steps, and returns their outputs, in the order in which they were
// submitted. The engine submits a step only while fewer than steps_in_flight() steps are submitted
// and not collected.
// State: for each slot a device keeps three things, from the admit that starts a sequence in the
// slot until the next sequence starts there. (1) How tokens are sampled, and the counts of seen
// tokens if a penalty is on. (2) The last token that it sampled for the slot; a chunk that is `fed`
// computes this token. (3) Whether an output of the slot has faulted; if so, every later output of
// the slot faults, too.
// Stages: a device may be one of several stages of a pipeline, each with its layers, and each gets
// every batch of the group. Copies and zeroed blocks concern the planes of its layers. The first
// stage embeds tokens, so it needs the samples: before a step with a `fed` chunk it waits for what
// the last stage samples in the step that feeds it. The other stages receive the hidden values of
// the rows. On the CPU the first stage also decides which chunks are computed, and the others
// follow: those of a slot whose fault it knows are not. A GPU computes them, and what comes with
// the rows says that their outputs have a fault. Only the last stage has logits: it scores and
// samples, so only it counts seen tokens, and only its outputs have tokens and log-probabilities.
// The outputs of another stage have a fault if the hidden values of their row are non-finite after
// the stage: the keys and values of the slot in the stage may then be so, too. Step 0 begins an
// epoch.
//
// Thread: the engine thread calls Join, Leave, Submit and Drain. One thread calls Collect and
// NonFiniteDetail: the engine thread if steps_in_flight() is 1, else the collector thread, and then
// Submit may run at the same time.
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
#include "worker/engine/group_link.h"
#include "worker/engine/slots.h"

namespace fathom {
class GrammarEngine;
}  // namespace fathom

namespace fathom::worker {

// The ids that one admit of the plan appends to a slot.
struct AdmitWork {
  SlotId id;
  const Slot* slot = nullptr;
  int32_t start = 0;  // Index of ids[0] in the sequence. 0: a sequence starts in the slot.
  std::span<const TokenId> ids;  // If the slot has a fault, they need not be counted.
};

// The masks of guided sequences.
class MaskSource {
 public:
  virtual ~MaskSource() = default;
  // Which tokens may be the sample of the chunk: bit i % 32 of word i / 32 is set if token i may.
  // It may wait for an earlier step to be collected. Empty: any token may. The mask is valid until
  // the chunk's step is collected. REQUIRES: chunk.guided, and it samples.
  virtual std::span<const uint32_t> MaskFor(const ChunkWork& chunk) = 0;
};

// One step, after all checks. A device executes the members in their order. What they point to is
// valid until Submit returns.
struct StepBatch {
  StepId step;
  std::span<const BlockCopy> copies;  // In this order.
  std::vector<BlockId> zeroed;  // Blocks of released sequences with a fault: they may hold a NaN.
  std::vector<AdmitWork> admits;
  // The chunks without a fault: first those of one token and those with drafts
  // (ChunkWork::decodes), then the others, each in the order of the plan. Their rows follow one
  // another in this order. So do their outputs: the scored prompt tokens of a chunk, then its
  // samples.
  std::vector<const ChunkWork*> chunks;
  int32_t rows = 0;             // Number of rows of all chunks.
  int32_t outputs = 0;          // Number of outputs, that is of rows with logits, of all chunks.
  MaskSource* masks = nullptr;  // Set in the last stage if a chunk is guided.
};

// The result of the logits of one row: a sample, or the log-probability of the next prompt token.
// Of a chunk with drafts, the outputs after the first sample that is not the next draft have no
// meaning.
struct RowOutput {
  TokenId token = 0;  // The sample, or the scored prompt token.
  RowFault fault = RowFault::kNone;
  float logprob = 0;                 // Set if the request asks for it, on the answering rank only.
  std::span<const TokenId> top_ids;  // The alternatives that the request asks for, best first.
  std::span<const float> top_logprobs;
};

struct StepOutputs {
  std::span<const RowOutput> rows;  // [batch.outputs]; valid until the next Collect.
  TimeUs collected_at_us = 0;       // When the device or the host saw that the step had ended.
  int64_t compute_us = 0;           // Forward pass and sampler.
  // The part of it spent in collectives and between stages. A GPU counts what its kernels waited
  // for other ranks over peer memory, and may count a wait with an earlier or later step; over NCCL
  // it does not know.
  int64_t collective_us = 0;
  int64_t swap_us = 0;       // Copies between pool and swap space, before the forward pass.
  uint64_t collectives = 0;  // Collectives done in this epoch.
  // From the events of a GPU: the time of the computation, and the time between the end of the
  // previous step and the begin of this one.
  int64_t device_us = 0;
  int64_t device_idle_us = 0;
  bool graph = false;  // Whether the device replayed a graph.
};

class Proposer;

class Device {
 public:
  virtual ~Device() = default;

  // What proposes drafts for this device; null: nothing does.
  virtual Proposer* proposer() { return nullptr; }
  // What reads the grammars of guided sequences; null: the device has none.
  virtual const GrammarEngine* grammars() const { return nullptr; }
  // Whether a slot with penalties may have drafts: each of its samples counts tokens, so those
  // after the first one depend on which drafts are kept.
  virtual bool drafts_penalized() const { return true; }

  // The number of steps that may be submitted and not yet collected. 1: Submit returns after the
  // step was computed.
  virtual int steps_in_flight() const = 0;

  // The collectives of the rank's stage and its links to other stages. Targets are set while an
  // epoch runs.
  virtual EpochComm* comm() = 0;

  // Whether the device connects itself to those of the other ranks. Then nobody sets the targets of
  // comm(); Join connects it for an epoch, and Leave ends that, also after an error of Join, which
  // ends the epoch. ABORTED: the epoch ended. REQUIRES for Join and Leave: no step is in flight.
  virtual bool connects_itself() const { return false; }
  virtual absl::Status Join(GroupLink&) { return absl::OkStatus(); }
  virtual void Leave() {}

  // Computes a step, or queues it. An error ends the epoch. ABORTED: from a collective.
  // INVALID_ARGUMENT: an admit needs more room than the device has.
  virtual absl::Status Submit(const StepBatch& batch) = 0;

  // Waits for the oldest step that is not collected, and returns its outputs.
  virtual StepOutputs Collect() = 0;

  // Describes where rows [first, first + count) of the step that was collected last became
  // non-finite, and what the user can do. Empty if the device does not know.
  virtual std::string NonFiniteDetail(int32_t first, int32_t count) const = 0;

  // Waits until the device does nothing more for the epoch. REQUIRES: every submitted step was
  // collected. The engine also calls it after a Submit that failed.
  virtual void Drain() = 0;
};

}  // namespace fathom::worker
