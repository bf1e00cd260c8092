// worker/cluster/membership.h: which scheduler this worker obeys, and its current epoch. Control
// streams report what they receive; the engine thread asks for the next epoch. Thread: any thread
// may call any method. Invariants: the term never decreases; at most one epoch is alive, it belongs
// to the current term, and it ends when the stream that gave it breaks.
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
  // A scheduler has sent `term`. The caller answers a stale one with term(). A higher one ends the
  // epoch of the old term.
  [[nodiscard]] TermVerdict Hear(TermId term);
  TermId term() const;

  // Scheduler `source`, which leads, gave this worker a seat; the previous epoch ends. REQUIRES:
  // Hear(seat.term) was kObeyed.
  void Join(const GroupSeat& seat, int source);
  void PushExchange(EpochId epoch, Epoch::Exchange exchange);
  void Abort(TermId term, EpochId epoch, const std::string& reason);
  // The Control stream to scheduler `source` broke.
  void Lose(int source, const std::string& reason);
  // Ends the epoch. Next returns nullptr from now on.
  void Close();

  // Waits for the next epoch and returns it. nullptr: closed. The engine thread gets each epoch
  // once. It does not get an epoch that was replaced before the call.
  std::shared_ptr<Epoch> Next();

 private:
  void EndLocked(const absl::Status& reason);

  mutable std::mutex mutex_;  // Guards what follows.
  std::condition_variable changed_;
  KnownTerm term_;
  std::shared_ptr<Epoch> current_;
  bool taken_ = false;  // Next has returned current_.
  bool closed_ = false;
};

}  // namespace fathom::worker
