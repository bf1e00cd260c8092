// scheduler/core/admission.h: the limits that a new request must keep, over all requests and for
// each tenant: how many wait, how many prompt tokens wait, and tokens per minute. It also counts
// the running sequences of each tenant. A refusal is RESOURCE_EXHAUSTED with the limit's name and a
// delay after which the same request is admitted (RetryPromises). Pure: time is an argument.
// Thread: not thread-safe; owned by the driver thread.
//
// State: one entry for each tenant that has a sequence, a promise or a debt, times a constant.
#pragma once

#include <array>
#include <cstdint>
#include <functional>
#include <map>
#include <string>
#include <string_view>

#include "cluster/request.h"
#include "common/status.h"
#include "common/types.h"
#include "scheduler/core/retry_promises.h"
#include "scheduler/core/tenant_limits.h"
#include "scheduler/core/token_bucket.h"

namespace fathom::scheduler {

// The limits that refuse a new request, for metrics.
enum class RefusedBy {
  kQueueRequests,   // --waiting-requests-max
  kQueueTokens,     // --waiting-tokens-max
  kTenantRequests,  // queued_max of the tenant
  kTenantTokens,    // queued_tokens_max of the tenant
  kTenantRate,      // tokens_per_minute of the tenant
  kDeadline,        // The request's own deadline.
  kOther,           // Its record, its size, the memory of sessions.
};
inline constexpr size_t kRefusedBy = 7;
// "queue_requests", "queue_tokens", ...
const char* RefusedByName(RefusedBy by);

class Admission {
 public:
  Admission(int64_t requests_max, int64_t tokens_max)
      : requests_max_(requests_max), tokens_max_(tokens_max) {}

  const TenantTable& table() const { return table_; }
  void SetTable(TenantTable table, TimeUs now);

  // OK: every limit has room for the request. The caller then calls Queued for its sequences.
  // `keep_some`: one tenant may take only a part of the queue's limits.
  absl::Status Check(const Record& record, bool keep_some, TimeUs now);
  // The request was accepted; promises that it had are kept.
  void Accepted(const SessionKey& key);

  // A new sequence with a prompt of so many tokens waits, or waits no more.
  void Queued(const std::string& tenant, int64_t tokens, TimeUs now);
  void Unqueued(const std::string& tenant, int64_t tokens, TimeUs now);
  // A sequence takes a slot, or leaves it.
  void Seated(const std::string& tenant) { ++Of(tenant).running; }
  void Vacated(const std::string& tenant);
  // Whether the tenant runs as many sequences as it may.
  bool AtRunningMax(const std::string& tenant) const;
  void ForEachRunning(const std::function<void(const std::string&)>& visit) const;
  // Counts for tokens_per_minute; negative: they were not computed.
  void TakeTokens(const std::string& tenant, int64_t tokens, TimeUs now);

  std::array<uint64_t, kRefusedBy> refused() const { return refused_; }
  void CountRefused(RefusedBy by) { ++refused_[static_cast<size_t>(by)]; }
  RetryPromises::Counts promises() const;
  size_t tenants() const { return tenants_.size(); }
  // INTERNAL: the counts differ from those of the queue.
  absl::Status CheckCounts(int64_t queued, int64_t queued_tokens, int64_t running) const;

 private:
  // Until a rate was measured: ten requests, or ten thousand tokens, are admitted in a second.
  static constexpr double kRequestUs = 100'000;
  static constexpr double kTokenUs = 100;

  // Requests and prompt tokens that wait.
  struct Queue {
    int64_t requests = 0;
    int64_t tokens = 0;
    RetryPromises requests_line{kRequestUs};
    RetryPromises tokens_line{kTokenUs};
    void Add(int64_t requests_more, int64_t tokens_more, TimeUs now);
  };
  struct Tenant {
    int64_t running = 0;
    Queue queue;
    TokenBucket bucket;
    RetryPromises bucket_line{kTokenUs};
  };
  using Tenants = std::map<std::string, Tenant, std::less<>>;

  Tenant& Of(const std::string& name);
  absl::Status CheckRate(const Record& record, int64_t tokens, Tenant& tenant, TimeUs now);
  void Forget(TimeUs now);
  bool Idle(Tenant& tenant, TimeUs now);

  const int64_t requests_max_, tokens_max_;
  TenantTable table_;
  Queue all_;
  Tenants tenants_;
  size_t forget_at_ = 64;  // Entries at which idle ones are looked for.
  RetryPromises::Counts forgotten_;
  std::array<uint64_t, kRefusedBy> refused_ = {};
};

}  // namespace fathom::scheduler
