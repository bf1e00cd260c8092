// The invariants of the sessions, which must hold after every event. The core's CheckInvariants
// calls them. Nothing here changes a session.
#include <map>
#include <set>
#include <string>

#include "scheduler/sessions/sessions.h"

namespace fathom::scheduler {

absl::Status Sessions::CheckInvariants() const {
  FATHOM_RETURN_IF_ERROR(table_.Check());
  absl::Status status;
  table_.ForEach([&](const Session& session) {
    if (status.ok()) status = CheckSession(session);
  });
  FATHOM_RETURN_IF_ERROR(status);
  if (!dirty_.empty()) return Internal("frames are owed");
  return absl::OkStatus();
}

absl::Status Sessions::CheckSession(const Session& session) const {
  const std::string& id = session.record.key.request_id;
  const Request& request = session.record.request;
  if (session.sequences.size() != static_cast<size_t>(request.sequences) ||
      session.record.sequences.size() != session.sequences.size()) {
    return Internal("session {} has {} sequences of {}", id, session.sequences.size(),
                    request.sequences);
  }
  bool live = false;
  for (const Sequence& sequence : session.sequences) {
    live = live || (!sequence.finished() && !sequence.suspended());
    const SequenceRecord& record = sequence.record();
    if (record.ids.size() > static_cast<size_t>(request.stop.max_tokens)) {
      return Internal("session {} has {} tokens of {}", id, record.ids.size(),
                      request.stop.max_tokens);
    }
    if (record.logprobs.size() != (request.output.logprobs ? record.ids.size() : 0)) {
      return Internal("session {} has {} log-probabilities of {}", id, record.logprobs.size(),
                      record.ids.size());
    }
    if (sequence.finished() != (record.finish != FinishReason::kNone)) {
      return Internal("session {}'s record does not say whether it ended", id);
    }
  }
  if (live != (session.keep_until_us == 0)) {
    return Internal("session {} is {} and its keep time {}", id, live ? "live" : "not live",
                    session.keep_until_us);
  }
  if (live == session.subscribers.empty()) {
    return Internal("session {} is {} with {} subscribers", id, live ? "live" : "not live",
                    session.subscribers.size());
  }
  if (!live && session.deadline_us != 0)
    return Internal("session {} is over and has a deadline", id);
  if (session.deadline_us != 0 && session.deadline_us <= now_) {
    return Internal("session {} outlived its deadline", id);
  }
  for (const Subscriber& subscriber : session.subscribers) {
    if (subscriber.cursors.size() != session.sequences.size()) {
      return Internal("session {}: a subscriber follows {} sequences", id,
                      subscriber.cursors.size());
    }
    for (const Sequence& sequence : session.sequences) {
      const Cursor& cursor = subscriber.cursors[static_cast<size_t>(sequence.index)];
      if (!subscriber.lost && cursor.next < static_cast<int32_t>(sequence.record().ids.size())) {
        return Internal("session {}: a subscriber was not sent token {}", id, cursor.next);
      }
    }
  }
  return absl::OkStatus();
}

absl::Status SessionTable::Check() const {
  int64_t bytes = 0;
  size_t deadlines = 0, kept = 0;
  std::map<PeerId, std::set<uint64_t>> routers;
  for (const auto& [number, session] : by_number_) {
    const std::string& id = session->record.key.request_id;
    auto key = by_key_.find(session->record.key);
    if (key == by_key_.end() || key->second != number) {
      return Internal("session {} is not under its key", id);
    }
    bytes += session->bytes;
    const int64_t expected = BytesOf(session->record, session->router_blob);
    if (session->bytes != expected) {
      return Internal("session {} is accounted with {} bytes, has {}", id, session->bytes,
                      expected);
    }
    if (session->deadline_us != 0) {
      ++deadlines;
      if (!deadlines_.contains({session->deadline_us, number})) {
        return Internal("session {}'s deadline is not indexed", id);
      }
    }
    if (session->keep_until_us != 0) {
      ++kept;
      if (!kept_.contains({session->keep_until_us, number})) {
        return Internal("session {}'s keep time is not indexed", id);
      }
    }
    for (const Subscriber& subscriber : session->subscribers) {
      routers[subscriber.router].insert(number);
    }
  }
  if (bytes != total_bytes_) return Internal("{} bytes accounted, {} held", total_bytes_, bytes);
  if (deadlines != deadlines_.size() || kept != kept_.size()) {
    return Internal("a time index has entries of nobody");
  }
  if (by_key_.size() != by_number_.size()) return Internal("a key names no session");
  if (routers != by_router_) return Internal("the index by router disagrees with the subscribers");
  return absl::OkStatus();
}

}  // namespace fathom::scheduler
