// worker/engine/engine.h: executes the plans of one epoch on one rank, strictly in order, on any
// device (worker/engine/device.h). It checks a plan, updates the slots, gives the device a batch,
// and makes the result from the outputs of the device. An Engine lives for one epoch and starts
// with empty slots. Every rank executes the same plans. The ranks of the last stage have the same
// logits and therefore sample the same tokens; only the first of them, the answering rank
// (common/group_shape.h), puts rows into its result.
// Speculation: in a group that speculates the engine learns the tokens of each collected step, asks
// the proposer of the device for drafts of the decode rows that the plan grants some, and keeps
// those that are the samples. Every rank does so alike. Before a row with drafts it waits until all
// earlier steps with samples of the slot are collected.
// Guided output: a rank of the last stage follows the outputs of sequences with a grammar
// (worker/engine/guides.h): it learns the tokens of each collected step and gives the device masks.
// Errors: a Status means that the epoch must end: the plan is wrong, or a collective was aborted.
// An error in one sequence only is a fault of its row.
// Thread: the engine thread calls Submit. The thread that collects (worker/engine/device.h) calls
// Collect, in the order of the Submits. The two share only the caller's SubmittedStep, `faults_`
// and what `mutex_` guards.
#pragma once

#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <memory>
#include <mutex>
#include <span>
#include <vector>

#include "cluster/plan.h"
#include "common/status.h"
#include "worker/engine/device.h"
#include "worker/engine/epoch.h"
#include "worker/engine/guides.h"
#include "worker/engine/slots.h"
#include "worker/engine/step_stream.h"

namespace fathom::worker {

// What Collect needs to know of a step. The caller reuses it, so that its memory is allocated once.
struct SubmittedStep {
  TermId term;
  EpochId epoch;
  StepId step;
  std::vector<ChunkWork> chunks;  // In the order of the plan.
  int32_t outputs = 0;            // Number of outputs of all chunks.
};

class Engine {
 public:
  // `device` outlives the engine and is idle. REQUIRES: the device was made for the place and the
  // shape of the seat, and its limits are not below those of the seat.
  Engine(Device* device, const GroupSeat& seat);

  // Executes the next plan: checks it, updates the slots and submits the step. REQUIRES: fewer than
  // steps_in_flight() steps of the device are not collected.
  absl::Status Submit(const StepPlan& plan, SubmittedStep* step);

  // Waits for the oldest step that is not collected, which must be `step`, and returns its result.
  // Writes what the device measured to `stream`.
  StepResult Collect(const SubmittedStep& step, StepStream* stream);

 private:
  absl::Status ApplyDeltas(const StepPlan& plan);
  absl::Status ApplyAdmits(const StepPlan& plan);
  absl::Status BeginChunks(const StepPlan& plan, SubmittedStep* step);
  void PlaceChunks(SubmittedStep* step);
  bool speculates() const { return seat_.limits.draft_max > 0; }
  // Takes what Collect has learned. Waits for the steps that feed the plan's rows with drafts.
  void TakeLearned(const StepPlan& plan);
  // The drafts of each chunk of the plan.
  absl::Status ProposeDrafts(const StepPlan& plan);
  void Learn(StepId step, std::vector<LearnedSamples> samples);
  void ZeroAfterFault(const Slot& slot, SlotId id);
  void NoteOutcome(const ChunkWork& chunk, const ResultRow& row);
  void NoteGuided(const ChunkWork& chunk, ResultRow* row);

  Device& device_;
  const GroupSeat seat_;
  Slots slots_;
  std::unique_ptr<Guides> guides_;  // Null: the rank samples nothing, or has no grammar engine.
  StepId next_step_{0};
  StepBatch batch_;  // Of the current step; a member so that its memory is reused.
  // What Collect knows of the present sequence of a slot. Used only by the thread that collects.
  struct Outcome {
    uint32_t admission = 0;
    int32_t clean_tokens = 0;  // The last clean sample attended to so many tokens.
    bool faulted = false;
  };
  std::vector<Outcome> outcomes_;  // [slots + 1]
  // [slots + 1]. When a row of a slot faults, Collect stores the admission and the clean tokens of
  // the sequence (FaultMark); 0: none. Submit takes the mark when the slot is released, and has the
  // blocks from the first token that is not clean on zeroed: they may hold a NaN, which the next
  // sequence must not read. The blocks before are finite and may be shared: the scheduler lets
  // other sequences find a block only when a clean sample has attended to all of it.
  std::vector<std::atomic<uint64_t>> faults_;
  // Of the current step, if the group speculates. One for each row that asks for drafts.
  std::vector<DraftWork> drafts_;
  std::vector<size_t> draft_chunks_;  // The chunk of each of them.
  std::mutex mutex_;                  // Guards what follows.
  std::condition_variable learned_more_;
  std::vector<LearnedSamples> learned_;
  uint64_t learned_steps_ = 0;  // Steps of the epoch whose samples were learned.
};

}  // namespace fathom::worker
