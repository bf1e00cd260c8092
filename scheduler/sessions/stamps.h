// scheduler/sessions/stamps.h: notes when one sequence waits, has a slot, gets tokens and ends, and
// makes its RequestTimings (cluster/request_timings.h) from it. Every call moves the time since the
// previous change into the part of the phase that ends, so the parts always add up to the whole.
// Pure; time is an argument and never goes back. Thread: not thread-safe; owned by the driver
// thread. A token costs two comparisons and a store.
#pragma once

#include <cstdint>

#include "cluster/request_timings.h"
#include "common/types.h"

namespace fathom::scheduler {

class Stamps {
 public:
  // `earlier_us`: the sequence's time under schedulers that led before.
  void Begin(TimeUs now, int64_t earlier_us);
  // In the queue. `first`: it never had a slot.
  void Wait(TimeUs now, bool first);
  // The wait ends, or is counted so far. REQUIRES: called before the next change of the phase.
  void Waited(const WaitTimes& behind_us);
  // In a slot. `first`: as in Wait.
  void Seat(TimeUs now, GroupId group, EpochId epoch, bool first);
  // Out of the slot, or out of the queue.
  void Leave(TimeUs now, StayEnd why);
  void End(TimeUs now);

  // A chunk of a prompt was planned, and its result came. Results come in the order of the plans.
  void PlanChunk(TimeUs now, int32_t tokens);
  void EndChunk(TimeUs now);

  void Token(TimeUs now, int32_t position) {
    if (timings_.phase == RequestPhase::kPrefill || timings_.phase == RequestPhase::kReplay) {
      BeginDecode(now);
    }
    if (now - last_token_us_ > least_gap_us_) NoteGap(now, position);
    last_token_us_ = now;
  }

  void CountSuspension() { ++timings_.suspensions; }

  // As if the sequence's phase ended now. `behind_us`: of the wait that has not ended.
  RequestTimings At(TimeUs now, const WaitTimes& behind_us = {}) const;

 private:
  void Move(TimeUs now, RequestPhase next);
  void BeginDecode(TimeUs now);
  void NoteGap(TimeUs now, int32_t position);
  void CloseChunks(TimeUs now);

  TimeUs start_us_ = 0;
  TimeUs since_us_ = 0;  // When the phase began.
  TimeUs last_token_us_ = -1;
  int64_t least_gap_us_ = -1;  // A gap that is longer than this enters the list.
  int32_t chunks_ended_ = 0;
  RequestTimings timings_;  // Without the phase that has not ended.
};

}  // namespace fathom::scheduler
