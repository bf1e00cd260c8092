// worker/engine/group_link.h: how the devices of a group's ranks find each other when an epoch
// begins, through the scheduler, which relays their bytes. Thread: the engine thread.
#pragma once

#include <functional>
#include <string>
#include <vector>

#include "cluster/control_messages.h"
#include "common/status.h"

namespace fathom::worker {

class GroupLink {
 public:
  virtual ~GroupLink() = default;

  // The place of this rank; the limits are equal on all ranks.
  virtual const GroupSeat& seat() const = 0;

  // Sends `mine` to every rank, and returns the bytes of all ranks in rank order. Every rank makes
  // the same calls in the same order. ABORTED: the epoch ended. DEADLINE_EXCEEDED: a rank sent
  // nothing; the message names it.
  virtual absl::StatusOr<std::vector<std::string>> Exchange(std::string mine) = 0;

  // Runs once if the epoch ends, in another thread, while this object lives; it must be short.
  virtual void OnAbort(std::function<void()> callback) = 0;
};

}  // namespace fathom::worker
