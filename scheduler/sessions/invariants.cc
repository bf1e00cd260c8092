// What must hold of the sessions after every event; the core's CheckInvariants calls it. Nothing
// here decides.
#include <map>
#include <set>
#include <string>

#include "scheduler/sessions/session_table.h"

namespace fathom::scheduler {

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
