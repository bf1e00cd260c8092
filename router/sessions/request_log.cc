#include "router/sessions/request_log.h"

#include <iterator>
#include <utility>

#include "common/utf8.h"

namespace fathom::router {
namespace {

// The lists of the timings are counted with the most that they may have, because timings may come
// later than the report.
constexpr size_t kEntryBytes = sizeof(RequestReport) + 128 + kStaysMax * sizeof(Stay) +
                               kChunksMax * sizeof(PromptChunk) + kTokenGapsMax * sizeof(TokenGap);

size_t BytesOf(const RequestReport& report) {
  return kEntryBytes + 2 * (report.key.tenant.size() + report.key.request_id.size()) +
         report.model.size() + report.reason.size() + report.message.size();
}

}  // namespace

void RequestLog::Add(RequestReport report) { Put(std::move(report), /*refused=*/false); }

void RequestLog::AddRefused(RequestReport report) {
  const auto it = by_key_.find(report.key);
  if (it != by_key_.end() && !it->second->refused) return;
  Put(std::move(report), /*refused=*/true);
}

RequestReport* RequestLog::Find(const SessionKey& key) {
  const auto it = by_key_.find(key);
  return it == by_key_.end() ? nullptr : &it->second->report;
}

std::vector<RequestReport> RequestLog::Newest(const std::string& tenant, size_t most) const {
  std::vector<RequestReport> newest;
  size_t looks = 0;
  for (auto it = entries_.rbegin(); it != entries_.rend() && looks < kNewestLooks; ++it, ++looks) {
    if (newest.size() >= most) break;
    if (it->report.key.tenant == tenant) newest.push_back(it->report);
  }
  return newest;
}

void RequestLog::Put(RequestReport report, bool refused) {
  if (const auto it = by_key_.find(report.key); it != by_key_.end()) Drop(it->second);
  report.message = Shortened(report.message, options_.message_bytes_max);
  const size_t bytes = BytesOf(report);
  entries_.push_back({std::move(report), bytes, refused});
  bytes_ += bytes;
  by_key_[entries_.back().report.key] = std::prev(entries_.end());
  while (entries_.size() > options_.requests_max || bytes_ > options_.bytes_max) {
    Drop(entries_.begin());
  }
}

void RequestLog::Drop(Entries::iterator entry) {
  bytes_ -= entry->bytes;
  by_key_.erase(entry->report.key);
  entries_.erase(entry);
}

}  // namespace fathom::router
