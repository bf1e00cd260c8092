// scheduler/core/placement.h: which group takes which waiting sequence. A group that can be given a
// plan chooses from the queue. It leaves a sequence to another group of its kind where the sequence
// costs less, in tokens: those that must be computed because they are not in the group's blocks,
// kSequenceTokens for each sequence that runs in the group, and those for which the group has no
// free block, because other sequences will be preempted for them. Pure: it reads the groups and the
// queue and changes neither. Thread: not thread-safe; owned by the driver thread.
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
#include "scheduler/core/sequence_prefix.h"
#include "scheduler/core/tenant_shares.h"
#include "scheduler/core/wait_queue.h"

namespace fathom::scheduler {

using Groups = std::map<GroupId, std::unique_ptr<Group>>;

// What one more sequence in the batch costs the others, compared with the tokens of a prompt. At
// the 7B shape on one H200 a token of a prompt takes about 40 us, and a row of a decode step about
// 25 us in each of the 200 steps of a usual answer.
inline constexpr int64_t kSequenceTokens = 128;
// So many tokens more must be computed here than in a group that has no room now, if others are to
// be admitted here before the sequence.
inline constexpr int64_t kWaitTokens = 1024;
// A group that gave no result for so long is not waited for, whatever it has in its blocks.
inline constexpr int64_t kGroupSilentUs = 500'000;

class Placement {
 public:
  // REQUIRES: all outlive this object.
  Placement(const Groups& groups, const WaitQueue& waiting, const SequencePrefixes& prefixes,
            const TenantShares& shares)
      : groups_(groups), waiting_(waiting), prefixes_(prefixes), shares_(shares) {}

  // A group of these limits came up.
  void GroupUp(const GroupLimits& limits) { last_limits_ = limits; }

  // The groups that can be given a plan, in the order in which they choose: the one with the
  // fewest sequences first.
  std::vector<Group*> GroupsInTurn() const;

  // The sequence that a group admits next, and those before it that wait for blocks.
  struct Choice {
    Sequence* sequence = nullptr;  // nullptr: none.
    std::vector<Sequence*> overtaken = {};
  };
  // The choice of `group` for the lane: the first sequence, in the queue's order, that the group
  // may compute, has the size for and has room for now. It overtakes the sequences before it for
  // which the group has no room. If one of these was overtaken `overtakes_max` times already, or
  // had a slot before, the group admits none, so that a long prompt does not wait without end. A
  // lane takes at most its share of the sequences that run and wait, so that no other lane stays
  // empty. Sequences that another group has now room for at a lower cost are left to it. Sequences
  // that a group without room would compute at a much lower cost, because their first tokens are in
  // its blocks, are overtaken by those that are best computed here, `overtakes_max` times at most;
  // if there are none, the first of them is taken, since an idle group helps nobody. A sequence of
  // which another one of the same request computes the prompt waits for it. A group that drains
  // takes none.
  // Sequences of a tenant over its share (TenantShares) are passed, those of the others first, if
  // the plan has no rows for them or their tenant must leave what is free to the others.
  struct Room {
    int32_t lane = 0;
    int32_t overtakes_max = 0;
    bool rows_for_over = true;
    TimeUs now = 0;
  };
  Choice NextFor(const Group& group, const Room& room) const;

  // When a group is not waited for any more; INT64_MAX: none is waited for.
  TimeUs NextTimeUs(TimeUs now) const;

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
  // `more_blocks`: beside the sequence's.
  bool HasRoom(const Group& group, const Sequence& sequence, int32_t more_blocks = 0) const;
  // REQUIRES: the sequence is of a tenant over its share. Whether it must leave the group's free
  // slots or blocks to others.
  bool IsKeptOut(const Group& group, const Sequence& sequence) const;
  int64_t CostOf(const Group& group, const Sequence& sequence,
                 SequencePrefixes::Queries* queries) const;
  enum class Best {
    kHere,
    kElsewhere,       // Another group has room for the sequence at a lower cost.
    kElsewhereLater,  // One without room has a cost that is lower by more than kWaitTokens.
  };
  Best BestFor(const Group& group, const Sequence& sequence, TimeUs now) const;

  const Groups& groups_;
  const WaitQueue& waiting_;
  const SequencePrefixes& prefixes_;
  const TenantShares& shares_;
  std::optional<GroupLimits> last_limits_;
};

}  // namespace fathom::scheduler
