// scheduler/core/placement.h: which group takes which waiting sequence. A group that can be given a
// plan chooses from the queue. A placement by prefixes or by load would replace only this class.
// Pure: it reads the groups and the queue and changes neither. Thread: not thread-safe; owned by
// the driver thread.
#pragma once

#include <map>
#include <memory>
#include <optional>
#include <vector>

#include "cluster/request.h"
#include "cluster/request_timings.h"
#include "common/status.h"
#include "common/types.h"
#include "scheduler/core/group.h"
#include "scheduler/core/wait_queue.h"

namespace fathom::scheduler {

using Groups = std::map<GroupId, std::unique_ptr<Group>>;

class Placement {
 public:
  // REQUIRES: both outlive this object.
  Placement(const Groups& groups, const WaitQueue& waiting) : groups_(groups), waiting_(waiting) {}

  // A group of these limits came up.
  void GroupUp(const GroupLimits& limits) { last_limits_ = limits; }

  // The groups that can be given a plan, in the order in which they choose: the one with the
  // fewest sequences first.
  std::vector<Group*> GroupsInTurn() const;

  // The sequence that `group` admits next into `lane`; nullptr: none. It is the first one, in the
  // queue's order, that the group may compute and has the size for. If the group has no room for it
  // now, the group admits none: if smaller sequences could overtake it, a long prompt could wait
  // without end. A lane takes at most its share of the sequences that run and wait, so that no
  // other lane stays empty. A group that drains takes none.
  Sequence* NextFor(const Group& group, int32_t lane) const;

  // Whether a group other than `from` computes the same bits as `from`, has the size for the
  // sequence, and does not drain.
  bool CanMove(const Sequence& sequence, const Group& from) const;

  // What keeps `group` from the sequence that it takes next. kNoGroup: none of those that wait is
  // for it.
  WaitLimit LimitOf(const Group& group) const;

  // OK: a live group has the size for the request, or no group ever came up. While no group is
  // live, the limits of the group that came up last decide. An error says what would fit.
  absl::Status CheckFits(const Record& record) const;

 private:
  // The first sequence, in the queue's order, that the group may compute and has the size for.
  Sequence* FirstFor(const Group& group) const;

  const Groups& groups_;
  const WaitQueue& waiting_;
  std::optional<GroupLimits> last_limits_;
};

}  // namespace fathom::scheduler
