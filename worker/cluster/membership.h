// worker/cluster/membership.h: which scheduler this worker obeys, and which epoch it is in. Control
// streams tell it what they hear; the engine thread asks for the next epoch. Thread: every method
// from any thread. Invariants: the term never goes back; at most one epoch is alive, it is of the
// term, and it ends with the stream that gave it.
#pragma once

#include <chrono>
#include <condition_variable>
#include <memory>
#include <mutex>
#include <string>

#include "cluster/terms.h"
#include "common/status.h"
#include "common/types.h"
#include "worker/engine/epoch.h"

namespace fathom::worker {

class Membership {
 public:
  // A scheduler said `term`. A stale one is to be answered with term(); a higher one ends the epoch
  // of the old.
  [[nodiscard]] TermVerdict Hear(TermId term);
  TermId term() const;

  // The leader, scheduler `source`, gave this worker a seat; the epoch before is over. REQUIRES:
  // Hear(seat.term) was kObeyed.
  void Join(const GroupSeat& seat, int source);
  void PushExchange(EpochId epoch, Epoch::Exchange exchange);
  void Abort(TermId term, EpochId epoch, const std::string& reason);
  // The Control stream to scheduler `source` broke.
  void Lose(int source, const std::string& reason);
  // Ends the epoch and wakes Next for good.
  void Close();

  // The next epoch to run; waits for one. nullptr: closed. The engine thread gets each epoch once;
  // one that was replaced before it got here it never sees.
  std::shared_ptr<Epoch> Next();

 private:
  void EndLocked(const absl::Status& reason);

  mutable std::mutex mutex_;  // Guards what follows.
  std::condition_variable changed_;
  KnownTerm term_;
  std::shared_ptr<Epoch> current_;
  bool taken_ = false;  // Next has given current_ out.
  bool closed_ = false;
};

}  // namespace fathom::worker
