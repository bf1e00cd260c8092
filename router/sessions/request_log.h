// router/sessions/request_log.h: the reports of the last requests that ended in this router, within
// a number and a number of bytes; the oldest is dropped first. Thread: not thread-safe; Sessions
// guards it with the mutex of its tables.
#pragma once

#include <cstddef>
#include <cstdint>
#include <list>
#include <string>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "router/sessions/request_report.h"

namespace fathom::router {

struct RequestLogOptions {
  size_t requests_max = 10'000;
  size_t bytes_max = size_t{32} << 20;
  size_t message_bytes_max = 512;  // Of an error; the rest is cut.
};

class RequestLog {
 public:
  explicit RequestLog(const RequestLogOptions& options) : options_(options) {}

  // Replaces the report of the same key.
  void Add(RequestReport report);
  // Does nothing if there is a report of the key, unless it is one of a refusal too.
  void AddRefused(RequestReport report);
  // The tenant's newest reports, the newest first: at most `most`, among the last kNewestLooks of
  // all tenants, so that the call is short.
  static constexpr size_t kNewestLooks = 1000;
  std::vector<RequestReport> Newest(const std::string& tenant, size_t most) const;
  // nullptr: none. The pointer is valid until the next change.
  RequestReport* Find(const SessionKey& key);

  size_t size() const { return by_key_.size(); }
  size_t bytes() const { return bytes_; }
  size_t requests_max() const { return options_.requests_max; }

 private:
  struct Entry {
    RequestReport report;
    size_t bytes = 0;
    bool refused = false;
  };
  using Entries = std::list<Entry>;  // The oldest first.

  void Put(RequestReport report, bool refused);
  void Drop(Entries::iterator entry);

  const RequestLogOptions options_;
  Entries entries_;
  absl::flat_hash_map<SessionKey, Entries::iterator> by_key_;
  size_t bytes_ = 0;
};

}  // namespace fathom::router
