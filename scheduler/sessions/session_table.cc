#include "scheduler/sessions/session_table.h"

#include <algorithm>
#include <limits>

#include "common/check.h"

namespace fathom::scheduler {
namespace {

// An estimate of the containers, indexes, counters and stamps of an empty session with one
// sequence, and of those of each further sequence.
constexpr int64_t kSessionBytes = 2048;
constexpr int64_t kSequenceBytes = 1024;

bool ServesRouter(const Session& session, PeerId router) {
  return std::any_of(session.subscribers.begin(), session.subscribers.end(),
                     [&](const Subscriber& s) { return s.router == router; });
}

}  // namespace

Session* SessionTable::Find(const SessionKey& key) {
  auto it = by_key_.find(key);
  return it == by_key_.end() ? nullptr : Find(it->second);
}

const Session* SessionTable::Find(const SessionKey& key) const {
  auto it = by_key_.find(key);
  return it == by_key_.end() ? nullptr : by_number_.at(it->second).get();
}

Session* SessionTable::Find(uint64_t number) {
  auto it = by_number_.find(number);
  return it == by_number_.end() ? nullptr : it->second.get();
}

Session& SessionTable::Create(Record record, std::string router_blob) {
  FATHOM_CHECK(record.request.sequences >= 1, "{} sequences", record.request.sequences);
  FATHOM_CHECK(!by_key_.contains(record.key), "session {} exists", record.key.request_id);
  auto session = std::make_unique<Session>();
  const int32_t sequences = record.request.sequences;
  session->number = next_number_;
  next_number_ += static_cast<uint64_t>(sequences);
  session->record = std::move(record);
  session->record.sequences.resize(static_cast<size_t>(sequences));
  session->router_blob = std::move(router_blob);
  for (int32_t i = 0; i < sequences; ++i) {
    session->sequences.push_back({.session = session.get(),
                                  .index = i,
                                  .number = session->number + static_cast<uint64_t>(i),
                                  .state = SuspendedState{}});
  }
  AddBytes(*session, BytesOf(session->record, session->router_blob));
  by_key_.emplace(session->record.key, session->number);
  return *by_number_.emplace(session->number, std::move(session)).first->second;
}

void SessionTable::Remove(Session& session) {
  FATHOM_CHECK(session.subscribers.empty(), "session {} has subscribers",
               session.record.key.request_id);
  for (const Sequence& sequence : session.sequences) {
    FATHOM_CHECK(sequence.finished() || sequence.suspended(), "session {} is live",
                 session.record.key.request_id);
  }
  SetDeadline(session, 0);
  SetKeepUntil(session, 0);
  AddBytes(session, -session.bytes);
  by_key_.erase(session.record.key);
  by_number_.erase(session.number);
}

void SessionTable::Subscribe(Session& session, Subscriber subscriber) {
  for (Subscriber& held : session.subscribers) {
    if (held.router == subscriber.router && held.attempt == subscriber.attempt) {
      held = std::move(subscriber);
      return;
    }
  }
  by_router_[subscriber.router].insert(session.number);
  session.subscribers.push_back(std::move(subscriber));
}

bool SessionTable::Unsubscribe(Session& session, PeerId router, AttemptId attempt) {
  const size_t erased = std::erase_if(session.subscribers, [&](const Subscriber& s) {
    return s.router == router && s.attempt == attempt;
  });
  if (erased == 0) return false;
  DropFromRouterIndex(session, router);
  return true;
}

void SessionTable::UnsubscribeAll(Session& session) {
  const std::vector<Subscriber> gone = std::move(session.subscribers);
  session.subscribers.clear();
  for (const Subscriber& subscriber : gone) DropFromRouterIndex(session, subscriber.router);
}

void SessionTable::DropFromRouterIndex(const Session& session, PeerId router) {
  auto it = by_router_.find(router);
  if (it == by_router_.end() || ServesRouter(session, router)) return;
  it->second.erase(session.number);
  if (it->second.empty()) by_router_.erase(it);
}

void SessionTable::RouterLost(PeerId router, TimeUs grace_until_us) {
  auto it = by_router_.find(router);
  if (it == by_router_.end()) return;
  for (uint64_t number : it->second) {
    for (Subscriber& subscriber : Find(number)->subscribers) {
      if (subscriber.router == router) subscriber.lost = true;
    }
    grace_.emplace(grace_until_us, router, number);
  }
}

std::vector<uint64_t> SessionTable::ExpireGrace(TimeUs now) {
  std::vector<uint64_t> numbers;
  while (!grace_.empty() && std::get<0>(*grace_.begin()) <= now) {
    const auto [until_us, router, number] = *grace_.begin();
    grace_.erase(grace_.begin());
    Session* session = Find(number);
    if (session == nullptr) continue;
    const PeerId gone = router;
    const size_t erased = std::erase_if(
        session->subscribers, [&](const Subscriber& s) { return s.lost && s.router == gone; });
    if (erased == 0) continue;
    DropFromRouterIndex(*session, router);
    numbers.push_back(number);
  }
  return numbers;
}

void SessionTable::SetDeadline(Session& session, TimeUs deadline_us) {
  Move(deadlines_, session.number, session.deadline_us, deadline_us);
  session.deadline_us = deadline_us;
}

void SessionTable::SetKeepUntil(Session& session, TimeUs keep_until_us) {
  Move(kept_, session.number, session.keep_until_us, keep_until_us);
  session.keep_until_us = keep_until_us;
}

void SessionTable::Move(TimeIndex& index, uint64_t number, TimeUs from, TimeUs to) {
  if (from != 0) index.erase({from, number});
  if (to != 0) index.emplace(to, number);
}

Session* SessionTable::Due(const TimeIndex& index, TimeUs now) {
  if (index.empty() || index.begin()->first > now) return nullptr;
  return Find(index.begin()->second);
}

Session* SessionTable::DeadlinePassed(TimeUs now) { return Due(deadlines_, now); }
Session* SessionTable::KeepPassed(TimeUs now) { return Due(kept_, now); }
Session* SessionTable::OldestKept() { return Due(kept_, std::numeric_limits<TimeUs>::max()); }

TimeUs SessionTable::NextTimeUs() const {
  TimeUs next = std::numeric_limits<TimeUs>::max();
  if (!deadlines_.empty()) next = std::min(next, deadlines_.begin()->first);
  if (!kept_.empty()) next = std::min(next, kept_.begin()->first);
  if (!grace_.empty()) next = std::min(next, std::get<0>(*grace_.begin()));
  return next;
}

void SessionTable::AddBytes(Session& session, int64_t bytes) {
  session.bytes += bytes;
  total_bytes_ += bytes;
}

int64_t SessionTable::BytesOf(const TokenLogprob& logprob) {
  return static_cast<int64_t>(sizeof(TokenLogprob) + logprob.top_ids.size() * sizeof(TokenId) +
                              logprob.top_logprobs.size() * sizeof(float));
}

int64_t SessionTable::BytesOf(const Record& record, const std::string& router_blob) {
  const StopParams& stop = record.request.stop;
  int64_t bytes = kSessionBytes + (record.request.sequences - 1) * kSequenceBytes +
                  static_cast<int64_t>(router_blob.size()) +
                  static_cast<int64_t>(2 * record.key.tenant.size()) +
                  static_cast<int64_t>(2 * record.key.request_id.size()) +
                  static_cast<int64_t>(record.cache.salt.size());
  if (record.grammar) bytes += std::ssize(record.grammar->bytes);
  bytes +=
      static_cast<int64_t>(sizeof(TokenId) * (record.prompt_ids.size() + stop.end_token_ids.size() +
                                              stop.stop_token_ids.size() +
                                              2 * record.request.sampling.logit_bias.size()));
  for (const SequenceRecord& sequence : record.sequences) {
    bytes += static_cast<int64_t>(sizeof(TokenId) * sequence.ids.size());
    for (const TokenLogprob& logprob : sequence.logprobs) bytes += BytesOf(logprob);
  }
  for (const TokenLogprob& logprob : record.prompt_logprobs) bytes += BytesOf(logprob);
  return bytes;
}

void SessionTable::ForEach(const std::function<void(const Session&)>& visit) const {
  for (const auto& [number, session] : by_number_) visit(*session);
}

}  // namespace fathom::scheduler
