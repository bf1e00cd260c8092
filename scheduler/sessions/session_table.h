// scheduler/sessions/session_table.h: owns all sessions and the indexes over them: by key, by
// number, by router, and by the times of deadlines, of graces and of records to remove. It also
// counts the memory of the sessions. Thread: not thread-safe; owned by the driver thread. Only
// Check and ForEach visit all sessions.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <tuple>
#include <utility>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "common/status.h"
#include "common/types.h"
#include "scheduler/sessions/session.h"

namespace fathom::scheduler {

class SessionTable {
 public:
  // nullptr: none.
  Session* Find(const SessionKey& key);
  const Session* Find(const SessionKey& key) const;
  Session* Find(uint64_t number);

  // A new session of `record`, sequences suspended, no subscriber, on no time index.
  // REQUIRES: no session has the key; request.sequences >= 1.
  Session& Create(Record record, std::string router_blob);

  // REQUIRES: no sequence runs or waits, no subscriber.
  void Remove(Session& session);

  // Replaces a subscriber of the same router and attempt.
  void Subscribe(Session& session, Subscriber subscriber);
  // False: there was none.
  bool Unsubscribe(Session& session, PeerId router, AttemptId attempt);
  void UnsubscribeAll(Session& session);

  // Marks the subscribers of a router as lost until `grace_until_us`.
  void RouterLost(PeerId router, TimeUs grace_until_us);
  // Drops the subscribers whose grace ended. Returns the numbers of their sessions.
  std::vector<uint64_t> ExpireGrace(TimeUs now);

  // 0: none.
  void SetDeadline(Session& session, TimeUs deadline_us);
  // 0: the session is live and is kept without a limit.
  void SetKeepUntil(Session& session, TimeUs keep_until_us);
  // A session whose deadline, or whose keep time, is at or before `now`; nullptr: none.
  Session* DeadlinePassed(TimeUs now);
  Session* KeepPassed(TimeUs now);
  // The session with the earliest keep time; nullptr: no session has one.
  Session* OldestKept();
  // The earliest deadline, keep time or end of a grace; INT64_MAX: none.
  TimeUs NextTimeUs() const;

  // Counts `bytes` more for the session; fewer if negative.
  void AddBytes(Session& session, int64_t bytes);
  int64_t total_bytes() const { return total_bytes_; }
  // The bytes that are counted for a session of this record.
  static int64_t BytesOf(const Record& record, const std::string& router_blob);
  static int64_t BytesOf(const TokenLogprob& logprob);

  size_t size() const { return by_number_.size(); }
  void ForEach(const std::function<void(const Session&)>& visit) const;

  // INTERNAL naming the first index that disagrees with the sessions.
  absl::Status Check() const;

 private:
  using TimeIndex = std::set<std::pair<TimeUs, uint64_t>>;

  static void Move(TimeIndex& index, uint64_t number, TimeUs from, TimeUs to);
  Session* Due(const TimeIndex& index, TimeUs now);
  // Takes the session out of the router's entry if the session has no subscriber of the router.
  void DropFromRouterIndex(const Session& session, PeerId router);

  absl::flat_hash_map<uint64_t, std::unique_ptr<Session>> by_number_;
  absl::flat_hash_map<SessionKey, uint64_t> by_key_;
  std::map<PeerId, std::set<uint64_t>> by_router_;
  std::set<std::tuple<TimeUs, PeerId, uint64_t>> grace_;
  TimeIndex deadlines_;
  TimeIndex kept_;
  uint64_t next_number_ = 1;
  int64_t total_bytes_ = 0;
};

}  // namespace fathom::scheduler
