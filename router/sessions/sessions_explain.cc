// The part of Sessions that says where a request's time went.
#include <algorithm>
#include <functional>
#include <utility>

#include "common/reason.h"
#include "router/sessions/sessions.h"

namespace fathom::router {
namespace {

// Only these can have timings that the scheduler has not sent: a refused request has none, and a
// request that ended has brought its own.
bool MayBeHeld(const RequestReport& report) {
  return !report.timings && (report.outcome == "RUNNING" || report.outcome == "SUSPENDED" ||
                             report.outcome == "CANCELLED");
}

RequestReport Refusal(const SessionKey& key, const absl::Status& status, TimeUs now) {
  RequestReport report;
  report.key = key;
  report.outcome = std::string(CodeName(status.code()));
  report.reason = DetailOf(status).value_or(ErrorDetail{}).reason;
  report.message = std::string(Message(status));
  report.begun_us = report.ended_us = now;
  return report;
}

}  // namespace

std::optional<RequestReport> Sessions::Known(const SessionKey& key, TimeUs now) {
  std::lock_guard lock(mutex_);
  if (const auto it = by_key_.find(key); it != by_key_.end()) {
    const SessionPtr& latest = it->second.back();
    if (!latest->over()) return latest->Report(now);
  }
  if (const RequestReport* report = log_.Find(key)) return *report;
  if (const auto it = by_key_.find(key); it != by_key_.end()) return it->second.back()->Report(now);
  return std::nullopt;
}

void Sessions::Explain(const SessionKey& key, ExplainFn done) {
  const TimeUs now = clock_->Now();
  const std::optional<RequestReport> known = Known(key, now);
  Ask ask{key, std::move(done), now};
  if (known && !MayBeHeld(*known)) return Answer(ask, nullptr);
  StreamId stream;
  uint64_t number = 0;
  {
    std::lock_guard lock(mutex_);
    if (up_ && protocol_ >= kProtocol2 && !explains_ended_ &&
        asks_.size() < options_.explains_max) {
      stream = stream_;
      number = next_ask_++;
      asks_.emplace(number, ask);
    }
  }
  if (number != 0 && link_->SendExplain(stream, {number, key})) return;
  if (number != 0) {
    std::lock_guard lock(mutex_);
    if (asks_.erase(number) == 0) return;  // It was answered meanwhile.
  }
  Answer(ask, nullptr);
}

void Sessions::OnExplained(const Explained& explained) {
  Ask ask;
  {
    std::lock_guard lock(mutex_);
    const auto it = asks_.find(explained.ask);
    if (it == asks_.end()) return;
    ask = std::move(it->second);
    asks_.erase(it);
  }
  Answer(ask, &explained);
}

void Sessions::Answer(const Ask& ask, const Explained* explained) {
  const TimeUs now = clock_->Now();
  std::optional<RequestReport> report = Known(ask.key, now);
  if (explained != nullptr && explained->found) {
    if (!report) {  // It runs at another router.
      report.emplace();
      report->key = ask.key;
      report->outcome = explained->timings.phase == RequestPhase::kEnded ? "ENDED" : "RUNNING";
      report->max_tokens = explained->max_tokens;
      report->sequences = 0;  // Not known.
      report->begun_us = now - explained->timings.WholeUs();
    }
    if (!report->timings) {
      report->accepted = true;
      report->Take(explained->timings, now - report->begun_us);
      report->usage.prompt_tokens = explained->prompt_tokens;
      report->usage.completion_tokens = explained->generated_tokens;
    }
  }
  if (report) {
    if (report->ended_us != 0) report->ended_ago_us = now - report->ended_us;
    return ask.done(*std::move(report));
  }
  size_t kept = 0;
  size_t most = 0;
  {
    std::lock_guard lock(mutex_);
    kept = log_.size();
    most = log_.requests_max();
  }
  ask.done(WithReason(
      NotFound("request {} is not known: no process serves it, and it is none of the last {} "
               "requests that ended in this router (it keeps at most {}); ask the router that "
               "served it, and compare the id with that of Started",
               ask.key.request_id, kept, most),
      Reason::kSessionNotFound, "request_id"));
}

void Sessions::ExpireAsks(TimeUs now, int64_t wait_us) {
  std::vector<Ask> expired;
  {
    std::lock_guard lock(mutex_);
    // The oldest ask has the lowest number.
    while (!asks_.empty() && now - asks_.begin()->second.since_us >= wait_us) {
      expired.push_back(std::move(asks_.begin()->second));
      asks_.erase(asks_.begin());
    }
  }
  for (const Ask& ask : expired) Answer(ask, nullptr);
}

void Sessions::EndExplains() {
  {
    std::lock_guard lock(mutex_);
    explains_ended_ = true;
  }
  ExpireAsks(clock_->Now(), 0);
}

std::vector<RequestReport> Sessions::Recent(const std::string& tenant, size_t most) const {
  const TimeUs now = clock_->Now();
  std::vector<RequestReport> recent;
  std::lock_guard lock(mutex_);
  for (const SessionPtr& session : open_) {
    if (recent.size() >= most) break;
    if (session->key().tenant != tenant || session->repeats() || session->over()) continue;
    recent.push_back(session->Report(now));
  }
  std::ranges::sort(recent, std::greater{}, &RequestReport::begun_us);
  for (RequestReport& ended : log_.Newest(tenant, most)) {
    ended.ended_ago_us = now - ended.ended_us;
    recent.push_back(std::move(ended));
  }
  return recent;
}

// ---- Requests that ended

void Sessions::NoteGone(const SessionPtr& session, TimeUs now) {
  if (session->repeats()) return;  // The report of the first stream stays.
  RequestReport report;
  bool complete = false;
  {
    // The report is made under the lock, so that NoteFinished in another thread, which comes when
    // the session has the scheduler's end, finds it in the log if it is owed.
    std::lock_guard lock(mutex_);
    report = session->LastReport(now, &complete);
    report.ended_us = now;
    log_.Add(report);
  }
  if (reports_ != nullptr && complete) reports_->Ended(report);
}

void Sessions::NoteFinished(const SessionPtr& session, TimeUs now) {
  RequestReport report;
  {
    std::lock_guard lock(mutex_);
    if (!session->TakeOwedReport()) return;  // NoteGone is still to come, and has the timings then.
    report = session->Report(now);
    const RequestReport* before = log_.Find(session->key());
    report.ended_us = before != nullptr ? before->ended_us : now;
    log_.Add(report);
  }
  if (reports_ != nullptr) reports_->Ended(report);
}

void Sessions::NoteRefused(const SessionKey& key, const absl::Status& status) {
  RequestReport report = Refusal(key, status, clock_->Now());
  std::lock_guard lock(mutex_);
  if (!by_key_.contains(key)) log_.AddRefused(std::move(report));
}

}  // namespace fathom::router
